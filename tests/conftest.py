"""Lo que comparten las pruebas: un modelo diminuto, unos registros y las etapas 1 y 2 ya hechas.

Todo se construye aquí, sin red, sin GPU y con los scripts de verdad. Las carpetas de sesión son
de solo lectura: quien quiera estropear una trabaja sobre una copia (`shutil.copytree`).
"""

import os
import shutil
import tempfile

HOME = tempfile.mkdtemp(prefix="nurse_tests_")
# Antes de importar transformers: ni red, ni cachés o ajustes de la persona, ni su GPU. Con un solo
# hilo el modelo diminuto va veinte veces más rápido en una máquina ocupada, y siempre suma igual.
os.environ |= {
    "HF_HUB_OFFLINE": "1",
    "HOME": HOME,
    "USERPROFILE": HOME,
    "HF_HOME": os.path.join(HOME, "hf"),
    "CUDA_VISIBLE_DEVICES": "",
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONUTF8": "1",
}

import importlib  # noqa: E402
import json  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
from collections.abc import Callable, Iterator  # noqa: E402
from importlib import metadata  # noqa: E402
from pathlib import Path  # noqa: E402
from types import ModuleType  # noqa: E402
from typing import Any, NamedTuple  # noqa: E402

import pytest  # noqa: E402

import nurse_common as common  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]

RECORDS = [
    {"instruction": question, "input": situation, "output": answer}
    for question, situation, answer in (
        (
            "¿Qué hago si alguien se quema la mano con agua hirviendo?",
            "",
            "1. Ponga la mano bajo agua corriente fresca 20 minutos.\n2. Quite anillos y reloj.\n"
            "3. Cubra sin apretar. No ponga hielo ni pasta de dientes.",
        ),
        (
            "Un adulto no responde y no respira con normalidad, ¿qué hago?",
            "Estamos en el gimnasio y hay un DEA.",
            "1. Llame al 112/911 con altavoz.\n2. Comprima el centro del pecho, fuerte y rápido.\n"
            "3. Use el DEA en cuanto llegue. No pare hasta que llegue la ayuda.",
        ),
        (
            "¿Cómo se detiene una hemorragia de la nariz?",
            "",
            "1. Siéntese con la cabeza hacia delante.\n2. Apriete la parte blanda 10 minutos.\n"
            "3. Respire por la boca. Si no para, acuda a urgencias.",
        ),
        (
            "Mi compañera se atragantó y no puede toser ni hablar",
            "",
            "1. Dé 5 golpes entre los omóplatos.\n2. Si no sale, dé 5 compresiones abdominales.\n"
            "3. Alterne y llame al 112/911. Si pierde el conocimiento, empiece la RCP.",
        ),
        (
            "¿Qué es la posición lateral de seguridad?",
            "",
            "Es tumbar de lado a quien no responde pero respira con normalidad, para que la "
            "lengua y el vómito no tapen la garganta. Compruebe la respiración cada minuto.",
        ),
        (
            "Me corté con un cristal y sangra mucho",
            "",
            "1. Presione la herida con un paño limpio, sin soltar.\n2. Llame al 112/911.\n"
            "3. Si el paño se empapa, ponga otro encima. No retire un cristal clavado.",
        ),
        (
            "¿Qué hago ante una picadura de abeja?",
            "No tengo alergias conocidas.",
            "1. Retire el aguijón raspando.\n2. Lave y ponga frío con un paño 10 minutos.\n"
            "3. Si se hincha la cara o cuesta respirar, llame al 112/911.",
        ),
        (
            "Un alumno convulsiona en el aula",
            "",
            "1. Aparte sillas y mesas y proteja su cabeza.\n2. No lo sujete ni le meta nada en la "
            "boca.\n3. Mida el tiempo: si pasa de 5 minutos, llame al 112/911.",
        ),
        (
            "¿Cómo actúo si alguien se desmaya de pie?",
            "",
            "1. Túmbelo boca arriba y compruebe que respira.\n2. Afloje la ropa y dé aire.\n"
            "3. Si no despierta en un minuto, llame al 112/911.",
        ),
        (
            "Se torció el tobillo jugando al fútbol",
            "",
            "1. Pare y repose.\n2. Ponga frío con un paño 15 minutos.\n3. Vende sin apretar y "
            "eleve el pie. Si no puede apoyar, acuda a un centro de salud.",
        ),
        (
            "¿Qué dosis de antibiótico tomo para la garganta?",
            "",
            "No puedo indicar dosis. Consulte en su centro de salud o en la enfermería.",
        ),
        (
            "¿Cuándo se considera fiebre?",
            "Me he puesto el termómetro en la axila.",
            "A partir de 38 °C. Beba agua, descanse y abríguese poco. Consulte si dura tres días.",
        ),
    )
]


class Result(NamedTuple):
    """Lo que una persona ve de una ejecución."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """La única línea del fallo. Nunca una traza de Python."""
        assert "Traceback" not in self.out + self.err
        assert len(self.err.strip().splitlines()) == 1, self.err
        return self.err.strip()


def pytest_report_header() -> str:
    names = ("torch", "transformers", "peft", "datasets", "accelerate", "sentencepiece")
    return ", ".join(f"{name} {metadata.version(name)}" for name in names)


def pytest_configure(config: pytest.Config) -> None:
    # El aviso que `run_script` calla a la persona; aquí `main` se llama a veces sin él.
    config.addinivalue_line("filterwarnings", "ignore:`is_gradient_checkpointing`:FutureWarning")


def pytest_unconfigure() -> None:
    shutil.rmtree(HOME, ignore_errors=True)


def script(name: str) -> ModuleType:
    """Un script numerado: `import 01_…` no es sintaxis válida, pero `import_module` lo admite."""
    return importlib.import_module(name)


def write_records(path: Path, rows: list[dict[str, Any]]) -> Path:
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text(text, encoding="utf-8", newline="\n")
    return path


def run_process(*command: Any, **env: str) -> Result:
    """El programa de verdad, en otro proceso. El límite solo evita que la sesión se cuelgue."""
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=ROOT,
        env=os.environ | env,
        capture_output=True,
        encoding="utf-8",
        timeout=120,
    )
    return Result(done.returncode, done.stdout, done.stderr)


def train_args(base: Path, data: Path, output: Path, *more: Any) -> list[str]:
    """Opciones de 01 con que un modelo tan pequeño cambia de verdad en pocos pasos."""
    command = ["--base-model", base, "--data", data, "--output", output, "--lora-dropout", 0]
    return [str(item) for item in (*command, "--learning-rate", 0.01, *more)]


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Llama de 2 capas con un vocabulario SentencePiece propio (BPE, bytes de respaldo)."""
    import sentencepiece
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, LlamaTokenizer

    folder = tmp_path_factory.mktemp("base") / "tiny"
    folder.mkdir()
    corpus = folder / "corpus.txt"
    text = "\n".join("\n".join(row.values()) for row in RECORDS)
    corpus.write_text(f"{text}\n{common.SYSTEM_PROMPT}\n", encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(corpus),
        model_prefix=str(folder / "tokenizer"),
        model_type="bpe",
        vocab_size=512,
        byte_fallback=True,
        split_digits=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True,
        num_threads=1,
        minloglevel=2,
    )
    corpus.unlink()
    (folder / "tokenizer.vocab").unlink()
    tokenizer = LlamaTokenizer.from_pretrained(folder, legacy=True)
    tokenizer.init_kwargs["legacy"] = True
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 1024}
    model = LlamaForCausalLM(
        LlamaConfig(vocab_size=512, tie_word_embeddings=False, **shape, **heads)
    )
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def records_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """JSONL pequeño y correcto."""
    return write_records(tmp_path_factory.mktemp("datos") / "registros.jsonl", RECORDS)


@pytest.fixture(scope="session")
def trained(tiny_base: Path, records_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`modelo_chat/` hecha por 01."""
    output = tmp_path_factory.mktemp("etapa1") / "modelo_chat"
    code = script("01_train_lora").main(train_args(tiny_base, records_file, output, "--epochs", 4))
    assert code == 0
    return output


@pytest.fixture(scope="session")
def merged(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`model_nurse_final/` hecha por 02."""
    output = tmp_path_factory.mktemp("etapa2") / "model_nurse_final"
    code = script("02_create_model_nurse").main(
        ["--adapter", str(trained), "--output", str(output)]
    )
    assert code == 0
    return output


@pytest.fixture
def run_main(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[..., Result]]:
    """Ejecuta un script como la terminal (código de salida y dos salidas) sin abrir un proceso."""

    def run(name: str, *argv: Any) -> Result:
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            common.run_script(lambda: script(name).main([str(item) for item in argv]))
        shown = capsys.readouterr()
        return Result(stop.value.code, shown.out, shown.err)

    yield run


@pytest.fixture(scope="session")
def exported(merged: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Carpeta, zip y GGUF (f16) como los deja 03. De solo lectura."""
    stage = tmp_path_factory.mktemp("etapa3") / "model_nurse_final"
    shutil.copytree(merged, stage)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(common, "DATA_FILE", stage / "sin registros")
        code = script("03_export_model_nurse").main(["--model", str(stage), "--gguf-type", "f16"])
    assert code == 0
    return stage


@pytest.fixture
def copy(exported: Path, tmp_path: Path) -> Path:
    """La carpeta de la etapa 3 entera, para estropearla. Devuelve la del modelo."""
    shutil.copytree(exported.parent, tmp_path, dirs_exist_ok=True)
    return tmp_path / exported.name
