"""Los conceptos que una pregunta nombra: «guacareó» y «echó la pota» son vomitar.

`thesaurus.tsv`: un concepto por línea y sus formas, separadas por «|»: palabras, comienzos acabados
en `*` y giros de varias palabras. No decide nada: cada concepto es un rasgo más de la pregunta.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from .text import fold

THESAURUS_FILE = Path(__file__).with_name("thesaurus.tsv")
SHORTEST = 3  # letras del comienzo más corto que admite `*`
# Forma plegada: sus palabras, con `*` si son comienzos.
Form = tuple[str, ...]


@lru_cache(maxsize=1)
def forms() -> dict[str, list[tuple[Form, str]]]:
    """Primera palabra (o comienzo con `*`) -> [(resto de la forma, concepto)]."""
    table: dict[str, list[tuple[Form, str]]] = {}
    for line in THESAURUS_FILE.read_text(encoding="utf-8").splitlines():
        concept, written = line.split("\t")
        for form in written.split("|"):
            first, *rest = form.split()
            others = tuple(_folded(word)[0] for word in rest)
            for start in _folded(first):
                table.setdefault(start, []).append((others, concept))
    return table


def _folded(word: str) -> list[str]:
    """Una palabra plegada; un comienzo en «c» o «g», como suene ante cualquier vocal."""
    if not word.endswith("*"):
        return [fold(word)]
    start = word[:-1]
    return list(dict.fromkeys([f"{fold(start)}*", f"{fold(start + 'e')[:-1]}*"]))


def concepts(words: list[str]) -> Iterator[tuple[int, str]]:
    """(puesto de la palabra en que empieza, concepto) de cada forma que aparece, en orden."""
    for place, word in enumerate(words):
        alone, followed = _starting(word)
        yield from ((place, concept) for concept in alone)
        following = words[place + 1 :]
        if following and followed:
            for second in _spellings(following[0]):
                for rest, concept in followed.get(second, ()):
                    if len(rest) <= len(following) and all(map(_same, rest, following)):
                        yield place, concept


@lru_cache(maxsize=20000)
def _starting(word: str) -> tuple[list[str], dict[str, list[tuple[Form, str]]]]:
    """Lo que nombra la palabra sola y, por su segunda palabra, las formas que empiezan por ella."""
    table, alone, followed = forms(), [], {}
    for start in _spellings(word):
        for rest, concept in table.get(start, ()):
            if rest:
                followed.setdefault(rest[0], []).append((rest, concept))
            else:
                alone.append(concept)
    return alone, followed


@lru_cache(maxsize=20000)
def _spellings(word: str) -> list[str]:
    """Como puede estar en una forma: la palabra entera o cualquiera de sus comienzos."""
    return [word, *(f"{word[:size]}*" for size in range(SHORTEST, len(word) + 1))]


def _same(form: str, word: str) -> bool:
    return word.startswith(form[:-1]) if form.endswith("*") else word == form
