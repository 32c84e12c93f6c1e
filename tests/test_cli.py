"""La línea de órdenes de 01 y 02: ayuda y uso incorrecto, en español y con código 2."""

from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT, Result, run_process, script, train_args

import nurse_common as common

TRAIN, MERGE = "01_train_lora", "02_create_model_nurse"
# argparse mezclado con español se nota enseguida.
ENGLISH = (
    "usage:",
    "options:",
    "show this",
    "error:",
    "invalid",
    "argument ",
    "default:",
    "choose",
)


@pytest.mark.parametrize("name", [TRAIN, MERGE])
def test_help_in_spanish(name: str) -> None:
    result = run_process(f"{name}.py", "--help")
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith("uso: ")
    for word in ("Paso ", "Uso:", "Lee:", "Escribe:", "Tarda:", "No hace:", "opciones:"):
        assert word in result.out
    assert not [word for word in ENGLISH if word in result.out]


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["--foo"], "opción desconocida: --foo"),
        (["--epoch", "1"], "opción desconocida: --epoch"),  # abreviar sería ambiguo
        (["--epochs"], "opción --epochs: falta el valor"),
        (["--epochs", "0"], "opción --epochs: «0» no es un número desde 0.01"),
        (["--max-steps", "0"], "opción --max-steps: «0» no es un número entero desde 1"),
        (["--lora-r", "1.5"], "opción --lora-r: «1.5» no es un número entero desde 1"),
        (["--learning-rate", "nan"], "opción --learning-rate: «nan» no es un número desde 0"),
        (["--learning-rate", "inf"], "opción --learning-rate: «inf» no es un número desde 0"),
        (["--seed", "-1"], "opción --seed: «-1» no es un número entero entre 0 y 4294967295"),
        (["--lora-dropout", "2"], "opción --lora-dropout: «2» no es un número entre 0 y 1"),
        (["--scheduler", "magia"], "opción --scheduler: valor no admitido: 'magia' (elegir entre"),
        (["--lora-bias", "x"], "opción --lora-bias: valor no admitido: 'x' (elegir entre"),
        (["--resume=si"], "opción --resume: no lleva el valor 'si'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_usage_of_01(run_main: Callable[..., Result], argv: list[str], text: str) -> None:
    result = run_main(TRAIN, *argv)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("uso: ")
    last = result.err.strip().splitlines()[-1]
    assert last.startswith(f"Error: {text}")
    assert not [word for word in ENGLISH if word in result.err]


@pytest.mark.parametrize("argv", [["--foo"], ["--adapter"], ["sobra"]], ids=" ".join)
def test_wrong_usage_of_02(run_main: Callable[..., Result], argv: list[str]) -> None:
    result = run_main(MERGE, *argv)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("uso: ") and "\nError: opción " in result.err


def test_defaults_are_the_practice() -> None:
    """DESIGN §6: lo que la práctica dice es lo que se hace sin opciones."""
    args = vars(script(TRAIN).parse_args([]))
    practice = {
        "base_model": "TinyLlama/TinyLlama-1.1B-Chat-v1.0",
        "data": ROOT / "primeros_auxilios_500.jsonl",
        "output": ROOT / "modelo_chat",
        "max_records": 500,
        "max_length": 256,
        "epochs": 1.0,
        "lora_r": 8,
        "lora_alpha": 16,
        "lora_dropout": 0.05,
        "lora_bias": "none",
        "target_modules": "q_proj,v_proj",
        "learning_rate": 2e-4,
        "scheduler": "cosine",
        "seed": 42,
        "eval_fraction": 0.1,
    }
    assert {key: args[key] for key in practice} == practice
    assert args["batch_size"] * args["grad_accum"] == 4
    assert (common.TEMPERATURE, common.TOP_P, common.MAX_NEW_TOKENS) == (0.6, 0.9, 200)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--target-modules", "q_proj,no_hay"], "Error: --target-modules: la base "),
        (["--max-records", 1], "Error: Hacen falta dos registros"),
    ],
)
def test_options_that_only_the_base_or_the_data_can_refuse(
    tiny_base: Path,
    records_file: Path,
    tmp_path: Path,
    run_main: Callable[..., Result],
    options: list[str],
    text: str,
) -> None:
    result = run_main(TRAIN, *train_args(tiny_base, records_file, tmp_path / "salida", *options))
    assert result.code == 1 and result.error.startswith(text)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [TRAIN, MERGE])
def test_output_of_somebody_else_is_refused_before_working(
    tiny_base: Path,
    records_file: Path,
    trained: Path,
    tmp_path: Path,
    run_main: Callable[..., Result],
    name: str,
) -> None:
    (tmp_path / "tesis.docx").write_text("un año de trabajo", encoding="utf-8")
    argv = {
        TRAIN: train_args(tiny_base, records_file, tmp_path),
        MERGE: ["--adapter", trained, "--output", tmp_path],
    }[name]
    result = run_main(name, *argv)
    assert (result.code, result.out) == (1, "")
    assert result.error.endswith("ya existe con otro contenido. Indicar una carpeta nueva.")
    assert [item.name for item in tmp_path.iterdir()] == ["tesis.docx"]
