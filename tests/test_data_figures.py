"""Cada cifra canónica de la auditoría se ve fallar con una cifra equivocada.

La tabla de frases equivocadas está aquí; la de cifras, en `data_audit/figures_*.py`.
"""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from data_audit.figure import Figure  # noqa: E402
from data_audit.figures_topics import FIGURES  # noqa: E402
from data_audit.rules_figures import check_burn_time, check_figures  # noqa: E402

# Principio del nombre de la cifra -> frase que la contradice. Gana el principio más largo.
WRONG_FIGURES = {
    "enfriar una quemadura": "Enfríe con agua 10 minutos.",
    "esperar tras el último trueno": "Espere 10 minutos tras el último trueno.",
    "lavar un producto químico": "Lave con agua 15 minutos.",
    "lavar un químico en el ojo": "Lave el ojo 10 minutos.",
    "pinzar la nariz": "Apriete la nariz 5 minutos.",
    "ritmo de RCP": "Comprima 80 veces por minuto.",
    "profundidad de RCP en adulto": "Comprima el pecho 3-4 cm.",
    "profundidad de RCP en lactante": "Comprima 2 cm al lactante.",
    "profundidad de RCP pediátrica": "Comprima 3 cm.",
    "relación de RCP": "Haga la RCP con relación 15:1.",
    "compresiones por ciclo": "Alterne 20 compresiones y 2 ventilaciones.",
    "ventilaciones iniciales": "Dé 2 ventilaciones iniciales.",
    "comprobar la respiración": "Compruebe si respira durante 30 segundos.",
    "relevo en la RCP": "Releve a quien comprime cada 5 minutos.",
    "parches pediátricos": "Use parches infantiles con menos de 40 kg.",
    "golpes en la espalda": "Dé 3 golpes.",
    "torniquete": "Ponga el torniquete 10 cm por encima.",
    "piernas elevadas": "Eleve las piernas 60 cm.",
    "azúcar": "Dele 30 g de azúcar.",
    "zumo o refresco": "Ofrezca 50 ml de zumo.",
    "repetir en la hipoglucemia": "Repita a los 30 minutos.",
    "umbral de hipoglucemia": "Es baja si está por debajo de 60 mg/dL.",
    "segunda dosis de adrenalina": "Ponga el segundo autoinyector a los 15 minutos.",
    "repetir la naloxona": "Repita la naloxona a los 10 minutos.",
    "inhalador sin plan: cada 30": "Dé una pulsación cada 5 segundos.",
    "inhalador sin plan: hasta": "Dé pulsaciones de una en una, hasta 20.",
    "umbral de convulsión": "Es grave si la convulsión dura más de 10 minutos.",
    "inmersión en el golpe de calor": "Mantenga la inmersión 40 minutos.",
    "temperaturas del golpe de calor": "Use agua a 30 °C.",
    "agua para la congelación": "Sumerja en agua a 50 °C.",
    "agua caliente en picaduras marinas: 40": "Sumerja en agua a 60 °C.",
    "lavar una mordedura": "Lave con jabón 5 minutos.",
    "frío en lesiones: hasta": "Aplique frío 40 minutos.",
    "frío en lesiones: cada": "Aplique frío cada 6 horas.",
    "aclarar el diente": "Aclare el diente 60 segundos.",
    "dentista": "Vaya al dentista en 120 minutos.",
    "vigilancia tras el golpe": "Debe estar acompañado 6 horas.",
    "caída de riesgo: más": "Es de riesgo una caída de más de 3 metros.",
    "caída de riesgo: 5": "Es de riesgo caer 10 escalones.",
    "lavado de manos": "Frótese las manos 5 segundos.",
    "agua caliente en picaduras marinas: 20": "Agua caliente durante 5 minutos.",
    "umbral de convulsión: 5 minutos en su tema": "Es grave si dura más de 10 minutos.",
    "compresiones del atragantamiento: 5": "Dé 3 compresiones abdominales.",
    "ventilaciones: 5 iniciales": "Dé 3 ventilaciones.",
    "atragantamiento: 5 veces": "Apriete 9 veces.",
    "profundidad de la RCP": "Comprima el pecho 9 cm.",
    "suero oral: 5-10 ml": "Dé suero oral, 90 ml.",
    "suero oral: cada": "Dé suero oral cada 40 minutos.",
    "fiebre: 38": "Hay fiebre con 36 °C.",
    "fiebre en menores": "Es urgente la fiebre en menores de 9 meses.",
    "fiebre que dura": "Consulte si la fiebre dura 96 horas.",
    "sin orinar": "Consulte si lleva 20 horas sin orinar.",
    "una compresa": "Empapa una compresa por hora durante 9 horas.",
    "caída del bebé": "Cayó de más de 30 cm.",
    "cambio de apósito": "Cambie el apósito cada 90 horas.",
    "acompañado": "Que esté acompañado 6 horas.",
    "teléfono atendido": "El 024 atiende las 12 horas.",
    "EpiPen": "EpiPen se mantiene 30 segundos.",
    "Jext": "Jext se mantiene 30 segundos.",
    "respiraciones por pulsación": "Que respire 20 veces.",
    "espaciador casero": "Use una botella de 90 ml.",
    "nariz: 24 horas": "Pase 2 horas sin sonarse.",
    "pila de botón": "La pila lesiona en 48 horas.",
    "congelación: agua": "Agua a 37-40 °C durante 90 minutos.",
    "tétanos": "La vacuna del tétanos dura 30 años.",
    "aspirina: no en menores": "Sin aspirina en menores de 8 años.",
    "multa": "La multa es de 40 meses.",
    "revisión del botiquín": "Revíselo cada 40 meses.",
    "frutos secos": "Sin frutos secos antes de los 2 años.",
    "esguince: 4 pasos": "No puede dar 9 pasos.",
    "sol: de 12 a 17": "Evite el sol de 10 a 11 horas.",
    "semanas": "Espere 99 semanas.",
    "horas en": "Espere 99 horas.",
    "minutos en": "Espere 99 minutos.",
    "segundos": "Espere 99 segundos.",
    "centímetros": "Mide 99 cm.",
    "metros": "Aléjese 99 metros.",
    "porcentajes": "Baja un 99 %.",
    "días": "Espere 99 días.",
    "veces": "Sople 99 veces.",
}


def messages_for(sentence: str, topic: str) -> list[str]:
    """Mensajes de la regla de cifras para una sola frase de un tema."""
    return [text for _, text in check_figures({"output": sentence, "tema": topic})]


def wrong_sentence(rule: Figure) -> str:
    """La frase equivocada que corresponde a una fila de la tabla."""
    names = [name for name in WRONG_FIGURES if rule.name.startswith(name)]
    return WRONG_FIGURES[max(names, key=len)]


@pytest.mark.parametrize("rule", FIGURES, ids=lambda rule: rule.name)
def test_wrong_figure_is_reported(rule: Figure) -> None:
    """La cifra equivocada salta en todos los temas donde se aplica la regla."""
    for topic in rule.topics or {"pas_112_triaje"}:
        found = messages_for(wrong_sentence(rule), topic)
        assert any(message.startswith(rule.name) for message in found), topic


RIGHT_SENTENCES = [
    ("Enfríe con agua corriente fresca 20 minutos.", "quemaduras_electricidad"),
    ("No bastan 5 minutos de agua: hacen falta 20 minutos.", "quemaduras_electricidad"),
    ("Comprima 5-6 cm, de 100 a 120 veces por minuto.", "rcp_dea_adulto"),
    ("Comprima 4 cm en el lactante y 5 cm en el niño.", "rcp_pediatrica"),
    ("Dé 5 golpes y 5 compresiones abdominales.", "atragantamiento"),
    ("Tome 15 g de azúcar, por ejemplo 2 sobres de 8 g, y repita a los 15 minutos.", "diabetes"),
    ("Apriete la parte blanda de la nariz de 10 a 15 minutos.", "ojos_nariz_oido_boca"),
    ("Frío envuelto en un paño hasta 20 minutos cada 2-3 horas.", "esguinces_deporte"),
    ("Póngase la segunda dosis en el otro muslo a los 5 minutos.", "alergia_anafilaxia"),
]


@pytest.mark.parametrize(("sentence", "topic"), RIGHT_SENTENCES)
def test_right_figure_is_clean(sentence: str, topic: str) -> None:
    """La cifra canónica no es un hallazgo, aunque la frase cite además la equivocada."""
    assert messages_for(sentence, topic) == []


def test_burn_without_time_is_reported() -> None:
    """Mandar enfriar sin decir cuánto es un hallazgo en las quemaduras."""
    record = {
        "instruction": "Me quemé con la plancha.",
        "input": "",
        "output": "Enfríe la zona con agua corriente.",
        "tema": "quemaduras_electricidad",
        "estilo": "que_hacer",
    }
    assert [rule for rule, _ in check_burn_time(record)] == ["cifra"]
    record["output"] = "Enfríe la zona con agua corriente 20 minutos."
    assert list(check_burn_time(record)) == []
