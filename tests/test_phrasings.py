"""Las preguntas tecleadas y los pesos que salen de ellas."""

import json
from pathlib import Path

import pytest

import nurse_common as common
import nurse_safety as safety
from data_audit.phrasing_files import FOLDER, Phrasing, load_phrasings
from nurse_safety import learned
from nurse_safety.text import fold

QUESTIONS = Path(__file__).resolve().parents[1] / "benchmarks" / "clinical_eval"


@pytest.fixture(scope="module")
def rows() -> list[Phrasing]:
    return load_phrasings()


@pytest.fixture(scope="module")
def records() -> list[common.Record]:
    return common.load_records(common.DATA_FILE)[0]


def same(text: str) -> str:
    return " ".join(map(fold, text.split()))


def test_labels_ids_and_texts_are_valid(rows: list[Phrasing], records: list[common.Record]):
    assert {row.label for row in rows} <= set("UNLB")
    assert not {name for row in rows for name in row.records} - {row["id"] for row in records}
    assert all(row.text.strip() == row.text and row.text for row in rows)
    assert len({same(row.text) for row in rows}) == len(rows)


def test_each_file_holds_the_questions_of_its_topic(records: list[common.Record]):
    topics = {row["id"]: row["tema"] for row in records}
    names = {path.stem for path in FOLDER.glob("*.tsv")}
    assert names == {*topics.values(), "sin_ficha"}
    for path in FOLDER.glob("*.tsv"):
        for line in path.read_text(encoding="utf-8").splitlines():
            first = line.split("\t")[1].split(",")[0]
            assert topics.get(first, "sin_ficha") == path.stem, line


def test_every_record_has_questions_of_its_own(rows: list[Phrasing], records: list[common.Record]):
    first = [row.records[0] for row in rows if row.records]
    assert min(first.count(record["id"]) for record in records) >= 15


def test_no_evaluation_question_was_learned(rows: list[Phrasing]):
    learned_texts = {same(row.text) for row in rows}
    for path in QUESTIONS.glob("*.jsonl"):
        for line in path.read_text(encoding="utf-8").splitlines():
            assert same(json.loads(line)["question"]) not in learned_texts


def test_the_weights_were_fitted_with_these_records(records: list[common.Record]):
    assert [row["id"] for row in records if not learned.knows(row)] == []
    assert not learned.knows(records[0] | {"output": "1. Otra cosa."})


def test_an_edited_record_is_still_found_by_its_text(records: list[common.Record]):
    own = {"id": "PA-0001", "instruction": "¿Cómo se afina un violonchelo?", "output": "Con calma."}
    index = safety.RecordIndex([*records[1:], own])
    hit = index.search("afinar el violonchelo")[0]
    assert hit.record is own and hit.close


def test_the_typed_questions_are_what_finds_this_record(
    records: list[common.Record], monkeypatch: pytest.MonkeyPatch
):
    question = "la aguja tirada en el baño, ¿cómo la cojo?"
    assert safety.RecordIndex(records).search(question)[0].record["id"] == "PA-0455"
    monkeypatch.setattr(learned, "knows", lambda record: False)
    assert safety.RecordIndex(records).search(question)[0].record["id"] != "PA-0455"
