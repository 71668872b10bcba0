"""Predict at the size of each mask and score; validation and test go through the same code."""

from __future__ import annotations

import itertools
import math
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lpmoe_bench.config.settings import RunConfig
from lpmoe_bench.console import OnProgress
from lpmoe_bench.data.loader import VERSION, Prefixes, eval_items, image_tensor
from lpmoe_bench.data.pairs import Pair
from lpmoe_bench.data.pixels import THRESHOLD, Truth
from lpmoe_bench.data.splits import Split
from lpmoe_bench.errors import UsageError
from lpmoe_bench.files import write_atomically
from lpmoe_bench.metrics.engine import prepare_mask, quick_score
from lpmoe_bench.metrics.protocols import get_protocol
from lpmoe_bench.metrics.scorer import Scorer, ScoreResult
from lpmoe_bench.model.segmenter import load_trained

if TYPE_CHECKING:  # it takes seconds to import, which a plan or a refusal need not wait for
    from lightning_fabric import Fabric


@dataclass
class Predictor:
    """Turns images into 8-bit maps at mask size, and counts the seconds of the forward passes.

    model: the segmenter, or with `prefixes` what takes them in the place of images. version: of
    the preprocessing that it was trained with.
    """

    model: nn.Module
    fabric: Fabric
    size: int
    batch: int = 8
    prefixes: Prefixes | None = None
    version: int = VERSION
    images: int = 0
    seconds: float = 0.0

    @torch.no_grad()
    def probabilities(self, images: Tensor) -> Tensor:
        """Return (B, K, size, size) in [0, 1] for images (B, 3, size, size) in [0, 1].

        With `prefixes` the images are those.
        """
        images = images.to(self.fabric.device)
        started = time.perf_counter()
        with self.fabric.autocast():
            logits, _ = self.model(images)
        result = torch.sigmoid(logits).cpu()  # a GPU is waited for here, before the clock is read
        self.seconds += time.perf_counter() - started
        self.images += len(images)
        return result

    def maps(
        self, pairs: Sequence[Pair], threshold: int = THRESHOLD
    ) -> Iterator[tuple[str, np.ndarray, Truth]]:
        """Yield (name, predicted map uint8 (h, w), mask), in the order of the pairs.

        threshold: an undeclared mask value above it, of 255, is object.
        """
        self.model.eval()
        items = eval_items(pairs, self.size, threshold, self.prefixes, self.version)
        for batch in _batches(items, self.batch):
            pred = self.probabilities(torch.stack([image for _, image, _ in batch]))
            for (name, _, truth), one in zip(batch, pred, strict=True):
                yield name, to_map(one[None], truth.mask.shape), truth

    @property
    def images_per_second(self) -> float:
        return self.images / self.seconds if self.seconds else 0.0


class ProbabilityModel(nn.Module):
    """A segmenter as one module: images in [0, 1], (B, 3, h, w), to probabilities (B, K, h, w)."""

    def __init__(self, segmenter: nn.Module, size: int):
        super().__init__()
        self.segmenter = segmenter
        self.size = size

    def forward(self, image: Tensor) -> Tensor:
        shape, square = image.shape[-2:], (self.size, self.size)
        if shape != square:
            image = F.interpolate(image, square, mode="bilinear", antialias=True)
        probability = torch.sigmoid(self.segmenter(image)[0])
        if probability.shape[-2:] == shape:
            return probability
        return F.interpolate(probability, shape, mode="bilinear", align_corners=False)


def to_map(probability: Tensor, shape: tuple[int, ...]) -> np.ndarray:
    """Resize a probability, (1, 1, s, s), bilinearly to (h, w) and round it to 8 bits."""
    resized = F.interpolate(probability, tuple(shape), mode="bilinear", align_corners=False)
    return (resized[0, 0].numpy() * 255 + 0.5).astype(np.uint8)


def validation_score(
    predictor: Predictor, pairs: Sequence[Pair], metric: str, protocol: str
) -> float:
    """Return the mean score of one metric over validation images."""
    rules = get_protocol(protocol)
    maps = predictor.maps(pairs, rules.mask_threshold)
    values = [
        quick_score(metric, pred, prepare_mask(truth.mask, rules, truth.ignored), rules)
        for _, pred, truth in maps
    ]
    return math.fsum(values) / len(values)


def score_split(
    predictor: Predictor,
    split: Split,
    protocol: str,
    report: OnProgress,
    save_to: Path | None = None,
) -> ScoreResult:
    """Score every image of a split; `save_to` keeps the maps as PNG at mask size."""
    rules = get_protocol(protocol)
    scorer, maps = Scorer(rules), predictor.maps(split.pairs, rules.mask_threshold)
    for done, (name, pred, truth) in enumerate(maps, start=1):
        mask = prepare_mask(truth.mask, rules, truth.ignored)
        scorer.add(name, pred, mask, dataset=split.label)
        if save_to is not None:
            write_atomically(save_to / f"{name}.png", cv2.imencode(".png", pred)[1].tobytes())
        report(done, len(split.pairs))
    return scorer.result().with_groups(split.groups)


def load_predictor(
    folder: Path, cache: Path, offline: bool = False, say: Callable[[str], None] = warnings.warn
) -> tuple[Predictor, RunConfig]:
    """Rebuild a finished run's model on the device found here, as it was scored after training.

    A run of a GPU's bfloat16 computes in single precision on a CPU, most of which are slow in the
    other. Raises as `load_trained`.
    """
    from lightning_fabric import Fabric

    segmenter, config = load_trained(folder, cache, offline, say)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    alike = device in ("cuda", config.runtime.device)
    fabric = Fabric(
        accelerator=device,
        devices=1,
        precision=config.train.precision if alike else "32-true",  # type: ignore[arg-type]
    )
    model = segmenter.to(fabric.device)
    return Predictor(model, fabric, config.size, version=config.preprocessing), config


# Windows along one side of an image: where they start, and weights that sum to one.

OVERLAP = 4  # neighbouring windows share at least this part of one: a quarter
SHRINK = 2  # `auto` shrinks an image at most so many times
MODES = "auto, never, always or a number of pixels"


class Window(NamedTuple):
    """The pixels start .. start + len(weights) of a side, and how much each counts there."""

    start: int
    weights: np.ndarray


def side_of(tile: str, size: int) -> int | None:
    """Return the longest side, in pixels, that a model of image side `size` is shown at once.

    None for `never`: any image is shown whole. `auto` is twice the size: an image within it is
    shrunk at most twofold, and windows of a larger one are shrunk just as much. `always` is the
    size: nothing is shrunk. Raises UsageError for other words, and for fewer than 32 pixels.
    """
    if tile == "never":
        return None
    if tile in ("auto", "always"):
        return size * (SHRINK if tile == "auto" else 1)
    if not tile.isascii() or not tile.isdigit() or int(tile) < 32:
        raise UsageError(f"--tile is '{tile}'; it is {MODES}, at least 32")
    return int(tile)


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


# The probability map of an image of any size: seen whole, or in windows that are blended.

Item = TypeVar("Item")


def probability_map(
    predictor: Predictor,
    image: np.ndarray,
    side: int | None = None,
    report: OnProgress | None = None,
) -> np.ndarray:
    """Return the probabilities (K, h, w), float32, that a model gives an RGB image (h, w, 3), uint8
    or float32 in [0, 1].

    An image with a side longer than `side` pixels is cut into overlapping windows of that side;
    each is seen as an image of its own, squashed to the model's size, and its map, at the window's
    own size, is blended with its neighbours'. Memory: a batch of windows, and four bytes for each
    class and pixel. `report` is told (windows seen, all windows).
    """
    height, width = image.shape[:2]
    places = list(itertools.product(windows(height, side), windows(width, side)))
    total: np.ndarray | None = None
    done = 0
    for batch in _batches(places, predictor.batch):
        crops = [
            image_tensor(image[_part(*place)], predictor.size, predictor.version) for place in batch
        ]
        for place, pred in zip(batch, predictor.probabilities(torch.stack(crops)), strict=True):
            if total is None:  # now the number of classes is known
                total = np.zeros((len(pred), height, width), np.float32)
            down, across = (window.weights for window in place)
            shape = (len(down), len(across))
            resized = F.interpolate(pred[None], shape, mode="bilinear", align_corners=False)[0]
            total[:, *_part(*place)] += resized.numpy() * down[:, None] * across
        done += len(batch)
        if report is not None:
            report(done, len(places))
    assert total is not None
    return total


def eight_bits(pred: np.ndarray) -> np.ndarray:
    """Return the 8-bit map (h, w) of probabilities (1, h, w), rounded as maps that are scored.

    This is where a task of several classes would choose what it writes.
    """
    return (pred[0] * 255 + 0.5).astype(np.uint8)


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
