"""Utilidades de texto que comparten las reglas de la auditoría."""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

STEP = re.compile(r"^(\d+)\.\s+")
Problem = tuple[str, str]  # (regla, mensaje)


@dataclass(frozen=True)
class Finding:
    """Un incumplimiento: línea del fichero (desde 1), `id` del registro, regla y explicación."""

    line: int
    record_id: str
    rule: str
    message: str


def normalize(text: str) -> str:
    """Minúsculas, sin acentos ni puntuación y con espacios simples, para comparar textos."""
    plain = unicodedata.normalize("NFKD", text.casefold())
    plain = "".join(char for char in plain if not unicodedata.combining(char))
    return " ".join(re.findall(r"\w+", plain))


def steps_of(output: str) -> list[str]:
    """Los pasos numerados sin su número; lista vacía si la respuesta es prosa."""
    lines = output.split("\n")
    return [STEP.sub("", line) for line in lines if STEP.match(line)]


def words_of(output: str) -> list[str]:
    """Las palabras de la respuesta; el número de un paso no cuenta como palabra."""
    plain = "\n".join(STEP.sub("", line) for line in output.split("\n"))
    return [word for word in plain.split() if any(char.isalnum() for char in word)]


def sentences_of(output: str) -> Iterator[str]:
    """Las frases, cortadas en punto, interrogación o salto de línea (no en «;» ni en «:»)."""
    for line in output.split("\n"):
        for sentence in re.split(r"(?<=[.?!])\s+", STEP.sub("", line)):
            if sentence.strip():
                yield sentence.strip()


def question_of(record: dict) -> str:
    """La pregunta tal como la ve el modelo: `instruction` y, si lo hay, `input`."""
    return record["instruction"] + (" " + record["input"] if record["input"] else "")


def training_text(record: dict) -> str:
    """El texto de entrenamiento completo, sin los símbolos `<s>` y `</s>` de los extremos."""
    system = "Eres un asistente experto en enfermería universitaria."
    return f"{system}\nUsuario: {question_of(record)}\nEnfermero: {record['output']}"
