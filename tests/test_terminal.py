"""El chat en una terminal de verdad, con la entrada y la salida redirigidas, y sin modelo.

Todo pasa en otro proceso, salvo el ajuste de líneas. Las pseudoterminales no existen en Windows:
allí se saltan. Con modelo se usa el diminuto de `conftest.py`; para detener una respuesta a la
mitad, un motor de guion que no termina nunca.
"""

import io
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, run_process

import nurse_terminal as terminal

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
    monkeypatch.delenv("NO_COLOR", raising=False)
    return tmp_path


@pytest.fixture
def terminal_of(home: Path) -> Iterator[Callable[..., Any]]:
    """Abre un programa de Python en una pseudoterminal, ya en la primera pregunta."""
    opened = []

    def start(*command: Any, columns: int = 80) -> Any:
        arguments = [str(item) for item in command]
        options = {"cwd": ROOT, "encoding": "utf-8", "timeout": 60, "dimensions": (24, columns)}
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
    child.send("\r")
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
    child.send("wkrq uno\r")
    child.expect_exact("Recibo 1 mensajes.")
    child.sendcontrol("c")
    child.expect_exact("(respuesta detenida)")
    child.expect_exact(PROMPT)
    say(child, "wkrq dos", "Recibo 3 mensajes.")
    assert transcript(child, home)[2:] == [
        "modelo de guion",
        "AVISO: esto no es un profesional sanitario y puede equivocarse. En una emergencia, "
        "llamar ahora al 112.",
        "Escribir la pregunta. «nuevo» empieza de cero, «salir» termina, /ayuda da las órdenes.",
        "",
        "Tú: wkrq uno",
        "Enfermero: Recibo 1 mensajes.",
        "(respuesta detenida)",
        "Ninguna ficha verificada trata esta pregunta.",
        "",
        "Tú: wkrq dos",
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


def test_words_wider_than_the_window(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """La terminal parte la palabra; lo que sigue aprovecha el resto de su última línea."""
    screen = terminal.Screen()
    monkeypatch.setattr(terminal.os, "get_terminal_size", lambda _: os.terminal_size((8, 24)))
    monkeypatch.setattr(screen, "terminal", True)
    monkeypatch.setattr(sys.stdout, "fileno", lambda: 1)
    pieces = ["a electro", "encefalograma sí\n", "  u\u0301", " \U0001f600 bcd e  \noctosíla b"]
    screen.stream("E: ", pieces)
    lines = ["E: a", "electroencefalograma sí", "  u\u0301 \U0001f600", "bcd e", "octosílab"]
    assert capsys.readouterr().out.splitlines() == lines
    assert screen.log == ["E: " + "".join(pieces)]


def test_the_label_is_shown_before_the_first_word(capsys: pytest.CaptureFixture[str]) -> None:
    """Leer la pregunta tarda un segundo: mientras tanto se ve que está en marcha."""
    shown = []

    def pieces() -> Iterator[str]:
        shown.append(capsys.readouterr().out)
        yield "hola"

    terminal.Screen().stream("Enfermero: ", pieces())
    assert (shown, capsys.readouterr().out) == (["Enfermero:"], " hola\n")


def plain(text: str) -> list[str]:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).splitlines()


@pty
@pytest.mark.parametrize(
    ("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb"), ("COLORTERM", "truecolor")]
)
def test_colour_is_never_the_only_signal(
    terminal_of: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """Con color o sin él, el rótulo va delante."""
    monkeypatch.setenv(name, value)
    child = terminal_of(*ONLY)
    seen = say(child, "mi padre no respira", "EMERGENCIA: Llame al 112", "Ficha verificada")
    assert ("\x1b[1;31mEMERGENCIA:" in seen) == (name == "COLORTERM")


@pty
def test_real_model(terminal_of: Callable[..., Any], merged: Path) -> None:
    child = terminal_of("04_chat_nurse.py", "--model", merged, "--greedy", columns=200)
    assert re.match(r"TinyLlama Nurse: base \S+, pesos [0-9a-f]{12}\. Motor: transf", child.start)
    say(child, "¿Qué hago ante una picadura de abeja?", "Enfermero:")
    say(child, "/estado", "Turnos recordados: 1 (")
    assert leave(child, "d") == 0


def test_piped_questions_with_the_real_model(
    merged: Path, home: Path, run_main: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """La misma semilla da lo mismo; sin terminal no hay color ni líneas partidas."""
    options = ("--model", merged, "--seed", 5, "--max-new-tokens", 20)
    runs = []
    for _ in range(2):
        monkeypatch.setattr(sys, "stdin", io.StringIO("¿Qué es una quemadura?\n\ny después"))
        runs.append(run_main("04_chat_nurse", *options))
    first = runs[0]
    assert first == runs[1] and (first.code, first.err) == (0, "")
    asked = ["Tú: ¿Qué es una quemadura?", "Tú: y después"]
    assert re.findall(r"^Tú: .*", first.out, re.M) == asked
    assert first.out.count("Enfermero:") == 2 and first.out.endswith("\nHasta luego.\n")
    assert "\x1b" not in first.out


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
    starts = ["TinyLlama Nurse: solo fichas verificadas, sin modelo.", "AVISO: esto no es",
              "EMERGENCIA: Llame al 112 ahora", "Ficha verificada PA-"]  # fmt: skip
    assert [line[: len(start)] for line, start in zip(lines, starts, strict=False)] == starts


@pty
def test_without_prompt_toolkit(terminal_of: Callable[..., Any]) -> None:
    """Como en una consola que prompt_toolkit no conoce: se pregunta con `input`."""
    child = terminal_of("-c", BLOCKED, "--records-only")
    say(child, "/ficha 12", "Ficha verificada PA-0012", "Fuente:")
    assert leave(child, "d") == 0


def test_old_windows_console_redirected_to_a_file(home: Path) -> None:
    """La «Á» de un archivo en UTF-8 no existe en cp1252: se lee y se escribe como «?»."""
    out = home / "salida.txt"
    with out.open("wb") as file:
        code = subprocess.run(
            [sys.executable, *ONLY],
            cwd=ROOT,
            env=os.environ | {"PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0"},
            input="Ácido en la mano\n/ayuda\n".encode(),
            stdout=file,
            stderr=subprocess.STDOUT,
            timeout=120,
        ).returncode
    text = out.read_text(encoding="cp1252")
    assert code == 0 and "Traceback" not in text
    assert (
        "Tú: Ã?cido en la mano" in text
        and "órdenes" in text
        and text.rstrip().endswith("Hasta luego.")
    )
