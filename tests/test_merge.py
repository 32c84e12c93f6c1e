"""El paso 2: fusionado = base + adapter, comprobado aquí con otras cuentas; y lo que se rechaza."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import RECORDS, Result, script, train_args
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

import nurse_common as common
from nurse_engines import encode_chat, load_tokenizer

SCRIPT = "02_create_model_nurse"
SCALE = 16 / 8  # alpha / r
merge = script(SCRIPT)


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def by_hand(base: Path, adapter: Path) -> dict[str, torch.Tensor]:
    """W + (alpha / r) · B · A, tensor a tensor y sin PEFT."""
    weights = {name: part.float() for name, part in load_file(base / "model.safetensors").items()}
    lora = load_file(adapter / "adapter_model.safetensors")
    for name in [name for name in lora if name.endswith("lora_A.weight")]:
        target = name.removeprefix("base_model.model.").replace("lora_A.", "")
        weights[target] += SCALE * lora[name.replace("lora_A", "lora_B")] @ lora[name]
    return weights


def logits(model: Any, folder: Path, question: str) -> torch.Tensor:
    messages = [{"role": "user", "content": question}]
    ids = encode_chat(load_tokenizer(folder), messages, add_generation_prompt=True)
    with torch.no_grad():
        return model(torch.tensor([ids])).logits.float()


def test_weights_are_base_plus_adapter_in_fp16(
    tiny_base: Path, trained: Path, merged: Path
) -> None:
    found, expected = load_file(merged / "model.safetensors"), by_hand(tiny_base, trained)
    original = load_file(tiny_base / "model.safetensors")
    assert found.keys() == expected.keys() == original.keys()  # ni una clave «lora»
    for name, part in found.items():
        assert part.dtype == torch.float16, name
        torch.testing.assert_close(part.float(), expected[name], rtol=2**-10, atol=2**-20)
        touched = name.endswith(("q_proj.weight", "v_proj.weight"))
        assert torch.equal(part, original[name].half()) is not touched, name


def test_loads_alone_and_answers_as_base_plus_adapter(
    tiny_base: Path, trained: Path, merged: Path
) -> None:
    """Sin PEFT ni este proyecto: lo que hará cualquiera que reciba la carpeta."""
    alone, report = AutoModelForCausalLM.from_pretrained(merged, output_loading_info=True)
    assert alone.dtype == torch.float16
    assert not report["missing_keys"] and not report["unexpected_keys"]
    alone = alone.float()
    base = AutoModelForCausalLM.from_pretrained(tiny_base, dtype="float32")
    adapted = AutoModelForCausalLM.from_pretrained(tiny_base, dtype="float32")
    adapted.load_state_dict(by_hand(tiny_base, trained))
    for row in RECORDS:
        with_adapter = logits(adapted, merged, row["instruction"])
        found = logits(alone, merged, row["instruction"])
        scale = with_adapter.std()
        assert (found - with_adapter).abs().max() < 0.02 * scale
        assert (found - logits(base, merged, row["instruction"])).abs().max() > 0.5 * scale


def test_generation_defaults_are_the_practice(merged: Path) -> None:
    config = read(merged / "generation_config.json")
    expected = {
        "do_sample": True,
        "temperature": 0.6,
        "top_p": 0.9,
        "max_new_tokens": 200,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 2,
    }
    assert {key: config[key] for key in expected} == expected


def test_what_the_stage_leaves(tiny_base: Path, trained: Path, merged: Path) -> None:
    assert {item.name for item in merged.iterdir()} == {
        "README.md",
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "manifest.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer.model",
        "tokenizer_config.json",
    }
    for folder in (tiny_base, trained):
        assert (merged / "tokenizer.model").read_bytes() == (
            folder / "tokenizer.model"
        ).read_bytes()
    assert [item.name for item in merged.parent.iterdir()] == ["model_nurse_final"]


def test_manifest(trained: Path, merged: Path) -> None:
    run, manifest = read(trained / "run.json"), read(merged / "manifest.json")
    assert {key: manifest[key] for key in run} == run
    assert manifest["weights_sha256"] == common.sha256_file(merged / "model.safetensors")
    proof = manifest["merge_proof"]
    assert proof["questions"] == list(common.PROBE_QUESTIONS) and proof["same_next_token"]
    assert 0 < proof["merged_vs_adapter"] < proof["tolerance"] < proof["merged_vs_base"]
    assert set(manifest["merge_environment"]["packages"]) >= {"torch", "transformers", "peft"}
    assert manifest["license"] == "other"  # de una base ajena no se sabe


def test_model_card(merged: Path) -> None:
    _, front, body = (merged / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    header = yaml.safe_load(front)
    assert (header["language"], header["license"]) == ("es", "other")
    assert (header["library_name"], header["pipeline_tag"]) == ("transformers", "text-generation")
    assert "base_model" not in header  # una carpeta local no es un id del hub
    for text in ("No sustituye al 112", "## Uso previsto y límites", "## Cómo usarlo", "semilla"):
        assert text in body
    run = read(merged / "manifest.json")
    for value in (run["dataset_sha256"], f"{run['metrics']['eval_loss_after']:.3f}"):
        assert value in body


@pytest.mark.parametrize(
    ("name", "licence"),
    [(common.BASE_MODEL, "apache-2.0"), ("mini", "mit"), ("C:\\modelos\\llama: v2", "other")],
)
def test_card_front_matter_for_each_base(merged: Path, name: str, licence: str) -> None:
    manifest = read(merged / "manifest.json") | {"license": licence}
    manifest["base_model"] = {"name": name, "revision": None, "sha256": "0"}
    header = yaml.safe_load(merge.model_card(manifest, manifest).split("---\n")[1])
    assert header["license"] == licence
    assert header.get("base_model") == (name if name == common.BASE_MODEL else None)
    assert merge.license_of(merge.Base(Path("x"), name, None)) == licence


def test_the_same_base_moved_elsewhere_is_accepted(
    tiny_base: Path, trained: Path, merged: Path, tmp_path: Path, run_main: Callable[..., Result]
) -> None:
    moved = shutil.copytree(tiny_base, tmp_path / "mudada")
    output = tmp_path / "final"
    result = run_main(SCRIPT, "--adapter", trained, "--base-model", moved, "--output", output)
    assert (result.code, result.err) == (0, "")
    name = "model.safetensors"
    assert (output / name).read_bytes() == (merged / name).read_bytes()


@pytest.fixture
def stage(trained: Path, tmp_path: Path) -> Path:
    """Copia de `modelo_chat/` para estropearla."""
    return shutil.copytree(trained, tmp_path / "modelo_chat")


@pytest.fixture
def refused(stage: Path, tmp_path: Path, run_main: Callable[..., Result]) -> Callable[..., str]:
    """02 sobre la copia estropeada: código 1, una línea y nada escrito. Devuelve la línea."""

    def run(*options: Any) -> str:
        output = tmp_path / "final"
        result = run_main(SCRIPT, "--adapter", stage, "--output", output, *options)
        assert result.code == 1
        assert not list(tmp_path.glob("final*"))
        return result.error

    return run


def test_adapter_of_another_base(
    tiny_base: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    other = shutil.copytree(tiny_base, tmp_path / "otra")
    weights = load_file(other / "model.safetensors")
    weights["lm_head.weight"][0, 0] += 1
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    message = refused("--base-model", other)
    assert "se entrenó sobre" in message and "python 01_train_lora.py --base-model" in message


def test_base_that_is_no_longer_there(stage: Path, refused: Callable[..., str]) -> None:
    run = read(stage / "run.json")
    run["base_model"]["name"] = "borrada/base"
    common.write_json(stage / "run.json", run)
    message = refused()
    assert "«borrada/base»" in message and "--base-model mini" in message


def test_missing_stage_names_the_script(stage: Path, refused: Callable[..., str]) -> None:
    shutil.rmtree(stage)
    assert refused().endswith("Ejecutar antes: python 01_train_lora.py")


@pytest.mark.parametrize(
    "name", ["run.json", "adapter_config.json", "adapter_model.safetensors", "tokenizer.model"]
)
def test_half_written_stage(stage: Path, refused: Callable[..., str], name: str) -> None:
    (stage / name).unlink()
    message = refused()
    assert f"incompleta, sin {name}." in message and "python 01_train_lora.py" in message


@pytest.mark.parametrize("content", ["", "{", "{}", "[]", '{"base_model": 3}'])
def test_broken_run_json(stage: Path, refused: Callable[..., str], content: str) -> None:
    (stage / "run.json").write_text(content, encoding="utf-8")
    message = refused()
    assert "run.json" in message and "python 01_train_lora.py" in message


def test_adapter_trained_with_another_prompt(stage: Path, refused: Callable[..., str]) -> None:
    common.write_json(stage / "run.json", read(stage / "run.json") | {"prompt_sha256": "0"})
    assert "se entrenó con otro prompt" in refused()


@pytest.mark.parametrize("damage", ["cortado", "un bit", "le faltan tensores"])
def test_tampered_adapter(stage: Path, refused: Callable[..., str], damage: str) -> None:
    path = stage / "adapter_model.safetensors"
    data = path.read_bytes()
    if damage == "cortado":
        path.write_bytes(data[: len(data) // 2])
    elif damage == "un bit":
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    else:
        save_file(dict(list(load_file(path).items())[:2]), path, metadata={"format": "pt"})
    assert "ha cambiado desde el paso 1. Ejecutar de nuevo: python 01" in refused()


@pytest.mark.parametrize("name", ["adapter_config.json", "tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("content", ["{", ""])
def test_damaged_companion_file(
    stage: Path, tmp_path: Path, run_main: Callable[..., Result], name: str, content: str
) -> None:
    (stage / name).write_text(content, encoding="utf-8")
    result = run_main(SCRIPT, "--adapter", stage, "--output", tmp_path / "final")
    assert result.code == 1 and "python 01_train_lora.py" in result.error
    assert [item.name for item in tmp_path.iterdir()] == ["modelo_chat"]


def test_adapter_without_effect_is_not_a_model(
    tiny_base: Path, records_file: Path, tmp_path: Path, run_main: Callable[..., Result]
) -> None:
    """Con tasa 0 las matrices B se quedan en cero: sería la base con otro nombre."""
    adapter = tmp_path / "modelo_chat"
    options = train_args(tiny_base, records_file, adapter, "--max-steps", 1)
    assert run_main("01_train_lora", *options, "--learning-rate", 0).code == 0
    result = run_main(SCRIPT, "--adapter", adapter, "--output", tmp_path / "final")
    assert result.code == 1
    assert result.error.startswith("Error: El adapter no cambia la base (diferencia ")
    assert [item.name for item in tmp_path.iterdir()] == ["modelo_chat"]


def test_a_merge_that_is_not_the_adapter_is_not_saved(
    stage: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Un fallo al guardar los pesos: la prueba relee el disco y lo ve."""
    save = merge.save_model

    def corrupt(model: Any, *args: Any) -> None:
        model.model.layers[0].self_attn.v_proj.weight.data.mul_(1.5)
        save(model, *args)

    monkeypatch.setattr(merge, "save_model", corrupt)
    assert refused().startswith("Error: La fusión no reproduce el adapter (diferencia ")


def test_failure_keeps_the_previous_model(
    stage: Path,
    merged: Path,
    tmp_path: Path,
    run_main: Callable[..., Result],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output = shutil.copytree(merged, tmp_path / "final")
    before = {item.name: item.read_bytes() for item in output.iterdir()}

    def full_disk(*_: Any) -> None:
        raise OSError(28, "No space left on device", "model.safetensors")

    monkeypatch.setattr(merge, "model_card", full_disk)
    result = run_main(SCRIPT, "--adapter", stage, "--output", output)
    assert result.code == 1 and "no queda espacio" in result.error
    assert {item.name: item.read_bytes() for item in output.iterdir()} == before
    assert {item.name for item in tmp_path.iterdir()} == {"modelo_chat", "final"}
