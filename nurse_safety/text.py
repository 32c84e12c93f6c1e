"""Texto plegado y patrones del léxico, sin decisiones clínicas.

Plegar es escribir como suena, sin tildes ni mayúsculas: las faltas de quien escribe con prisa
(«no rrespira», «combulsiona», «se callo») coinciden con la palabra correcta. Solo biblioteca
estándar al importar.
"""

from __future__ import annotations

import json
import re
import unicodedata
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

RULES_FILE = Path(__file__).with_name("lexicon.json")
KINDS = ("situations", "limits")  # clases de reglas del léxico
# Entre una negación y lo negado solo caben estas palabras: «no LE duele», «sin NINGÚN dolor».
NEGATED = re.compile(
    r"[ -](?:no|ni|sin|nunca|tampoco|niega|casi)[ -]"
    r"(?:(?:me|te|se|le|les|nos|lo|la|ha|he|han|hay|tiene|tengo|siento|siente|nota|noto|"
    r"tenia|es|fue|un|una|ningun|ninguna|el|los|de|signos|mucho|esta|estoy)[ -]){0,4}$"
)
# En orden: cada cambio junta grafías que suenan igual en España o América.
SOUNDS = [
    (re.compile(pattern), new)
    for pattern, new in (
        (r"^ps", "s"), (r"(?<!c)h", ""), (r"ch", "C"), (r"g(?=[ei])", "j"), (r"gu(?=[ei])", "g"),
        (r"qu|q|c(?![ei])", "k"), (r"[zxc]", "s"), (r"ks", "s"), (r"v", "b"), (r"ll", "y"),
        (r"n(?=[bp])", "m"), (r"([^r])\1+", r"\1"), (r"C", "ch"),
    )
]  # fmt: skip


@lru_cache(maxsize=20000)
def fold(word: str) -> str:
    """Palabra como suena: «atragantó», «ATRAGANTO» → «atraganto»."""
    word = unicodedata.normalize("NFD", word.lower())
    word = "".join(letter for letter in word if not unicodedata.combining(letter))
    for pattern, new in SOUNDS:
        word = pattern.sub(new, word)
    return word


@lru_cache(maxsize=1)
def _stemmer() -> Any:
    import Stemmer

    return Stemmer.Stemmer("spanish")


@lru_cache(maxsize=1)
def rules() -> dict[str, Any]:
    """El léxico, leído en el primer uso, con sus listas de palabras plegadas."""
    text = RULES_FILE.read_text(encoding="utf-8")
    lexicon = json.loads(text)
    lexicon["fillers"] = {fold(word) for word in lexicon["fillers"].split()}
    # En orden fijo: de dos palabras igual de cercanas, la corrección elige siempre la misma.
    lexicon["fix_targets"] = sorted({fold(word) for word in lexicon["fix_targets"].split()})
    lexicon["known"] = {fold(word) for word in re.findall(r"[^\W\d_]+", text.lower())}
    for rule in lexicon["situations"] + lexicon["limits"]:
        for group in (rule.get("any", []), *rule.get("all", [])):
            # «@breath» vale por todos los patrones de ese signo
            group[:] = [p for item in group for p in lexicon["signs"].get(item[1:], [item])]
    return lexicon


@cache
def regex(pattern: str) -> re.Pattern[str]:
    """Compila un patrón del léxico sobre texto preparado.

    `{macro}` se sustituye; `*` es cualquier final de palabra; `~`, hasta 4 palabras vacías, y
    `…`, hasta 7 palabras cualesquiera, aunque crucen una coma.
    """
    while "{" in re.sub(r"\{\d", "", pattern):
        pattern = re.sub(r"\{([a-z_]+)\}", lambda m: rules()["macros"][m[1]], pattern)
    pattern = re.sub(r"(?<!\\)[^\W\d_]+", lambda m: fold(m[0]), pattern)
    pattern = re.sub(r"(?<=[a-z])\*", "[a-z0-9]*", pattern.replace(r"\w", "[a-z0-9]"))
    # «\0» guarda el sitio de un espacio que no debe volverse «[ -]»
    for mark, gap in (("~", "(?:[a-z0-9]+-){0,4}"), ("…", "(?:[a-z0-9|]+[\0-]){0,7}")):
        pattern = pattern.replace(f"{mark} ", gap).replace(mark, gap)
    pattern = pattern.replace(")? ", ")?[\0-]?").replace(" ", "[ -]").replace("\0", " ")
    return re.compile(rf"(?<=[ -])(?:{pattern})(?:(?=[ -]|$)|(?<=[ -]))")


def marked(text: str, correct: bool = False) -> str:
    """Texto plegado: tras una palabra vacía, «-»; tras las demás, « »; entre frases, «|»."""
    text = unicodedata.normalize("NFC", text.lower())
    text = re.sub(r"([^\W\d])\1{2,}", r"\1", text)  # «ayudaaaa» → «ayuda»
    words: list[str] = []
    for raw in re.findall(r"\d+|[^\W\d_]+|[.,;:!?¡¿()\n]", text):
        if not raw.isalnum():
            words.append("|")
            continue
        for word in rules()["abbreviations"].get(raw, raw).split():
            words.append(_corrected(fold(word)) if correct else fold(word))
    ended = (f"{word}-" if word in rules()["fillers"] else f"{word} " for word in words)
    return " | " + "".join(ended) + "| "


@lru_cache(maxsize=64)
def prepare(question: str) -> str:
    """Pregunta plegada, con las erratas corregidas y sin frases hechas («me muero de hambre»)."""
    text = marked(question, correct=True)
    for idiom in rules()["idioms"]:
        text = regex(idiom).sub("", text)
    return text


@lru_cache(maxsize=20000)
def _corrected(word: str) -> str:
    """Corrige una errata de una letra hacia una palabra de urgencia; las demás no se tocan."""
    if len(word) < 5 or word in rules()["known"]:
        return word
    from rapidfuzz.distance import OSA

    for target in rules()["fix_targets"]:
        if target[0] == word[0] and OSA.distance(word, target, score_cutoff=1) <= 1:
            return target
    return word


def warm_up() -> None:
    """Compila lo que solo se busca al cumplirse una regla y carga el corrector de erratas."""
    for kind in KINDS:
        for rule in rules()[kind]:
            for pattern in rule.get("unless", ()):
                regex(pattern)
    _corrected("errrata")


def mentions(pattern: str, text: str) -> bool:
    """Si el patrón (o alguno del signo «@nombre») aparece, negado o no."""
    patterns = rules()["signs"].get(pattern[1:], [pattern])
    return any(regex(item).search(text) for item in patterns)


@lru_cache(maxsize=8000)
def matches(pattern: str, text: str) -> bool:
    """Si el patrón aparece sin estar negado («no le duele el pecho»)."""
    return any(
        re.match(r"(?:no|ni|sin|apenas|casi|dej[a-z]*|\|)(?![a-z])", match[0])
        or not NEGATED.search(text[: match.start()])
        for match in regex(pattern).finditer(text)
    )


def holds(rule: dict[str, Any], text: str) -> bool:
    """Si una regla se cumple: alguna de `any`, o una de cada grupo de `all`; ninguna `unless`."""
    found = any(matches(pattern, text) for pattern in rule.get("any", ())) or (
        "all" in rule and all(any(matches(p, text) for p in group) for group in rule["all"])
    )
    return found and not any(regex(pattern).search(text) for pattern in rule.get("unless", ()))


class Possible(NamedTuple):
    """Lo del léxico que aparece en un texto, negado o no: en sus partes no puede haber más."""

    situations: list[dict[str, Any]]
    limits: list[dict[str, Any]]
    signs: list[tuple[str, list[str]]]  # nombre y patrones que aparecen


@lru_cache(maxsize=8)
def possible(text: str) -> Possible:
    """Lo que merece la pena buscar en el texto o en sus partes."""
    seen: dict[str, bool] = {}

    def appears(pattern: str) -> bool:
        if pattern not in seen:
            seen[pattern] = bool(regex(pattern).search(text))
        return seen[pattern]

    def may_hold(rule: dict[str, Any]) -> bool:
        groups = rule.get("all", [[]])
        return any(map(appears, rule.get("any", ()))) or all(any(map(appears, g)) for g in groups)

    signs = [(name, list(filter(appears, group))) for name, group in rules()["signs"].items()]
    return Possible(
        list(filter(may_hold, rules()["situations"])),
        list(filter(may_hold, rules()["limits"])),
        signs,
    )


def open_gates(text: str) -> set[str]:
    """Qué indica que no hay nadie en apuros: teoría, hipótesis, recuerdo, resuelto, leve."""
    gates = rules()["gates"]
    found = {name for name, gate in gates.items() if any(regex(p).search(text) for p in gate)}
    if "now" in found:  # «ahora mismo», «ayuda»: no es teoría ni recuerdo
        found -= {"study", "hypothetical", "past"}
    return found - {"now"}


def gated(rule: dict[str, Any], gates: set[str]) -> bool:
    """Si alguna compuerta abierta frena a esta regla («calm», «habla bien», no frena a ninguna)."""
    return bool(gates - {"calm", *rule["ignores"]})


@lru_cache(maxsize=1)
def _synonyms() -> dict[str, list[tuple[str, bool, str]]]:
    """Primera letra -> [(palabra o comienzo, si es comienzo, sentido)]: «guagua» es «=bebe»."""
    table: dict[str, list[tuple[str, bool, str]]] = {}
    for sense, words in rules()["synonyms"].items():
        for word in words.split():
            start = fold(word.strip("*"))
            table.setdefault(start[0], []).append((start, word.endswith("*"), f"={sense}"))
    return table


@lru_cache(maxsize=20000)
def _word_terms(word: str) -> tuple[str, ...]:
    """Raíz de la palabra y sentidos que comparte con sus sinónimos."""
    if regex(rules()["context"]).search(f" {word} "):  # «compañera», «residencia»: solo sitúan
        return ()
    known = _synonyms().get(word[0], ())
    senses = {
        sense for start, opens, sense in known if word == start or opens and word.startswith(start)
    }
    return (_stemmer().stemWord(word), *sorted(senses))


def terms(text: str) -> list[str]:
    """Raíces y sentidos de un texto preparado, sin palabras vacías."""
    return [term for word in re.findall(r"[a-z0-9]+(?= )", text) for term in _word_terms(word)]


def terms_of(question: str) -> list[str]:
    """Términos de una pregunta preparada, con lo que dicen sus giros («media cara» es ictus)."""
    extra = (words for rx, words in rules()["phrases"].items() if mentions(rx, question))
    return terms(question + marked(" ".join(extra)))
