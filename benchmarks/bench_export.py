"""Compara el zip, el GGUF y el chat en CPU de este proyecto con los de la práctica.

Uso:     python benchmarks/bench_export.py
         python benchmarks/bench_export.py --runs 5 --work /otro/disco
Lee:     el vocabulario Llama-2 (--tokenizer; por defecto ../shared/tokenizer/tokenizer.model si
         está, y si no el de modelo_base_mini/).
Escribe: una tabla en la terminal y su sección de benchmarks/RESULTS.md.
Tarda:   unos 10 minutos en 2 núcleos; pide 12 GB de disco y 6 GB de memoria.
No hace: no mide la calidad de las respuestas (tinyllama_shape.py dice qué modelo es).

Cada ronda mide todo una vez, uno detrás de otro; la razón es la mediana de las razones de cada
ronda, para que un rato de máquina ocupada afecte igual a los dos lados. RESULTS.md guarda una
sección por clase de CPU, porque las razones cambian con sus instrucciones.
"""

import json
import os
import platform
import re
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

TOKENIZERS = (
    ROOT.parent / "shared" / "tokenizer" / "tokenizer.model",
    common.MINI_BASE_DIR / "tokenizer.model",
)
HERE = ROOT / "benchmarks"
RESULTS = HERE / "RESULTS.md"
ROWS = (  # trabajo, medida de la práctica, la nuestra, decimales, pedido en el mismo equipo
    ("zip, segundos (práctica, estimados)", "zip_practice", "zip", ".1f", "≥ 40 ×"),
    ("zip, GB (práctica, estimados)", "zip_practice_size", "zip_size", ".2f", "≤ 0,85 ×"),
    ("zip, GB de memoria", "", "zip_memory", ".2f", ""),
    ("GGUF Q8_0, segundos", "", "gguf_q8_0", ".1f", "≤ 45"),
    ("GGUF Q8_0, GB de memoria", "", "gguf_q8_0_memory", ".2f", "≤ 1,5"),
    ("GGUF Q4_0, segundos", "", "gguf_q4_0", ".1f", ""),
    ("GGUF Q4_0, GB de memoria", "", "gguf_q4_0_memory", ".2f", ""),
    ("chat Q8_0, tokens/s", "speed_practice", "tokens_per_second_q8_0", ".1f", "≥ 5 ×"),
    ("chat Q4_0, tokens/s", "speed_practice", "tokens_per_second_q4_0", ".1f", "≥ 8 ×"),
    ("chat Q8_0, GB de memoria", "chat_practice_memory", "chat_q8_0_memory", ".2f", ""),
    ("chat Q8_0, sus tokens/s entre los de llama.cpp solo", "", "overhead_q8_0", ".2f", "≥ 0,95"),
    ("de Enter a la primera palabra, segundos", "", "first_token", ".2f", "≤ 1,5"),
    ("de arrancar el chat a «Tú:», segundos", "start_practice", "start", ".1f", "≤ 3"),
)
SECONDS = ("zip_practice", "start_practice")  # aquí menos es mejor


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


def measure(work: Path) -> dict[str, Any]:
    """Una ronda: cada medida, una vez. `cpu` es la clase de CPU; lo demás, segundos, bytes o GB."""
    practice, ours = work / "practica", work / "model_nurse_final"
    row: dict[str, Any] = {}
    baseline, export = HERE / "practice_export.py", ROOT / "03_export_model_nurse.py"
    result = json.loads(run(baseline, "zip", practice)[2])
    row["zip_practice"], row["zip_practice_size"] = result["seconds"], result["size"] / 1e9
    row["zip"], row["zip_memory"], *_ = run(export, "--model", ours, "--only", "zip")
    row["zip_size"] = ours.with_suffix(".zip").stat().st_size / 1e9
    _, row["chat_practice_memory"], line, start = run(baseline, "chat", practice)
    result = json.loads(line)
    row["start_practice"] = result["ready"] - start
    row["speed_practice"], row["cpu"] = result["tokens_per_second"], result["cpu"]
    for kind in ("q4_0", "q8_0"):
        command = (export, "--model", ours, "--only", "gguf", "--gguf-type", kind)
        row[f"gguf_{kind}"], row[f"gguf_{kind}_memory"], *_ = run(*command)
        _, row[f"chat_{kind}_memory"], line, _ = run(HERE / "chat_speed.py", ours)
        for name, value in json.loads(line).items():
            row[f"{name}_{kind}"] = value
    row |= json.loads(run(HERE / "terminal_times.py", ours)[2])  # con el Q8_0
    return row


def table(rows: list[dict[str, Any]]) -> str:
    """La tabla de resultados, en Markdown."""
    lines = ["| trabajo | la práctica | este proyecto | razón | pedido |", "|---|---|---|---|---|"]
    for work, before, now, digits, asked in ROWS:
        cells = [work, middle(rows, before, digits), middle(rows, now, digits)]
        lines.append(f"| {' | '.join([*cells, ratio(rows, before, now), asked])} |")
    return "\n".join(lines)


def middle(rows: list[dict[str, Any]], name: str, digits: str) -> str:
    values = [row[name] for row in rows if row.get(name) is not None]
    return format(statistics.median(values), digits) if values else "—"


def ratio(rows: list[dict[str, Any]], before: str, now: str) -> str:
    """Cuántas veces es lo nuestro lo de la práctica; en segundos, cuántas veces más rápido."""
    if any(row.get(name) is None for row in rows for name in (before, now)):
        return ""
    values = [row[now] / row[before] for row in rows]
    if before in SECONDS:
        values = [1 / value for value in values]
    low, half, high = (f(values) for f in (min, statistics.median, max))
    digits = ".2f" if half < 1 else ".1f"
    return f"{half:{digits}} × ({low:{digits}} a {high:{digits}})"


def write_results(title: str, text: str) -> None:
    """Sustituye en RESULTS.md la sección de esta clase de CPU y deja las demás."""
    old = RESULTS.read_text(encoding="utf-8") if RESULTS.is_file() else "# Resultados\n"
    rest = re.sub(rf"{re.escape(title)}\n.*?(?=^## |\Z)", "", old, flags=re.DOTALL | re.MULTILINE)
    content = f"{rest.rstrip()}\n\n{title}\n\n{text}\n"
    RESULTS.write_text(content, encoding="utf-8", newline="\n")


def parse_args(argv: list[str] | None) -> Namespace:
    parser = common.SpanishParser(__doc__)
    found = next((path for path in TOKENIZERS if path.is_file()), None)
    parser.add("--runs", type=common.number(int, 1), default=3, help="rondas (por defecto: 3)")
    parser.add("--work", type=Path, help="carpeta con 12 GB libres (por defecto, la temporal)")
    parser.add("--tokenizer", type=Path, default=found, help="tokenizer.model (Llama-2)")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    if not args.tokenizer:
        common.fail("No encuentro ningún tokenizer.model. Indicarlo con --tokenizer.")
    with tempfile.TemporaryDirectory(dir=args.work) as scratch:
        # En otro proceso: la memoria máxima de un hijo cuenta la que tuviera su padre.
        run(HERE / "tinyllama_shape.py", scratch, args.tokenizer)
        rows = []
        for number in range(args.runs):
            rows.append(measure(Path(scratch)))
            print(f"Ronda {number + 1} de {args.runs} hecha.", flush=True)
    text = (
        f"`python benchmarks/bench_export.py`: mediana de {args.runs} rondas, {os.cpu_count()} CPU "
        f"({platform.machine()}, {platform.system()}), forma de TinyLlama con pesos al azar; entre "
        "paréntesis, la menor y la mayor. El zip de la práctica se extrapola de una muestra de "
        "64 MiB repartida por sus 4,4 GB. Las dos últimas filas son el paso 4 entero en una "
        "terminal, con el GGUF Q8_0: preguntas de 60 tokens después del primer turno; y hasta "
        "poder escribir (la práctica, hasta tener el modelo cargado).\n\n"
    )
    print(text + table(rows))
    write_results(f"## Exportar y conversar en una CPU {rows[0]['cpu']}", text + table(rows))
    return 0


if __name__ == "__main__":
    common.run_script(main)
