"""Cuánto recita el modelo terminado los registros con que se entrenó, y cuánto la base sola.

Uso:     python benchmarks/mini_recital.py           (después de 01 y 02 con --base-model mini)
Lee:     model_nurse_final/ con su manifest.json, modelo_base_mini/ y los registros.
Escribe: nada; imprime las cifras y sale con 1 si no llegan a lo pedido.
Tarda:   medio minuto en una CPU de 2 núcleos.
No hace: no mide si el modelo sabe primeros auxilios. Recitar lo leído es memoria, no criterio.
"""

from __future__ import annotations

import argparse
import importlib
import random
import sys
from difflib import SequenceMatcher
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import nurse_common as common  # noqa: E402
from nurse_engines import encode_chat, load_model, load_tokenizer  # noqa: E402

STAGE_2 = "02_create_model_nurse.py"
SIMILAR = 0.8  # ratio de difflib desde el que una respuesta cuenta como recitada
MERGED_SHARE, BASE_SHARE = 0.85, 0.10  # lo pedido: la fusión, al menos; la base sola, menos
BATCH = 20
EXAMPLES = 3


def trained_records(args: argparse.Namespace) -> list[common.Record]:
    """Los registros con que se entrenó, según el manifest: el mismo reparto que hizo 01."""
    common.require_stage(args.model, ("manifest.json", "model.safetensors"), STAGE_2)
    common.require_stage(args.base, ("model.safetensors",), "modelo_base_mini/build_mini_base.py")
    manifest = common.read_json(args.model / "manifest.json", STAGE_2)
    rows, _ = common.load_records(args.data)
    if common.sha256_file(args.data) != manifest["dataset_sha256"]:
        common.fail(f"{args.model} no se entrenó con {args.data.name}: la suma es otra.")
    if common.sha256_file(args.base / "model.safetensors") != manifest["base_model"]["sha256"]:
        common.fail(f"{args.model} no se hizo con la base {args.base}. Indicar otra con --base.")
    split = importlib.import_module("01_train_lora").split_by_question
    rows = rows[: manifest["max_records"]]
    return split(rows, manifest["eval_fraction"], manifest["seed"])[0]


def answers(folder: Path, prompts: list[list[common.Message]], limit: int) -> list[str]:
    """Respuestas greedy, en lotes con relleno a la izquierda (el final es lo que se continúa)."""
    import torch

    tokenizer = load_tokenizer(folder)
    tokenizer.padding_side = "left"
    model = load_model(folder, "float32").eval()
    texts: list[str] = []
    for start in range(0, len(prompts), BATCH):
        ids = [encode_chat(tokenizer, item, True) for item in prompts[start : start + BATCH]]
        batch = tokenizer.pad({"input_ids": ids}, return_tensors="pt")
        with torch.no_grad():
            output = model.generate(
                **batch,
                do_sample=False,
                max_new_tokens=limit,
                pad_token_id=tokenizer.pad_token_id,
                eos_token_id=tokenizer.eos_token_id,
            )
        new = output[:, batch["input_ids"].shape[1] :]  # (respuestas, tokens nuevos)
        decoded = tokenizer.batch_decode(new, skip_special_tokens=True)
        texts += [text.partition(common.STOP_TEXT)[0].strip() for text in decoded]
    return texts


def report(name: str, given: list[str], rows: list[common.Record]) -> float:
    """Imprime la línea de un modelo y devuelve la parte recitada."""
    pairs = [(text, row["output"]) for text, row in zip(given, rows, strict=True)]
    ratios = [SequenceMatcher(None, *pair, autojunk=False).ratio() for pair in pairs]
    share = sum(ratio >= SIMILAR for ratio in ratios) / len(ratios)
    exact = sum(text == wanted for text, wanted in pairs) / len(pairs)
    print(f"{name:<34} {share:>8.1%} {exact:>8.1%} {median(ratios):>8.3f}")
    return share


def prompts_for(rows: list[common.Record], first: common.Record | None = None) -> list[Any]:
    """La conversación de cada pregunta; con `first`, después de ese otro turno."""
    before = common.build_messages(common.question_of(first), first["output"]) if first else []
    return [before + common.build_messages(common.question_of(row)) for row in rows]


def show_examples(rows: list[common.Record], merged: list[str], base: list[str]) -> None:
    for row, after, before in list(zip(rows, merged, base, strict=True))[:EXAMPLES]:
        print(f"\nPregunta: {common.question_of(row)}")
        for label, text in (("registro", row["output"]), ("modelo", after), ("base", before)):
            print(f"  {label + ':':<9} {' '.join(text.split())[:200]}")


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = common.SpanishParser(__doc__)
    default = " (por defecto: %(default)s)"
    whole = common.number(int, 1)
    parser.add("--model", type=Path, default=common.MODEL_DIR, help="la fusión" + default)
    parser.add("--base", type=Path, default=common.MINI_BASE_DIR, help="su base" + default)
    parser.add("--data", type=Path, default=common.DATA_FILE, help="registros" + default)
    parser.add("--questions", type=whole, default=60, help="preguntas al azar" + default)
    parser.add("--max-new-tokens", type=whole, default=common.MAX_NEW_TOKENS,
        help="largo máximo de cada respuesta" + default)  # fmt: skip
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    trained = trained_records(args)
    rng = random.Random(common.SEED)
    first, *rows = rng.sample(trained, min(args.questions + 1, len(trained)))
    single, second = prompts_for(rows), prompts_for(rows, first)
    print(f"{len(rows)} preguntas de los {len(trained)} registros entrenados, sin azar (greedy).")
    print(f"{'':<34} {'recitado':>8} {'idéntico':>8} {'mediana':>8}")
    base = answers(args.base, single, args.max_new_tokens)
    base_share = report("base sola", base, rows)
    merged = answers(args.model, single, args.max_new_tokens)
    share = report("base + LoRA", merged, rows)
    report("base + LoRA, segundo turno", answers(args.model, second, args.max_new_tokens), rows)
    print(f"Recitado: parecido de difflib >= {SIMILAR}. Mediana: la de ese parecido.")
    show_examples(rows, merged, base)
    if share < MERGED_SHARE or base_share >= BASE_SHARE:
        wanted = f"la fusión al menos {MERGED_SHARE:.0%} y la base sola menos de {BASE_SHARE:.0%}"
        common.fail(f"No llega a lo pedido: {wanted}.")
    return 0


if __name__ == "__main__":
    common.run_script(main)
