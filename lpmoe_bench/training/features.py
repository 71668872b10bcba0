"""Features of the blocks that stay frozen: computed once for each image, read every epoch.

What is kept is the method's `prefix` of one image at a time, as computed: no result depends on
which images stand together in a batch, on which run computed a feature, or on where it is kept.
Without a cache features are computed in batches, which may move the last bits of a float32.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import ceil, prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from lpmoe_bench.console import Terminal
from lpmoe_bench.data.loader import image_tensor, load_image
from lpmoe_bench.data.pairs import Pair
from lpmoe_bench.environment import memory_bytes
from lpmoe_bench.errors import DataError, ResourceError, UsageError
from lpmoe_bench.files import sha256_file
from lpmoe_bench.model.segmenter import Segmenter, blueprint
from lpmoe_bench.training.feature_files import FeatureFolder, View, feature_key
from lpmoe_bench.training.plan import Plan
from method_zoo.method import Method, Prefix

if TYPE_CHECKING:  # it takes seconds to import, which a plan or a refusal need not wait for
    from lightning_fabric import Fabric

# A frozen prefix as one tensor for each image, and the model that goes on from there.


def pack(prefix: Prefix) -> Tensor:
    """Stack the distinct states of a prefix, P of them with N tokens each: (B, P, N, C).

    Those of stages, which differ in N and C, stand one behind the other instead: (B, numbers).
    """
    # dicts keep their order, so the same method always stacks its states alike.
    states = list(_distinct(prefix).values())
    if len({x.shape for x in states}) > 1:
        return torch.cat([x.flatten(1) for x in states], dim=1)
    return torch.stack(states, dim=1)


class FromPrefix(nn.Module):
    """A segmenter fed with packed prefixes, as `pack` returns them, in place of images.

    sides: of these images, (h, w).

    example: the prefix of any such image, which has all that does not depend on the image.
    """

    def __init__(self, segmenter: Segmenter, example: Prefix, sides: tuple[int, int]):
        super().__init__()
        self.segmenter, self.sides = segmenter, sides
        distinct = _distinct(example)
        states, names = [example.tokens, *example.taps], list(distinct)
        self._shapes = [x.shape[1:] for x in distinct.values()]
        # Which of the stacked states is the prefix's
        # end, and which each tap; some are the same one.
        self._places = [names.index(id(t.x)) for t in states]
        self._states = [t._replace(x=t.x.new_empty(0)) for t in states]
        # Reductions add up in the order of memory, so a layout is part of the last bits.
        self._by_channel = [t.x.mT.is_contiguous() for t in states]

    def forward(self, packed: Tensor, targets: Any = None, examine: bool = False) -> Any:
        """Return what the segmenter returns: predictions, or with targets the loss."""
        parts = self._parts(packed)
        kept = zip(self._states, self._places, self._by_channel, strict=True)
        tokens, *taps = (
            state._replace(x=_laid_out(parts[place], by_channel))
            for state, place, by_channel in kept
        )
        features = self.segmenter.method.finish(Prefix(tokens, taps))
        return self.segmenter.finish(features, self.sides, targets, examine)

    def _parts(self, packed: Tensor) -> list[Tensor]:
        """Return the distinct states, (B, N, C) each."""
        if packed.ndim > 2:
            return list(packed.unbind(1))
        parts = packed.split([prod(shape) for shape in self._shapes], dim=1)
        return [x.unflatten(1, shape) for x, shape in zip(parts, self._shapes, strict=True)]


def _laid_out(x: Tensor, by_channel: bool) -> Tensor:
    """Lay (B, N, C) out in memory as the backbone does: what reads it rounds alike only then."""
    return x.mT.contiguous().mT if by_channel else x.contiguous()


def _distinct(prefix: Prefix) -> dict[int, Tensor]:
    """Return the token tensors by identity: the last tap often is the prefix's end itself."""
    return {id(t.x): t.x for t in (prefix.tokens, *prefix.taps)}


# How large a feature cache will be, and the room there is for it.

MIB, GIB = 2**20, 2**30
FLOAT_BYTES = 4
SHARE = 0.5  # of what is free: the rest is for training, and for others

Wanted = Mapping[Pair, tuple[bool, ...]]  # the sides of each image, False: plain, True: mirrored


class Forecast(NamedTuple):
    """Features that a run will keep, and the bytes of each."""

    views: int
    view_bytes: int

    @property
    def bytes(self) -> int:
        return self.views * self.view_bytes

    def __str__(self) -> str:
        each, all_ = self.view_bytes / MIB, self.bytes / GIB
        return f"{self.views} of {each:.2f} MiB, {all_:.2f} GiB together"


def forecast(plan: Plan) -> Forecast | str:
    """Return the size of a plan's cache, computed on shapes alone, or why there will be none.

    Raises UsageError for a method that goes past its own prefix.
    """
    method = blueprint(plan.config).method
    if idle := idle_because(method):
        return idle
    with torch.no_grad():
        image = torch.empty(1, 3, *plan.config.sides, device="meta")
        shape = pack(method.prefix(image)).shape
    wanted = [wanted_to_train(plan)]
    if plan.config.runtime.cache_test:
        wanted.append(wanted_to_test(plan))
    views = sum(len(sides) for part in wanted for sides in part.values())
    return Forecast(views, FLOAT_BYTES * prod(shape))


def idle_because(method: Method) -> str:
    """Say why there is nothing to keep of a method; raises UsageError where it cannot be used."""
    if not method.frozen_blocks:
        return (
            f"runtime.cache_features does nothing for {method.title}, "
            f"which leaves no block as it is"
        )
    if type(method).forward is not Method.forward:
        raise UsageError(
            f"{method.title} has a forward pass of its own, which would not use what is cached; "
            f"leave runtime.cache_features out"
        )
    return ""


def wanted_to_train(plan: Plan) -> Wanted:
    """Return the sides on which training and validation will see each image."""
    dataset, train = plan.training_set(), plan.config.train
    count = len(dataset)
    epochs = ceil(train.steps / max(1, count // train.batch)) if train.steps else train.epochs
    wanted: dict[Pair, tuple[bool, ...]] = {}
    for index, pair in enumerate(dataset.pairs):
        # Which epochs mirror an image follows from the seed, so it is known before they begin.
        sides: set[bool] = set()
        for epoch in range(epochs):
            sides.add(dataset.mirrored((epoch, index)))
            if len(sides) == 1 + dataset.flip:
                break
        wanted[pair] = tuple(sorted(sides))
    return wanted | dict.fromkeys(plan.validation.pairs if plan.validation else (), (False,))


def wanted_to_test(plan: Plan) -> Wanted:
    return {pair: (False,) for split in plan.tests for pair in split.pairs}


def room_bytes(plan: Plan, folder: Path, used: int) -> float:
    """Return how many bytes of features may be added; `used` is what all of them take already.

    The limit is that of the settings, else a share of what is free in memory or on disk.
    """
    limit = plan.config.runtime.cache_gib
    if limit is not None:
        return limit * GIB - used
    if plan.config.runtime.cache_features == "memory":
        return SHARE * _free_memory()
    while not folder.exists():
        folder = folder.parent
    return SHARE * shutil.disk_usage(folder).free


def _free_memory() -> int:
    """Return the bytes that can be had without swapping; all there are where none can tell."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return memory_bytes()


FOLDER = "features"  # of the cache
TOLERANCE = 1e-4  # share of the largest value by which a feature may differ here: rounding


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
        # Each process computes every world_size-th image and reads what the others have written.
        own = list(wanted.items())[self.fabric.global_rank :: self.fabric.world_size]
        missing: dict[Pair, list[View]] = {}
        kept: tuple[Pair, View] | None = None
        for pair, sides in own:
            for view in (View(self.digests[pair.image], side) for side in sides):
                if view in self.store:
                    kept = kept or (pair, view)
                else:
                    missing.setdefault(pair, []).append(view)
        # One that is kept stands for all: another program or machine would have moved every one.
        if kept:
            self._compare(*kept)
        trouble = self._no_room(missing) or self._compute(missing, terminal)
        if trouble:
            terminal.note(f"{trouble}: the frozen blocks are computed in every epoch")
        # All processes have to agree: with images in one and features in another they would differ.
        works = torch.tensor(float(not trouble), device=self.fabric.device)
        mean = self.fabric.all_reduce(works, reduce_op="mean")
        return float(torch.as_tensor(mean)) == 1.0

    def _no_room(self, missing: dict[Pair, list[View]]) -> str:
        used, folder = 0, self.plan.cache
        if isinstance(self.store, FeatureFolder):
            used, folder = self.store.used_bytes(), self.store.root
        # Each process lacks about as many; they share the disk and see the same room on it.
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
                image = self._image(pair)
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
        image = self._image(pair)
        expected, found = self._feature(image, view.mirrored), self.store[view]
        if (expected - found).abs().max() > TOLERANCE * expected.abs().max():
            raise DataError(
                f"the features kept in {getattr(self.store, 'folder', 'memory')} are not those "
                f"computed here now: delete that folder and run the same command again"
            )

    def _image(self, pair: Pair) -> Tensor:
        config = self.plan.config
        image = load_image(pair.image, pair.rules, config.preprocessing)
        return image_tensor(image, config.sides, config.preprocessing, config.fit)

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
    image = torch.zeros(3, *config.sides)
    example = _prefix(segmenter, fabric, image, False)
    feature = pack(example)[0].cpu()
    store: FeatureFolder | dict[View, Tensor] = {}
    if config.runtime.cache_features == "disk":
        shape = tuple(feature.shape)
        key = feature_key(config, plan.weights, segmenter.method, shape)
        store = FeatureFolder(plan.cache / FOLDER, key, shape)
    model = FromPrefix(segmenter, example, config.sides)
    cache = FeatureCache(plan, fabric, model, store, feature.nbytes)
    return cache if cache.fill(wanted_to_train(plan), terminal) else None


@torch.no_grad()
def _prefix(segmenter: Segmenter, fabric: Fabric, image: Tensor, mirrored: bool) -> Prefix:
    """Run the frozen blocks on one image, (3, h, w), as training would."""
    image = image.flip(-1) if mirrored else image
    with fabric.autocast():
        return segmenter.method.prefix(image[None].to(fabric.device))


def _digest(pair: Pair) -> str:
    try:
        content = sha256_file(pair.image)
        key = pair.rules.key  # other bands or another range are another image
        return hashlib.sha256(f"{content}{key}".encode()).hexdigest() if key else content
    except OSError as error:
        raise DataError(f"{pair.image} cannot be read ({error.strerror})") from None
