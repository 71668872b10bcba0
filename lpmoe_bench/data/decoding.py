"""Bytes of image files to pixels: damaged and oversized ones refused, what decoders say kept."""

from __future__ import annotations

import io
import os
import re
import stat
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, TextIO

import cv2
import numpy as np

from lpmoe_bench.data.headers import JPEG, Header, read_header
from lpmoe_bench.data.photos import photo_kind, read_photo
from lpmoe_bench.errors import DataError

# deflate makes nothing more than 1032 times smaller, and no other packing does without intent.
MOST_RATIO = 1100
ALWAYS_BYTES = 1 << 24  # of pixels, which cost nothing whatever they claim
MOST_BYTES = 3 << 28  # of a decoded PNG: 16384 x 16384 in RGB; a megabyte can claim as much
MOST_PIXELS = 1 << 28  # of an AVIF or HEIC file
ZEROS = bytes(64)  # in a JPEG perhaps a hole where a disk or a download lost a part


def read_file(path: Path) -> bytes:
    """Return the bytes of an image file; raises DataError when it is missing, empty or cut off."""
    try:
        if stat.S_ISFIFO(path.stat().st_mode):  # reading it would wait for ever
            raise DataError(f"{path} cannot be read (it is a pipe)")
        data = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path} does not exist") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from None
    if not data:
        raise DataError(f"{path} is empty (0 bytes); copy or download it again")
    return data


def checked_header(path: Path, data: bytes) -> Header:
    """Return what a file says of itself; raises DataError if it is cut off or claims too much."""
    header = read_header(data)
    # OpenCV decodes what there is of a file that was cut off, so its end is looked for. What
    # follows the end is nobody's business: some programs write their own there.
    if not header.ends:
        raise DataError(f"{path} is truncated: its end is missing; copy or download it again")
    size = f"{path} says it is {header.width} x {header.height} pixels"
    if header.raw_bytes > max(ALWAYS_BYTES, MOST_RATIO * len(data)):
        raise DataError(
            f"{size}, which its {len(data)} bytes cannot hold; copy or download it again"
        )
    if header.kind == "png" and header.decoded_bytes > MOST_BYTES:
        raise DataError(
            f"{size}, {header.decoded_bytes / 2**30:.1f} GiB once decoded; "
            f"{MOST_BYTES / 2**30:.2f} GiB are allowed"
        )
    return header


def decode(path: Path, data: bytes, flags: int, checked: bool = False) -> np.ndarray:
    """Return the pixels of a file's bytes as cv2 reads them; raises DataError naming the file.

    checked: whether `checked_header` has seen these bytes already.
    What the decoder says goes to standard error behind the file's name, once a file. A JPEG with a
    hole of zeros that the decoder complains about is damaged.
    """
    if not checked:
        checked_header(path, data)
    if photo_kind(data):
        return read_photo(path, data, MOST_PIXELS)
    holes = data.startswith(JPEG) and ZEROS in data
    said: list[str] = []
    with _turns.alone() if holes else _turns.with_others(), decoder_words(said, alone=holes):
        pixels = _decoded(path, data, flags)
    if said and holes:
        raise DataError(f"{path} is damaged ({said[0]}); copy or download it again")
    if not said:
        return pixels
    own = _own_words.get(path)
    if own is None:
        # Another thread's file may have been meant. What is said again, alone, is of this one.
        again: list[str] = []
        with _turns.alone():
            with decoder_words(again, alone=True):
                pixels = _decoded(path, data, flags)
            own = _own_words[path] = list(dict.fromkeys(again))
            if own:
                print(f"{path}: {'; '.join(own)}", file=sys.stderr)
    if others := "".join(f"{line}\n" for line in said if line not in own):
        # On to whoever listens; while none of the threads does, or it would be taken for its own.
        with _turns.alone(), suppress(OSError):
            os.write(2, others.encode())
    return pixels


def _decoded(path: Path, data: bytes, flags: int) -> np.ndarray:
    try:
        # From memory: cv2.imread does not open names that are not ASCII on every system.
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        large = "more pixels than are read, 2**30" if "MAX_IMAGE" in error.err else error.err
        raise DataError(f"{path} cannot be decoded ({large})") from None
    if pixels is None:
        raise DataError(f"{path} cannot be decoded: it is damaged or not an image file")
    return pixels


# What the C libraries of decoders say on standard error, without a word of which file it is about.

_own_words: dict[Path, list[str]] = {}
_outer, _inner = threading.Lock(), threading.Lock()
_real: tuple[int, TextIO] | None = None  # standard error of Python while that of C is taken


class _Turns:
    """Threads that decode beside one another, or one that does so alone."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.busy, self.waiting = 0, 0

    @contextmanager
    def with_others(self) -> Iterator[None]:
        """Hold back while a thread is, or waits to be, alone."""
        with self.changed:
            self.changed.wait_for(lambda: not self.waiting)
            self.busy += 1
        try:
            yield
        finally:
            with self.changed:
                self.busy -= 1
                self.changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Wait until all others are done, and let nobody begin."""
        with self.changed:
            self.waiting += 1
            self.changed.wait_for(lambda: not self.busy)
            self.busy += 1
        try:
            yield
        finally:
            with self.changed:
                self.busy -= 1
                self.waiting -= 1
                self.changed.notify_all()


_turns = _Turns()
if hasattr(os, "register_at_fork"):  # a forked process has none of the threads that were busy
    os.register_at_fork(after_in_child=_turns.__init__)


@contextmanager
def decoder_words(said: list[str], alone: bool = False) -> Iterator[None]:
    """Add to a list what is said on standard error meanwhile, below Python.

    One block is open at a time, and another one does nothing: what it would hear the first hears.

    Args:
        said: the lines are added here.
        alone: open a block inside of another one.
    """
    lock = _inner if alone else _outer
    if not lock.acquire(blocking=alone):
        yield
        return
    try:
        try:
            file = _scratch()
            restore = _take(file.fileno())
        except OSError:  # no standard error, no disk: nothing is heard
            yield
            return
        try:
            yield
        finally:
            restore()
            file.seek(0)
            lines = file.read().decode(errors="replace").splitlines()
            file.close()
            said += [line for line in map(str.strip, lines) if _is_word(line)]
    finally:
        lock.release()


def _scratch() -> BinaryIO:
    """Return an open file without a name, in memory where the system has such files."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("decoder"), "w+b")
    return tempfile.TemporaryFile()


def _is_word(line: str) -> bool:
    """Whether a line is a decoder's warning, not a trace of OpenCV's own that an error follows."""
    return bool(line) and not re.match(r"\[ *(ERROR|INFO)|> |OpenCV", line)


def _take(target: int) -> Callable[[], None]:
    """Let standard error of C go to a file, that of Python stay; return what undoes it."""
    global _real
    python, saved = sys.stderr, os.dup(2)
    try:
        own = python.fileno() == 2
    except (AttributeError, OSError, ValueError):  # of a test or a notebook
        own = False
    if own:
        python.flush()
        if _real is None:  # never closed: a thread that draws a progress bar may still hold it
            number = os.dup(2)
            raw = os.fdopen(number, "wb", 0, closefd=False)
            _real = number, io.TextIOWrapper(raw, errors="replace", write_through=True)
        os.dup2(2, _real[0])
        sys.stderr = _real[1]
    os.dup2(target, 2)

    def restore() -> None:
        os.dup2(saved, 2)
        os.close(saved)
        if own and sys.stderr is (_real and _real[1]):  # else it was set meanwhile
            sys.stderr = python

    return restore


# Pixels turned as EXIF says.


def turn(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Return pixels (h, w, ...) upright, as an EXIF orientation of 1 to 8 asks for."""
    if orientation in (5, 6, 7, 8):  # rows are columns
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)
