"""El diccionario de conceptos: formas bien escritas y reconocidas como las teclea la gente."""

import re
from pathlib import Path

import pytest

from nurse_safety import thesaurus
from nurse_safety.text import prepare


def found(question: str) -> set[str]:
    return {name for _, name in thesaurus.concepts(re.findall(r"[a-z0-9]+", prepare(question)))}


def test_file_has_one_concept_per_line_and_no_form_that_matches_everything() -> None:
    lines = thesaurus.THESAURUS_FILE.read_text(encoding="utf-8").splitlines()
    names = [line.split("\t")[0] for line in lines]
    assert names == sorted(set(names)) and len(names) > 900
    for line in lines:
        forms = line.split("\t")[1].split("|")
        assert len(forms) == len(set(forms)), line
        for word in " ".join(forms).split():
            assert re.fullmatch(r"\w+|\w{3,}\*", word), f"{line.split()[0]}: «{word}»"


@pytest.mark.parametrize(
    ("question", "concept"),
    [
        ("mi abu GUACAREÓ 3 veces", "vomitar"),
        ("echó la pota en el taxi", "vomitar"),
        ("se me callo el bb del cambiador", "caerse"),
        ("me pico una aveja en la jeta", "abeja"),
        ("cuánto acetaminofén le meto", "paracetamol"),
        ("el firulais se comió el chocolate", "perro"),
    ],
)
def test_street_words_mean_their_concept(question: str, concept: str) -> None:
    assert concept in found(question)


def test_form_of_several_words_needs_them_all_together_and_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "thesaurus.tsv"
    file.write_text("orina\taguas menor*|meo\n", encoding="utf-8")
    monkeypatch.setattr(thesaurus, "THESAURUS_FILE", file)
    caches = thesaurus.forms, thesaurus._starting
    try:
        for cached in caches:
            cached.cache_clear()
        assert found("le duele al hacer aguas menores") == {"orina"}
        for question in ("menores en las aguas del lago", "las aguas de los menores", "aguas"):
            assert not found(question)
    finally:
        for cached in caches:
            cached.cache_clear()


def test_prefix_that_ends_in_c_sounds_as_its_next_letter() -> None:
    """«tropec*» es «tropecé» (s) y no solo «tropeco» (k)."""
    assert "tropezar" in found("me tropecé con el perro")
