"""El GGUF: mismos pesos, mismo vocabulario y mismo prompt que model_nurse_final/.

Los lectores independientes son el de transformers (pesos y permutación de q y k) y llama.cpp
(tokens y respuestas). Cada comprobación de 03 se ve fallar con un GGUF estropeado.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import gguf
import numpy as np
import pytest
from conftest import Result, script
from safetensors.numpy import load_file, save_file
from sentencepiece import SentencePieceProcessor

import nurse_common as common
from nurse_engines import encode_chat, gguf_file, load_tokenizer
from nurse_engines.gguf_header import gguf_weights_hash

EXPORT = "03_export_model_nurse"
Run = Callable[..., Result]


@pytest.fixture
def stage(merged: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(merged, tmp_path / "model_nurse_final"))


@pytest.fixture
def export(records_file: Path, monkeypatch: Any) -> ModuleType:
    monkeypatch.setattr(common, "DATA_FILE", records_file)
    return script(EXPORT)


def build(export: ModuleType, stage: Path, kind: str) -> Path:
    """El GGUF tal como lo escribe 03, sin la prueba de texto."""
    target = stage.with_name("modelo.gguf")
    plan = gguf_file.plan_tensors(stage, config_of(stage), kind)
    manifest = common.read_json(stage / "manifest.json", "")
    gguf_file.write_gguf(target, stage, plan, kind, manifest, lambda _: None)
    return target


def config_of(stage: Path) -> dict[str, Any]:
    return common.read_json(stage / "config.json", "")


def field(reader: gguf.GGUFReader, key: str) -> Any:
    return reader.get_field(key).contents()


def sharpen(stage: Path) -> None:
    """Separa la primera palabra de la segunda: casi empatadas, decide el redondeo de cada CPU."""
    weights = stage / "model.safetensors"
    tensors = load_file(weights)
    random = np.random.default_rng(1)
    embeddings, head = tensors["model.embed_tokens.weight"], tensors["lm_head.weight"]
    embeddings *= np.float16(200)  # cada token decide, sobre todo, el siguiente
    head *= np.exp(random.normal(0, 0.5, (len(head), 1))).astype(np.float16)
    save_file(tensors, weights, {"format": "pt"})
    manifest = common.read_json(stage / "manifest.json", "")
    manifest["weights_sha256"] = common.sha256_file(weights)
    common.write_json(stage / "manifest.json", manifest)


@pytest.mark.parametrize("kind", gguf_file.GGUF_TYPES)
def test_export_proves_what_it_writes(
    stage: Path, export: ModuleType, run_main: Run, kind: str
) -> None:
    sharpen(stage)
    result = run_main(EXPORT, "--model", stage, "--only", "gguf", "--gguf-type", kind)
    assert result.code == 0, result.err
    assert {path.name for path in stage.parent.iterdir()} == {
        stage.name,
        "model_nurse_final.gguf",
        "Modelfile",
    }
    assert "Mismos tokens que en el entrenamiento: 15 de 15 textos." in result.out
    if kind == "f16":
        assert "Respuestas greedy iguales a transformers: 3 de 3." in result.out


def test_identity_and_architecture(stage: Path, export: ModuleType) -> None:
    path = build(export, stage, "q8_0")
    manifest, config = common.read_json(stage / "manifest.json", ""), config_of(stage)
    reader = gguf.GGUFReader(path)
    assert gguf_weights_hash(path) == manifest["weights_sha256"]
    assert field(reader, "general.architecture") == "llama"
    assert field(reader, "general.languages") == ["es"]
    assert field(reader, "general.license") == manifest["license"]
    assert field(reader, "general.base_model.0.name") == manifest["base_model"]["name"]
    assert field(reader, "general.file_type") == gguf.LlamaFileType.MOSTLY_Q8_0
    assert field(reader, "llama.block_count") == config["num_hidden_layers"]
    assert field(reader, "llama.attention.head_count_kv") == config["num_key_value_heads"]
    assert field(reader, "llama.rope.freq_base") == config["rope_parameters"]["rope_theta"]
    template = (stage / "chat_template.jinja").read_text(encoding="utf-8")
    assert field(reader, "tokenizer.chat_template") == template


def test_vocabulary_keeps_the_sentencepiece_scores(stage: Path, export: ModuleType) -> None:
    reader = gguf.GGUFReader(build(export, stage, "f16"))
    pieces = SentencePieceProcessor(model_file=str(stage / "tokenizer.model"))
    ids = range(pieces.vocab_size())
    assert field(reader, "tokenizer.ggml.tokens") == [pieces.id_to_piece(i) for i in ids]
    scores = field(reader, "tokenizer.ggml.scores")
    assert scores == pytest.approx([pieces.get_score(i) for i in ids])
    assert len(set(scores)) > 100  # puntuaciones planas partirían el texto de otra manera
    kinds = field(reader, "tokenizer.ggml.token_type")
    assert kinds[:3] == [2, 3, 3]  # <unk> desconocido, <s> y </s> de control
    assert [kinds[i] == 6 for i in ids] == [pieces.is_byte(i) for i in ids]
    special = {"bos": 1, "eos": 2, "unknown": 0, "padding": 2}
    for name, expected in special.items():
        assert field(reader, f"tokenizer.ggml.{name}_token_id") == expected
    flags = {"add_bos_token": True, "add_eos_token": False, "add_space_prefix": True}
    for name, expected in flags.items():
        assert field(reader, f"tokenizer.ggml.{name}") is expected


def test_transformers_reads_the_same_model(stage: Path, export: ModuleType) -> None:
    """El lector de transformers deshace la permutación: los logits delatan cualquier error."""
    import torch
    from transformers import AutoModelForCausalLM

    path = build(export, stage, "f16")
    ours = AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32
    ).eval()
    original = AutoModelForCausalLM.from_pretrained(stage, dtype=torch.float32).eval()
    ids = torch.tensor([encode_chat(load_tokenizer(stage), common.build_messages("Sangra"), True)])
    with torch.no_grad():
        torch.testing.assert_close(ours(ids).logits, original(ids).logits)


def test_output_layer_keeps_8_bits_in_q4_0(stage: Path, export: ModuleType) -> None:
    kinds = {
        t.name: t.tensor_type.name for t in gguf.GGUFReader(build(export, stage, "q4_0")).tensors
    }
    assert kinds["output.weight"] == kinds["token_embd.weight"] == "Q8_0"
    assert kinds["blk.0.attn_q.weight"] == "Q4_0" and kinds["blk.0.attn_norm.weight"] == "F32"


def test_rows_that_do_not_fill_a_block_stay_in_f16() -> None:
    kinds = [gguf_file._kind_of("blk.0.ffn_down.weight", (64, n), "q8_0").name for n in (40, 64)]
    assert kinds == ["F16", "Q8_0"]


@pytest.mark.parametrize("kind", gguf_file.GGUF_TYPES)
def test_a_changed_weight_is_caught(stage: Path, export: ModuleType, kind: str) -> None:
    path = build(export, stage, kind)
    plan = gguf_file.plan_tensors(stage, config_of(stage), kind)
    weights = stage / "model.safetensors"
    assert gguf_file.verify_gguf(path, weights, plan, {}, lambda _: None) <= 1
    tensor = next(t for t in gguf.GGUFReader(path).tensors if t.name == "blk.1.ffn_up.weight")
    with path.open("r+b") as file:
        file.seek(int(tensor.data_offset) + 1)  # exponente del primer peso o de su escala
        file.write(b"\x40")
    with pytest.raises(common.NurseError, match="blk.1.ffn_up.weight no coincide"):
        gguf_file.verify_gguf(path, weights, plan, {}, lambda _: None)


def test_a_changed_field_is_caught(stage: Path, export: ModuleType) -> None:
    path = build(export, stage, "f16")
    plan = gguf_file.plan_tensors(stage, config_of(stage), "f16")
    with pytest.raises(common.NurseError, match="llama.block_count"):
        gguf_file.verify_gguf(
            path, stage / "model.safetensors", plan, {"llama.block_count": 7}, lambda _: None
        )


def test_lost_permutation_changes_the_tensor(stage: Path) -> None:
    """Sin reordenar q y k, la comparación de pesos no diría nada: los logits sí (más arriba)."""
    plan = {t.name: t for t in gguf_file.plan_tensors(stage, config_of(stage), "f16")}
    query, value = plan["blk.0.attn_q.weight"], plan["blk.0.attn_v.weight"]
    assert (query.heads, value.heads) == (config_of(stage)["num_attention_heads"], 0)
    weights = stage / "model.safetensors"
    moved = gguf_file.load_tensor(weights, query)
    plain = gguf_file.load_tensor(weights, query._replace(heads=0))
    assert not np.array_equal(moved, plain)
    assert np.array_equal(np.sort(moved.ravel()), np.sort(plain.ravel()))


def test_flat_scores_are_caught(
    stage: Path, export: ModuleType, run_main: Run, monkeypatch: Any
) -> None:
    """La trampa de los conversores sin tokenizer.model: se escribe sin error y entiende peor."""
    tokens = gguf.SentencePieceVocab.all_tokens
    monkeypatch.setattr(
        gguf.SentencePieceVocab,
        "all_tokens",
        lambda self: ((text, -1000.0, kind) for text, _, kind in tokens(self)),
    )
    result = run_main(EXPORT, "--model", stage, "--only", "gguf")
    assert result.code == 1 and "en otros tokens" in result.err
    assert not (stage.parent / "model_nurse_final.gguf").exists()


def test_without_llama_cpp_sentencepiece_checks_the_tokens(
    stage: Path, export: ModuleType, run_main: Run, monkeypatch: Any
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "xllamacpp", None)
    result = run_main(EXPORT, "--model", stage, "--only", "gguf")
    assert result.code == 0
    assert "pip install xllamacpp" in result.out and "15 de 15 textos" in result.out


def test_big_models_are_not_loaded_in_torch(
    stage: Path, export: ModuleType, run_main: Run, monkeypatch: Any
) -> None:
    monkeypatch.setattr(export, "PROBE_LIMIT", 0)
    result = run_main(EXPORT, "--model", stage, "--only", "gguf")
    assert result.code == 0 and "Respuestas sin comparar" in result.out


def test_full_disk_leaves_nothing(
    stage: Path, export: ModuleType, run_main: Run, monkeypatch: Any
) -> None:
    def full(*_: Any) -> None:
        raise OSError("8192 requested and 0 written")  # lo que dice numpy, sin código de error

    monkeypatch.setattr(gguf.GGUFWriter, "write_tensor_data", full)
    result = run_main(EXPORT, "--model", stage, "--only", "gguf")
    assert result.code == 1 and "no queda espacio" in result.err.splitlines()[-1]
    assert [path.name for path in stage.parent.iterdir()] == [stage.name]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rope_parameters": {"rope_theta": 1e4, "rope_type": "yarn"}}, "RoPE"),
        ({"vocab_size": 500}, "tokenizer.model tiene 512 tokens y el modelo 500"),
    ],
)
def test_models_that_gguf_would_spoil_are_refused(
    stage: Path, export: ModuleType, run_main: Run, change: dict[str, Any], said: str
) -> None:
    common.write_json(stage / "config.json", config_of(stage) | change)
    result = run_main(EXPORT, "--model", stage, "--only", "gguf")
    assert result.code == 1 and said in result.err.splitlines()[-1]
    assert not (stage.parent / "model_nurse_final.gguf").exists()


def test_weights_that_are_not_fp16_are_refused(stage: Path) -> None:
    from safetensors.numpy import load_file, save_file

    path = stage / "model.safetensors"
    save_file({key: value.astype(np.float32) for key, value in load_file(path).items()}, path)
    with pytest.raises(common.NurseError, match="fp16"):
        gguf_file.plan_tensors(stage, config_of(stage), "q8_0")


def test_hash_of_foreign_files(tmp_path: Path, stage: Path, export: ModuleType) -> None:
    other = tmp_path / "otro.gguf"
    writer = gguf.GGUFWriter(other, "llama")
    writer.add_token_list([b"a", b"b"])
    writer.add_token_scores([0.0, 1.0])
    writer.add_add_bos_token(True)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    assert gguf_weights_hash(other) is None
    other.write_bytes(b"PK\x03\x04" + bytes(64))
    with pytest.raises(common.NurseError, match="no es un GGUF"):
        gguf_weights_hash(other)
    other.write_bytes(build(export, stage, "f16").read_bytes()[:200])
    with pytest.raises(common.NurseError, match="incompleto o dañado"):
        gguf_weights_hash(other)
