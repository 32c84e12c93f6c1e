"""Reglas clínicas: el aviso al 112/911, frases peligrosas, fármacos y teléfonos."""

import re
from collections.abc import Iterator

from data_audit.text_tools import Problem, sentences_of, steps_of

EMERGENCY = "112/911"

# §5.5: lo único que puede ir antes de la llamada es ponerse a salvo, apartar o presionar.
BEFORE_THE_CALL = re.compile(
    r"\b(al[eé]j|empaquet|tapon|qu[ií]te|aseg[uú]r|ap[aá]rt|ret[ií]r|s[aá]que|s[aá]lga|c[oó]rte|descon[eé]ct|ap[aá]gu|presion|"
    r"apriet|comprima la herida|prot[eé]j|segur|a salvo|guantes|no toque|no entre|no se acerque|"
    r"no se (?:lance|meta|tire)|lance|alc[aá]nce|ll[eé]ve|al aire|señalic|ruede|páre)",
    re.IGNORECASE,
)
NEGATION = re.compile(
    r"\b(no|nunca|ni|sin|nadie|evit\w*|tampoco|jamás|mito|fals[oa]|error|nada de|ningun\w*|"
    r"ningún|en vez de|en lugar de|deje de|peligros\w*|prohibid\w*|desaconsej\w*|creencia)\b",
    re.IGNORECASE,
)
CONTRAST = re.compile(r";|, pero\b|, sino\b|\bsino que\b")
SMALL = r"[^.;]{0,25}(?:astilla|espina|aguij|garrapata|pincho|púa)"
PUT = r"(?:ponga|póngale|póngase|aplique|aplíquele|use|utilice|coloque|unte|úntele|extienda|eche)"

CONVULSIONS = frozenset({"convulsiones"})
AWAKE = r"^(?!.*(?:respond|conocimiento|inconsc))"
BITES = frozenset({"mordeduras_picaduras"})

# (nombre, temas o None, patrón, patrón que la frase debe contener además o None)
FORBIDDEN: tuple[tuple[str, frozenset[str] | None, str, str | None], ...] = (
    (
        "provocar el vómito",
        None,
        r"provo(?:que|cadle)\w* (?:el|un) vómito|hágal[oae] vomitar",
        None,
    ),
    ("aflojar el torniquete", None, r"\bafl[oó]je(?:lo|se)?\b(?! (?:la|su) ropa)", r"torniquete"),
    (
        "hielo en la quemadura",
        frozenset({"quemaduras_electricidad"}),
        rf"\b{PUT}\b[^.;]{{0,40}}\bhielo",
        None,
    ),
    (
        "remedio casero en la quemadura",
        frozenset({"quemaduras_electricidad"}),
        rf"\b{PUT}\b[^.;]{{0,40}}(?:pasta de dientes|dentífric|mantequilla|aceite|huevo|vinagre)",
        None,
    ),
    (
        "cabeza hacia atrás si sangra la nariz",
        frozenset({"ojos_nariz_oido_boca"}),
        r"\b(?:incline|eche|lleve|ponga|échela|inclínela)\b[^.;]{0,30}hacia atrás",
        None,
    ),
    (
        "bolsa de papel",
        None,
        r"\b(?:respire|use|utilice|ponga|póngale|dele|sople|ofrezca)\b[^.;]{0,40}bolsa de papel",
        None,
    ),
    (
        "alcohol en la piel para la fiebre o el calor",
        frozenset({"cefalea_fiebre_malestar", "calor_deshidratacion", "convulsiones"}),
        rf"\b(?:{PUT}|frote|frótele|moje|friccione)\b[^.;]{{0,40}}\balcohol\b",
        None,
    ),
    (
        "meter algo en la boca",
        None,
        r"\b(?:meta|métale|introduzca|introdúzcale)\b[^.;]{0,40}(?:\bboca\b|\bdientes\b)",
        None,
    ),
    (
        "dos dedos en la RCP del lactante",
        frozenset({"rcp_pediatrica", "bebe_y_mayor", "atragantamiento", "ahogamiento"}),
        r"\b(?:con|use|utilice|ponga|coloque) (?:los |sus )?dos dedos",
        r"compr|esternón|pecho|tórax",
    ),
    ("diagnóstico", None, r"(?<!si )(?<!que )\busted (?:tiene|padece|sufre)\b", None),
    ("chupar el veneno", None, r"\b(?:chupe|succione|absorba)\b[^.;]{0,30}veneno", None),
    ("orinar en la picadura", None, r"\borine (?:sobre|encima|en la)", None),
    ("quemar la garrapata", None, r"\b(?:queme|unte|gire)\b[^.;]{0,30}garrapata", None),
    (
        "retirar lo clavado",
        None,
        rf"\b(?:saque|retire|extraiga|arranque)\b(?!{SMALL})[^.;]{{0,25}}clavad",
        None,
    ),
    ("reventar la ampolla", None, r"\b(?:reviente|pinche|rompa)\b[^.;]{0,20}ampolla", None),
    (
        "aspirina en el ictus",
        frozenset({"ictus"}),
        r"\b(?:dé|dele|tome|mastique)\b[^.;]{0,30}aspirina",
        None,
    ),
    ("sujetar en la convulsión", CONVULSIONS, r"\bsuj[eé]te(?:lo|la|le)?\b(?! la cabeza)", None),
    ("frotar la congelación", frozenset({"frio_altitud"}), r"\bfr[oó]te\w*", None),
    ("frotar el ojo", None, r"\bfr[oó]te\w* (?:el|los) ojos?", None),
    ("neutralizar", frozenset({"quimicos_laboratorio"}), r"\bneutral[ií]ce\w*", None),
    ("torniquete en la picadura", BITES, rf"\b{PUT}\b[^.;]{{0,20}}torniquete", None),
    ("despertar cada hora", frozenset({"golpe_cabeza"}), r"\bdespi[eé]rtel[oa] cada", None),
    ("dejar de enfriar", None, r"\b(?:deje|pare) de enfriar", None),
    (
        "sacudir al bebé",
        None,
        r"\b(?:l[oae] sacuda|sacúdal[oae]|sacuda al|l[oae] zarandee)\b",
        None,
    ),
    ("tumbar con asma", frozenset({"asma_disnea"}), r"\b(?:t[uú]mbe|acu[eé]ste)\w*", AWAKE),
    (
        "beber o comer con riesgo de ahogo",
        frozenset({"inconsciente_respira", "ictus", "convulsiones", "hemorragia_shock"}),
        r"\b(?:dé|dele|ofrézcale|beba|coma)\b[^.;,]{0,20}(?:agua|bebida|comida|líquido|comer|beber)",
        None,
    ),
)


def is_denied(sentence: str, start: int) -> bool:
    """Si antes de `start`, en el mismo tramo de la frase, hay una negación o una advertencia."""
    before = CONTRAST.split(sentence[:start])[-1]
    return bool(NEGATION.search(before))


def check_forbidden(record: dict) -> Iterator[Problem]:
    """Frases que, afirmadas, son peligrosas; negadas en la misma frase son correctas."""
    for sentence in sentences_of(record["output"]):
        for name, topics, pattern, context in FORBIDDEN:
            if topics is not None and record["tema"] not in topics:
                continue
            if name == "meter algo en la boca" and re.search(r"inhalad|boquilla|cámara", sentence):
                continue
            if context is not None and not re.search(context, sentence, re.IGNORECASE):
                continue
            for match in re.finditer(pattern, sentence, re.IGNORECASE):
                if not is_denied(sentence, match.start()):
                    yield "prohibido", f"{name}: «{match.group()}»"


def only_if(output: str) -> bool:
    """Si todas las menciones del 112/911 son «112/911 si…»: la llamada tiene condición."""
    return EMERGENCY in output and not re.search(r"112/911(?! (?:si|solo si|cuando)\b)", output)


def check_vital(record: dict) -> Iterator[Problem]:
    """El 112/911 en todo lo vital, y al principio cuando la respuesta manda actuar."""
    output = record["output"]
    acts = record["estilo"] in ("que_hacer", "caso_clinico")
    if record["llamar_112"] and EMERGENCY not in output:
        yield "llamar_112", "«llamar_112» es true y la respuesta no dice 112/911"
    if record["llamar_112"] and only_if(output):
        yield "llamar_112", "«llamar_112» es true y la respuesta solo dice «112/911 si…»"
    start = re.sub(r"^1\.\s+", "", output)
    unconditional = (
        r"Llame (?:ya |ahora |de inmediato )?al 112/911(?! (?:si|cuando|ante|en caso|solo)\b)"
    )
    if acts and not record["llamar_112"] and re.match(unconditional, start):
        yield "llamar_112", "la respuesta manda llamar sin condición y «llamar_112» es false"
    if record["gravedad"] != "vital":
        return
    if EMERGENCY not in output:
        yield "vital", "gravedad vital sin 112/911 en la respuesta"
        return
    if not acts:
        return
    parts = steps_of(output) or list(sentences_of(output))
    if EMERGENCY in parts[0]:
        return
    if len(parts) > 1 and EMERGENCY in parts[1] and BEFORE_THE_CALL.search(parts[0]):
        return
    yield "vital", "el 112/911 debe ir en el primer paso (o en el segundo tras ponerse a salvo)"


NUMBER = r"(?:\d+(?:[.,]\d+)?(?:\s*(?:-|–|a|o|y)\s*\d+(?:[.,]\d+)?)?)"
DRUG_FIGURE = re.compile(
    rf"\b({NUMBER})\s*(mg/kg|mg(?!/d)|miligramos|mcg|µg|ml|mililitros|gotas?|unidades|UI|"
    r"pastillas?|comprimidos?|cápsulas?|grageas?|g(?!/)|gramos)\b",
    re.IGNORECASE,
)
DRUG_ORDER = re.compile(
    r"\b(?:tome|tómese|dé|dele|déle|administre|mastique|trague)\s+"
    r"(?:un|una|dos|tres|media|medio)\s+(?:pastilla|comprimido|cápsula|gragea|sobre de)\w*",
    re.IGNORECASE,
)
LIQUID = re.compile(
    r"zumo|jugo|refresco|agua|suero|botella|sorb|líquido|bebida|solución|vaso", re.IGNORECASE
)
SUGAR = re.compile(r"azúcar|glucosa|hidrato|terron|sobre|carbohidrato", re.IGNORECASE)


def check_drugs(record: dict) -> Iterator[Problem]:
    """Cifras de fármacos: solo aspirina 150-300 mg, azúcar, líquidos y lavados."""
    for sentence in sentences_of(record["output"]):
        for match in DRUG_FIGURE.finditer(sentence):
            value, unit = re.sub(r"\s", "", match.group(1)), match.group(2).lower()
            aspirin = unit == "mg" and value in ("150-300", "150a300")
            if aspirin and "aspirina" in record["output"].lower():
                continue
            if unit in ("ml", "mililitros") and LIQUID.search(sentence):
                continue
            if unit in ("g", "gramos") and SUGAR.search(sentence):
                continue
            if unit == "unidades" and re.search(r"gasa|guante|venda|apósito", sentence):
                continue
            yield "farmaco", f"cifra fuera de la lista blanca: «{match.group()}»"
        if (match := DRUG_ORDER.search(sentence)) and not is_denied(sentence, match.start()):
            yield "farmaco", f"manda una dosis: «{match.group()}»"


PHONE = re.compile(r"\b\d{2,3}(?:[ .]\d{2,3}){2,4}\b|\b\d{9}\b")
TOXICOLOGY = "915620420"
OTHER_EMERGENCY = re.compile(
    r"(?:\b(?:al|el|marque|número|teléfono)\s+|/)"
    r"(061|062|065|066|080|085|088|091|092|106|107|113|123|131|135|988|999|000|016)\b"
)


def check_phones(record: dict) -> Iterator[Problem]:
    """Solo 112/911, 024, toxicología y, en agresión sexual, 016. El tema PAS es la excepción."""
    output, topic = record["output"], record["tema"]
    for match in PHONE.finditer(output):
        if re.sub(r"\D", "", match.group()) != TOXICOLOGY:
            yield "telefono", f"teléfono que no está en la referencia: «{match.group()}»"
    if topic == "pas_112_triaje":
        return
    for match in OTHER_EMERGENCY.finditer(output):
        if not (match.group(1) == "016" and topic == "menstrual_embarazo"):
            yield "telefono", f"número de emergencias no admitido: {match.group(1)}"
    if re.search(r"\b112\b(?!/(?:911|016))|(?<!112/)\b911\b", output):
        yield "telefono", "escriba siempre «112/911»"
