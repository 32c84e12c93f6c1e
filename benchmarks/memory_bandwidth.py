"""Cuántos bytes por segundo lee torch de la memoria de esta máquina, con todos sus hilos.

Uso: python benchmarks/memory_bandwidth.py

Sirve a bench_export.py para decir cuánto podría correr un decodificador que solo leyera pesos. Es
una estimación: otro programa puede leer algo más deprisa. Imprime una línea.
"""

import time

SIDE = 2**15  # 4 GiB en fp32, como los pesos de TinyLlama: no caben en ninguna caché
RUNS = 4


def main() -> None:
    import torch

    matrix, vector = torch.ones(SIDE, SIDE), torch.ones(SIDE)
    times = []
    for _ in range(RUNS):
        start = time.perf_counter()
        torch.mv(matrix, vector)
        times.append(time.perf_counter() - start)
    print(matrix.nbytes / min(times))


if __name__ == "__main__":
    main()
