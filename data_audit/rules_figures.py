"""Cifras canónicas como reglas de contradicción: si se da la cifra, es la de la tabla."""

import re
from collections.abc import Iterator

from data_audit.figures_topics import FIGURES
from data_audit.text_tools import Problem, sentences_of


def check_figures(record: dict) -> Iterator[Problem]:
    """Ninguna frase da para un hecho de la tabla solo cifras distintas de la canónica."""
    for sentence in sentences_of(record["output"]):
        for rule in FIGURES:
            if rule.topics is not None and record["tema"] not in rule.topics:
                continue
            if not re.search(rule.context, sentence, re.IGNORECASE):
                continue
            if rule.unless and re.search(rule.unless, sentence, re.IGNORECASE):
                continue
            found = [m.group("v") for m in re.finditer(rule.value, sentence, re.IGNORECASE)]
            values = [re.sub(r"\s*(?:-|–|a|y|o)\s*", "-", value) for value in found]
            wrong = [value for value in values if value not in rule.allowed]
            if wrong and (rule.every or len(wrong) == len(values)):
                yield "cifra", f"{rule.name}; la respuesta dice {', '.join(found)}"


def check_burn_time(record: dict) -> Iterator[Problem]:
    """Quien manda enfriar una quemadura con agua tiene que decir cuánto: 20 minutos."""
    if record["tema"] != "quemaduras_electricidad":
        return
    if record["estilo"] not in ("que_hacer", "caso_clinico"):
        return
    text = record["instruction"] + record["input"] + record["output"]
    cools = re.search(r"\benfr[ií]\w*|agua corriente", record["output"], re.IGNORECASE)
    solar = re.search(r"\bsol(?:ar|eada)?\b", text, re.IGNORECASE)
    if cools and not solar and not re.search(r"\b20 min", record["output"]):
        yield "cifra", "manda enfriar y no dice 20 minutos"
