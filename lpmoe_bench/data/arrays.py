"""Tables of numbers in NumPy and MATLAB files: values alone, never objects to be unpickled."""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lpmoe_bench.errors import DataError

HDF5 = b"\x89HDF"
MOST_BYTES = 1 << 30  # of a file once it is unpacked


def read_arrays(path: Path, data: bytes) -> dict[str, np.ndarray]:
    """Return {dotted name: array} of the bytes of a .npy, .npz or .mat file, as they are.

    Of a .npy the name is empty; of a .mat, tables of numbers alone. Raises DataError for objects,
    MATLAB 7.3, damaged files, and those that claim more than they hold or unpack to too much.
    """
    return _READ[path.suffix.lower()](path, data)


def _npy(path: Path, data: bytes) -> dict[str, np.ndarray]:
    from numpy.lib import format as npy

    stream = io.BytesIO(data)
    try:
        version = npy.read_magic(stream)
        read = npy.read_array_header_1_0 if version[0] == 1 else npy.read_array_header_2_0
        shape, _, kind = read(stream)
        # A header of a hundred bytes can claim any size, which would be set aside at once.
        if not kind.hasobject and math.prod(shape) * kind.itemsize > len(data) - stream.tell():
            raise DataError(f"{path} is truncated: its end is missing; copy or download it again")
        stream.seek(0)
        return {"": npy.read_array(stream, allow_pickle=False)}
    except (ValueError, OSError, EOFError, MemoryError, TypeError, SyntaxError) as error:
        is_object = "allow_pickle" in str(error)
        why = "it holds Python objects, which are never unpickled" if is_object else "it is damaged"
        raise DataError(f"{path} cannot be read as a NumPy array ({why})") from None


def _npz(path: Path, data: bytes) -> dict[str, np.ndarray]:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = [member for member in archive.infolist() if member.filename.endswith(".npy")]
            _refuse_more(path, sum(member.file_size for member in members))
            found = {m.filename.removesuffix(".npy"): archive.read(m) for m in members}
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError, ValueError):
        raise DataError(f"{path} is no .npz archive, or damaged; save it again") from None
    return {name: _npy(path, content)[""] for name, content in found.items()}


def _mat(path: Path, data: bytes) -> dict[str, np.ndarray]:
    if data.startswith(b"MATLAB 7.3") or HDF5 in data[:1024]:
        raise DataError(
            f"{path} is a MATLAB 7.3 file (HDF5), which is not read; save it with save(..., '-v7')"
        )
    _refuse_bomb(path, data)
    from scipy.io import loadmat  # here: nobody else needs it, and it takes a while

    try:
        return dict(_tables(loadmat(io.BytesIO(data))))
    except Exception as error:  # scipy says with a dozen classes that a file is damaged
        text = str(error)[:80]
        raise DataError(f"{path} cannot be read as a MATLAB file ({text})") from None


def _tables(value: Any, name: str = "") -> Iterator[tuple[str, np.ndarray]]:
    """Yield (dotted name, table) of all tables of numbers in the variables of a MATLAB file."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if not key.startswith("__"):
                yield from _tables(inner, key)
    elif isinstance(value, np.ndarray) and value.dtype.names:
        for key in value.dtype.names:
            for inner in value[key].ravel():
                yield from _tables(inner, f"{name}.{key}")
    elif isinstance(value, np.ndarray) and value.dtype == object:
        for inner in value.ravel():
            yield from _tables(inner, name)
    elif isinstance(value, np.ndarray) and value.dtype.kind in "buif" and value.size > 1:
        yield name, value


def _refuse_bomb(path: Path, data: bytes) -> None:
    """Raise DataError for a MATLAB file of version 5 to 7 whose packed parts hold too much."""
    order: Literal["little", "big"] = "little" if data[126:128] == b"IM" else "big"
    at, total = 128, len(data)
    while at + 8 <= len(data):
        kind, size = (int.from_bytes(data[k : k + 4], order) for k in (at, at + 4))
        at += 8
        if kind == 15:  # compressed
            part, rest = zlib.decompressobj(), data[at : at + size]
            try:
                while rest and total <= MOST_BYTES:
                    total += len(part.decompress(rest, 1 << 20))
                    rest = part.unconsumed_tail
            except zlib.error as error:
                raise DataError(f"{path} is damaged ({error}); download it again") from None
        _refuse_more(path, total)
        at += size


def _refuse_more(path: Path, size: int) -> None:
    if size > MOST_BYTES:
        raise DataError(f"{path} unpacks to over {MOST_BYTES} bytes; no mask or map needs so many")


_READ = {".npy": _npy, ".npz": _npz, ".mat": _mat}
