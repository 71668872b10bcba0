"""This machine: where a result was made, and what its environment variables ask for."""

import ctypes
import gc
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import metadata
from pathlib import Path

from pydantic import BaseModel, ConfigDict

import lpmoe_bench


class Environment(BaseModel):
    """Where it ran. git_dirty tells whether the code differed from git_sha; None: not in git."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    python: str
    platform: str
    cpu: str
    device: str
    packages: dict[str, str] = {}
    torch: str | None = None
    git_sha: str | None = None
    git_dirty: bool | None = None
    version: str


@contextmanager
def no_collection() -> Iterator[None]:
    """Make many small objects without a search for circles among them.

    Records and pairs have none, and each search would walk over all of those that are there.
    """
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def default_cache() -> Path:
    """Return the folder for fetched weights: LPMOE_BENCH_CACHE, or ~/.cache/lpmoe-bench."""
    chosen = os.environ.get("LPMOE_BENCH_CACHE")
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "lpmoe-bench"


def is_offline(asked: bool = False) -> bool:
    """Whether nothing may be fetched: as asked for, or by LPMOE_BENCH_OFFLINE."""
    return asked or bool(os.environ.get("LPMOE_BENCH_OFFLINE"))


# Packages whose version can move a number.
PACKAGES = (
    *("numpy", "scipy", "opencv-python-headless", "pysodmetrics", "torch", "torchvision"),
    *("timm", "lightning-fabric", "safetensors", "segment-anything", "onnx"),
)
CODE = ("lpmoe_bench", "method_zoo", "pyproject.toml", "datasets.yaml")


def collect_environment(device: str) -> Environment:
    """Describe this process; `device` is what it computes on, in the caller's words."""
    packages = installed_packages()
    sha, dirty = _own_state()
    return Environment(
        python=platform.python_version(),
        platform=platform.platform(),
        cpu=f"{processor_name()}, {os.cpu_count()} cores",
        device=device,
        packages=packages,
        torch=packages.get("torch"),
        git_sha=sha,
        git_dirty=dirty,
        version=lpmoe_bench.__version__,
    )


def installed_packages() -> dict[str, str]:
    """Return the versions of the packages that matter, without importing any."""
    versions = {name: _version(name) for name in PACKAGES}
    return {name: version for name, version in versions.items() if version is not None}


def _version(name: str) -> str | None:
    """Return the version of an installed package, None where it is not there.

    From the first lines of its metadata: `metadata.version` parses all of them as a mail, which
    takes longer for our packages than scoring ten images.
    """
    try:
        found = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return None
    head = (found.read_text("METADATA") or "").partition("\n\n")[0]
    lines = (line for line in head.splitlines() if line.startswith("Version:"))
    return next(lines, "").removeprefix("Version:").strip() or found.version


def usable_cores() -> int:
    """Return how many processor cores this process may use: fewer than there are in a container."""
    if hasattr(os, "sched_getaffinity"):  # not on Windows, nor on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory_bytes() -> int:
    """Return the bytes of memory that this machine has; no end of them where it does not tell."""
    if not hasattr(os, "sysconf"):  # on Windows
        return sys.maxsize
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


# Of glibc's mallopt, with its own values: how many blocks may be mapped one by one, and how many
# bytes may stay free at the end of what a process holds.
M_MMAP_MAX, M_TRIM_THRESHOLD = -4, -1
MAPPED, FREE = 65536, 128 * 2**10


def keep_freed_memory(keep: bool = True) -> None:
    """Let this process keep what it frees for what it takes next, where glibc lends its memory.

    A training step on a CPU frees and takes the same gigabytes over and over; pages that are new
    each time cost a twentieth of it. Where sizes differ at every turn a process may come to hold
    more than without, a fifth was seen.

    Args:
        keep: False gives memory back as glibc does by itself, for a process that was forked.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another system, or another allocator
        return
    mallopt(M_MMAP_MAX, 0 if keep else MAPPED)
    mallopt(M_TRIM_THRESHOLD, -1 if keep else FREE)  # -1: without end


def processor_name() -> str:
    """Return the processor's model name, or its architecture where the system tells no more."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


@cache  # a process runs what it has imported, whatever is committed meanwhile
def _own_state() -> tuple[str | None, bool | None]:
    return git_state(Path(lpmoe_bench.__file__).parent.parent)


def git_state(folder: Path) -> tuple[str | None, bool | None]:
    """Return the commit the code in `folder` belongs to, and whether the code differs from it.

    Only code counts: notes and results beside it make no difference to a number. (None, None)
    where the code is not a git checkout, such as an installed wheel.
    """
    # An installed package may lie inside somebody's repository, but is not tracked there.
    if _git(folder, "ls-files", "--error-unmatch", "lpmoe_bench/__init__.py") is None:
        return None, None
    sha = _git(folder, "rev-parse", "HEAD")
    changes = _git(folder, "status", "--porcelain", "--", *CODE)
    return sha, None if changes is None else changes != ""


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=folder,
            env=os.environ | {"GIT_OPTIONAL_LOCKS": "0"},
            capture_output=True,
            text=True,
            timeout=30,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
