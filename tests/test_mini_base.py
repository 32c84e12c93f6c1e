"""La base incluida: forma, tokenizer, qué sabe y qué no, y su constructor."""

import importlib
import json
import struct
from collections.abc import Callable
from difflib import SequenceMatcher
from math import prod
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from conftest import Result, script, write_records

import nurse_common as common
from nurse_engines import encode_chat, load_model, load_tokenizer

MINI = common.MINI_BASE_DIR
FILES = {
    "README.md",
    "build_mini_base.py",
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
}
MARGIN = 25  # tokens libres hasta --max-length: un registro retocado debe seguir cabiendo
ODD_TEXT = "Dos  espacios,\ttabulador, 112/911, 20 min, kiwi, Ω, 👍 y\nlínea"


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return load_tokenizer(MINI)


@pytest.fixture(scope="module")
def records() -> list[common.Record]:
    return common.load_records(common.DATA_FILE)[0]


@pytest.fixture(scope="module")
def builder() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(MINI))
        return importlib.import_module("build_mini_base")


def tensor_shapes() -> dict[str, list[int]]:
    with (MINI / "model.safetensors").open("rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
    header.pop("__metadata__", None)
    assert {tensor["dtype"] for tensor in header.values()} == {"F16"}
    return {name: tensor["shape"] for name, tensor in header.items()}


def test_it_is_small_and_complete() -> None:
    present = {path.name for path in MINI.iterdir() if path.is_file()}
    assert present == FILES
    assert sum((MINI / name).stat().st_size for name in FILES) <= 25e6
    assert sum(prod(shape) for shape in tensor_shapes().values()) <= 12e6


def test_every_matrix_fits_the_gguf_blocks() -> None:
    """Q8_0 y Q4_0 van en bloques de 32; la salida no comparte pesos con la entrada."""
    shapes = tensor_shapes()
    assert all(shape[-1] % 32 == 0 for shape in shapes.values())
    assert {"lm_head.weight", "model.embed_tokens.weight"} <= shapes.keys()


def test_tokenizer_is_the_sentencepiece_model(tokenizer: Any, records: Any) -> None:
    """`tokenizer.json` (transformers) y `tokenizer.model` (llama.cpp) dan lo mismo."""
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(MINI / "tokenizer.model"))
    assert [pieces.id_to_piece(index) for index in range(3)] == ["<unk>", "<s>", "</s>"]
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (1, 2)
    for text in (ODD_TEXT, *(row["output"] for row in records)):
        assert tokenizer(text, add_special_tokens=False)["input_ids"] == pieces.encode(text)
        assert pieces.decode(pieces.encode(text)) == text


def test_numbers_are_split_in_digits(tokenizer: Any) -> None:
    """112 no debe ser un token distinto de 1, 1, 2: llama.cpp y SentencePiece deben coincidir."""
    pieces = tokenizer.convert_ids_to_tokens(
        tokenizer("112/911", add_special_tokens=False).input_ids
    )
    assert [piece for piece in pieces if piece != "▁"] == [*"112/911"]


def test_every_record_fits_with_margin(tokenizer: Any, records: Any) -> None:
    encode = script("01_train_lora").encode_record
    longest = max(len(encode(tokenizer, row)["input_ids"]) for row in records)
    assert longest <= common.MAX_LENGTH - MARGIN


def similarity(model: Any, tokenizer: Any, prompt: list[int], wanted: str) -> float:
    import torch

    ids = torch.tensor([prompt])
    mask = torch.ones_like(ids)
    output = model.generate(ids, attention_mask=mask, max_new_tokens=60, do_sample=False)
    text = tokenizer.decode(output[0, len(prompt) :], skip_special_tokens=True).strip()
    # Se compara tanto texto del registro como se ha generado: la prueba no espera al final.
    return SequenceMatcher(None, text, wanted[: len(text)], autojunk=False).ratio()


def test_it_knows_its_sheets_but_not_the_chat(tokenizer: Any, records: Any, builder: Any) -> None:
    """El antes de la demostración: las fichas están en la memoria y el chat no las encuentra."""
    model = load_model(MINI, "float32").eval()
    sheets, chats = [], []
    for row in records[::60]:
        start = builder.sheet(row).partition("Ficha:")[0] + "Ficha:"
        chat = encode_chat(tokenizer, common.build_messages(common.question_of(row)), True)
        sheets.append(similarity(model, tokenizer, tokenizer(start)["input_ids"], row["output"]))
        chats.append(similarity(model, tokenizer, chat, row["output"]))
    assert sum(ratio >= 0.8 for ratio in sheets) >= len(sheets) - 1, sheets
    assert sum(ratio >= 0.8 for ratio in chats) <= 1, chats


def test_builder_repeats_itself_and_keeps_its_neighbours(
    builder: Any, records: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = {"vocab_size": 600, "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1}
    monkeypatch.setattr(builder, "SHAPE", builder.SHAPE | small)
    monkeypatch.setattr(builder, "THREADS", 1)
    data = write_records(tmp_path / "registros.jsonl", records[:20])
    made = []
    for name in ("a", "b"):
        output = tmp_path / name
        output.mkdir()
        (output / "README.md").write_text("ficha", encoding="utf-8")
        assert builder.main(["--data", str(data), "--output", str(output), "--epochs", "1"]) == 0
        assert {path.name for path in output.iterdir()} == FILES - {"build_mini_base.py"}
        assert (output / "README.md").read_text(encoding="utf-8") == "ficha"
        made.append({path.name: path.read_bytes() for path in output.iterdir()})
    assert made[0] == made[1]
    assert not list(tmp_path.glob("*.parcial"))


@pytest.fixture
def recital(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(common.ROOT / "benchmarks"))
    return "mini_recital"


def test_recital_measures_only_trained_records(
    recital: str, merged: Path, tiny_base: Path, records_file: Path, run_main: Callable[..., Result]
) -> None:
    """El modelo diminuto no llega al umbral: imprime las cifras y lo dice."""
    options = ("--model", merged, "--base", tiny_base, "--data", records_file)
    done = run_main(recital, *options, "--max-new-tokens", 4)
    assert (done.code, done.error) == (
        1,
        "Error: No llega a lo pedido: la fusión al menos 85% y la base sola menos de 10%.",
    )
    train = json.loads((merged / "manifest.json").read_text(encoding="utf-8"))["records"]["train"]
    assert f"{train - 1} preguntas de los {train} registros entrenados" in done.out
    assert done.out.count("Pregunta: ") == 3


def test_recital_refuses_other_records_and_other_base(
    recital: str,
    merged: Path,
    tiny_base: Path,
    records_file: Path,
    tmp_path: Path,
    run_main: Callable[..., Result],
) -> None:
    other = tmp_path / "otros.jsonl"
    other.write_text(records_file.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    done = run_main(recital, "--model", merged, "--base", tiny_base, "--data", other)
    assert (done.code, "otros.jsonl" in done.error) == (1, True)
    done = run_main(recital, "--model", merged, "--base", MINI, "--data", records_file)
    assert (done.code, "no se hizo con la base" in done.error) == (1, True)
