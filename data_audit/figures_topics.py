"""Cifras que la referencia fija dentro de un tema (§3), como datos; amplían las canónicas."""

from data_audit.figure import (
    CELSIUS,
    CM,
    DAYS,
    HOURS,
    MINUTES,
    MONTHS,
    SECONDS,
    VALUE,
    WEEKS,
    Figure,
    figure,
)
from data_audit.figures_canonical import CANONICAL

MILLILITRES = VALUE + r"\s*ml\b"
METRES = VALUE + r"\s*m(?:etros)?\b"
YEARS = VALUE + r"\s*años\b"

# Todas las cifras de esa unidad que el tema admite: (nombre, temas, patrón, valores, excepción).
UNITS_BY_TOPIC: tuple[tuple[str, str, str, str, str | None], ...] = (
    ("minutos en convulsiones", "convulsiones", MINUTES, "5 5-10", None),
    ("minutos en desmayo", "desmayo", MINUTES, "1 10", None),
    ("minutos en asma", "asma_disnea", MINUTES, "10 20 1-3", None),
    (
        "minutos en ojos, nariz y boca",
        "ojos_nariz_oido_boca",
        MINUTES,
        "10-15 15 10 20 30-60",
        None,
    ),
    ("minutos en calor", "calor_deshidratacion", MINUTES, "15 30", None),
    ("minutos en frío", "frio_altitud", MINUTES, "15-30", None),
    (
        "horas en esguinces y fracturas",
        "esguinces_deporte fracturas_luxaciones",
        HOURS,
        "48 48-72 2-3 24",
        None,
    ),
    ("horas en ahogamiento", "ahogamiento", HOURS, "6-8", None),
    ("horas en heridas", "heridas", HOURS, "2 72 6-12 24-48 48-72", None),
    ("horas en quemaduras", "quemaduras_electricidad", HOURS, "3 2-3 24 48 24-48 48-72", None),
    ("horas en menstrual y embarazo", "menstrual_embarazo", HOURS, "2 72 120 72-120", None),
    ("horas en abdomen", "abdomen_digestivo", HOURS, "6 6-8 24 48", None),
    ("horas en frío y altitud", "frio_altitud", HOURS, "24", None),
    ("centímetros en hemorragia", "hemorragia_shock", CM, "5 5-7 15-30", None),
    ("centímetros en heridas", "heridas", CM, "1-2", None),
    ("metros en electricidad", "quemaduras_electricidad", METRES, "18-20", None),
    ("semanas en golpe de cabeza", "golpe_cabeza", WEEKS, "3", None),
    ("semanas tras una garrapata", "mordeduras_picaduras", WEEKS, "4", None),
    ("porcentajes en RCP", "rcp_dea_adulto", VALUE + r"\s*%", "2 3-6 55", None),
    ("días sin mejorar", "esguinces_deporte seguimiento_traslado", DAYS, "5-7", None),
    ("minutos en ansiedad", "ansiedad_salud_mental", MINUTES, "10-30", None),
    ("segundos al respirar", "ansiedad_salud_mental alcohol_drogas", SECONDS, "4 6 10", None),
    ("segundos en RCP", "rcp_dea_adulto rcp_pediatrica", SECONDS, "1 10", None),
    ("veces en RCP pediátrica", "rcp_pediatrica", VALUE + r" veces(?! por)", "5 2", None),
    ("horas en salud mental", "ansiedad_salud_mental", HOURS, "24", None),
    ("minutos en alcohol y drogas", "alcohol_drogas", MINUTES, "2-3", None),
    ("minutos en esguinces", "esguinces_deporte", MINUTES, "20 30", None),
    ("minutos en fracturas", "fracturas_luxaciones", MINUTES, "20", None),
    ("minutos en posición lateral", "inconsciente_respira", MINUTES, "30 1", None),
    ("minutos en RCP pediátrica", "rcp_pediatrica", MINUTES, "1 2", None),
    ("horas en intoxicaciones", "intoxicaciones", HOURS, "2 6 12 24", None),
    ("horas en seguimiento", "seguimiento_traslado", HOURS, "24 24-48 48-72 2-3", None),
)

SPECIFIC: tuple[Figure, ...] = (
    figure(
        "profundidad de la RCP: 5-6 cm (4 en lactante)",
        "*",
        r"compr|RCP|esternón",
        CM,
        "5-6 6 5 4",
        unless=r"parche|marcapasos|venda|torniquete|banda|piernas",
    ),
    figure(
        "umbral de convulsión: 5 minutos en su tema",
        "convulsiones",
        r".",
        r"(?:más de|pasa de|supera los|llega a) (?:los )?" + MINUTES,
        "5",
        every=True,
    ),
    figure(
        "suero oral: 5-10 ml",
        "*",
        r"suero oral|sorbos",
        MILLILITRES,
        "5-10",
        unless=r"zumo|jugo",
    ),
    figure("suero oral: cada 2-5 minutos", "*", r"suero oral|sorbos", r"cada " + MINUTES, "2-5"),
    figure(
        "fiebre: 38 °C",
        "cefalea_fiebre_malestar bebe_y_mayor menstrual_embarazo fuera_de_alcance convulsiones",
        r"fiebre|temperatura|°",
        CELSIUS,
        "38",
    ),
    figure(
        "fiebre en menores de 3 meses",
        "*",
        r"fiebre|bebé|convuls|lactante|urgen|112",
        r"(?:menos de|menor(?:es)? de) " + MONTHS,
        "3 6",
        every=True,
    ),
    figure(
        "fiebre que dura 48-72 horas", "*", r"fiebre", HOURS, "48 72 48-72 24", r"compresa|orin"
    ),
    figure("sin orinar: 6-8 horas", "*", r"orin|pañal", HOURS, "6-8"),
    figure("una compresa por hora durante 2 horas", "*", r"compresa", HOURS, "2"),
    figure(
        "caída del bebé: más de 90 cm",
        "bebe_y_mayor golpe_cabeza",
        r"ca[eíy]",
        r"más de " + CM,
        "90",
    ),
    figure(
        "cambio de apósito: 24-48 horas",
        "heridas seguimiento_traslado quemaduras_electricidad fuera_de_alcance",
        r"c[aá]mbi|apósito|cura",
        r"(?:cada|a las) " + HOURS,
        "24-48 48-72",
    ),
    figure(
        "acompañado 24 horas",
        "seguimiento_traslado fuera_de_alcance",
        r"acomp[aá]ñ|golpe",
        HOURS,
        "24 24-48",
    ),
    figure("teléfono atendido 24 horas", "*", r"024|91 562", r"\blas " + HOURS, "24"),
    figure("EpiPen: 3 segundos", "*", r"EpiPen", r"EpiPen\D{0,25}" + SECONDS, "3"),
    figure("Jext: 10 segundos", "*", r"Jext", r"Jext\D{0,25}(?P<v>\d+)", "10"),
    figure(
        "respiraciones por pulsación: 4-5",
        "asma_disnea",
        r"respir",
        VALUE + r" (?:veces|respiraciones)",
        "4-5",
    ),
    figure("espaciador casero: botella de 500 ml", "asma_disnea", r"botella", MILLILITRES, "500"),
    figure("nariz: 24 horas sin sonarse", "ojos_nariz_oido_boca", r"sonar", HOURS, "24"),
    figure("pila de botón: lesión en 2 horas", "*", r"\bpila", HOURS, "2"),
    figure(
        "agua caliente en picaduras marinas: 20 o 30-90 minutos",
        "mordeduras_picaduras",
        r"caliente",
        MINUTES,
        "20 30-90",
    ),
    figure(
        "congelación: agua 15-30 minutos",
        "quimicos_laboratorio",
        r"°",
        MINUTES,
        "15-30",
    ),
    figure("tétanos: 5 o 10 años", "*", r"tétanos|última dosis", YEARS, "5 10"),
    figure("aspirina: no en menores de 16-18 años", "*", r"aspirina", YEARS, "16-18 16 18"),
    figure("multa de 3 a 12 meses", "*", r"multa", MONTHS, "3-12"),
    figure("revisión del botiquín: 6 meses", "botiquin_prevencion", r"\bcada", MONTHS, "6"),
    figure("frutos secos: antes de los 5-6 años", "*", r"frutos secos", YEARS, "5-6"),
    figure("esguince: 4 pasos", "*", r"\bpasos\b", VALUE + r" pasos\b", "4"),
    figure("sol: de 12 a 17 horas", "*", r"\bsol\b|sombra", r"\bde " + HOURS, "12-17"),
)

FIGURES: tuple[Figure, ...] = (
    *CANONICAL,
    *SPECIFIC,
    *(
        figure(name, topics, r".", value, allowed, unless, every=True)
        for name, topics, value, allowed, unless in UNITS_BY_TOPIC
    ),
)
