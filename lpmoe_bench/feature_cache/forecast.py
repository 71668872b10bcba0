"""How large a feature cache will be, and the room there is for it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from math import ceil, prod
from pathlib import Path
from typing import NamedTuple

import torch

from lpmoe_bench.data.pairs import Pair
from lpmoe_bench.errors import UsageError
from lpmoe_bench.feature_cache.packed import pack
from lpmoe_bench.model.segmenter import blueprint
from lpmoe_bench.plan import Plan
from method_zoo.method import Method

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
    method, size = blueprint(plan.config).method, plan.config.size
    if idle := idle_because(method):
        return idle
    with torch.no_grad():
        shape = pack(method.prefix(torch.empty(1, 3, size, size, device="meta"))).shape
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
        sides: set[bool] = set()
        for epoch in range(epochs):
            sides.add(dataset.mirrored((epoch, index)))
            if len(sides) == 1 + dataset.flip:
                break
        wanted[pair] = tuple(sorted(sides))
    return wanted | dict.fromkeys(plan.validation.pairs, (False,))


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
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
