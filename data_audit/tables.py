"""Tablas de la auditoría: lo que la referencia de primeros auxilios fija como dato.

Los apartados citados (§) son los de `primeros_auxilios.md`, la referencia del proyecto.
"""

TOTAL_RECORDS = 500

STYLES = (
    "que_hacer",
    "caso_clinico",
    "que_no_hacer",
    "cuando_llamar",
    "por_que",
    "mito",
    "definicion",
    "limite",
)

# §5.2: registros por tema y estilo, en el orden de STYLES (el último es `limite`).
TOPIC_STYLE_COUNTS: dict[str, tuple[int, ...]] = {
    "pas_112_triaje": (6, 4, 2, 2, 1, 1, 2, 0),
    "rcp_dea_adulto": (5, 4, 2, 2, 1, 2, 2, 0),
    "rcp_pediatrica": (4, 3, 2, 2, 1, 1, 1, 0),
    "atragantamiento": (6, 4, 2, 2, 1, 1, 2, 0),
    "inconsciente_respira": (4, 2, 1, 1, 1, 0, 1, 0),
    "hemorragia_shock": (6, 4, 2, 2, 1, 3, 2, 0),
    "heridas": (5, 3, 2, 2, 1, 1, 2, 0),
    "quemaduras_electricidad": (6, 4, 2, 2, 1, 3, 2, 0),
    "quimicos_laboratorio": (4, 3, 2, 2, 1, 1, 1, 0),
    "fracturas_luxaciones": (4, 3, 1, 1, 1, 1, 1, 0),
    "esguinces_deporte": (4, 2, 1, 1, 1, 1, 2, 0),
    "golpe_cabeza": (4, 3, 1, 1, 1, 1, 1, 0),
    "columna_torax_abdomen": (4, 2, 1, 1, 2, 1, 1, 0),
    "desmayo": (4, 3, 2, 2, 1, 1, 1, 0),
    "convulsiones": (5, 2, 1, 1, 1, 3, 1, 0),
    "ictus": (3, 2, 1, 1, 1, 1, 1, 0),
    "dolor_toracico": (4, 2, 1, 1, 2, 1, 1, 0),
    "asma_disnea": (4, 3, 2, 2, 1, 1, 1, 0),
    "alergia_anafilaxia": (4, 3, 2, 2, 1, 1, 1, 0),
    "diabetes": (4, 3, 2, 2, 1, 1, 1, 0),
    "intoxicaciones": (4, 3, 1, 2, 1, 2, 1, 0),
    "alcohol_drogas": (4, 3, 2, 2, 1, 1, 1, 0),
    "ansiedad_salud_mental": (5, 3, 2, 2, 1, 2, 1, 0),
    "calor_deshidratacion": (4, 3, 2, 2, 1, 1, 1, 0),
    "frio_altitud": (2, 1, 1, 1, 1, 1, 1, 0),
    "ahogamiento": (2, 1, 1, 1, 1, 1, 1, 0),
    "mordeduras_picaduras": (4, 3, 2, 2, 1, 3, 1, 0),
    "ojos_nariz_oido_boca": (6, 4, 2, 2, 1, 1, 2, 0),
    "cefalea_fiebre_malestar": (4, 3, 2, 2, 1, 1, 1, 0),
    "abdomen_digestivo": (4, 3, 1, 1, 1, 0, 2, 0),
    "menstrual_embarazo": (5, 3, 2, 2, 1, 0, 1, 0),
    "bebe_y_mayor": (4, 3, 1, 1, 1, 0, 2, 0),
    "botiquin_prevencion": (4, 3, 2, 1, 1, 0, 1, 0),
    "legal_etica": (4, 3, 1, 1, 1, 1, 1, 0),
    "seguimiento_traslado": (4, 2, 1, 1, 1, 0, 1, 0),
    "fuera_de_alcance": (0, 0, 0, 0, 0, 0, 0, 18),
}

SEVERITY_TARGETS = {"leve": 140, "moderada": 130, "grave": 120, "vital": 110}
SEVERITY_TOLERANCE = 15
POPULATIONS = ("A", "P", "L", "E", "M")
POPULATION_MINIMUMS = {"P": 90, "L": 30, "E": 30, "M": 50}
REGISTERS = ("formal", "coloquial", "errata")

KEYS: dict[str, type] = {
    "id": str,
    "instruction": str,
    "input": str,
    "output": str,
    "tema": str,
    "gravedad": str,
    "fuente": str,
    "estilo": str,
    "poblacion": str,
    "llamar_112": bool,
}

MAX_INPUT_CHARS = 120
HARD_WORDS = (40, 110)
PREFERRED_WORDS = (45, 85)
LIMIT_STYLE_WORDS = (40, 80)
MAX_TOKENS = 248  # margen sobre los 256 del entrenamiento
MAX_OUTPUT_JACCARD = 0.45
MAX_INSTRUCTION_JACCARD = 0.60
MAX_SENTENCE_REPEATS = 3
LONG_SENTENCE_WORDS = 12
MAX_CALL_START_SHARE = 0.20
MAX_NO_START_SHARE = 0.10

# §7: nombres exactos admitidos en `fuente`.
SOURCES = frozenset(
    {
        "ERC 2025 primeros auxilios",
        "ERC 2025 SVB adulto",
        "ERC 2025 circunstancias especiales",
        "ERC 2025 pediátrico",
        "RCUK 2025",
        "ERC 2021 primeros auxilios",
        "AHA/Cruz Roja 2024",
        "AHA 2025",
        "ILCOR 2025",
        "ILCOR 2020",
        "IFRC 2025",
        "IFRC 2020",
        "OMS",
        "IADT 2020",
        "BBA 2018",
        "WMS",
        "NHS",
        "NICE NG232",
        "INTCF",
        "SEMES",
        "AEP/SEUP",
        "Cruz Roja Española",
        "GEMA",
        "GINA",
        "Código Penal art. 195-196",
        "Ley 41/2002",
        "Ley 31/1995",
        "RD 486/1997",
        "LO 3/2018",
    }
)
# Organismos con muchas páginas: se admite el nombre de la página detrás («NHS esguinces»).
SOURCES_WITH_PAGE = ("NHS ", "AHA/Cruz Roja 2024 ")
SCOPE_SOURCE = "Política de alcance"
# §0.3: estos temas no figuran en la guía de primeros auxilios de ERC 2025.
TOPICS_OUTSIDE_ERC_2025 = frozenset(
    {
        "quemaduras_electricidad",
        "fracturas_luxaciones",
        "esguinces_deporte",
        "ojos_nariz_oido_boca",
        "desmayo",
    }
)

# §6: mito -> (tema, patrones que deben aparecer juntos en un registro de estilo `mito`).
MYTHS: tuple[tuple[int, str, tuple[str, ...]], ...] = (
    (1, "convulsiones", (r"lengua|boca|dientes",)),
    (2, "convulsiones", (r"sujet|inmoviliz|agarr",)),
    (3, "ojos_nariz_oido_boca", (r"nariz|nasal", r"atrás|atras|techo|arriba")),
    (4, "quemaduras_electricidad", (r"pasta|mantequilla|clara de huevo|dentífric",)),
    (5, "quemaduras_electricidad", (r"hielo",)),
    (6, "quemaduras_electricidad", (r"ampolla", r"revent|revient|pinch|romp")),
    (7, "hemorragia_shock", (r"torniquete", r"afloj|suelt|solt")),
    (8, "hemorragia_shock", (r"torniquete", r"p[eé]rd|pierd|amput")),
    (9, "hemorragia_shock", (r"clav|objeto|cuchillo|cristal|vidrio", r"sac|retir|quit|extra")),
    (10, "mordeduras_picaduras", (r"serpiente|víbora|vibora|culebra", r"chup|succi|cort")),
    (11, "mordeduras_picaduras", (r"medusa|aguamala|agua viva|aguaviva", r"orin|pis\b")),
    (12, "mordeduras_picaduras", (r"garrapata", r"quem|aceite|calor|cerilla|mechero")),
    (13, "intoxicaciones", (r"vómito|vomit",)),
    (14, "intoxicaciones", (r"leche",)),
    (15, "alcohol_drogas", (r"café|ducha|vómito|vomit",)),
    (16, "ansiedad_salud_mental", (r"bolsa",)),
    (17, "golpe_cabeza", (r"dorm|duerm|despiert",)),
    (18, "cefalea_fiebre_malestar", (r"alcohol", r"fiebre|febril|calentura")),
    (19, "convulsiones", (r"fiebre|febril", r"antitérmic|paracetamol|ibuprofeno|jarabe|medic")),
    (20, "rcp_dea_adulto", (r"jade|boque",)),
    (21, "legal_etica", (r"costilla",)),
    (22, "rcp_dea_adulto", (r"dea\b|desfibrilador",)),
    (23, "alergia_anafilaxia", (r"antihistamínic|antialérgic|antihistaminic", r"adrenalina")),
    (24, "ictus", (r"aspirina",)),
    (
        25,
        "ansiedad_salud_mental",
        (
            r"pregunt",
            r"suicid|quitarse la vida|matar|morir",
        ),
    ),
)
