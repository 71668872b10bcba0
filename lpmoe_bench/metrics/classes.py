"""Scores of label maps: the confusion of classes, IoU and accuracy from it, and their protocols.

All scores rest on three numbers of each class, summed over the images: pixels that are right, that
are of it in truth, that the map gives it. Nothing here imports numpy until there is something to
score.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, get_args

from lpmoe_bench.errors import DataError, UsageError
from lpmoe_bench.metrics.base import LABEL_FLAGS, ScoreResult, ScoringRules, SetScorer
from lpmoe_bench.metrics.facts import METRICS, get_metric

if TYPE_CHECKING:
    import numpy as np

VOID = 255  # the label of a pixel that has no class
MOST_CLASSES = 254
Absent = Literal["left out", "counts 0"]
Void = Literal["left out", "counts as wrong"]

# ClassProtocol: the rules.


@dataclass(frozen=True)
class ClassProtocol(ScoringRules):
    """Everything that decides a score of label maps, besides the maps themselves.

    absent: of a class that is neither in the truth of any image nor in a map. void: of pixels
    without a class; where they count as wrong, they are false positives of the class that the map
    gives them. of_class: the scores that each class has: "iou", "acc".
    """

    kind: ClassVar[str] = "semantic"
    name: str
    version: int
    title: str
    source: str
    labels: Literal["arg-max of the logits, resized bilinearly to the truth"]
    aggregation: Literal["confusion of the data set"]
    absent: Absent
    void: Void
    of_class: tuple[str, ...]
    metrics: tuple[str, ...]
    headline: tuple[str, ...]
    primary: str
    percent: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()

    def ways(self) -> list[ScoringRules]:
        changes: list[tuple[str, dict[str, Any]]] = [
            *((f"absent {way}", {"absent": way}) for way in get_args(Absent)),
            *((f"void {way}", {"void": way}) for way in get_args(Void)),
        ]
        return [
            *(one for one in CLASS_PROTOCOLS if one.name != self.name),
            *(
                replace(self, name=f"{self.name} ({words})", extra=(), **change)
                for words, change in changes
                if any(getattr(self, field) != value for field, value in change.items())
            ),
        ]

    def explain(self) -> list[tuple[str, str]]:
        """Return (field, sentences) that tell all of it, each of its metrics included."""
        labels = [get_metric(key).label for key in self.headline]
        scale = "Records hold fractions; a table prints percent."
        return [
            ("protocol", f"{self.label}: {self.title}"),
            ("source", f"{self.source}."),
            (
                "labels",
                "Each pixel takes the class of the highest logit, once these are resized "
                "bilinearly to the size of the truth; label maps are never resized.",
            ),
            ("void", _VOID[self.void]),
            (
                "images",
                "The pixels of all images are counted together, by class and prediction; there is "
                "no mean over images.",
            ),
            ("absent", _ABSENT[self.absent]),
            ("scale", scale if self.percent else "Scores are fractions."),
            (
                "tables",
                f"A table shows {', '.join(labels)}, with --by-class each class; methods are "
                f"ranked by {get_metric(self.primary).label}.",
            ),
            ("hash", f"{self.hash}; a change of any rule is a new version with another hash."),
            ("metrics", ""),
            *self.tell_metrics(),
        ]


_VOID: dict[Void, str] = {
    "left out": "Pixels without a class (255) are left out of truth and map.",
    "counts as wrong": "A pixel without a class (255) is wrong whatever the map gives it: a false "
    "positive of that class, and one more pixel for the accuracy.",
}
_ABSENT: dict[Absent, str] = {
    "left out": "A class that is neither in the truth nor in any map has no IoU and is left out of "
    "the mean; one that is only in maps counts 0. A mean of accuracies is over the classes of the "
    "truth.",
    "counts 0": "The mean is over all classes, background included: one that is neither in the "
    "truth nor in any map counts 0.",
}
CLASSES = ClassProtocol(
    name="classes",
    version=1,
    title="Semantic segmentation, IoU of classes",
    source="IoU of the confusion of the whole set, such as MMSegmentation's IoUMetric: pixels of "
    "all images together, 255 ignored, mean over the classes that have a union",
    labels="arg-max of the logits, resized bilinearly to the truth",
    aggregation="confusion of the data set",
    absent="left out",
    void="left out",
    of_class=("iou", "acc"),
    metrics=("mean_iou", "mean_acc", "pixel_acc", "fw_iou"),
    headline=("mean_iou", "mean_acc", "pixel_acc"),
    primary="mean_iou",
    percent=("mean_iou", "mean_acc", "pixel_acc", "fw_iou"),
)
TRANS10K = replace(
    CLASSES,
    name="trans10k",
    title="Transparent objects, Trans10K-v2 in twelve classes",
    source="Trans2Seg's score.py and AutoGluon's Multiclass_IoU, which Conv-LoRA's table uses: "
    "mean over all classes, absent ones 0; 255 is no ignored label. Departs from them: at the "
    "truth's own size and not at 512 x 512 or 1024 x 1024; and Trans2Seg takes the arg-max of its "
    "accuracy on logits cut to whole numbers, which is not imitated, so that its printed Acc is "
    "another quantity",
    absent="counts 0",
    void="counts as wrong",
    of_class=("iou",),
    metrics=("mean_iou", "pixel_acc"),
    headline=("pixel_acc", "mean_iou"),
    percent=("mean_iou", "pixel_acc"),
)
CLASS_PROTOCOLS = (CLASSES, TRANS10K)

# Counts and ratios of classes.


class ClassCounts(NamedTuple):
    """Pixels of each class, float64 (..., K), of one image, of all, or of several subsets.

    tp: right ones. labelled: of the class in truth. called: what the map gives it, void pixels
    included where they count as wrong. absent: see `ClassProtocol`.
    """

    tp: np.ndarray
    labelled: np.ndarray
    called: np.ndarray
    absent: Absent

    @property
    def iou(self) -> Any:
        """IoU of each class; NaN, or 0 where absent ones count 0, without a union."""
        return _divided(self.tp, self.labelled + self.called - self.tp, self._nothing)

    @property
    def acc(self) -> Any:
        """Right pixels of each class among those of it; as `iou` where there are none of it."""
        return _divided(self.tp, self.labelled, self._nothing)

    @property
    def mean_iou(self) -> Any:
        return _mean(self.iou)

    @property
    def mean_acc(self) -> Any:
        return _mean(self.acc)

    @property
    def right(self) -> Any:
        """Right pixels among all that count."""
        return _divided(self.tp.sum(-1), self.called.sum(-1), float("nan"))

    @property
    def fw_iou(self) -> Any:
        """IoU of classes, each by its share of the labelled pixels."""
        import numpy as np

        weighted = np.nan_to_num(self.iou) * self.labelled  # without a union there is no pixel
        return _divided(weighted.sum(-1), self.labelled.sum(-1), float("nan"))

    @property
    def _nothing(self) -> float:
        return float("nan") if self.absent == "left out" else 0.0


def _divided(part: np.ndarray, whole: np.ndarray, nothing: float) -> np.ndarray:
    """Return part / whole, and `nothing` where the whole is 0."""
    import numpy as np

    return np.divide(part, whole, out=np.full(np.shape(whole), nothing), where=whole != 0)


def _mean(values: np.ndarray) -> np.ndarray:
    """Return the mean over the last axis of what is no NaN; NaN where there is nothing."""
    import numpy as np

    known = ~np.isnan(values)
    return _divided(np.where(known, values, 0).sum(-1), known.sum(-1), float("nan"))


def confusion_of(pred: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the pixels of one image by label and prediction.

    Args:
        pred: uint8 (h, w), the class of each pixel.
        labels: uint8 (h, w), the truth.

    Returns:
        int64 (256, 256): row t, column p has the pixels of label t that the map calls p.
    """
    import numpy as np

    # Both in one number of 16 bits: one pass over the image, which finds odd values too.
    pairs = (labels.astype(np.uint16) << 8) | pred
    return np.bincount(pairs.ravel(), minlength=1 << 16).reshape(256, 256)


# The confusion of an image in a row, "t:p:n;t:p:n": n pixels of label t that the map calls p.

CONFUSION = "confusion"  # the column
_ROWS = re.compile(r"(\d{1,3}:\d{1,3}:\d{1,15};)*")


def confusion_text(entries: np.ndarray) -> str:
    """Return entries, int (n, 3) of label, prediction and pixels, as a cell has them."""
    return ";".join(f"{t}:{p}:{n}" for t, p, n in entries.tolist())


def read_confusions(texts: Sequence[str], classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Read the confusions of many images.

    Args:
        texts: one an image, as `confusion_text` writes them; empty of an image that counts nowhere.
        classes: how many there are.

    Returns:
        The number of each entry's image, and entries, int64 (n, 3) of label, prediction and pixels.

    Raises:
        ValueError: a text is none, or names a class that there is not.
    """
    import numpy as np

    whole = "".join(f"{text};" for text in texts if text)
    if not _ROWS.fullmatch(whole):
        bad = next(text for text in texts if text and not _ROWS.fullmatch(f"{text};"))
        raise ValueError(f"{bad[:40]!r} is no confusion of classes")
    # One call for the numbers of all images, three an entry.
    entries = np.fromstring(whole.replace(";", " ").replace(":", " "), np.int64, sep=" ")
    entries = entries.reshape(-1, 3)
    truth, called = entries[:, 0], entries[:, 1]
    if ((truth >= classes) & (truth != VOID)).any() or (called >= classes).any():
        raise ValueError(f"a confusion has labels beyond its {classes} classes")
    images = np.repeat(np.arange(len(texts)), [text.count(":") // 2 for text in texts])
    return images, entries


def confusion_matrix(entries: np.ndarray, classes: int) -> np.ndarray:
    """Return the pixels of all entries together.

    Args:
        entries: int (n, 3) of label, prediction and pixels.
        classes: how many classes there are.

    Returns:
        int64 (classes + 1, classes): by label, void last, and prediction.
    """
    import numpy as np

    found = np.zeros((256, classes), np.int64)
    # Pairs come again in other images; a plain += would count the last of them alone.
    np.add.at(found, (entries[:, 0], entries[:, 1]), entries[:, 2])
    # Row 255, the void label, moves behind the classes.
    return found[[*range(classes), VOID]]


def class_sums(images: np.ndarray, entries: np.ndarray, count: int, classes: int) -> np.ndarray:
    """Return what the scores of classes are made of, for each image.

    Args:
        images: of each entry the number of its image.
        entries: int (n, 3), label, prediction and pixels.
        count: how many images there are.
        classes: how many classes.

    Returns:
        float64 (count, 3, classes): pixels that are right, labelled so, called so.
    """
    import numpy as np

    truth, called, pixels = entries.T
    labelled, right = truth != VOID, truth == called

    def summed(label: np.ndarray, chosen: Any) -> np.ndarray:
        # Image and class in one number: one count gives the sums of all images.
        places = (images * classes + label)[chosen]
        found = np.bincount(places, pixels[chosen], count * classes)
        return found.reshape(count, classes)

    parts = (summed(called, right), summed(truth, labelled), summed(called, slice(None)))
    return np.stack(parts, axis=1)


# ClassScorer: scores of a data set.


class ClassScorer(SetScorer):
    """Collects the label maps of one data set, in any order; the result does not depend on it.

    Nor does it depend on how the images are divided among several scorers that are merged at the
    end, such as one a process: a scorer pickles, and keeps counts but no map.

    Args:
        protocol: the rules.
        classes: their names, in the order of their numbers.

    Raises:
        UsageError: there is no class, or more than 254, or one has no name or that of another.
    """

    def __init__(self, protocol: ClassProtocol, classes: Sequence[str]):
        super().__init__(protocol, classes)
        check_classes(self.classes)

    def add(self, name: str, pred: np.ndarray, labels: np.ndarray, dataset: str = "") -> None:
        """Count one image.

        Args:
            name: of the image, once in a data set.
            pred: uint8 (h, w), the number of each pixel's class.
            labels: uint8 (h, w), the truth, `VOID` where a pixel has no class.
            dataset: the same for all images of a scorer.

        Raises:
            DataError: sizes differ, or a value is no class, or the name was seen before; the image
                is named.
        """
        import numpy as np

        self._check_new(name, dataset)
        pred, labels = _bytes(pred, "map", name), _bytes(labels, "truth", name)
        if pred.shape != labels.shape or pred.ndim != 2 or not pred.size:
            raise DataError(
                f"image {name} cannot be scored: its map is {pred.shape}, its truth "
                f"{labels.shape}; both must be of one size (h, w)"
            )
        found, count = confusion_of(pred, labels), len(self.classes)
        # The 256 x 256 table shows every value that occurs, so odd ones cost no further pass.
        self._refuse(name, "map", found.sum(axis=0), void=False)
        self._refuse(name, "truth", found.sum(axis=1), void=True)
        void = int(found[VOID].sum())
        if self.protocol.void == "left out":
            found[VOID] = 0
        # Most of the 65,536 pairs are empty: only those that occur are kept, as (n, 3).
        truth, called = np.nonzero(found[:, :count])
        entries = np.stack([truth, called, found[truth, called]], axis=1)
        self.dataset, self._images[name] = dataset, entries
        self._counts[name] = labels.size, void

    def _refuse(self, name: str, what: str, found: np.ndarray, void: bool) -> None:
        """Raise DataError for a value that is none of the classes."""
        last = len(self.classes) - 1
        if bad := [v for v in found.nonzero()[0].tolist() if v > last and not (void and v == VOID)]:
            more = f", and {VOID} where a pixel has none" if void else ""
            raise DataError(
                f"image {name} cannot be scored: its {what} holds {bad[0]}; the "
                f"{len(self.classes)} classes are 0 to {last}{more}"
            )

    def result(self) -> ScoreResult:
        """Return the scores of all images so far.

        Raises:
            DataError: no pixel of any image has a class.
        """
        import numpy as np

        names, classes = sorted(self._images), len(self.classes)
        entries = np.concatenate([self._images[name] for name in names] or [np.zeros((0, 3), int)])
        if not (entries[:, 0] != VOID).any():
            found = "no image was scored"
            if names:
                found = f"no pixel of its {len(names)} images has a class, all are {VOID}"
            raise DataError(f"{self.dataset or 'the data set'} has no score: {found}")
        flags = {name: "all_void" * (total == void) for name, (total, void) in self._counts.items()}
        rows = [
            {
                **{"dataset": self.dataset, "image": name},
                **dict.fromkeys(self.protocol.metrics),
                **{CONFUSION: confusion_text(self._images[name]), "flags": flags[name]},
            }
            for name in names
        ]
        # All entries as those of one image: the score is of the pixels of the whole set.
        sums = class_sums(np.zeros(len(entries), int), entries, 1, classes)[0]
        return ScoreResult(
            class_scores(sums, self.protocol, self.classes),
            rows,
            self._summed(rows),
            confusion=confusion_matrix(entries, classes),
        )

    def _summed(self, rows: Sequence[dict[str, Any]]) -> dict[str, int]:
        pixels, void = (sum(column) for column in zip(*self._counts.values(), strict=True))
        counts = {"images": len(rows), "scored": sum(bool(row[CONFUSION]) for row in rows)}
        counts |= {flag: sum(row["flags"] == flag for row in rows) for flag in LABEL_FLAGS}
        counts |= {"pixels": pixels, "void_pixels": void}
        optional = (*LABEL_FLAGS, "void_pixels")  # said where there are some
        return {key: n for key, n in counts.items() if n or key not in optional}


def check_classes(classes: Sequence[str]) -> None:
    """Raise UsageError where these are no names of classes: none, too many, empty, or twice."""
    if not 0 < len(classes) <= MOST_CLASSES:
        raise UsageError(f"there are {len(classes)} classes; a label map has 1 to {MOST_CLASSES}")
    if not all(name.strip() for name in classes):
        raise UsageError("a class has no name; give each of them one")
    if twice := [name for name in classes if classes.count(name) > 1]:
        raise UsageError(f"two classes are called {twice[0]}; give each a name of its own")


def class_scores(
    sums: np.ndarray, protocol: ClassProtocol, classes: Sequence[str]
) -> dict[str, float | None]:
    """Return the scores of a data set.

    Args:
        sums: of all its images, (3, K), see `class_sums`.
        protocol: the rules.
        classes: the names of the K classes.

    Returns:
        {metric: value}, those of the protocol, then those of each class; None for a class that has
        none.
    """
    counts = ClassCounts(sums[0], sums[1], sums[2], protocol.absent)

    def of(key: str) -> np.ndarray:
        ratio = METRICS[key].of_classes
        assert ratio is not None, "a metric of label maps"
        return ratio(counts)

    found: dict[str, Any] = {key: of(key) for key in protocol.metrics}
    for stem in protocol.of_class:
        values = of(f"{stem}/{classes[0]}")
        found |= {f"{stem}/{name}": v for name, v in zip(classes, values.tolist(), strict=True)}
    return {key: None if value != value else float(value) for key, value in found.items()}


def _bytes(pixels: np.ndarray, what: str, name: str) -> np.ndarray:
    """Return labels as uint8; raises DataError for what is no whole number from 0 to 255."""
    import numpy as np

    pixels = np.asarray(pixels)
    if pixels.dtype == np.uint8:
        return pixels
    whole = np.issubdtype(pixels.dtype, np.integer)
    if not whole or (pixels.size and (pixels.min() < 0 or pixels.max() > 255)):
        raise DataError(
            f"image {name} cannot be scored: its {what} is {pixels.dtype}; it must hold numbers of "
            f"classes, 0 to 255"
        )
    return pixels.astype(np.uint8)
