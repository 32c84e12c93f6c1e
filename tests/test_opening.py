"""Qué motor se elige al abrir una carpeta, un GGUF o un zip, y qué se rechaza."""

import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import run_process

import nurse_common as common
from nurse_common import NurseError
from nurse_engines import LlamaCppEngine, TransformersEngine, open_engine, opening


def test_llama_cpp_is_chosen_on_a_cpu(exported: Path) -> None:
    assert isinstance(open_engine(exported, "auto")[0], LlamaCppEngine)
    assert isinstance(open_engine(exported.with_suffix(".gguf"), "auto")[0], LlamaCppEngine)
    opened, reason = open_engine(exported, "llama.cpp")
    assert isinstance(opened, LlamaCppEngine) and reason == "elegido con --engine"


def test_transformers_is_chosen_with_a_gpu(exported: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(opening, "cuda_ready", lambda: True)
    assert isinstance(open_engine(exported, "auto")[0], TransformersEngine)


def test_transformers_can_be_forced(exported: Path) -> None:
    opened, reason = open_engine(exported, "transformers")
    assert isinstance(opened, TransformersEngine) and reason.startswith("elegido con --engine")
    with pytest.raises(NurseError, match="es un GGUF"):
        open_engine(exported.with_suffix(".gguf"), "transformers")


def test_a_stale_gguf_is_not_used(copy: Path) -> None:
    manifest = common.read_json(copy / "manifest.json", "")
    common.write_json(copy / "manifest.json", manifest | {"weights_sha256": "0" * 64})
    opened, reason = open_engine(copy, "auto")
    assert isinstance(opened, TransformersEngine)
    assert reason.startswith("model_nurse_final.gguf se hizo con otros pesos")
    with pytest.raises(NurseError, match="otros pesos.*03_export_model_nurse.py"):
        open_engine(copy, "llama.cpp")


def test_without_gguf_transformers_says_why(copy: Path) -> None:
    copy.with_suffix(".gguf").unlink()
    opened, reason = open_engine(copy, "auto")
    assert isinstance(opened, TransformersEngine)
    assert reason.startswith("no hay model_nurse_final.gguf")


def test_without_xllamacpp_transformers_says_why(exported: Path, monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    opened, reason = open_engine(exported, "auto")
    assert isinstance(opened, TransformersEngine) and "pip install xllamacpp" in reason
    with pytest.raises(NurseError, match="pip install xllamacpp"):
        open_engine(exported, "llama.cpp")


def test_a_gguf_alone_is_enough(copy: Path) -> None:
    shutil.rmtree(copy)
    assert isinstance(open_engine(copy, "auto")[0], LlamaCppEngine)


def truncated(data: bytes) -> bytes:
    return data[: len(data) // 2]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (truncated, "está incompleto o dañado"),
        (lambda data: data[:100], "está incompleto o dañado"),
        (lambda data: data.replace(b"llama", b"gpt-2", 1), "arquitectura «gpt-2»"),
        (lambda _: b"texto corriente, no un modelo", "no es un GGUF"),
    ],
)
def test_bad_ggufs_are_one_line(copy: Path, spoil: Callable[[bytes], bytes], said: str) -> None:
    path = copy.with_suffix(".gguf")
    path.write_bytes(spoil(path.read_bytes()))
    code = "import sys, nurse_common, nurse_engines, pathlib\nnurse_common.run_script(lambda: "
    code += "nurse_engines.open_engine(pathlib.Path(sys.argv[1]), 'auto'))"
    result = run_process("-c", code, path)
    assert result.code == 1 and said in result.error


@pytest.mark.parametrize("name", ["nada", "nada.gguf", "nada.zip", "."])
def test_what_is_not_a_model_is_one_line(tmp_path: Path, name: str) -> None:
    with pytest.raises(NurseError, match=r"python 0[23]_"):
        open_engine(tmp_path / name, "auto")


def test_zip_is_unpacked_once(copy: Path, capsys: Any) -> None:
    shutil.rmtree(copy)
    copy.with_suffix(".gguf").unlink()
    archive = copy.with_suffix(".zip")
    first = opening.unpack(archive)
    assert "Descomprimiendo" in capsys.readouterr().out
    assert first.is_relative_to(archive.with_name("model_nurse_final.zip.cache"))
    engine, _ = open_engine(archive, "auto")
    assert isinstance(engine, TransformersEngine) and "pesos" in engine.describe()
    assert opening.unpack(archive) == first and capsys.readouterr().out == ""
    with zipfile.ZipFile(archive, "a") as target:
        target.writestr("model_nurse_final/otro.txt", "otro contenido, otro hash")
    again = opening.unpack(archive)
    assert again != first and not first.exists() and (again / "otro.txt").is_file()


def test_zip_uses_the_gguf_beside_it(copy: Path) -> None:
    assert isinstance(open_engine(copy.with_suffix(".zip"), "auto")[0], LlamaCppEngine)


@pytest.mark.parametrize(
    "name",
    ["../fuera.txt", "m/../../fuera.txt", "/fuera.txt", "C:/fuera.txt", "m\\..\\..\\fuera.txt"],
)
def test_no_zip_path_escapes(tmp_path: Path, name: str) -> None:
    archive = tmp_path / "dentro" / "malo.zip"
    archive.parent.mkdir()
    with zipfile.ZipFile(archive, "w") as target:
        target.writestr("m/config.json", "{}")
        target.writestr(name, "x")
    with pytest.raises(NurseError, match="saldría de su carpeta"):
        opening.unpack(archive)
    assert not list(tmp_path.rglob("fuera.txt")) and not list(tmp_path.rglob("config.json"))


def test_no_zip_link_escapes(tmp_path: Path) -> None:
    archive = tmp_path / "malo.zip"
    link = zipfile.ZipInfo("m/enlace")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(archive, "w") as target:
        target.writestr(link, "/etc")
    with pytest.raises(NurseError, match="saldría de su carpeta"):
        opening.unpack(archive)


def test_a_zip_bomb_is_refused(copy: Path, monkeypatch: Any) -> None:
    usage = shutil._ntuple_diskusage(10, 9, 1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(NurseError, match="No hay espacio"):
        opening.unpack(copy.with_suffix(".zip"))


@pytest.mark.parametrize("data", [b"", b"no es un zip", None])
def test_damaged_zips_are_one_line(copy: Path, data: bytes | None) -> None:
    archive = copy.with_suffix(".zip")
    if data is None:
        data = bytearray(archive.read_bytes())
        middle = len(data) // 2
        data[middle : middle + 64] = bytes(64)
    archive.write_bytes(data)
    with pytest.raises(NurseError, match="no es un zip o está dañado"):
        opening.unpack(archive)
    assert not list(archive.with_name(f"{archive.name}.cache").iterdir())


def test_a_zip_without_a_model_folder_is_refused(tmp_path: Path) -> None:
    archive = tmp_path / "fotos.zip"
    with zipfile.ZipFile(archive, "w") as target:
        target.writestr("foto.jpg", "x")
    with pytest.raises(NurseError, match="no contiene una carpeta de modelo"):
        opening.unpack(archive)
