"""Protocol: a named, versioned, hashed set of rules that turns maps into scores."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Literal


@dataclass(frozen=True)
class Protocol:
    """Everything that decides a score, besides the maps themselves.

    `metrics` are in print order, `headline` are those a table shows unasked, `primary` is the one
    that selects and ranks. Whatever would move a number needs a new version, hence a new hash.
    """

    name: str
    version: int
    title: str
    source: str
    normalisation: Literal["minmax", "none"]
    resize: Literal["bilinear to mask"]
    quantisation: Literal["uint8 half up"]
    mask_threshold: int  # of 0..255; foreground lies strictly above
    thresholds: Literal[
        "256 levels, at least",
        "MATLAB grid, at least",
        "MATLAB grid, at least; E above",
    ]
    binary_threshold: float  # of the normalised map; foreground lies strictly above
    f_beta2: float
    aggregation: Literal[
        "image mean, maxima of the mean curve",
        "counts of the data set",
    ]
    empty_masks: Literal["skip", "score"]
    metrics: tuple[str, ...]
    headline: tuple[str, ...]
    primary: str
    percent: tuple[str, ...] = ()  # metrics that a table prints times 100, as the papers do

    @cached_property
    def hash(self) -> str:
        """SHA-256, in hex, of the canonical JSON of all fields that decide a score."""
        facts = asdict(self)
        # Records hold fractions whatever a table prints, so percent decides no score either.
        for words in ("title", "source", "headline", "percent"):
            del facts[words]
        text = json.dumps(facts, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def counts_mask(self, foreground: int) -> bool:
        """Whether an image whose mask has that many object pixels counts."""
        return foreground > 0 or self.empty_masks == "score"

    @property
    def label(self) -> str:
        """The protocol as tables print it: name, version and the hash's first digits."""
        return f"{self.name} v{self.version} ({self.hash[:8]})"
