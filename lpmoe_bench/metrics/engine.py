"""Scores of one pair under a protocol: what validation, evaluation and tests call."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lpmoe_bench.errors import DataError, UsageError
from lpmoe_bench.metrics.extra import extra_scores
from lpmoe_bench.metrics.facts import get_metric
from lpmoe_bench.metrics.formulas import (
    EPS,
    Counts,
    Quadrant,
    alignment,
    stretch,
    structure,
    sum_counts,
)
from lpmoe_bench.metrics.maps import ByteMap, FloatMap, PreparedMask
from lpmoe_bench.metrics.protocols import COD, DEFAULT, Mode, Protocol, mode_of

if TYPE_CHECKING:
    from lpmoe_bench.metrics.surfaces import Surface

# Measured: every score of one map, each worked out when it is first asked for.

MAP_TYPES = (np.uint8, np.uint16, np.float32, np.float64)


class Measured:
    """Scores of a map, (h, w): uint8 on 0..255 or float on 0..1, beside a prepared mask.

    normalisation: "minmax" or "none". binary_threshold: foreground lies strictly above it. Pixels
    that the mask ignores are left out of what counts pixels: binary, adaptive, curve, mae. For all
    else they are background in the mask and, once it is normalised, in the map.
    Raises DataError for a map of another shape or type, or with values outside of its range.
    """

    def __init__(
        self,
        pred: np.ndarray,
        mask: PreparedMask,
        normalisation: str = "minmax",
        mode: Mode = DEFAULT,
        binary_threshold: float = 0.5,
    ):
        if pred.shape != mask.shape:
            raise DataError(
                f"map is {pred.shape} and mask is {mask.shape}; "
                "both must be (h, w) of the same size"
            )
        if pred.dtype not in (np.uint8, np.float32, np.float64):
            raise DataError(f"map is {pred.dtype}; it must be uint8, 0..255, or float, 0..1")
        kind = ByteMap if pred.dtype == np.uint8 else FloatMap
        self.mask, self.mode, self.binary_threshold = mask, mode, binary_threshold
        if mask.ignored is None:
            self.map = self.counted = kind(pred, mask, normalisation)
            return
        # Limits of the whole map for both: a pixel has one value, whichever metric looks at it.
        limits = pred.min(), pred.max()
        stretched = normalisation == "minmax" and limits[0] < limits[1]
        blank = pred.copy()
        blank[mask.ignored] = limits[0] if stretched else 0  # what becomes 0
        self.map = kind(blank, mask, normalisation, limits)
        # One row, (1, n): what only counts pixels does not need to know where they lie.
        self.counted = kind(pred[~mask.ignored][None], mask.counted, normalisation, limits)

    @cached_property
    def binary(self) -> Counts:
        """Counts at the binary threshold."""
        return self.counted.counts_at(self.binary_threshold, above=True)

    @cached_property
    def adaptive(self) -> Counts:
        """Counts at twice the map's mean, at most 1."""
        return self.counted.counts_at(self.counted.adaptive_threshold)

    @cached_property
    def curve(self) -> Counts:
        """Counts at the 256 thresholds, from high to low."""
        return self.counted.counts_over(self.mode.grid)

    @property
    def precision_recall(self) -> np.ndarray:
        """Precision and recall at the 256 thresholds, (2, 256)."""
        return np.stack([self.curve.precision, self.curve.recall])

    @property
    def mae(self) -> float:
        return self.counted.error

    @cached_property
    def e_curve(self) -> Any:
        """E-measure at the 256 thresholds, (256,)."""
        counts = self.curve
        # The E-measure needs counts of its own where its thresholds differ from F's, or where
        # ignored pixels are background for it but are left out of the counts of F.
        if self.mode.alignment_above or self.map is not self.counted:
            counts = self.map.counts_over(self.mode.grid, above=self.mode.alignment_above)
        return self._alignment(counts)

    @property
    def e_adaptive(self) -> float:
        counts, above = self.adaptive, self.mode.alignment_above
        if above or self.map is not self.counted:
            counts = self.map.counts_at(self.map.adaptive_threshold, above=above)
        return float(self._alignment(counts))

    def _alignment(self, counts: Counts) -> Any:
        as_divided = self.mode.single_pixel == "as divided"
        return alignment(counts, self.mask.foreground, self.mask.size, as_divided)

    @cached_property
    def _quadrants(self) -> list[Quadrant]:
        return self.map.quadrants() if self.mask.mixed else []

    @property
    def s_measure(self) -> float:
        # As in the authors' code: without an object, or without a background, only the mean says
        # anything, and a perfect map scores 1.
        if not self.mask.mixed:
            return self.map.mean if self.mask.foreground else 1 - self.map.mean
        if self.mask.empty_quadrant and self.mode.empty_quadrant == "nan":
            return float("nan")
        # alpha 0.5: half for the values on and off the object, half for the four quadrants.
        on, off = self.map.moments(True), self.map.moments(False)
        return structure(on, off, self._quadrants, self.mode.constant_quadrant == "as rounded")

    @property
    def s_unstable(self) -> bool:
        """Whether the reference's S-measure rests on rounding in a constant quadrant."""
        return any(part.rounds for part in self._quadrants)

    @cached_property
    def weighted_f(self) -> float:
        """Weighted F-measure, beta^2 1; 0 for an empty mask. Margolin et al., CVPR 2014."""
        if not self.mask.foreground:
            return 0.0
        from lpmoe_bench.metrics import kernels

        # errors: the error at each level. places: (h, w), the level of each pixel. A map of floats
        # has as many levels as pixels.
        around, (errors, places) = self.mask.surroundings, self.map.errors()
        missed = kernels.object_error(
            *(places, self.mask.pixels, errors, around.box, around.near, around.nearest),
            kernels.gaussian_taps(),
        )
        # Margolin's weights are 2 - exp(ln(1/2) / 5 * distance), so that far errors count twice.
        wrong = 2 * float(self.map.sums[0]) - self.map.weighted_background() / kernels.ONE
        # Every object pixel has weight 1, so weighted true positives are pixels less their errors.
        hit = self.mask.foreground - missed
        recall, precision = 1 - missed / self.mask.foreground, hit / (hit + wrong + EPS)
        return 2 * recall * precision / (recall + precision + EPS)


# Curves of a data set: precision, recall, F and E over the 256 thresholds.


class Curves(NamedTuple):
    """Means over the scored images at 256 thresholds, from high to low, each of length 256.

    f has the protocol's beta^2. Thresholds are levels 255 / 255 down to 0 of the normalised map,
    so that the last point calls everything object.
    """

    precision: tuple[float, ...]
    recall: tuple[float, ...]
    f: tuple[float, ...]
    e: tuple[float, ...]

    @property
    def thresholds(self) -> tuple[float, ...]:
        """The thresholds, from 1 down to 0."""
        return tuple((255 - index) / 255 for index in range(len(self.f)))


def curves_of_pair(pair: Measured, protocol: Protocol) -> np.ndarray:
    """Return one image's precision, recall, F and E over the thresholds, (4, 256)."""
    counts = pair.curve
    return np.stack([counts.precision, counts.recall, counts.f(protocol.f_beta2), pair.e_curve])


def mean_curves(curves: Sequence[np.ndarray]) -> Curves:
    """Average the curves of images, each (4, 256), exactly and hence in any order."""

    stacked = np.stack(curves)
    return Curves(*(tuple(mean_curve(stacked[:, row]).tolist()) for row in range(4)))


class PairScores(NamedTuple):
    """Scores of one image. Metrics that need a whole data set hold a curve of 256 levels instead.

    values: {metric: float, or an array of (..., 256) from level 255 down to 0}; nothing for metrics
    of the data set's counts. flags: what is unusual. counts: pixels at the binary threshold, which
    add up over a data set. extra: extra metrics, None where the image has no value; empty unless
    asked for, and for an image that the protocol leaves out. curves: precision, recall, F and E at
    the 256 thresholds, (4, 256), if asked for.
    """

    values: dict[str, float | np.ndarray]
    foreground_share: float
    flags: tuple[str, ...]
    counts: Counts
    extra: dict[str, float | None] = {}  # never written to
    curves: np.ndarray | None = None


def prepare_mask(
    mask: np.ndarray, protocol: Protocol = COD, ignored: np.ndarray | None = None
) -> PreparedMask:
    """Do the work on a mask that all maps scored against it share.

    Args:
        mask: uint8 (h, w) on 0 to 255.
        protocol: whose threshold says what is object.
        ignored: bool (h, w), pixels that count for nothing; None for none.

    Returns:
        What `score_pair` and `Scorer.add` take in place of the mask.
    """
    return PreparedMask(mask, protocol.mask_threshold, ignored)


def score_pair(
    pred: np.ndarray,
    mask: np.ndarray | PreparedMask,
    protocol: Protocol,
    mode: Mode | None = None,
    extra: Sequence[str] = (),
    curves: bool = False,
    image: np.ndarray | None = None,
) -> PairScores:
    """Score a map against a mask in every metric of the protocol.

    Args:
        pred: the map (h, w) of the mask's size: uint8 on 0 to 255, uint16 on 0 to 65535, or float32
            or float64 in [0, 1]. Each is scored in its own precision.
        mask: uint8 (h, w) on 0 to 255, or prepared, which is best where several maps share it.
        protocol: the rules.
        mode: by default the one that the protocol's thresholds ask for.
        extra: keys of extra metrics.
        curves: keep the curves over the thresholds too.
        image: RGB uint8 (h, w, 3), which some extra metrics need.

    Returns:
        The scores of the image, and what is unusual about it.

    Raises:
        DataError: Shapes or types differ from these, or the mask holds only 0 and 1.
    """
    pair = _measure(pred, mask, protocol, mode or mode_of(protocol))
    formulas = {key: get_metric(key).of_pair for key in protocol.metrics}
    values = {key: formula(pair, protocol) for key, formula in formulas.items() if formula}
    # Some metrics give several curves as a list: (3, 256) of tp, fp and fn, say.
    values |= {key: np.array(value) for key, value in values.items() if isinstance(value, list)}
    if not pair.mask.foreground and protocol.empty_masks in ("zero", "one"):
        values |= _by_convention(pair, values, protocol.empty_masks == "one")
    # A flag on what the protocol does not print would only puzzle.
    structured = "s_measure" in values
    aligned = any(key.startswith("e_") for key in values)
    flags = [
        name
        for name, holds in (
            ("empty_mask", not pair.mask.foreground),
            ("full_mask", pair.mask.foreground == pair.mask.size),
            ("constant_pred", pair.map.constant),
            ("s_undefined", structured and pair.mask.empty_quadrant),
            ("s_unstable", structured and pair.s_unstable),
            ("single_pixel", aligned and pair.mask.size == 1),
            ("ignored_pixels", pair.mask.ignored is not None),
        )
        if holds
    ]
    extras = {}
    if extra and protocol.counts_mask(pair.mask.foreground):
        extras = extra_scores(
            extra,
            lambda: pair.map.normalised,
            pair.mask.pixels.view(np.bool_),
            image,
            lambda: (_surface_of(pair.map.called(0.5)), pair.mask.surface),
        )
    return PairScores(
        values,
        pair.mask.foreground / pair.mask.size,
        tuple(flags),
        pair.binary,
        extras,
        curves_of_pair(pair, protocol) if curves else None,
    )


def _surface_of(called: np.ndarray) -> Surface:
    from lpmoe_bench.metrics.surfaces import Surface

    return Surface(called)


def _by_convention(
    pair: Measured, values: Mapping[str, float | np.ndarray], one: bool
) -> dict[str, float | np.ndarray]:
    """Return what overlaps of an image without an object count: 0, or 1 of an empty map."""

    def empty(counts: Counts) -> Any:
        # True where the map calls no pixel object; `one` False makes it 0 everywhere.
        return (np.asarray(counts.tp + counts.fp) == 0).astype(np.float64) * one

    found: dict[str, float | np.ndarray] = {}
    for key in values:
        if key == "ber":  # half of it is the recall, which counts as any ratio does
            found[key] = 1 - 0.5 * (float(empty(pair.binary)) + pair.binary.specificity)
        elif key in ("iou_classes", "dice_classes"):  # the background's half stays
            found[key] = float(values[key]) + 0.5 * float(empty(pair.binary))
        elif get_metric(key).by_convention:
            if np.ndim(values[key]):
                found[key] = np.broadcast_to(empty(pair.curve), np.shape(values[key]))
            elif key.endswith(("_mean", "_mean256")):
                found[key] = float(empty(pair.curve).mean())
            else:
                found[key] = float(empty(pair.adaptive if "adaptive" in key else pair.binary))
    return found


def quick_score(
    metric: str, pred: np.ndarray, mask: np.ndarray | PreparedMask, protocol: Protocol = COD
) -> float:
    """Return one metric of one pair: what validation calls.

    Args:
        metric: a metric that an image has.
        pred: the map (h, w), as for `score_pair`.
        mask: uint8 (h, w) on 0 to 255, or prepared.
        protocol: the rules.

    Raises:
        UsageError: Only a whole data set has this metric, such as `e_max`.
    """
    facts = get_metric(metric)
    if not facts.per_image or facts.of_pair is None:
        raise UsageError(
            f"{metric} is defined for a whole data set, not for one image; "
            f"choose another, such as {protocol.primary}"
        )
    pair = _measure(pred, mask, protocol, mode_of(protocol))
    return float(facts.of_pair(pair, protocol))


def _measure(
    pred: np.ndarray, mask: np.ndarray | PreparedMask, protocol: Protocol, mode: Mode
) -> Measured:
    if not isinstance(mask, PreparedMask):
        check_pair(pred, mask)
        mask = prepare_mask(mask, protocol)
    # An error of ours, not of a user: it would score against another object without a word.
    assert mask.threshold == protocol.mask_threshold, "the mask was prepared for another protocol"
    check_pair(pred, mask.pixels)
    normalisation = protocol.normalisation
    if pred.dtype != np.uint8:
        pred, normalisation = _wide_values(pred, normalisation), "none"
    return Measured(pred, mask, normalisation, mode, protocol.binary_threshold)


def _wide_values(pred: np.ndarray, normalisation: str) -> np.ndarray:
    """Return a map of 16 bits or of floats, (h, w), as normalised float64; raises DataError."""
    values, full = pred.astype(np.float64), 65535 if pred.dtype == np.uint16 else 1
    low, high = values.min(), values.max()
    if not (low >= 0 and high <= full):  # false for NaN as well
        raise DataError("map holds floats outside of 0 to 1, or NaN; save probabilities")
    if normalisation == "none" or low == high:
        return values / full
    # The reference divides whatever it gets by 255 and then stretches it. That cancels out but for
    # rounding, which decides on which side of a threshold a value lies.
    values /= 255
    return stretch(values, values.min(), values.max())


def check_pair(pred: np.ndarray, mask: np.ndarray) -> None:
    """Raise DataError unless map and mask have one shape (h, w) and types that are scored."""
    if pred.ndim != 2 or pred.shape != mask.shape or not pred.size:
        raise DataError(
            f"map is {pred.shape} and mask is {mask.shape}; both must be (h, w) of the same size"
        )
    if pred.dtype not in MAP_TYPES or mask.dtype != np.uint8:
        raise DataError(
            f"map is {pred.dtype} and mask is {mask.dtype}; a mask must be uint8, 0..255, a map "
            f"too, or uint16, 0..65535, or float, 0..1"
        )


# Scores that a data set has but its images have not: of counts and curves of all images.


def dataset_scores(pairs: Sequence[PairScores], protocol: Protocol) -> dict[str, float]:
    """Return those of the protocol's metrics that are no mean over images.

    Args:
        pairs: the images that count, at least one.
        protocol: the rules under which they were scored.

    Returns:
        {metric: value}.
    """
    counts, found = sum_counts([pair.counts for pair in pairs]), {}
    for metric in map(get_metric, protocol.metrics):
        if metric.of_counts is not None:
            found[metric.key] = metric.of_counts(counts)
        elif metric.of_curves is not None:
            # (images, curves, 256): the mean over images comes first, and only then the maximum.
            stacked = np.stack([np.asarray(pair.values[metric.key]) for pair in pairs])
            means = np.stack([mean_curve(stacked[:, row]) for row in range(stacked.shape[1])])
            found[metric.key] = metric.of_curves(means, protocol)
    return found


def mean_curve(curves: Any) -> np.ndarray:
    """Return the mean of curves, (n, 256), over n; each level is summed exactly, then rounded."""
    # Only an exact sum does not depend on the order in which processes finish their images.
    columns = np.asarray(curves).T.tolist()
    return np.array([math.fsum(column) / len(column) for column in columns])
