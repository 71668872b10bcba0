"""Outputs of objects: from what a head finds to detections and segments, scored and written."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from lpmoe_bench.data.labels import legend
from lpmoe_bench.data.object_drawing import (
    Shapes,
    draw_objects,
    draw_segments,
    numbers_of,
    object_colours,
    places_shown,
)
from lpmoe_bench.data.object_writing import numbers_png, segment_numbers
from lpmoe_bench.data.objects import Objects
from lpmoe_bench.data.pixels import THRESHOLD
from lpmoe_bench.data.readers import Sides
from lpmoe_bench.data.targets import Found, Segmented
from lpmoe_bench.errors import UsageError
from lpmoe_bench.inference.objects import settle_objects, settle_panoptic
from lpmoe_bench.inference.outputs import ListedImage, Shown
from lpmoe_bench.metrics.objects import Detections, ObjectScorer
from lpmoe_bench.metrics.panoptic import Panoptic, PanopticScorer
from lpmoe_bench.metrics.runs import pack_runs


class BoxOutputs:
    """Detections: boxes with classes and scores, written as a list in COCO's form of results."""

    suffix: ClassVar[str] = ".json"
    listed: ClassVar[bool] = True

    def received(self, found: Sequence[Any]) -> list[Any]:
        """Return what a head finds in each image of a batch, on the CPU."""
        return [_on_cpu(one) for one in found]

    def placed(
        self,
        response: Found,
        canvas: Sides,
        inner: Sides,
        shape: Sequence[int],
        things: Sequence[bool] = (),
    ) -> Detections:
        """Return the objects of one image at its own size; see `MapOutputs.placed`."""
        return settle_objects(response, canvas, inner, shape[:2], len(response.scores))

    def settle(self, response: Any) -> Any:
        """Return the prediction of a response at an image's own size, which it is already."""
        return response

    def told(self, response: Any) -> dict[str, Any]:
        """Return what a user is given of a response, as `lpmoe_bench.Prediction` names it."""
        return {"objects": response}

    def found_in(self, pred: Any) -> int:
        """Return how many objects or segments a prediction has."""
        return len(pred.classes)

    def cut(self, pred: Any, threshold: float) -> Any:
        """Return the detections of a score of at least `threshold`."""
        kept = np.flatnonzero(pred.scores >= threshold)
        masks = None if pred.masks is None else [pred.masks[place] for place in kept]
        return Detections(pred.boxes[kept], pred.classes[kept], pred.scores[kept], masks)

    def drawn(
        self, image: np.ndarray, pred: Any, shown: Shown, least: float | None = None
    ) -> np.ndarray:
        """Return an RGB image with its detections over it, each with its class and score."""
        places = places_shown(pred.scores, least)
        classes, names = pred.classes[places], [*shown]
        # By their place among all detections, so that another least score changes no colour.
        numbers = numbers_of(pred.classes)[places]
        return draw_objects(
            image,
            Shapes(pred.boxes, pred.masks).only(places),
            object_colours(classes, numbers, [*shown.values()]),
            [
                f"{names[own]} {score:.2f}"
                for own, score in zip(classes.tolist(), pred.scores[places].tolist(), strict=True)
            ],
        )

    def entries(self, image: ListedImage, pred: Any, shown: Shown) -> list[dict[str, Any]]:
        """Return the detections of one image in COCO's form of results, masks as compressed runs
        with their size; beside its ids each has the file of its image and the name of its class."""
        names, found = [*shown], detections_json(pred, [*shown])
        for one in found:
            if "segmentation" in one:
                counts = pack_runs(one["segmentation"]["counts"])
                one["segmentation"] = {"size": [*image.shape], "counts": counts}
            own = one["category"]
            category = names.index(own) + 1 if image.ids is None else image.ids[own]
            one |= {"image_id": image.number, "category_id": category, "file_name": image.file}
        return found

    def threshold(self, protocol: Any) -> int:
        """Return above which value, of 255, an undeclared pixel of a binary mask is object."""
        return THRESHOLD

    def truth(self, read: Objects, protocol: Any) -> Objects:
        """Return what the reader has read as the scorer takes it."""
        return read

    def scorer(
        self, protocol: Any, classes: Sequence[str], things: Sequence[str] = ()
    ) -> ObjectScorer:
        """Return a scorer of a data set."""
        return ObjectScorer(protocol, classes)

    def quick(self, metric: str, pred: Any, truth: Any, protocol: Any) -> float | None:
        """Return None: scores of objects are those of a data set."""
        return None

    def encoded(self, pred: Detections, shown: Shown) -> bytes:
        """Return the detections of one image as JSON: left, top, width and height of boxes, masks
        as run lengths, column by column, and the names of classes."""
        return (json.dumps(detections_json(pred, [*shown]), indent=None) + "\n").encode()


class InstanceOutputs(BoxOutputs):
    """Detections with masks."""


class PanopticOutputs(BoxOutputs):
    """Panoptic maps, written as PNGs of segments in COCO's colours of numbers."""

    suffix = ".png"
    listed = False

    def told(self, response: Any) -> dict[str, Any]:
        return {"segments": response}

    def cut(self, pred: Any, threshold: float) -> Any:
        raise UsageError(
            "--threshold is of maps of a binary task and of detections, and segments of a panoptic "
            "map have no scores; leave it out"
        )

    def drawn(
        self, image: np.ndarray, pred: Any, shown: Shown, least: float | None = None
    ) -> np.ndarray:
        """Return an RGB image tinted by its segments, and below which colour is which class."""
        colours, there = [*shown.values()], np.unique(pred.classes).tolist()
        each = object_colours(pred.classes, numbers_of(pred.classes), colours)
        picture = draw_segments(image, pred.segments, each)
        if not there:
            return picture
        told = [[*shown][own] for own in there], [colours[own] for own in there]
        return np.vstack([picture, legend(*told, picture.shape[1], void=False)])

    def placed(  # type: ignore[override]
        self,
        response: Segmented,
        canvas: Sides,
        inner: Sides,
        shape: Sequence[int],
        things: Sequence[bool] = (),
    ) -> Panoptic:
        return settle_panoptic(response, canvas, inner, shape[:2], things)

    def scorer(  # type: ignore[override]
        self, protocol: Any, classes: Sequence[str], things: Sequence[str] = ()
    ) -> PanopticScorer:
        return PanopticScorer(protocol, classes, things)

    def encoded(self, pred: Panoptic, shown: Shown) -> bytes:  # type: ignore[override]
        """Return a map as the bytes of a PNG. The number of a segment of class k is 1000 (k + 1)
        and its place among those of the class."""
        return numbers_png(np.concatenate([[0], segment_numbers(pred.classes)])[pred.segments])


def _on_cpu(found: Any) -> Any:
    moved = {name: value.cpu() for name, value in found._asdict().items() if hasattr(value, "cpu")}
    return found._replace(**moved)


def detections_json(pred: Detections, classes: Sequence[str]) -> list[dict[str, Any]]:
    """Return the detections of one image as JSON has them, best first."""
    found = []
    for place, (box, own, score) in enumerate(
        zip(pred.boxes, pred.classes, pred.scores, strict=True)
    ):
        left, top, right, bottom = (float(end) for end in box)
        one: dict[str, Any] = {
            "category": classes[int(own)],
            "bbox": [left, top, right - left, bottom - top],
            "score": float(score),
        }
        if pred.masks is not None:
            one["segmentation"] = {"counts": np.asarray(pred.masks[place]).tolist()}
        found.append(one)
    return found
