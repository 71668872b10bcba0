"""Predict at the size of each image and score; validation and test go through the same code."""

from __future__ import annotations

import itertools
import math
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lpmoe_bench.config.kinds import KINDS, Kind, get_kind
from lpmoe_bench.config.settings import RunConfig
from lpmoe_bench.console import OnProgress
from lpmoe_bench.data.label_rules import LabelRules, class_colours
from lpmoe_bench.data.loader import SQUASH, VERSION, Prefixes, eval_items, fitted, image_tensor
from lpmoe_bench.data.pairs import Pair
from lpmoe_bench.data.pixels import THRESHOLD, pixel_rules
from lpmoe_bench.data.readers import Sides
from lpmoe_bench.data.splits import Split
from lpmoe_bench.errors import DataError, UsageError
from lpmoe_bench.files import write_atomically
from lpmoe_bench.inference.outputs import MapOutputs, Shown
from lpmoe_bench.metrics.protocols import get_protocol
from lpmoe_bench.metrics.scorer import ScoreResult
from lpmoe_bench.model.segmenter import load_trained
from lpmoe_bench.records.store import read_record

if TYPE_CHECKING:  # it takes seconds to import, which a plan or a refusal need not wait for
    from lightning_fabric import Fabric

BINARY = KINDS["binary"]


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
        self.model.eval()
        reader = self.kind.reader
        items = eval_items(pairs, threshold, self.prefixes, self.version, reader)
        if self.window is not None:
            for name, image, truth in items:
                response = response_map(self, image, self.window)  # type: ignore[arg-type]
                yield name, self.outputs.settle(response), truth
            return
        given = ((name, self.tensor(image), truth) for name, image, truth in items)
        for batch in _batches(given, self.batch):
            found = self.responses(torch.stack([image for _, image, _ in batch]))
            for (name, _, truth), one in zip(batch, found, strict=True):
                resized = self.at_size(one, reader.shape(truth))
                yield name, self.outputs.settle(resized), truth

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
        places = _places((height, width), self.window)
        if len(places) == 1:
            return self._seen(image)
        total = image.new_zeros(())
        for down, across in places:
            part = self._seen(image[(..., *_part(down, across))])
            if not total.ndim:  # now the number of classes is known
                total = part.new_zeros((*part.shape[:2], height, width))
            rows, columns = (torch.from_numpy(one.weights).to(part) for one in (down, across))
            total[(..., *_part(down, across))] += part * rows[:, None] * columns
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
    values, scorer = [], outputs.scorer(rules, predictor.classes, predictor.things)
    for name, pred, read in predictor.predictions(pairs, outputs.threshold(rules)):
        truth = outputs.truth(read, rules)
        value = outputs.quick(metric, pred, truth, rules)
        if value is None:
            scorer.add(name, pred, truth)
        else:
            values.append(value)
    if values:
        return math.fsum(values) / len(values)
    found = scorer.result().scores[metric]
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
    scorer = outputs.scorer(rules, predictor.classes, predictor.things)
    found = predictor.predictions(split.pairs, outputs.threshold(rules))
    for done, (name, pred, read) in enumerate(found, start=1):
        scorer.add(name, pred, outputs.truth(read, rules), dataset=split.label)
        if save_to is not None:
            file = save_to / f"{name}{outputs.suffix}"
            write_atomically(file, outputs.encoded(pred, predictor.shown))
        report(done, len(split.pairs))
    return scorer.result().with_groups(split.groups)


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
    fabric = new_fabric(device, config.train.precision if alike else "32-true")
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


# Windows along one side of an image: where they start, and weights that sum to one.

OVERLAP = 4  # neighbouring windows share at least this part of one: a quarter
SHRINK = 2  # `auto` shrinks an image at most so many times
MODES = "auto, never, always or a number of pixels"


class Window(NamedTuple):
    """The pixels start .. start + len(weights) of a side, and how much each counts there."""

    start: int
    weights: np.ndarray


def window_of(tile: str, sides: Sides) -> Sides | None:
    """Return the largest part, (h, w) in pixels, that a model of image sides is shown at once.

    None for `never`: any image is shown whole. `auto` is twice the sides: an image within it is
    shrunk at most twofold, and windows of a larger one are shrunk just as much. `always` is the
    sides: nothing is shrunk. Raises UsageError for other words, and for fewer than 32 pixels.
    """
    if tile == "never":
        return None
    if tile in ("auto", "always"):
        factor = SHRINK if tile == "auto" else 1
        return (sides[0] * factor, sides[1] * factor)
    if not tile.isascii() or not tile.isdigit() or int(tile) < 32:
        raise UsageError(f"--tile is '{tile}'; it is {MODES}, at least 32")
    return (int(tile), int(tile))


def windows(length: int, side: int | None) -> list[Window]:
    """Divide a side of an image into windows of `side` pixels, or one where that is enough.

    They are spaced evenly, from one end to the other. Each weighs least at its ends, as half a wave
    of a sine, squared; at every pixel the weights of all windows sum to one.
    """
    if side is None or length <= side:
        return [Window(0, np.ones(length, np.float32))]
    # As few windows as overlap by a quarter or more. The weights fall to nearly zero at the ends of
    # a window, where it sees least of what is around, so that no seam shows.
    step = side - side // OVERLAP
    count = math.ceil((length - side) / step) + 1
    starts = [round(k * (length - side) / (count - 1)) for k in range(count)]
    wave = np.sin(np.pi * (np.arange(side) + 0.5) / side) ** 2
    total = np.zeros(length)
    for start in starts:
        total[start : start + side] += wave
    return [
        Window(start, (wave / total[start : start + side]).astype(np.float32)) for start in starts
    ]


# The response to an image of any size: seen whole, or in windows that are blended.

Item = TypeVar("Item")


def response_map(
    predictor: Predictor,
    image: np.ndarray,
    window: Sides | None = None,
    report: OnProgress | None = None,
) -> np.ndarray:
    """Return the response (K, h, w), float32, of a model to an RGB image (h, w, 3), uint8 or
    float32 in [0, 1]: the probability of object, or a logit for each class.

    An image beyond a window of (h, w) pixels is cut into overlapping ones; each is seen as an image
    of its own, fitted to the model's size, and its response, at the window's own size, is blended
    with its neighbours'. Memory: a batch of windows, and four bytes for each class and pixel.
    `report` is told (windows seen, all windows).
    """
    height, width = image.shape[:2]
    places = _places((height, width), window)
    total: np.ndarray | None = None
    done = 0
    for batch in _batches(places, predictor.batch):
        crops = [predictor.tensor(image[_part(*place)]) for place in batch]
        for place, response in zip(batch, predictor.responses(torch.stack(crops)), strict=True):
            if total is None:  # now the number of classes is known
                total = np.zeros((len(response), height, width), np.float32)
            rows, columns = (part.weights for part in place)
            resized = predictor.at_size(response, (len(rows), len(columns)))
            total[:, *_part(*place)] += resized * rows[:, None] * columns
        done += len(batch)
        if report is not None:
            report(done, len(places))
    assert total is not None
    return total


def _places(shape: Sides, window: Sides | None) -> list[tuple[Window, Window]]:
    """Return the windows, down and across, of an image of a shape (h, w)."""
    down, across = window or (None, None)
    return list(itertools.product(windows(shape[0], down), windows(shape[1], across)))


def _part(down: Window, across: Window) -> tuple[slice, slice]:
    """Return the rows and columns of an array that a window covers."""
    return (
        slice(down.start, down.start + len(down.weights)),
        slice(across.start, across.start + len(across.weights)),
    )


def _batches(items: Iterable[Item], count: int) -> Iterator[list[Item]]:
    left = iter(items)
    while batch := list(itertools.islice(left, count)):
        yield batch
