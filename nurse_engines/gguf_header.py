"""Identidad de un GGUF sin cargarlo: solo la biblioteca estándar, en milisegundos."""

import struct
from pathlib import Path
from typing import Any, BinaryIO

from nurse_common import fail

STEP_3 = "03_export_model_nurse.py --only gguf"
WEIGHTS_FIELD = "nurse.weights_sha256"  # SHA-256 del model.safetensors de que salió el GGUF
TEXT, LIST = 8, 9  # tipos de valor con longitud propia
SCALARS = dict(zip((0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12), "BbHhIif?Qqd", strict=True))


def gguf_identity(path: Path) -> dict[str, Any]:
    """Campos de texto de la cabecera hasta tener arquitectura y hash de los pesos.

    NurseError si el archivo no es GGUF o termina a media cabecera.
    """
    fields: dict[str, Any] = {}
    try:
        with path.open("rb") as file:
            magic, version, _, count = struct.unpack("<4sIQQ", file.read(24))
            if magic != b"GGUF" or version not in (2, 3):
                fail(f"{path} no es un GGUF. Crearlo: python {STEP_3}")
            for _ in range(count):
                key = _read_value(file, TEXT)
                fields[key] = _read_value(file, _number(file, "I"))
                if {"general.architecture", WEIGHTS_FIELD} <= fields.keys():
                    break
    except (struct.error, UnicodeDecodeError, KeyError, OverflowError, MemoryError):
        fail(f"{path} está incompleto o dañado. Repetir: python {STEP_3}")
    return fields


def gguf_weights_hash(path: Path) -> str | None:
    """SHA-256 del model.safetensors de que salió el GGUF; None si no lo dice."""
    return gguf_identity(path).get(WEIGHTS_FIELD)


def _number(file: BinaryIO, code: str) -> Any:
    return struct.unpack(f"<{code}", file.read(struct.calcsize(code)))[0]


def _read_value(file: BinaryIO, kind: int) -> Any:
    """Un valor GGUF: 8 es texto; 9, una lista (que se salta); el resto, números."""
    if kind == TEXT:
        return file.read(_number(file, "Q")).decode()
    if kind != LIST:
        return _number(file, SCALARS[kind])
    kind, count = _number(file, "I"), _number(file, "Q")
    if kind == TEXT:
        for _ in range(count):
            file.seek(_number(file, "Q"), 1)
    else:
        file.seek(count * struct.calcsize(SCALARS[kind]), 1)
    return None
