"""Paso 2: funde el adapter LoRA con su modelo base y demuestra que la fusión es correcta.

Uso:     python 02_create_model_nurse.py
Lee:     modelo_chat/ (paso 1) y el mismo modelo base con que se entrenó.
Escribe: model_nurse_final/ con los pesos en fp16, el tokenizer, manifest.json y la ficha README.md.
Tarda:   menos de un minuto con TinyLlama en una CPU de 2 núcleos; pide unos 7 GB de memoria.
No hace: no entrena ni evalúa la calidad clínica de las respuestas.

La prueba compara los logits de preguntas fijas: fusionado (releído del disco) = base + adapter,
y fusionado distinto de la base. Si falla, termina con código 1 y no queda nada escrito.
"""

import argparse
import math
import shutil
from pathlib import Path
from typing import Any

import nurse_common as common
from nurse_engines import Base, encode_chat, environment, load_model, load_tokenizer, resolve_base

STAGE_1 = "01_train_lora.py"
RUN_KEYS = ("base_model", "dataset_sha256", "records", "metrics", "seed", "adapter_sha256")
# Redondear los pesos a fp16 (2^-11 relativo por peso) mueve los logits del orden de 0,001
# desviaciones típicas; un adapter mal fundido los mueve décimas.
MERGE_TOLERANCE = 0.02  # desviaciones típicas de los logits
EFFECT_MARGIN = 2  # si el adapter mueve menos que el doble del redondeo, se ha perdido al guardar


def load_stage(folder: Path) -> dict[str, Any]:
    """`run.json` del paso 1, con la etapa comprobada."""
    files = ("run.json", "adapter_config.json", "adapter_model.safetensors", "tokenizer.model")
    common.require_stage(folder, files, STAGE_1)
    run = common.read_json(folder / "run.json", STAGE_1)
    missing = ", ".join(key for key in RUN_KEYS if key not in run)
    if missing:
        common.fail(f"A {folder / 'run.json'} le falta {missing}. Ejecutar: python {STAGE_1}")
    if run.get("prompt_sha256") != common.prompt_hash():
        common.fail(f"{folder} se entrenó con otro prompt. Ejecutar de nuevo: python {STAGE_1}")
    if run["adapter_sha256"] != common.sha256_file(folder / "adapter_model.safetensors"):
        common.fail(f"{folder} ha cambiado desde el paso 1. Ejecutar de nuevo: python {STAGE_1}")
    return run


def find_base(run: dict[str, Any], override: str | None) -> Base:
    """La base con que se entrenó; se rechaza otra aunque tenga el mismo nombre."""
    trained = run["base_model"]
    base = resolve_base(override or trained["name"])
    found = base.record()
    if found["sha256"] != trained["sha256"]:
        common.fail(
            f"El adapter se entrenó sobre «{trained['name']}» ({trained['sha256'][:12]}) y los "
            f"pesos de «{base.name}» son otros ({found['sha256'][:12]}). Usar la misma base con "
            f"--base-model, o entrenar de nuevo: python {STAGE_1} --base-model {base.name}"
        )
    return base


def probe_logits(model: Any, tokenizer: Any) -> Any:
    """Logits del último token del prompt de cada pregunta fija. (preguntas, vocabulario), fp32."""
    import torch

    rows = []
    for question in common.PROBE_QUESTIONS:
        messages = common.build_messages(question)
        ids = torch.tensor([encode_chat(tokenizer, messages, add_generation_prompt=True)])
        with torch.no_grad():
            rows.append(model(ids).logits[0, -1].float())
    return torch.stack(rows)


def merge(base: Base, adapter: Path, tokenizer: Any) -> tuple[Any, Any, Any]:
    """Funde en fp32 en la CPU. Devuelve (modelo, logits de la base, logits con el adapter)."""
    from peft import PeftModel

    model = load_model(base.path, "float32").eval()
    before = probe_logits(model, tokenizer)
    try:
        model = PeftModel.from_pretrained(model, adapter).eval()
    except (RuntimeError, ValueError, TypeError, KeyError) as error:
        reason = str(error).splitlines()[0][:120]
        common.fail(f"{adapter} está dañado ({reason}). Ejecutar de nuevo: python {STAGE_1}")
    with_adapter = probe_logits(model, tokenizer)
    return model.merge_and_unload(safe_merge=True), before, with_adapter


def prove_merge(folder: Path, tokenizer: Any, before: Any, with_adapter: Any) -> dict[str, Any]:
    """Relee lo escrito y lo compara. NurseError si no es el adapter o si no cambió la base."""
    merged = probe_logits(load_model(folder, "float32").eval(), tokenizer)
    scale = with_adapter.std().item()
    error = (merged - with_adapter).abs().max().item() / scale
    effect = (merged - before).abs().max().item() / scale
    proof = {
        "questions": list(common.PROBE_QUESTIONS),
        "merged_vs_adapter": error,
        "merged_vs_base": effect,
        "tolerance": MERGE_TOLERANCE,
        "same_next_token": bool((merged.argmax(-1) == with_adapter.argmax(-1)).all()),
    }
    print(f"      Diferencia con el adapter: {error:.1e}; con la base: {effect:.1e}")
    if not math.isfinite(error) or error > MERGE_TOLERANCE:
        common.fail(
            f"La fusión no reproduce el adapter (diferencia {error:.3g}, máximo "
            f"{MERGE_TOLERANCE}). No se escribió nada. Ejecutar de nuevo: python {STAGE_1}"
        )
    if effect < EFFECT_MARGIN * error or effect == 0:
        common.fail(
            f"El adapter no cambia la base (diferencia {effect:.3g}). No se escribió nada. "
            f"Entrenar más: python {STAGE_1} --epochs 3"
        )
    return proof


def save_model(model: Any, tokenizer: Any, base: Base, folder: Path) -> None:
    """Pesos en fp16, configuración de generación de la práctica y tokenizer completo.

    fp16 conserva 3 bits más que bf16 del cambio que hizo LoRA, y toda GPU de nuestros usuarios
    lo ejecuta.
    """
    import torch

    model = model.to(torch.float16)
    model.generation_config.update(
        do_sample=True,
        temperature=common.TEMPERATURE,
        top_p=common.TOP_P,
        max_new_tokens=common.MAX_NEW_TOKENS,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model.generation_config.max_length = None
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    # transformers 5 no lo guarda y sin él un GGUF se partiría en otros tokens.
    shutil.copyfile(base.path / "tokenizer.model", folder / "tokenizer.model")
    if not (folder / "model.safetensors").is_file():
        common.fail(
            "El modelo no cupo en un solo model.safetensors; esta base es demasiado grande."
        )


def model_card(run: dict[str, Any], manifest: dict[str, Any]) -> str:
    """Ficha del modelo en español, con la cabecera que leen Hugging Face y LM Studio."""
    base, metrics, proof = run["base_model"], run["metrics"], manifest["merge_proof"]
    hub_line = f"base_model: {base['name']}\n" if base["name"] == common.BASE_MODEL else ""
    before, after = metrics["eval_loss_before"], metrics["eval_loss_after"]
    return f"""---
language: es
license: {manifest["license"]}
{hub_line}library_name: transformers
pipeline_tag: text-generation
tags: [primeros-auxilios, enfermeria, lora]
---

# TinyLlama Nurse

Asistente de primeros auxilios y enfermería universitaria en español: «{base["name"]}» ajustado con
LoRA y fundido en un solo modelo fp16.

**No sustituye al 112/911 ni a un profesional sanitario.** Un modelo pequeño se equivoca a veces;
en una urgencia, llamar primero.

## Uso previsto y límites

- Practicar y repasar primeros auxilios en clase; leer las respuestas junto a los registros.
- No diagnostica, no receta, no da dosis y no sirve para decidir sobre una persona real.
- Solo español. Fuera de los 36 temas de los registros, lo que diga no está comprobado.

## Cómo usarlo

```
python 04_chat_nurse.py --model model_nurse_final
```

El prompt es la plantilla de chat del tokenizer: «{common.SYSTEM_PROMPT}», turnos `Usuario:` y
`Enfermero:`, fin de respuesta `</s>`. Cualquier programa que la respete pregunta igual que se
entrenó.

## Datos y entrenamiento

| dato | valor |
|---|---|
| registros (CC BY 4.0) | {run["records"]["train"]} entrenados, {run["records"]["held_out"]} \
apartados |
| SHA-256 de los registros | `{run["dataset_sha256"]}` |
| base | {base["name"]}, revisión {base["revision"] or "local"} |
| LoRA | r={run["lora_r"]}, alpha={run["lora_alpha"]}, capas {run["target_modules"]} |
| semilla | {run["seed"]} |
| pérdida en los apartados, antes → después | {before:.3f} → {after:.3f} |
| fusión: diferencia con el adapter / con la base | {proof["merged_vs_adapter"]:.1e} / \
{proof["merged_vs_base"]:.1e} (desviaciones típicas de los logits) |

Las fuentes clínicas, el reparto por temas y los límites de los datos están en `DATOS.md` del
proyecto. `manifest.json` guarda versiones, parámetros y hashes.
"""


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = common.SpanishParser(__doc__)
    default = " (por defecto: %(default)s)"
    parser.add("--adapter", type=Path, default=common.ADAPTER_DIR, help="etapa 1" + default)
    parser.add(
        "--output", type=Path, default=common.MODEL_DIR, help="carpeta que se crea" + default
    )
    parser.add("--base-model", help="dónde está la base, si cambió de sitio desde el paso 1")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    common.require_own(args.output, "manifest.json")
    run = load_stage(args.adapter)
    base = find_base(run, args.base_model)
    tokenizer = load_tokenizer(args.adapter, STAGE_1)
    print(f"[1/3] Base {base.name} (la misma del entrenamiento). Fusión en fp32, en la CPU.")
    model, before, with_adapter = merge(base, args.adapter, tokenizer)
    with common.staged(args.output, folder=True) as folder:
        save_model(model, tokenizer, base, folder)
        del model  # libera la memoria antes de releer lo escrito
        print("[2/3] Comprobación con preguntas fijas, releyendo lo escrito.")
        manifest = run | {
            "license": license_of(base),
            "weights_sha256": common.sha256_file(folder / "model.safetensors"),
            "merge_proof": prove_merge(folder, tokenizer, before, with_adapter),
            "merge_environment": environment(),
        }
        (folder / "README.md").write_text(model_card(run, manifest), encoding="utf-8")
        common.write_json(folder / "manifest.json", manifest)
    print(f"[3/3] Guardado en {args.output}. Siguiente: python 03_export_model_nurse.py")
    return 0


def license_of(base: Base) -> str:
    """TinyLlama es Apache-2.0; la base incluida es del proyecto (MIT); otra, la que tenga."""
    return {common.BASE_MODEL: "apache-2.0", "mini": "mit"}.get(base.name, "other")


if __name__ == "__main__":
    common.run_script(main)
