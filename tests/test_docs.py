"""README y DATOS.md dicen lo mismo que el código y los datos."""

import json
import re
import shlex
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DATOS = (ROOT / "DATOS.md").read_text(encoding="utf-8")
ROWS = [
    json.loads(line)
    for line in (ROOT / "primeros_auxilios_500.jsonl").read_text(encoding="utf-8").splitlines()
]
SCRIPTS = sorted(path.name for path in ROOT.glob("0[1-4]_*.py"))


def readme_commands() -> list[str]:
    """Cada orden «python …» que el README manda escribir."""
    return sorted(set(re.findall(r"python (?:[\w/]+/)?[\w/]+\.py[^`\n]*", README)))


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_is_spanish_and_names_every_readme_flag(script: str) -> None:
    shown = subprocess.run(
        [sys.executable, str(ROOT / script), "--help"],
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=True,
    ).stdout
    assert shown.startswith("uso: ") and "opciones:" in shown
    used = {
        word
        for command in readme_commands()
        if script in command
        for word in shlex.split(command)
        if word.startswith("--")
    }
    assert used <= set(re.findall(r"--[\w-]+", shown))


def test_readme_commands_name_existing_files() -> None:
    files = {word for command in readme_commands() for word in command.split() if ".py" in word}
    assert files and all((ROOT / name).is_file() for name in files)


def test_make_demo_and_windows_commands_train_alike() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    flags = re.search(r"^DEMO_FLAGS := (.+)$", makefile, re.MULTILINE)
    assert flags and f"python 01_train_lora.py {flags[1]}\n" in README


def test_readme_targets_exist_in_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^(?:`)?make (\w+)", README, re.MULTILINE))
    assert {"demo", "test"} <= targets
    assert all(re.search(rf"^{name}:", makefile, re.MULTILINE) for name in targets)


def test_datos_topic_table_matches_the_records() -> None:
    for topic, total in Counter(row["tema"] for row in ROWS).items():
        levels = Counter(row["gravedad"] for row in ROWS if row["tema"] == topic)
        cells = [total, *(levels[name] for name in ("leve", "moderada", "grave", "vital"))]
        assert f"| `{topic}` | {' | '.join(map(str, cells))} |" in DATOS


def test_datos_style_and_population_tables_match_the_records() -> None:
    for style, total in Counter(row["estilo"] for row in ROWS).items():
        assert f"| `{style}` | {total} |" in DATOS
    for population, total in Counter(row["poblacion"] for row in ROWS).items():
        assert re.search(rf"\| {population}, [^|]+ \| {total} \|", DATOS)
