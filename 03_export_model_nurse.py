"""Paso 3: empaqueta el modelo para compartirlo y lo convierte a GGUF para conversar rápido en CPU.

Uso:     python 03_export_model_nurse.py
         python 03_export_model_nurse.py --only gguf --gguf-type q4_0
Lee:     model_nurse_final/ (paso 2) y, para la prueba, los registros.
Escribe: model_nurse_final.zip y .zip.sha256; model_nurse_final.gguf y Modelfile (para Ollama).
Tarda:   con TinyLlama en una CPU de 2 núcleos, unos 15 s el zip y unos 40 s el GGUF.
No hace: no publica nada y no cambia model_nurse_final/.

El GGUF sirve para llama.cpp, Ollama, LM Studio y el paso 4. Los tensores pasan de uno en uno, así
que no hace falta memoria para el modelo entero. Todo lo escrito se relee y se compara.
"""

from __future__ import annotations

import argparse
import functools
import shutil
import struct
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import nurse_common as common

STAGE_2 = "02_create_model_nurse.py"
STAGE_FILES = (
    "model.safetensors",
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer.model",
    "chat_template.jinja",
    "manifest.json",
)
CHUNK = 2**20  # bytes por lectura
ZIP_32_LIMIT = 2**32 - 2**24  # bytes; por debajo, el zip clásico que abre cualquier Windows
BLOCK = 32  # pesos que comparten una escala en Q8_0 y Q4_0
GGUF_TYPES = ("f16", "q8_0", "q4_0")
PROBE_LIMIT = 2**29  # bytes de pesos; más grande, cargarlo en torch pediría varios GB
PROBE_TOKENS = 40


def load_stage(folder: Path) -> dict[str, Any]:
    """`manifest.json` del paso 2, con los pesos comprobados contra su hash."""
    common.require_stage(folder, STAGE_FILES, STAGE_2)
    manifest = common.read_json(folder / "manifest.json", STAGE_2)
    weights = folder / "model.safetensors"
    if manifest.get("weights_sha256") != common.sha256_file(weights):
        common.fail(
            f"{weights} está incompleto o no es el de manifest.json. "
            f"Ejecutar de nuevo: python {STAGE_2}"
        )
    return manifest


def require_space(target: Path, needed: int) -> None:
    """Falla antes de empezar si `needed` bytes no caben junto a `target`."""
    free = shutil.disk_usage(target.parent).free
    if free < needed:
        common.fail(
            f"No hay espacio para {target.name}: hacen falta {needed / 1e9:.2f} GB y quedan "
            f"{free / 1e9:.2f} GB en {target.parent}. Liberar sitio y repetir."
        )


def progress(text: str, total: int) -> Any:
    from tqdm import tqdm

    return tqdm(desc=text, total=total, unit="B", unit_scale=True, unit_divisor=1000)


def export_zip(folder: Path) -> None:
    """Escribe y comprueba el zip y su `.sha256`. La carpeta va dentro, con su nombre."""
    archive = folder.with_name(f"{folder.name}.zip")
    checksum = folder.with_name(f"{archive.name}.sha256")
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    total = sum(file.stat().st_size for file in files)
    require_space(archive, total)
    with common.staged(archive) as partial, common.staged(checksum) as partial_checksum:
        with progress("      comprime", total) as bar:
            write_zip(folder, files, total, partial, bar)
        with progress("      comprueba", total) as bar, ThreadPoolExecutor(1) as pool:
            digest = pool.submit(common.sha256_file, partial)
            verify_zip(partial, folder, files, bar)
        size = partial.stat().st_size
        text = f"{digest.result()}  {archive.name}\n"  # formato de `sha256sum -c`
        partial_checksum.write_text(text, encoding="utf-8", newline="\n")
    print(f"      {archive.name}: {size / 1e6:.1f} MB, {size / total:.0%} de la carpeta.")


def write_zip(folder: Path, files: list[Path], total: int, target: Path, bar: Any) -> None:
    """Zip corriente con el deflate de ISA-L: unas 40 veces más rápido que el de zlib."""
    from isal import isal_zlib
    from stream_zip import ZIP_32, ZIP_64, stream_zip

    def read(file: Path) -> Iterator[bytes]:
        with file.open("rb") as source:
            while chunk := source.read(CHUNK):
                bar.update(len(chunk))
                yield chunk

    method = ZIP_32 if total < ZIP_32_LIMIT else ZIP_64
    members = (
        (
            file.relative_to(folder.parent).as_posix(),
            datetime.fromtimestamp(file.stat().st_mtime),
            0o644,
            method,
            read(file),
        )
        for file in files
    )
    # Nivel 1: los niveles 2 y 3 dan el mismo tamaño con pesos; wbits negativo es deflate sin más.
    deflate = functools.partial(isal_zlib.compressobj, level=1, wbits=-15)
    with target.open("wb") as out:
        for chunk in stream_zip(members, chunk_size=CHUNK, get_compressobj=deflate):
            out.write(chunk)


def verify_zip(archive: Path, folder: Path, files: list[Path], bar: Any) -> None:
    """Descomprime lo escrito y lo compara byte a byte con la carpeta, y con el CRC del índice.

    `zipfile` lee el índice; los datos los descomprime ISA-L, al doble de velocidad.
    """
    from isal import isal_zlib

    with zipfile.ZipFile(archive) as index, archive.open("rb") as raw:
        members = index.infolist()
        same = [folder.parent / item.filename for item in members] == files
        for item in members if same else ():
            raw.seek(item.header_offset + 26)  # longitudes del nombre y del campo extra
            raw.seek(sum(struct.unpack("<HH", raw.read(4))), 1)
            inflate, crc, left = isal_zlib.decompressobj(wbits=-15), 0, item.compress_size
            with (folder.parent / item.filename).open("rb") as source:
                while left > 0:
                    data = inflate.decompress(raw.read(min(CHUNK, left)))
                    left -= CHUNK
                    same = same and data == source.read(len(data))
                    crc = isal_zlib.crc32(data, crc)
                    bar.update(len(data))
                same = same and not source.read(1) and crc == item.CRC
    if not same:
        common.fail(f"{archive.name} no coincide con {folder.name}/ al releerlo. Repetir el paso.")


class Tensor(NamedTuple):
    """Un tensor del modelo y cómo se guarda en el GGUF."""

    source: str  # nombre en model.safetensors
    name: str  # nombre en el GGUF
    shape: list[int]
    kind: Any  # gguf.GGMLQuantizationType
    heads: int  # cabezas que se reordenan; 0 en casi todos

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """Forma en bytes, con las escalas de cada bloque."""
        import gguf

        return gguf.quant_shape_to_byte_shape(self.shape, self.kind)

    @property
    def size(self) -> int:
        return functools.reduce(int.__mul__, self.stored_shape, 1)


def plan_tensors(folder: Path, config: dict[str, Any], gguf_type: str) -> list[Tensor]:
    """Qué tensores hay, con qué nombre y tipo se guardan. Normas en f32, como llama.cpp."""
    import gguf
    from safetensors import SafetensorError, safe_open

    kinds = gguf.GGMLQuantizationType
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config["num_hidden_layers"])
    heads = {
        "q_proj": config["num_attention_heads"],
        "k_proj": config.get("num_key_value_heads") or config["num_attention_heads"],
    }
    plan = []
    try:
        with safe_open(folder / "model.safetensors", "numpy") as weights:
            tensors = {key: weights.get_slice(key) for key in weights.keys()}
            for key, part in tensors.items():
                shape, name = part.get_shape(), names.get_name(key, (".weight",))
                if name is None or part.get_dtype() != "F16":
                    common.fail(
                        f"model.safetensors: «{key}» ({part.get_dtype()}) no es de un Llama en "
                        f"fp16. Ejecutar de nuevo: python {STAGE_2}"
                    )
                kind = kinds.F32 if len(shape) == 1 else kinds[gguf_type.upper()]
                if name in ("output.weight", "token_embd.weight") and kind == kinds.Q4_0:
                    kind = kinds.Q8_0  # con 4 bits, la capa de salida es la que más se estropea
                if len(shape) > 1 and shape[-1] % BLOCK:
                    kind = kinds.F16  # una fila no se divide en bloques
                plan.append(Tensor(key, name, shape, kind, heads.get(key.split(".")[-2], 0)))
    except SafetensorError as error:
        common.fail(f"model.safetensors está dañado ({error}). Ejecutar de nuevo: python {STAGE_2}")
    return plan
