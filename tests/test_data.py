"""La auditoría de datos: cada regla se ve fallar con un registro estropeado a propósito.

El registro bueno pasa limpio y el conjunto completo no tiene ningún hallazgo. La regla de tokens
necesita el vocabulario Llama-2, que no se distribuye con el proyecto: sin él, su prueba se omite.
"""

import copy
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from data_audit import audit_records, rules_clinical, tables  # noqa: E402

DATASET = ROOT / "primeros_auxilios_500.jsonl"

GOOD = {
    "id": "PA-0001",
    "instruction": "¿Qué hago si un compañero se quema la mano con la plancha del taller?",
    "input": "",
    "output": (
        "1. Apártelo de la plancha y ponga la mano bajo agua corriente fresca 20 minutos.\n"
        "2. Quite anillos y reloj antes de que se hinche; no arranque la ropa pegada.\n"
        "3. Cubra con film transparente en tiras, sin enrollar. No ponga hielo ni pasta de "
        "dientes.\n"
        "4. Acuda a urgencias si la quemadura es mayor que la palma o está blanca. "
        "Llame al 112/911 si le cuesta respirar."
    ),
    "tema": "quemaduras_electricidad",
    "gravedad": "moderada",
    "fuente": "IFRC 2025; BBA 2018",
    "estilo": "que_hacer",
    "poblacion": "A",
    "llamar_112": False,
}
STEPS = GOOD["output"]
# Relleno neutro: lleva cualquier respuesta corta de las pruebas a 40 palabras o más.
FILLER = (
    "Hable con calma, explique cada cosa antes de hacerla y pida permiso. Anote la hora en un "
    "papel y avise a un responsable del centro para que reciba a quien venga. Quédese a su lado "
    "hasta el final y mire cómo evoluciona su estado."
)


def rules_found(record: dict, **options: object) -> set[str]:
    """Reglas que incumple un registro suelto, sin contar los recuentos del conjunto."""
    settings = {"complete": True, "count_tokens": None, **options}
    findings = audit_records.audit([record], **settings)
    return {item.rule for item in findings if item.line == 1}


def changed(**values: object) -> dict:
    """Una copia del registro bueno con algunos campos cambiados."""
    return {**copy.deepcopy(GOOD), **values}


def saying(sentence: str, topic: str = "pas_112_triaje", style: str = "definicion") -> dict:
    """Un registro en prosa con la frase dada y relleno suficiente."""
    return changed(output=f"{sentence} {FILLER}", tema=topic, estilo=style, fuente="NHS")


def test_good_record_is_clean() -> None:
    """El registro bueno no incumple ninguna regla de registro."""
    assert rules_found(GOOD) == set()
    assert rules_found(saying("Mire el reloj.")) == set()


def test_call_may_follow_getting_safe() -> None:
    """En lo vital, el 112/911 puede ir en el segundo paso si el primero es apartar del foco."""
    output = STEPS.replace("2. Quite", "2. Llame al 112/911 y quite")
    record = changed(gravedad="vital", llamar_112=True, output=output)
    assert rules_found(record) == set()


def without(key: str) -> dict:
    """El registro bueno sin una clave."""
    return {name: value for name, value in GOOD.items() if name != key}


LONG = " ".join(["palabra"] * 111)
CASE = {"estilo": "caso_clinico", "input": "Alumno de 15 años, despierto."}

BAD_FORM = [
    (without("fuente"), "esquema"),
    (changed(registro="formal"), "esquema"),
    (changed(llamar_112="no"), "esquema"),
    (changed(tema="quemaduras"), "esquema"),
    (changed(estilo="consejo"), "esquema"),
    (changed(gravedad="alta"), "esquema"),
    (changed(poblacion="X"), "esquema"),
    (changed(instruction=" "), "esquema"),
    (changed(id="PA-0007"), "id"),
    (changed(input="Alumno de 15 años."), "entrada"),
    (changed(estilo="caso_clinico"), "entrada"),
    (changed(**{**CASE, "input": "a" * 121}), "entrada"),
    (changed(output="Enfríe con agua 20 minutos."), "palabras"),
    (changed(output=LONG), "palabras"),
    (changed(output=" ".join(["palabra"] * 90)), "palabras"),
    (changed(output=STEPS.replace("3. ", "4. ", 1)), "pasos"),
    (changed(output=STEPS.replace("\n2. ", " 2. ")), "pasos"),
    (changed(output=STEPS.replace("\n3. ", "\n")), "pasos"),
    (changed(output=f"Uno.\nDos.\nTres.\n{FILLER}"), "pasos"),
    (saying("Lávate las manos tú primero."), "tuteo"),
    (saying("Llama a un profesor."), "tuteo"),
    (saying("Después, túmbalo de lado."), "tuteo"),
    (saying("Mire el reloj \N{ALARM CLOCK}."), "signos"),
    (saying("Vea www.ejemplo.org para saber más."), "signos"),
    (saying("Mire el **reloj** de la pared."), "signos"),
    (saying("¡Corra a buscar ayuda!"), "signos"),
    (saying("Pregunte: se encuentra bien?"), "signos"),
    (changed(output=STEPS.replace("\n", "\n\n")), "signos"),
    (saying("Mire la  hora."), "signos"),
    (saying("Vigile la respiracion."), "acentos"),
    (changed(fuente="Wikipedia"), "fuente"),
    (changed(fuente="ERC 2025 primeros auxilios"), "fuente"),
    (changed(fuente="Política de alcance"), "fuente"),
]

VITAL_LATE = STEPS.replace("Apártelo de la plancha y ponga", "Ponga")
BAD_SAFETY = [
    (changed(gravedad="vital", output=STEPS.replace("112/911", "emergencias")), "vital"),
    (changed(gravedad="vital", output=VITAL_LATE), "vital"),
    (changed(gravedad="vital"), "vital"),
    (changed(llamar_112=True, output=STEPS.replace("112/911", "emergencias")), "llamar_112"),
    (changed(llamar_112=True), "llamar_112"),
    (saying("Llame al 112/911 y espere.", "desmayo", "que_hacer"), "llamar_112"),
    (saying("Dele 500 mg de paracetamol."), "farmaco"),
    (saying("Dé dos pastillas con comida."), "farmaco"),
    (saying("Ponga 4 unidades de insulina."), "farmaco"),
    (saying("Mastique 500 mg de aspirina."), "farmaco"),
    (saying("Tome 10 ml de jarabe."), "farmaco"),
    (saying("Llame al 061 ahora.", "heridas"), "telefono"),
    (saying("Llame al 112 ahora.", "heridas"), "telefono"),
    (saying("Llame a toxicología, 91 562 04 21."), "telefono"),
    (saying("Provoque el vómito cuanto antes."), "prohibido"),
    (saying("Afloje el torniquete de vez en cuando."), "prohibido"),
    (saying("Ponga hielo sobre la piel.", "quemaduras_electricidad"), "prohibido"),
    (saying("Aplique pasta de dientes.", "quemaduras_electricidad"), "prohibido"),
    (saying("Incline la cabeza hacia atrás.", "ojos_nariz_oido_boca"), "prohibido"),
    (saying("Respire dentro de una bolsa de papel."), "prohibido"),
    (saying("Frote el pecho con alcohol.", "cefalea_fiebre_malestar"), "prohibido"),
    (saying("Meta un pañuelo en la boca."), "prohibido"),
    (saying("Comprima el pecho con dos dedos.", "rcp_pediatrica"), "prohibido"),
    (saying("Usted tiene una fractura."), "prohibido"),
    (saying("Chupe el veneno."), "prohibido"),
    (saying("Orine sobre la picadura."), "prohibido"),
    (saying("Queme la garrapata."), "prohibido"),
    (saying("Saque el cuchillo clavado."), "prohibido"),
    (saying("Reviente la ampolla."), "prohibido"),
    (saying("Dele una aspirina.", "ictus"), "prohibido"),
    (saying("Sacuda al bebé con suavidad."), "prohibido"),
    (saying("Sujete al alumno con fuerza.", "convulsiones"), "prohibido"),
    (saying("Frote los dedos con nieve.", "frio_altitud"), "prohibido"),
    (saying("Frote el ojo con suavidad."), "prohibido"),
    (saying("Neutralice el ácido.", "quimicos_laboratorio"), "prohibido"),
    (saying("Ponga un torniquete.", "mordeduras_picaduras"), "prohibido"),
    (saying("Despiértelo cada hora.", "golpe_cabeza"), "prohibido"),
    (saying("Deje de enfriar para trasladar."), "prohibido"),
    (saying("Túmbelo boca arriba.", "asma_disnea"), "prohibido"),
    (saying("Dele un poco de agua.", "ictus"), "prohibido"),
    (changed(output=STEPS.replace(" 20 minutos", "")), "cifra"),
    (saying("Comprima 80 veces por minuto."), "cifra"),
]


@pytest.mark.parametrize(("record", "rule"), BAD_FORM + BAD_SAFETY)
def test_planted_defect_is_reported(record: dict, rule: str) -> None:
    """El defecto plantado hace saltar su regla."""
    assert rule in rules_found(record)


NEGATED = [
    saying("No provoque el vómito."),
    saying("Tampoco afloje el torniquete."),
    saying("Nunca ponga hielo ni pasta de dientes.", "quemaduras_electricidad"),
    saying("Evite que nadie incline la cabeza hacia atrás.", "ojos_nariz_oido_boca"),
    saying("Pregúntele: «¿te duele?»."),
    saying("Cúbrala con una manta y ofrézcale apoyo."),
]


@pytest.mark.parametrize("record", NEGATED)
def test_denied_phrase_is_clean(record: dict) -> None:
    """La misma frase negada, o el habla citada, no es un hallazgo."""
    assert rules_found(record) == set()


def test_every_forbidden_phrase_is_planted() -> None:
    """No hay frase prohibida sin su ejemplo en la tabla de arriba."""
    planted = [record for record, rule in BAD_SAFETY if rule == "prohibido"]
    findings = audit_records.audit(planted, complete=True, count_tokens=None)
    seen = {item.message.split(":")[0] for item in findings if item.rule == "prohibido"}
    assert seen == {name for name, *_ in rules_clinical.FORBIDDEN}


def set_rules(records: list, complete: bool = True) -> set[str]:
    """Reglas que incumple un conjunto, incluidas las de recuento."""
    return {
        item.rule for item in audit_records.audit(records, complete=complete, count_tokens=None)
    }


def test_incomplete_set_is_reported() -> None:
    """Un conjunto de un solo registro incumple recuentos, población, gravedad y mitos."""
    rules = set_rules([GOOD])
    assert {"recuento", "poblacion", "gravedad", "mitos"} <= rules


def test_duplicates_and_similarity_are_reported() -> None:
    """La copia, aunque cambien las mayúsculas y los signos, y la paráfrasis mínima."""
    copied = changed(id="PA-0002", instruction=GOOD["instruction"].upper())
    assert {"duplicado", "similitud"} <= set_rules([GOOD, copied])
    alike = changed(id="PA-0002", output=STEPS.replace("si le cuesta respirar", "si tose"))
    assert "similitud" in set_rules([GOOD, alike])


def test_repeated_sentence_is_reported() -> None:
    """Una frase de más de 12 palabras cabe en 3 registros; en 4 ya no."""
    records = [saying(f"Caso número {index}.") for index in range(4)]
    assert "frase_repetida" not in set_rules(records[:3])
    assert "frase_repetida" in set_rules(records)


@pytest.mark.parametrize("start", ["Llame al 112/911 y espere.", "No corra."])
def test_monotonous_starts_are_reported(start: str) -> None:
    """Demasiadas respuestas con el mismo arranque."""
    assert "arranque" in set_rules([saying(start)])


def test_broken_line_is_reported() -> None:
    """Una línea que no es un objeto JSON es un hallazgo, no una excepción."""
    assert "esquema" in set_rules([None, "texto", GOOD])


def test_partial_draft_counts_only_its_topic() -> None:
    """Un borrador lleva `registro`, no `id`, y solo responde de su tema."""
    draft = {**without("id"), "registro": "formal"}
    findings = audit_records.audit([draft], complete=False, count_tokens=None)
    assert {item.rule for item in findings} == {"recuento"}
    assert all("quemaduras_electricidad" in item.message for item in findings)


def test_counts_add_up() -> None:
    """La tabla de la referencia suma 500 y 36 temas."""
    assert sum(sum(row) for row in tables.TOPIC_STYLE_COUNTS.values()) == tables.TOTAL_RECORDS
    assert len(tables.TOPIC_STYLE_COUNTS) == 36
    assert sum(tables.SEVERITY_TARGETS.values()) == tables.TOTAL_RECORDS


def test_tokens_with_a_plain_counter() -> None:
    """La regla suma `<s>` y `</s>`: 247 tokens de texto ya no caben en 248."""
    assert "tokens" not in rules_found(GOOD, count_tokens=lambda text: 246)
    assert "tokens" in rules_found(GOOD, count_tokens=lambda text: 247)


def test_tokens_with_the_real_vocabulary() -> None:
    """Con el vocabulario Llama-2, el registro bueno cabe y uno muy largo no."""
    counter = audit_records.load_token_counter(audit_records.DEFAULT_TOKENIZER)
    if counter is None:
        pytest.skip("falta el vocabulario Llama-2 o sentencepiece")
    assert "tokens" not in rules_found(GOOD, count_tokens=counter)
    assert "tokens" in rules_found(changed(output=STEPS * 3), count_tokens=counter)


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Una línea por hallazgo con fichero y número de línea, y código 1."""
    path = tmp_path / "borrador.jsonl"
    path.write_text(json.dumps(GOOD) + "\n{roto\n", encoding="utf-8")
    options = [str(path), "--tokenizer", str(tmp_path / "no_existe.model")]
    assert audit_records.main(options) == 1
    printed = capsys.readouterr().out
    assert "borrador.jsonl:2: [esquema]" in printed
    assert "no se miden los tokens" in printed
    assert audit_records.main([str(tmp_path / "no_existe.jsonl")]) == 1


@pytest.mark.skipif(not DATASET.exists(), reason="el conjunto de 500 registros aún no existe")
def test_the_dataset_is_clean() -> None:
    """El conjunto que se entrena no tiene ningún hallazgo."""
    counter = audit_records.load_token_counter(audit_records.DEFAULT_TOKENIZER)
    records = audit_records.load_records(DATASET)
    assert audit_records.audit(records, complete=True, count_tokens=counter) == []
