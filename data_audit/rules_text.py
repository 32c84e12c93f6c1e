"""Reglas de forma de un registro: esquema, longitud, pasos, trato de usted, signos y fuentes."""

import re
import unicodedata
from collections.abc import Callable, Iterator

from data_audit import tables
from data_audit.text_tools import STEP, Problem, sentences_of, training_text, words_of

# Palabras que solo existen en segunda persona del singular.
FAMILIAR_WORDS = re.compile(
    r"\b(tú|tu|tus|te|ti|contigo|tuy[oa]s?|vos|tienes|puedes|debes|eres|estás|quieres|sabes|"
    r"necesitas|sientes|llames|hagas|pongas|haz(?! de)|pon|dile|dale|ponle|ponlo|ponla)\b",
    re.IGNORECASE,
)
# Imperativos de «tú» que, al empezar una frase, no pueden ser tercera persona razonable.
FAMILIAR_START = re.compile(
    r"^(llama|pide|comprueba|presiona|aplica|lava|coloca|mantén|retira|acude|avisa|lleva al)\b",
    re.IGNORECASE,
)
# Con pronombre, solo verbos en -ar: «cúbrala» es usted, «túmbala» es tú.
FAMILIAR_CLITIC = re.compile(
    r"\b(?:túmb|siént|llám|presión|colóc|táp|láv|quít|llév|déj|gír|acuést|cálm|abríg|retír|ayúd|"
    r"enjuág|apárt|tranquilíz|levánt|séc|apriét)a(?:lo|la|le|los|las|les|te)\b",
    re.IGNORECASE,
)
MISSING_ACCENT = re.compile(
    r"\b(\w+[cs]ion|tambien|despues|rapido|rapida|medico|medica|telefono|ademas|segun|via aerea|"
    r"numero|ningun|algun|dia|dias|frio|frios|aqui|asi|oido|nausea|nauseas|vomito|vomitos|"
    r"torax|ultima|ultimo|estomago|musculo|articulacion|tension|estan|todavia)\b",
    re.IGNORECASE,
)
MARKDOWN = re.compile(r"\*\*|__|`|^#|^\s*[-*•]\s|\[[^\]]*\]\(", re.MULTILINE)
URL = re.compile(r"https?:|www\.|\.(?:com|org|es|net)\b", re.IGNORECASE)


def check_schema(record: dict, partial: bool) -> Iterator[Problem]:
    """Claves, tipos y valores admitidos. Si falla, el resto de reglas no se aplica."""
    keys = dict(tables.KEYS)
    if partial:
        keys = {**keys, "registro": str}
        keys.pop("id")
    extra = sorted(set(record) - set(keys) - ({"id"} if partial else set()))
    missing = sorted(key for key in keys if key not in record)
    if extra:
        yield "esquema", f"claves no admitidas: {', '.join(extra)}"
    if missing:
        yield "esquema", f"faltan claves: {', '.join(missing)}"
    for key, kind in keys.items():
        if key in record and type(record[key]) is not kind:
            yield "esquema", f"«{key}» debe ser de tipo {kind.__name__}"
    allowed = {
        "tema": tuple(tables.TOPIC_STYLE_COUNTS),
        "estilo": tables.STYLES,
        "gravedad": tuple(tables.SEVERITY_TARGETS),
        "poblacion": tables.POPULATIONS,
        "registro": tables.REGISTERS,
    }
    for key, values in allowed.items():
        if isinstance(record.get(key), str) and record[key] not in values:
            yield "esquema", f"valor no admitido en «{key}»: {record[key]!r}"


def check_input(record: dict) -> Iterator[Problem]:
    """`input` solo en los casos clínicos, y corto; pregunta y respuesta no vacías."""
    is_case = record["estilo"] == "caso_clinico"
    if is_case and not record["input"].strip():
        yield "entrada", "un caso clínico necesita «input»"
    if not is_case and record["input"]:
        yield "entrada", "«input» solo se usa en los casos clínicos"
    if len(record["input"]) > tables.MAX_INPUT_CHARS:
        yield "entrada", f"«input» tiene {len(record['input'])} caracteres (máximo 120)"
    for key in ("instruction", "output", "fuente"):
        if not record[key].strip():
            yield "esquema", f"«{key}» está vacío"


def check_length(record: dict, count_tokens: Callable[[str], int] | None) -> Iterator[Problem]:
    """Palabras de la respuesta y, si hay vocabulario, tokens del texto completo."""
    count = len(words_of(record["output"]))
    low, high = tables.HARD_WORDS
    preferred = tables.PREFERRED_WORDS
    if record["estilo"] == "limite":
        preferred = tables.LIMIT_STYLE_WORDS
    if not low <= count <= high:
        yield "palabras", f"{count} palabras; el límite es {low}-{high}"
    elif not preferred[0] <= count <= preferred[1]:
        yield "palabras", f"{count} palabras; se prefieren {preferred[0]}-{preferred[1]}"
    if count_tokens is not None:
        tokens = count_tokens(training_text(record)) + 2  # <s> y </s>
        if tokens > tables.MAX_TOKENS:
            yield "tokens", f"{tokens} tokens; el máximo es {tables.MAX_TOKENS}"


def check_steps(record: dict) -> Iterator[Problem]:
    """Pasos 1., 2., 3.… seguidos, de 3 a 5, uno por línea; prosa de uno o dos párrafos."""
    lines = [line for line in record["output"].split("\n") if line]
    numbers = [int(match.group(1)) for line in lines if (match := STEP.match(line))]
    if not numbers:
        if len(lines) > 2:
            yield "pasos", f"prosa con {len(lines)} párrafos; como mucho dos"
        return
    if numbers != list(range(1, len(numbers) + 1)):
        yield "pasos", f"numeración incorrecta: {numbers}"
    if not 3 <= len(numbers) <= 5:
        yield "pasos", f"{len(numbers)} pasos; deben ser de 3 a 5"
    first = next(i for i, line in enumerate(lines) if STEP.match(line))
    if any(not STEP.match(line) for line in lines[first : first + len(numbers)]):
        yield "pasos", "hay una línea sin numerar entre los pasos"
    for number, line in zip(numbers, (x for x in lines if STEP.match(x)), strict=True):
        if re.search(rf"[.;:,]\s{number + 1}\.\s+[A-ZÁÉÍÓÚÑ]", line):
            yield "pasos", f"los pasos {number} y {number + 1} están en la misma línea"


def check_familiar(record: dict) -> Iterator[Problem]:
    """Trato de usted. Lo que va entre «comillas» es habla citada y no cuenta."""
    output = re.sub(r"«[^»]*»", "«»", record["output"])
    if match := FAMILIAR_WORDS.search(output) or FAMILIAR_CLITIC.search(output):
        yield "tuteo", f"«{match.group()}»: la respuesta trata de usted"
    for sentence in sentences_of(output):
        if match := FAMILIAR_START.search(sentence):
            yield "tuteo", f"«{match.group()}»: imperativo de tú"


def check_signs(record: dict) -> Iterator[Problem]:
    """Sin emojis, direcciones web, Markdown, exclamaciones ni espacios o acentos descuidados."""
    output = record["output"]
    symbols = [c for c in output if unicodedata.category(c) in ("So", "Sk", "Cs") and c not in "°"]
    if symbols:
        yield "signos", f"símbolo o emoji no admitido: {ascii(symbols[0])}"
    if URL.search(output):
        yield "signos", "la respuesta contiene una dirección web"
    if MARKDOWN.search(output):
        yield "signos", "la respuesta contiene Markdown"
    if re.search(r"[!¡]", output):
        yield "signos", "la respuesta contiene exclamaciones"
    if output.count("?") != output.count("¿"):
        yield "signos", "interrogación sin abrir o sin cerrar"
    if "\n\n" in output:
        yield "signos", "línea en blanco: pasos y párrafos se separan con un solo salto"
    if re.search(r"[\t\r]|  |\n |^\s|\s$", output):
        yield "signos", "espacios sobrantes en la respuesta"
    if match := MISSING_ACCENT.search(output):
        yield "acentos", f"«{match.group()}» lleva tilde"


def check_sources(record: dict) -> Iterator[Problem]:
    """Solo las fuentes de la referencia, separadas por «; »."""
    topic = record["tema"]
    for source in (part.strip() for part in record["fuente"].split(";")):
        if source == tables.SCOPE_SOURCE:
            if topic != "fuera_de_alcance":
                yield "fuente", f"«{source}» solo vale en fuera_de_alcance"
        elif source not in tables.SOURCES and not source.startswith(tables.SOURCES_WITH_PAGE):
            yield "fuente", f"fuente no admitida: «{source}»"
        elif source == "ERC 2025 primeros auxilios" and topic in tables.TOPICS_OUTSIDE_ERC_2025:
            yield "fuente", f"ERC 2025 primeros auxilios no trata el tema {topic}"
