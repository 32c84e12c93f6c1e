"""La ficha verificada más cercana: erratas, regiones, edad y preguntas ajenas."""

import pytest

import nurse_common as common
import nurse_safety as safety


@pytest.fixture(scope="module")
def index() -> safety.RecordIndex:
    return safety.RecordIndex(common.load_records(common.DATA_FILE)[0])


def first(index: safety.RecordIndex, question: str) -> common.Record:
    return index.search(question)[0].record


def test_each_record_is_found_by_its_own_question(index: safety.RecordIndex):
    ranks = [
        [hit.record["id"] for hit in index.search(common.question_of(row))] for row in index.records
    ]
    own = [row["id"] for row in index.records]
    assert sum(i == rank[0] for i, rank in zip(own, ranks, strict=True)) >= 0.97 * len(own)
    assert sum(i in rank for i, rank in zip(own, ranks, strict=True)) >= 0.99 * len(own)


@pytest.mark.parametrize(
    ("question", "topic"),
    [
        ("me pico una avispa", "mordeduras_picaduras"),
        ("me picó una abispa", "mordeduras_picaduras"),
        ("ampoya por las botas", "heridas"),
        ("tengo calentura", "cefalea_fiebre_malestar"),
        ("se ahogó en la alberca", "ahogamiento"),
        ("se ahogó en la pileta", "ahogamiento"),
        ("le dio un derrame", "ictus"),
        ("le dio un ACV", "ictus"),
        ("torcedura de tobiyo", "esguinces_deporte"),
        ("q llevo en el botikin", "botiquin_prevencion"),
        ("hemorrajia nasal", "ojos_nariz_oido_boca"),
    ],
)
def test_accents_typos_and_regional_words_are_forgiven(
    index: safety.RecordIndex, question: str, topic: str
):
    assert first(index, question)["tema"] == topic


def test_age_and_pregnancy_choose_the_record(index: safety.RecordIndex):
    choking = "se atragantó con comida y no puede respirar"
    assert first(index, f"mi bebé de 8 meses {choking}")["poblacion"] == "L"
    assert first(index, f"una embarazada {choking}")["poblacion"] == "E"
    assert first(index, f"mi marido {choking}")["poblacion"] not in "LE"


def test_out_of_scope_request_finds_the_limit_record(index: safety.RecordIndex):
    assert first(index, "¿cuántos ml de paracetamol para 18 kilos?")["estilo"] == "limite"


@pytest.mark.parametrize("question", ["¿quién ganó el mundial?", "cuéntame un chiste", "", "???"])
def test_a_foreign_question_has_no_close_record(index: safety.RecordIndex, question: str):
    assert not any(hit.close for hit in index.search(question))


def test_search_gives_at_most_k_hits_best_first(index: safety.RecordIndex):
    hits = index.search("quemadura con agua hirviendo", k=5)
    assert len(hits) == 5
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


def test_records_without_the_recommended_fields_are_searched_too():
    rows = [
        {"instruction": "¿Qué hago con una quemadura?", "output": "Agua fresca 20 minutos."},
        {"instruction": "¿Qué hago con un esguince?", "output": "Frío envuelto en un paño."},
    ]
    assert safety.RecordIndex(rows).search("me queme la mano")[0].record is rows[0]
