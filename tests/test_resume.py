"""Parar y seguir: Ctrl-C o un corte no pierden el trabajo, y seguir da lo mismo que no parar."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, Result, run_process, script, train_args, write_records

SCRIPT = "01_train_lora"
train = script(SCRIPT)
# Dropout y varias pasadas: al seguir hay que recuperar el azar y el lugar en los datos.
OPTIONS = ("--epochs", 4, "--lora-dropout", 0.1)  # 12 pasos


class PowerCut(Exception):
    """Hace de corte de luz: nadie la captura."""


@pytest.fixture
def arguments(tiny_base: Path, records_file: Path, tmp_path: Path) -> list[str]:
    return train_args(tiny_base, records_file, tmp_path / "modelo_chat", *OPTIONS)


@pytest.fixture(scope="module")
def uninterrupted(
    tiny_base: Path, records_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> bytes:
    folder = tmp_path_factory.mktemp("seguido") / "modelo_chat"
    assert train.main(train_args(tiny_base, records_file, folder, *OPTIONS)) == 0
    return (folder / "adapter_model.safetensors").read_bytes()


def at_step(monkeypatch: pytest.MonkeyPatch, step: int, event: Callable[[], None]) -> None:
    """Provoca `event` al terminar ese paso, dentro del entrenamiento de verdad."""
    original = train.progress_callback

    def build() -> Any:
        progress = original()
        after_step = progress.on_step_end

        def on_step_end(args: Any, state: Any, control: Any, **more: Any) -> None:
            if state.global_step == step:
                event()
            after_step(args, state, control, **more)

        progress.on_step_end = on_step_end
        return progress

    monkeypatch.setattr(train, "progress_callback", build)


def interrupt(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    at_step(monkeypatch, step, lambda: signal.raise_signal(signal.SIGINT))


def checkpoints(folder: Path) -> list[str]:
    return sorted(item.name for item in folder.glob("modelo_chat_checkpoints/checkpoint-*"))


def test_ctrl_c_then_resume_equals_never_stopping(
    arguments: list[str],
    uninterrupted: bytes,
    tmp_path: Path,
    run_main: Callable[..., Result],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    handler = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        interrupt(patch, 5)
        stopped = run_main(SCRIPT, *arguments)
    assert stopped.code == 130
    assert stopped.out.splitlines()[-1] == "Detenido en el paso 5. Para continuar: --resume"
    assert "Ctrl-C: se guarda un punto de control" in stopped.out + stopped.err
    assert checkpoints(tmp_path) == ["checkpoint-5"]
    assert not (tmp_path / "modelo_chat").exists()
    assert signal.getsignal(signal.SIGINT) is handler

    done = run_main(SCRIPT, *arguments, "--resume")
    assert done.code == 0
    assert "| 5/12 [" in done.err and "| 0/12 [" not in done.err  # no empezó de nuevo
    assert signal.getsignal(signal.SIGINT) is handler
    saved = tmp_path / "modelo_chat" / "adapter_model.safetensors"
    assert saved.read_bytes() == uninterrupted
    assert [item.name for item in tmp_path.iterdir()] == ["modelo_chat"]


def test_power_cut_resumes_from_the_last_whole_checkpoint(
    arguments: list[str],
    uninterrupted: bytes,
    tmp_path: Path,
    run_main: Callable[..., Result],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(train, "SAVE_STEPS", 4)

    def cut() -> None:
        raise PowerCut

    with monkeypatch.context() as patch, pytest.raises(PowerCut):
        at_step(patch, 10, cut)
        train.main(arguments)
    assert checkpoints(tmp_path) == ["checkpoint-4", "checkpoint-8"]
    # El corte llegó mientras se escribía el último: le falta lo que se guarda al final.
    (tmp_path / "modelo_chat_checkpoints" / "checkpoint-8" / "trainer_state.json").unlink()

    done = run_main(SCRIPT, *arguments, "--resume")
    assert done.code == 0 and "| 4/12 [" in done.err and "| 0/12 [" not in done.err
    saved = tmp_path / "modelo_chat" / "adapter_model.safetensors"
    assert saved.read_bytes() == uninterrupted


@pytest.fixture
def half_done(arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Un entrenamiento parado en el paso 2."""
    with monkeypatch.context() as patch:
        interrupt(patch, 2)
        assert train.main(arguments) == 130
    return arguments


def test_half_done_training_is_not_started_over_by_mistake(
    half_done: list[str], tmp_path: Path, run_main: Callable[..., Result]
) -> None:
    result = run_main(SCRIPT, *half_done)
    assert result.code == 1 and "seguir con --resume o borrar la carpeta" in result.error
    assert checkpoints(tmp_path) == ["checkpoint-2"]


def test_only_the_same_training_is_resumed(
    half_done: list[str], tmp_path: Path, run_main: Callable[..., Result]
) -> None:
    for option, value, name in (("--seed", 1, "seed"), ("--learning-rate", 0.1, "learning_rate")):
        result = run_main(SCRIPT, *half_done, "--resume", option, value)
        assert result.code == 1 and result.error.endswith(f"ha cambiado {name}.")
    other = write_records(
        tmp_path / "otros.jsonl",
        train.common.load_records(Path(half_done[half_done.index("--data") + 1]))[0][:-1],
    )
    result = run_main(SCRIPT, *half_done, "--resume", "--data", other)
    assert result.code == 1 and result.error.endswith("ha cambiado dataset_sha256.")
    assert checkpoints(tmp_path) == ["checkpoint-2"]
    assert run_main(SCRIPT, *half_done, "--resume").code == 0


def test_the_same_data_under_another_name_is_the_same_training(
    half_done: list[str], tmp_path: Path, run_main: Callable[..., Result]
) -> None:
    moved = shutil.copy(half_done[half_done.index("--data") + 1], tmp_path / "mudado.jsonl")
    assert run_main(SCRIPT, *half_done, "--resume", "--data", moved).code == 0


def test_nothing_to_resume(
    arguments: list[str], tmp_path: Path, run_main: Callable[..., Result]
) -> None:
    result = run_main(SCRIPT, *arguments, "--resume")
    assert result.code == 1 and result.error.endswith("Ejecutar sin --resume.")
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_before_training_leaves_nothing(
    arguments: list[str],
    tmp_path: Path,
    run_main: Callable[..., Result],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "add_lora", stop)
    result = run_main(SCRIPT, *arguments)
    assert (result.code, result.error) == (130, "Detenido por el usuario. No queda nada a medias.")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="en Windows Ctrl-C llega a toda la consola")
def test_real_ctrl_c_in_the_real_program(
    tiny_base: Path, records_file: Path, tmp_path: Path
) -> None:
    """Un proceso aparte y una señal de verdad. Pide mil pasadas: sin la señal no acabaría."""
    arguments = train_args(tiny_base, records_file, tmp_path / "modelo_chat", "--epochs", 1000)
    program = subprocess.Popen(
        [sys.executable, "01_train_lora.py", *arguments],
        cwd=ROOT,
        env=os.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    shown = ""
    while not re.search(r"\| [1-9]\d*/3000", shown):  # la barra ya avanza
        piece = program.stderr.read(1)
        assert piece, shown
        shown += piece
    program.send_signal(signal.SIGINT)
    out, err = program.communicate(timeout=120)
    assert program.returncode == 130
    assert "Para continuar: --resume" in out.splitlines()[-1]
    assert "Traceback" not in out + shown + err and "Warning" not in shown + err
    [kept] = checkpoints(tmp_path)
    assert (tmp_path / "modelo_chat_checkpoints" / kept / "adapter_model.safetensors").is_file()
    again = run_process("01_train_lora.py", *arguments)
    assert again.code == 1 and "seguir con --resume" in again.error
