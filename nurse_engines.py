"""Modelos base y motores de texto: transformers y llama.cpp detrás de una misma interfaz.

La usan 01 y 02 (cargar el modelo base), 04 (conversar), la evaluación y los `benchmarks/`.
Al importarse solo usa la biblioteca estándar: con un GGUF no se importan torch ni transformers.
No descarga nada que no sea safetensors y nunca ejecuta código del repositorio del modelo.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from nurse_common import (
    BASE_MODEL,
    BASE_REVISION,
    CHAT_TEMPLATE,
    MAX_NEW_TOKENS,
    MINI_BASE_DIR,
    STOP_TEXT,
    TEMPERATURE,
    TOP_P,
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
    import httpx
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

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
    except (OSError, httpx.HTTPError, ValueError) as error:
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


def load_tokenizer(path: Path) -> Any:
    """Tokenizer con la plantilla del proyecto y relleno = `</s>`, como TinyLlama.

    `legacy=True` antepone «▁» tras cada token de control: así lo hacen llama.cpp y el
    `tokenizer.json` original de TinyLlama; con el valor por defecto de transformers 5,
    `<s>Eres` se partiría de otra manera en cada motor.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(path, legacy=True, local_files_only=True)
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
        advice = f"Ejecutar de nuevo: python {made_by}" if made_by else "Descargarlo de nuevo."
        fail(f"{path} está incompleto o dañado ({str(error).splitlines()[0][:120]}). {advice}")


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


class Sampling(NamedTuple):
    """Cómo se elige cada token. `temperature` 0 es la opción más probable siempre (greedy)."""

    temperature: float = TEMPERATURE
    top_p: float = TOP_P
    max_new_tokens: int = MAX_NEW_TOKENS
    seed: int | None = None


class Engine(Protocol):
    """Lo que la conversación necesita de un motor."""

    label: str  # nombre y dispositivo, para la primera línea del chat
    context: int  # tokens que caben entre pregunta, historia y respuesta

    def count_tokens(self, messages: list[Message]) -> int:
        """Tokens del prompt de generación de esos mensajes."""

    def stream(self, messages: list[Message], sampling: Sampling) -> Iterator[str]:
        """Trozos de la respuesta según se generan. Cerrar el iterador detiene al motor."""


class TransformersEngine:
    """Motor de PyTorch: CUDA si la hay; en CPU, cuando no hay GGUF."""

    def __init__(self, path: Path, device: str, dtype: str, made_by: str) -> None:
        self.tokenizer = load_tokenizer(path)
        self.model = load_model(path, dtype, made_by).to(device).eval()
        self.context = self.model.config.max_position_embeddings
        self.label = f"transformers, {device}, {dtype}"

    def count_tokens(self, messages: list[Message]) -> int:
        return len(encode_chat(self.tokenizer, messages, add_generation_prompt=True))

    def stream(self, messages: list[Message], sampling: Sampling) -> Iterator[str]:
        from threading import Event, Thread

        import torch
        from transformers import StoppingCriteriaList, TextIteratorStreamer, set_seed

        if sampling.seed is not None:
            set_seed(sampling.seed)
        ids = encode_chat(self.tokenizer, messages, add_generation_prompt=True)
        prompt = torch.tensor([ids], device=self.model.device)  # (1, tokens)
        streamer = TextIteratorStreamer(self.tokenizer, skip_prompt=True, skip_special_tokens=True)
        cancelled = Event()

        def stop(input_ids: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
            return torch.full((len(input_ids),), cancelled.is_set(), device=input_ids.device)

        settings = _generation_settings(self.tokenizer, sampling) | {
            "attention_mask": torch.ones_like(prompt),
            "streamer": streamer,
            "stopping_criteria": StoppingCriteriaList([stop]),
        }
        worker = Thread(target=self._generate, args=(prompt, settings, streamer), daemon=True)
        worker.start()
        try:
            yield from until_stop(streamer)
        finally:
            cancelled.set()
            worker.join()

    def _generate(self, prompt: Any, settings: dict[str, Any], streamer: Any) -> None:
        try:
            self.model.generate(prompt, **settings)
        finally:
            streamer.end()  # sin esto, un fallo dentro del hilo dejaría el chat esperando


def _generation_settings(tokenizer: Any, sampling: Sampling) -> dict[str, Any]:
    settings = {
        "max_new_tokens": sampling.max_new_tokens,
        "do_sample": sampling.temperature > 0,
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "top_k": 0,  # transformers lo pone en 50; la práctica solo pide temperatura y top-p
    }
    if sampling.temperature > 0:
        settings |= {"temperature": sampling.temperature, "top_p": sampling.top_p}
    return settings


def until_stop(pieces: Iterator[str]) -> Iterator[str]:
    """Pasa los trozos hasta `STOP_TEXT`, sin dejar ver nunca un principio de `STOP_TEXT`."""
    held = ""
    started = False
    for piece in pieces:
        held += piece if started else piece.lstrip()
        started = started or bool(held)
        before, found, _ = held.partition(STOP_TEXT)
        if found:
            yield before
            return
        keep = next(
            (n for n in range(len(STOP_TEXT) - 1, 0, -1) if held.endswith(STOP_TEXT[:n])), 0
        )
        safe = len(held) - keep
        if safe:
            yield held[:safe]
            held = held[safe:]
    if held:
        yield held
