"""The outer wall: whatever befalls a command ends in one sentence and a documented exit code."""

import errno
import io
import os
import subprocess
import sys

import cv2
import numpy as np
import pytest

from lpmoe_bench.cli import app
from lpmoe_bench.console import NoteStream, OutputStream, Terminal, printable
from lpmoe_bench.environment import default_cache
from lpmoe_bench.errors import DivergedError, InterruptedRun, OutputClosed
from method_zoo.errors import ZooError

pytestmark = pytest.mark.faults


class OutOfMemoryError(RuntimeError):
    """As torch names its own."""


def system(number, *name):
    return OSError(number, os.strerror(number), *name)


def no_array():
    np.zeros((1 << 60,), np.uint8)


def no_image():
    cv2.resize(np.zeros((2, 2), np.uint8), (2**31 - 1, 2**31 - 1))


def no_number():
    float(10**400)


def no_end():
    no_end()


TORCH = "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory"
TOLD = {
    "a torch allocator": (RuntimeError(TORCH), 6, "out of memory"),
    "a GPU": (OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), 6, "out of memory"),
    "cuBLAS": (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED"), 6, "out of memory"),
    "Python's memory": (MemoryError(), 6, "out of memory"),
    "numpy's memory": (no_array, 6, "out of memory"),
    "OpenCV's memory": (no_image, 6, "out of memory"),
    "a process too many": (system(errno.ENOMEM), 6, "out of memory"),
    "a full disk": (system(errno.ENOSPC, "a.png"), 6, "the disk is full (a.png: No space left"),
    "a quota": (system(errno.EDQUOT), 6, "the disk is full (Disk quota exceeded)"),
    "files": (system(errno.EMFILE), 6, "the system refused it (Too many open files)"),
    "no right": (system(errno.EACCES, "x"), 6, "the system refused it (x: Permission denied)"),
    "a disk that fails": (system(errno.EIO, b"x"), 6, "the system refused it (x: Input/output"),
    "no file": (system(errno.ENOENT, "x"), 2, "cannot be used (x: No such file"),
    "a long name": (system(errno.ENAMETOOLONG, "x"), 2, "cannot be used (x: File name too long)"),
    "depth": (no_end, 3, "nested too deeply"),
    "a number": (no_number, 2, "too large to compute with (int too large to convert"),
    "a name": (UnicodeEncodeError("ascii", "ä", 0, 1, "no"), 2, "set LC_ALL=C.UTF-8"),
    "no home": (RuntimeError("Could not determine home directory."), 2, "set HOME"),
    "no torch": (ModuleNotFoundError("no", name="torch"), 2, "pip install 'lpmoe-bench[train]'"),
    "a method": (ZooError("rank is 0"), 2, "rank is 0"),
    "a run": (DivergedError("the loss is nan"), 7, "the loss is nan"),
    "a stop": (InterruptedRun("interrupted"), 130, "interrupted"),
}


def fail_with(monkeypatch, cause):
    def command():
        if callable(cause):
            cause()
        raise cause

    monkeypatch.setattr(app, "app", command)


def ended(capsys) -> tuple[int, str]:
    with pytest.raises(SystemExit) as end:
        app.main()
    return end.value.code, capsys.readouterr().err


@pytest.mark.parametrize("name", TOLD)
def test_every_failure_is_one_line_and_its_code(monkeypatch, capsys, name):
    cause, code, words = TOLD[name]
    fail_with(monkeypatch, cause)
    found, text = ended(capsys)
    assert (found, text.count("\n")) == (code, 1), text
    assert text.startswith("error: ")
    assert words in text


@pytest.mark.parametrize(
    "error", [ValueError("x"), RuntimeError("shapes differ"), ModuleNotFoundError("x", name="x")]
)
def test_faults_of_ours_keep_their_traceback(monkeypatch, error):
    fail_with(monkeypatch, error)
    with pytest.raises(type(error)) as caught:
        app.main()
    assert caught.value is error


def test_who_looks_for_a_fault_sees_where_it_came_from(monkeypatch):
    monkeypatch.setenv("LPMOE_BENCH_TRACEBACK", "1")
    fail_with(monkeypatch, system(errno.ENOSPC))
    with pytest.raises(OSError, match="No space"):
        app.main()


def test_a_folder_that_is_gone(monkeypatch, capsys, tmp_path):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    monkeypatch.setattr(app, "app", lambda: pytest.fail("it was started all the same"))
    code, text = ended(capsys)
    assert (code, text) == (2, "error: the working folder does not exist any more; change to one "
                               "that does\n")  # fmt: skip


def test_without_a_home_the_cache_says_what_to_set(monkeypatch, capsys):
    for name in ("HOME", "LPMOE_BENCH_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.path.expanduser", lambda path: path)  # as for a user of no name
    fail_with(monkeypatch, default_cache)
    assert ended(capsys) == (
        2,
        "error: no home folder is known; set HOME, or LPMOE_BENCH_CACHE to a folder\n",
    )


# Streams.


@pytest.mark.parametrize("late", [True, False])
def test_a_full_output_is_told_at_once_or_at_the_end(monkeypatch, capsys, late):
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        monkeypatch.setattr(app, "app", lambda: print("x" * (10 if late else 100_000)))
        code, text = ended(capsys)
    assert code == 6
    assert text.startswith("error: the output could not be written (No space left on device)")


@pytest.mark.parametrize("late", [True, False])
def test_a_reader_that_goes_away(monkeypatch, capsys, late):
    reads, writes = os.pipe()
    os.close(reads)
    with open(writes, "w") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        monkeypatch.setattr(app, "app", lambda: print("x" * (10 if late else 100_000)))
        code, text = ended(capsys)
    assert (code, text.count("\n")) == (OutputClosed.exit_code, 1)


def test_an_error_counts_more_than_an_output_that_is_full(monkeypatch, capsys):
    def command():
        print("x")
        raise DivergedError("the loss is nan")

    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        monkeypatch.setattr(app, "app", command)
        assert ended(capsys) == (7, "error: the loss is nan\n")


def test_full_notes_stop_nothing(monkeypatch):
    with open("/dev/full", "wb", buffering=0) as raw:
        full = io.TextIOWrapper(raw, write_through=True)
        monkeypatch.setattr(sys, "stderr", full)

        def command():
            terminal = Terminal()
            terminal.note("said to nobody")
            with terminal.bar("work", 2) as bar:
                bar.update(1, 2)
            raise DivergedError("said to nobody as well")

        fail_with(monkeypatch, command)
        with pytest.raises(SystemExit) as end:
            app.main()
        assert end.value.code == 7
        assert sys.stderr is full  # what stood there is back


def test_streams_are_what_they_were(tmp_path):
    with open(tmp_path / "a", "w") as file:
        for kind in (OutputStream, NoteStream):
            stream = kind(file)
            assert (stream.isatty(), stream.fileno(), stream.encoding) == (
                *(False, file.fileno(), file.encoding),
            )
            assert stream.write("text") == 4
            stream.flush()
    assert (tmp_path / "a").read_text() == "texttext"


LIST = [sys.executable, "-m", "lpmoe_bench", "list", "größe\udcff\x1b[31m"]


@pytest.mark.parametrize("streams", ["", ">&- 2>&- <&-"])
def test_a_process_with_closed_streams_and_a_plain_locale(streams):
    plain = {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    script = f'"$@" {streams}; echo "code $?"'
    done = subprocess.run(
        ["sh", "-c", script, "sh", *LIST], capture_output=True, env=os.environ | plain
    )
    assert done.stdout == b"code 2\n"
    if "2>" not in streams:
        assert b"error: unknown kind to list 'gr" in done.stderr
        assert done.stderr.count(b"\n") == 1
        assert b"\x1b" not in done.stderr
        assert b"\\x1b[31m" in done.stderr


@pytest.mark.parametrize("text", ["\x1b[2J", "\x9b2J", "a\u202eb", "\x07", "\udcff", "\x7f", "\r"])
def test_names_move_no_cursor(text):
    shown = printable(f"größe\t{text}\n")
    assert shown.startswith("größe\t")
    assert "\\" in shown
    assert shown.endswith("\n")
    assert "".join(shown.split()).isprintable()
    assert printable(shown) == shown
