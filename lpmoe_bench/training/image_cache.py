"""Resized pairs on disk, so that large photographs are decoded once and not in every epoch."""

import hashlib
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lpmoe_bench.console import Terminal
from lpmoe_bench.data.loader import PairDataset, as_floats
from lpmoe_bench.data.pairs import Pair
from lpmoe_bench.data.splits import stamp_of
from lpmoe_bench.errors import ResourceError
from lpmoe_bench.training.feature_files import FeatureFolder, View, reading_code
from lpmoe_bench.training.features import GIB, room_bytes
from lpmoe_bench.training.plan import Plan

FORMAT = 1  # raise it when files mean something else though nothing in the key has changed
FOLDER = "images"  # of the cache
IGNORED_AS = 254  # of a byte, where a mask is -1; of label maps no class has this number


class ResizedPairs:
    """What a data set makes of its pairs before anything is drawn, kept a file a pair.

    Called with a pair and with what makes its image, float32 (3, h, w) in [0, 1], and its target,
    it returns these two, to the bit as they are made: 8-bit images are kept as bytes, others as
    they are. A file counts as long as the pair's files have the same place, size, inode and dates.
    Processes share the folder. Where the disk is full, the rest is made anew each time.
    """

    def __init__(self, root: Path, dataset: PairDataset):
        shape = (4, *dataset.sides)  # the image, and the target as its last channel
        self.like, self.as_bytes = dataset.reader.like, dataset.as_bytes
        self.folder = FeatureFolder(root / FOLDER, _key(dataset), shape)
        self.is_full = False

    def __call__(
        self, pair: Pair, make: Callable[[], tuple[Tensor, Tensor]]
    ) -> tuple[Tensor, Tensor]:
        view = View(_digest(pair), False)
        kept = self.folder.get(view)
        if kept is not None:
            return self._unpack(kept)
        image, target = make()
        if not self.is_full:
            try:
                self.folder[view] = _pack(image, target)
            except ResourceError:
                self.is_full = True
        return image, target

    def _unpack(self, kept: Tensor) -> tuple[Tensor, Tensor]:
        image, target = kept[:3], kept[3].to(self.like.dtype)
        if kept.dtype == torch.uint8 and self.like.is_floating_point():
            target[kept[3] == IGNORED_AS] = -1
        return image if self.as_bytes else as_floats(image), target.reshape(
            *self.like.shape[:-2], *target.shape
        )


def _pack(image: Tensor, target: Tensor) -> Tensor:
    """Return both as bytes, (4, h, w), where these hold the image to the bit, else as floats."""
    values = target.reshape(1, *target.shape[-2:])
    # Kept as bytes only where the way back gives the very same floats, which is looked at.
    small = image if image.dtype == torch.uint8 else (image * 255).round_().to(torch.uint8)
    if not torch.equal(as_floats(small), as_floats(image)):  # of more bits, or padded with a mean
        return torch.cat([image, values.float()])
    return torch.cat([small, torch.where(values < 0, IGNORED_AS, values).to(torch.uint8)])


def _digest(pair: Pair) -> str:
    places = f"{pair.image.resolve()}\0{pair.mask}\0{stamp_of(pair)}"
    return hashlib.sha256(places.encode()).hexdigest()


def _key(dataset: PairDataset) -> dict[str, Any]:
    """Return everything beside a pair that changes what is kept."""
    return {
        "format": FORMAT,
        "sides": list(dataset.sides),
        "fit": dataset.fit,
        "preprocessing": dataset.version,
        "reduced": dataset.reduced,
        "target": type(dataset.reader).__name__,
        "packages": {name: metadata.version(name) for name in ("torch", "opencv-python-headless")},
        "code": reading_code(),
    }


def keep_resized(plan: Plan, terminal: Terminal) -> ResizedPairs | None:
    """Return what keeps the training pairs; None, and why is said, where there is no room."""
    dataset = plan.training_set()
    kept = ResizedPairs(plan.cache, dataset)
    h, w = dataset.sides
    need = len(dataset) * 4 * h * w - kept.folder.used_bytes(own=True)
    room = room_bytes(plan, kept.folder.root, kept.folder.used_bytes())
    if need > room:
        terminal.note(
            f"resized images of {need / GIB:.2f} GiB are to be kept, but there is room for "
            f"{max(0.0, room) / GIB:.2f} GiB: they are decoded in every epoch"
        )
        return None
    return kept
