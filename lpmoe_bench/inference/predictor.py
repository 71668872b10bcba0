"""Predict at the size of each image and score; validation and test go through the same code."""

from __future__ import annotations

import math
import time
import warnings
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import get_ident
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lpmoe_bench.config.kinds import KINDS, Kind, get_kind
from lpmoe_bench.config.settings import RunConfig
from lpmoe_bench.console import OnProgress
from lpmoe_bench.data.label_rules import LabelRules, class_colours
from lpmoe_bench.data.loader import SQUASH, VERSION, Prefixes, eval_item, fitted, image_tensor
from lpmoe_bench.data.pairs import Pair
from lpmoe_bench.data.pixels import THRESHOLD, pixel_rules
from lpmoe_bench.data.readers import Sides
from lpmoe_bench.data.splits import Split
from lpmoe_bench.environment import usable_cores
from lpmoe_bench.errors import DataError, UsageError
from lpmoe_bench.files import write_atomically
from lpmoe_bench.inference.outputs import MapOutputs, Shown
from lpmoe_bench.inference.windows import batched, part_of, places_in, response_map
from lpmoe_bench.metrics.protocols import get_protocol
from lpmoe_bench.metrics.scorer import ScoreResult
from lpmoe_bench.model.segmenter import keep_frozen_rounded, load_trained
from lpmoe_bench.records.store import read_record

if TYPE_CHECKING:  # it takes seconds to import, which a plan or a refusal need not wait for
    from lightning_fabric import Fabric

BINARY = KINDS["binary"]
MOST_THREADS = 8  # that read, and as many that score, beside a GPU
Item = TypeVar("Item")
Found = TypeVar("Found")


@dataclass
class Predictor:
    """Turns images into predictions at their own size, and counts the seconds of forward passes.

    model: the segmenter, or with `prefixes` what takes them in the place of images. version, fit:
    of the preprocessing that it was trained with. window: the part of an image, (h, w) in pixels,
    that it sees at once when it scores; None for all of it. kind: of the task; classes: their
    names, where it has some; things: those of them that are told apart by object. labels: what
    its training set declares of them, colours among it.
    """

    model: nn.Module
    fabric: Fabric
    sides: Sides
    batch: int = 8
    prefixes: Prefixes | None = None
    version: int = VERSION
    fit: str = SQUASH
    window: Sides | None = None
    kind: Kind = BINARY
    classes: tuple[str, ...] = ()
    things: tuple[str, ...] = ()
    labels: LabelRules | None = None
    images: int = 0
    seconds: float = 0.0

    @torch.no_grad()
    def responses(self, images: Tensor) -> Any:
        """Return responses, one an image, for images (B, 3, h, w) in [0, 1]: (B, K, h, w), of
        binary tasks probabilities, or what heads of objects find.

        With `prefixes` the images are those.
        """
        images = images.to(self.fabric.device)
        started = time.perf_counter()
        with self.fabric.autocast():
            found = self.model(images)
        # A GPU is waited for here, before the clock is read.
        result = self.outputs.received(found)
        self.seconds += time.perf_counter() - started
        self.images += len(images)
        return result

    @cached_property
    def outputs(self) -> MapOutputs:
        return self.kind.outputs

    @cached_property
    def shown(self) -> Shown:
        """The colour of each class: the one declared, or the one of its index."""
        declared = self.labels if self.labels and self.labels.classes == self.classes else None
        colours = class_colours(declared or len(self.classes))
        return dict(zip(self.classes, colours, strict=True))

    def predictions(
        self, pairs: Sequence[Pair], threshold: int = THRESHOLD
    ) -> Iterator[tuple[str, np.ndarray, Any]]:
        """Yield (name, prediction (h, w), what the label file says), in the order of the pairs.

        threshold: an undeclared mask value above it, of 255, is object.
        """
        return self.each(pairs, lambda *found: found, threshold)

    def each(
        self,
        pairs: Sequence[Pair],
        then: Callable[[str, np.ndarray, Any], Found],
        threshold: int = THRESHOLD,
    ) -> Iterator[Found]:
        """Yield what `then` returns of each of the `predictions`, in the order of the pairs.

        Threads read the files to come, resize responses and call `then`, beside the forward passes
        of this one.
        """
        self.model.eval()
        reader, outputs, whole = self.kind.reader, self.outputs, self.window is None

        def read(pair: Pair) -> tuple[str, Any, Any]:
            name, image, truth = eval_item(pair, threshold, self.prefixes, self.version, reader)
            return name, self.tensor(image) if whole else image, truth

        def settle(item: tuple[str, Any, Any]) -> Found:
            name, response, truth = item
            placed = self.at_size(response, reader.shape(truth)) if whole else response
            return then(name, outputs.settle(placed), truth)

        threads = threads_beside(self.fabric.device.type)
        # What windows are cut from and give is held at its own size, which may be large.
        ahead = 2 * self.batch if whole else threads
        return in_order(settle, self._seen(in_order(read, pairs, threads, ahead)), threads, ahead)

    def _seen(self, items: Iterable[tuple[str, Any, Any]]) -> Iterator[tuple[str, Any, Any]]:
        """Yield (name, response, truth) of each (name, image, truth)."""
        if self.window is not None:
            for name, image, truth in items:
                yield name, response_map(self, image, self.window), truth
            return
        for batch in batched(items, self.batch):
            found = self.responses(torch.stack([image for _, image, _ in batch]))
            for (name, _, truth), response in zip(batch, found, strict=True):
                yield name, response, truth

    def tensor(self, image: np.ndarray | Tensor) -> Tensor:
        """Return what the model takes of an image (h, w, 3); a prefix is that already."""
        if isinstance(image, Tensor):
            return image
        return image_tensor(image, self.sides, self.version, self.fit)

    def at_size(self, response: Any, shape: Sequence[int]) -> Any:
        """Return a response of an image at that image's own size."""
        inner = fitted(shape, self.sides, self.fit)
        things = [name in self.things for name in self.classes]
        return self.outputs.placed(response, self.sides, inner, shape, things)

    def check_window(self, window: Sides | None) -> None:
        """Raise UsageError for windows of predictions that cannot be blended."""
        if window is not None and not self.kind.blends:
            raise UsageError(
                f"--tile blends what windows give pixel by pixel, and this run finds objects "
                f"({self.kind.name}); leave it out"
            )

    def response(
        self, image: np.ndarray, window: Sides | None = None, report: OnProgress | None = None
    ) -> Any:
        """Return the response to one image (h, w, 3) at its own size; window, report: see
        `response_map`. Raises UsageError as `check_window`."""
        self.check_window(window)
        if self.kind.blends:
            return response_map(self, image, window, report)
        found = self.responses(self.tensor(image)[None])[0]
        return self.at_size(found, image.shape[:2])

    def prediction(
        self, image: np.ndarray, window: Sides | None = None, report: OnProgress | None = None
    ) -> Any:
        """Return the prediction of one image (h, w, 3) at its own size; see `response`."""
        return self.outputs.settle(self.response(image, window, report))

    @property
    def images_per_second(self) -> float:
        return self.images / self.seconds if self.seconds else 0.0


class ProbabilityModel(nn.Module):
    """A segmenter as one module: images in [0, 1], (B, 3, h, w), to responses (B, K, h, w).

    Of a binary task these are probabilities, of one with classes logits. fit: see image_tensor.
    window: the part of an image, (h, w) in pixels, that the segmenter sees at once; None for all.
    """

    def __init__(
        self,
        segmenter: nn.Module,
        sides: Sides,
        outputs: MapOutputs,
        fit: str = SQUASH,
        window: Sides | None = None,
    ):
        super().__init__()
        self.segmenter = segmenter
        self.sides = sides
        self.outputs = outputs
        self.fit = fit
        self.window = window

    def forward(self, image: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        places = places_in((height, width), self.window)
        if len(places) == 1:
            return self._seen(image)
        total = image.new_zeros(())
        for down, across in places:
            part = self._seen(image[(..., *part_of(down, across))])
            if not total.ndim:  # now the number of classes is known
                total = part.new_zeros((*part.shape[:2], height, width))
            rows, columns = (torch.from_numpy(one.weights).to(part) for one in (down, across))
            total[(..., *part_of(down, across))] += part * rows[:, None] * columns
        return total

    def _seen(self, image: Tensor) -> Tensor:
        """Return responses to images, or parts of them, that are fitted to the sides as a whole."""
        shape = tuple(image.shape[-2:])
        high, wide = inner = fitted(shape, self.sides, self.fit)
        if shape != inner:
            image = F.interpolate(image, inner, mode="bilinear", antialias=True)
        if inner != self.sides:
            canvas = image.mean((2, 3), keepdim=True).repeat(1, 1, *self.sides)
            canvas[..., :high, :wide] = image
            image = canvas
        probability = self.outputs.respond(self.segmenter(image))[..., :high, :wide]
        if tuple(probability.shape[-2:]) == shape:
            return probability
        return F.interpolate(probability, shape, mode="bilinear", align_corners=False)


def validation_score(
    predictor: Predictor, pairs: Sequence[Pair], metric: str, protocol: str
) -> float:
    """Return one metric over validation images: the mean of theirs, or where only a data set has
    it, that of all of them."""
    rules, outputs = get_protocol(protocol), predictor.outputs
    scorers = Scorers(lambda: outputs.scorer(rules, predictor.classes, predictor.things))

    def score(name: str, pred: np.ndarray, read: Any) -> float | None:
        truth = outputs.truth(read, rules)
        value = outputs.quick(metric, pred, truth, rules)
        if value is None:
            scorers.own.add(name, pred, truth)
        return value

    found_values = predictor.each(pairs, score, outputs.threshold(rules))
    values = [value for value in found_values if value is not None]
    if values:
        return math.fsum(values) / len(values)
    found = scorers.result().scores[metric]
    if found is None:
        raise DataError(
            f"the {len(pairs)} validation images have no {metric}, by which the best epoch is "
            f"picked; choose another with --set train.select"
        )
    return found


def score_split(
    predictor: Predictor,
    split: Split,
    protocol: str,
    report: OnProgress,
    save_to: Path | None = None,
) -> ScoreResult:
    """Score every image of a split; `save_to` keeps the maps as PNG at mask size."""
    rules, outputs = get_protocol(protocol), predictor.outputs
    scorers = Scorers(lambda: outputs.scorer(rules, predictor.classes, predictor.things))

    def score(name: str, pred: np.ndarray, read: Any) -> None:
        scorers.own.add(name, pred, outputs.truth(read, rules), dataset=split.label)
        if save_to is not None:
            file = save_to / f"{name}{outputs.suffix}"
            write_atomically(file, outputs.encoded(pred, predictor.shown))

    scored = predictor.each(split.pairs, score, outputs.threshold(rules))
    for done, _ in enumerate(scored, start=1):
        report(done, len(split.pairs))
    return scorers.result().with_groups(split.groups)


class Scorers:
    """One scorer for each thread that scores; what they have found does not depend on which did.

    new: makes a scorer.
    """

    def __init__(self, new: Callable[[], Any]):
        self.new, self.of_threads = new, defaultdict(new)

    @property
    def own(self) -> Any:
        """The scorer of the thread that asks."""
        return self.of_threads[get_ident()]

    def result(self) -> ScoreResult:
        """Return the scores of all; raises DataError where no image counts."""
        total = self.new()
        for scorer in self.of_threads.values():
            total.merge(scorer)
        return total.result()


# Threads beside the forward passes. Decoding, resizing and the kernels of metrics let others run.


def threads_beside(device: str) -> int:
    """Return how many threads read files beside forward passes, and how many score predictions."""
    # The passes keep the cores of a CPU busy, but not all the time.
    return min(MOST_THREADS if device != "cpu" else 1, usable_cores() - 1)


def in_order(
    work: Callable[[Item], Found], items: Iterable[Item], threads: int, ahead: int
) -> Iterator[Found]:
    """Yield what a work returns of each item, in order, while threads are at items to come.

    Args:
        work: what is done with an item, in one of the threads.
        items: they are asked for in the thread that asks for results.
        threads: how many; of 0, each item is worked on when its result is asked for.
        ahead: so many items at most are worked on or done and not asked for.
    """
    if threads < 1:
        yield from map(work, items)
        return
    # One core each: an operation that spread over all would wait for those of the forward pass.
    pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
    waiting: deque[Future[Found]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
        # Threads that are started later take what was set last in any: that of this one again.
        torch.set_num_threads(torch.get_num_threads())


def set_products(precision: str) -> None:
    """Set, for the whole process, how a GPU rounds the factors of matrix products.

    precision: as in `train.precision`, settled. Not reached: convolutions of cuDNN, which round as
    TF32 does by torch's own default.
    """
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")


def new_fabric(device: str, precision: str, devices: int = 1, strategy: Any = "auto") -> Fabric:
    """Return what places models and data on devices and sets how they compute.

    Args:
        device: "cpu" or "cuda".
        precision: as in `train.precision`, settled.
        devices: how many processes, one a device.
        strategy: how several work together.
    """
    from lightning_fabric import Fabric

    set_products(precision)
    told: Any = "32-true" if precision == "tf32" else precision
    return Fabric(accelerator=device, devices=devices, strategy=strategy, precision=told)


def load_predictor(
    folder: Path, cache: Path, offline: bool = False, say: Callable[[str], None] = warnings.warn
) -> tuple[Predictor, RunConfig]:
    """Rebuild a finished run's model on the device found here, as it was scored after training.

    A run of a GPU's bfloat16 computes in single precision on a CPU, most of which are slow in the
    other. Raises as `load_trained`.
    """
    segmenter, config = load_trained(folder, cache, offline, say)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    alike = device in ("cuda", config.runtime.device)
    precision = config.train.precision if alike else "32-true"
    fabric = new_fabric(device, precision)
    keep_frozen_rounded(segmenter, precision)
    model, trained = segmenter.to(fabric.device), read_record(folder).data.train
    labels = pixel_rules(trained.pixels).labels if trained else None
    return new_predictor(config, model, fabric, labels=labels), config


def scored_window(config: RunConfig) -> Sides | None:
    """Return the part of an image that a run of these settings sees at once when it is scored."""
    return config.sides if config.evaluate == "windows" else None


def new_predictor(
    config: RunConfig,
    model: nn.Module,
    fabric: Fabric,
    prefixes: Prefixes | None = None,
    labels: LabelRules | None = None,
) -> Predictor:
    """Return what predicts with a model of these settings.

    labels: what the set that it was trained on declares of its classes.
    """
    return Predictor(
        model,
        fabric,
        config.sides,
        prefixes=prefixes,
        version=config.preprocessing,
        fit=config.fit,
        window=scored_window(config),
        kind=get_kind(config.kind),
        classes=config.classes,
        things=config.things,
        labels=labels,
    )
