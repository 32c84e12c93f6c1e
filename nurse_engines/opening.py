"""Abrir un modelo para conversar: carpeta, `.gguf` o `.zip`, con el motor que más conviene."""

import ctypes
import os
import shutil
import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import Any

from nurse_common import (
    NurseError,
    discard,
    fail,
    pick_device,
    read_json,
    require_stage,
    sha256_file,
    staged,
)

from .gguf_header import STEP_3, gguf_weights_hash
from .interface import Engine
from .llama_engine import LlamaCppEngine
from .torch_engine import TransformersEngine

STAGE_2 = "02_create_model_nurse.py"
MODEL_FILES = ("model.safetensors", "config.json", "tokenizer.json", "manifest.json")


def open_engine(model: Path, choice: str) -> tuple[Engine, str]:
    """(motor, motivo de la elección). `choice` es auto, transformers o llama.cpp.

    En automático: transformers si hay una GPU CUDA; si no, llama.cpp cuando junto al modelo hay
    un GGUF hecho con esos mismos pesos; si no, transformers.
    """
    packed = model.suffix == ".zip"
    gguf = model.with_suffix(".gguf") if packed else Path(f"{model.resolve()}.gguf")
    if model.suffix == ".gguf" or (gguf.is_file() and not model.exists()):
        return open_gguf(model if model.suffix == ".gguf" else gguf, choice)
    folder = unpack(model) if packed else model
    require_stage(folder, MODEL_FILES, STAGE_2)
    manifest = read_json(folder / "manifest.json", STAGE_2)
    problem = gguf_problem(gguf, manifest)
    if choice == "llama.cpp":
        if problem:
            fail(f"{problem}. Crearlo: python {STEP_3}")
        return LlamaCppEngine(gguf), "elegido con --engine"
    if choice == "auto" and not problem and not cuda_ready():
        try:
            return LlamaCppEngine(gguf), "sin GPU CUDA, lo más rápido"
        except NurseError as error:
            problem = str(error)
    device, dtype, reason = pick_device()
    if choice == "transformers":
        reason = f"elegido con --engine; {reason}"
    elif problem and device == "cpu":
        reason = f"{problem}; {reason}"
    return TransformersEngine(folder, device, dtype, STAGE_2), reason


def open_gguf(path: Path, choice: str) -> tuple[Engine, str]:
    if choice == "transformers":
        fail(f"{path.name} es un GGUF: abrirlo con --engine llama.cpp, o dar la carpeta.")
    if not path.is_file():
        fail(f"No encuentro {path}. Crearlo: python {STEP_3}")
    return LlamaCppEngine(path), "se abre un GGUF"


def gguf_problem(gguf: Path, manifest: dict[str, Any]) -> str | None:
    """Por qué no se puede usar ese GGUF en lugar de la carpeta, o None."""
    if not gguf.is_file():
        return f"no hay {gguf.name}"
    try:
        weights = gguf_weights_hash(gguf)
    except NurseError as error:
        return str(error)
    if weights != manifest.get("weights_sha256"):
        return f"{gguf.name} se hizo con otros pesos"
    return None


def cuda_ready() -> bool:
    """Si torch puede usar una GPU. Solo se importa (segundos) cuando el controlador ve alguna."""
    try:
        driver = ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
    except OSError:
        return False
    count = ctypes.c_int()
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)) or not count.value:
        return False
    return pick_device()[0] == "cuda"


def unpack(archive: Path) -> Path:
    """Carpeta del modelo que hay en el zip, descomprimida una sola vez en `<zip>.cache/`.

    Ninguna ruta sale de la caché. Se reutiliza mientras el zip tenga el mismo hash.
    """
    if not archive.is_file():
        fail(f"No encuentro {archive}. Crearlo: python 03_export_model_nurse.py --only zip")
    cache = archive.with_name(f"{archive.name}.cache")
    ready = cache / sha256_file(archive)[:16]
    if not ready.is_dir():
        discard(cache)
        print(f"Descomprimiendo {archive.name} en {cache} (solo esta vez).", flush=True)
        with staged(ready, folder=True) as partial:
            try:
                _extract(archive, partial)
            except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError) as error:
                fail(f"{archive} no es un zip o está dañado ({error}). Volver a copiarlo.")
    return next(path for path in ready.iterdir() if path.is_dir())


def _extract(archive: Path, target: Path) -> None:
    with zipfile.ZipFile(archive) as source:
        items = source.infolist()
        for item in items:
            path = PurePosixPath(item.filename)
            link = stat.S_ISLNK(item.external_attr >> 16)
            if path.is_absolute() or ".." in path.parts or link or set(item.filename) & set("\\:"):
                fail(f"{archive}: «{item.filename}» saldría de su carpeta; no se abre.")
        names = [PurePosixPath(item.filename).parts for item in items]
        if len({parts[0] for parts in names}) != 1 or min(map(len, names)) < 2:
            fail(f"{archive} no contiene una carpeta de modelo como la del paso 3.")
        if sum(item.file_size for item in items) > shutil.disk_usage(target).free:
            fail(f"No hay espacio para descomprimir {archive.name}. Liberar sitio y repetir.")
        source.extractall(target)
