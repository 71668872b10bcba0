"""Pictures of images, their truth and maps of it: what a figure and a page show of each kind."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from lpmoe_bench.config.kinds import get_kind, kind_of_files
from lpmoe_bench.data import maps, pairs
from lpmoe_bench.data.annotations import Mask, mask_files
from lpmoe_bench.data.images import overlay, read_image
from lpmoe_bench.data.label_rules import VOID, VOID_COLOUR, class_colours
from lpmoe_bench.data.labels import overlay_labels, paint_labels, read_label_map
from lpmoe_bench.data.pixels import THRESHOLD
from lpmoe_bench.data.test_sets import TestSet
from lpmoe_bench.errors import DataError, UsageError
from lpmoe_bench.metrics import engine
from lpmoe_bench.metrics.classes import ClassScorer
from lpmoe_bench.metrics.facts import METRICS, Metric
from lpmoe_bench.records.store import StoredRecord
from lpmoe_bench.scoring import label_maps, work

Colour = tuple[int, int, int]  # RGB of 0 to 255
Part = tuple[slice, slice]  # rows and columns of an image


@dataclass(frozen=True)
class MapPictures(ABC):
    """How truth and maps of a test set are read and shown; each kind of task has its own.

    A map is what a method says of an image: pixels (h, w), or objects. protocol: by which maps are
    scored; None where it is not known, and then none is. has_object: whether there is one object,
    which a picture can be cut to. flat: whether each pixel of a picture has the colour of a class,
    which is to stay as it is. note: what a page says of its pictures.
    """

    test: TestSet
    protocol: Any = None
    truth_title: ClassVar[str] = "mask"
    has_object: ClassVar[bool] = True
    flat: ClassVar[bool] = False
    note: ClassVar[str] = ""

    def above(self, score: float) -> MapPictures:
        """Return pictures that show what has at least a score; raises UsageError where nothing of
        a map has one."""
        raise UsageError(
            f"--threshold is of scores of detections, and maps of {self.test.label} have none; "
            f"leave it out"
        )

    @abstractmethod
    def read(self, name: str) -> tuple[np.ndarray | None, Any]:
        """Return an image, RGB uint8 (h, w, 3), and its truth.

        The image is None where a set has none. Raises DataError for what cannot be read.
        """

    def attached(self, files: Mapping[str, Mask], place: Path) -> Mapping[str, Mask]:
        """Return the maps of a place, by image, with what else says what they are; raises
        DataError.

        place: the folder that holds them, or a file of results of all images.
        """
        return files

    @abstractmethod
    def read_map(self, path: Mask, truth: Any, stored: StoredRecord | None) -> Any:
        """Return the map of an image at the size of its truth; raises DataError.

        stored: the record whose map it is, if any.
        """

    def size(self, truth: Any) -> tuple[int, int]:
        """Return (h, w) of a truth."""
        return truth.shape[0], truth.shape[1]

    def present(self, pred: Any, part: Part) -> set[int]:
        """Return the values, of those that `swatches` explains, in a part of a truth or a map."""
        return set(np.unique(pred[part]).tolist())

    @abstractmethod
    def shown(self, pred: Any, truth: Any) -> np.ndarray:
        """Return a map, or the truth itself, as a picture, uint8 (h, w) or RGB (h, w, 3)."""

    @abstractmethod
    def errors(self, pred: Any, truth: Any) -> np.ndarray:
        """Return where a map is wrong, RGB uint8 (h, w, 3)."""

    @abstractmethod
    def over(self, image: np.ndarray, pred: Any, truth: Any) -> np.ndarray:
        """Return an image with a map over it, RGB uint8 (h, w, 3)."""

    @abstractmethod
    def score(self, metric: Metric, pred: Any, truth: Any) -> float | None:
        """Return the score of one map; None where it has none."""

    def told(self, pred: Any, truth: Any) -> str:
        """Return what else is said of a map in a few words, or ``."""
        return ""

    @abstractmethod
    def label(self, metric: Metric) -> str:
        """Return what a metric is called where it is of one image."""

    @abstractmethod
    def swatches(self, present: Iterable[int], show: Sequence[str]) -> Mapping[str, Colour]:
        """Return what each colour means.

        present: the values that truth and maps have. show: `maps`, `overlays`, `errors`.
        """


class MaskPictures(MapPictures):
    """Binary masks and maps, in grey."""

    def read(self, name: str) -> tuple[np.ndarray | None, np.ndarray]:
        threshold = self.protocol.mask_threshold if self.protocol else THRESHOLD
        test = self.test
        if name in test.images:
            pair = pairs.Pair(name, test.images[name], test.masks[name], test.rules)
            return pairs.read_pair(pair, threshold)
        return None, test.truth(name, threshold).mask

    def read_map(self, path: Mask, truth: Any, stored: StoredRecord | None) -> Any:
        return work.fit(maps.inspect_map(mask_files(path)[0])[0], self.size(truth))

    def shown(self, pred: np.ndarray, truth: np.ndarray) -> np.ndarray:
        return maps.seen_in_8_bits(pred)

    def errors(self, pred: np.ndarray, truth: np.ndarray) -> np.ndarray:
        return work.error_picture(maps.seen_in_8_bits(pred), truth)

    def over(self, image: np.ndarray, pred: np.ndarray, truth: np.ndarray) -> np.ndarray:
        return overlay(image, maps.seen_in_8_bits(pred))

    def score(self, metric: Metric, pred: np.ndarray, truth: np.ndarray) -> float | None:
        if self.protocol is None or metric.key not in METRICS or not metric.per_image:
            return None
        return engine.quick_score(metric.key, pred, truth, self.protocol)

    def label(self, metric: Metric) -> str:
        return metric.label

    def swatches(self, present: Iterable[int], show: Sequence[str]) -> Mapping[str, Colour]:
        if "errors" not in show:
            return {}
        return {"false negative": _colour(work.MISSED), "false positive": _colour(work.INVENTED)}


class LabelPictures(MapPictures):
    """Label maps, in the colours of their classes."""

    truth_title = "truth"
    has_object = False
    flat = True

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes."""
        return self.test.rules.labels.classes if self.test.rules.labels else ()

    @property
    def colours(self) -> list[Colour]:
        """The colour of each class."""
        assert self.test.rules.labels is not None
        return class_colours(self.test.rules.labels)

    def read(self, name: str) -> tuple[np.ndarray | None, np.ndarray]:
        file, mask, rules = self.test.images.get(name), self.test.masks[name], self.test.rules
        labels = read_label_map(mask, rules, file).labels
        if file is None:
            return None, labels
        image = read_image(file, rules)
        pairs.check_sizes(pairs.Pair(name, file, mask, rules), image.shape, labels.shape)
        return image, labels

    def read_map(self, path: Mask, truth: Any, stored: StoredRecord | None) -> Any:
        labels = self.test.rules.labels
        assert labels is not None
        # A run writes classes from 0; what maps of a folder hold was said when they were scored.
        told = stored.record.config.get("map_values", "index") if stored else ""
        file = mask_files(path)[0]
        pred, _ = label_maps.read_prediction(file, label_maps.map_rules(labels, str(told)))
        label_maps.check_map_size(file, pred.shape, truth.shape)
        return pred

    def shown(self, pred: np.ndarray, truth: np.ndarray) -> np.ndarray:
        return paint_labels(pred, self.colours)

    def errors(self, pred: np.ndarray, truth: np.ndarray) -> np.ndarray:
        return label_maps.wrong_classes(pred, truth)

    def over(self, image: np.ndarray, pred: np.ndarray, truth: np.ndarray) -> np.ndarray:
        return overlay_labels(image, pred, self.colours)

    def score(self, metric: Metric, pred: np.ndarray, truth: np.ndarray) -> float | None:
        if self.protocol is None:
            return None
        if not self.protocol.has_metric(metric.key):
            raise UsageError(
                f"protocol {self.protocol.name} does not have {metric.key}; choose one of "
                f"{', '.join(self.protocol.metrics)}"
            )
        scorer = ClassScorer(self.protocol, self.classes)
        scorer.add("image", pred, truth)
        try:
            return scorer.result().scores.get(metric.key)
        except DataError:  # no pixel has a class
            return None

    def label(self, metric: Metric) -> str:
        return f"image {metric.label}"

    def swatches(self, present: Iterable[int], show: Sequence[str]) -> Mapping[str, Colour]:
        found: dict[str, Colour] = {}
        present = set(present)
        for value in sorted(present):
            if value == VOID:
                found["void"] = VOID_COLOUR
            else:
                found[self.classes[value]] = self.colours[value]
        if "errors" in show:
            found |= {"wrong class": _colour(work.INVENTED)}
            found |= {"void, in errors": label_maps.GREY} if VOID in present else {}
        return found


def _colour(values: np.ndarray) -> Colour:
    red, green, blue = values.tolist()
    return red, green, blue


def pictures_of(test: TestSet, kind: str, protocol: Any = None) -> MapPictures:
    """Return the pictures of a test set's kind of task.

    Args:
        test: the set.
        kind: its kind.
        protocol: by which maps are scored, if they are.

    Raises:
        UsageError: the files of the set are of another kind.
    """
    if get_kind(kind).classed != bool(test.rules.labels):
        if test.rules.labels:
            usual = kind_of_files(test.rules.form).protocol
            raise UsageError(
                f"{test.label} has label maps, and the protocol is of {kind} tasks; choose "
                f"another, such as --protocol {usual}"
            )
        raise UsageError(
            f"the protocol is of {kind} tasks, and no classes of {test.label} are declared; say "
            f"with --classes FILE which your label maps have"
        )
    if test.rules.labels and test.rules.form not in get_kind(kind).formats:
        usual = kind_of_files(test.rules.form).protocol
        raise UsageError(
            f"{test.label} has labels of format {test.rules.form}, and the protocol is of {kind} "
            f"tasks, which have {', '.join(get_kind(kind).formats)}; choose another, such as "
            f"--protocol {usual}"
        )
    return get_kind(kind).pictures(test, protocol)
