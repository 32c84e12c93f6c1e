"""Reglas del conjunto: recuentos, identificadores, unicidad, variedad y mitos cubiertos."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator

from data_audit import tables
from data_audit.text_tools import (
    Finding,
    normalize,
    question_of,
    sentences_of,
)

Numbered = list[tuple[int, dict]]  # (línea desde 1, registro con el esquema correcto)


def finding(line: int, record: dict, rule: str, message: str) -> Finding:
    """Un hallazgo con el `id` del registro, o «-» si es un borrador sin él."""
    return Finding(line, str(record.get("id", "-")), rule, message)


def check_counts(records: Numbered, complete: bool) -> Iterator[Finding]:
    """Registros por tema y por tema y estilo, exactos; 500 en total si está completo."""
    found = Counter((record["tema"], record["estilo"]) for _, record in records)
    present = {record["tema"] for _, record in records}
    for topic, counts in tables.TOPIC_STYLE_COUNTS.items():
        if not complete and topic not in present:
            continue
        for style, expected in zip(tables.STYLES, counts, strict=True):
            count = found[topic, style]
            if count != expected:
                yield Finding(0, "-", "recuento", f"{topic}/{style}: hay {count}, van {expected}")
    if complete and len(records) != tables.TOTAL_RECORDS:
        yield Finding(0, "-", "recuento", f"hay {len(records)} registros, van 500")


def check_ids(records: Numbered) -> Iterator[Finding]:
    """`id` correlativo desde PA-0001, en el orden del fichero."""
    for position, (line, record) in enumerate(records, start=1):
        expected = f"PA-{position:04d}"
        if record["id"] != expected:
            yield finding(line, record, "id", f"se esperaba {expected}")


def check_population_and_severity(records: Numbered) -> Iterator[Finding]:
    """Mínimos por población y reparto orientativo de gravedad."""
    populations = Counter(record["poblacion"] for _, record in records)
    for name, minimum in tables.POPULATION_MINIMUMS.items():
        if populations[name] < minimum:
            text = f"población {name}: hay {populations[name]}, mínimo {minimum}"
            yield Finding(0, "-", "poblacion", text)
    severities = Counter(record["gravedad"] for _, record in records)
    for name, target in tables.SEVERITY_TARGETS.items():
        if abs(severities[name] - target) > tables.SEVERITY_TOLERANCE:
            text = f"gravedad {name}: hay {severities[name]}, orientativo {target} ± 15"
            yield Finding(0, "-", "gravedad", text)


def check_duplicates(records: Numbered) -> Iterator[Finding]:
    """Ninguna pregunta ni respuesta repetida, sin mirar acentos, mayúsculas ni signos."""
    for name, get in (("pregunta", question_of), ("respuesta", lambda record: record["output"])):
        seen: dict[str, int] = {}
        for line, record in records:
            key = normalize(get(record))
            if key in seen:
                text = f"{name} igual que la de la línea {seen[key]}"
                yield finding(line, record, "duplicado", text)
            seen.setdefault(key, line)


def trigrams(text: str) -> frozenset[tuple[str, ...]]:
    """Los 3-gramas de palabras; si el texto es más corto, el texto entero."""
    words = normalize(text).split()
    if len(words) < 3:
        return frozenset({tuple(words)})
    return frozenset(zip(words, words[1:], words[2:], strict=False))


def check_similarity(records: Numbered) -> Iterator[Finding]:
    """Similitud de Jaccard por pares, en todo el conjunto (no solo dentro de cada tema)."""
    limits = (
        ("instruction", tables.MAX_INSTRUCTION_JACCARD),
        ("output", tables.MAX_OUTPUT_JACCARD),
    )
    for key, limit in limits:
        grams = [trigrams(record[key]) for _, record in records]
        holders: dict[tuple[str, ...], list[int]] = defaultdict(list)
        for index, (line, record) in enumerate(records):
            # Solo se comparan los pares que comparten algún 3-grama.
            shared = Counter(other for gram in grams[index] for other in holders[gram])
            for other, common in sorted(shared.items()):
                ratio = common / (len(grams[index]) + len(grams[other]) - common)
                if ratio >= limit:
                    text = f"«{key}» se parece {ratio:.2f} a la línea {records[other][0]}"
                    yield finding(line, record, "similitud", f"{text} (límite {limit:.2f})")
            for gram in grams[index]:
                holders[gram].append(index)


def check_repeated_sentences(records: Numbered) -> Iterator[Finding]:
    """Ninguna frase larga en más de 3 registros, salvo la fórmula del 112/911."""
    lines: dict[str, set[int]] = defaultdict(set)
    for line, record in records:
        for sentence in sentences_of(record["output"]):
            key = normalize(sentence)
            if len(key.split()) > tables.LONG_SENTENCE_WORDS and "112/911" not in sentence:
                lines[key].add(line)
    for key, where in lines.items():
        if len(where) > tables.MAX_SENTENCE_REPEATS:
            text = f"frase repetida en {len(where)} registros: «{key[:60]}…»"
            yield Finding(max(where), "-", "frase_repetida", text)


def check_starts(records: Numbered) -> Iterator[Finding]:
    """Variedad de arranques: «Llame al 112/911» y «No» no pueden dominar."""
    starts = [re.sub(r"^1\.\s+", "", record["output"]) for _, record in records]
    shares = (
        (r"Llame al 112/911", tables.MAX_CALL_START_SHARE),
        (r"No\b", tables.MAX_NO_START_SHARE),
    )
    for pattern, limit in shares:
        count = sum(bool(re.match(pattern, start)) for start in starts)
        if starts and count / len(starts) > limit:
            name = pattern.replace(r"\b", "")
            text = f"{count} respuestas empiezan por «{name}»; máximo {limit:.0%}"
            yield Finding(0, "-", "arranque", text)


def check_myths(records: Numbered) -> Iterator[Finding]:
    """Los 25 mitos obligatorios, cada uno en un registro de estilo `mito` de su tema."""
    texts: dict[str, list[str]] = defaultdict(list)
    for _, record in records:
        if record["estilo"] == "mito":
            texts[record["tema"]].append(f"{question_of(record)} {record['output']}".lower())
    for number, topic, patterns in tables.MYTHS:
        covered = any(all(re.search(p, text) for p in patterns) for text in texts[topic])
        if not covered:
            yield Finding(0, "-", "mitos", f"falta el mito {number} (tema {topic})")
