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
from lpmoe_bench.files import sha256_file

LEAST_FREE_BYTES = 2 * 2**30
# SHA-256 of each file of segment-anything 1.0 as PyPI has it. Nobody maintains the package, and the
# numbers of SAM's decoder and encoders rest on its code.
SAM_FILES = {
    "__init__.py": "c8d8eb649610b2d51f138481a89617a3dcb61106465121dcb1c2f23affc84c30",
    "automatic_mask_generator.py": "c818960c61c4f51d3f5a2286034d4b5f491e05ab1e84f3155756d9d031375d01",  # noqa: E501
    "build_sam.py": "9dd66a90524c63458c2cacec971963834c92e9f87ff1de99485f7b1c2b4dc9b8",
    "modeling/__init__.py": "47f6363b86c0bfaa7a6abf723975136d17fae4a5f002d2814a5cce8834d18980",
    "modeling/common.py": "59a53bfa5d0a4d446df7f2bb57d2e95808b130601592b934600fb663d256ce17",
    "modeling/image_encoder.py": "ec9dd904e88c0d8feef5c62d9459fb517036990854ab390a7635e3d9dbed00e4",
    "modeling/mask_decoder.py": "6775488f57a425acfc4a2391d9f552c0fe99950ee8eea93cb74828c46335f1d8",
    "modeling/prompt_encoder.py": "bd8f2f5903f0647f55c21c608bcbb334eec2901ebe76aa41061b1c513df4a06f",  # noqa: E501
    "modeling/sam.py": "43a8e7ae55e440db4fc6bb00bc26d5a50610467ef37fac8d3be4648f3db2d871",
    "modeling/transformer.py": "680c463c365bacb9304468f91addc8131d8de8aeb96bfc3e39ebb365f01a29a0",
    "predictor.py": "7a97015cb3ea812c8c389e88cbab53fcfa825c19506a5240b4e26b723f3681c4",
    "utils/__init__.py": "34bd8069c54764e7b8d73a78905dbe6467140a2f73170875128f6ca4d8cdd0aa",
    "utils/amg.py": "ba333540bf125fe5fe06396e9f1bcc53f603caa21856db6223b1e89a1c56b2c2",
    "utils/onnx.py": "6f939eb882441220f0b2700527e9048770cde34cee8f402fa75ae91a2e16708c",
    "utils/transforms.py": "5d64e083cc0f68dc59c20d75f49a21b306a772b8a35560b3287b5084a9e7711a",
}


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
        _sam_package,
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


def _sam_package() -> Finding:
    found = importlib.util.find_spec("segment_anything")  # which imports nothing of it
    if found is None or found.origin is None:
        return Finding("segment-anything", "not installed")
    wrong = changed_files(Path(found.origin).parent)
    if wrong:
        advice = "pip install --force-reinstall --no-deps segment-anything==1.0"
        return Finding("segment-anything", f"not the files of 1.0: {', '.join(wrong)}", advice)
    return Finding("segment-anything", "1.0, every file as published")


def changed_files(folder: Path) -> list[str]:
    """Return the files of a package's folder that `SAM_FILES` does not know, or knows otherwise."""
    there = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*.py")}
    known = {name: sha256_file(path) for name, path in there.items()}
    return sorted(name for name in {*known, *SAM_FILES} if known.get(name) != SAM_FILES.get(name))


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
