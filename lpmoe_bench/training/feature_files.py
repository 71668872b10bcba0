"""Features on disk: what a file of them is known by, and how it is kept and checked."""

import hashlib
import json
import sys
import zlib
from collections.abc import Mapping
from dataclasses import asdict
from importlib import metadata
from inspect import getfile
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

import method_zoo
from lpmoe_bench.config.settings import RunConfig
from lpmoe_bench.data import decoding, headers, images, label_rules, labels, loader, pixels, readers
from lpmoe_bench.environment import processor_name
from lpmoe_bench.errors import DataError
from lpmoe_bench.files import write_atomically
from lpmoe_bench.model.plugins import used_plugins
from lpmoe_bench.model.weights import resolve
from method_zoo.method import Method

# Everything beside the image that changes a feature, as a key that can be hashed.

FORMAT = 1  # raise it when features mean something else though nothing below has changed
PACKAGES = ("torch", "timm", "numpy", "opencv-python-headless")
WALKS = ("prefix", "block", "step")  # what a method may run the frozen blocks through


def feature_key(
    config: RunConfig, weights: resolve.Weights, method: Method, shape: tuple[int, ...]
) -> dict[str, Any]:
    """Return the key of a method's features, of a shape (P, N, C) an image.

    Methods that inherit the loop share features where as many blocks are frozen; one that walks
    the blocks its own way shares them with itself under the same options. The seed is no part:
    nothing that a method draws may enter its prefix, which the contract checks.
    """
    ends = [group[-1] for group in method.backbone.groups]
    walk: dict[str, Any] = {"frozen_blocks": method.frozen_blocks, "ends": ends}
    classes = type(method).__mro__
    own = {name: next(cls for cls in classes if name in vars(cls)) for name in WALKS}
    if any(definer is not Method for definer in own.values()):
        walk |= {"method": config.method, "options": config.options}
        # All of its package: the file of its class, below, may call others beside it.
        walk |= {f"plugin {one.kind}": one.digest for one in used_plugins(config)}
    on_gpu = config.runtime.device == "cuda"
    code = {Path(sys.modules[definer.__module__].__file__ or "") for definer in own.values()}
    return {
        "format": FORMAT,
        "backbone": weights.timm_name,
        "weights": weights.sha256,
        "facts": asdict(weights.facts),
        "size": config.size,
        "preprocessing": config.preprocessing,
        "precision": config.train.precision,
        "processor": torch.cuda.get_device_name() if on_gpu else processor_name(),
        "walk": walk,
        "shape": list(shape),
        "packages": {name: metadata.version(name) for name in PACKAGES},
        "code": _digest(code | _shared_code()),
        **({"fit": config.fit} if config.fit != loader.SQUASH else {}),
    }


def _shared_code() -> set[Path]:
    """Return the files that read images and weights, and those that all methods share."""
    weights, zoo = Path(resolve.__file__).parent, Path(getfile(method_zoo)).parent
    folders = (weights, zoo / "backbones", zoo / "parts")
    shared = {path for folder in folders for path in folder.glob("*.py")}
    return shared | _reading_files() | {zoo / "method.py"}


def _reading_files() -> set[Path]:
    return {Path(module.__file__ or "") for module in (decoding, headers, images, loader, pixels)}


def reading_code() -> str:
    """Return 64 hex digits of the code that reads images and labels."""
    of_labels = {Path(module.__file__ or "") for module in (labels, label_rules, readers)}
    return _digest(_reading_files() | of_labels)


def _digest(files: set[Path]) -> str:
    digest = hashlib.sha256()
    for path in sorted(files, key=lambda path: path.parts[-2:]):
        # By name and content: the same files in another folder are the same code.
        digest.update(f"{path.name}\0".encode() + path.read_bytes())
    return digest.hexdigest()


# Features on disk: one checked file for each view of an image, never unpickled.

SUFFIX = ".safetensors"
TENSOR = "features"


class View(NamedTuple):
    """An image as a backbone sees it. digest: SHA-256 of its file, 64 hex digits."""

    digest: str
    mirrored: bool


class FeatureFolder:
    """The features of views, used like a dict; all of one shape and of one key.

    key: everything beside the view that changes a feature; each key has a folder of its own under
    the root, where `key.json` shows it. A file that is damaged, or of another view, key or shape,
    counts as missing: assigning replaces it. Processes may share a folder.
    """

    def __init__(self, root: Path, key: Mapping[str, Any], shape: tuple[int, ...]):
        self.root, self.shape = root, shape
        self.text = json.dumps(dict(key), sort_keys=True, indent=1)
        self.digest = hashlib.sha256(self.text.encode()).hexdigest()
        self.folder = root / self.digest[:24]

    def path(self, view: View) -> Path:
        """Return the file of a view."""
        side = "mirrored" if view.mirrored else "plain"
        return self.folder / view.digest[:2] / f"{view.digest[:40]}-{side}{SUFFIX}"

    def get(self, view: View) -> Tensor | None:
        """Read a feature and check it; None when it is not there, or damaged."""
        return self._load(view)

    def __contains__(self, view: View) -> bool:
        return self._load(view) is not None

    def __getitem__(self, view: View) -> Tensor:
        """Read a feature and check it; raises DataError when it is not there, or damaged."""
        feature = self._load(view)
        if feature is None:
            raise DataError(
                f"the cached features {self.path(view)} were damaged or removed meanwhile; run the "
                f"same command again, which computes them anew and goes on"
            )
        return feature

    def __setitem__(self, view: View, feature: Tensor) -> None:
        """Write a feature in one rename; raises ResourceError when the disk is full."""
        if not (self.folder / "key.json").exists():
            write_atomically(self.folder / "key.json", self.text + "\n")
        # With a checksum inside, a damaged file or that of another view never passes for this one.
        feature = feature.contiguous()
        about = self._about(view) | {"crc32": _checksum(feature)}
        write_atomically(self.path(view), save({TENSOR: feature}, metadata=about))

    def used_bytes(self, own: bool = False) -> int:
        """Return what all features under the root take, or those of its own key alone."""
        folder = self.folder if own else self.root
        return sum(path.stat().st_size for path in folder.rglob(f"*{SUFFIX}"))

    def _about(self, view: View) -> dict[str, str]:
        return {"key": self.digest, "view": f"{view.digest} {view.mirrored}"}

    def _load(self, view: View) -> Tensor | None:
        try:
            with safe_open(str(self.path(view)), framework="pt") as file:
                about, feature = file.metadata() or {}, file.get_tensor(TENSOR)
        except (SafetensorError, OSError):
            return None
        if tuple(feature.shape) != self.shape:
            return None
        return feature if about == self._about(view) | {"crc32": _checksum(feature)} else None


def _checksum(feature: Tensor) -> str:
    return f"{zlib.crc32(feature.view(torch.uint8).numpy().data):08x}"
