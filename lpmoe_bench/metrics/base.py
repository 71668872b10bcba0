"""What scoring has in common over all kinds of task: a protocol, and the result of a scorer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Self

from lpmoe_bench.errors import DataError
from lpmoe_bench.metrics.facts import METRICS

if TYPE_CHECKING:
    import numpy as np

    from lpmoe_bench.metrics.engine import Curves
    from lpmoe_bench.metrics.formulas import Counts

# What a table says and shows of a protocol decides no score: records hold fractions whatever is
# printed in percent.
UNHASHED = ("title", "source", "headline", "percent")


class ScoringRules:
    """A named, versioned, hashed set of rules that turns predictions into scores.

    Each kind of task has its own, a frozen dataclass. Whatever would move a number is a field of
    it and needs a new version, hence a new hash.

    Attributes:
        kind: the kind of task whose predictions it scores.
        metrics: keys in print order, less those of single classes.
        headline: the metrics that a table shows unasked.
        primary: the metric that selects and ranks.
        percent: metrics that a table prints times 100, as the papers do.
        extra: keys of extra metrics, printed behind `metrics`.
        of_class: the scores that each class has, such as "iou" for iou/NAME.
        later: fields that came later, hashed only where they are not at their default.
    """

    kind: ClassVar[str]
    later: ClassVar[dict[str, Any]] = {"extra": ()}
    name: str
    version: int
    title: str
    source: str
    metrics: tuple[str, ...]
    headline: tuple[str, ...]
    primary: str
    percent: tuple[str, ...]
    extra: tuple[str, ...]
    of_class: tuple[str, ...]

    @property
    def rules(self) -> dict[str, Any]:
        """All fields that decide a score, which are what is hashed."""
        facts = asdict(self)  # type: ignore[call-overload]
        facts = {k: v for k, v in facts.items() if k not in UNHASHED}
        return {k: v for k, v in facts.items() if k not in self.later or v != self.later[k]}

    @cached_property
    def hash(self) -> str:
        """SHA-256, in hex, of the canonical JSON of all fields that decide a score."""
        text = json.dumps(self.rules, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def label(self) -> str:
        """The protocol as tables print it: name, version and the hash's first digits."""
        return f"{self.name} v{self.version} ({self.hash[:8]})"

    def class_keys(self, classes: Sequence[str]) -> tuple[str, ...]:
        """Return the keys of the scores of single classes: all of one score, then of the next."""
        return tuple(f"{stem}/{name}" for stem in self.of_class for name in classes)

    def has_metric(self, key: str) -> bool:
        """Whether a data set scored by it can have this metric."""
        stem, slash, _ = key.partition("/")
        return key in self.metrics or bool(slash and stem in self.of_class)

    def prints_percent(self, key: str) -> bool:
        """Whether a table prints this metric times 100; those of classes as their mean."""
        return key in self.percent or (bool(self.percent) and "/" in key and self.has_metric(key))

    def family(self, key: str) -> str:
        """Return what papers call a metric that may mean one of several, such as e of e_mean."""
        return key

    def ways(self) -> list[ScoringRules]:
        """Return every other protocol of its kind, and this one with one rule changed at a time;
        none where a score of such a task has no other ways."""
        return []

    def tell_metrics(self) -> list[tuple[str, str]]:
        """Return (key, sentence) of each of its metrics, those of a class NAME last."""
        shown = [*self.metrics, *self.class_keys(["NAME"])]
        percent = {key: " (%)" * self.prints_percent(key) for key in shown}
        told = [(key, METRICS[key]) for key in shown]
        return [(f"  {k}", f"{m.label}{percent[k]}: {m.definition}.") for k, m in told]

    def explain(self) -> list[tuple[str, str]]:
        """Return (field, sentences) that tell all of it, each of its metrics included."""
        raise NotImplementedError


# What is unusual about an image, as a sentence for each flag of its row: of masks, of label maps.

MASK_FLAGS = {
    "empty_mask": "its mask is empty",
    "full_mask": "its mask is object throughout",
    "constant_pred": (
        "its map is constant: at an adaptive threshold a map of zeros is object throughout"
    ),
    "s_undefined": (
        "its object's centroid lies on the last row or column: the S-measure leaves out the empty "
        "quadrants, where PySODMetrics is NaN"
    ),
    "s_unstable": (
        "a quadrant is constant in map and mask: it counts 1 in the S-measure, "
        "where PySODMetrics rounds to 0"
    ),
    "single_pixel": (
        "it has one pixel: its E-measure is divided by 1, where PySODMetrics divides by 2.2e-16"
    ),
    "ignored_pixels": (
        "some pixels of its mask are ignored: counted scores leave them out, for S, E, weighted F "
        "and distances they are background in mask and map"
    ),
}
LABEL_FLAGS = {"all_void": "none of its pixels has a class: it tells nothing about any"}
OBJECT_FLAGS = {
    "no_objects": "it has no object: whatever is found in it is a false alarm",
    "detections_cut": "it has more detections of a class than the protocol counts: the best count",
}


@dataclass(frozen=True)
class ScoreResult:
    """Scores of one data set, and where they come from.

    Attributes:
        scores: {metric: value}, in the protocol's order, then the extra metrics or those of single
            classes. None where there is no value: an extra metric that no image has, a class that
            is nowhere.
        rows: one an image, sorted by name: dataset, image, every metric, foreground_share, flags
            (joined by ;). They average to the scores, bit for bit. A metric is None for images that
            the protocol leaves out, and where only a data set has it; beside those, rows carry what
            the data set's score is made of: tp, fp, fn and tn; `confusion`; boxes, masks; panoptic.
        counts: images, scored images, how many carry each flag, and for each extra metric how many
            images have no value of it, as <metric>_undefined. Where masks are empty,
            empty_false_alarms is how many of these have a map that calls some pixel object. Of
            label maps also pixels and, where there are some, void_pixels.
        pixels: the counts at the binary threshold of all scored images together; their ber, dice
            and iou are those of the data set, not of its images. None of label maps.
        curves: means over the scored images, if asked for.
        confusion: of label maps, the pixels of all images by label and prediction, see
            `classes.confusion_matrix`.
    """

    scores: dict[str, float | None]
    rows: list[dict[str, Any]]
    counts: dict[str, int]
    pixels: Counts | None = None
    curves: Curves | None = None
    confusion: np.ndarray | None = None

    def with_groups(self, groups: Mapping[str, str]) -> ScoreResult:
        """Return the scores with the group of each image in its row, and their number counted.

        groups: {image: group} of images that vary together; none leaves all as it is.
        """
        if not groups:
            return self
        of = [groups.get(row["image"], "") for row in self.rows]
        rows = [
            {"dataset": row["dataset"], "image": row["image"], "group": group} | row
            for row, group in zip(self.rows, of, strict=True)
        ]
        alone = of.count("")  # each is a group of its own
        counts = self.counts | {"groups": len({*of} - {""}) + alone}
        return replace(self, rows=rows, counts=counts)

    @property
    def warnings(self) -> list[str]:
        """What is unusual, a sentence for each flag of each image, by name."""
        said = MASK_FLAGS | LABEL_FLAGS | OBJECT_FLAGS
        return [
            f"image {row['image']}: {said[flag]}"
            for row in self.rows
            for flag in filter(None, row["flags"].split(";"))
        ]


class SetScorer:
    """What scorers have in common that score a set as a whole, from what they keep of its images.

    Args:
        protocol: the rules.
        classes: their names, in the order of their numbers.
    """

    def __init__(self, protocol: Any, classes: Sequence[str]):
        self.protocol, self.classes = protocol, tuple(classes)
        self.dataset = ""
        self._images: dict[str, Any] = {}  # of an image: what its row is made of
        self._counts: dict[str, tuple[int, ...]] = {}  # of an image: what the set's counts sum

    @property
    def _settings(self) -> tuple[Any, ...]:
        return self.protocol, self.classes

    def _check_new(self, name: str, dataset: str) -> None:
        """Raise DataError for an image that was scored before."""
        if name in self._images:
            raise DataError(f"image {name} was scored twice; names in a data set must differ")
        assert not self._images or dataset == self.dataset, "one scorer scores one data set"

    def merge(self, other: Self) -> None:
        """Take over the images of another scorer of the same data set and the same settings.

        Args:
            other: the scorer, which stays as it is.

        Raises:
            DataError: Both have scored an image, which is named.
        """
        assert self._settings == other._settings, "they must agree"
        if twice := sorted(self._images.keys() & other._images.keys()):
            raise DataError(f"image {twice[0]} was scored twice; names in a data set must differ")
        assert not (self._images and other._images) or self.dataset == other.dataset
        self.dataset = self.dataset or other.dataset
        self._images |= other._images
        self._counts |= other._counts
