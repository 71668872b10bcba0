"""Curves of a data set: precision, recall, F and E over the 256 thresholds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .measured import Measured
from .protocol import Protocol


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
    from .whole import mean_curve

    stacked = np.stack(curves)
    return Curves(*(tuple(mean_curve(stacked[:, row]).tolist()) for row in range(4)))
