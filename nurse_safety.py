"""Lo que no puede alucinar: aviso de urgencia, límites, ficha más cercana y comparación.

Solo código, los registros verificados y el léxico de `nurse_safety_rules.json`; ningún modelo.
Todo trabaja sobre el texto «plegado»: sin tildes y como suena, de modo que las faltas de quien
escribe con prisa («no rrespira», «combulsiona», «se callo») coinciden con la palabra correcta.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import nurse_common as common

RULES_FILE = Path(__file__).with_name("nurse_safety_rules.json")
CLOSE_SCORE = 0.42  # fracción de lo preguntado que la ficha debe tratar para mostrarse
TOPIC_GAIN = 1.0  # cuánto ayuda a una ficha que su tema entero se parezca a la pregunta
UNKNOWN_WEIGHT = 3.0  # peso de una palabra que ninguna ficha contiene
MIN_OVERLAP = 0.6  # parte del vocabulario de la ficha que debe estar en la respuesta, y al revés
# Entre una negación y lo negado solo caben estas palabras: «no LE duele», «sin NINGÚN dolor».
NEGATED = re.compile(
    r"[ -](?:no|ni|sin|nunca|tampoco|niega|casi)[ -]"
    r"(?:(?:me|te|se|le|les|nos|lo|la|ha|he|han|hay|tiene|tengo|siento|siente|nota|noto|"
    r"tenia|es|fue|un|una|ningun|ninguna|el|los|de|signos|mucho|esta|estoy)[ -]){0,4}$"
)
NEGATED_WORD = r"[ -](?:no|ni|nunca|jamas|sin|tampoco)[ -]([a-z0-9|]+)"
FORBIDS = re.compile(r"[ -](?:no|ni|nunca|jamas|sin|tampoco|ebite|ebitar|mito|peligroso)[ -]")
# En orden: cada cambio junta grafías que suenan igual en España o América.
SOUNDS = [
    (re.compile(pattern), new)
    for pattern, new in (
        (r"^ps", "s"), (r"(?<!c)h", ""), (r"ch", "C"), (r"g(?=[ei])", "j"), (r"gu(?=[ei])", "g"),
        (r"qu|q|c(?![ei])", "k"), (r"[zxc]", "s"), (r"ks", "s"), (r"v", "b"), (r"ll", "y"),
        (r"n(?=[bp])", "m"), (r"([^r])\1+", r"\1"), (r"C", "ch"),
    )
]  # fmt: skip


class Assessment(NamedTuple):
    """Qué dice el código antes que el modelo."""

    notice: str | None  # llamar ahora y la primera acción
    situation: str | None  # identificador de la urgencia reconocida
    limit: str | None  # respuesta de límite, que sustituye a la del modelo


class Hit(NamedTuple):
    """Una ficha encontrada."""

    record: common.Record
    score: float  # de 0 a 1: parte de lo preguntado que la ficha trata
    close: bool  # lo bastante cercana para mostrarla


@lru_cache(maxsize=20000)
def fold(word: str) -> str:
    """Palabra en minúsculas, sin tildes y como suena: «atragantó», «ATRAGANTO» → «atraganto»."""
    word = unicodedata.normalize("NFD", word.lower())
    word = "".join(letter for letter in word if not unicodedata.combining(letter))
    for pattern, new in SOUNDS:
        word = pattern.sub(new, word)
    return word


@lru_cache(maxsize=1)
def _rules() -> dict[str, Any]:
    """El léxico, leído en el primer uso y con sus palabras plegadas."""
    text = RULES_FILE.read_text(encoding="utf-8")
    rules = json.loads(text)
    for name in ("fillers", "fix_targets"):
        rules[name] = {fold(word) for word in rules[name].split()}
    rules["known"] = {fold(word) for word in re.findall(r"[^\W\d_]+", text.lower())}
    for rule in rules["situations"] + rules["limits"]:
        groups = [rule.get("any", []), *rule.get("all", [])]
        for group in groups:  # «@breath» vale por todos los patrones de ese signo
            group[:] = [p for item in group for p in rules["signs"].get(item[1:], [item])]
    return rules


@lru_cache(maxsize=None)
def _regex(pattern: str) -> re.Pattern[str]:
    """Compila un patrón del léxico.

    `{macro}` se sustituye; `*` es cualquier final de palabra; `~`, hasta 4 palabras vacías, y
    `…`, hasta 4 palabras cualesquiera sin salir de la frase.
    """
    while "{" in re.sub(r"\{\d", "", pattern):
        pattern = re.sub(r"\{([a-z_]+)\}", lambda m: _rules()["macros"][m[1]], pattern)
    pattern = re.sub(r"(?<!\\)[^\W\d_]+", lambda m: fold(m[0]), pattern).replace(r"\w", "[a-z0-9]")
    pattern = re.sub(r"(?<=[a-z])\*", "[a-z0-9]*", pattern)
    for mark, gap in (("~", "(?:[a-z0-9]+-){0,4}"), ("…", "(?:[a-z0-9|]+[\0-]){0,7}")):
        pattern = pattern.replace(f"{mark} ", gap).replace(mark, gap)
    pattern = pattern.replace(")? ", ")?[\0-]?").replace(" ", "[ -]").replace("\0", " ")
    return re.compile(rf"(?<=[ -])(?:{pattern})(?:(?=[ -]|$)|(?<=[ -]))")


def _marked(text: str, correct: bool = False) -> str:
    """Texto plegado: palabras vacías seguidas de «-», las demás de « », y «|» entre frases."""
    rules = _rules()
    text = unicodedata.normalize("NFC", text.lower())
    text = re.sub(r"([^\W\d])\1{2,}", r"\1", text)  # «ayudaaaa» → «ayuda»
    words: list[str] = []
    for raw in re.findall(r"\d+|[^\W\d_]+|[.,;:!?¡¿()\n]", text):
        if not raw.isalnum():
            words.append("|")
            continue
        for word in rules["abbreviations"].get(raw, raw).split():
            words.append(_corrected(fold(word)) if correct else fold(word))
    marked = (f"{word}-" if word in rules["fillers"] else f"{word} " for word in words)
    return " | " + "".join(marked) + "| "


@lru_cache(maxsize=64)
def _prepare(question: str) -> str:
    """Pregunta plegada, con las erratas corregidas y sin frases hechas («me muero de hambre»)."""
    text = _marked(question, correct=True)
    for idiom in _rules()["idioms"]:
        text = _regex(idiom).sub("", text)
    return text


@lru_cache(maxsize=20000)
def _corrected(word: str) -> str:
    """Corrige una errata de una letra hacia una palabra de urgencia; las demás no se tocan."""
    rules = _rules()
    if len(word) < 5 or word in rules["known"]:
        return word
    from rapidfuzz.distance import OSA

    for target in rules["fix_targets"]:
        if target[0] == word[0] and OSA.distance(word, target, score_cutoff=1) <= 1:
            return target
    return word


def _mentions(pattern: str, text: str) -> bool:
    """Si el patrón (o alguno del signo «@nombre») aparece, negado o no."""
    patterns = _rules()["signs"].get(pattern[1:], [pattern])
    return any(_regex(item).search(text) for item in patterns)


@lru_cache(maxsize=4000)
def _matches(pattern: str, text: str) -> bool:
    """Si el patrón aparece sin estar negado («no le duele el pecho»)."""
    return any(
        match[0].startswith(("no", "ni", "sin", "apenas", "casi", "dej", "|"))
        or not NEGATED.search(text[: match.start()])
        for match in _regex(pattern).finditer(text)
    )


def _holds(rule: dict[str, Any], text: str) -> bool:
    """Si una regla se cumple: alguna de `any`, o una de cada grupo de `all`; ninguna `unless`."""
    found = any(_matches(pattern, text) for pattern in rule.get("any", ())) or (
        "all" in rule
        and all(any(_matches(p, text) for p in group) for group in rule["all"])
    )
    return found and not any(_regex(pattern).search(text) for pattern in rule.get("unless", ()))


def _situation(text: str) -> dict[str, Any] | None:
    """La primera urgencia del léxico que el texto describe como real y presente."""
    rules = _rules()
    closed = {
        name for name, gate in rules["gates"].items() if any(_regex(p).search(text) for p in gate)
    }
    if "now" in closed:  # «ahora mismo», «ayuda»: no es teoría ni recuerdo
        closed -= {"study", "hypothetical", "past"}
    for rule in rules["situations"]:
        if not (closed - {"now"} - set(rule.get("ignores", ()))) and _holds(rule, text):
            return rule
    return None


@lru_cache(maxsize=64)
def assess(question: str, number: str = "112") -> Assessment:
    """Decide el aviso de urgencia y la respuesta de límite de una pregunta."""
    text = _prepare(question)
    limit = next((rule for rule in _rules()["limits"] if _holds(rule, text)), None)
    animal = limit is not None and limit["slug"] == "veterinaria"
    situation = None if animal else _situation(text)
    if situation and limit and limit.get("yields"):
        limit = None  # la urgencia se contesta aunque se pida un diagnóstico o una receta
    notice = situation and f"Llame al {number} ahora, con el altavoz. {situation['action']}"
    return Assessment(
        notice and notice.replace("{number}", number),
        situation and situation["slug"],
        limit and limit["text"].replace("{number}", number),
    )


@lru_cache(maxsize=1)
def _synonyms() -> dict[str, list[tuple[re.Pattern[str], str]]]:
    """Primera letra -> [(patrón de palabra, sentido)]: «lactante» y «guagua» son «=bebe»."""
    table: dict[str, list[tuple[re.Pattern[str], str]]] = {}
    for sense, patterns in _rules()["synonyms"].items():
        for pattern in patterns.split():
            table.setdefault(fold(pattern.split("(")[0].strip("*"))[0], []).append(
                (_regex(pattern), f"={sense}")
            )
    return table


@lru_cache(maxsize=20000)
def _word_terms(word: str) -> tuple[str, ...]:
    """Raíz de la palabra y sentidos que comparte con sus sinónimos."""
    import Stemmer

    alone = f" {word} "
    senses = {sense for rx, sense in _synonyms().get(word[0], ()) if rx.search(alone)}
    return (Stemmer.Stemmer("spanish").stemWord(word), *sorted(senses))


def _terms(text: str) -> list[str]:
    """Raíces y sentidos de un texto preparado, sin palabras vacías ni de lugar o parentesco."""
    words = re.findall(r"[a-z0-9]+(?= )", text)
    return [term for word in words if not _context(word) for term in _word_terms(word)]


@lru_cache(maxsize=20000)
def _context(word: str) -> bool:
    """Si la palabra solo sitúa la escena («mi compañera», «en la residencia»)."""
    return bool(_regex(_rules()["context"]).search(f" {word} "))


def _record_terms(record: common.Record, aliases: str) -> list[str]:
    """Términos de una ficha: la pregunta y sus otras formas pesan el triple que la respuesta."""
    question = _terms(_marked(f"{common.question_of(record)} {aliases}"))
    return question * 3 + _terms(_marked(record["output"]))


def _question_terms(question: str) -> list[str]:
    """Términos de una pregunta, con lo que dicen los giros del léxico («media cara» → ictus)."""
    text = _prepare(question)
    extra = (words for rx, words in _rules()["phrases"].items() if _mentions(rx, text))
    return _terms(text + _marked(" ".join(extra)))


def _fit(record: common.Record, text: str, verdict: Assessment) -> float:
    """Cuánto conviene la ficha a quien pregunta: edad, embarazo, tipo de pregunta y urgencia."""
    rules, fit = _rules(), 1.0
    for group, (patterns, miss, lone) in rules["profiles"].items():
        asked, about = _mentions(patterns, text), record.get("poblacion", "A") == group
        fit *= (miss if asked and not about else lone if about and not asked else 1.0)
    for style, (patterns, gain) in rules["styles"].items():
        if record.get("estilo") == style and _mentions(patterns, text):
            fit *= gain
    if record.get("estilo") == "limite":
        fit *= 1.3 if verdict.limit else 0.6
    if verdict.situation:
        topics = next(r["topics"] for r in rules["situations"] if r["slug"] == verdict.situation)
        fit *= 1.3 if record.get("tema") in topics else 1.0
    return fit


class RecordIndex:
    """Busca las fichas más cercanas a una pregunta: BM25 sobre raíces y sinónimos."""

    def __init__(self, records: Iterable[common.Record]) -> None:
        self.records = list(records)
        aliases = _rules()["aliases"]
        terms = [_record_terms(row, aliases.get(row.get("id"), "")) for row in self.records]
        topics: dict[str, list[str]] = {}
        for row, words in zip(self.records, terms, strict=True):
            topics.setdefault(row.get("tema", ""), []).extend(words)
        counts = Counter(term for words in terms for term in set(words))
        # Un sentido compartido («=bebe») dice más que una palabra suelta: pesa el doble.
        self.weights = {
            term: math.log(1 + len(terms) / count) * (1 + (term[0] == "="))
            for term, count in counts.items()
        }
        self.vocabulary, self.topics = list(self.weights), list(topics)
        self.engine, self.topic_engine = _bm25(terms), _bm25(list(topics.values()))

    def _known(self, term: str) -> str | None:
        """El término de las fichas más parecido (erratas), o None."""
        from rapidfuzz import fuzz, process

        if term in self.weights or len(term) < 4 or term[0] == "=":
            return term if term in self.weights else None
        found = process.extractOne(term, self.vocabulary, scorer=fuzz.ratio, score_cutoff=85)
        return found and found[0]

    def search(self, question: str, k: int = 3) -> list[Hit]:
        """Las `k` fichas más cercanas, la mejor primero."""
        asked = list(dict.fromkeys(_question_terms(question)))
        known = [term for term in map(self._known, asked) if term]
        if not known:
            return []
        unknown = sum(1 for term in asked if term not in self.weights and term[0] != "=")
        total = sum(self.weights[term] for term in known) + UNKNOWN_WEIGHT * unknown
        query = [term for term in known for _ in range(1 + (term[0] == "="))]
        topic = dict(zip(self.topics, self.topic_engine.get_scores(query).tolist(), strict=True))
        top = max(topic.values()) or 1.0
        text, verdict = _prepare(question), assess(question)
        scored = [
            (
                score / total * _fit(row, text, verdict)
                * (1 + TOPIC_GAIN * topic[row.get("tema", "")] / top), i
            )
            for i, (score, row) in enumerate(
                zip(self.engine.get_scores(query).tolist(), self.records, strict=True)
            )
            if score
        ]
        best = sorted(scored, reverse=True)[:k]
        return [Hit(self.records[i], score, score >= CLOSE_SCORE) for score, i in best]


def _bm25(documents: list[list[str]]) -> Any:
    """Índice BM25 de unos documentos ya partidos en términos."""
    import bm25s

    engine = bm25s.BM25(k1=1.2, b=0.4)
    engine.index(documents, show_progress=False)
    return engine


def compare(answer: str, record: common.Record) -> list[str]:
    """Motivos por los que la respuesta no dice lo mismo que la ficha; vacía solo si lo dice.

    Regla: (1) las mismas cifras con la misma unidad; (2) manda llamar si la ficha lo manda, y
    no más tarde; (3) empieza por la misma acción; (4) niega y prohíbe exactamente lo
    mismo; (5) nada de la lista de afirmaciones peligrosas; (6) comparte `MIN_OVERLAP` del
    vocabulario en los dos sentidos. En la duda hay motivo: se muestra la ficha.
    """
    said, written = _marked(answer), _marked(record["output"])
    own = _dangers(written)  # un mito se nombra para desmentirlo
    reasons = [f"aconseja algo peligroso ({name})" for name in _dangers(said) if name not in own]
    figures, expected = _figures(answer), _figures(record["output"])
    if wrong := sorted(figures - expected):
        reasons.append(f"da cifras que la ficha no da: {', '.join(wrong)}")
    if missing := sorted(expected - figures):
        reasons.append(f"faltan cifras de la ficha: {', '.join(missing)}")
    call, due = _call_at(answer), _call_at(record["output"])
    if due is not None and call is None:
        reasons.append("no manda llamar a emergencias")
    elif due is not None and call - due > 0.34:
        reasons.append("manda llamar más tarde que la ficha")
    if _overlap(_first_action(record["output"]), _first_action(answer)) < 0.5:
        reasons.append("no empieza por la misma acción")
    if re.findall(NEGATED_WORD, said) != re.findall(NEGATED_WORD, written):
        reasons.append("no prohíbe lo mismo que la ficha")
    ours, theirs = set(_terms(written)), set(_terms(said))
    if min(_overlap(ours, theirs), _overlap(theirs, ours)) < MIN_OVERLAP:
        reasons.append("el contenido es otro")
    return reasons


def _dangers(text: str) -> list[str]:
    """Afirmaciones peligrosas que el texto hace sin negarlas."""
    return [name for name, pattern in _rules()["forbidden"].items() if _asserts(pattern, text)]


def _asserts(pattern: str, text: str) -> bool:
    """Si el patrón aparece sin una negación antes en la misma frase."""
    return any(
        not FORBIDS.search(text[: match.start()].rpartition("|")[2])
        for match in _regex(pattern).finditer(text)
    )


def _figures(text: str) -> set[str]:
    """Cifras con su unidad («20 min», «5-6 cm», «30:2»), iguales aunque se escriban distinto."""
    text = text.lower().replace("–", "-").replace("112/911", "").replace(" a ", "-")
    found = re.findall(r"(\d+(?:[.,:]\d+)?(?:\s?-\s?\d+(?:[.,]\d+)?)?)\s*([a-z°%ºáéíóúñ/]*)", text)
    return {
        f"{number.replace(' ', '').replace(',', '.')} {fold(unit)[:3]}".strip()
        for number, unit in found
        if number not in ("112", "911", "1.", "2.", "3.") and (unit or len(number) > 1)
    }


def _call_at(text: str) -> float | None:
    """En qué punto del texto (0 a 1) se manda llamar a emergencias; None si no se manda."""
    found = re.search(r"\b(112|911)\b|llam\w+ (?:a|al) (?:\w+ )?(?:emergencias|ambulancia)", text.lower())
    return found and found.start() / len(text)


def _first_action(text: str) -> set[str]:
    """Términos de la primera frase o del primer paso numerado."""
    first = re.split(r"(?<!\d)[.;:]\s|\n", re.sub(r"^\s*1\.\s*", "", text.strip()))[0]
    return set(_terms(_marked(first)))


def _overlap(wanted: set[str], given: set[str]) -> float:
    """Parte de `wanted` que está en `given`."""
    return len(wanted & given) / len(wanted) if wanted else 1.0

