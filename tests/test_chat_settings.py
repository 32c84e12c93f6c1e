"""Lo que el chat escribe y lee fuera de la pantalla: conversaciones, número y fichas."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, Result, run_process

ONLY = ("04_chat_nurse.py", "--records-only")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Carpeta personal propia."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    return tmp_path


def piped(text: str, *command: Any) -> Result:
    """Con la entrada redirigida."""
    arguments = [sys.executable, *map(str, command)]
    options = {"cwd": ROOT, "capture_output": True, "encoding": "utf-8", "timeout": 120}
    done = subprocess.run(arguments, input=text, **options)
    return Result(done.returncode, done.stdout, done.stderr)


def test_missing_model_offers_the_two_ways_out(tmp_path: Path) -> None:
    shown = run_process("04_chat_nurse.py", "--model", tmp_path / "model_nurse_final")
    assert shown.code == 1 and shown.out == ""
    assert "python 02_create_model_nurse.py" in shown.error and "--records-only" in shown.error


def test_saving(home: Path) -> None:
    """No pisa nada y dice por qué no puede."""
    (home / "mío.txt").write_text("importante", encoding="utf-8")
    names = ["", home / "mío.txt", home / "no" / "hay.txt", f'"{home / "otro archivo.txt"}"']
    text = "".join(f"/guardar {name}\n" for name in names)
    answers = piped(text, *ONLY).out.splitlines()
    for end in ("ya existe; elegir otro nombre.", "revisar la carpeta y sus permisos.",
                "Falta el nombre: /guardar ARCHIVO", "archivo.txt."):  # fmt: skip
        assert any(line.endswith(end) for line in answers), end
    assert (home / "mío.txt").read_text(encoding="utf-8") == "importante"
    first = (home / "otro archivo.txt").read_text(encoding="utf-8").splitlines()[0]
    assert re.fullmatch(r"Conversación del \d\d/\d\d/\d{4}, \d\d:\d\d\.", first)


def test_emergency_number(home: Path) -> None:
    """Se recuerda; lo que no es un número ni un país conocido es un uso incorrecto."""
    question = ("--question", "mi padre no respira")
    first = run_process(*ONLY, *question, "--emergency-number", "méxico")
    again = run_process(*ONLY, *question)
    for shown in (first, again):
        assert "llamar ahora al 911." in shown.out and "Llame al 911 ahora" in shown.out
    wrong = run_process(*ONLY, *question, "--emergency-number", "Narnia")
    assert wrong.code == 2 and "«Narnia» no es un número de emergencias" in wrong.err
    (home / ".tinyllama_nurse.json").write_text('["roto', encoding="utf-8")
    assert "llamar ahora al 112." in run_process(*ONLY, *question).out


def test_settings_that_cannot_be_written(home: Path) -> None:
    (home / ".tinyllama_nurse.json").mkdir()
    shown = run_process(*ONLY, "--question", "no respira", "--emergency-number", "Chile")
    assert (shown.code, shown.err) == (0, "") and "Llame al 131 ahora" in shown.out
    assert "No se pudo guardar el número: vale solo para esta conversación.\n" in shown.out


def test_unverified_records_are_refused(records_file: Path) -> None:
    """Los de la práctica sirven para entrenar, no para decir «ficha verificada»."""
    shown = run_process(*ONLY, "--data", records_file)
    assert shown.code == 1 and "línea 1: falta id, fuente o estilo" in shown.error
