"""El chat en una terminal de verdad, con la entrada y la salida redirigidas, y sin modelo.

Todo pasa en otro proceso, salvo el ajuste de líneas. Las pseudoterminales no existen en Windows:
allí se saltan. Con modelo se usa el diminuto de `conftest.py`; para detener una respuesta a la
mitad, un motor de guion que no termina nunca.
"""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, Result, run_process

pexpect = pytest.importorskip("pexpect")
pty = pytest.mark.skipif(os.name == "nt", reason="Windows no tiene pseudoterminales")

ONLY = ("04_chat_nurse.py", "--records-only")
PROMPT = "Tú:"
PASTE_START, PASTE_END = "\x1b[200~", "\x1b[201~"
SCRIPTED = """
import importlib, time
import nurse_common as common
chat = importlib.import_module("04_chat_nurse")

class Engine:
    label, context = "guion", 1000
    def count_tokens(self, messages):
        return 1
    def stream(self, messages, sampling):
        yield f"Recibo {len(messages)} mensajes. "
        while len(messages) == 1:
            time.sleep(0.01)

chat.open_model = lambda args: (Engine(), "modelo de guion")
common.run_script(lambda: chat.main([]))
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Carpeta personal propia; la terminal de quien ejecuta las pruebas no influye."""
    for name, value in {"HOME": tmp_path, "USERPROFILE": tmp_path, "TERM": "xterm-256color",
                        "PROMPT_TOOLKIT_NO_CPR": "1"}.items():  # fmt: skip
        monkeypatch.setenv(name, str(value))
    for name in ("NO_COLOR", "COLUMNS", "LINES"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def terminal_of(home: Path) -> Iterator[Callable[..., Any]]:
    """Abre un programa de Python en una pseudoterminal, ya en la primera pregunta."""
    opened = []

    def start(*command: Any, columns: int = 80) -> Any:
        arguments = [str(item) for item in command]
        options = {"cwd": ROOT, "encoding": "utf-8", "timeout": 8, "dimensions": (24, columns)}
        child = pexpect.spawn(sys.executable, arguments, **options)
        opened.append(child)
        child.expect_exact(PROMPT)
        child.start = child.before
        return child

    yield start
    for child in opened:
        child.close(force=True)


def say(child: Any, line: str, *expected: str) -> str:
    """Escribe una línea y espera, en orden, lo que debe verse y otra pregunta."""
    child.send(line + "\r")
    seen = ""
    for text in (*expected, PROMPT):
        child.expect_exact(text)
        seen += child.before + child.after
    return seen


def leave(child: Any, key: str) -> int:
    """Pulsa la tecla con que se sale; comprueba la despedida y devuelve el código."""
    child.sendcontrol(key)
    child.expect_exact("Hasta luego.")
    child.expect(pexpect.EOF)
    assert "Traceback" not in child.before
    child.close()
    return child.exitstatus


def transcript(child: Any, home: Path) -> list[str]:
    """Líneas de la conversación guardada con /guardar."""
    say(child, f"/guardar {home / 'c.txt'}", "guardada en")
    return (home / "c.txt").read_text(encoding="utf-8").splitlines()


@pty
def test_typing_editing_and_history(terminal_of: Callable[..., Any], home: Path) -> None:
    """Retroceso corrige, flecha arriba recupera, una línea vacía no es nada; Ctrl-D, código 0."""
    child = terminal_of(*ONLY)
    say(child, "/ficha 13\x7f2", "Ficha verificada PA-0012", "Fuente:")
    child.send("\r   \r")
    say(child, "\x1b[A", "Ficha verificada PA-0012", "Fuente:")
    asked = [line for line in transcript(child, home) if line.startswith(PROMPT)]
    assert asked[:2] == ["Tú: /ficha 12"] * 2 and len(asked) == 3
    assert leave(child, "d") == 0


@pty
def test_ctrl_c_at_the_prompt(terminal_of: Callable[..., Any]) -> None:
    child = terminal_of(*ONLY)
    child.send("a medio escribir")
    assert leave(child, "c") == 130


@pty
def test_pasted_lines_are_one_question(terminal_of: Callable[..., Any], home: Path) -> None:
    child = terminal_of(*ONLY)
    lines = "Mi hermano se ha quemado\nla mano con aceite.\n\n¿Qué hago?"
    say(child, f"{PASTE_START}{lines}{PASTE_END}", "Fuente:")
    asked = [line for line in transcript(child, home) if line.startswith(PROMPT)]
    assert asked[0] == "Tú: Mi hermano se ha quemado la mano con aceite. ¿Qué hago?"
    assert asked[1].startswith("Tú: /guardar")


@pty
def test_ctrl_c_in_the_middle_of_an_answer(terminal_of: Callable[..., Any], home: Path) -> None:
    child = terminal_of("-c", SCRIPTED)
    child.send("zzz uno\r")
    child.expect_exact("Recibo 1 mensajes.")
    child.sendcontrol("c")
    child.expect_exact("(respuesta detenida)")
    child.expect_exact(PROMPT)
    say(child, "zzz dos", "Recibo 3 mensajes.")
    assert transcript(child, home)[2:] == [
        "modelo de guion",
        "AVISO: esto no es un profesional sanitario y puede equivocarse. En una emergencia, "
        "llamar ahora al 112.",
        "Escribir la pregunta. «nuevo» empieza de cero, «salir» termina, /ayuda da las órdenes.",
        "",
        "Tú: zzz uno",
        "Enfermero: Recibo 1 mensajes.",
        "(respuesta detenida)",
        "Ninguna ficha verificada trata esta pregunta.",
        "",
        "Tú: zzz dos",
        "Enfermero: Recibo 3 mensajes.",
        "Ninguna ficha verificada trata esta pregunta.",
        "",
        f"Tú: /guardar {home / 'c.txt'}",
    ]
    assert leave(child, "c") == 130


@pty
def test_narrow_window_and_resize(terminal_of: Callable[..., Any]) -> None:
    """Ninguna línea pasa del ancho, ni de salida ni tras cambiarlo entre dos respuestas."""
    child = terminal_of(*ONLY, columns=24)
    assert max(map(len, plain(child.start))) <= 24
    child.setwinsize(24, 50)
    seen = say(child, "/ficha 12", "Fuente:")
    widths = [len(line) for line in plain(seen)]
    assert 24 < max(widths) <= 50


def plain(text: str) -> list[str]:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).splitlines()


@pty
@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb"), ("LANG", "C")])
def test_colour_is_never_the_only_signal(
    terminal_of: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """Con color o sin él, el rótulo va delante."""
    monkeypatch.setenv(name, value)
    child = terminal_of(*ONLY)
    seen = say(child, "mi padre no respira", "EMERGENCIA: Llame al 112", "Ficha verificada")
    assert ("\x1b[1;31mEMERGENCIA:" in seen) == (name == "LANG")
    assert ("\x1b[36mFicha" in seen) == (name == "LANG")


@pty
def test_real_model(terminal_of: Callable[..., Any], merged: Path) -> None:
    child = terminal_of("04_chat_nurse.py", "--model", merged, "--greedy", columns=200)
    assert re.match(r"TinyLlama Nurse: base \S+, pesos [0-9a-f]{12}\. Motor: transf", child.start)
    say(child, "¿Qué hago ante una picadura de abeja?", "Enfermero: ")
    say(child, "/estado", "Turnos recordados: 1 (")
    assert leave(child, "d") == 0


def test_piped_questions_with_the_real_model(merged: Path, home: Path) -> None:
    """La misma semilla da lo mismo; sin terminal no hay color ni líneas partidas."""
    command = ["04_chat_nurse.py", "--model", merged, "--seed", 5, "--max-new-tokens", 20]
    first, again = (piped("¿Qué hago ante una quemadura?\n\ny después", *command) for _ in "12")
    assert first == again and (first.code, first.err) == (0, "")
    assert re.findall(r"^Tú: .*", first.out, re.M) == [
        "Tú: ¿Qué hago ante una quemadura?", "Tú: y después",
    ]  # fmt: skip
    assert first.out.count("Enfermero:") == 2 and first.out.endswith("\nHasta luego.\n")
    assert "\x1b" not in first.out


def piped(text: str, *command: Any) -> Result:
    """Con la entrada redirigida."""
    arguments = [sys.executable, *map(str, command)]
    options = {"cwd": ROOT, "capture_output": True, "encoding": "utf-8", "timeout": 120}
    done = subprocess.run(arguments, input=text, **options)
    return Result(done.returncode, done.stdout, done.stderr)


BLOCKED = """
import importlib, sys
for name in ("torch transformers tokenizers safetensors huggingface_hub peft datasets accelerate "
             "sentencepiece gguf xllamacpp scipy pandas matplotlib sklearn prompt_toolkit").split():
    sys.modules[name] = None  # importarlo da ImportError
import nurse_common as common
common.run_script(importlib.import_module("04_chat_nurse").main)
"""


def test_records_only_needs_no_model_nor_its_packages(home: Path) -> None:
    shown = run_process("-c", BLOCKED, "--records-only", "--question", "mi padre no respira")
    assert (shown.code, shown.err) == (0, "")
    lines = shown.out.splitlines()
    assert lines[0] == "TinyLlama Nurse: solo fichas verificadas, sin modelo."
    starts = ("AVISO: esto no es", "EMERGENCIA: Llame al 112 ahora", "Ficha verificada PA-")
    assert all(line.startswith(start) for line, start in zip(lines[1:], starts, strict=False))


@pty
def test_without_prompt_toolkit(terminal_of: Callable[..., Any]) -> None:
    """Como en una consola que prompt_toolkit no conoce: se pregunta con `input`."""
    child = terminal_of("-c", BLOCKED, "--records-only")
    say(child, "/ficha 12", "Ficha verificada PA-0012", "Fuente:")
    assert leave(child, "d") == 0


def test_old_windows_console_redirected_to_a_file(home: Path) -> None:
    """cp1252 no tiene ese dibujo ni esa flecha: se cambian por «?», sin fallar."""
    out = home / "salida.txt"
    with out.open("wb") as file:
        code = subprocess.run(
            [sys.executable, *ONLY],
            cwd=ROOT,
            env=os.environ | {"PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0"},
            input="¿Quemadura? \u2192 \U0001f525\n/ayuda\n".encode(),
            stdout=file,
            stderr=subprocess.STDOUT,
            timeout=120,
        ).returncode
    text = out.read_text(encoding="cp1252")
    assert code == 0 and "Traceback" not in text
    assert "órdenes" in text and text.rstrip().endswith("Hasta luego.")


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
