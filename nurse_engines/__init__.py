"""Modelos base y motores de texto: transformers y llama.cpp detrás de una misma interfaz.

La usan 01 y 02 (cargar el modelo base), 03 (escribir el GGUF), 04 (conversar), la evaluación y los
`benchmarks/`. Al importarse solo usa la biblioteca estándar: con un GGUF no se importan torch ni
transformers.
"""

from .base import Base, encode_chat, environment, load_model, load_tokenizer, resolve_base
from .interface import Engine, Sampling, until_stop
from .llama_engine import LlamaCppEngine
from .opening import open_engine
from .torch_engine import TransformersEngine

__all__ = [
    "Base",
    "Engine",
    "LlamaCppEngine",
    "Sampling",
    "TransformersEngine",
    "encode_chat",
    "environment",
    "load_model",
    "load_tokenizer",
    "open_engine",
    "resolve_base",
    "until_stop",
]
