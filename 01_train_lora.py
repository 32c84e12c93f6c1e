"""Paso 1: ajusta TinyLlama con LoRA sobre los registros de primeros auxilios.

Uso:     python 01_train_lora.py
         python 01_train_lora.py --base-model mini      (demostración, sin descarga)
         python 01_train_lora.py --resume               (continúa tras Ctrl-C o un corte)
Lee:     primeros_auxilios_500.jsonl y el modelo base (del hub, de una carpeta o «mini»).
Escribe: modelo_chat/ con el adapter, el tokenizer, run.json y loss.png.
Tarda:   minutos con GPU; del orden de una hora con TinyLlama en una CPU de 2 núcleos.
No hace: no cambia el modelo base, no recorta registros largos y no publica nada.
"""

import argparse
import math
import random
import signal
from pathlib import Path
from typing import Any

import nurse_common as common
from nurse_engines import Base, encode_chat, environment, load_model, load_tokenizer, resolve_base

LABEL_IGNORED = -100  # PyTorch no cuenta estas posiciones en la pérdida
SAVE_STEPS, LOG_STEPS = 25, 5  # cada cuántos pasos hay punto de control y punto de la curva
CHOICES = {
    "--scheduler": ("cosine", "linear", "constant"),
    "--lora-bias": ("none", "all", "lora_only"),
}


def split_by_question(rows: list[Any], fraction: float, seed: int) -> tuple[list[Any], list[Any]]:
    """Aparta `fraction` de las preguntas (ya únicas tras `load_records`), al menos una."""
    if len(rows) < 2:
        common.fail("Hacen falta dos registros: uno para entrenar y otro para evaluar.")
    held_out = min(max(round(len(rows) * fraction), 1), len(rows) - 1)
    chosen = set(random.Random(seed).sample(range(len(rows)), held_out))
    train = [row for index, row in enumerate(rows) if index not in chosen]
    return train, [rows[index] for index in sorted(chosen)]


def encode_record(tokenizer: Any, row: common.Record) -> dict[str, list[int]]:
    """Ids y etiquetas de un registro: solo se supervisan la respuesta y `</s>`.

    La máscara es por posición (longitud del prompt), nunca por id: en TinyLlama el relleno es
    el propio `</s>` y enmascararlo por id enseñaría a no parar nunca.
    """
    messages = common.build_messages(common.question_of(row), row["output"])
    prompt = encode_chat(tokenizer, messages[:1], add_generation_prompt=True)
    ids = encode_chat(tokenizer, messages, add_generation_prompt=False)
    if ids[: len(prompt)] != prompt or ids[-1] != tokenizer.eos_token_id:
        common.fail(f"Línea {row['line']}: este tokenizer no admite la plantilla del proyecto.")
    return {"input_ids": ids, "labels": [LABEL_IGNORED] * len(prompt) + ids[len(prompt) :]}


def encode_all(tokenizer: Any, rows: list[common.Record], limit: int, source: Path) -> Any:
    """`datasets.Dataset` con los registros en ids. Un registro largo se nombra, no se recorta."""
    from datasets import Dataset

    encoded = [encode_record(tokenizer, row) for row in rows]
    sizes = [(row["line"], len(item["input_ids"])) for row, item in zip(rows, encoded, strict=True)]
    long = [f"línea {line} ({size})" for line, size in sizes if size > limit]
    if long:
        shown = ", ".join(long[:5]) + (f" y {len(long) - 5} más" if len(long) > 5 else "")
        common.fail(f"{source.name}: más de {limit} tokens: {shown}. Acortar o usar --max-length.")
    return Dataset.from_list(encoded)


def show_example(tokenizer: Any, item: dict[str, list[int]]) -> dict[str, Any]:
    """Imprime un registro tal como lo ve el modelo, con lo que aprende entre « »."""
    start = item["labels"].count(LABEL_IGNORED)
    prompt = tokenizer.decode(item["input_ids"][:start])
    answer = tokenizer.decode(item["input_ids"])[len(prompt) :]
    size = len(item["input_ids"])
    print(f"Ejemplo ({size} tokens; aprende los {size - start} entre « »):")
    print("  " + f"{prompt}«{answer}»".replace("\n", "\n  "))
    return {"prompt": prompt, "supervised": answer, "supervised_tokens": size - start}


def add_lora(model: Any, args: argparse.Namespace, base: Base) -> Any:
    """Congela la base y le añade las matrices LoRA en float32."""
    from peft import LoraConfig, get_peft_model
    from transformers import set_seed

    set_seed(args.seed)
    layers = args.target_modules.split(",")
    if not {name.rpartition(".")[2] for name, _ in model.named_modules()}.issuperset(layers):
        common.fail(f"--target-modules: la base {base.name} no tiene todas las capas {layers}.")
    size = {"r": args.lora_r, "lora_alpha": args.lora_alpha, "lora_dropout": args.lora_dropout}
    config = LoraConfig(**size, target_modules=layers, bias=args.lora_bias, task_type="CAUSAL_LM")
    return get_peft_model(model, config)


def held_out_loss(model: Any, dataset: Any, batch_size: int, when: str) -> float:
    """Pérdida media por token supervisado (nats) en los registros apartados."""
    import torch
    from transformers import DataCollatorWithFlattening

    collate = DataCollatorWithFlattening()
    total, tokens = 0.0, 0
    model.eval()
    for batch in torch.utils.data.DataLoader(dataset, batch_size, collate_fn=collate):
        batch = {name: tensor.to(model.device) for name, tensor in batch.items()}
        with torch.no_grad():
            # use_cache=False: con caché no se aplica la máscara entre registros contiguos.
            loss = model(**batch, use_cache=False).loss.item()
        count = int((batch["labels"] != LABEL_IGNORED).sum())
        total, tokens = total + loss * count, tokens + count
    print(f"      {when}: pérdida {total / tokens:.3f}, perplejidad {math.exp(total / tokens):.1f}")
    return total / tokens


def build_trainer(model: Any, data: Any, dtype: str, args: Any, out: Path, bar: Any) -> Any:
    """`Trainer` sin relleno: los registros de un lote van seguidos, sin verse entre sí.

    La pérdida es la misma que con relleno, sin calcular los ~48 tokens vacíos por registro.
    """
    from transformers import DataCollatorWithFlattening, PrinterCallback, Trainer, TrainingArguments

    settings = TrainingArguments(
        output_dir=str(out),
        per_device_train_batch_size=args.batch_size,
        gradient_accumulation_steps=args.grad_accum,
        num_train_epochs=args.epochs,
        max_steps=args.max_steps or -1,
        learning_rate=args.learning_rate,
        lr_scheduler_type=args.scheduler,
        warmup_steps=args.warmup,
        bf16=dtype == "bfloat16",
        fp16=dtype == "float16",
        use_cpu=model.device.type == "cpu",
        dataloader_pin_memory=model.device.type == "cuda",
        logging_steps=LOG_STEPS,
        logging_first_step=True,
        save_steps=SAVE_STEPS,
        seed=args.seed,
        disable_tqdm=True,
    )
    trainer = Trainer(model, settings, DataCollatorWithFlattening(), data, callbacks=[bar])
    trainer.remove_callback(PrinterCallback)  # escribe en inglés; ya está la barra propia
    return trainer


def progress_callback() -> Any:
    """Barra con tiempo restante; con Ctrl-C guarda un punto de control y para."""
    from tqdm import tqdm
    from transformers import TrainerCallback

    class Progress(TrainerCallback):
        interrupted = False

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.bar = tqdm(total=state.max_steps, initial=state.global_step, unit="paso")
            self.previous = signal.signal(signal.SIGINT, self.on_interrupt)

        def on_interrupt(self, *_: Any) -> None:
            self.interrupted = True
            signal.signal(signal.SIGINT, self.previous)  # el segundo Ctrl-C corta en el acto
            self.bar.write("Ctrl-C: se guarda un punto de control al terminar este paso.")

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.bar.update(state.global_step - self.bar.n)
            losses = [item["loss"] for item in state.log_history if "loss" in item]
            self.bar.set_postfix_str(f"pérdida {losses[-1]:.3f}" if losses else "")
            if self.interrupted:
                control.should_save = control.should_training_stop = True

        def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.bar.close()
            signal.signal(signal.SIGINT, self.previous)

    return Progress()


def prepare_checkpoints(args: argparse.Namespace, base: Base) -> tuple[Path, dict[str, Any]]:
    """Carpeta de puntos de control y plan; solo se reanuda el mismo entrenamiento."""
    plan = {k: v for k, v in vars(args).items() if k not in ("output", "resume", "data")}
    plan |= {"base_model": base.record(), "dataset_sha256": common.sha256_file(args.data)}
    folder = args.output.with_name(f"{args.output.name}_checkpoints")
    for checkpoint in folder.glob("checkpoint-*"):
        if not (checkpoint / "trainer_state.json").is_file():  # lo último que se escribe
            common.discard(checkpoint)  # un corte lo dejó a medias
    started = any(folder.glob("checkpoint-*"))
    if args.resume and not started:
        common.fail(f"No hay nada que reanudar en {folder}. Ejecutar sin --resume.")
    if started and not args.resume:
        common.fail(f"Entrenamiento a medias en {folder}: seguir con --resume o borrar la carpeta.")
    if args.resume:
        saved = common.read_json(folder / "plan.json", "01_train_lora.py")
        changed = ", ".join(name for name in plan if saved.get(name) != plan[name])
        if changed:
            common.fail(f"No se puede reanudar {folder}: ha cambiado {changed}.")
    folder.mkdir(parents=True, exist_ok=True)
    common.write_json(folder / "plan.json", plan)
    return folder, plan


def plot_loss(log: list[Any], metrics: dict[str, float], file: Path) -> None:
    """Curva de pérdida: entrenamiento por paso y evaluación antes y después."""
    from matplotlib.figure import Figure

    figure = Figure(layout="constrained")  # sin pyplot no hace falta una ventana
    axes = figure.subplots()
    steps, losses = zip(*((i["step"], i["loss"]) for i in log if "loss" in i), strict=True)
    axes.plot(steps, losses, label="entrenamiento")
    held_out = [metrics["eval_loss_before"], metrics["eval_loss_after"]]
    axes.plot([0, steps[-1]], held_out, "o--", label="registros apartados")
    axes.set(xlabel="paso", ylabel="pérdida por token (nats)", title="Entrenamiento LoRA", ylim=0)
    axes.legend()
    figure.savefig(file)


def save_stage(output: Path, model: Any, tokenizer: Any, base: Base, run: Any, log: Any) -> None:
    """Escribe `modelo_chat/` completo o nada."""
    with common.staged(output, folder=True) as folder:
        # Durante el entrenamiento PEFT usa la ruta local; en otro equipo lo que sirve es el id.
        model.peft_config["default"].base_model_name_or_path = base.name
        model.peft_config["default"].revision = base.revision
        model.save_pretrained(folder, save_embedding_layers=False)  # True consultaría el hub
        common.discard(folder / "README.md")  # plantilla vacía de PEFT; la ficha la escribe 02
        tokenizer.save_pretrained(folder)
        (folder / "tokenizer.model").write_bytes((base.path / "tokenizer.model").read_bytes())
        plot_loss(log, run["metrics"], folder / "loss.png")
        run["adapter_sha256"] = common.sha256_file(folder / "adapter_model.safetensors")
        common.write_json(folder / "run.json", run)


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = common.SpanishParser(__doc__)
    whole, share = common.number(int, 1), common.number(float, 0, 1)
    for flag, kind, value, text in (
        ("--base-model", str, common.BASE_MODEL, "id del hub, carpeta o «mini»"),
        ("--data", Path, common.DATA_FILE, "registros JSONL"),
        ("--output", Path, common.ADAPTER_DIR, "carpeta que se crea"),
        ("--max-records", whole, 500, "registros como máximo"),
        ("--max-length", whole, common.MAX_LENGTH, "tokens por registro como máximo"),
        ("--eval-fraction", common.number(float, 0.01, 0.9), 0.1, "parte apartada para evaluar"),
        ("--epochs", common.number(float, 0.01), 1.0, "pasadas por los registros"),
        ("--max-steps", whole, None, "para tras estos pasos, aunque queden registros"),
        ("--batch-size", whole, 1, "registros en memoria a la vez"),
        ("--grad-accum", whole, 4, "lotes que se acumulan por paso"),
        ("--learning-rate", common.number(float, 0), 2e-4, "tasa de aprendizaje máxima"),
        ("--scheduler", str, "cosine", "forma de la tasa de aprendizaje"),
        ("--warmup", share, 0.03, "parte inicial en que sube la tasa"),
        ("--lora-r", whole, 8, "rango de las matrices LoRA"),
        ("--lora-alpha", whole, 16, "escala LoRA: alpha / r"),
        ("--lora-dropout", share, 0.05, "dropout a la entrada de LoRA"),
        ("--lora-bias", str, "none", "sesgos que se entrenan"),
        ("--target-modules", str, "q_proj,v_proj", "capas con LoRA, separadas por comas"),
        ("--seed", common.number(int, 0, 2**32 - 1), common.SEED, "semilla"),
    ):
        shown = "" if value is None else " (por defecto: %(default)s)"
        parser.add(flag, type=kind, default=value, choices=CHOICES.get(flag), help=text + shown)
    parser.add("--resume", action="store_true", help="continúa un entrenamiento interrumpido")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    common.require_own(args.output, "run.json")
    rows, warnings = common.load_records(args.data)
    print(*(f"Aviso: {text}\n" for text in warnings), sep="", end="")
    base = resolve_base(args.base_model)
    device, dtype, reason = common.pick_device()
    print(f"[1/4] Base: {base.name}. Cálculo: {device}, {dtype} ({reason}).")

    tokenizer = load_tokenizer(base.path)
    parts = split_by_question(rows[: args.max_records], args.eval_fraction, args.seed)
    train, held_out = (encode_all(tokenizer, part, args.max_length, args.data) for part in parts)
    print(f"[2/4] Registros: {len(train)} para entrenar, {len(held_out)} apartados para evaluar.")
    example = show_example(tokenizer, train[0])
    model = add_lora(load_model(base.path, dtype).to(device), args, base)
    checkpoints, plan = prepare_checkpoints(args, base)
    trainable, total = model.get_nb_trainable_parameters()
    print(f"[3/4] Se entrenan {trainable:,} de {total:,} parámetros ({trainable / total:.2%}).")
    before = held_out_loss(model, held_out, args.batch_size, "Apartados, antes")
    progress = progress_callback()
    trainer = build_trainer(model, train, dtype, args, checkpoints, progress)
    seconds = trainer.train(resume_from_checkpoint=args.resume).metrics["train_runtime"]
    if progress.interrupted:
        print(f"Detenido en el paso {trainer.state.global_step}. Para continuar: --resume")
        return 130
    after = held_out_loss(model, held_out, args.batch_size, "Apartados, después")

    run = plan | {
        "records": {"train": len(train), "held_out": len(held_out)},
        "trainable_parameters": trainable,
        "compute": {"device": device, "dtype": dtype, "reason": reason},
        "metrics": {"seconds": seconds, "eval_loss_before": before, "eval_loss_after": after},
        "prompt_sha256": common.prompt_hash(),
        "example": example,
        "environment": environment(),
    }
    save_stage(args.output, model, tokenizer, base, run, trainer.state.log_history)
    common.discard(checkpoints)
    print(f"[4/4] Guardado en {args.output}. Siguiente: python 02_create_model_nurse.py")
    return 0


if __name__ == "__main__":
    common.run_script(main)
