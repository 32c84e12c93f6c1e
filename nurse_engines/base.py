"""Modelo base en disco o en el hub, su tokenizer y sus pesos. La usan 01, 02 y el motor de torch.

No descarga nada que no sea safetensors y nunca ejecuta código del repositorio del modelo.
"""

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from nurse_common import (
    BASE_MODEL,
    BASE_REVISION,
    CHAT_TEMPLATE,
    MINI_BASE_DIR,
    Message,
    fail,
    sha256_file,
)

HUB_TIMEOUT = 8  # segundos para saber si el hub contesta; el mensaje de error llega antes de 20
BASE_FILES = ("*.json", "*.safetensors", "tokenizer.model")


class Base(NamedTuple):
    """Modelo base localizado en disco: `name` es lo que se pidió (id del hub, ruta o `mini`)."""

    path: Path
    name: str
    revision: str | None

    def record(self) -> dict[str, Any]:
        """Identidad para `run.json`: el hash de los pesos es lo que 02 compara."""
        digests = [sha256_file(file) for file in sorted(self.path.glob("*.safetensors"))]
        return {"name": self.name, "revision": self.revision, "sha256": " ".join(digests)}


def resolve_base(name: str) -> Base:
    """Encuentra el modelo base o termina con las tres salidas posibles. Nunca cambia de modelo."""
    revision = None
    if name == "mini":
        path = MINI_BASE_DIR
    elif Path(name).is_dir():
        path = Path(name).resolve()
    else:
        path = _download(name)
        revision = path.name  # la carpeta de la caché del hub se llama como el commit
    problem = _base_problem(path)
    if problem:
        _no_base(name, problem)
    return Base(path, name, revision)


def _download(name: str) -> Path:
    """Carpeta local del modelo del hub; si ya está en la caché no usa la red."""
    os.environ.setdefault("HF_HUB_DISABLE_SYMLINKS_WARNING", "1")  # Windows sin permiso de enlaces
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HFValidationError, HTTPError, LocalEntryNotFoundError

    wanted = {
        "repo_id": name,
        "revision": BASE_REVISION if name == BASE_MODEL else None,
        "allow_patterns": list(BASE_FILES),
    }
    try:
        cached = Path(snapshot_download(**wanted, local_files_only=True))
        if not _base_problem(cached):
            return cached
    except LocalEntryNotFoundError:
        pass
    except HFValidationError:
        _no_base(name, "no es una carpeta ni un id del hub")
    try:
        HfApi().model_info(name, revision=wanted["revision"], timeout=HUB_TIMEOUT)
        # Un solo hilo: la caché con enlaces falla en Windows si dos hilos los crean a la vez.
        return Path(snapshot_download(**wanted, max_workers=1))
    except (OSError, HTTPError, ValueError) as error:
        if isinstance(error, OSError) and error.errno:
            raise
        _no_base(name, "el hub no responde o no conoce ese id, y no está en la caché")


def _base_problem(path: Path) -> str | None:
    """Por qué la carpeta no sirve como base, o None."""
    if not (path / "config.json").is_file():
        return f"{path} no contiene config.json"
    if '"llama"' not in (path / "config.json").read_text(encoding="utf-8"):
        return f"{path} no es un modelo de arquitectura Llama"
    if not any(path.glob("*.safetensors")):
        return f"{path} no contiene pesos .safetensors"
    if not (path / "tokenizer.model").is_file():
        return f"{path} no contiene tokenizer.model (sin él no hay GGUF correcto)"
    return None


def _no_base(name: str, problem: str) -> None:
    fail(
        f"No se puede usar el modelo base «{name}»: {problem}. Tres salidas: conectarse a "
        "internet y repetir; --base-model CARPETA con el modelo ya descargado; "
        "--base-model mini (demostración incluida, sin descarga)."
    )


def load_tokenizer(path: Path, made_by: str | None = None) -> Any:
    """Tokenizer con la plantilla del proyecto y relleno = `</s>`, como TinyLlama.

    `legacy=True` antepone «▁» tras cada token de control: así lo hacen llama.cpp y el
    `tokenizer.json` original de TinyLlama; con el valor por defecto de transformers 5,
    `<s>Eres` se partiría de otra manera en cada motor.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(path, legacy=True, local_files_only=True)
    except Exception as error:  # `tokenizers` lanza Exception a secas con un JSON dañado
        _damaged(path, error, made_by)
    tokenizer.init_kwargs["legacy"] = True  # para que se guarde en tokenizer_config.json
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_model(path: Path, dtype: str, made_by: str | None = None) -> Any:
    """Modelo causal en CPU con los pesos en `dtype`. NurseError si la carpeta está dañada."""
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        return AutoModelForCausalLM.from_pretrained(
            path, dtype=getattr(torch, dtype), local_files_only=True, use_safetensors=True
        )
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "memory" in str(error):
            raise MemoryError(str(error)) from error
        _damaged(path, error, made_by)


def _damaged(path: Path, error: Exception, made_by: str | None) -> NoReturn:
    reason = " ".join(str(error).split())[:120]
    advice = f"Ejecutar de nuevo: python {made_by}" if made_by else "Descargarlo de nuevo."
    fail(f"{path} está incompleto o dañado ({reason}). {advice}")


def environment() -> dict[str, Any]:
    """Versiones y equipo, para `run.json` y `manifest.json`."""
    packages = ("torch", "transformers", "peft", "accelerate", "datasets", "sentencepiece")
    return {
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in packages},
        "hardware": {
            "system": platform.system(),
            "machine": platform.machine(),
            "cpus": os.cpu_count(),
        },
    }


def encode_chat(tokenizer: Any, messages: list[Message], add_generation_prompt: bool) -> list[int]:
    """Ids de la conversación según la plantilla del tokenizer, con `<s>` exactamente una vez."""
    encoded = tokenizer.apply_chat_template(messages, add_generation_prompt=add_generation_prompt)
    return list(encoded["input_ids"])
