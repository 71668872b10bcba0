"""The `doctor` command: what is installed, found and writable here, and what to do about it."""

import importlib
import importlib.util
import os
import platform
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from lpmoe_bench.cli import options

LEAST_FREE_BYTES = 2 * 2**30


class Finding(NamedTuple):
    """One line of the report; `advice` is empty where all is well."""

    name: str
    value: str
    advice: str = ""


def doctor_command(*, data_root: options.DataRoot = None, out: options.Output) -> None:
    """Say what is installed and found here, and what to do about what is not."""
    rows = [
        (f.name, f.value + (f"  -> {f.advice}" if f.advice else "")) for f in examine(data_root)
    ]
    out.pairs(rows)


def examine(data_root: Path | None) -> list[Finding]:
    """Return what a run needs, checked one by one; nothing is fetched or changed."""
    checks: list[Callable[[], Finding]] = [
        lambda: Finding("Python", platform.python_version()),
        _code,
        _training_packages,
        _device,
        _default_weights,
        lambda: _data(data_root),
        _disk,
    ]
    return [check() for check in checks]


def _code() -> Finding:
    from lpmoe_bench.environment import collect_environment

    found = collect_environment("")
    commit = found.git_sha[:12] if found.git_sha else "not a git checkout"
    dirty = " with uncommitted changes" if found.git_dirty else ""
    advice = "commit before runs you want to publish" if found.git_dirty else ""
    return Finding("lpmoe-bench", f"{found.version}, {commit}{dirty}", advice)


def _training_packages() -> Finding:
    names = ("torch", "torchvision", "timm", "lightning_fabric", "safetensors", "onnx")
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        advice = "pip install 'lpmoe-bench[train]' to train; tables work without"
        return Finding("training packages", f"missing {', '.join(missing)}", advice)
    from lpmoe_bench.environment import collect_environment

    versions = collect_environment("").packages
    found = ", ".join(f"{name} {versions.get(name)}" for name in ("torch", "torchvision", "timm"))
    # Installed is not enough: torch and torchvision of unlike releases fail when timm is imported.
    try:
        importlib.import_module("timm")
    except (ImportError, RuntimeError) as error:  # torch and torchvision of different releases
        advice = "pip install --force-reinstall 'lpmoe-bench[train]' to get versions that fit"
        return Finding("training packages", f"{found}: {error}", advice)
    return Finding("training packages", found)


def _device() -> Finding:
    if importlib.util.find_spec("torch") is None:
        # No advice, for the base install scores and compares without it.
        return Finding("device", "unknown without torch")
    import torch

    if not torch.cuda.is_available():
        return Finding("device", f"cpu, {torch.get_num_threads()} threads")
    count, name = torch.cuda.device_count(), torch.cuda.get_device_name()
    return Finding("device", f"{count} x {name}")


def _default_weights() -> Finding:
    from lpmoe_bench.model.weights import default_backbone

    cache = options.cache_folder()
    if (cache / default_backbone.FILE).is_file():
        return Finding("default backbone", f"cached in {cache}, verified at each start")
    return Finding("default backbone", "not fetched yet", f"the first run fetches it into {cache}")


def _data(root: Path | None) -> Finding:
    if root is None:
        advice = "the embedded set is used; set LPMOE_BENCH_DATA or --data-root for real sets"
        return Finding("data", "LPMOE_BENCH_DATA is not set", advice)
    if not root.is_dir():
        return Finding("data", f"{root} does not exist", "set LPMOE_BENCH_DATA to your data folder")
    from lpmoe_bench.data.library.listing import set_state

    states = [set_state(dataset, root) for dataset in options.registry(None).datasets.values()]
    there = [(s.dataset.name, s.state) for s in states if s.state != "missing"]
    found = [name if state == "found" else f"{name} ({state})" for name, state in there]
    known = {state.dataset.folder for state in states}
    # A set of the user's own, which no registry here names.
    own = [p.name for p in root.iterdir() if p.name not in known and (p / "images").is_dir()]
    broken = [state.dataset.name for state in states if state.state == "broken"]
    advice = f"lpmoe-bench data verify {' '.join(broken)}" if broken else ""
    return Finding("data", f"{root}: {', '.join(sorted(found + own)) or 'no sets'}", advice)


def _disk() -> Finding:
    free = shutil.disk_usage(os.getcwd()).free
    advice = "free some space before training" if free < LEAST_FREE_BYTES else ""
    return Finding("disk", f"{free / 2**30:.0f} GiB free here", advice)
