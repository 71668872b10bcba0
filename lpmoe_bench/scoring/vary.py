"""The same maps under every protocol, and where the choice of one turns the order of methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import cv2

from lpmoe_bench.metrics.extra import known_metrics
from lpmoe_bench.metrics.protocols import PROTOCOLS, Protocol
from lpmoe_bench.metrics.scorer import ScoreResult
from lpmoe_bench.scoring.work import Variant

Resize = Mapping[str, int]
RESIZE: Resize = {"bicubic": cv2.INTER_CUBIC, "nearest": cv2.INTER_NEAREST}


@dataclass(frozen=True)
class Line:
    """One way to a score: the metric, every protocol that gives these very values, and values by
    method. turns: pairs of methods whose order differs from that of the family's first line."""

    family: str
    metric: str
    protocols: tuple[str, ...]
    values: Mapping[str, float]
    turns: tuple[tuple[str, str], ...] = ()

    def as_json(self) -> dict[str, Any]:
        return {
            "metric": self.metric,
            "protocols": list(self.protocols),
            "values": dict(self.values),
            "turns": [list(pair) for pair in self.turns],
        }


def variants_of(protocol: Protocol) -> list[Variant]:
    """Return every other protocol, and this one with one rule changed at a time."""
    stretch = "none" if protocol.normalisation == "minmax" else "minmax"
    words = {"none": "not stretched", "minmax": "stretched"}[stretch]
    empty = "score" if protocol.empty_masks == "skip" else "skip"
    other = {"score": "with empty masks", "skip": "without empty masks"}[empty]
    return [
        *(Variant(one) for name, one in PROTOCOLS.items() if name != protocol.name),
        Variant(_named(protocol, words, normalisation=stretch)),
        Variant(_named(protocol, other, empty_masks=empty)),
        *(Variant(_named(protocol, f"resized {word}"), how) for word, how in RESIZE.items()),
    ]


def _named(protocol: Protocol, words: str, **change: Any) -> Protocol:
    return replace(protocol, name=f"{protocol.name} ({words})", **change)


def compare_variants(
    variants: Sequence[Variant], results: Mapping[str, Sequence[ScoreResult | None]]
) -> list[Line]:
    """Return a line for each different way to each metric, families together.

    results: {method: its result by each of the variants}, which start with the protocol that
    counts. Ways that give all methods the same values share a line; a changed rule of that protocol
    is named only where it changes a value. A way that some method has no score by is left out.
    """
    base = variants[0].protocol.name
    lines: dict[tuple[str, tuple[float, ...]], Line] = {}
    for index, variant in enumerate(variants):
        found = {method: each[index] for method, each in results.items()}
        name = variant.protocol.name
        for metric in variant.protocol.metrics:
            values = {m: r.scores[metric] for m, r in found.items() if r is not None}
            usable = {m: v for m, v in values.items() if v is not None}
            if len(usable) == len(found):
                key = (metric, tuple(usable.values()))
                line = lines.get(key, Line(family(metric), metric, (), usable))
                if not (name.startswith(f"{base} (") and base in line.protocols):
                    lines[key] = replace(line, protocols=(*line.protocols, name))
    ordered = list(lines.values())
    first = {line.family: line for line in reversed(ordered)}
    places = list(dict.fromkeys(line.family for line in ordered))
    ordered.sort(key=lambda line: places.index(line.family))
    return [replace(line, turns=_turns(first[line.family], line)) for line in ordered]


def family(metric: str) -> str:
    """Return what papers call the metric without saying which: e of e_mean and e_max, ..."""
    return metric.partition("_")[0]


def _turns(first: Line, line: Line) -> tuple[tuple[str, str], ...]:
    """Return the pairs (ahead by the first line, ahead by this one)."""
    facts = known_metrics()
    old, new = (1 if facts[one.metric].higher_is_better else -1 for one in (first, line))
    turned = []
    for a, b in combinations(line.values, 2):
        before = old * (first.values[a] - first.values[b])
        after = new * (line.values[a] - line.values[b])
        if before * after < 0:
            turned.append((a, b) if before > 0 else (b, a))
    return tuple(turned)


def turn_sentences(lines: Sequence[Line]) -> list[str]:
    """Say where the order of two methods turns, a sentence for each family and pair."""
    facts, said = known_metrics(), []
    first = {line.family: line for line in reversed(lines)}
    turned: dict[tuple[str, str, str], list[Line]] = {}
    for line in lines:
        for pair in line.turns:
            turned.setdefault((line.family, *pair), []).append(line)
    for (kind, ahead, behind), others in turned.items():
        start = first[kind]
        ways = "; ".join(f"{facts[o.metric].label} of {', '.join(o.protocols)}" for o in others)
        said.append(
            f"{ahead} is ahead of {behind} by {facts[start.metric].label} of "
            f"{', '.join(start.protocols)}, but behind by {ways}"
        )
    return said
