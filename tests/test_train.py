"""El paso 1: qué cambia y qué no, la misma semilla da lo mismo, y lo que queda escrito."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from conftest import RECORDS, Result, script, train_args
from safetensors.torch import load_file

import nurse_common as common

SCRIPT = "01_train_lora"
train = script(SCRIPT)


class Run(NamedTuple):
    """Lo que se puede mirar de un entrenamiento, además de la carpeta que deja."""

    result: Result
    folder: Path
    before: dict[str, torch.Tensor]  # pesos tras añadir LoRA
    after: dict[str, torch.Tensor]
    trainable: set[str]
    curve: list[float]
    seed: int  # la que baraja los registros

    @property
    def adapter(self) -> bytes:
        return (self.folder / "adapter_model.safetensors").read_bytes()


@pytest.fixture
def fit(
    tiny_base: Path,
    records_file: Path,
    tmp_path: Path,
    run_main: Callable[..., Result],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Callable[..., Run]]:
    """Entrena con el `main` de verdad y mira los pesos sin tocarlos."""
    seen: dict[str, Any] = {}
    add_lora, plot_loss, build_trainer = train.add_lora, train.plot_loss, train.build_trainer

    def watch_model(*args: Any) -> Any:
        model = seen["model"] = add_lora(*args)
        seen["before"] = {name: part.clone() for name, part in model.state_dict().items()}
        return model

    def watch_curve(log: list[Any], *args: Any) -> None:
        seen["curve"] = [item["loss"] for item in log if "loss" in item]
        plot_loss(log, *args)

    def watch_seed(*args: Any) -> Any:
        trainer = build_trainer(*args)
        seen["seed"] = trainer.args.seed
        return trainer

    monkeypatch.setattr(train, "add_lora", watch_model)
    monkeypatch.setattr(train, "build_trainer", watch_seed)
    monkeypatch.setattr(train, "plot_loss", watch_curve)
    monkeypatch.setattr(train, "LOG_STEPS", 1)

    def run(*options: Any, name: str = "modelo_chat") -> Run:
        folder = tmp_path / name
        result = run_main(SCRIPT, *train_args(tiny_base, records_file, folder, *options))
        assert result.code == 0, result.err
        model = seen["model"]
        trainable = {name for name, part in model.named_parameters() if part.requires_grad}
        weights = seen["before"], model.state_dict()
        return Run(result, folder, *weights, trainable, seen["curve"], seen["seed"])

    yield run


def test_only_lora_changes_and_all_of_it(fit: Callable[..., Run], tiny_base: Path) -> None:
    run = fit("--epochs", 2)
    frozen = [name for name in run.before if "lora_" not in name]
    lora = {name for name in run.before if "lora_" in name}
    assert len(lora) == 2 * 2 * 2  # capas x (q_proj, v_proj) x (A, B)
    assert {name for name in run.after if "lora_" in name} == lora == run.trainable
    for name in frozen:
        assert torch.equal(run.before[name], run.after[name]), name
    for name in lora:
        assert not torch.equal(run.before[name], run.after[name]), name
        assert run.after[name].dtype == torch.float32
    base = load_file(tiny_base / "model.safetensors")
    name = "model.layers.0.self_attn.q_proj"
    inside = run.after[f"base_model.model.{name}.base_layer.weight"]
    assert torch.equal(inside.float(), base[f"{name}.weight"].to(inside.dtype).float())


def test_trainable_count_is_the_formula(fit: Callable[..., Run]) -> None:
    """r x (entrada + salida) por capa: q es 64 -> 64 y v es 64 -> 32, en 2 capas."""
    run = fit("--max-steps", 1, "--lora-r", 4)
    expected = 2 * (4 * (64 + 64) + 4 * (64 + 32))
    recorded = json.loads((run.folder / "run.json").read_text(encoding="utf-8"))
    assert recorded["trainable_parameters"] == expected
    assert f"Se entrenan {expected:,} de " in run.result.out
    saved = load_file(run.folder / "adapter_model.safetensors")
    assert sum(part.numel() for part in saved.values()) == expected


def test_other_layers_can_be_trained(fit: Callable[..., Run]) -> None:
    run = fit("--max-steps", 2, "--target-modules", "o_proj,down_proj", "--lora-alpha", 8)
    assert {name.split(".")[-4] for name in run.trainable} == {"o_proj", "down_proj"}
    config = json.loads((run.folder / "adapter_config.json").read_text(encoding="utf-8"))
    assert set(config["target_modules"]) == {"o_proj", "down_proj"}
    assert (config["r"], config["lora_alpha"], config["bias"]) == (8, 8, "none")


def test_same_seed_same_everything(fit: Callable[..., Run]) -> None:
    """Con dropout, que también sale de la semilla."""
    options = ("--max-steps", 5, "--lora-dropout", 0.1, "--seed")
    first = fit(*options, 7)
    again = fit(*options, 7, name="otra")
    assert first.curve == again.curve and len(first.curve) == 5
    assert first.adapter == again.adapter
    other = fit(*options, 8, name="distinta")
    assert other.curve != first.curve and other.adapter != first.adapter


def test_seed_zero_is_a_seed(fit: Callable[..., Run]) -> None:
    """`if seed:` la habría cambiado por la de costumbre: al iniciar LoRA o al barajar."""
    zero = fit("--max-steps", 3, "--seed", 0)
    assert zero.seed == 0
    assert zero.adapter == fit("--max-steps", 3, "--seed", 0, name="b").adapter
    usual = fit("--max-steps", 3, name="c")
    assert usual.seed == 42 and zero.adapter != usual.adapter
    started = [name for name in zero.before if "lora_A" in name]
    assert not any(torch.equal(zero.before[name], usual.before[name]) for name in started)
    assert json.loads((zero.folder / "run.json").read_text(encoding="utf-8"))["seed"] == 0


def test_records_in_a_batch_do_not_see_each_other(
    fit: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cuatro registros seguidos, sin relleno, son exactamente cuatro registros por separado."""
    monkeypatch.setattr(common, "pick_device", lambda: ("cpu", "float32", "prueba"))
    together = fit("--epochs", 3, "--batch-size", 4, "--grad-accum", 1)
    apart = fit("--epochs", 3, "--batch-size", 1, "--grad-accum", 4, name="sueltos")
    assert len(together.curve) == 9
    assert together.curve == pytest.approx(apart.curve, rel=2e-4)
    recorded = [
        json.loads((run.folder / "run.json").read_text("utf-8")) for run in (together, apart)
    ]
    for when in ("eval_loss_before", "eval_loss_after"):
        losses = [run["metrics"][when] for run in recorded]
        assert losses[0] == pytest.approx(losses[1], rel=2e-4)


def test_held_out_loss_is_the_mean_over_answer_tokens(tiny_base: Path) -> None:
    """Calculada aquí registro a registro, sin lotes ni etiquetas."""
    tokenizer, model = train.load_tokenizer(tiny_base), train.load_model(tiny_base, "float32")
    rows = [{**row, "line": 1} for row in RECORDS[:5]]
    dataset = train.encode_all(tokenizer, rows, 512, Path("x"))
    total = tokens = 0
    for item in dataset:
        ids = torch.tensor([item["input_ids"]])
        with torch.no_grad():
            chances = model(ids).logits.log_softmax(-1)
        for position, label in enumerate(item["labels"]):
            if label != -100:
                total -= chances[0, position - 1, label].item()
                tokens += 1
    for batch_size in (1, 3, 8):
        loss = train.held_out_loss(model, dataset, batch_size, "prueba")
        assert loss == pytest.approx(total / tokens, rel=1e-5)


def test_max_steps_stops_there(fit: Callable[..., Run]) -> None:
    run = fit("--max-steps", 2, "--epochs", 50)
    assert len(run.curve) == 2
    assert not run.folder.with_name("modelo_chat_checkpoints").exists()


def test_max_records_takes_the_first_ones(fit: Callable[..., Run]) -> None:
    assert "3 para entrenar, 1 apartados" in fit("--max-steps", 1, "--max-records", 4).result.out


def test_split_keeps_questions_apart_and_depends_on_the_seed() -> None:
    rows = [{"line": line} for line in range(50)]
    lines = {
        seed: [row["line"] for row in train.split_by_question(rows, 0.1, seed)[1]]
        for seed in (0, 1)
    }
    assert len(lines[0]) == len(lines[1]) == 5 and lines[0] != lines[1]
    learned, held_out = train.split_by_question(rows, 0.1, 0)
    assert [row["line"] for row in held_out] == lines[0]
    assert sorted(row["line"] for row in learned + held_out) == list(range(50))


def test_what_the_stage_leaves(trained: Path, tiny_base: Path, records_file: Path) -> None:
    assert {item.name for item in trained.iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "chat_template.jinja",
        "loss.png",
        "run.json",
        "tokenizer.json",
        "tokenizer.model",
        "tokenizer_config.json",
    }
    assert (trained / "tokenizer.model").read_bytes() == (
        tiny_base / "tokenizer.model"
    ).read_bytes()
    assert (trained / "chat_template.jinja").read_text("utf-8") == common.CHAT_TEMPLATE
    assert (trained / "loss.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert [item.name for item in trained.parent.iterdir()] == ["modelo_chat"]


def test_run_json_says_what_was_done(trained: Path, tiny_base: Path, records_file: Path) -> None:
    run = json.loads((trained / "run.json").read_text(encoding="utf-8"))
    weights = common.sha256_file(tiny_base / "model.safetensors")
    assert run["base_model"] == {"name": str(tiny_base), "revision": None, "sha256": weights}
    assert run["dataset_sha256"] == common.sha256_file(records_file)
    assert run["records"] == {"train": 11, "held_out": 1}
    assert (run["seed"], run["lora_r"], run["lora_alpha"], run["epochs"]) == (42, 8, 16, 4)
    assert run["target_modules"] == "q_proj,v_proj" and run["learning_rate"] == 0.01
    assert run["compute"]["device"] == "cpu" and run["compute"]["reason"]
    assert run["metrics"]["eval_loss_after"] < run["metrics"]["eval_loss_before"]
    assert run["metrics"]["seconds"] > 0
    assert run["prompt_sha256"] == common.prompt_hash()
    assert set(run["environment"]["packages"]) >= {"torch", "transformers", "peft", "datasets"}
    assert run["environment"]["hardware"]["cpus"] >= 1
    assert run["example"]["prompt"].endswith("\nEnfermero:")
    assert run["example"]["supervised"] == f" {RECORDS[0]['output']}</s>"


def test_the_example_is_shown_with_what_is_learnt(fit: Callable[..., Run]) -> None:
    result = fit("--max-steps", 1).result
    shown = RECORDS[0]["output"].replace("\n", "\n  ")
    assert f"Usuario: {RECORDS[0]['instruction']}\n  Enfermero:« {shown}</s>»\n" in result.out
    for step in (
        "[1/4] Base: ",
        "[2/4] ",
        "[3/4] ",
        "antes: pérdida",
        "después: pérdida",
        "[4/4] ",
    ):
        assert step in result.out
    assert "FutureWarning" not in result.err and "paso" in result.err


@pytest.mark.parametrize("previous", [True, False], ids=["había otra", "no había"])
def test_failure_while_saving_leaves_what_there_was(
    fit: Callable[..., Run],
    tiny_base: Path,
    records_file: Path,
    tmp_path: Path,
    run_main: Callable[..., Result],
    monkeypatch: pytest.MonkeyPatch,
    previous: bool,
) -> None:
    folder = fit("--max-steps", 1).folder if previous else tmp_path / "modelo_chat"
    kept = {item.name: item.read_bytes() for item in folder.iterdir()} if previous else {}

    def full_disk(*_: Any) -> None:
        raise OSError(28, "No space left on device", str(tmp_path / "loss.png"))

    monkeypatch.setattr(train, "plot_loss", full_disk)
    result = run_main(SCRIPT, *train_args(tiny_base, records_file, folder, "--max-steps", 2))
    assert result.code == 1
    assert result.err.splitlines()[-1].endswith("no queda espacio; liberar sitio y repetir.")
    found = {item.name: item.read_bytes() for item in folder.iterdir()} if folder.exists() else {}
    assert found == kept
    assert not list(tmp_path.glob("*.parcial")) and not list(tmp_path.glob("*.anterior"))
