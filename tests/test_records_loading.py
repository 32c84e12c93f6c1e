"""Los registros: lo que se admite, lo que se avisa y lo que se rechaza con archivo y línea."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import RECORDS, ROOT, Result, run_process, train_args, write_records

import nurse_common as common

SCRIPT = "01_train_lora"
FIRST, SECOND = RECORDS[0], RECORDS[2]


def refusal(path: Path) -> str:
    with pytest.raises(common.NurseError) as error:
        common.load_records(path)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("newline", ["\n", "\r\n"], ids=["LF", "CRLF"])
@pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["sin BOM", "BOM"])
def test_three_key_format_loads(tmp_path: Path, newline: str, mark: str) -> None:
    path = tmp_path / "practica.jsonl"
    lines = [json.dumps(row, ensure_ascii=False) for row in RECORDS]
    path.write_bytes((mark + newline.join([*lines, ""])).encode())
    rows, warnings = common.load_records(path)
    assert warnings == []
    assert [{key: row[key] for key in FIRST} for row in rows] == RECORDS
    assert [row["line"] for row in rows] == list(range(1, len(RECORDS) + 1))


def test_input_may_be_missing_or_null_and_blank_lines_count(tmp_path: Path) -> None:
    path = tmp_path / "datos.jsonl"
    two = {key: FIRST[key] for key in ("instruction", "output")}
    path.write_text(
        f"{json.dumps(two)}\n\n{json.dumps({**SECOND, 'input': None})}\n", encoding="utf-8"
    )
    rows, _ = common.load_records(path)
    assert [row["line"] for row in rows] == [1, 3]  # la línea que se ve en el editor


def test_project_records_load_without_a_single_warning() -> None:
    rows, warnings = common.load_records(ROOT / "primeros_auxilios_500.jsonl")
    assert len(rows) == 500 and warnings == []


def test_exact_duplicates_collapse_with_a_warning(tmp_path: Path) -> None:
    shouted = {**FIRST, "instruction": f"  {FIRST['instruction'].upper()} "}
    path = write_records(tmp_path / "datos.jsonl", [FIRST, SECOND, FIRST, shouted])
    rows, warnings = common.load_records(path)
    assert [row["line"] for row in rows] == [1, 2]
    assert warnings == [
        "datos.jsonl, línea 3: repite la línea 1; se omite.",
        "datos.jsonl, línea 4: repite la línea 1; se omite.",
    ]


def test_same_instruction_with_another_input_is_another_question(tmp_path: Path) -> None:
    other = {**FIRST, "input": "Tiene 3 años.", "output": "Llame al 112/911."}
    rows, warnings = common.load_records(write_records(tmp_path / "d.jsonl", [FIRST, other]))
    assert len(rows) == 2 and warnings == []


def test_two_answers_to_one_question_name_both_lines(tmp_path: Path) -> None:
    wrong = {**FIRST, "output": "Ponga pasta de dientes."}
    message = refusal(write_records(tmp_path / "datos.jsonl", [SECOND, FIRST, wrong]))
    assert message.startswith("datos.jsonl, líneas 2 y 3: la misma pregunta tiene dos respuestas")


def test_vital_record_that_does_not_send_for_help_is_warned(tmp_path: Path) -> None:
    vital = {**FIRST, "gravedad": "vital"}
    _, warnings = common.load_records(write_records(tmp_path / "d.jsonl", [vital, SECOND]))
    assert warnings == ["d.jsonl, línea 1: es vital y no manda llamar al 112/911."]


@pytest.mark.parametrize("field", ["instruction", "output"])
@pytest.mark.parametrize("value", ["", " \n", None, 7, ["a"], "falta"], ids=repr)
def test_missing_or_empty_field(tmp_path: Path, field: str, value: object) -> None:
    bad = {**SECOND, field: value}
    if value == "falta":
        del bad[field]
    message = refusal(write_records(tmp_path / "datos.jsonl", [FIRST, bad]))
    assert message == f"datos.jsonl, línea 2: falta el campo «{field}» o está vacío."


def test_input_that_is_not_text(tmp_path: Path) -> None:
    bad = {**SECOND, "input": {"edad": 3}}
    message = refusal(write_records(tmp_path / "datos.jsonl", [FIRST, bad]))
    assert message.startswith("datos.jsonl, línea 2: falta el campo «input»")


@pytest.mark.parametrize("broken", ['{"instruction": "a", ', "hola", "{'a': 1}", "[1, 2"])
def test_broken_json_names_the_line(tmp_path: Path, broken: str) -> None:
    path = write_records(tmp_path / "datos.jsonl", [FIRST, SECOND])
    path.write_text(path.read_text(encoding="utf-8") + broken, encoding="utf-8")
    assert refusal(path).startswith("datos.jsonl, línea 3: JSON roto en la columna ")


def test_line_that_is_not_an_object(tmp_path: Path) -> None:
    path = tmp_path / "datos.jsonl"
    path.write_text("[1, 2]\n", encoding="utf-8")
    assert refusal(path).startswith("datos.jsonl, línea 1: se espera un objeto")


@pytest.mark.parametrize(
    ("output", "shown"),
    [
        ("Pare.</s> Siga.", "'</s>'"),
        ("Pare.\nUsuario: ¿y luego?", r"'\nUsuario:'"),
        ("Pare \ud83d ahora", r"'\ud83d'"),
    ],
)
def test_answer_that_would_teach_a_forged_turn(tmp_path: Path, output: str, shown: str) -> None:
    path = tmp_path / "datos.jsonl"
    lines = [json.dumps(row) for row in (FIRST, {**SECOND, "output": output})]
    path.write_text("\n".join(lines), encoding="utf-8")
    assert refusal(path) == f"datos.jsonl, línea 2: «output» contiene {shown}."


@pytest.mark.parametrize("content", ["", "\n \n"])
def test_file_without_records(tmp_path: Path, content: str) -> None:
    path = tmp_path / "datos.jsonl"
    path.write_text(content, encoding="utf-8")
    assert "no contiene ningún registro" in refusal(path)


def test_file_that_is_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "datos.jsonl"
    path.write_bytes(json.dumps(FIRST, ensure_ascii=False).encode("cp1252"))
    assert refusal(path) == "datos.jsonl: no está en UTF-8. Guardarlo como UTF-8 y repetir."


@pytest.mark.parametrize("name", ["no_existe.jsonl", "."])
def test_missing_dataset(tmp_path: Path, name: str) -> None:
    assert "--data" in refusal(tmp_path / name)


def test_bad_data_is_one_line_and_code_1_in_the_terminal(tmp_path: Path) -> None:
    """El programa de verdad: ni traza, ni carpeta a medias, y torch no llega a cargarse."""
    path = write_records(tmp_path / "datos.jsonl", [FIRST, SECOND])
    path.write_text(path.read_text(encoding="utf-8") + "{", encoding="utf-8")
    for data, text in ((path, "datos.jsonl, línea 3"), (tmp_path / "no.jsonl", "No encuentro")):
        result = run_process("01_train_lora.py", "--data", data, "--output", tmp_path / "salida")
        assert (result.code, result.out) == (1, "")
        assert result.error.startswith("Error: ") and text in result.error
    assert [item.name for item in tmp_path.iterdir()] == ["datos.jsonl"]


def test_record_over_the_token_limit_is_named_not_cut(
    tiny_base: Path, tmp_path: Path, run_main: Callable[..., Result]
) -> None:
    long = {**SECOND, "instruction": "¿Y si dura mucho?", "output": "Presione y espere. " * 30}
    data = write_records(tmp_path / "datos.jsonl", [*RECORDS, long])
    result = run_main(SCRIPT, *train_args(tiny_base, data, tmp_path / "salida"))
    assert result.code == 1
    line = len(RECORDS) + 1
    assert f"datos.jsonl: más de 256 tokens: línea {line} (" in result.error
    assert "--max-length" in result.error
    assert not (tmp_path / "salida").exists()


def test_warnings_are_printed_and_training_goes_on(
    tiny_base: Path, tmp_path: Path, run_main: Callable[..., Result]
) -> None:
    data = write_records(tmp_path / "datos.jsonl", [*RECORDS[:3], FIRST])
    result = run_main(SCRIPT, *train_args(tiny_base, data, tmp_path / "salida", "--max-steps", 1))
    assert result.code == 0
    assert result.out.startswith("Aviso: datos.jsonl, línea 4: repite la línea 1; se omite.\n")
    assert "2 para entrenar, 1 apartados" in result.out
