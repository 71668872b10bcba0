"""Modes: what counts where PySODMetrics is wrong, and where MATLAB's tools differ from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lpmoe_bench.errors import UsageError
from lpmoe_bench.metrics.protocol import Protocol
from method_zoo.errors import unknown

ModeName = Literal["default", "reference", "matlab", "pranet"]


@dataclass(frozen=True)
class Mode:
    """How a score comes about, besides the protocol.

    empty_quadrant: the S-measure of a mask whose centroid lies on the last row or column, where
    the reference is 0 times 0 / 0. constant_quadrant: of a quadrant in which map and mask are
    constant, which is 1, but 0 in the reference if its sums round. single_pixel: the E-measure of
    an image of one pixel, which the reference divides by a rounding guard of 2.2e-16. grid: the
    256 thresholds, from high to low; "levels" are those of the truncated 8-bit map.
    alignment_above: whether the E-measure's foreground lies strictly above the threshold, rather
    than at least at it.
    """

    name: ModeName
    empty_quadrant: Literal["skip", "nan"] = "skip"
    constant_quadrant: Literal["exact", "as rounded"] = "exact"
    single_pixel: Literal["exact", "as divided"] = "exact"
    grid: Literal["levels", "matlab"] = "levels"
    alignment_above: bool = False


DEFAULT = Mode("default")
REFERENCE = Mode(
    "reference", empty_quadrant="nan", constant_quadrant="as rounded", single_pixel="as divided"
)
MATLAB = Mode("matlab", grid="matlab", alignment_above=True)
PRANET = Mode("pranet", grid="matlab")
MODES = {mode.name: mode for mode in (DEFAULT, REFERENCE, MATLAB, PRANET)}
_OF_THRESHOLDS = {
    "256 levels, at least": DEFAULT,
    "MATLAB grid, at least": PRANET,
    "MATLAB grid, at least; E above": MATLAB,
}


def get_mode(name: str) -> Mode:
    """Return the mode of that name; raises UsageError for an unknown one."""
    if name not in MODES:
        raise UsageError(unknown("mode", name, MODES))
    return MODES[name]


def mode_of(protocol: Protocol) -> Mode:
    """Return the mode that a protocol's thresholds ask for."""
    return _OF_THRESHOLDS[protocol.thresholds]
