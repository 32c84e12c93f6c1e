"""Paso 3: empaqueta el modelo para compartirlo y lo convierte a GGUF para conversar rápido en CPU.

Uso:     python 03_export_model_nurse.py
         python 03_export_model_nurse.py --only gguf --gguf-type q4_0
Lee:     model_nurse_final/ (paso 2) y, para la prueba, los registros.
Escribe: model_nurse_final.zip y .zip.sha256; model_nurse_final.gguf y Modelfile (para Ollama).
Tarda:   con TinyLlama en una CPU de 2 núcleos, unos 15 s el zip y unos 45 s el GGUF.
No hace: no publica nada y no cambia model_nurse_final/.

El GGUF sirve para llama.cpp, Ollama, LM Studio y el paso 4. Los tensores pasan de uno en uno, así
que no hace falta memoria para el modelo entero. Todo lo escrito se relee y se compara.
"""

import argparse
import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nurse_common as common
from nurse_engines import fast_zip, gguf_file

STAGE_2 = "02_create_model_nurse.py"
STAGE_FILES = ("model.safetensors", "config.json", "manifest.json", "chat_template.jinja")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model")
VOCABULARY_ROOM = 2**23  # bytes del GGUF que no son tensores, de sobra
PROBE_LIMIT = 2**29  # bytes de pesos; con más, cargarlos también en torch pediría varios GB
PROBE_TOKENS = 40
BOS, EOS = "<s>", "</s>"  # los de Llama-2
# Plantilla Go de Ollama: el mismo prompt que CHAT_TEMPLATE. Sin `<s>`, que pone Ollama. Ollama
# guarda las respuestas con el espacio inicial y otros clientes sin él: aquí siempre queda uno.
OLLAMA_TEMPLATE = (
    "{{ .System }}{{ range .Messages }}"
    '{{ if eq .Role "user" }}\nUsuario: {{ .Content }}'
    '{{ else if eq .Role "assistant" }}\nEnfermero:'
    '{{ if ne (printf "%.1s" .Content) " " }} {{ end }}{{ .Content }}</s>'
    "{{ end }}{{ end }}\nEnfermero:"
)


def check_weights(folder: Path, manifest: dict[str, Any]) -> None:
    """Falla si los pesos del paso 2 no son los que dice su `manifest.json`."""
    weights = folder / "model.safetensors"
    if manifest.get("weights_sha256") != common.sha256_file(weights):
        common.fail(
            f"{weights} está incompleto o no es el de manifest.json. "
            f"Ejecutar de nuevo: python {STAGE_2}"
        )


def require_space(target: Path, needed: int) -> None:
    """Falla antes de empezar si `needed` bytes no caben junto a `target`."""
    free = shutil.disk_usage(target.parent).free
    if free < needed:
        common.fail(
            f"No hay espacio para {target.name}: hacen falta {needed / 1e6:.0f} MB y "
            f"quedan {free / 1e6:.0f} en {target.parent}. Liberar sitio y repetir."
        )


def progress(text: str, total: int) -> Any:
    from tqdm import tqdm

    bytes_done = {"unit": "B", "unit_scale": True, "unit_divisor": 1000}
    return tqdm(desc=text, total=total, disable=None, **bytes_done)  # solo en una terminal


def export_zip(folder: Path, checked: Future[None]) -> None:
    """Escribe y comprueba el zip y su `.sha256`. La carpeta va dentro, con su nombre."""
    archive = folder.with_name(f"{folder.name}.zip")
    checksum = folder.with_name(f"{archive.name}.sha256")
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    total = sum(file.stat().st_size for file in files)
    require_space(archive, total)
    with common.staged(archive) as partial, common.staged(checksum) as partial_checksum:
        with progress("      comprime", total) as bar:
            blocks = fast_zip.write_zip(folder, files, partial, bar.update)
        checked.result()
        with progress("      comprueba", total) as bar, ThreadPoolExecutor(1) as pool:
            digest = pool.submit(common.sha256_file, partial)
            if not fast_zip.verify_zip(partial, folder, blocks, bar.update):
                common.fail(f"{archive.name} no coincide con {folder.name}/ al releerlo. Repetir.")
        size = partial.stat().st_size
        text = f"{digest.result()}  {archive.name}\n"  # formato de `sha256sum -c`
        partial_checksum.write_text(text, encoding="utf-8", newline="\n")
    print(f"      {archive.name}: {size / 1e6:.1f} MB, {size / total:.0%} de la carpeta.")


def export_gguf(folder: Path, manifest: dict[str, Any], gguf_type: str) -> None:
    """Escribe el GGUF y el Modelfile, y demuestra que son fieles al modelo."""
    target = folder.with_name(f"{folder.name}.gguf")
    weights = folder / "model.safetensors"
    config = common.read_json(folder / "config.json", STAGE_2)
    plan = gguf_file.plan_tensors(folder, config, gguf_type)
    total = sum(tensor.size for tensor in plan)
    require_space(target, total + VOCABULARY_ROOM)
    with common.staged(target) as partial:
        with progress("escribe", total) as bar:
            written = gguf_file.write_gguf(partial, folder, plan, gguf_type, manifest, bar.update)
        with progress("comprueba", total) as bar:
            worst = gguf_file.verify_gguf(partial, weights, plan, written, bar.update)
        print(f"      {target.name}: {partial.stat().st_size / 1e6:.1f} MB, {gguf_type}.")
        print(f"      Releído: {len(plan)} tensores, error {worst:.0%} del máximo teórico.")
        prove_text(partial, folder)
    with common.staged(folder.with_name("Modelfile")) as partial:
        text = render_modelfile(target.name, config["max_position_embeddings"], manifest)
        partial.write_text(text, encoding="utf-8", newline="\n")
    print("      Modelfile: para Ollama, «ollama create nurse -f Modelfile».")


def prove_text(path: Path, folder: Path) -> None:
    """El GGUF parte el texto en los mismos tokens que el entrenamiento y responde lo mismo."""
    from nurse_engines import LlamaCppEngine

    chats = [common.build_messages(question) for question in common.PROBE_QUESTIONS]
    if common.DATA_FILE.is_file():
        rows, _ = common.load_records(common.DATA_FILE)
        chats += [common.build_messages(common.question_of(row), row["output"]) for row in rows]
    texts = [render_chat(folder, chat, len(chat) == 1) for chat in chats]
    try:
        engine = LlamaCppEngine(path)
    except common.NurseError as error:
        print(f"      Respuestas sin comparar: {error}")
        engine, found = None, sentencepiece_ids(folder, texts)
    else:
        found = [engine.encode(chat, len(chat) == 1) for chat in chats]
    wrong = sum(a != b for a, b in zip(found, training_ids(folder, texts), strict=True))
    if wrong:
        common.fail(f"El GGUF parte {wrong} de {len(chats)} textos en otros tokens. No se guardó.")
    print(f"      Mismos tokens que en el entrenamiento: {len(chats)} de {len(chats)} textos.")
    if engine:
        compare_answers(engine, folder)


def render_chat(folder: Path, chat: list[common.Message], generate: bool) -> str:
    """Texto de la conversación según la plantilla, con `<s>` y `</s>`, sin importar torch."""
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    source = (folder / "chat_template.jinja").read_text(encoding="utf-8")
    template = ImmutableSandboxedEnvironment().from_string(source)
    names = {"bos_token": BOS, "eos_token": EOS, "add_generation_prompt": generate}
    return template.render(messages=chat, **names)


def training_ids(folder: Path, texts: list[str]) -> list[list[int]]:
    """Los tokens del entrenamiento: `tokenizer.json`, que es lo que usa transformers por dentro."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    return [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]


def sentencepiece_ids(folder: Path, texts: list[str]) -> list[list[int]]:
    """Sin llama.cpp: los tokens de `tokenizer.model`, cuyas puntuaciones ya se releyeron."""
    from sentencepiece import SentencePieceProcessor

    pieces = SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    bodies = pieces.encode([text.removeprefix(BOS).removesuffix(EOS) for text in texts])
    ends = [[pieces.eos_id()] * text.endswith(EOS) for text in texts]
    return [[pieces.bos_id(), *body, *end] for body, end in zip(bodies, ends, strict=True)]


def compare_answers(engine: Any, folder: Path) -> None:
    """Compara el principio de las respuestas greedy del GGUF y de transformers.

    Cuantizado, alguna puede cambiar de palabra; en f16 deben ser las mismas.
    """
    from nurse_engines import Sampling, TransformersEngine

    if (folder / "model.safetensors").stat().st_size > PROBE_LIMIT:
        print("      Respuestas sin comparar: el modelo ya no cabe dos veces en poca memoria.")
        return
    reference = TransformersEngine(folder, "cpu", "float32", STAGE_2)
    greedy = Sampling(temperature=0, max_new_tokens=PROBE_TOKENS)
    same = 0
    for question in common.PROBE_QUESTIONS:
        chat = common.build_messages(question)
        # Solo letras y cifras: un byte que no forma letra lo muestra cada motor a su manera.
        first, second = (
            [char for piece in source.stream(chat, greedy) for char in piece if char.isalnum()]
            for source in (engine, reference)
        )
        same += first == second
    total = len(common.PROBE_QUESTIONS)
    print(f"      Respuestas greedy iguales a transformers: {same} de {total}.")


def render_modelfile(gguf: str, context: int, manifest: dict[str, Any]) -> str:
    """Receta de Ollama: el prompt, las paradas y el muestreo del proyecto."""
    return f'''FROM ./{gguf}
TEMPLATE """{OLLAMA_TEMPLATE}"""
SYSTEM """{common.SYSTEM_PROMPT}"""
PARAMETER stop "</s>"
PARAMETER stop "{common.STOP_TEXT.strip()}"
PARAMETER num_ctx {context}
PARAMETER num_predict {common.MAX_NEW_TOKENS}
PARAMETER temperature {common.TEMPERATURE}
PARAMETER top_p {common.TOP_P}
PARAMETER top_k 0
PARAMETER min_p 0
PARAMETER repeat_penalty 1
LICENSE """{manifest["license"]}"""
'''


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = common.SpanishParser(__doc__)
    default = " (por defecto: %(default)s)"
    parser.add("--model", type=Path, default=common.MODEL_DIR, help="carpeta del paso 2" + default)
    parser.add("--only", choices=("zip", "gguf"), help="escribe solo eso (por defecto, los dos)")
    types = "f16: exacto; q8_0: casi exacto, la mitad; q4_0: el más rápido, menos fiel" + default
    parser.add("--gguf-type", choices=gguf_file.GGUF_TYPES, default="q8_0", help=types)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    folder = args.model.resolve()
    common.require_stage(folder, STAGE_FILES + TOKENIZER_FILES, STAGE_2)
    manifest = common.read_json(folder / "manifest.json", STAGE_2)
    with ThreadPoolExecutor(1) as pool:
        checked = pool.submit(check_weights, folder, manifest)  # mientras se comprime
        if args.only != "gguf":
            print("[1/2] Zip para compartir")
            export_zip(folder, checked)
        checked.result()
    if args.only != "zip":
        print("[2/2] GGUF para llama.cpp, Ollama, LM Studio y el chat en CPU")
        export_gguf(folder, manifest, args.gguf_type)
    print(f"Guardado en {folder.parent}. Siguiente: python 04_chat_nurse.py")
    return 0


if __name__ == "__main__":
    common.run_script(main)
