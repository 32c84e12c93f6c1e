"""Motor de PyTorch: CUDA si la hay; en CPU, cuando no hay GGUF."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nurse_common import Message, fail, read_json

from .base import encode_chat, load_model, load_tokenizer
from .interface import Sampling, identity, until_stop


class TransformersEngine:
    """Motor de PyTorch: CUDA si la hay; en CPU, cuando no hay GGUF."""

    def __init__(self, path: Path, device: str, dtype: str, made_by: str) -> None:
        self.tokenizer = load_tokenizer(path, made_by)
        self.model = load_model(path, dtype, made_by).to(device).eval()
        self.context = self.model.config.max_position_embeddings
        self.label = f"transformers, {device}, {dtype}"
        manifest = path / "manifest.json"
        known = read_json(manifest, made_by) if manifest.is_file() else {}
        base = known.get("base_model", {}).get("name", path.name)
        self.identity = identity(base, known.get("weights_sha256"))

    def describe(self) -> str:
        return self.identity

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
        errors: list[BaseException] = []
        arguments = (prompt, settings, streamer, errors)
        worker = Thread(target=self._generate, args=arguments, daemon=True)
        worker.start()
        try:
            yield from until_stop(streamer)
        finally:
            cancelled.set()
            worker.join()
        if errors:
            fail(f"El motor se detuvo: {str(errors[0]).splitlines()[0][:120]}")

    def _generate(
        self, prompt: Any, settings: dict[str, Any], streamer: Any, errors: list[BaseException]
    ) -> None:
        try:
            self.model.generate(prompt, **settings)
        except (RuntimeError, ValueError, IndexError, MemoryError) as error:
            errors.append(error)
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
