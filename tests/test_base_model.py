"""El modelo base que no se puede tener: una línea con las tres salidas, y nunca otro modelo."""

import json
import os
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from conftest import Result, run_process, train_args

import nurse_common as common
import nurse_engines

WAYS_OUT = ("conectarse a internet", "--base-model CARPETA", "--base-model mini")


def check(result: Result, name: object, problem: str, output: Path) -> None:
    assert result.code == 1 and result.out == ""
    assert f"Error: No se puede usar el modelo base «{name}»: " in result.error
    for text in (problem, *WAYS_OUT):
        assert text in result.error
    assert not output.exists()


@pytest.fixture
def train_with(
    records_file: Path, tmp_path: Path, run_main: Callable[..., Result]
) -> Callable[[object, str], None]:
    """01 con una base que no sirve: comprueba el mensaje."""

    def run(base: object, problem: str) -> None:
        output = tmp_path / "modelo_chat"
        result = run_main("01_train_lora", *train_args(base, records_file, output))
        check(result, base, problem, output)

    return run


@pytest.mark.parametrize("name", ["TinyLlama/TinyLlama-1.1B-Chat-v1.0", "nadie/no-existe", "gpt9"])
def test_offline_and_not_in_the_cache(train_with: Callable[..., None], name: str) -> None:
    train_with(name, "no está en la caché")


@pytest.mark.parametrize("name", ["no/hay/carpeta", "./modelos/llama", "id con espacios", "a//b"])
def test_neither_a_folder_nor_an_id(train_with: Callable[..., None], name: str) -> None:
    train_with(name, "no es una carpeta ni un id del hub")


@pytest.mark.parametrize(
    ("missing", "problem"),
    [
        ("config.json", "no contiene config.json"),
        ("model.safetensors", "no contiene pesos .safetensors"),
        ("tokenizer.model", "no contiene tokenizer.model"),
    ],
)
def test_folder_that_is_not_a_model(
    tiny_base: Path, tmp_path: Path, train_with: Callable[..., None], missing: str, problem: str
) -> None:
    folder = shutil.copytree(tiny_base, tmp_path / "base")
    (folder / missing).unlink()
    train_with(folder, problem)


def test_folder_of_another_architecture(
    tiny_base: Path, tmp_path: Path, train_with: Callable[..., None]
) -> None:
    folder = shutil.copytree(tiny_base, tmp_path / "base")
    (folder / "config.json").write_text('{"model_type": "gpt2"}', encoding="utf-8")
    train_with(folder, "no es un modelo de arquitectura Llama")


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_folder_cut_short(
    tiny_base: Path, records_file: Path, tmp_path: Path, run_main: Callable[..., Result], name: str
) -> None:
    """Una copia o descarga a medias se dice, no acaba en una traza."""
    folder = shutil.copytree(tiny_base, tmp_path / "base")
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: len(content) // 2])
    result = run_main("01_train_lora", *train_args(folder, records_file, tmp_path / "salida"))
    assert result.code == 1 and f"{folder} está incompleto o dañado" in result.error
    assert [item.name for item in tmp_path.iterdir()] == ["base"]


def test_mini_that_is_not_there(
    tmp_path: Path, train_with: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nurse_engines.base, "MINI_BASE_DIR", tmp_path / "modelo_base_mini")
    train_with("mini", "no contiene config.json")


def test_cached_model_needs_no_network(tiny_base: Path, tmp_path: Path) -> None:
    """La caché del hub, como la deja una descarga: se encuentra sin preguntar a nadie."""
    commit = common.BASE_REVISION
    repo = tmp_path / "hub" / f"models--{common.BASE_MODEL.replace('/', '--')}"
    shutil.copytree(tiny_base, repo / "snapshots" / commit)
    code = (
        "import json, nurse_common, nurse_engines; "
        "base = nurse_engines.resolve_base(nurse_common.BASE_MODEL); "
        "print(json.dumps([str(base.path), *base.record().values()]))"
    )
    result = run_process(
        "-c", code, HF_HUB_CACHE=str(tmp_path / "hub"), HF_ENDPOINT="http://x.invalid"
    )
    assert result.code == 0, result.err
    weights = common.sha256_file(tiny_base / "model.safetensors")
    assert json.loads(result.out) == [
        str(repo / "snapshots" / commit),
        common.BASE_MODEL,
        commit,
        weights,
    ]


def test_relative_and_absolute_folder_are_the_same_base(
    tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny_base.parent)
    found = nurse_engines.resolve_base("tiny")
    assert found.path == tiny_base.resolve() and found.revision is None
    assert found.record()["sha256"] == nurse_engines.resolve_base(str(tiny_base)).record()["sha256"]


@pytest.fixture
def silent_hub() -> Iterator[str]:
    """Acepta la conexión y no contesta nunca: lo que hacen algunos cortafuegos."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        accepted = []

        def accept() -> None:
            while True:
                try:
                    accepted.append(server.accept()[0])
                except OSError:
                    return  # la prueba terminó y cerró el servidor

        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        for connection in accepted:
            connection.close()


@pytest.fixture
def empty_hub() -> Iterator[str]:
    """Un hub que contesta «no existe» a todo."""

    class NotFound(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(404)

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), NotFound) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def closed_hub() -> str:
    """Sin red: nadie escucha en ese puerto."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize("hub", ["silent_hub", "empty_hub", "closed_hub"])
def test_hub_that_cannot_give_the_model(
    request: pytest.FixtureRequest, records_file: Path, tmp_path: Path, hub: str
) -> None:
    """El programa de verdad contra un servidor local; 20 s es lo que promete el proyecto."""
    output = tmp_path / "modelo_chat"
    result = run_process(
        "01_train_lora.py",
        *train_args(Path("nadie/mal-escrito"), records_file, output),
        HF_ENDPOINT=request.getfixturevalue(hub),
        HF_HUB_OFFLINE="0",
        NO_PROXY="127.0.0.1",
    )
    check(result, "nadie/mal-escrito", "el hub no responde o no conoce ese id", output)
    assert not os.path.exists(os.path.join(os.environ["HF_HOME"], "models--nadie--mal-escrito"))
