"""Lo que hace la práctica al comprimir y al conversar, medido: la referencia de bench_export.py.

Uso: python benchmarks/practice_export.py chat CARPETA_FP32
     python benchmarks/practice_export.py zip CARPETA_FP32

Es su código (Parte 2.2 y Parte 3), con dos cambios que no alteran la velocidad: pocos tokens por
respuesta en lugar de 200, y el zip sobre una muestra de los pesos, porque entero tarda 10 minutos.
Imprime una línea JSON.
"""

import json
import sys
import tempfile
import time
import zipfile
from pathlib import Path

QUESTION = "¿Qué debo hacer si un compañero se quema la mano con agua hirviendo?"
TOKENS = 32
SAMPLE_PIECES, SAMPLE_PIECE = 8, 2**23  # trozos repartidos por el archivo, y bytes de cada uno


def chat(folder: Path) -> dict[str, float | str]:
    """Carga en fp32 y genera. La velocidad descuenta el prompt: (32 tokens) menos (1 token).

    `cpu`: las instrucciones que torch encuentra en esta máquina (AVX2, AVX512...).
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, device_map="auto")
    model.eval()
    ready = time.time()
    prompt = (
        f"Eres un asistente experto en enfermería universitaria.\nUsuario: {QUESTION}\nEnfermero:"
    )
    inputs = tokenizer(prompt, return_tensors="pt")

    def seconds(tokens: int) -> float:
        start = time.perf_counter()
        with torch.no_grad():
            model.generate(
                **inputs,
                max_new_tokens=tokens,
                min_new_tokens=tokens,
                temperature=0.6,
                top_p=0.9,
                do_sample=True,
                pad_token_id=tokenizer.eos_token_id,
            )
        return time.perf_counter() - start

    seconds(1)  # la primera llamada reserva memoria
    first = seconds(1)
    return {
        "ready": ready,
        "tokens_per_second": (TOKENS - 1) / (seconds(TOKENS) - first),
        "cpu": torch.backends.cpu.get_cpu_capability(),
    }


def compress(folder: Path) -> dict[str, float]:
    """`zipfile` con DEFLATE (zlib, nivel 6) sobre una muestra, extrapolado a toda la carpeta."""
    weights = folder / "model.safetensors"
    total = sum(file.stat().st_size for file in folder.iterdir())
    step = weights.stat().st_size // SAMPLE_PIECES
    with tempfile.TemporaryDirectory() as scratch:
        sample, archive = Path(scratch) / "muestra", Path(scratch) / "muestra.zip"
        with weights.open("rb") as source, sample.open("wb") as target:
            for piece in range(SAMPLE_PIECES):
                source.seek(piece * step)
                target.write(source.read(SAMPLE_PIECE))
        start = time.perf_counter()
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as target:
            target.write(sample)
        seconds = time.perf_counter() - start
        size = sample.stat().st_size
        scale = total / size
        return {
            "seconds": seconds * scale,
            "size": archive.stat().st_size * scale,
            "sample": size,
            "total": total,
        }


if __name__ == "__main__":
    print(json.dumps({"chat": chat, "zip": compress}[sys.argv[1]](Path(sys.argv[2]))))
