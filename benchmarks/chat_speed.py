"""Tokens por segundo de nuestro chat sobre un GGUF, y del propio llama.cpp sin nuestra capa.

Uso: python benchmarks/chat_speed.py CARPETA_CON_SU_GGUF

Lo llama bench_export.py. Imprime una línea JSON.
"""

import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import nurse_common as common  # noqa: E402
from benchmarks.practice_export import QUESTION  # noqa: E402
from nurse_engines import Sampling, open_engine  # noqa: E402

TOKENS = 48  # por respuesta medida; el modelo recita 64 antes de callar


def measure_chat(path: Path) -> dict[str, float]:
    """La mediana de tres respuestas, y la de las razones con llama.cpp en cada una."""
    engine, _ = open_engine(path, "auto")
    sampling = Sampling(max_new_tokens=TOKENS, seed=common.SEED)
    chat = common.build_messages(QUESTION)  # la misma que la práctica
    list(engine.stream(chat, Sampling(max_new_tokens=1)))  # el prompt, calculado una vez
    ours, own = [], []
    for _ in range(3):
        stream = engine.stream(chat, sampling)
        next(stream)
        answered = time.perf_counter()
        for _ in stream:
            pass
        ours.append((TOKENS - 1) / (time.perf_counter() - answered))
        own.append(own_speed(engine, chat, sampling))
    return {
        "tokens_per_second": statistics.median(ours),
        "overhead": statistics.median(a / b for a, b in zip(ours, own, strict=True)),
    }


def own_speed(engine: Any, chat: list[common.Message], sampling: Any) -> float:
    """Tokens por segundo que dice llama.cpp con el mismo prompt y el mismo muestreo."""
    request = {
        "prompt": engine.encode(chat, True),
        "max_tokens": TOKENS,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "samplers": ["temperature", "top_p"],
        "seed": sampling.seed,
    }
    answers: list[Any] = []
    engine.server.handle_completions(request, answers.append)
    timings = answers[0]["timings"]
    # El reloj de llama.cpp arranca con el primer token ya elegido: son n - 1 intervalos.
    return (timings["predicted_n"] - 1) / timings["predicted_ms"] * 1000


if __name__ == "__main__":
    print(json.dumps(measure_chat(Path(sys.argv[1]))))
