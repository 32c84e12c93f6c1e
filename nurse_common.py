"""Lo que dos o más pasos de TinyLlama Nurse deben compartir: rutas, prompt, registros, errores.

Al importarse solo usa la biblioteca estándar: `03_export_model_nurse.py` y el chat con GGUF
arrancan sin torch ni transformers. No entrena, no fusiona y no genera texto.
"""

import argparse
import errno
import hashlib
import json
import os
import re
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parent
DATA_FILE = ROOT / "primeros_auxilios_500.jsonl"
ADAPTER_DIR = ROOT / "modelo_chat"  # lo escribe 01
MODEL_DIR = ROOT / "model_nurse_final"  # lo escribe 02
MINI_BASE_DIR = ROOT / "modelo_base_mini"

BASE_MODEL = "TinyLlama/TinyLlama-1.1B-Chat-v1.0"
BASE_REVISION = "fe8a4ea1ffedaf415f4da2f062534de366a451e6"  # commit del hub, inmutable
SEED = 42
MAX_LENGTH = 256  # tokens por registro, el límite de la práctica

SYSTEM_PROMPT = "Eres un asistente experto en enfermería universitaria."
STOP_TEXT = "\nUsuario:"  # segunda guardia, además de </s>
# Con `bos_token` dentro, todo cliente que respeta la plantilla (transformers, vLLM, llama.cpp)
# pone `<s>` exactamente una vez. El salto de línea del usuario se vuelve espacio también aquí: así
# nadie falsifica un turno. Sin espacio tras «Enfermero:», el prompt es prefijo en tokens del texto.
CHAT_TEMPLATE = (
    "{{- bos_token -}}"
    "{%- if messages[0]['role'] == 'system' -%}{{- messages[0]['content'] -}}"
    "{%- else -%}{{- '" + SYSTEM_PROMPT + "' -}}{%- endif -%}"
    "{%- for message in messages -%}"
    "{%- if message['role'] == 'user' -%}"
    "{{- '\\nUsuario: ' + (message['content'] | replace('\\n', ' ')) -}}"
    "{%- elif message['role'] == 'assistant' -%}"
    "{{- '\\nEnfermero: ' + message['content'] + eos_token -}}"
    "{%- endif -%}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '\\nEnfermero:' -}}{%- endif -%}"
)

TEMPERATURE, TOP_P, MAX_NEW_TOKENS = 0.6, 0.9, 200  # muestreo de la práctica

# Preguntas fijas: 02 prueba con ellas la fusión y 03 la del GGUF.
PROBE_QUESTIONS = (
    "¿Qué debo hacer si un compañero se quema la mano con agua hirviendo?",
    "Un adulto no responde y no respira con normalidad, ¿qué hago?",
    "¿Cómo se detiene una hemorragia de la nariz?",
)

Record, Message = dict[str, Any], dict[str, str]  # línea del JSONL; {"role": …, "content": …}
# Cortarían la respuesta, inventarían un turno o no tienen token («\\ud800» es medio carácter).
_FORBIDDEN = re.compile(r"</?s>|<unk>|\n(?:Usuario|Enfermero):|[\ud800-\udfff]")


class NurseError(Exception):
    """Algo que la persona puede arreglar: una línea que dice qué pasa y qué hacer."""


def clean_question(text: str) -> str:
    """Deja la pregunta en una línea y sin tokens de control (`</s>` pasa a `< /s>`)."""
    text = re.sub(r"<(?=/?s>|unk>|0x[0-9A-Fa-f]{2}>)", "< ", text)
    return " ".join(text.split())


def build_messages(question: str, answer: str | None = None) -> list[Message]:
    """Un turno: la pregunta y, si se conoce, la respuesta."""
    turn = [{"role": "user", "content": clean_question(question)}]
    return turn if answer is None else [*turn, {"role": "assistant", "content": answer}]


def prompt_hash() -> str:
    """SHA-256 de la plantilla: dice si dos modelos se entrenaron con el mismo prompt."""
    return hashlib.sha256(CHAT_TEMPLATE.encode()).hexdigest()


def question_of(row: Record) -> str:
    """Pregunta completa: `instruction` y, si lo hay, `input` (la práctica lo perdía)."""
    return clean_question(f"{row['instruction']} {row.get('input') or ''}")


def load_records(path: Path) -> tuple[list[Record], list[str]]:
    """Registros (con su número de línea en `line`) y avisos; junta los duplicados exactos.

    NurseError, con archivo y línea: JSON roto, campos vacíos, una pregunta con dos respuestas.
    """
    if not path.is_file():
        fail(f"No encuentro los datos: {path}. Indicar el archivo con --data.")
    doubts: list[str] = []
    seen: dict[str, Record] = {}
    for line, row in _read_jsonl(path):
        first = seen.setdefault(question_of(row).casefold(), row)
        if first is row:
            # Aviso que no impide entrenar; la revisión entera es `data_audit/audit_records.py`.
            if row.get("gravedad") == "vital" and "112/911" not in row["output"]:
                doubts.append(f"{path.name}, línea {line}: es vital y no manda llamar al 112/911.")
        elif first["output"].split() == row["output"].split():
            doubts.append(f"{path.name}, línea {line}: repite la línea {first['line']}; se omite.")
        else:
            lines = f"{path.name}, líneas {first['line']} y {line}"
            fail(f"{lines}: la misma pregunta tiene dos respuestas distintas. Dejar solo una.")
    if not seen:
        fail(f"{path.name}: no contiene ningún registro. Indicar otro archivo con --data.")
    return list(seen.values()), doubts


def _read_jsonl(path: Path) -> Iterator[tuple[int, Record]]:
    """Da (línea, registro) con los tres campos de la práctica comprobados."""
    try:
        # «utf-8-sig»: el Bloc de notas de Windows antepone una marca BOM.
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError:
        fail(f"{path.name}: no está en UTF-8. Guardarlo como UTF-8 y repetir.")
    for line, raw in enumerate(lines, start=1):
        if not raw.strip():
            continue
        try:
            row = json.loads(raw)
        except json.JSONDecodeError as error:
            fail(f"{path.name}, línea {line}: JSON roto en la columna {error.colno}.")
        if not isinstance(row, dict):
            fail(f"{path.name}, línea {line}: se espera un objeto con instruction y output.")
        for field in ("instruction", "output", "input"):
            text = row.get(field) or ""
            if not isinstance(text, str) or not (text.strip() or field == "input"):
                fail(f"{path.name}, línea {line}: falta el campo «{field}» o está vacío.")
            if found := _FORBIDDEN.search(text):
                fail(f"{path.name}, línea {line}: «{field}» contiene {ascii(found.group())}.")
        yield line, {**row, "output": row["output"].strip(), "line": line}


def pick_device() -> tuple[str, str, str]:
    """(dispositivo, dtype de los pesos base, motivo). LoRA se entrena siempre en float32."""
    import torch  # tarda segundos: solo lo pagan los pasos que usan un modelo

    if torch.cuda.is_available():
        # `is_bf16_supported()` dice que sí en una RTX 2060, pero allí bf16 se emula y es lento.
        if torch.cuda.get_device_capability() >= (8, 0):
            return "cuda", "bfloat16", f"{torch.cuda.get_device_name()}, con unidades bf16"
        return "cuda", "float16", f"{torch.cuda.get_device_name()}, sin unidades bf16"
    features = torch.cpu.get_capabilities()
    if features.get("avx512_bf16") or features.get("amx_bf16"):
        return "cpu", "bfloat16", "sin GPU CUDA; la CPU tiene instrucciones bf16"
    return "cpu", "float32", "sin GPU CUDA; la CPU no tiene instrucciones bf16"


def fail(message: str) -> NoReturn:
    """Detiene el paso con un mensaje para la persona (código 1)."""
    raise NurseError(message)


def require_stage(folder: Path, files: tuple[str, ...], made_by: str) -> None:
    """Comprueba que la etapa anterior está completa; si no, nombra el script que la crea."""
    if not folder.is_dir():
        fail(f"No encuentro {folder.name}/ ({folder}). Ejecutar antes: python {made_by}")
    missing = ", ".join(name for name in files if not (folder / name).is_file())
    if missing:
        fail(f"{folder.name}/ está incompleta, sin {missing}. Ejecutar de nuevo: python {made_by}")


def require_own(output: Path, mark: str) -> None:
    """Solo se sustituye una carpeta que ya hizo este paso (lleva `mark`): nada ajeno se borra."""
    used = output.is_file() or (output.is_dir() and any(output.iterdir()))
    if output.name in ("", "..") or (used and not (output / mark).is_file()):
        fail(f"--output {output}: ya existe con otro contenido. Indicar una carpeta nueva.")


def read_json(path: Path, made_by: str) -> dict[str, Any]:
    """Lee un JSON de una etapa anterior. NurseError si está dañado."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError):
        fail(f"{path} está dañado. Ejecutar de nuevo: python {made_by}")


def write_json(path: Path, data: dict[str, Any]) -> None:
    """Escribe JSON legible, con acentos."""
    text = json.dumps(data, ensure_ascii=False, indent=2) + "\n"
    path.write_text(text, encoding="utf-8", newline="\n")


@contextmanager
def staged(final: Path, folder: bool = False) -> Iterator[Path]:
    """Ruta temporal hermana que pasa a llamarse `final` solo si el bloque termina bien.

    Lo que existe con su nombre definitivo está completo; si algo falla, lo anterior sigue intacto.
    """
    partial, old = (final.with_name(f"{final.name}.{end}") for end in ("parcial", "anterior"))
    discard(partial)
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        if folder:
            partial.mkdir()
        yield partial
        if folder and final.exists():
            discard(old)
            final.rename(old)
            partial.rename(final)
            discard(old)
        else:
            os.replace(partial, final)
    finally:
        if old.exists() and not final.exists():  # Windows no renombra lo que otro programa usa
            old.rename(final)
        discard(partial)


def discard(path: Path) -> None:
    """Borra un archivo o carpeta si existe."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sha256_file(path: Path) -> str:
    """SHA-256 en hexadecimal, leído por bloques."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _SpanishFormatter(argparse.RawDescriptionHelpFormatter):
    def add_usage(self, usage: Any, actions: Any, groups: Any, prefix: str | None = None) -> None:
        super().add_usage(usage, actions, groups, "uso: ")


class SpanishParser(argparse.ArgumentParser):
    """`argparse` con ayuda y errores en español; el uso incorrecto sale con código 2."""

    def __init__(self, description: str | None) -> None:
        style = {"add_help": False, "allow_abbrev": False, "formatter_class": _SpanishFormatter}
        super().__init__(description=description, **style)
        self.add = self.add_argument_group("opciones").add_argument
        self.add("-h", "--help", action="help", help="muestra esta ayuda y sale")

    def error(self, message: str) -> NoReturn:
        for english, spanish in (
            ("unrecognized arguments", "opción desconocida"),
            ("expected one argument", "falta el valor"),
            ("invalid choice", "valor no admitido"),
            ("choose from", "elegir entre"),
            ("ignored explicit argument", "no lleva el valor"),
            ("argument ", "opción "),
        ):
            message = message.replace(english, spanish)
        self.exit(2, f"{self.format_usage()}Error: {message}\n")


def number(kind: type, low: float, high: float = sys.float_info.max) -> Callable[[str], float]:
    """Tipo de `argparse`: un número entre `low` y `high`, ambos incluidos."""
    limits = f"desde {low}" if high == sys.float_info.max else f"entre {low} y {high}"
    wanted = f"un número {'entero ' if kind is int else ''}{limits}"

    def parse(text: str) -> float:
        with suppress(ValueError):
            if low <= (value := kind(text)) <= high:
                return value
        raise argparse.ArgumentTypeError(f"«{text}» no es {wanted}")

    return parse


def run_script(main: Callable[[], int]) -> NoReturn:
    """Ejecuta `main` y termina: 0 hecho, 1 no se pudo, 130 detenido por la persona."""
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # consola de Windows en cp1252
    # PEFT usa un nombre que transformers retirará: nada que la persona pueda arreglar.
    warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
    try:
        sys.exit(main())
    except NurseError as error:
        message, code = f"Error: {error}", 1
    except KeyboardInterrupt:
        message, code = "Detenido por el usuario. No queda nada a medias.", 130
    except OSError as error:
        reason = _OS_REASONS.get(error.errno, error.strerror or str(error))
        message, code = f"Error: {error.filename or 'el disco'}: {reason}.", 1
    except (MemoryError, RuntimeError) as error:  # torch avisa con RuntimeError
        if isinstance(error, RuntimeError) and "memory" not in str(error):
            raise
        message, code = "Error: no queda memoria. Ver «Si falta memoria» en README.md.", 1
    print(message, file=sys.stderr)
    sys.exit(code)


_OS_REASONS = {
    errno.ENOSPC: "no queda espacio; liberar sitio y repetir",
    errno.ENOENT: "no existe",
    errno.EPIPE: "se cerró el programa que leía la salida",
    errno.EACCES: "sin permiso; cerrar el programa que lo tenga abierto y repetir",
}
