"""Label maps of anybody, scored: what a file's values mean, and what is unusual about it.

A map gives every pixel one of the classes. It is never resized without its user's word, and where
the classes of a file cannot be told for sure it is to be said what they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lpmoe_bench.data.annotations import ARRAYS
from lpmoe_bench.data.decoding import checked_header, read_file
from lpmoe_bench.data.images import mask_pixels, to_nearest
from lpmoe_bench.data.label_rules import VOID, LabelRules, class_colours, shown_few
from lpmoe_bench.data.labels import UnknownLabelsError, paint_labels, read_label_map
from lpmoe_bench.data.pixels import UNDECLARED, PixelRules
from lpmoe_bench.data.test_sets import TestSet
from lpmoe_bench.errors import DataError, UsageError
from lpmoe_bench.metrics.base import ScoreResult
from lpmoe_bench.metrics.classes import ClassScorer
from lpmoe_bench.scoring.work import (
    INVENTED,
    Found,
    Item,
    MapsRead,
    Part,
    ScoringJob,
    join_found,
    said,
)

VALUES = ("index", "set")  # of files of maps: classes counted from 0, or as in the set's truth
# What a sentence says of maps; the keys are those of `work.CHECKS`, whose names records have.
UNUSUAL = {
    "resized": "are not of their truth's size and were resized to the nearest pixel",
    "colours": "are in colours, which are read as those of the classes",
    "constant": "are of one class all over, and their truth is not",
    "mask": "equal their truth in every pixel that has a class",
}


class MapRules(NamedTuple):
    """What maps mean: of files of values, and of files in colours. painted: the truth is in colours
    too, so that a file of three channels is, whatever it holds."""

    values: LabelRules
    colours: LabelRules
    painted: bool = False


@lru_cache(maxsize=16)
def map_rules(truth: LabelRules, values: str = "") -> MapRules:
    """Return what maps mean whose truth is declared.

    Args:
        truth: what is declared of the truth.
        values: `index` where classes count from 0 in maps, `set` where their values are those of
            the truth; "" where both are the same.

    Raises:
        UsageError: it is to be said, or the truth has no values.
    """
    index = LabelRules("index", truth.classes)
    own = replace(truth, ignore=())  # a map gives each pixel a class
    colours = [(f"#{r:02x}{g:02x}{b:02x}",) for r, g, b in class_colours(truth)]
    coloured = replace(index, format="colour", values=tuple(colours))
    painted = truth.format == "colour"
    coloured = own if painted else coloured
    if values not in ("", *VALUES):
        raise UsageError.unknown("meaning of a map's values", values, VALUES)
    if truth.format != "index":
        if values == "set":
            raise UsageError(
                f"--map-values set: the truth is told by {truth.format} and has no values; maps "
                f"hold classes counted from 0" + ", or its colours" * painted
            )
        return MapRules(index, coloured, painted)
    if own.of_class == index.of_class:
        return MapRules(index, coloured)
    if not values:
        last = len(truth.classes) - 1
        raise UsageError(
            f"the truth has the values {shown_few([v for one in own.of_class for v in one])} for "
            f"its {len(truth.classes)} classes, and maps may have these or 0 to {last}; say "
            f"--map-values set or --map-values index, as this program writes them"
        )
    return MapRules(own if values == "set" else index, coloured)


def read_prediction(path: Path, rules: MapRules) -> tuple[np.ndarray, bool]:
    """Read a label map of anybody.

    Args:
        path: of an image or an array.
        rules: see `map_rules`.

    Returns:
        The class of each pixel, uint8 (h, w), counted from 0, and whether the file is in colours.

    Raises:
        DataError: the file cannot be read or does not keep values, or some are no class.
    """
    labels = rules.colours if _in_colours(path, rules) else rules.values
    try:
        found = read_label_map(path, PixelRules(labels=labels)).labels
    except UnknownLabelsError as error:
        known = [value for one in labels.of_class for value in one]
        what = "colour" if labels.format == "colour" else "value"
        what += "s" * (len(error.values) > 1)
        raise DataError(
            f"label map {path} holds the {what} {shown_few(error.values)}, and the "
            f"{len(labels.classes)} classes are {shown_few(known)}; a map gives every pixel one of "
            f"them"
        ) from None
    return found, labels.format == "colour"


def _in_colours(path: Path, rules: MapRules) -> bool:
    """Whether the colours of a file are its classes, and not its values."""
    if path.suffix.lower() in ARRAYS:
        return False
    header = checked_header(path, read_file(path))
    if header.palette or header.channels < 3:
        return False
    if rules.painted:  # a grey colour is one too
        return True
    pixels = mask_pixels(path, UNDECLARED, None, indices=True)[1]
    return bool(pixels.ndim == 3 and (pixels[..., :3] != pixels[..., :1]).any())


def check_map_size(path: Path | str, found: tuple[int, ...], truth: tuple[int, ...]) -> None:
    """Raise DataError for a map of another size (h, w) than its truth's."""
    if found == truth:
        return
    (height, width), (high, wide) = found, truth
    swapped = ": are they transposed?" if found[::-1] == truth else ""
    raise DataError(
        f"{path} is {width} x {height} pixels and its truth {wide} x {high}{swapped}; label maps "
        f"are not resized, for that gives another score, unless --resize-maps asks for it"
    )


GREY = (205, 205, 205)  # of errors, where a pixel has no class


def wrong_classes(pred: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return where a map (h, w) has another class than its truth (orange), RGB uint8 (h, w, 3);
    pixels without a class are grey."""
    picture = np.full((*truth.shape, 3), 255, np.uint8)
    picture[pred != truth] = INVENTED
    picture[truth == VOID] = GREY
    return picture


class LabelJob(ScoringJob):
    """Maps of classes."""

    refused = {"--curves": "a label map gives each pixel one class, which no threshold changes"}
    titles = ("truth", "map", "wrong class: orange, void: grey")

    @classmethod
    def check(cls, protocol: Any, rules: PixelRules, extra: Sequence[str], how: MapsRead) -> None:
        if rules.labels is None:
            raise UsageError(
                f"protocol {protocol.name} scores label maps: say which classes yours have, with "
                f"--classes FILE, one name a line in the order of their values, and --ignore 255 "
                f"for values that count for nothing"
            )
        if extra:
            raise UsageError(
                f"{extra[0]} is a metric of binary maps, and protocol {protocol.name} scores label "
                f"maps; leave it out"
            )
        map_rules(rules.labels, how.values)

    @classmethod
    def read(
        cls, test: TestSet, name: str, path: Path, protocol: Any, how: MapsRead
    ) -> tuple[np.ndarray, np.ndarray]:
        labels = test.rules.labels
        assert labels is not None
        truth = read_label_map(test.masks[name], test.rules, test.images.get(name)).labels
        pred, _ = read_prediction(path, map_rules(labels, how.values))
        if how.resize and pred.shape != truth.shape:
            pred = to_nearest(pred, (truth.shape[1], truth.shape[0]))
        check_map_size(path, pred.shape, truth.shape)
        return pred, truth

    @classmethod
    def shown(
        cls, pred: np.ndarray, truth: np.ndarray, rules: PixelRules
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        assert rules.labels is not None
        colours = class_colours(rules.labels)
        return paint_labels(truth, colours), paint_labels(pred, colours), wrong_classes(pred, truth)

    @property
    def labels(self) -> LabelRules:
        """What is declared of the truth."""
        assert self.rules.labels is not None
        return self.rules.labels

    def scorers(self) -> list[ClassScorer]:
        return [ClassScorer(variant.protocol, self.labels.classes) for variant in self.variants]

    def truth(self, item: Item, part: Part) -> np.ndarray:
        found = read_label_map(item.mask, self.rules, item.pictured)
        join_found(part.mask_flags, {flag: [item.name] for flag in found.flags if flag == "void"})
        return found.labels

    def score(
        self, item: Item, path: Path, truth: np.ndarray, image: Any, part: Part, at: int
    ) -> None:
        pred, coloured = read_prediction(path, map_rules(self.labels, self.how.values))
        checks = ["colours"] * coloured
        if self.how.resize and pred.shape != truth.shape:
            pred = to_nearest(pred, (truth.shape[1], truth.shape[0]))
            checks.append("resized")
        check_map_size(path, pred.shape, truth.shape)
        for scorer in part.scorers[at]:
            scorer.add(item.name, pred, truth, self.dataset)
        labelled = truth != VOID
        several = len(np.unique(truth[labelled])) > 1
        checks += ["constant"] * bool(several and (pred == pred[0, 0]).all())
        checks += ["mask"] * bool(several and (pred == truth)[labelled].all())
        join_found(part.checks[at], {check: [item.name] for check in checks})

    def of_truth(self, flags: Found, total: int) -> list[str]:
        return [
            said(names, total, "label maps", "have no labelled pixel") for names in flags.values()
        ]

    def of_maps(
        self, title: str, checks: Found, total: int, flags: Found, exact: bool
    ) -> list[str]:
        told = []
        for check, names in checks.items():
            whole = ": is this a folder of the truth?" * (check == "mask" and len(names) == total)
            told.append(said(names, total, "maps", UNUSUAL[check] + whole))
        return told

    def of_result(self, result: ScoreResult) -> list[str]:
        confusion = result.confusion
        assert confusion is not None
        absent = confusion[:-1].sum(1).astype(bool) & (confusion.sum(0) == 0)
        names = [name for name, never in zip(self.labels.classes, absent, strict=True) if never]
        return [f"no map has class {shown_few(names)}, which the truth has"] if names else []
