"""Everything beside the image that changes a feature, in words that can be hashed."""

from __future__ import annotations

import hashlib
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import nn

import method_zoo
from lpmoe_bench.config.settings import RunConfig
from lpmoe_bench.data.images import read_image
from lpmoe_bench.data.loader import image_tensor
from lpmoe_bench.environment import processor_name
from lpmoe_bench.model.weights.resolve import Weights, load_backbone
from method_zoo.method import Method

FORMAT = 1  # raise it when features mean something else though nothing below has changed
PACKAGES = ("torch", "timm", "numpy", "opencv-python-headless")
WALKS = ("prefix", "block", "step")  # what a method may run the frozen blocks through


def feature_key(
    config: RunConfig, weights: Weights, method: Method, shape: tuple[int, ...]
) -> dict[str, Any]:
    """Return the key of a method's features, of a shape (P, N, C) an image.

    Methods that inherit the loop share features where as many blocks are frozen; one that walks
    the blocks its own way shares them with itself under the same options. The seed is no part:
    nothing that a method draws may enter its prefix, which the contract checks.
    """
    walk: dict[str, Any] = {"frozen_blocks": method.frozen_blocks, "ends": _ends(method)}
    own = {name: _definer(method, name) for name in WALKS}
    if any(definer is not Method for definer in own.values()):
        walk |= {"method": config.method, "options": config.options}
    code = {Path(sys.modules[definer.__module__].__file__ or "") for definer in own.values()}
    return {
        "format": FORMAT,
        "backbone": weights.timm_name,
        "weights": weights.sha256,
        "pos_antialias": weights.pos_antialias,
        "size": config.size,
        "precision": config.train.precision,
        "processor": _processor(config.runtime.device),
        "walk": walk,
        "shape": list(shape),
        "packages": {name: metadata.version(name) for name in PACKAGES},
        "code": _digest(code | _shared_code()),
    }


def _ends(method: Method) -> list[int]:
    return [group[-1] for group in method.backbone.groups]


def _definer(method: Method, name: str) -> type[nn.Module]:
    """Return the class of a method that defines an attribute."""
    return next(cls for cls in type(method).__mro__ if name in vars(cls))


def _shared_code() -> set[Path]:
    """Return the files that read images and weights, and those that all methods share."""
    reading = {Path(sys.modules[f.__module__].__file__ or "") for f in (read_image, image_tensor)}
    weights = Path(sys.modules[load_backbone.__module__].__file__ or "").parent.glob("*.py")
    return {*reading, *weights, *Path(method_zoo.__file__ or "").parent.glob("_*.py")}


def _digest(files: set[Path]) -> str:
    digest = hashlib.sha256()
    for path in sorted(files, key=lambda path: path.parts[-2:]):
        digest.update(f"{path.name}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def _processor(device: str) -> str:
    return torch.cuda.get_device_name() if device == "cuda" else processor_name()
