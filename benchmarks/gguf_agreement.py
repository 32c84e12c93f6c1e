"""Cuántas respuestas greedy del GGUF son, letra por letra, las de transformers.

Uso:     python benchmarks/gguf_agreement.py
         python benchmarks/gguf_agreement.py --model model_nurse_final --questions 60
Lee:     una carpeta del paso 2 (la de «make demo») y los registros.
Escribe: nada; imprime una línea por tipo de GGUF. Los GGUF van a una carpeta temporal.
Tarda:   un par de minutos con el modelo de la demostración. No es para TinyLlama en una CPU.
No hace: no dice si las respuestas son buenas, solo si el GGUF cambia alguna.
"""

import shutil
import subprocess
import sys
import tempfile
from argparse import Namespace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import nurse_common as common  # noqa: E402
from nurse_engines import LlamaCppEngine, Sampling, TransformersEngine  # noqa: E402

ASKED = {"f16": 58, "q8_0": 54, "q4_0": 0}  # iguales de 60 que se piden; q4_0 solo informa
GREEDY = Sampling(temperature=0)


def answers(engine: object, questions: list[str]) -> list[str]:
    return ["".join(engine.stream(common.build_messages(text), GREEDY)) for text in questions]


def export(folder: Path, kind: str) -> Path:
    command = [ROOT / "03_export_model_nurse.py", "--model", folder, "--only", "gguf"]
    subprocess.run(
        [sys.executable, *command, "--gguf-type", kind], check=True, stdout=subprocess.DEVNULL
    )
    return folder.with_name(f"{folder.name}.gguf")


def parse_args(argv: list[str] | None) -> Namespace:
    parser = common.SpanishParser(__doc__)
    default = " (por defecto: %(default)s)"
    parser.add("--model", type=Path, default=common.MODEL_DIR, help="carpeta del paso 2" + default)
    parser.add("--questions", type=common.number(int, 1), default=60, help="cuántas" + default)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    rows, _ = common.load_records(common.DATA_FILE)
    # Repartidas por el archivo: al azar con la semilla de 01 saldrían justo los que 01 aparta.
    step = max(1, len(rows) // args.questions)
    chosen = rows[step // 2 :: step][: args.questions]
    questions = [common.question_of(row) for row in chosen]
    expected = answers(TransformersEngine(args.model, "cpu", "float32", "02"), questions)
    code = 0
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(shutil.copytree(args.model, Path(scratch) / "model_nurse_final"))
        for kind, asked in ASKED.items():
            engine = LlamaCppEngine(export(folder, kind))
            found = answers(engine, questions)
            del engine  # suelta el archivo: Windows no deja reemplazar uno abierto
            same = sum(a == b for a, b in zip(found, expected, strict=True))
            enough = same >= asked * len(questions) / 60
            code = code if enough else 1
            verdict = f"se piden {asked} de 60" if asked else "sin mínimo"
            print(f"{kind}: {same} de {len(questions)} respuestas iguales ({verdict}).", flush=True)
    return code


if __name__ == "__main__":
    common.run_script(main)
