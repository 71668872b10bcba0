"""What is asked of a backbone's features where the pixels of two images leave a doubt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple


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
