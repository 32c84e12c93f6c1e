"""Lo aprendido de miles de preguntas tecleadas: si urge, si pasa del alcance y qué ficha vale.

Sumas y productos de los pesos que ajusta `data_audit/fit_safety.py`; ningún modelo de lenguaje.
Los rasgos son palabras, parejas, trozos de palabra, los conceptos que nombran, signos y reglas del
léxico: las reglas no deciden solas, dicen su parte y el peso de cada una sale de las preguntas.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import nurse_common as common

from .text import gated, holds, matches, open_gates, possible, prepare, terms_of
from .thesaurus import concepts

WEIGHTS_FILE = Path(__file__).with_name("weights.npz")
# Las clases de las preguntas que ninguna ficha contesta: ajenas, y fuera de alcance.
NONE, OUTSIDE = "ninguna", "fuera"
NEGATIONS = {"no", "ni", "sin", "nunca", "tampoco", "nada"}
DENIED_WORDS = 2  # palabras con contenido a las que alcanza una negación
PART_WORDS, FEWEST_WORDS = 10, 3  # de una parte de la pregunta, como mucho y como poco
PART_MARGIN = 2.5  # una parte sola engaña más («no responde» puede ser el ordenador)
PIECES = (3, 4, 5)  # letras de cada trozo de palabra: sobreviven a las erratas


class Reading(NamedTuple):
    """Lo que los pesos leen en una pregunta."""

    urgent: float  # logaritmo de la razón entre que urja y que no
    limit: float  # lo mismo de que pida algo fuera de alcance
    records: dict[str, float]  # ficha (o NONE, OUTSIDE) -> probabilidad de ser la que contesta


def features(question: str, part_of: str | None = None) -> list[str]:
    """Rasgos de una pregunta (o de una parte de `part_of`), sin repetir y en orden fijo."""
    text = prepare(question)
    hints = possible(prepare(part_of or question))
    words = re.findall(r"[a-z0-9]+", text)
    found = [f"t:{term}" for term in terms_of(text)] + [f"w:{word}" for word in words]
    denied = set(_denied(text))
    found += [f"n:{word}" for word in words if word in denied]
    for place, concept in concepts(words):
        found += [f"k:{concept}"] + [f"m:{concept}"] * (words[place] in denied)
    found += [f"b:{a} {b}" for a, b in zip(words, words[1:], strict=False)]
    for word in dict.fromkeys(words):
        whole = f"<{word}>"
        for size in PIECES:
            found += [f"c:{whole[i : i + size]}" for i in range(len(whole) - size + 1)]
    found += [f"s:{name}" for name, group in hints.signs if any(matches(p, text) for p in group)]
    gates = open_gates(text)
    found += [f"g:{name}" for name in sorted(gates)]
    for rule in hints.situations:
        if holds(rule, text):
            kind = "gated" if gated(rule, gates) else "free"
            found += [f"r:{rule['slug']}", f"r:{kind}"]
    found += [f"l:{rule['slug']}" for rule in hints.limits if holds(rule, text)]
    return list(dict.fromkeys(found))


def _denied(text: str) -> Iterator[str]:
    """Las palabras que siguen a una negación en la misma frase: «no le DUELE el PECHO»."""
    left = 0
    for word, end in re.findall(r"([a-z0-9]+|\|)([ -])", text):
        if word in NEGATIONS:
            left = DENIED_WORDS
        elif word == "|":
            left = 0
        elif left and end == " ":  # las palabras vacías acaban en «-»
            left -= 1
            yield word


def digest(record: common.Record) -> str:
    """Huella de una ficha: si su texto cambia, lo aprendido sobre ella ya no vale."""
    text = f"{common.question_of(record)}\n{record['output']}"
    return hashlib.sha256(text.encode()).hexdigest()[:8]


class Weights:
    """Los pesos ajustados, leídos una vez."""

    def __init__(self, path: Path = WEIGHTS_FILE) -> None:
        import numpy as np

        with np.load(path) as file:  # sin pickle: NumPy no lo lee si no se le pide
            self.arrays = dict(file)
        self.arrays["output"] = self.arrays["output"].astype("float32")
        texts = {name: self.arrays[name].tobytes().decode() for name in ("names", "classes")}
        self.place = {name: index for index, name in enumerate(texts["names"].split("\n"))}
        known = [line.split() for line in texts["classes"].split("\n")]
        self.classes = [name for name, _ in known]  # las fichas y, al final, NONE y OUTSIDE
        self.digests = dict(known)

    def read(self, names: list[str]) -> Reading:
        """Suma los pesos de los rasgos conocidos."""
        import numpy as np

        rows = [self.place[name] for name in names if name in self.place]
        if not rows:
            return Reading(-np.inf, -np.inf, dict.fromkeys(self.classes, 0.0))
        chances = self._chances(rows)
        usual = chances @ self.arrays["rates"]  # (2,) lo que suelen ser esas preguntas
        logits = self.arrays["heads"][rows].astype("float32").sum(0) + self.arrays["head_bias"]
        logits += self.arrays["usual_gain"] * np.log(usual / (1 - usual))
        urgent, limit = logits + chances @ self.arrays["usual_records"]
        words = [name in self.place for name in names if name[0] == "w"]
        if 2 * sum(words) <= len(words):  # si no entiende ni la mitad, ninguna ficha es cercana
            chances = chances * 0.0
        records = dict(zip(self.classes, chances.tolist(), strict=True))
        return Reading(float(urgent), float(limit), records)

    def _chances(self, rows: list[int]) -> Any:
        """(fichas,) probabilidad de que cada una conteste a quien escribe esos rasgos."""
        import numpy as np

        weights = self.arrays["rarity"][rows].astype("float32")
        weights /= float(np.sqrt((weights**2).sum()))
        pairs = self.arrays["vectors"][rows]  # cada byte lleva dos números de 4 bits, más 8
        vectors = np.stack([pairs >> 4, pairs & 15], 2).reshape(len(rows), -1).astype("float32") - 8
        hidden = (weights * self.arrays["scales"][rows].astype("float32")) @ vectors
        logits = self.arrays["output"] @ hidden + self.arrays["output_bias"]
        chances = np.exp(logits - logits.max())
        return chances / chances.sum()


@lru_cache(maxsize=1)
def _weights() -> Weights:
    return Weights()


@lru_cache(maxsize=64)
def read(question: str) -> Reading:
    """Lo que los pesos leen en la pregunta entera y, con `PART_MARGIN` de menos, en cada parte.

    Sin las partes bastaría rodear «no respira» de frases sobre otra cosa para que no se viera.
    """
    whole = _weights().read(features(question))
    pieces = _parts(question) if whole.urgent <= 0 else []
    parts = [_weights().read(features(piece, question)) for piece in pieces]
    loudest = max(parts, key=lambda part: part.urgent, default=whole)
    urgent = max(whole.urgent, loudest.urgent - PART_MARGIN)
    limit = max([whole.limit, *(part.limit - PART_MARGIN for part in parts)])
    hidden = urgent > whole.urgent and urgent > 0  # solo se ve en una parte: su ficha también
    return Reading(urgent, limit, loudest.records if hidden else whole.records)


def _parts(question: str) -> list[str]:
    """Las frases y, si alguna es larga, sus ventanas; ninguna si todo cabe en una."""
    parts = []
    for sentence in re.split(r"[.!?;:\n]+", question):
        words = sentence.split()
        starts = range(0, max(1, len(words) - PART_WORDS // 2), PART_WORDS // 2)
        if len(words) >= FEWEST_WORDS:
            parts += [" ".join(words[start : start + PART_WORDS]) for start in starts]
    return parts if len(parts) > 1 else []


def knows(record: common.Record) -> bool:
    """Si los pesos aprendieron esta ficha, con este mismo texto."""
    return _weights().digests.get(record.get("id")) == digest(record)
