"""Protocols: named, versioned, hashed rules that turn maps into scores."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Literal

from lpmoe_bench.errors import UsageError
from method_zoo._errors import unknown


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
    thresholds: Literal["256 levels, at least"]
    binary_threshold: float  # of the normalised map; foreground lies strictly above
    f_beta2: float
    aggregation: Literal["image mean, maxima of the mean curve"]
    empty_masks: Literal["skip", "score"]
    metrics: tuple[str, ...]
    headline: tuple[str, ...]
    primary: str

    @cached_property
    def hash(self) -> str:
        """SHA-256, in hex, of the canonical JSON of all fields that decide a score."""
        facts = asdict(self)
        for words in ("title", "source", "headline"):
            del facts[words]
        text = json.dumps(facts, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def label(self) -> str:
        """The protocol as tables print it: name, version and the hash's first digits."""
        return f"{self.name} v{self.version} ({self.hash[:8]})"


COD = Protocol(
    name="cod",
    version=1,
    title="Camouflaged object detection",
    source="CODToolbox as PySODMetrics 1.6.2 computes it; images with an object, mean E as in "
    "SINet-V2 and most papers since 2021",
    normalisation="minmax",
    resize="bilinear to mask",
    quantisation="uint8 half up",
    mask_threshold=128,
    thresholds="256 levels, at least",
    binary_threshold=0.5,
    f_beta2=0.3,
    aggregation="image mean, maxima of the mean curve",
    empty_masks="skip",
    metrics=(
        *("s_measure", "e_mean", "e_max", "e_adaptive", "f_mean", "f_max", "f_adaptive"),
        *("weighted_f", "mae", "ber", "dice", "iou"),
    ),
    headline=("s_measure", "e_mean", "weighted_f", "mae"),
    primary="s_measure",
)
PROTOCOLS = {protocol.name: protocol for protocol in (COD,)}


def list_protocols() -> list[str]:
    """Return the names of all protocols."""
    return sorted(PROTOCOLS)


def get_protocol(name: str) -> Protocol:
    """Return the protocol of that name; raises UsageError for an unknown one."""
    if name not in PROTOCOLS:
        raise UsageError(unknown("protocol", name, PROTOCOLS))
    return PROTOCOLS[name]
