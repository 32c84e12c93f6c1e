"""Lo que espera quien abre el chat: el paso 4 de verdad, en una pseudoterminal.

Uso: python benchmarks/terminal_times.py CARPETA_DEL_MODELO

Abre 04, hace una pregunta, espera la respuesta entera y hace otras tres de 60 tokens. Imprime una
línea JSON: segundos desde que se arranca el proceso hasta «Tú:», y desde Enter hasta la primera
palabra del modelo (la mediana de esas tres). Windows no tiene pseudoterminales: allí imprime {}.
"""

import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.practice_export import QUESTION  # noqa: E402

LONG_QUESTION = (  # 59 tokens con el vocabulario Llama-2
    "Ya la he enfriado veinte minutos y le quité los anillos, pero le han salido ampollas en dos "
    "dedos y dice que le duele mucho al moverlos. ¿Tengo que vendarla o ir ya mismo a urgencias?"
)
TYPED = 1  # segundos para que la terminal acabe de dibujar lo tecleado antes de pulsar Enter
PATIENCE = 120  # segundos sin ver lo esperado: algo va mal


def measure(model: Path) -> dict[str, float]:
    import pexpect

    with tempfile.TemporaryDirectory() as home:
        command = [str(ROOT / "04_chat_nurse.py"), "--model", str(model)]
        # Sin CPR, prompt_toolkit no espera respuestas que esta terminal no da.
        env = os.environ | {"HOME": home, "TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1"}
        options = {"env": env, "encoding": "utf-8", "timeout": PATIENCE, "dimensions": (60, 200)}
        start = time.perf_counter()
        child = pexpect.spawn(sys.executable, command, **options)
        child.expect_exact("Tú:")
        ready = time.perf_counter() - start
        waits = []
        for question in (QUESTION, LONG_QUESTION, LONG_QUESTION, LONG_QUESTION):
            child.send(question)
            time.sleep(TYPED)
            asked = time.perf_counter()
            child.send("\r")
            child.expect(r"Enfermero: \w")
            waits.append(time.perf_counter() - asked)
            child.expect_exact("Tú:")
        child.close(force=True)
    return {"start": ready, "first_token": statistics.median(waits[1:])}


if __name__ == "__main__":
    print(json.dumps({} if os.name == "nt" else measure(Path(sys.argv[1]))))
