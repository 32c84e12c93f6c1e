"""`nurse_phrasings.tsv`: bien formado, ajeno a la evaluación y útil para encontrar fichas."""

import json
from pathlib import Path

import pytest

import nurse_common as common
import nurse_safety as safety
from nurse_text import fold, load_phrasings

QUESTIONS = Path(__file__).resolve().parents[1] / "benchmarks" / "clinical_eval"


@pytest.fixture(scope="module")
def rows() -> list[tuple[str, list[str], str]]:
    return load_phrasings()


def same(text: str) -> str:
    return " ".join(map(fold, text.split()))


def test_labels_ids_and_texts_are_valid(rows: list[tuple[str, list[str], str]]):
    ids = {row["id"] for row in common.load_records(common.DATA_FILE)[0]}
    assert {label for label, _, _ in rows} <= set("UNLB")
    assert not {name for _, names, _ in rows for name in names} - ids
    assert all(text.strip() == text and text for _, _, text in rows)
    assert len({text for _, _, text in rows}) == len(rows)


def test_the_same_question_never_has_two_labels(rows: list[tuple[str, list[str], str]]):
    labels: dict[str, set[str]] = {}
    for label, _, text in rows:
        labels.setdefault(same(text), set()).add(label)
    assert not [text for text, found in labels.items() if len(found) > 1]


def test_no_evaluation_question_was_learned(rows: list[tuple[str, list[str], str]]):
    learned = {same(text) for _, _, text in rows}
    for path in QUESTIONS.glob("*.jsonl"):
        for line in path.read_text(encoding="utf-8").splitlines():
            assert same(json.loads(line)["question"]) not in learned


def test_the_typed_questions_are_what_finds_this_record(monkeypatch: pytest.MonkeyPatch):
    records = common.load_records(common.DATA_FILE)[0]
    question = "la aguja tirada en el baño, ¿cómo la cojo?"
    assert safety.RecordIndex(records).search(question)[0].record["id"] == "PA-0455"
    monkeypatch.setattr(safety, "load_phrasings", list)
    assert safety.RecordIndex(records).search(question)[0].record["id"] != "PA-0455"
