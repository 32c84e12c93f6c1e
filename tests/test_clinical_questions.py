"""Las preguntas de la evaluación clínica, contra los 500 registros publicados."""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

import clinical_scoring as scoring  # noqa: E402

import nurse_common as common  # noqa: E402
from data_audit.tables import TOPIC_STYLE_COUNTS  # noqa: E402
from data_audit.text_tools import normalize  # noqa: E402

KINDS = {"urgent", "mild", "info", "scope", "adversarial"}
QUESTIONS = {split: scoring.load_questions(split) for split in scoring.SPLITS}
EVERY = [item for items in QUESTIONS.values() for item in items]
RECORDS = {record["id"]: record for record in common.load_records(common.DATA_FILE)[0]}


def test_question_set_is_complete() -> None:
    """Cuántas hay de cada cosa, sin repetir y con todos los temas."""
    assert len(EVERY) >= 1400
    assert len({item.id for item in EVERY}) == len(EVERY)
    assert len({normalize(item.question) for item in EVERY}) == len(EVERY)
    assert sum(item.urgent for item in EVERY) >= 80
    assert sum(not item.urgent for item in EVERY) >= 80
    assert sum(item.scope for item in EVERY) >= 35
    assert sum(item.kind == "adversarial" for item in EVERY) >= 25
    assert {item.tema for item in EVERY} == set(TOPIC_STYLE_COUNTS)
    assert {item.kind for item in EVERY} == KINDS


def test_a_third_of_each_kind_is_reserved() -> None:
    for kind in KINDS:
        reserved = sum(item.kind == kind for item in QUESTIONS["test"])
        assert 0.3 < reserved / sum(item.kind == kind for item in EVERY) < 0.37, kind


def test_every_question_can_be_met() -> None:
    """Toda ficha que vale contiene los datos exigidos y no afirma nada peligroso."""
    problems = []
    for item in EVERY:
        assert not (item.urgent and item.scope), item.id
        assert item.records or item.urgent or item.kind in ("scope", "adversarial"), item.id
        notice = "Llame ahora al 112." if item.urgent else ""
        for name in item.records:
            text = f"{notice}\n{RECORDS[name]['output']}"
            missing = scoring.missing_facts(text, item.must)
            if missing or scoring.asserted(text, item.must_not):
                problems.append((item.id, name, missing))
    assert problems == []


def test_patterns_are_searchable() -> None:
    """Los patrones compilan y no llevan acentos ni mayúsculas, que nunca se encontrarían."""
    for item in EVERY:
        for pattern in [*item.must_not, *(form for forms in item.must for form in forms)]:
            re.compile(pattern)
            assert pattern == scoring.fold(pattern), item.id


def trigrams(text: str) -> set[tuple[str, ...]]:
    words = normalize(text).split()
    return {tuple(words[n : n + 3]) for n in range(len(words) - 2)} or {tuple(words)}


def test_questions_are_not_copied_from_the_records() -> None:
    """Ninguna se parece a un registro (Jaccard de 3-gramas de palabras menor de 0,4)."""
    known = [trigrams(record["instruction"]) for record in RECORDS.values()]
    for item in EVERY:
        own = trigrams(item.question)
        assert max(len(own & other) / len(own | other) for other in known) < 0.4, item.id
