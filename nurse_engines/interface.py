"""Lo que todo motor de texto cumple: cómo se le pide una respuesta y dónde se corta."""

from collections.abc import Iterator
from typing import NamedTuple, Protocol

from nurse_common import MAX_NEW_TOKENS, STOP_TEXT, TEMPERATURE, TOP_P, Message


class Sampling(NamedTuple):
    """Cómo se elige cada token. `temperature` 0 es la opción más probable siempre (greedy)."""

    temperature: float = TEMPERATURE
    top_p: float = TOP_P
    max_new_tokens: int = MAX_NEW_TOKENS
    seed: int | None = None


class Engine(Protocol):
    """Lo que la conversación necesita de un motor."""

    label: str  # nombre y dispositivo, para la primera línea del chat
    context: int  # tokens que caben entre pregunta, historia y respuesta

    def describe(self) -> str:
        """De qué base salió el modelo y qué pesos son, para saber después quién contestó."""

    def count_tokens(self, messages: list[Message]) -> int:
        """Tokens del prompt de generación de esos mensajes."""

    def stream(self, messages: list[Message], sampling: Sampling) -> Iterator[str]:
        """Trozos de la respuesta según se generan. Cerrar el iterador detiene al motor."""


def identity(base: str, weights_sha256: str | None) -> str:
    """Lo que dice `describe`."""
    return f"base {base}, pesos {weights_sha256[:12]}" if weights_sha256 else f"base {base}"


def until_stop(pieces: Iterator[str]) -> Iterator[str]:
    """Pasa los trozos hasta `STOP_TEXT`, sin dejar ver nunca un principio de `STOP_TEXT`."""
    held, started = "", False
    for piece in pieces:
        held += piece
        before, found, _ = held.partition(STOP_TEXT)
        lengths = range(len(STOP_TEXT) - 1, 0, -1)
        keep = next((n for n in lengths if not found and before.endswith(STOP_TEXT[:n])), 0)
        safe = before[: len(before) - keep]
        held = held[len(safe) :]
        if not started:
            safe = safe.lstrip()  # el espacio que sigue a «Enfermero:»
        if safe:
            started = True
            yield safe
        if found:
            return
