"""Motor de llama.cpp (paquete `xllamacpp`, sin compilador): la vía rápida en CPU, con un GGUF.

No importa torch ni transformers. El texto del prompt sale de la plantilla que lleva el GGUF y pasa
como ids, para que `<s>` aparezca una sola vez y se cuente lo mismo que se genera.
"""

import http.client
import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from threading import Event, Thread
from typing import Any
from urllib.parse import urlsplit

from nurse_common import SYSTEM_PROMPT, Message, fail

from .gguf_header import STEP_3, WEIGHTS_FIELD, gguf_identity
from .interface import Sampling, identity, until_stop

FILE_TYPES = {0: "F32", 1: "F16", 2: "Q4_0", 7: "Q8_0"}  # los que escribe el paso 3


class LlamaCppEngine:
    """Un GGUF abierto en este mismo proceso."""

    def __init__(self, path: Path) -> None:
        fields = gguf_identity(path)
        architecture = fields.get("general.architecture")
        if architecture != "llama":
            fail(f"{path} es de arquitectura «{architecture}»; este chat solo admite «llama».")
        base = fields.get("general.base_model.0.name", "desconocida")
        self.identity = identity(base, fields.get(WEIGHTS_FIELD))
        self.server, self._token = _open_server(path)
        self._address = urlsplit(self.server.listening_address)
        self.context = self._call("GET", "/props")["default_generation_settings"]["n_ctx"]
        # Un token de prueba: cerrar el servidor antes de que su bucle arranque lo bloquea para
        # siempre, y así la primera pregunta encuentra ya calculado el comienzo del prompt.
        self._call("POST", "/completion", {"prompt": SYSTEM_PROMPT, "n_predict": 1})
        kind = FILE_TYPES.get(fields.get("general.file_type"), "GGUF")
        self.label = f"llama.cpp, CPU, {kind}"

    def describe(self) -> str:
        return self.identity

    def encode(self, messages: list[Message], add_generation_prompt: bool) -> list[int]:
        """Ids de la conversación según la plantilla y el vocabulario del GGUF."""
        body = {"messages": messages, "add_generation_prompt": add_generation_prompt}
        text = self._call("POST", "/apply-template", body)["prompt"]
        # llama.cpp quita el `<s>` de la plantilla para ponerlo él: aquí se pide, y solo una vez.
        body = {"content": text, "add_special": True, "parse_special": True}
        return self._call("POST", "/tokenize", body)["tokens"]

    def count_tokens(self, messages: list[Message]) -> int:
        return len(self.encode(messages, add_generation_prompt=True))

    def stream(self, messages: list[Message], sampling: Sampling) -> Iterator[str]:
        """Trozos de la respuesta; lo común con la pregunta anterior no se vuelve a calcular."""
        request = {
            "prompt": self.encode(messages, add_generation_prompt=True),
            "stream": True,
            "cache_prompt": True,
            "max_tokens": sampling.max_new_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            # Solo estos dos y en este orden, como transformers: ni top-k, ni min-p, ni
            # penalización por repetir, que llama.cpp y sus clientes añaden por su cuenta.
            "samplers": ["temperature", "top_p"],
            "seed": -1 if sampling.seed is None else sampling.seed,
        }
        chunks: SimpleQueue[Any] = SimpleQueue()
        cancelled = Event()
        worker = Thread(target=self._complete, args=(request, chunks, cancelled), daemon=True)
        worker.start()
        try:
            yield from until_stop(_texts(chunks))
        finally:
            cancelled.set()
            worker.join()  # espera, como mucho, al token que se está calculando

    def _complete(self, request: dict[str, Any], chunks: SimpleQueue, cancelled: Event) -> None:
        def receive(chunk: Any) -> bool:
            chunks.put(chunk)
            return cancelled.is_set()  # True detiene a llama.cpp

        try:
            self.server.handle_completions(request, receive)
        finally:
            chunks.put(None)

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        """Pregunta al servidor de llama.cpp, que solo escucha en esta máquina y con clave."""
        connection = http.client.HTTPConnection(self._address.hostname, self._address.port)
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
        try:
            connection.request(method, path, json.dumps(body) if body else None, headers)
            answer = json.loads(connection.getresponse().read())
        finally:
            connection.close()
        if "error" in answer:
            fail(f"llama.cpp: {answer['error'].get('message', answer['error'])}")
        return answer


def _open_server(path: Path) -> tuple[Any, str]:
    """(servidor con el modelo cargado, clave de acceso)."""
    try:
        import xllamacpp
    except ImportError as error:
        fail(f"no se puede usar llama.cpp ({error}). Instalarlo: pip install xllamacpp")
    token = secrets.token_hex()
    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.n_ctx = 0  # el contexto del propio modelo
    params.n_parallel = 1
    threads = os.environ.get("OMP_NUM_THREADS", "")  # como torch; si no, los núcleos físicos
    params.cpuparams.n_threads = int(threads) if threads.isdecimal() else -1
    params.cache_ram_mib = 0  # una conversación: basta la memoria del propio contexto
    params.prefill_assistant = False  # un último turno del asistente está terminado
    params.api_keys = [token]
    params.ui = False
    params.verbosity = -1  # sin mensajes en la terminal
    try:
        return xllamacpp.Server(params), token
    except RuntimeError:
        fail(f"{path} está incompleto o dañado. Repetir: python {STEP_3}")


def _texts(chunks: SimpleQueue) -> Iterator[str]:
    """Texto de cada trozo hasta el final; un error del motor se dice en una línea."""
    while (chunk := chunks.get()) is not None:
        if "error" in chunk:
            fail(f"llama.cpp: {chunk['error'].get('message', chunk['error'])}")
        yield chunk["choices"][0]["text"]
