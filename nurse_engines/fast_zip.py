"""Zip corriente, comprimido y comprobado con todos los núcleos mediante el deflate de ISA-L.

Cada archivo se comprime en bloques sueltos que, uno detrás de otro, forman un solo deflate (como
pigz): cualquier programa lo abre, y al comprobarlo también se descomprimen varios a la vez. Los
pesos no repiten nada entre bloques, así que trocearlos no pesa más.
"""

import os
import struct
import zipfile
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

CHUNK = 2**20  # bytes de cada bloque, antes de comprimir
ZIP_32_LIMIT = 2**32 - 2**24  # bytes; por debajo, el zip clásico que abre cualquier Windows
CORES = os.cpu_count() or 1
AHEAD = 4 * CORES  # bloques en marcha o esperando su turno
LAST_BLOCK = b"\x03\x00"  # bloque vacío con la marca de final de deflate
Advance = Callable[[int], object]  # recibe los bytes que se acaban de tratar


class BlockDeflate:
    """El `compressobj` que pide stream_zip; devuelve los bloques en orden, con algo de retraso."""

    def __init__(self, pool: ThreadPoolExecutor, sizes: list[int]) -> None:
        self.pool, self.sizes = pool, sizes  # `sizes`: aquí apunta lo que ocupa cada bloque
        self.waiting: deque[Future[bytes]] = deque()

    def compress(self, data: bytes) -> bytes:
        self.waiting.append(self.pool.submit(deflate, data))
        return self._take() if len(self.waiting) > AHEAD else b""

    def flush(self) -> bytes:
        return b"".join([self._take() for _ in range(len(self.waiting))]) + LAST_BLOCK

    def _take(self) -> bytes:
        block = self.waiting.popleft().result()
        self.sizes.append(len(block))
        return block


def deflate(data: bytes) -> bytes:
    """Un bloque que acaba en byte entero y no es el último."""
    from isal import isal_zlib

    # Nivel 1: los niveles 2 y 3 dan el mismo tamaño con pesos; wbits negativo es deflate sin más.
    stream = isal_zlib.compressobj(level=1, wbits=-15)
    return stream.compress(data) + stream.flush(isal_zlib.Z_FULL_FLUSH)


def inflate(block: bytes) -> bytes:
    """Lo contrario; vacío si el bloque está dañado o dice ser el último."""
    from isal import isal_zlib

    stream = isal_zlib.decompressobj(wbits=-15)
    try:
        data = stream.decompress(block)
    except isal_zlib.error:
        return b""
    return b"" if stream.eof else data


def write_zip(
    folder: Path, files: list[Path], target: Path, advance: Advance
) -> dict[Path, list[int]]:
    """Escribe el zip con la carpeta dentro; devuelve los bytes de cada bloque de cada archivo."""
    from stream_zip import ZIP_32, ZIP_64, stream_zip

    def read(file: Path) -> Iterator[bytes]:
        with file.open("rb") as source:
            while chunk := source.read(CHUNK):
                advance(len(chunk))
                yield chunk

    total = sum(file.stat().st_size for file in files)
    method = ZIP_32 if total < ZIP_32_LIMIT else ZIP_64
    names = [file.relative_to(folder.parent).as_posix() for file in files]
    dates = [datetime.fromtimestamp(file.stat().st_mtime) for file in files]
    blocks: dict[Path, list[int]] = {file: [] for file in files}
    members = (
        (name, date, 0o644, method, read(file))
        for name, date, file in zip(names, dates, files, strict=True)
    )
    sizes = iter(blocks.values())  # stream_zip pide un compresor por archivo, en orden
    with target.open("wb") as out, ThreadPoolExecutor(CORES) as pool, ThreadPoolExecutor(1) as disk:
        written = disk.submit(bool)  # se escribe un trozo mientras se comprimen los siguientes
        for chunk in stream_zip(
            members, chunk_size=CHUNK, get_compressobj=lambda: BlockDeflate(pool, next(sizes))
        ):
            written.result()
            written = disk.submit(out.write, chunk)
        written.result()
    return blocks


def verify_zip(
    archive: Path, folder: Path, blocks: dict[Path, list[int]], advance: Advance
) -> bool:
    """Si lo escrito, descomprimido, es byte a byte la carpeta y cumple el CRC del índice."""
    with zipfile.ZipFile(archive) as index, archive.open("rb") as raw:
        members = {folder.parent / item.filename: item for item in index.infolist()}
        return list(members) == list(blocks) and all(
            same_bytes(raw, members[file], file, sizes, advance) for file, sizes in blocks.items()
        )


def same_bytes(
    raw: BinaryIO, item: zipfile.ZipInfo, file: Path, sizes: list[int], advance: Advance
) -> bool:
    """Si ese miembro del zip, con bloques de esos bytes, es el archivo."""
    from isal import isal_zlib

    raw.seek(item.header_offset + 26)  # longitudes del nombre y del campo extra
    raw.seek(sum(struct.unpack("<HH", raw.read(4))), 1)
    crc = 0
    with file.open("rb") as source, ThreadPoolExecutor(CORES) as pool:
        for data in in_order(pool, inflate, (raw.read(size) for size in sizes)):
            if not data or data != source.read(len(data)):
                return False
            crc = isal_zlib.crc32(data, crc)
            advance(len(data))
        whole = sum(sizes) + len(LAST_BLOCK) == item.compress_size
        return (
            whole
            and raw.read(len(LAST_BLOCK)) == LAST_BLOCK
            and (not source.read(1) and crc == item.CRC)
        )


def in_order(
    pool: ThreadPoolExecutor, work: Callable[[bytes], bytes], items: Iterator[bytes]
) -> Iterator[bytes]:
    """Como `pool.map`, pero sin leer más de `AHEAD` elementos por adelantado."""
    waiting: deque[Future[bytes]] = deque()
    for item in items:
        waiting.append(pool.submit(work, item))
        if len(waiting) > AHEAD:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
