"""¿Dice la respuesta del modelo lo mismo que la ficha? En la duda, no: se enseña la ficha."""

from __future__ import annotations

import re

import nurse_common as common

from .text import marked, regex, rules, terms

MIN_OVERLAP = 0.6  # vocabulario que la respuesta y la ficha deben compartir, en los dos sentidos
LATE_CALL = 0.34  # fracción del texto que puede retrasarse la orden de llamar
NEGATED_WORD = r"[ -](?:no|ni|nunca|jamas|sin|tampoco)[ -]([a-z0-9|]+)"
FORBIDS = re.compile(r"[ -](?:no|ni|nunca|jamas|sin|tampoco|nada|ebite|ebitar|mito|peligroso)[ -]")
CALL = re.compile(r"\b(?:112|911)\b|llam\w+ al? (?:\w+ )?(?:emergencias|ambulancia)")
FIGURE = re.compile(r"(\d+(?:[.,:]\d+)?(?:-\d+(?:[.,]\d+)?)?)\s*([a-z°%ºáéíóúñ/]*)")


def compare(answer: str, record: common.Record) -> list[str]:
    """Motivos por los que la respuesta no dice lo mismo que la ficha; vacía solo si lo dice.

    Regla: (1) nada de la lista de afirmaciones peligrosas; (2) las mismas cifras con la misma
    unidad; (3) manda llamar si la ficha lo manda, y no más tarde; (4) empieza por la misma
    acción; (5) niega y prohíbe lo mismo; (6) comparte `MIN_OVERLAP` del vocabulario en los dos
    sentidos. En la duda hay motivo: se muestra la ficha.
    """
    said, written = marked(answer), marked(record["output"])
    own = dangers(record["output"])  # un mito se nombra para desmentirlo
    reasons = [f"aconseja algo peligroso ({name})" for name in dangers(answer) if name not in own]
    figures, expected = _figures(answer), _figures(record["output"])
    if wrong := sorted(figures[key] for key in figures.keys() - expected.keys()):
        reasons.append(f"da cifras que la ficha no da: {', '.join(wrong)}")
    if missing := sorted(expected[key] for key in expected.keys() - figures.keys()):
        reasons.append(f"faltan cifras de la ficha: {', '.join(missing)}")
    call, due = _call_at(answer), _call_at(record["output"])
    if due is not None and call is None:
        reasons.append("no manda llamar a emergencias")
    elif due is not None and call - due > LATE_CALL:
        reasons.append("manda llamar más tarde que la ficha")
    if _overlap(_first_action(record["output"]), _first_action(answer)) < 0.5:
        reasons.append("no empieza por la misma acción")
    if re.findall(NEGATED_WORD, said) != re.findall(NEGATED_WORD, written):
        reasons.append("no prohíbe lo mismo que la ficha")
    ours, theirs = set(terms(written)), set(terms(said))
    if min(_overlap(ours, theirs), _overlap(theirs, ours)) < MIN_OVERLAP:
        reasons.append("el contenido es otro")
    return reasons


def dangers(text: str) -> list[str]:
    """Afirmaciones peligrosas que el texto hace sin una negación antes en la misma oración."""
    found = []
    for sentence in map(marked, re.split(r"[.;:\n]+", text)):
        for name, pattern in rules()["forbidden"].items():
            spots = (match.start() for match in regex(pattern).finditer(sentence))
            if any(not FORBIDS.search(sentence[:start]) for start in spots):
                found.append(name)
    return found


def _figures(text: str) -> dict[str, str]:
    """Cifra con su unidad abreviada («20 min», «30:2», «100-120 /mi») -> como está escrita."""
    text = text.lower().replace("–", "-").replace("112/911", "")
    text = re.sub(r"(?<=\d)\s*(?:-|a)\s*(?=\d)", "-", re.sub(r"^\d\. ", "", text, flags=re.M))
    text = re.sub(r"(?:veces )?por (?=minuto|hora)", "/", text)
    return {
        f"{number.replace(',', '.')} {unit[:3]}".strip(): f"{number} {unit}".strip()
        for number, unit in FIGURE.findall(text)
        if number not in ("112", "911")
    }


def _call_at(text: str) -> float | None:
    """En qué punto del texto (0 a 1) se manda llamar a emergencias; None si no se manda."""
    found = CALL.search(text.lower())
    return found and found.start() / len(text)


def _first_action(text: str) -> set[str]:
    """Términos de la primera frase o del primer paso numerado."""
    first = re.split(r"(?<!\d)[.;:]\s|\n", re.sub(r"^\s*1\.\s*", "", text.strip()))[0]
    return set(terms(marked(first)))


def _overlap(wanted: set[str], given: set[str]) -> float:
    """Parte de `wanted` que está en `given`."""
    return len(wanted & given) / len(wanted) if wanted else 1.0
