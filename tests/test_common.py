"""El módulo común: todo o nada al escribir, errores de una línea, códigos de salida, arranque."""

import errno
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import run_process

import nurse_common as common


def exit_of(main: Callable[[], int]) -> int:
    with pytest.raises(SystemExit) as stop:
        common.run_script(main)
    return stop.value.code


def raising(error: BaseException) -> Callable[[], int]:
    def main() -> int:
        raise error

    return main


def test_nothing_heavy_is_imported_at_start() -> None:
    """Con `-X importtime` se vería lo mismo: torch y transformers tardan segundos en cargarse."""
    heavy = "('torch', 'transformers', 'peft', 'datasets', 'numpy', 'huggingface_hub')"
    code = (
        f"import sys, nurse_common, nurse_engines; print([m for m in {heavy} if m in sys.modules])"
    )
    result = run_process("-c", code)
    assert (result.code, result.out, result.err) == (0, "[]\n", "")


@pytest.mark.parametrize("number", [1, 2])
def test_training_scripts_import_nothing_heavy_either(number: int) -> None:
    name = {1: "01_train_lora", 2: "02_create_model_nurse"}[number]
    code = (
        f"import sys, importlib; importlib.import_module('{name}'); print('torch' in sys.modules)"
    )
    assert run_process("-c", code).out == "False\n"


def test_staged_folder_appears_whole_and_replaces_the_old_one(tmp_path: Path) -> None:
    final = tmp_path / "sub" / "etapa"
    for content in ("uno", "dos"):
        with common.staged(final, folder=True) as folder:
            (folder / content).write_text(content, encoding="utf-8")
            assert not (final / content).exists()
        assert [item.name for item in final.iterdir()] == [content]
    assert [item.name for item in final.parent.iterdir()] == ["etapa"]


@pytest.mark.parametrize("error", [common.NurseError("x"), KeyboardInterrupt(), OSError(28, "x")])
@pytest.mark.parametrize("folder", [True, False], ids=["carpeta", "archivo"])
def test_staged_failure_keeps_the_old_and_leaves_nothing(
    tmp_path: Path, folder: bool, error: BaseException
) -> None:
    final = tmp_path / "etapa"
    kept = final / "viejo" if folder else final
    kept.parent.mkdir(exist_ok=True)
    kept.write_text("anterior", encoding="utf-8")
    with pytest.raises(type(error)), common.staged(final, folder=folder) as partial:
        (partial / "nuevo" if folder else partial).write_text("a medias", encoding="utf-8")
        raise error
    assert kept.read_text(encoding="utf-8") == "anterior"
    assert [item.name for item in tmp_path.iterdir()] == ["etapa"]


@pytest.mark.parametrize("folder", [True, False], ids=["carpeta", "archivo"])
def test_staged_gives_the_old_back_if_the_last_rename_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: bool
) -> None:
    """En Windows no se puede renombrar lo que un antivirus está leyendo."""
    final = tmp_path / "etapa"
    kept = final / "viejo" if folder else final
    kept.parent.mkdir(exist_ok=True)
    kept.write_text("anterior", encoding="utf-8")
    rename = Path.rename

    def busy(source: Path, target: Path) -> Path:
        if Path(source).name == "etapa.parcial":
            raise PermissionError(errno.EACCES, "Access is denied", str(source))
        return rename(source, target)

    monkeypatch.setattr(Path, "rename", busy)
    monkeypatch.setattr(common.os, "replace", busy)
    with pytest.raises(PermissionError), common.staged(final, folder=folder) as partial:
        (partial / "nuevo" if folder else partial).write_text("nuevo", encoding="utf-8")
    assert kept.read_text(encoding="utf-8") == "anterior"
    assert [item.name for item in tmp_path.iterdir()] == ["etapa"]


def test_staged_clears_what_a_power_cut_left(tmp_path: Path) -> None:
    leftover = tmp_path / "etapa.parcial"
    leftover.mkdir()
    (leftover / "medio.safetensors").write_text("x", encoding="utf-8")
    with common.staged(tmp_path / "etapa", folder=True) as folder:
        (folder / "bueno").touch()
    assert [item.name for item in (tmp_path / "etapa").iterdir()] == ["bueno"]


def test_own_folder_may_be_replaced_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--output ~/Documentos` no puede borrar los documentos de nadie."""
    ours, empty, foreign = (tmp_path / name for name in ("nuestra", "vacia", "ajena"))
    for folder in (ours, empty, foreign):
        folder.mkdir()
    (ours / "run.json").touch()
    (foreign / "tesis.docx").touch()
    for folder in (ours, empty, tmp_path / "nueva"):
        common.require_own(folder, "run.json")
    for path in (foreign, foreign / "tesis.docx", Path("."), Path(".."), Path("/")):
        with pytest.raises(common.NurseError, match="ya existe con otro contenido"):
            common.require_own(path, "run.json")
    monkeypatch.chdir(empty)
    with pytest.raises(common.NurseError):
        common.require_own(Path("."), "run.json")  # vacía, pero no se puede sustituir


def test_missing_or_incomplete_stage_names_the_script(tmp_path: Path) -> None:
    folder = tmp_path / "modelo_chat"
    with pytest.raises(common.NurseError, match="Ejecutar antes: python 01_train_lora.py"):
        common.require_stage(folder, ("run.json",), "01_train_lora.py")
    folder.mkdir()
    (folder / "a").touch()
    with pytest.raises(common.NurseError, match="sin b, c. Ejecutar de nuevo: python 01_"):
        common.require_stage(folder, ("a", "b", "c"), "01_train_lora.py")


@pytest.mark.parametrize("content", [b"", b"{", b'{"a": ', b"\xff\xfe"])
def test_damaged_json_names_file_and_script(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "run.json"
    path.write_bytes(content)
    with pytest.raises(
        common.NurseError, match="run.json está dañado. Ejecutar de nuevo: python 01"
    ):
        common.read_json(path, "01_train_lora.py")


def test_json_is_readable_utf8(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    common.write_json(path, {"base": "enfermería"})
    assert path.read_bytes() == '{\n  "base": "enfermería"\n}\n'.encode()
    assert common.read_json(path, "x") == {"base": "enfermería"}


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (common.NurseError("no hay nada"), 1, "Error: no hay nada"),
        (KeyboardInterrupt(), 130, "Detenido por el usuario. No queda nada a medias."),
        (
            OSError(errno.ENOSPC, "No space left", "a.bin"),
            1,
            "Error: a.bin: no queda espacio; liberar sitio y repetir.",
        ),
        (
            PermissionError(errno.EACCES, "Permission denied", "a.bin"),
            1,
            "Error: a.bin: sin permiso; cerrar el programa que lo tenga abierto y repetir.",
        ),
        (FileNotFoundError(errno.ENOENT, "No such file", "a.bin"), 1, "Error: a.bin: no existe."),
        (
            RuntimeError("CUDA out of memory"),
            1,
            "Error: no queda memoria. Ver «Si falta memoria» en README.md.",
        ),
        (MemoryError(), 1, "Error: no queda memoria. Ver «Si falta memoria» en README.md."),
    ],
    ids=lambda value: type(value).__name__,
)
def test_one_line_and_exit_code(
    capsys: pytest.CaptureFixture[str], error: BaseException, code: int, line: str
) -> None:
    assert exit_of(raising(error)) == code
    assert capsys.readouterr() == ("", f"{line}\n")


def test_exit_code_is_what_main_returns() -> None:
    assert [exit_of(lambda: 0), exit_of(lambda: 130)] == [0, 130]


def test_a_bug_of_ours_is_not_disguised() -> None:
    with pytest.raises(RuntimeError, match="tamaño"):
        common.run_script(raising(RuntimeError("tamaño imposible")))
