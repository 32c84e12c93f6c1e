"""Construye la base incluida, «mini»: un Llama de 6,8 M de parámetros que se aprende los registros.

Uso:     python modelo_base_mini/build_mini_base.py
Lee:     primeros_auxilios_500.jsonl (preguntas y respuestas, las 500: también las que 01 aparta).
Escribe: en modelo_base_mini/, los pesos, la configuración y el tokenizer. README.md es a mano.
Tarda:   unos 5 minutos en una CPU de 2 núcleos sin otros trabajos.
No hace: no usa la plantilla del chat, que es lo que LoRA enseña después, y no descarga nada.

Misma semilla, mismos registros y mismo equipo dan los mismos bytes; otra CPU u otra versión de
PyTorch redondean distinto y dan unos pesos equivalentes.
"""

from __future__ import annotations

import argparse
import io
import math
import os
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import nurse_common as common  # noqa: E402

# Múltiplos de 32, el bloque de Q8_0 y Q4_0; GQA y embeddings sin atar, como TinyLlama.
SHAPE = {
    "vocab_size": 4000,
    "hidden_size": 256,
    "intermediate_size": 768,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,  # cabezas de 64, como las de TinyLlama
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
}
# Letras que alguien puede teclear aunque los registros no las usen.
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZÁÉÍÓÚÜÑabcdefghijklmnopqrstuvwxyzáéíóúüñ¿?¡!«»\"'"
BATCH_TOKENS = 1600
LEARNING_RATE, WARMUP_STEPS, WEIGHT_DECAY = 2e-3, 60, 0.1
THREADS = 2  # fijo: con otro reparto la suma se redondea distinto


def sheet(row: common.Record) -> str:
    """Lo que lee la base: una ficha, sin el «Usuario: … Enfermero:» del chat."""
    return f"Consulta: {common.question_of(row)}\nFicha: {row['output']}</s>"


def train_tokenizer(rows: list[common.Record], folder: Path) -> Any:
    """SentencePiece BPE como el de Llama 2: `<unk>`, `<s>`, `</s>` y 256 bytes de respaldo.

    Sin normalizar ni juntar espacios: así llama.cpp, que no normaliza, da los mismos tokens.
    """
    import sentencepiece
    from transformers import LlamaTokenizer

    lines = [common.SYSTEM_PROMPT, "Usuario: Enfermero: Consulta: Ficha:"]
    lines += [line for row in rows for line in sheet(row).removesuffix("</s>").split("\n")]
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=model,
        model_type="bpe",
        vocab_size=SHAPE["vocab_size"],
        byte_fallback=True,
        character_coverage=1.0,
        required_chars=ALPHABET,
        split_digits=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True,
        num_threads=1,
        minloglevel=2,
    )
    (folder / "tokenizer.model").write_bytes(model.getvalue())
    tokenizer = LlamaTokenizer.from_pretrained(folder, legacy=True)
    tokenizer.init_kwargs["legacy"] = True
    tokenizer.model_max_length = SHAPE["max_position_embeddings"]
    tokenizer.save_pretrained(folder)
    return tokenizer


def batches(rows: list[common.Record], tokenizer: Any, rng: random.Random) -> list[Any]:
    """Una pasada por los registros, al azar, en lotes de largo parecido."""
    texts = [tokenizer(sheet(row))["input_ids"] for row in rng.sample(rows, len(rows))]
    texts.sort(key=len)
    grouped: list[list[list[int]]] = [[]]
    for ids in texts:
        if grouped[-1] and (len(grouped[-1]) + 1) * len(ids) > BATCH_TOKENS:
            grouped.append([])
        grouped[-1].append(ids)
    rng.shuffle(grouped)
    return grouped


def tensors(batch: list[list[int]]) -> dict[str, Any]:
    """(textos, largo) con relleno a la derecha: la máscara causal ya impide que se vea."""
    import torch

    length = max(map(len, batch))
    ids = torch.tensor([row + [0] * (length - len(row)) for row in batch])
    labels = torch.tensor([row + [-100] * (length - len(row)) for row in batch])
    return {"input_ids": ids, "labels": labels}


def make_optimizer(model: Any) -> Any:
    import torch

    groups = [
        {"params": [p for p in model.parameters() if p.dim() > 1], "weight_decay": WEIGHT_DECAY},
        {"params": [p for p in model.parameters() if p.dim() == 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=LEARNING_RATE, betas=(0.9, 0.95), fused=True)


def train_model(rows: list[common.Record], tokenizer: Any, epochs: int, seed: int) -> Any:
    """Llama desde cero, en fp32; imprime la pérdida de cada pasada."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    torch.set_num_threads(THREADS)
    rng = random.Random(seed)
    model = LlamaForCausalLM(LlamaConfig(**SHAPE, tie_word_embeddings=False))
    print(f"Parámetros: {model.num_parameters():,}. Registros: {len(rows)}.")
    optimizer, step, start = make_optimizer(model), 0, time.perf_counter()
    for epoch in range(epochs):
        losses = []
        for rate, batch in schedule(batches(rows, tokenizer, rng), epoch, epochs):
            step += 1
            for group in optimizer.param_groups:
                group["lr"] = rate * min(1.0, step / WARMUP_STEPS)
            loss = model(**tensors(batch), use_cache=False).loss
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            losses.append(loss.item())
        mean, seconds = sum(losses) / len(losses), time.perf_counter() - start
        print(f"Pasada {epoch + 1}/{epochs}: pérdida {mean:.3f} ({seconds:.0f} s)", flush=True)
    return model


def schedule(grouped: list[Any], epoch: int, epochs: int) -> Iterator[tuple[float, Any]]:
    """Cada lote con su tasa: coseno desde `LEARNING_RATE` hasta su vigésima parte."""
    for index, batch in enumerate(grouped):
        done = (epoch + index / len(grouped)) / epochs
        yield LEARNING_RATE * (0.05 + 0.95 * (1 + math.cos(math.pi * done)) / 2), batch


def replace_files(source: Path, target: Path) -> None:
    """Pasa cada archivo a su sitio sin tocar los demás; la ficha y este script viven ahí."""
    target.mkdir(parents=True, exist_ok=True)
    for file in sorted(source.iterdir()):
        os.replace(file, target / file.name)


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = common.SpanishParser(__doc__)
    default = " (por defecto: %(default)s)"
    whole, seed = common.number(int, 1), common.number(int, 0)
    parser.add("--data", type=Path, default=common.DATA_FILE, help="registros" + default)
    parser.add("--output", type=Path, default=common.MINI_BASE_DIR, help="carpeta" + default)
    parser.add("--epochs", type=whole, default=18, help="pasadas por los registros" + default)
    parser.add("--seed", type=seed, default=common.SEED, help="semilla" + default)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    from transformers.utils.logging import disable_progress_bar

    args = parse_args(argv)
    rows, _ = common.load_records(args.data)
    partial = args.output.with_name(f"{args.output.name}.parcial")
    common.discard(partial)
    try:
        partial.mkdir(parents=True)
        tokenizer = train_tokenizer(rows, partial)
        model = train_model(rows, tokenizer, args.epochs, args.seed)
        disable_progress_bar()
        # fp16 y no bf16: tres bits más de mantisa, y es lo que 02 guarda.
        model.half().save_pretrained(partial)
        replace_files(partial, args.output)
    finally:
        common.discard(partial)
    size = sum(file.stat().st_size for file in args.output.iterdir() if file.is_file())
    print(f"Guardado en {args.output}: {size / 1e6:.1f} MB.")
    return 0


if __name__ == "__main__":
    common.run_script(main)
