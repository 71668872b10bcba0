"""How alike two thumbnails are once one is laid onto the other: correlation of fine structure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

COARSE_SIDE = 32
HOPELESS = 0.4  # correlation at half the size, below which the full size is not tried
MOST_STRETCH = 0.3  # of the affine map: a crop of a quarter; more makes unlike things alike
LEAST_OVERLAP = 0.6
CLIP = 3.0  # medians of the fine structure; without it two equal frames around all would decide
GREY_NOISE = 0.7  # grey levels below which nothing is structure


class Alike(NamedTuple):
    """correlation: -1 to 1; shift: how far, in sides, the corner that moves most was moved."""

    correlation: float
    shift: float


class Prepared(NamedTuple):
    """A thumbnail, float32 (side, side), with its half and its fine structure, both made once."""

    grey: np.ndarray
    half: np.ndarray
    fine: np.ndarray


def prepare(grey: np.ndarray) -> Prepared:
    """Prepare a thumbnail, uint8 (side, side), to be compared with many."""
    half = cv2.resize(grey, (COARSE_SIDE, COARSE_SIDE), interpolation=cv2.INTER_AREA)
    return Prepared(grey.astype(np.float32), half.astype(np.float32), fine(grey))


def likeness(one: Prepared, other: Prepared) -> Alike:
    """Return how alike two thumbnails are where they overlap.

    The second is shifted and stretched onto the first (Evangelidis and Psarakis, "Parametric image
    alignment using enhanced correlation coefficient maximization", PAMI 2008), so that crops count
    as alike. Only what is finer than about two pixels is compared: two leaves, or two views through
    one endoscope, have the same coarse layout.
    """
    as_they_are = Alike(_correlation(one.fine, other.fine), 0.0)
    warp = _align(one.half, other.half, np.eye(2, 3, dtype=np.float32), 20)
    if warp is None or _laid(one.half, fine(one.half), other.half, warp) < HOPELESS:
        return as_they_are
    side = len(one.grey)
    warp[:, 2] *= side / COARSE_SIDE
    finer = _align(one.grey, other.grey, warp, 40)
    if finer is None:
        return as_they_are
    laid = _laid(one.grey, one.fine, other.grey, finer)
    return max(as_they_are, Alike(laid, _shift(finer, side)))


def _shift(warp: np.ndarray, side: int) -> float:
    last = side - 1
    corners = np.array([[0, 0, 1], [last, 0, 1], [0, last, 1], [last, last, 1]])
    return float(np.abs(corners @ warp.T - corners[:, :2]).max()) / side


def fine(grey: np.ndarray) -> np.ndarray:
    """Return what is finer than about two pixels and no noise, strong edges clipped."""
    grey = grey.astype(np.float32)
    band = cv2.GaussianBlur(grey, (0, 0), 0.7) - cv2.GaussianBlur(grey, (0, 0), 2.0)
    most = max(GREY_NOISE, CLIP * float(np.median(np.abs(band))))
    return np.clip(band, -most, most)


def _align(
    one: np.ndarray, other: np.ndarray, start: np.ndarray, iterations: int
) -> np.ndarray | None:
    """Return the affine map that lays the second onto the first; None when there is no sane one."""
    until = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, iterations, 1e-4)
    everywhere = np.ones(one.shape, np.uint8)
    try:
        _, warp = cv2.findTransformECC(
            one, other, start.copy(), cv2.MOTION_AFFINE, until, everywhere, 5
        )
    except cv2.error:  # it did not converge
        return None
    stretch = np.abs(warp[:, :2] - np.eye(2)).max()
    return np.asarray(warp, np.float32) if stretch <= MOST_STRETCH else None


def _laid(one: np.ndarray, of_one: np.ndarray, other: np.ndarray, warp: np.ndarray) -> float:
    """Return the correlation where both are once the second is laid onto the first; of_one: the
    fine structure of the first."""
    size, inverse = one.shape[::-1], cv2.WARP_INVERSE_MAP
    moved = cv2.warpAffine(
        other,
        warp,
        size,
        flags=cv2.INTER_LINEAR | inverse,
        borderMode=cv2.BORDER_REPLICATE,
    )
    inside = cv2.warpAffine(
        np.ones(other.shape, np.uint8), warp, size, flags=cv2.INTER_NEAREST | inverse
    )
    inside = cv2.erode(
        inside, np.ones((3, 3), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=0
    )
    both = inside > 0
    if both.mean() < LEAST_OVERLAP:
        return -1.0
    return _correlation(of_one[both], fine(moved)[both])


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    one, other = one - one.mean(), other - other.mean()
    scale = float(np.sqrt(np.square(one).sum() * np.square(other).sum()))
    return float((one * other).sum()) / scale if scale > 0 else 0.0


# What is asked of a backbone's features where the pixels of two images leave a doubt.


class Question(NamedTuple):
    """Two image files, the second to be mirrored or not."""

    one: Path
    other: Path
    mirrored: bool


class FeatureLikeness(NamedTuple):
    """What compares images in the features of a backbone.

    sha256: of its weights. compare: takes questions and a report (pairs done, all pairs), and
    returns for each question how alike the two images are, -1 to 1.
    """

    backbone: str
    sha256: str
    compare: Callable[[Sequence[Question], Callable[[int, int], None]], list[float]]
