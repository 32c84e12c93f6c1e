"""Lo que no puede alucinar: aviso de urgencia, límites, ficha más cercana y comparación.

Código, los registros, el léxico y las preguntas tecleadas de `nurse_text`; ningún modelo de
lenguaje. Una pregunta es urgente si cumple una regla del léxico, que sabe qué hacer, o si pesan
bastante sus palabras (`nurse_safety_weights.json`, de `data_audit/fit_urgency.py`).
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import nurse_common as common
from nurse_text import (
    holds,
    load_phrasings,
    marked,
    matches,
    mentions,
    open_gates,
    prepare,
    regex,
    rules,
)
from nurse_text import terms as terms_of

WEIGHTS_FILE = Path(__file__).with_name("nurse_safety_weights.json")
PHRASE_GAIN = 1.0  # cuánto cuenta parecerse a una pregunta ya asignada a la ficha
SECOND_CHOICE = 0.8  # y cuánto menos si la ficha no era la mejor para esa pregunta
CLOSE_SCORE = 0.5  # parecido mínimo para mostrar una ficha
TOPIC_GAIN = 1.0  # cuánto ayuda a una ficha que su tema entero se parezca a la pregunta
SITUATION_GAIN = 2.0  # y que sea el tema de la urgencia reconocida
LIMIT_GAIN = 4.0  # y que sea un límite cuando se pide algo fuera de alcance
UNKNOWN_WEIGHT = 5.0  # peso de una palabra que ninguna ficha contiene
MIN_OVERLAP = 0.6  # vocabulario que la respuesta y la ficha deben compartir, en los dos sentidos
LATE_CALL = 0.34  # fracción del texto que puede retrasarse la orden de llamar
NEGATED_WORD = r"[ -](?:no|ni|nunca|jamas|sin|tampoco)[ -]([a-z0-9|]+)"
FORBIDS = re.compile(r"[ -](?:no|ni|nunca|jamas|sin|tampoco|nada|ebite|ebitar|mito|peligroso)[ -]")
CALL = re.compile(r"\b(?:112|911)\b|llam\w+ al? (?:\w+ )?(?:emergencias|ambulancia)")
FIGURE = re.compile(r"(\d+(?:[.,:]\d+)?(?:-\d+(?:[.,]\d+)?)?)\s*([a-z°%ºáéíóúñ/]*)")


class Assessment(NamedTuple):
    """Qué dice el código antes que el modelo."""

    notice: str | None  # llamar ahora y la primera acción
    situation: str | None  # identificador de la urgencia reconocida
    limit: str | None  # respuesta de límite, que sustituye a la del modelo


class Hit(NamedTuple):
    """Una ficha encontrada."""

    record: common.Record
    score: float  # parecido con lo preguntado; sin tope, comparable entre preguntas
    close: bool  # lo bastante cercana para mostrarla


@lru_cache(maxsize=64)
def assess(question: str, number: str = "112") -> Assessment:
    """Decide el aviso de urgencia y la respuesta de límite de una pregunta."""
    text = prepare(question)
    limit = next((rule for rule in rules()["limits"] if holds(rule, text)), None)
    animal = limit is not None and limit["slug"] == "veterinaria"
    situation = None if animal else _situation(question, text, limited=limit is not None)
    if limit is None and not situation and _learned("limit", question):
        limit = rules()["other_limit"]
    if situation and limit and limit.get("yields"):
        limit = None  # la urgencia se contesta aunque se pida un diagnóstico o una receta
    notice = situation and f"Llame al {number} ahora, con el altavoz. {situation['action']}"
    return Assessment(
        notice and notice.replace("{number}", number),
        situation and situation["slug"],
        limit and limit["text"].replace("{number}", number),
    )


def _situation(question: str, text: str, limited: bool) -> dict[str, Any] | None:
    """La urgencia que el texto describe como real y presente; None si no hay ninguna."""
    gates = open_gates(text)  # «calm» («habla bien») solo frena a los pesos, no a las reglas
    for rule in rules()["situations"]:
        if not (gates - {"calm", *rule["ignores"]}) and holds(rule, text):
            return rule
    if not limited and not gates - {"mild"} and _learned("urgent", question):
        return rules()["other_situation"]
    return None


@lru_cache(maxsize=1)
def _weights() -> dict[str, Any]:
    return json.loads(WEIGHTS_FILE.read_text(encoding="utf-8"))


def _learned(target: str, question: str) -> bool:
    """Si la suma de los pesos aprendidos («urgent» o «limit») pasa del umbral."""
    model = _weights()[target]
    weights = model["weights"]
    return model["bias"] + sum(weights.get(name, 0) for name in features(question)) > 0


def features(question: str) -> set[str]:
    """Rasgos que pesan: sentidos, palabras, parejas, trozos de palabra, signos y compuertas."""
    text = prepare(question)
    words = re.findall(r"[a-z0-9]+", text)
    found = {f"t:{term}" for term in _question_terms(text)} | {f"w:{word}" for word in words}
    found |= {f"b:{a} {b}" for a, b in zip(words, words[1:], strict=False)}
    for word in words:
        found |= {f"c:{f'<{word}>'[i : i + 4]}" for i in range(len(word) - 1)}
    for name, patterns in rules()["signs"].items():
        if any(matches(pattern, text) for pattern in patterns):
            found.add(f"s:{name}")
    return found | {f"g:{name}" for name in open_gates(text)}


def _question_terms(text: str) -> list[str]:
    """Términos de una pregunta, con lo que dicen los giros del léxico («media cara» → ictus)."""
    extra = (words for rx, words in rules()["phrases"].items() if mentions(rx, text))
    return terms_of(text + marked(" ".join(extra)))


def _fit(record: common.Record, text: str, verdict: Assessment) -> float:
    """Cuánto conviene la ficha a quien pregunta: edad, embarazo, tipo de pregunta y urgencia."""
    fit = 1.0
    for group, (patterns, miss, lone) in rules()["profiles"].items():
        asked, about = mentions(patterns, text), record.get("poblacion", "A") == group
        fit *= miss if asked and not about else lone if about and not asked else 1.0
    for style, (patterns, gain) in rules()["styles"].items():
        if record.get("estilo") == style and mentions(patterns, text):
            fit *= gain
    if record.get("estilo") == "limite":
        fit *= LIMIT_GAIN if verdict.limit else 0.6
    if verdict.situation:
        known = [*rules()["situations"], rules()["other_situation"]]
        topics = next(rule["topics"] for rule in known if rule["slug"] == verdict.situation)
        fit *= SITUATION_GAIN if record.get("tema") in topics else 1.0
    return fit


class RecordIndex:
    """Busca las fichas más cercanas: BM25 sobre raíces, sinónimos y otras formas de preguntar."""

    def __init__(self, records: Iterable[common.Record]) -> None:
        self.records = list(records)
        terms = [_record_terms(row) for row in self.records]
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
        place = {row.get("id"): i for i, row in enumerate(self.records)}
        phrases = [
            (places, words)
            for _, names, text in load_phrasings()
            if (places := [place[name] for name in names if name in place])
            and (words := _question_terms(prepare(text)))
        ]
        self.phrase_places = [places for places, _ in phrases]
        self.phrase_engine = _bm25([words for _, words in phrases]) if phrases else None
        assess("")  # compila el léxico ahora: la primera pregunta no espera

    def _known(self, term: str) -> str | None:
        """El término de las fichas más parecido (erratas), o None."""
        from rapidfuzz import fuzz, process

        if term in self.weights or len(term) < 4 or term[0] == "=":
            return term if term in self.weights else None
        found = process.extractOne(term, self.vocabulary, scorer=fuzz.ratio, score_cutoff=85)
        return found and found[0]

    def _phrase_scores(self, asked: list[str]) -> dict[int, float]:
        """Ficha -> parecido con la pregunta ya asignada a ella que más se parece a esta."""
        best: dict[int, float] = {}
        scores = self.phrase_engine.get_scores(asked).tolist() if self.phrase_engine else []
        for places, score in zip(self.phrase_places, scores, strict=True):
            for rank, i in enumerate(places if score else ()):
                best[i] = max(best.get(i, 0.0), score * (SECOND_CHOICE if rank else 1.0))
        return best

    def search(self, question: str, k: int = 3) -> list[Hit]:
        """Las `k` fichas más cercanas, la mejor primero."""
        text, verdict = prepare(question), assess(question)
        slug = (verdict.situation or "").replace("_", " ")  # sus palabras también se buscan
        asked = list(dict.fromkeys(_question_terms(text) + terms_of(marked(slug))))
        known = [term for term in map(self._known, asked) if term]
        if not known:
            return []
        unknown = sum(term not in self.weights and term[0] != "=" for term in asked)
        total = sum(self.weights[term] for term in known) + UNKNOWN_WEIGHT * unknown
        query = [term for term in known for _ in range(1 + (term[0] == "="))]
        topic = dict(zip(self.topics, self.topic_engine.get_scores(query).tolist(), strict=True))
        top = max(topic.values()) or 1.0
        said, scored = self._phrase_scores(asked), []
        for i, score in enumerate(self.engine.get_scores(query).tolist()):
            row = self.records[i]
            gain = 1 + TOPIC_GAIN * topic[row.get("tema", "")] / top
            if score or i in said:
                near = score * gain + PHRASE_GAIN * said.get(i, 0.0)
                scored.append((near / total * _fit(row, text, verdict), i))
        best = sorted(scored, reverse=True)[:k]
        grasped = len(known) > unknown  # si no entiende ni la mitad, nada es cercano
        return [Hit(self.records[i], score, grasped and score >= CLOSE_SCORE) for score, i in best]


def _record_terms(record: common.Record) -> list[str]:
    """Términos de una ficha: la pregunta y sus otras formas pesan el triple que la respuesta."""
    aliases = rules()["aliases"].get(record.get("id"), "")
    question = terms_of(marked(f"{common.question_of(record)} {aliases}"))
    return question * 3 + terms_of(marked(record["output"]))


def _bm25(documents: list[list[str]]) -> Any:
    """Índice BM25 de unos documentos ya partidos en términos."""
    import bm25s

    engine = bm25s.BM25(k1=1.2, b=0.4)
    engine.index(documents, show_progress=False)
    return engine


def compare(answer: str, record: common.Record) -> list[str]:
    """Motivos por los que la respuesta no dice lo mismo que la ficha; vacía solo si lo dice.

    Regla: (1) nada de la lista de afirmaciones peligrosas; (2) las mismas cifras con la misma
    unidad; (3) manda llamar si la ficha lo manda, y no más tarde; (4) empieza por la misma
    acción; (5) niega y prohíbe lo mismo; (6) comparte `MIN_OVERLAP` del vocabulario en los dos
    sentidos. En la duda hay motivo: se muestra la ficha.
    """
    said, written = marked(answer), marked(record["output"])
    own = _dangers(record["output"])  # un mito se nombra para desmentirlo
    reasons = [f"aconseja algo peligroso ({name})" for name in _dangers(answer) if name not in own]
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
    ours, theirs = set(terms_of(written)), set(terms_of(said))
    if min(_overlap(ours, theirs), _overlap(theirs, ours)) < MIN_OVERLAP:
        reasons.append("el contenido es otro")
    return reasons


def _dangers(text: str) -> list[str]:
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
    return set(terms_of(marked(first)))


def _overlap(wanted: set[str], given: set[str]) -> float:
    """Parte de `wanted` que está en `given`."""
    return len(wanted & given) / len(wanted) if wanted else 1.0
