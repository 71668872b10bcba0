"""Outputs: from a model's logits to what is written and scored, one class a kind of task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lpmoe_bench.data.images import overlay
from lpmoe_bench.data.labels import Labels, legend, overlay_labels, palette_png
from lpmoe_bench.data.pixels import THRESHOLD, Truth
from lpmoe_bench.data.readers import Sides
from lpmoe_bench.errors import UsageError
from lpmoe_bench.metrics.classes import ClassScorer
from lpmoe_bench.metrics.engine import prepare_mask, quick_score
from lpmoe_bench.metrics.scorer import Scorer

Shown = Mapping[str, tuple[int, int, int]]  # the colour, RGB of 0 to 255, of each class in order


class ListedImage(NamedTuple):
    """An image as a file of results names it.

    file: its path below the folder that was named. shape: its (h, w). number: its id. ids: of the
    classes, by name; None to count them from 1.
    """

    file: str
    shape: tuple[int, int]
    number: Any
    ids: Mapping[str, int] | None = None


class MapOutputs:
    """What kinds share whose models give maps of logits, (B, K, h, w).

    A response is what is resized, and blended where windows overlap: (K, h, w) a image. suffix: of
    the file of a prediction. listed: whether a file of results can hold those of all images.
    """

    suffix: ClassVar[str] = ".png"
    listed: ClassVar[bool] = False

    def respond(self, logits: Tensor) -> Tensor:
        """Return responses, (B, K, h, w) in single precision."""
        raise NotImplementedError

    def settle(self, response: np.ndarray) -> np.ndarray:
        """Return the prediction (h, w) of a response at an image's own size."""
        raise NotImplementedError

    def told(self, response: np.ndarray) -> dict[str, Any]:
        """Return what a user is given of a response, as `lpmoe_bench.Prediction` names it."""
        raise NotImplementedError

    def received(self, found: Any) -> Any:
        """Return the responses of a batch to what a model predicts, on the CPU, one an image."""
        return self.respond(found).cpu()

    def placed(
        self,
        response: Any,
        canvas: Sides,
        inner: Sides,
        shape: Sequence[int],
        things: Sequence[bool] = (),
    ) -> Any:
        """Return a response to one image at that image's own size, as `settle` takes it.

        Args:
            response: (K, h, w), over the canvas.
            canvas: (h, w) of what the model saw.
            inner: (h, w) of the image in it, at the left and top.
            shape: (h, w) of the image.
            things: of each class, whether it is told apart by object.
        """
        seen, sides = response[:, : inner[0], : inner[1]], tuple(shape)
        return F.interpolate(seen[None], sides, mode="bilinear", align_corners=False)[0].numpy()

    def found_in(self, pred: Any) -> int | None:
        """Return how many objects or segments a prediction has, None of maps."""
        return None

    def cut(self, pred: np.ndarray, threshold: float) -> np.ndarray:
        """Return a prediction cut at a probability; raises UsageError where there is none."""
        raise UsageError(
            "--threshold cuts the map of a binary task, and this run tells classes apart; leave it "
            "out"
        )

    def encoded(self, pred: np.ndarray, shown: Shown) -> bytes:
        """Return a prediction as the bytes of a PNG."""
        return cv2.imencode(".png", pred)[1].tobytes()

    def drawn(
        self, image: np.ndarray, pred: np.ndarray, shown: Shown, least: float | None = None
    ) -> np.ndarray:
        """Return an RGB image (h, w, 3), uint8, with a prediction over it.

        least: of a score that is shown, where predictions have scores; None for the usual one.
        """
        raise NotImplementedError

    def entries(self, image: ListedImage, pred: Any, shown: Shown) -> list[dict[str, Any]]:
        """Return what a file of results of all images says of one; only where `listed`."""
        raise NotImplementedError

    def threshold(self, protocol: Any) -> int:
        """Return above which value, of 255, an undeclared pixel of a binary mask is object."""
        return THRESHOLD

    def truth(self, read: Any, protocol: Any) -> Any:
        """Return what the reader has read as the scorer takes it."""
        raise NotImplementedError

    def scorer(self, protocol: Any, classes: Sequence[str], things: Sequence[str] = ()) -> Any:
        """Return a scorer of a data set; things: the classes that are told apart by object."""
        raise NotImplementedError

    def quick(self, metric: str, pred: np.ndarray, truth: Any, protocol: Any) -> float | None:
        """Return a metric of one image whose mean is the data set's, None where there is none."""
        return None


class MaskOutputs(MapOutputs):
    """Binary masks: probabilities, written as 8-bit maps."""

    def respond(self, logits: Tensor) -> Tensor:
        return torch.sigmoid(logits)

    def settle(self, response: np.ndarray) -> np.ndarray:
        return (response[0] * 255 + 0.5).astype(np.uint8)

    def told(self, response: np.ndarray) -> dict[str, Any]:
        return {"probability": response[0]}

    def cut(self, pred: np.ndarray, threshold: float) -> np.ndarray:
        return (pred > threshold * 255).astype(np.uint8) * 255

    def drawn(
        self, image: np.ndarray, pred: np.ndarray, shown: Shown, least: float | None = None
    ) -> np.ndarray:
        return overlay(image, pred)

    def threshold(self, protocol: Any) -> int:
        return protocol.mask_threshold

    def truth(self, read: Truth, protocol: Any) -> Any:
        return prepare_mask(read.mask, protocol, read.ignored)

    def scorer(self, protocol: Any, classes: Sequence[str], things: Sequence[str] = ()) -> Scorer:
        return Scorer(protocol)

    def quick(self, metric: str, pred: np.ndarray, truth: Any, protocol: Any) -> float | None:
        return quick_score(metric, pred, truth, protocol)


class LabelOutputs(MapOutputs):
    """Maps of classes: the class of the largest logit, counted from 0."""

    def respond(self, logits: Tensor) -> Tensor:
        return logits

    def settle(self, response: np.ndarray) -> np.ndarray:
        return response.argmax(axis=0).astype(np.uint8)

    def told(self, response: np.ndarray) -> dict[str, Any]:
        probability = torch.from_numpy(response).softmax(0).numpy()
        return {"probability": probability, "labels": self.settle(response)}

    def encoded(self, pred: np.ndarray, shown: Shown) -> bytes:
        return palette_png(pred, [*shown.values()])

    def drawn(
        self, image: np.ndarray, pred: np.ndarray, shown: Shown, least: float | None = None
    ) -> np.ndarray:
        colours = [*shown.values()]
        picture = overlay_labels(image, pred, colours)
        return np.vstack([picture, legend([*shown], colours, picture.shape[1], void=False)])

    def truth(self, read: Labels, protocol: Any) -> np.ndarray:
        return read.labels

    def scorer(
        self, protocol: Any, classes: Sequence[str], things: Sequence[str] = ()
    ) -> ClassScorer:
        return ClassScorer(protocol, classes)
