"""Los cuatro programas, uno tras otro y cada uno en su proceso, como los ejecuta una persona."""

from pathlib import Path

from conftest import RECORDS, Result, run_process, train_args


def step(*command: object) -> Result:
    result = run_process(*command)
    assert result.code == 0, result.err
    for noise in ("Traceback", "Warning", "deprecated", "shards", "{'loss'"):
        assert noise not in result.out + result.err
    return result


def test_four_steps(tiny_base: Path, records_file: Path, tmp_path: Path) -> None:
    adapter, model = tmp_path / "modelo_chat", tmp_path / "model_nurse_final"
    first = step("01_train_lora.py", *train_args(tiny_base, records_file, adapter, "--epochs", 2))
    assert first.out.splitlines()[-1].endswith("Siguiente: python 02_create_model_nurse.py")

    second = step("02_create_model_nurse.py", "--adapter", adapter, "--output", model)
    assert second.err == ""
    assert second.out.splitlines()[-1].endswith("Siguiente: python 03_export_model_nurse.py")

    step("03_export_model_nurse.py", "--model", model)
    made = {item.name for item in tmp_path.iterdir()}
    assert made >= {
        "model_nurse_final.zip",
        "model_nurse_final.zip.sha256",
        "model_nurse_final.gguf",
    }
    assert not [name for name in made if name.endswith((".parcial", ".anterior", "_checkpoints"))]

    chat = step(
        "04_chat_nurse.py",
        "--model",
        model,
        "--question",
        RECORDS[0]["instruction"],
        "--greedy",
        "--max-new-tokens",
        8,
    )
    assert "112" in chat.out  # el aviso fijo, antes de cualquier texto del modelo
