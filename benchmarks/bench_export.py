"""Compara el zip, el GGUF y el chat en CPU de este proyecto con los de la práctica.

Uso:     python benchmarks/bench_export.py
         python benchmarks/bench_export.py --runs 5 --work /otro/disco
Lee:     el vocabulario Llama-2 (--tokenizer; por defecto ../shared/tokenizer/tokenizer.model si
         está, y si no el de modelo_base_mini/).
Escribe: una tabla en la terminal y su sección de benchmarks/RESULTS.md.
Tarda:   unos 10 minutos en 2 núcleos; pide 12 GB de disco y 6 GB de memoria.
No hace: no mide la calidad de las respuestas (los pesos son al azar, con la forma de TinyLlama).

Cada ronda mide todo una vez, uno detrás de otro; la razón es la mediana de las razones de cada
ronda, para que un rato de máquina ocupada afecte igual a los dos lados.
"""

import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import nurse_common as common  # noqa: E402
from benchmarks.practice_export import QUESTION  # noqa: E402

TOKENIZERS = (
    ROOT.parent / "shared" / "tokenizer" / "tokenizer.model",
    common.MINI_BASE_DIR / "tokenizer.model",
)
RESULTS = ROOT / "benchmarks" / "RESULTS.md"
TITLE = "## Exportar y conversar en CPU"
TOKENS = 48  # por respuesta medida
ANSWER = "1. Aparte la mano del agua.\n2. Enfríela 20 minutos.\n3. Cubra sin apretar."
LONG_QUESTION = (  # 59 tokens con el vocabulario Llama-2
    "Ya la he enfriado veinte minutos y le quité los anillos, pero le han salido ampollas en dos "
    "dedos y dice que le duele mucho al moverlos. ¿Tengo que vendarla o ir ya mismo a urgencias?"
)
SHAPE = {
    "vocab_size": 32000,
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "num_hidden_layers": 22,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-5,
}


def make_models(work: Path, tokenizer_model: Path) -> None:
    """`practica/` en fp32 y `model_nurse_final/` en fp16, con los mismos pesos.

    Como en la realidad: base publicada en bf16 (comprime mejor) y q y v movidos por LoRA en fp32.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, LlamaTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    practice, ours = work / "practica", work / "model_nurse_final"
    practice.mkdir()
    shutil.copyfile(tokenizer_model, practice / "tokenizer.model")
    tokenizer = LlamaTokenizer.from_pretrained(practice, legacy=True)
    tokenizer.init_kwargs["legacy"] = True
    tokenizer.chat_template = common.CHAT_TEMPLATE
    tokenizer.save_pretrained(practice)
    torch.manual_seed(common.SEED)
    model = LlamaForCausalLM(LlamaConfig(bos_token_id=1, eos_token_id=2, **SHAPE))
    model = model.bfloat16().float()
    for name, weight in model.named_parameters():
        if "q_proj" in name or "v_proj" in name:
            weight.data += torch.randn_like(weight) * 1e-4
    model.save_pretrained(practice)
    model.half().save_pretrained(ours)
    tokenizer.save_pretrained(ours)
    shutil.copyfile(tokenizer_model, ours / "tokenizer.model")
    manifest = {
        "weights_sha256": common.sha256_file(ours / "model.safetensors"),
        "prompt_sha256": common.prompt_hash(),
        "base_model": {"name": "pesos al azar", "revision": None, "sha256": "0" * 64},
        "license": "other",
    }
    common.write_json(ours / "manifest.json", manifest)


def run(*command: Any) -> tuple[float, float | None, str, float]:
    """(segundos, GB de memoria máxima, última línea, hora de inicio) de un proceso hijo."""
    with tempfile.TemporaryFile("w+", encoding="utf-8") as out, tempfile.TemporaryFile() as err:
        start = time.time()
        child = subprocess.Popen(
            [sys.executable, *map(str, command)],
            cwd=ROOT,
            stdout=out,
            stderr=err,
            env=os.environ | {"PYTHONUTF8": "1"},
        )
        peak = None
        if hasattr(os, "wait4"):  # Windows no dice la memoria máxima de un hijo
            _, status, usage = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
            peak = usage.ru_maxrss * (1 if platform.system() == "Darwin" else 1024) / 1e9
        else:
            child.wait()
        seconds = time.time() - start
        out.seek(0)
        err.seek(0)
        if child.returncode:
            sys.exit(err.read().decode("utf-8", "replace"))
        return seconds, peak, out.read().strip().splitlines()[-1], start


def measure_chat(path: Path) -> dict[str, float]:
    """Nuestro chat sobre un GGUF, y el propio llama.cpp sin nuestra capa."""
    from nurse_engines import Sampling, open_engine

    common.load_records(common.DATA_FILE)  # el chat también los lee antes de preguntar
    engine, _ = open_engine(path, "auto")
    ready = time.time()
    sampling = Sampling(max_new_tokens=TOKENS, seed=common.SEED)
    # Primer turno ya contestado: lo que diría un modelo entrenado (al azar no sale texto).
    chat = common.build_messages(QUESTION, ANSWER)
    list(engine.stream([*chat, *common.build_messages("¿Y?")], Sampling(max_new_tokens=1)))
    chat += common.build_messages(LONG_QUESTION)
    first_token, ours, own = 0.0, [], []
    for _ in range(3):
        asked = time.perf_counter()
        stream = engine.stream(chat, sampling)
        next(stream)
        answered = time.perf_counter()
        first_token = first_token or answered - asked  # la siguiente ya está en la memoria
        for _ in stream:
            pass
        ours.append((TOKENS - 1) / (time.perf_counter() - answered))
        own.append(own_speed(engine, chat, sampling))
    return {
        "ready": ready,
        "first_token": first_token,
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


def token_bytes(path: Path) -> int:
    """Bytes de pesos que pide cada token: todos menos los embeddings, que dan solo una fila."""
    from gguf import GGUFReader

    tensors = GGUFReader(path).tensors
    return sum(int(item.n_bytes) for item in tensors if item.name != "token_embd.weight")


def measure(work: Path) -> dict[str, float]:
    """Una ronda: cada medida, una vez."""
    practice, ours = work / "practica", work / "model_nurse_final"
    row: dict[str, float] = {}
    baseline, export = ROOT / "benchmarks" / "practice_export.py", ROOT / "03_export_model_nurse.py"
    result = json.loads(run(baseline, "zip", practice)[2])
    row["zip_practice"], row["zip_practice_size"] = result["seconds"], result["size"]
    row["zip"], row["zip_memory"], *_ = run(export, "--model", ours, "--only", "zip")
    row["zip_size"] = ours.with_suffix(".zip").stat().st_size
    _, row["chat_practice_memory"], line, start = run(baseline, "chat", practice)
    result = json.loads(line)
    row["start_practice"] = result["ready"] - start
    row["speed_practice"] = result["tokens_per_second"]
    row["bandwidth"] = float(run(ROOT / "benchmarks" / "memory_bandwidth.py")[2])
    for kind in ("q4_0", "q8_0"):
        command = (export, "--model", ours, "--only", "gguf", "--gguf-type", kind)
        row[f"gguf_{kind}"], row[f"gguf_{kind}_memory"], *_ = run(*command)
        row[f"limit_{kind}"] = row["bandwidth"] / token_bytes(ours.with_suffix(".gguf"))
        _, row[f"chat_{kind}_memory"], line, start = run(Path(__file__), "--chat", ours)
        result = json.loads(line)
        row[f"start_{kind}"] = result["ready"] - start
        for name in ("tokens_per_second", "first_token", "overhead"):
            row[f"{name}_{kind}"] = result[name]
    return row


def table(rows: list[dict[str, float]]) -> str:
    """La tabla de resultados, en Markdown."""

    def middle(name: str) -> float:
        return statistics.median(row[name] or 0 for row in rows)

    def ratio(above: str, below: str) -> float:
        return statistics.median(row[above] / row[below] for row in rows)

    def memory(name: str) -> str:
        return f"{middle(name):.2f} GB" if middle(name) else "—"

    zip_size = f"{middle('zip_practice_size') / 1e9:.2f} GB", f"{middle('zip_size') / 1e9:.2f} GB"
    lines = [
        "| trabajo | la práctica | este proyecto | razón | pedido | memoria máxima |",
        "|---|---|---|---|---|---|",
        f"| zip, tiempo | {middle('zip_practice'):.0f} s (estimado) | {middle('zip'):.1f} s "
        f"| {ratio('zip_practice', 'zip'):.0f} × | ≥ 40 × | {memory('zip_memory')} |",
        f"| zip, tamaño | {zip_size[0]} (estimado) | {zip_size[1]} "
        f"| {ratio('zip_size', 'zip_practice_size'):.2f} × | ≤ 0,85 × | |",
        f"| GGUF Q8_0 | — | {middle('gguf_q8_0'):.1f} s | | ≤ 45 s; ≤ 1,5 GB "
        f"| {memory('gguf_q8_0_memory')} |",
        f"| GGUF Q4_0 | — | {middle('gguf_q4_0'):.1f} s | | | {memory('gguf_q4_0_memory')} |",
    ]
    for kind, asked in (("q8_0", "≥ 5 ×"), ("q4_0", "≥ 8 ×")):
        lines.append(
            f"| chat {kind.upper()}, tokens/s | {middle('speed_practice'):.1f} "
            f"| {middle(f'tokens_per_second_{kind}'):.1f} "
            f"| {ratio(f'tokens_per_second_{kind}', 'speed_practice'):.1f} × (leyendo a toda "
            f"velocidad: {ratio(f'limit_{kind}', 'speed_practice'):.1f} ×) | {asked} "
            f"| {memory(f'chat_{kind}_memory')} (práctica {memory('chat_practice_memory')}) |"
        )
    lines += [
        f"| chat Q8_0 / llama.cpp solo | — | {middle('overhead_q8_0'):.2f} | | ≥ 0,95 | |",
        f"| pregunta de 60 tokens, segundo turno: primer token | — "
        f"| {middle('first_token_q8_0'):.2f} s | | ≤ 1,5 s | |",
        f"| proceso nuevo, modelo abierto | {middle('start_practice'):.1f} s | "
        f"{middle('start_q8_0'):.1f} s | {ratio('start_practice', 'start_q8_0'):.0f} × | ≤ 3 s | |",
    ]
    return "\n".join(lines)


def write_results(text: str) -> None:
    """Sustituye en RESULTS.md la sección de este programa y deja las demás."""
    old = RESULTS.read_text(encoding="utf-8") if RESULTS.is_file() else "# Resultados\n"
    rest = re.sub(rf"{re.escape(TITLE)}\n.*?(?=^## |\Z)", "", old, flags=re.DOTALL | re.MULTILINE)
    content = f"{rest.rstrip()}\n\n{TITLE}\n\n{text}\n"
    RESULTS.write_text(content, encoding="utf-8", newline="\n")


def parse_args(argv: list[str] | None) -> Namespace:
    parser = common.SpanishParser(__doc__)
    found = next((path for path in TOKENIZERS if path.is_file()), None)
    parser.add("--runs", type=common.number(int, 1), default=3, help="rondas (por defecto: 3)")
    parser.add("--work", type=Path, help="carpeta con 12 GB libres (por defecto, la temporal)")
    parser.add("--tokenizer", type=Path, default=found, help="tokenizer.model (Llama-2)")
    parser.add("--make", type=Path, help="crea ahí los modelos y termina (uso interno)")
    parser.add("--chat", type=Path, help="mide el chat de esa carpeta y termina (uso interno)")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    if not args.tokenizer:
        common.fail("No encuentro ningún tokenizer.model. Indicarlo con --tokenizer.")
    if args.make:
        make_models(args.make, args.tokenizer)
        print("hecho")
        return 0
    if args.chat:
        print(json.dumps(measure_chat(args.chat)))
        return 0
    with tempfile.TemporaryDirectory(dir=args.work) as scratch:
        # En otro proceso: la memoria máxima de un hijo cuenta la que tuviera su padre.
        run(Path(__file__), "--make", scratch, "--tokenizer", args.tokenizer)
        rows = []
        for number in range(args.runs):
            rows.append(measure(Path(scratch)))
            print(f"Ronda {number + 1} de {args.runs} hecha.", flush=True)
    text = (
        f"`python benchmarks/bench_export.py`: mediana de {args.runs} rondas, {os.cpu_count()} CPU "
        f"({platform.machine()}, {platform.system()}), forma de TinyLlama con pesos al azar. El "
        "zip de la práctica se extrapola de una muestra de 64 MiB repartida por sus 4,4 GB. El "
        "arranque y el primer token son los del motor, sin la terminal del paso 4; el primer "
        "turno ya contestado es un texto fijo, porque con pesos al azar no sale ninguno. "
        "«Leyendo a toda velocidad»: los bytes por segundo que torch lee de la memoria, entre los "
        "bytes de pesos que pide cada token (todos menos los embeddings).\n\n" + table(rows)
    )
    print(text)
    write_results(text)
    return 0


if __name__ == "__main__":
    common.run_script(main)
