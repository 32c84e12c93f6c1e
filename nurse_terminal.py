"""La terminal del chat: leer preguntas, imprimir respuestas y recordar el número de emergencias.

Solo la usa 04. Funciona igual en una terminal, con la entrada o la salida redirigidas y sin color.
Nada se redibuja: cada línea se escribe una vez y en orden, como necesita un lector de pantalla.
"""

import json
import os
import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from pathlib import Path

DEFAULT_NUMBER = "112"  # España y la UE
COUNTRY_NUMBERS = {  # referencia clínica del proyecto, §0.4
    "España": "112",
    "México": "911",
    "Argentina": "107",
    "Chile": "131",
    "Colombia": "123",
    "Perú": "106",
    "Ecuador": "911",
}
# El texto lleva siempre su rótulo: el color nunca es la única señal.
COLORS = {"alarm": "\x1b[1;31m", "notice": "\x1b[1m", "record": "\x1b[36m", "plain": ""}
RESET = "\x1b[0m"


def fold(text: str) -> str:
    """Texto en minúsculas y sin tildes, para comparar lo que se escribe."""
    decomposed = unicodedata.normalize("NFD", text.strip().lower())
    return "".join(char for char in decomposed if not unicodedata.combining(char))


def printable(text: str) -> str:
    """Quita lo que movería el cursor o no se ve (escapes, BOM); los espacios raros, uno normal."""
    text = "".join(" " if char.isspace() and char != "\n" else char for char in text)
    return "".join(char for char in text if char.isprintable() or char == "\n")


def parse_number(text: str) -> str:
    """Número de emergencias a partir de «123» o de un país de la lista; ValueError si no lo es."""
    text = text.strip()
    if text.isascii() and text.isdecimal() and 2 <= len(text) <= 6:
        return text
    for country, number in COUNTRY_NUMBERS.items():
        if fold(country) == fold(text):
            return number
    known = ", ".join(COUNTRY_NUMBERS)
    raise ValueError(f"«{text}» no es un número de emergencias ni uno de estos países: {known}")


def _settings_file() -> Path:
    return Path.home() / ".tinyllama_nurse.json"


def remember_number(number: str) -> bool:
    """Guarda el número para las próximas conversaciones. Falso si no se pudo: el chat sigue."""
    text = json.dumps({"emergency_number": number}) + "\n"
    try:
        _settings_file().write_text(text, encoding="utf-8")
    except (OSError, RuntimeError):  # RuntimeError: no hay carpeta personal
        return False
    return True


def remembered_number() -> str:
    """El número guardado o, si no hay ninguno legible, el 112."""
    try:
        saved = json.loads(_settings_file().read_text(encoding="utf-8"))
        return parse_number(saved["emergency_number"])
    except (OSError, RuntimeError, ValueError, LookupError, TypeError, AttributeError):
        return DEFAULT_NUMBER


def _cells(text: str) -> int:
    """Columnas que ocupa: un emoji o un ideograma, dos; una tilde suelta, ninguna."""
    wide = sum(unicodedata.east_asian_width(char) in "WF" for char in text)
    return len(text) + wide - sum(unicodedata.combining(char) > 0 for char in text)


class Screen:
    """Lo que se imprime: ajustado al ancho y en color solo en una terminal; se guarda entero."""

    def __init__(self) -> None:
        self.terminal = sys.stdout.isatty()
        plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
        self.color = self.terminal and not plain
        if self.color and os.name == "nt":
            os.system("")  # activa las secuencias de color en la consola clásica de Windows
        self.log: list[str] = []
        self._column, self._gap = 0, ""  # dónde está el cursor y los espacios aún sin escribir

    def say(self, text: str, color: str = "plain") -> None:
        """Imprime un bloque completo."""
        self.stream("", [text], color)

    def stream(self, label: str, pieces: Iterable[str], color: str = "plain") -> None:
        """Imprime `label` y los trozos según llegan, palabra a palabra.

        Si `pieces` falla o se pulsa Ctrl-C, lo recibido queda impreso y guardado.
        """
        paint, unpaint = (COLORS[color], RESET) if self.color and COLORS[color] else ("", "")
        sys.stdout.write(paint)
        self._column, self._gap = 0, ""
        text, word = label, ""
        try:
            self._put(label)
            sys.stdout.flush()  # se ve ya que la pregunta está en marcha
            for piece in pieces:
                clean = printable(piece)
                text += clean
                for char in clean:  # una palabra se imprime cuando se sabe si cabe en la línea
                    word += char
                    if char.isspace():
                        self._put(word)
                        word = ""
                sys.stdout.flush()
        finally:
            self._put(word)
            sys.stdout.write(f"{unpaint}\n")
            sys.stdout.flush()
            self.log.append(text.rstrip())

    def note(self, text: str) -> None:
        """Guarda en la conversación algo que ya se ve en la pantalla (la pregunta escrita)."""
        self.log.append(text)

    def gap(self) -> None:
        """Una línea en blanco entre una respuesta y la pregunta siguiente; nunca dos."""
        if self.log and self.log[-1]:
            self.say("")

    def save(self, name: str) -> str:
        """Guarda como texto todo lo mostrado, sin pisar nada. Devuelve qué ha pasado."""
        if not name:
            return "Falta el nombre: /guardar ARCHIVO"
        lines = [f"Conversación del {datetime.now():%d/%m/%Y, %H:%M}.", "", *self.log, ""]
        try:
            with Path(name).expanduser().open("x", encoding="utf-8") as file:
                file.write("\n".join(lines))
        except FileExistsError:
            return f"{name} ya existe; elegir otro nombre."
        except (OSError, RuntimeError):  # RuntimeError: «~nadie/x»
            return f"No se pudo guardar en {name}: revisar la carpeta y sus permisos."
        return f"Conversación guardada en {name}."

    def _put(self, word: str) -> None:
        """Escribe una palabra, en otra línea si no cabe.

        El ancho se pregunta cada vez y a la terminal, porque COLUMNS no cambia con la ventana. La
        última columna queda libre: la consola clásica de Windows salta de línea al ocuparla.
        """
        width = os.get_terminal_size(sys.stdout.fileno()).columns if self.terminal else 0
        text = word.rstrip()
        if text:
            if width and self._column and self._column + _cells(self._gap + text) >= width:
                sys.stdout.write("\n")
                self._column, self._gap = 0, ""
            sys.stdout.write(self._gap + text)
            self._column += _cells(self._gap + text)
            if width:
                self._column %= width  # una palabra más larga que la ventana la parte la terminal
            self._gap = ""
        if self._column or not text:  # tras una línea llena, el espacio sobra
            self._gap += word[len(text) :]
        if word.endswith("\n"):
            sys.stdout.write("\n")
            self._column, self._gap = 0, ""


def read_questions(screen: Screen) -> Iterator[str]:
    """Da cada pregunta u orden escrita, sin líneas vacías, hasta Ctrl-D o el fin de la entrada.

    En una terminal se puede editar la línea y recuperar las anteriores, y un texto pegado con
    varias líneas es una sola pregunta. Ctrl-C aquí llega a quien llama como KeyboardInterrupt.
    """
    prompt = _terminal_prompt() if sys.stdin.isatty() and screen.terminal else _piped_prompt
    while True:
        screen.gap()
        try:
            line = " ".join(printable(prompt("Tú: ")).split())
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
    if printable(line).strip():
        print(f"{label}{printable(line).strip()}", flush=True)
    return line


def _terminal_prompt() -> Callable[[str], str]:
    """`prompt` de prompt_toolkit; si no está o no conoce la consola (mintty), `input`."""
    try:
        from prompt_toolkit import PromptSession
        from prompt_toolkit.history import InMemoryHistory  # lo escrito no queda en el disco

        return PromptSession(history=InMemoryHistory()).prompt
    except Exception:  # NoConsoleScreenBufferError solo existe en Windows
        return input
