"""El aviso de urgencia y los límites: lo que dice el código antes que el modelo.

Los pesos de `learned` deciden si hay que avisar o poner un límite; las reglas del léxico son parte
de lo que pesan y además saben qué hacer: la primera que se cumple da la primera acción.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

from .learned import read
from .text import gated, holds, open_gates, possible, prepare, rules

# Logaritmo de la razón de probabilidades desde el que se avisa y desde el que se pone un límite.
URGENT, URGENT_ASKING = -0.3, -4.0
LIMIT, LIMIT_RULED = -0.4, -3.0


class Assessment(NamedTuple):
    """Qué dice el código antes que el modelo."""

    notice: str | None  # llamar ahora y la primera acción
    situation: str | None  # identificador de la urgencia reconocida
    limit: str | None  # respuesta de límite, que sustituye a la del modelo


@lru_cache(maxsize=64)
def assess(question: str, number: str = "112") -> Assessment:
    """Decide el aviso de urgencia y la respuesta de límite de una pregunta."""
    text, reading = prepare(question), read(question)
    limit = _limit(text, reading.limit)
    animal = limit is not None and limit["slug"] == "veterinaria"
    situation = None if animal else _situation(text, reading.urgent, asks=limit is not None)
    if situation and limit and limit.get("yields"):
        limit = None  # la urgencia se contesta aunque se pida un diagnóstico o una receta
    notice = situation and f"Llame al {number} ahora, con el altavoz. {situation['action']}"
    return Assessment(
        notice and notice.replace("{number}", number),
        situation and situation["slug"],
        limit and limit["text"].replace("{number}", number),
    )


def _limit(text: str, weight: float) -> dict[str, Any] | None:
    """El límite que se cumple o, si ninguna regla lo conoce, el general."""
    rule = next((rule for rule in possible(text).limits if holds(rule, text)), None)
    if weight > (LIMIT_RULED if rule else LIMIT):
        return rule or rules()["other_limit"]
    return None


def _situation(text: str, weight: float, asks: bool) -> dict[str, Any] | None:
    """La urgencia que el texto describe o, si ninguna regla la conoce, la general.

    Quien `asks` algo fuera de alcance puede hacerlo en plena urgencia («convulsiona, ¿cuánto valium
    le meto?») y lo que pide pesa tanto que la tapa: entonces basta que una regla la reconozca.
    """
    gates = open_gates(text)
    found = [rule for rule in possible(text).situations if holds(rule, text)]
    free = [rule for rule in found if not gated(rule, gates)]
    if weight > (URGENT_ASKING if asks and free else URGENT):
        return next(iter(free or found), rules()["other_situation"])
    return None
