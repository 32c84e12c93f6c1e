"""El formato GGUF: escribir el modelo y demostrar, releyéndolo, que es fiel.

La escritura usa el paquete `gguf` (el de llama.cpp) y pasa los tensores de uno en uno, así
que la memoria no depende del tamaño del modelo.
"""

import math
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from nurse_common import BASE_MODEL, fail, read_json

from .gguf_header import WEIGHTS_FIELD

STAGE_2 = "02_create_model_nurse.py"
GGUF_TYPES = ("f16", "q8_0", "q4_0")
SLICE = 2**19  # pesos por trozo de cálculo: 2 MB en float32
BLOCK = 32  # pesos que comparten una escala en Q8_0 y Q4_0
# Error máximo por peso, como parte del mayor peso de su bloque: medio paso (uno entero en el lado
# corto de Q4_0) más el redondeo de la escala a fp16 (2^-11). f16 y f32 guardan el peso exacto.
ERROR_BOUNDS = {"Q8_0": (0.5 + 127 * 2**-11) / 127, "Q4_0": (1 + 8 * 2**-11) / 8}
SMALLEST_STEP = 128 * 2**-25  # error de una escala fp16 subnormal, por el mayor entero


class Tensor(NamedTuple):
    """Un tensor del modelo y cómo se guarda en el GGUF."""

    source: str  # nombre en model.safetensors
    name: str  # nombre en el GGUF
    shape: tuple[int, ...]
    kind: Any  # gguf.GGMLQuantizationType
    stored_shape: tuple[int, ...]  # en bytes, con las escalas de cada bloque
    heads: int  # cabezas que se reordenan; 0 en casi todos

    @property
    def size(self) -> int:
        return math.prod(self.stored_shape)


def plan_tensors(folder: Path, config: dict[str, Any], gguf_type: str) -> list[Tensor]:
    """Qué tensores hay y con qué nombre y tipo se guardan. Las normas van en f32."""
    import gguf
    from safetensors import safe_open

    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config["num_hidden_layers"])
    heads = {"q_proj": config["num_attention_heads"], "k_proj": _kv_heads(config)}
    plan = []
    with safe_open(folder / "model.safetensors", "numpy") as weights:
        for key in weights.keys():  # noqa: SIM118 (no es un dict)
            part = weights.get_slice(key)
            shape, name = tuple(part.get_shape()), names.get_name(key, (".weight",))
            if name is None or part.get_dtype() != "F16":
                fail(f"model.safetensors: «{key}» no es de un Llama en fp16. {_redo()}")
            kind = _kind_of(name, shape, gguf_type)
            stored = gguf.quant_shape_to_byte_shape(shape, kind)
            layer = key.split(".")[-2]
            plan.append(Tensor(key, name, shape, kind, stored, heads.get(layer, 0)))
    return plan


def _kind_of(name: str, shape: tuple[int, ...], gguf_type: str) -> Any:
    import gguf

    kinds = gguf.GGMLQuantizationType
    if len(shape) == 1:
        return kinds.F32
    if shape[-1] % BLOCK:
        return kinds.F16  # la fila no se divide en bloques
    if gguf_type == "q4_0" and name in ("output.weight", "token_embd.weight"):
        return kinds.Q8_0  # con 4 bits son las capas que más se estropean
    return kinds[gguf_type.upper()]


def _kv_heads(config: dict[str, Any]) -> int:
    return config.get("num_key_value_heads") or config["num_attention_heads"]


def _redo() -> str:
    return f"Ejecutar de nuevo: python {STAGE_2}"


def load_tensor(weights: Path, tensor: Tensor) -> Any:
    """Un tensor en float16, con q y k en el orden de llama.cpp (RoPE por parejas contiguas)."""
    from safetensors import safe_open

    # Se abre por tensor: así las páginas ya leídas del archivo no se acumulan en la memoria.
    with safe_open(weights, "numpy") as source:
        data = source.get_tensor(tensor.source)
    if tensor.heads:
        rows, columns = data.shape
        halves = data.reshape(tensor.heads, 2, rows // tensor.heads // 2, columns)
        data = halves.swapaxes(1, 2).reshape(rows, columns)
    return data


def write_gguf(
    target: Path,
    folder: Path,
    plan: list[Tensor],
    gguf_type: str,
    manifest: dict[str, Any],
    advance: Callable[[int], Any],
) -> dict[str, Any]:
    """Escribe el GGUF y devuelve los metadatos escritos. `advance` recibe bytes según avanza."""
    import gguf
    import numpy as np

    writer = gguf.GGUFWriter(target, "llama")
    config = read_json(folder / "config.json", STAGE_2)
    writer.add_file_type(gguf.LlamaFileType[f"MOSTLY_{gguf_type.upper()}"])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    describe_model(writer, config, manifest)
    describe_vocabulary(writer, folder, config["vocab_size"])
    for tensor in plan:
        shape, kind = tensor.stored_shape, tensor.kind
        writer.add_tensor_info(tensor.name, shape, np.dtype("uint8"), tensor.size, kind)
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for tensor in plan:
            data = load_tensor(folder / "model.safetensors", tensor)
            writer.write_tensor_data(quantize(data, tensor.kind))
            advance(tensor.size)
    except OSError as error:
        if error.errno is None:  # numpy: «N requested and M written», sin código
            fail(f"{target.name}: no queda espacio; liberar sitio y repetir.")
        raise
    finally:
        writer.close()
    return {key: field.value for key, field in writer.kv_data[0].items()}


def describe_model(writer: Any, config: dict[str, Any], manifest: dict[str, Any]) -> None:
    """Identidad (antes que las listas: 04 la lee en milisegundos) y arquitectura."""
    base, heads = manifest["base_model"], config["num_attention_heads"]
    head_size = config.get("head_dim") or config["hidden_size"] // heads
    rope = config.get("rope_parameters") or {"rope_theta": config.get("rope_theta", 10000.0)}
    if rope.get("rope_type", "default") != "default" or config.get("attention_bias"):
        fail("config.json: este Llama (RoPE escalado o sesgos) no se puede pasar a GGUF.")
    writer.add_base_model_count(1)
    writer.add_base_model_name(0, base["name"])
    writer.add_string("nurse.prompt_sha256", manifest["prompt_sha256"])
    writer.add_string(WEIGHTS_FIELD, manifest["weights_sha256"])
    writer.add_type("model")
    writer.add_name("TinyLlama Nurse")
    writer.add_description("Asistente de primeros auxilios en español. No sustituye al 112/911.")
    writer.add_license(manifest["license"])
    writer.add_languages(["es"])
    writer.add_base_model_version(0, base["revision"] or base["sha256"])
    if base["name"] == BASE_MODEL:
        writer.add_base_model_repo_url(0, f"https://huggingface.co/{BASE_MODEL}")
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(_kv_heads(config))
    writer.add_key_length(head_size)
    writer.add_value_length(head_size)
    writer.add_rope_dimension_count(head_size)
    writer.add_rope_freq_base(float(rope["rope_theta"]))
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])


def describe_vocabulary(writer: Any, folder: Path, size: int) -> None:
    """Vocabulario con las puntuaciones de `tokenizer.model`.

    llama.cpp une trozos por puntuación: con puntuaciones planas (todo lo que se puede sacar de
    `tokenizer.json`) partiría el texto de otra manera que en el entrenamiento, sin ningún error.
    """
    import gguf

    vocabulary = gguf.SentencePieceVocab(folder)
    rows = list(vocabulary.all_tokens())
    rows += [  # filas de relleno que el modelo tenga de más
        (f"[PAD{index}]".encode(), -1000.0, gguf.TokenType.UNUSED)
        for index in range(len(rows), size)
    ]
    if len(rows) != size:
        fail(f"tokenizer.model tiene {len(rows)} tokens y el modelo {size}. {_redo()}")
    tokens, scores, kinds = zip(*rows, strict=True)
    pieces = vocabulary.sentencepiece_tokenizer
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_scores(scores)
    writer.add_token_types(kinds)
    writer.add_bos_token_id(pieces.bos_id())
    writer.add_eos_token_id(pieces.eos_id())
    writer.add_unk_token_id(pieces.unk_id())
    writer.add_pad_token_id(pieces.eos_id())  # como TinyLlama
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(True)
    writer.add_chat_template((folder / "chat_template.jinja").read_text(encoding="utf-8"))


def verify_gguf(
    path: Path, weights: Path, plan: list[Tensor], fields: dict[str, Any], advance: Any
) -> float:
    """Relee el archivo y lo compara con el modelo. Devuelve el peor error / error teórico."""
    import gguf
    import numpy as np

    reader = gguf.GGUFReader(path)
    for key, value in fields.items():
        found = reader.get_field(key)
        if found is None or not _same(found.contents(), value):
            fail(f"{path.name}: el metadato {key} no se relee igual. Repetir el paso.")
    stored = {item.name: item for item in reader.tensors}
    worst = 0.0
    for tensor in plan:
        item = stored.pop(tensor.name, None)
        if item is None or (tuple(item.shape[::-1]), item.tensor_type) != tensor[2:4]:
            fail(f"{path.name}: falta {tensor.name} o cambió de forma. Repetir el paso.")
        raw = np.fromfile(path, np.uint8, tensor.size, offset=int(item.data_offset))
        error = quantization_error(raw, tensor, load_tensor(weights, tensor))
        if not error <= 1:
            fail(f"{path.name}: {tensor.name} no coincide con el modelo. Repetir el paso.")
        worst = max(worst, error)
        advance(tensor.size)
    if stored:
        fail(f"{path.name}: sobran tensores ({', '.join(stored)}). Repetir el paso.")
    return worst


def _same(found: Any, written: Any) -> bool:
    """Igualdad salvo que GGUF guarda texto en UTF-8 y reales en 32 bits."""
    if isinstance(written, tuple | list):
        return len(found) == len(written) and all(map(_same, found, written))
    if isinstance(written, bytes):
        return found == written.decode()
    if isinstance(written, float):
        return struct.pack("<f", found) == struct.pack("<f", written)
    return found == written


def _slices(rows: Any, weights: int) -> list[Any]:
    """Filas en trozos que caben en la caché de la CPU: al doble de velocidad y con poca memoria."""
    import numpy as np

    return np.array_split(rows, max(1, min(len(rows), weights // SLICE)))


def quantize(data: Any, kind: Any) -> Any:
    """Bytes del tensor en el tipo `kind`, con todos los núcleos (numpy suelta el GIL)."""
    import gguf
    import numpy as np

    def convert(part: Any) -> Any:
        return gguf.quantize(part.astype(np.float32), kind).view(np.uint8)

    with ThreadPoolExecutor() as pool:
        return np.concatenate(list(pool.map(convert, _slices(data, data.size))))


def quantization_error(raw: Any, tensor: Tensor, original: Any) -> float:
    """Mayor error de un peso, en partes del máximo teórico de su bloque."""
    stored = _slices(raw.reshape(tensor.stored_shape), original.size)
    kinds = [tensor.kind] * len(stored)
    with ThreadPoolExecutor() as pool:
        return max(pool.map(_slice_error, stored, _slices(original, original.size), kinds))


def _slice_error(raw: Any, original: Any, kind: Any) -> float:
    import gguf
    import numpy as np

    original = original.astype(np.float32)
    values = gguf.dequantize(raw, kind)
    if kind.name not in ERROR_BOUNDS:
        return 0.0 if np.array_equal(values, original) else math.inf
    error = np.abs(values - original).reshape(-1, BLOCK).max(axis=1)
    largest = np.abs(original).reshape(-1, BLOCK).max(axis=1)
    return float((error / (largest * ERROR_BOUNDS[kind.name] + SMALLEST_STEP)).max())
