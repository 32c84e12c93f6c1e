"""Paso 3, el zip: se escribe entero o no se escribe, y lo abre cualquier programa.

También lo que 03 exige de la etapa 2 y el Modelfile. El GGUF está en test_gguf.py.
"""

import errno
import hashlib
import random
import re
import shutil
import zipfile
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from conftest import Result, run_process, script

import nurse_common as common
from nurse_engines import fast_zip

EXPORT = "03_export_model_nurse"
Run = Callable[..., Result]


@pytest.fixture
def stage(merged: Path, tmp_path: Path) -> Path:
    """Copia de `model_nurse_final/` que se puede estropear."""
    return Path(shutil.copytree(merged, tmp_path / "model_nurse_final"))


@pytest.fixture
def export() -> ModuleType:
    return script(EXPORT)


def written(stage: Path) -> set[str]:
    """Lo que hay junto a la carpeta del modelo."""
    return {path.name for path in stage.parent.iterdir()} - {stage.name}


def test_zip_holds_the_whole_folder_and_its_checksum(stage: Path, run_main: Run) -> None:
    result = run_main(EXPORT, "--model", stage, "--only", "zip")
    assert result.code == 0
    archive = stage.parent / "model_nurse_final.zip"
    assert written(stage) == {archive.name, f"{archive.name}.sha256"}
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    checksum = (stage.parent / f"{archive.name}.sha256").read_text(encoding="utf-8")
    assert checksum == f"{digest}  {archive.name}\n"
    with zipfile.ZipFile(archive) as source:
        assert source.testzip() is None
        files = sorted(path for path in stage.rglob("*") if path.is_file())
        assert source.namelist() == [f"model_nurse_final/{file.name}" for file in files]
        for file in files:
            assert source.read(f"model_nurse_final/{file.name}") == file.read_bytes()


@pytest.mark.parametrize("size", [0, 1, 999, 1000, 1001, 50_123])
def test_zip_of_many_blocks_is_the_folder(tmp_path: Path, monkeypatch: Any, size: int) -> None:
    """Bloques sueltos, comprimidos a la vez: deben salir en orden y sin que falte ninguno."""
    monkeypatch.setattr(fast_zip, "CHUNK", 1000)
    folder, archive = tmp_path / "modelo", tmp_path / "modelo.zip"
    folder.mkdir()
    data = random.Random(size).randbytes(size)
    for name in ("a", "b"):
        (folder / name).write_bytes(data)
    files, seen = [folder / "a", folder / "b"], []
    blocks = fast_zip.write_zip(folder, files, archive, lambda _: None)
    assert fast_zip.verify_zip(archive, folder, blocks, seen.append) and sum(seen) == 2 * size
    with zipfile.ZipFile(archive) as source:
        assert source.testzip() is None and source.read("modelo/b") == data


@pytest.mark.parametrize(("limit", "version"), [(None, 20), (0, 45)])
def test_small_zips_use_the_classic_format(
    stage: Path, export: ModuleType, monkeypatch: Any, limit: int | None, version: int
) -> None:
    if limit is not None:
        monkeypatch.setattr(fast_zip, "ZIP_32_LIMIT", limit)
    checked: Future[None] = Future()
    checked.set_result(None)
    export.export_zip(stage, checked)
    with zipfile.ZipFile(stage.parent / "model_nurse_final.zip") as source:
        assert {item.extract_version for item in source.infolist()} == {version}
        assert source.testzip() is None


def test_stage_must_exist(tmp_path: Path, run_main: Run) -> None:
    result = run_main(EXPORT, "--model", tmp_path / "nada")
    assert result.code == 1 and "python 02_create_model_nurse.py" in result.error


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.model", "manifest.json"])
def test_half_written_stage_is_refused(stage: Path, run_main: Run, name: str) -> None:
    (stage / name).unlink()
    result = run_main(EXPORT, "--model", stage)
    assert result.code == 1
    assert name in result.error and "python 02_create_model_nurse.py" in result.error
    assert not written(stage)


def test_truncated_weights_are_refused(stage: Path, run_main: Run) -> None:
    weights = stage / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    result = run_main(EXPORT, "--model", stage)
    assert result.code == 1 and "model.safetensors" in result.error
    assert not written(stage)


@pytest.mark.parametrize("only", ["zip", "gguf"])
def test_no_space_is_said_before_starting(
    stage: Path, run_main: Run, monkeypatch: Any, only: str
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1000))
    result = run_main(EXPORT, "--model", stage, "--only", only)
    assert result.code == 1 and "No hay espacio" in result.error
    assert not written(stage)


def test_full_disk_keeps_the_previous_zip(stage: Path, run_main: Run, monkeypatch: Any) -> None:
    archive = stage.parent / "model_nurse_final.zip"
    archive.write_bytes(b"anterior")

    def full(*_: Any, **__: Any) -> Any:
        yield b"PK"
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("stream_zip.stream_zip", full)
    result = run_main(EXPORT, "--model", stage, "--only", "zip")
    assert result.code == 1 and "no queda espacio" in result.err.splitlines()[-1]
    assert archive.read_bytes() == b"anterior" and written(stage) == {archive.name}


@pytest.mark.parametrize("ending", ["#", "", "\n\nalgo más\n"])
def test_zip_that_differs_from_the_folder_is_not_kept(
    stage: Path, run_main: Run, monkeypatch: Any, ending: str
) -> None:
    write, card = fast_zip.write_zip, stage / "README.md"

    def write_and_change(*args: Any) -> Any:
        blocks = write(*args)
        text = card.read_text(encoding="utf-8")
        card.write_text(text[:-1] + ending, encoding="utf-8")  # otra letra, menos o más texto
        return blocks

    monkeypatch.setattr(fast_zip, "write_zip", write_and_change)
    result = run_main(EXPORT, "--model", stage, "--only", "zip")
    assert result.code == 1 and "no coincide" in result.err
    assert not written(stage)


@pytest.mark.parametrize("place", ["data", "crc"])
def test_zip_damaged_on_disk_is_not_kept(
    stage: Path, run_main: Run, monkeypatch: Any, place: str
) -> None:
    write = fast_zip.write_zip

    def write_and_damage(folder: Path, files: Any, target: Path, advance: Any) -> Any:
        blocks = write(folder, files, target, advance)
        data = bytearray(target.read_bytes())
        entry = data.rfind(b"PK\x01\x02")  # última entrada del índice; su CRC está 16 después
        data[len(data) // 2 if place == "data" else entry + 16] ^= 0xFF
        target.write_bytes(data)
        return blocks

    monkeypatch.setattr(fast_zip, "write_zip", write_and_damage)
    result = run_main(EXPORT, "--model", stage, "--only", "zip")
    assert result.code == 1 and "no coincide" in result.err
    assert not written(stage)


def test_zip_needs_neither_torch_nor_transformers(stage: Path) -> None:
    code = (
        "import sys, importlib\n"
        f"importlib.import_module({EXPORT!r}).main(['--model', sys.argv[1], '--only', 'zip'])\n"
        "print([name for name in ('torch', 'transformers') if name in sys.modules])\n"
    )
    result = run_process("-c", code, stage)
    assert result.code == 0 and result.out.splitlines()[-1] == "[]"


def test_wrong_flag_is_code_2(run_main: Run) -> None:
    assert run_main(EXPORT, "--gguf-type", "q2_k").code == 2


def go_render(template: str, system: str, messages: list[common.Message]) -> str:
    """Las pocas órdenes de plantilla Go que usa el Modelfile, con las reglas de Ollama."""
    head, body, tail = re.fullmatch(
        r"(.*?)\{\{ range \.Messages \}\}(.*)\{\{ end \}\}(.*?)", template, re.DOTALL
    ).groups()
    user, assistant = re.fullmatch(
        r'\{\{ if eq \.Role "user" \}\}(.*?)'
        r'\{\{ else if eq \.Role "assistant" \}\}(.*)\{\{ end \}\}',
        body,
        re.DOTALL,
    ).groups()
    text = head
    for message in messages:
        content = message["content"]
        part = {"user": user, "assistant": assistant}.get(message["role"], "")
        space = '{{ if ne (printf "%.1s" .Content) " " }} {{ end }}'
        part = part.replace(space, "" if content[:1] == " " else " ")
        text += part.replace("{{ .Content }}", content)
    text = (text + tail).replace("{{ .System }}", system)
    assert "{{" not in text
    return text


CHATS = [
    [("user", "¿Qué hago si me quemo?")],
    [("user", "Hola"), ("assistant", "Dígame."), ("user", "Me corté")],
    [("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d\n2. e"), ("user", "f")],
]


@pytest.mark.parametrize("chat", CHATS)
@pytest.mark.parametrize("system", [None, "Otro papel."])
@pytest.mark.parametrize("space", ["", " "])
def test_modelfile_asks_like_the_training(
    stage: Path, export: ModuleType, chat: Any, system: str | None, space: str
) -> None:
    messages = [{"role": role, "content": content} for role, content in chat]
    if system:
        messages.insert(0, {"role": "system", "content": system})
    text = export.render_modelfile("model_nurse_final.gguf", 1024, {"license": "mit"})
    template = re.search(r'TEMPLATE """(.*?)"""', text, re.DOTALL)[1]
    assert re.search(r'SYSTEM """(.*?)"""', text)[1] == common.SYSTEM_PROMPT
    ollama = [  # Ollama guarda las respuestas con el espacio que genera el modelo
        item | {"content": space * (item["role"] == "assistant") + item["content"]}
        for item in messages
    ]
    rendered = go_render(template, system or common.SYSTEM_PROMPT, ollama)
    assert export.BOS + rendered == export.render_chat(stage, messages, True)


def test_modelfile_stops_and_samples_like_the_chat(export: ModuleType) -> None:
    text = export.render_modelfile("model_nurse_final.gguf", 1024, {"license": "apache-2.0"})
    assert text.startswith("FROM ./model_nurse_final.gguf\n") and "<s>" not in text
    for line in (
        'stop "</s>"',
        'stop "Usuario:"',
        "num_ctx 1024",
        "num_predict 200",
        "temperature 0.6",
        "top_p 0.9",
        "top_k 0",
        "repeat_penalty 1",
    ):
        assert f"PARAMETER {line}\n" in text
    assert text.endswith('LICENSE """apache-2.0"""\n')
