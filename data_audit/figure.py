"""Cómo se escribe una cifra de la referencia: qué frase habla del hecho y qué valores admite.

Las filas están en `figures_canonical.py` (§2.1) y `figures_topics.py` (§3).
"""

from dataclasses import dataclass

VALUE = r"(?P<v>\d+(?:,\d+)?(?:\s*(?:-|–|a|y|o)\s*\d+(?:,\d+)?)?)"
MINUTES = VALUE + r"\s*min(?:utos?)?\b"
SECONDS = VALUE + r"\s*s(?:egundos)?\b"
HOURS = VALUE + r"\s*h(?:oras?)?\b"
CM = VALUE + r"\s*cm\b"
WEEKS = VALUE + r"\s*semanas?\b"
DAYS = VALUE + r"\s*días?\b"
MONTHS = VALUE + r"\s*mes(?:es)?\b"
CELSIUS = VALUE + r"\s*°\s*C\b"


@dataclass(frozen=True)
class Figure:
    """Si una frase cumple `context` y da `value`, al menos uno de sus valores está en `allowed`.

    Con `every=True` tienen que estarlo todos: sirve cuando el patrón no deja lugar a otro hecho.
    """

    name: str
    topics: frozenset[str] | None  # None: todos
    context: str
    value: str
    allowed: frozenset[str]
    unless: str | None = None  # frase que queda fuera de la regla
    every: bool = False


def figure(
    name: str,
    topics: str,
    context: str,
    value: str,
    allowed: str,
    unless: str | None = None,
    every: bool = False,
) -> Figure:
    """Una fila de la tabla; temas y valores van separados por espacios («*»: todos los temas)."""
    where = None if topics == "*" else frozenset(topics.split())
    return Figure(name, where, context, value, frozenset(allowed.split()), unless, every)
