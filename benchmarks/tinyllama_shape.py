"""Modelo con la forma exacta de TinyLlama y pesos al azar, que recita un texto fijo.

Uso: python benchmarks/tinyllama_shape.py CARPETA TOKENIZER_MODEL

Lo crea bench_export.py: `practica/` en fp32, como la guarda la práctica, y `model_nurse_final/` en
fp16, con los mismos pesos. Como en la realidad, la base está publicada en bf16 (comprime mejor) y q
y v quedaron movidos por LoRA en fp32. El cálculo por token es el de TinyLlama; lo único que no es
al azar son unas 70 filas de embeddings y de salida, para que conteste palabras y termine: así se
mide el chat entero, no un motor suelto.
"""

import shutil
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import nurse_common as common  # noqa: E402

SHAPE = {
    "vocab_size": 32000,
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "num_hidden_layers": 22,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-5,
}
RECITED = 64  # tokens de su respuesta, antes de </s>
LOUD = 200  # el embedding (std 0,02 x 200) debe oírse por encima de 22 capas al azar (std ~4)


def recited_tokens(tokenizer: Any) -> list[int]:
    """Del último token del prompt a `</s>`, sin repetir ninguno: cada uno decide el siguiente."""
    prompt = common.build_messages("¿Qué hago?")
    chain = list(
        tokenizer.apply_chat_template(prompt, add_generation_prompt=True)["input_ids"][-1:]
    )
    rows, _ = common.load_records(common.DATA_FILE)
    for word in " ".join(row["output"] for row in rows).split():
        ids = tokenizer.encode(word, add_special_tokens=False)
        if len(set(chain + ids)) == len(chain) + len(ids):
            chain += ids
        if len(chain) > RECITED:
            return [*chain, tokenizer.eos_token_id]
    common.fail(f"{common.DATA_FILE.name} no tiene {RECITED} tokens distintos.")


def make_models(work: Path, tokenizer_model: Path) -> None:
    """Escribe las dos carpetas en `work`."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, LlamaTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    practice, ours = work / "practica", work / "model_nurse_final"
    practice.mkdir()
    shutil.copyfile(tokenizer_model, practice / "tokenizer.model")
    tokenizer = LlamaTokenizer.from_pretrained(practice, legacy=True)
    tokenizer.init_kwargs["legacy"] = True
    tokenizer.chat_template = common.CHAT_TEMPLATE
    tokenizer.save_pretrained(practice)
    torch.manual_seed(common.SEED)
    model = LlamaForCausalLM(LlamaConfig(bos_token_id=1, eos_token_id=2, **SHAPE))
    for token, following in pairwise(recited_tokens(tokenizer)):
        row = model.model.embed_tokens.weight.data[token]
        model.lm_head.weight.data[following] = row
        row *= LOUD
    model = model.bfloat16().float()
    for name, weight in model.named_parameters():
        if "q_proj" in name or "v_proj" in name:
            weight.data += torch.randn_like(weight) * 1e-4
    model.save_pretrained(practice)
    model.half().save_pretrained(ours)
    tokenizer.save_pretrained(ours)
    shutil.copyfile(tokenizer_model, ours / "tokenizer.model")
    manifest = {
        "weights_sha256": common.sha256_file(ours / "model.safetensors"),
        "prompt_sha256": common.prompt_hash(),
        "base_model": {"name": "pesos al azar", "revision": None, "sha256": "0" * 64},
        "license": "other",
    }
    common.write_json(ours / "manifest.json", manifest)
    print("hecho")


if __name__ == "__main__":
    make_models(Path(sys.argv[1]), Path(sys.argv[2]))
