"""La ficha verificada que contesta: lo aprendido de preguntas tecleadas o BM25 sobre raíces.

Lo aprendido solo vale para las fichas con que se aprendió. Las demás (otro archivo, una ficha
corregida) se buscan por su texto, con BM25, sinónimos y erratas perdonadas.
"""

from __future__ import annotations

import gc
import math
from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

import nurse_common as common

from . import learned
from .assess import Assessment, assess
from .text import marked, mentions, prepare, rules, terms, terms_of, warm_up

CLOSE_SCORE = 0.25  # puntuación mínima para mostrar una ficha
TEXT_GAIN = 0.5  # puntos de una ficha de texto parecido (parecido 1) frente a una segura (1 punto)
TOPIC_GAIN = 1.0  # cuánto ayuda a una ficha que su tema entero se parezca a la pregunta
SITUATION_GAIN = 2.0  # y que sea el tema de la urgencia reconocida
LIMIT_GAIN = 4.0  # y que sea un límite cuando se pide algo fuera de alcance
UNKNOWN_WEIGHT = 5.0  # peso de una palabra que ninguna ficha contiene


class Hit(NamedTuple):
    """Una ficha encontrada."""

    record: common.Record
    score: float  # probabilidad aprendida o, si no se aprendió, parecido del texto
    close: bool  # lo bastante cercana para mostrarla


class RecordIndex:
    """Busca las fichas más cercanas."""

    def __init__(self, records: Iterable[common.Record]) -> None:
        self.records = list(records)
        self.learned = [learned.knows(row) for row in self.records]
        self.texts = None if all(self.learned) else TextIndex(self.records)
        warm_up()
        self.search("hola", 1)  # también los pesos: la primera pregunta no espera
        # Las tablas ya no cambian: si no, el recolector las recorre (60 ms) entre pregunta y aviso.
        gc.freeze()

    def search(self, question: str, k: int = 3) -> list[Hit]:
        """Las `k` fichas más cercanas, la mejor primero."""
        chances = learned.read(question).records
        scores = [0.0] * len(self.records)
        if self.texts:
            scores = [TEXT_GAIN * score for score in self.texts.scores(question)]
        for i, row in enumerate(self.records):
            if self.learned[i]:
                scores[i] = chances[row["id"]]
        best = sorted(range(len(scores)), key=lambda i: -scores[i])[:k]
        return [Hit(self.records[i], scores[i], scores[i] >= CLOSE_SCORE) for i in best]


class TextIndex:
    """BM25 sobre raíces y sentidos, para las fichas que los pesos no conocen."""

    def __init__(self, records: list[common.Record]) -> None:
        self.records = records
        documents = [_record_terms(row) for row in records]
        topics: dict[str, list[str]] = {}
        for row, words in zip(records, documents, strict=True):
            topics.setdefault(row.get("tema", ""), []).extend(words)
        counts = Counter(term for words in documents for term in set(words))
        # Un sentido compartido («=bebe») dice más que una palabra suelta: pesa el doble.
        self.weights = {
            term: math.log(1 + len(documents) / count) * (1 + (term[0] == "="))
            for term, count in counts.items()
        }
        self.vocabulary, self.topics = list(self.weights), list(topics)
        self.engine, self.topic_engine = _bm25(documents), _bm25(list(topics.values()))

    def scores(self, question: str) -> list[float]:
        """Parecido de cada ficha con la pregunta; 0 si no comparten nada."""
        text, verdict = prepare(question), assess(question)
        slug = (verdict.situation or "").replace("_", " ")  # sus palabras también se buscan
        asked = list(dict.fromkeys(terms_of(text) + terms(marked(slug))))
        known = [term for term in map(self._known, asked) if term]
        unknown = sum(term not in self.weights and term[0] != "=" for term in asked)
        if len(known) <= unknown:  # si no entiende ni la mitad, nada se parece
            return [0.0] * len(self.records)
        total = sum(self.weights[term] for term in known) + UNKNOWN_WEIGHT * unknown
        query = [term for term in known for _ in range(1 + (term[0] == "="))]
        topic = dict(zip(self.topics, self.topic_engine.get_scores(query).tolist(), strict=True))
        top = max(topic.values()) or 1.0
        scores, fits = self.engine.get_scores(query).tolist(), _fits(self.records, text, verdict)
        for i, row in enumerate(self.records):
            scores[i] *= fits[i] * (1 + TOPIC_GAIN * topic[row.get("tema", "")] / top) / total
        return scores

    def _known(self, term: str) -> str | None:
        """El término de las fichas más parecido (erratas), o None."""
        from rapidfuzz import fuzz, process

        if term in self.weights or len(term) < 4 or term[0] == "=":
            return term if term in self.weights else None
        found = process.extractOne(term, self.vocabulary, scorer=fuzz.ratio, score_cutoff=85)
        return found and found[0]


def _fits(records: list[common.Record], text: str, verdict: Assessment) -> list[float]:
    """Cuánto conviene cada ficha a quien pregunta: edad, embarazo, tipo de pregunta y urgencia."""
    profiles = rules()["profiles"]
    asked = {group for group, (patterns, *_) in profiles.items() if mentions(patterns, text)}
    styles = {name: gain for name, (rx, gain) in rules()["styles"].items() if mentions(rx, text)}
    styles["limite"] = LIMIT_GAIN if verdict.limit else 0.6
    situations = [*rules()["situations"], rules()["other_situation"]]
    topics = next((rule["topics"] for rule in situations if rule["slug"] == verdict.situation), ())
    fits = []
    for record in records:
        fit = styles.get(record.get("estilo"), 1.0)
        fit *= SITUATION_GAIN if record.get("tema") in topics else 1.0
        for group, (_, miss, lone) in profiles.items():
            about = record.get("poblacion", "A") == group
            if about != (group in asked):
                fit *= lone if about else miss
        fits.append(fit)
    return fits


def _record_terms(record: common.Record) -> list[str]:
    """Términos de una ficha: la pregunta y sus otras formas pesan el triple que la respuesta."""
    aliases = rules()["aliases"].get(record.get("id"), "")
    question = terms(marked(f"{common.question_of(record)} {aliases}"))
    return question * 3 + terms(marked(record["output"]))


def _bm25(documents: list[list[str]]) -> Any:
    """Índice BM25 de unos documentos ya partidos en términos."""
    import bm25s

    engine = bm25s.BM25(k1=1.2, b=0.4)
    engine.index(documents, show_progress=False)
    return engine
