"""Features of the blocks that stay frozen: computed once for each image, read every epoch.

What is kept is the method's `prefix` of one image at a time, as computed: no result depends on
which images stand together in a batch, on which run computed a feature, or on where it is kept.
Without a cache features are computed in batches, which may move the last bits of a float32.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
from lightning.fabric import Fabric
from torch import Tensor

from lpmoe_bench.console import Terminal
from lpmoe_bench.data.images import read_image
from lpmoe_bench.data.loader import image_tensor
from lpmoe_bench.data.pairs import Pair
from lpmoe_bench.errors import DataError, ResourceError
from lpmoe_bench.feature_cache.forecast import (
    GIB,
    Wanted,
    forecast,
    idle_because,
    room_bytes,
    wanted_to_test,
    wanted_to_train,
)
from lpmoe_bench.feature_cache.key import feature_key
from lpmoe_bench.feature_cache.packed import FromPrefix, pack
from lpmoe_bench.feature_cache.store import FeatureFolder, View
from lpmoe_bench.files import sha256_file
from lpmoe_bench.model.segmenter import Segmenter
from lpmoe_bench.plan import Plan
from method_zoo.method import Prefix

FOLDER = "features"  # of the cache
TOLERANCE = 1e-4  # share of the largest value by which a feature may differ here: rounding

__all__ = ["FOLDER", "FeatureCache", "forecast", "open_features", "wanted_to_test"]


@dataclass
class FeatureCache:
    """The features of a run's images, and the model that takes them in the place of images.

    computed, seconds: how many features this process had to compute, and how long that took.
    """

    plan: Plan
    fabric: Fabric
    model: FromPrefix
    store: FeatureFolder | dict[View, Tensor]
    view_bytes: int
    digests: dict[Path, str] = field(default_factory=dict)
    computed: int = 0
    seconds: float = 0.0

    def read(self, pair: Pair, mirrored: bool) -> Tensor:
        """Return the packed prefix of an image that `fill` was given, (P, N, C)."""
        return self.store[View(self.digests[pair.image], mirrored)]

    def fill(self, wanted: Wanted, terminal: Terminal) -> bool:
        """Compute what is wanted and not kept yet; the processes of a run share the work.

        Returns False, and says why, where there is no room: then not all of it can be read.
        Raises DataError where what is kept is not what this program computes.
        """
        self.digests |= {pair.image: _digest(pair) for pair in wanted}
        own = list(wanted.items())[self.fabric.global_rank :: self.fabric.world_size]
        missing: dict[Pair, list[View]] = {}
        kept: tuple[Pair, View] | None = None
        for pair, sides in own:
            for view in (View(self.digests[pair.image], side) for side in sides):
                if view in self.store:
                    kept = kept or (pair, view)
                else:
                    missing.setdefault(pair, []).append(view)
        if kept:
            self._compare(*kept)
        trouble = self._no_room(missing) or self._compute(missing, terminal)
        if trouble:
            terminal.note(f"{trouble}: the frozen blocks are computed in every epoch")
        mean = self.fabric.all_reduce(
            torch.tensor(float(not trouble), device=self.fabric.device), reduce_op="mean"
        )
        return float(torch.as_tensor(mean)) == 1.0

    def _no_room(self, missing: dict[Pair, list[View]]) -> str:
        used, folder = 0, self.plan.cache
        if isinstance(self.store, FeatureFolder):
            used, folder = self.store.used_bytes(), self.store.root
        need = self.view_bytes * sum(map(len, missing.values())) * self.fabric.world_size
        room = max(0.0, room_bytes(self.plan, folder, used))
        if need <= room:
            return ""
        return (
            f"features of {need / GIB:.2f} GiB are to be kept, but there is room for "
            f"{room / GIB:.2f} GiB (runtime.cache_gib)"
        )

    def _compute(self, missing: dict[Pair, list[View]], terminal: Terminal) -> str:
        """Compute and keep features; returns what went wrong with the disk."""
        started = time.perf_counter()
        with terminal.bar("computing features", len(missing)) as bar:
            for done, (pair, views) in enumerate(missing.items(), start=1):
                image = image_tensor(read_image(pair.image), self.plan.config.size)
                for view in views:
                    try:
                        self.store[view] = self._feature(image, view.mirrored)
                    except ResourceError as error:
                        cause = getattr(error.__cause__, "strerror", None) or str(error)
                        return f"features cannot be written to {self.plan.cache} ({cause})"
                    self.computed += 1
                bar.update(done, len(missing))
        self.seconds += time.perf_counter() - started
        return ""

    def _compare(self, pair: Pair, view: View) -> None:
        """Compute one feature that is kept; raises DataError when it has become another."""
        image = image_tensor(read_image(pair.image), self.plan.config.size)
        expected, found = self._feature(image, view.mirrored), self.store[view]
        if (expected - found).abs().max() > TOLERANCE * expected.abs().max():
            raise DataError(
                f"the features kept in {getattr(self.store, 'folder', 'memory')} are not those "
                f"computed here now: delete that folder and run the same command again"
            )

    def _feature(self, image: Tensor, mirrored: bool) -> Tensor:
        return pack(_prefix(self.model.segmenter, self.fabric, image, mirrored))[0].cpu()


def open_features(
    plan: Plan, segmenter: Segmenter, fabric: Fabric, terminal: Terminal
) -> FeatureCache | None:
    """Return the features of a plan's training and validation images, computed where missing.

    None where the plan asks for none, where its method has none, or where there is no room.
    """
    config = plan.config
    if config.runtime.cache_features is None or idle_because(segmenter.method):
        return None
    segmenter.to(fabric.device).eval()
    image = torch.zeros(3, config.size, config.size)
    example = _prefix(segmenter, fabric, image, False)
    feature = pack(example)[0].cpu()
    store: FeatureFolder | dict[View, Tensor] = {}
    if config.runtime.cache_features == "disk":
        shape = tuple(feature.shape)
        key = feature_key(config, plan.weights, segmenter.method, shape)
        store = FeatureFolder(plan.cache / FOLDER, key, shape)
    model = FromPrefix(segmenter, example, config.size)
    cache = FeatureCache(plan, fabric, model, store, feature.nbytes)
    return cache if cache.fill(wanted_to_train(plan), terminal) else None


@torch.no_grad()
def _prefix(segmenter: Segmenter, fabric: Fabric, image: Tensor, mirrored: bool) -> Prefix:
    """Run the frozen blocks on one image, (3, s, s), as training would."""
    image = image.flip(-1) if mirrored else image
    with fabric.autocast():
        return segmenter.method.prefix(image[None].to(fabric.device))


def _digest(pair: Pair) -> str:
    try:
        return sha256_file(pair.image)
    except OSError as error:
        raise DataError(f"{pair.image} cannot be read ({error.strerror})") from None
