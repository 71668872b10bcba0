"""Predict at the size of each mask and score; validation and test go through the same code."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from lightning.fabric import Fabric
from torch import Tensor, nn

from lpmoe_bench.data.images import THRESHOLD
from lpmoe_bench.data.loader import Prefixes, eval_items
from lpmoe_bench.data.pairs import Pair
from lpmoe_bench.data.splits import Split
from lpmoe_bench.files import write_atomically
from lpmoe_bench.metrics.engine import quick_score
from lpmoe_bench.metrics.protocols import get_protocol
from lpmoe_bench.metrics.scorer import Scorer, ScoreResult


@dataclass
class Predictor:
    """Turns images into 8-bit maps at mask size, and counts the seconds of the forward passes.

    model: the segmenter, or with `prefixes` what takes them in the place of images.
    """

    model: nn.Module
    fabric: Fabric
    size: int
    batch: int = 8
    prefixes: Prefixes | None = None
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
        result = torch.sigmoid(logits).cpu()
        self.seconds += time.perf_counter() - started
        self.images += len(images)
        return result

    def maps(
        self, pairs: Sequence[Pair], threshold: int = THRESHOLD
    ) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
        """Yield (name, predicted map, mask) as uint8 (h, w), in the order of the pairs.

        threshold: a mask value above it, of 255, is object.
        """
        self.model.eval()
        waiting: list[tuple[str, Tensor, np.ndarray]] = []
        for item in eval_items(pairs, self.size, threshold, self.prefixes):
            waiting.append(item)
            if len(waiting) == self.batch:
                yield from self._finish(waiting)
                waiting = []
        if waiting:
            yield from self._finish(waiting)

    def _finish(
        self, items: list[tuple[str, Tensor, np.ndarray]]
    ) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
        pred = self.probabilities(torch.stack([image for _, image, _ in items]))
        for (name, _, mask), one in zip(items, pred, strict=True):
            yield name, to_map(one[None], mask.shape), mask

    @property
    def images_per_second(self) -> float:
        return self.images / self.seconds if self.seconds else 0.0


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
    values = [quick_score(metric, pred, mask, rules) for _, pred, mask in maps]
    return math.fsum(values) / len(values)


def evaluate(
    predictor: Predictor,
    split: Split,
    protocol: str,
    report: Callable[[int, int], None],
    save_to: Path | None = None,
) -> ScoreResult:
    """Score every image of a split; `save_to` keeps the maps as PNG at mask size."""
    rules = get_protocol(protocol)
    scorer, maps = Scorer(rules), predictor.maps(split.pairs, rules.mask_threshold)
    for done, (name, pred, mask) in enumerate(maps, start=1):
        scorer.add(name, pred, mask, dataset=split.label)
        if save_to is not None:
            write_atomically(save_to / f"{name}.png", cv2.imencode(".png", pred)[1].tobytes())
        report(done, len(split.pairs))
    return scorer.result()
