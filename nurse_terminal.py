"""La terminal del chat: leer preguntas, imprimir respuestas y recordar el número de emergencias.

Solo la usa 04. Funciona igual en una terminal, con la entrada o la salida redirigidas y sin color.
"""

import json
import os
import shutil
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path

DEFAULT_NUMBER = "112"  # España y la UE
COUNTRY_NUMBERS = {  # referencia clínica del proyecto, §0.4
    "españa": "112",
    "méxico": "911",
    "argentina": "107",
    "chile": "131",
    "colombia": "123",
    "perú": "106",
    "ecuador": "911",
}
# El texto lleva siempre su rótulo: el color nunca es la única señal.
COLORS = {"alarm": "\x1b[1;31m", "record": "\x1b[36m", "plain": ""}
RESET = "\x1b[0m"


def _plain(text: str) -> str:
    decomposed = unicodedata.normalize("NFD", text.strip().lower())
    return "".join(char for char in decomposed if not unicodedata.combining(char))


def parse_number(text: str) -> str | None:
    """Número de emergencias a partir de «123» o de un país de la lista; None si no es ninguno."""
    if text.strip().isdecimal() and 2 <= len(text.strip()) <= 6:
        return text.strip()
    countries = {_plain(name): number for name, number in COUNTRY_NUMBERS.items()}
    return countries.get(_plain(text))


def _settings_file() -> Path:
    return Path.home() / ".tinyllama_nurse.json"


def remember_number(number: str) -> None:
    """Guarda el número para las próximas conversaciones."""
    text = json.dumps({"emergency_number": number}) + "\n"
    _settings_file().write_text(text, encoding="utf-8")


def remembered_number() -> str:
    """El número guardado o, si no hay ninguno legible, el 112."""
    try:
        saved = json.loads(_settings_file().read_text(encoding="utf-8"))
        return parse_number(saved["emergency_number"]) or DEFAULT_NUMBER
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return DEFAULT_NUMBER


class Screen:
    """Lo que se imprime: ajustado al ancho y en color solo en una terminal; se guarda entero."""

    def __init__(self) -> None:
        self.terminal = sys.stdout.isatty()
        self.color = self.terminal and not os.environ.get("NO_COLOR")
        self.log: list[str] = []

    def say(self, text: str, color: str = "plain") -> None:
        """Imprime un bloque completo."""
        self.stream("", iter([text]), color)

    def stream(self, label: str, pieces: Iterator[str], color: str = "plain") -> str:
        """Imprime `label` y los trozos según llegan. Devuelve el texto sin `label`.

        Con Ctrl-C deja la excepción seguir, con lo recibido ya impreso y guardado.
        """
        painted = self.color and COLORS[color]
        sys.stdout.write(COLORS[color] if painted else "")
        text, word, column = label, label, 0
        try:
            for piece in pieces:
                text += piece
                for char in piece:  # una palabra se imprime cuando se sabe si cabe en la línea
                    word += char
                    if char.isspace():
                        column, word = self._put(word, column), ""
                if not self.terminal:  # sin terminal no hay líneas que ajustar: sale al momento
                    column, word = self._put(word, column), ""
                sys.stdout.flush()
        finally:
            self._put(word, column)
            sys.stdout.write((RESET if painted else "") + "\n")
            sys.stdout.flush()
            self.log.append(text.rstrip())
        return text.removeprefix(label).strip()

    def note(self, text: str) -> None:
        """Guarda en la conversación algo que ya se ve en la pantalla (la pregunta escrita)."""
        self.log.append(text)

    def _put(self, word: str, column: int) -> int:
        """Escribe una palabra, en otra línea si no cabe, y devuelve la columna en que termina."""
        width = shutil.get_terminal_size().columns if self.terminal else 0
        if width and column and column + len(word.rstrip()) >= width:
            sys.stdout.write("\n")
            column = 0
        sys.stdout.write(word)
        return 0 if word.endswith("\n") else column + len(word)


def read_questions(screen: Screen) -> Iterator[str]:
    """Da cada pregunta u orden escrita, sin líneas vacías, hasta Ctrl-D o el fin de la entrada.

    En una terminal se puede editar la línea y recuperar las anteriores, y un texto pegado con
    varias líneas es una sola pregunta. Ctrl-C aquí termina el chat (código 130).
    """
    prompt = _terminal_prompt() if sys.stdin.isatty() and screen.terminal else _piped_prompt
    while True:
        try:
            line = prompt("Tú: ").strip()
        except EOFError:
            return
        if line:
            screen.note(f"Tú: {line}")
            yield line


def _piped_prompt(label: str) -> str:
    """Lee una línea de la entrada redirigida y la repite para que la salida se entienda sola."""
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    if line.strip():
        print(f"{label}{line.strip()}", flush=True)
    return line


def _terminal_prompt():  # noqa: ANN202 — función de prompt_toolkit o `input`
    """`prompt` de prompt_toolkit; en consolas que no conoce (mintty), `input`."""
    from prompt_toolkit import PromptSession
    from prompt_toolkit.history import InMemoryHistory  # nada de lo escrito queda en el disco

    try:
        return PromptSession(history=InMemoryHistory()).prompt
    except Exception:  # NoConsoleScreenBufferError solo existe en Windows
        return input
