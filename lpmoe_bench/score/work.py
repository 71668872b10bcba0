"""The scoring of some images: each mask read and prepared once for the maps of all folders."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from lpmoe_bench.data.images import inspect_map, inspect_mask, read_image
from lpmoe_bench.errors import DataError
from lpmoe_bench.metrics.maps import PreparedMask
from lpmoe_bench.metrics.protocols import Protocol
from lpmoe_bench.metrics.scorer import Scorer
from lpmoe_bench.score.checks import look_at


class Variant(NamedTuple):
    """A way to score: a protocol, and how maps of another size are resized, as cv2 calls it."""

    protocol: Protocol
    interpolation: int = cv2.INTER_LINEAR


class Item(NamedTuple):
    """One mask and its maps, one a folder, None where a folder has none. image: if needed."""

    name: str
    mask: Path
    maps: tuple[Path | None, ...]
    image: Path | None = None


class Job(NamedTuple):
    """What to score of every item: the first variant is what counts, with `extra` metrics and,
    if asked for, curves. dataset: the label of the test set."""

    dataset: str
    variants: tuple[Variant, ...]
    extra: tuple[str, ...] = ()
    curves: bool = False

    def scorers(self) -> list[Scorer]:
        """Return an empty scorer for each variant."""
        first, *others = (variant.protocol for variant in self.variants)
        return [
            Scorer(first, extra=self.extra, curves=self.curves),
            *(Scorer(protocol) for protocol in others),
        ]


@dataclass
class Part:
    """What some items came to. scorers: [folder][variant]. checks: a folder's {check: names}.
    mask_flags: {flag: names}. problems: a sentence for each file that cannot be scored."""

    scorers: list[list[Scorer]]
    checks: list[dict[str, list[str]]]
    mask_flags: dict[str, list[str]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @classmethod
    def empty(cls, job: Job, folders: int) -> Part:
        return cls([job.scorers() for _ in range(folders)], [{} for _ in range(folders)])

    def take(self, other: Part) -> None:
        """Take over what other items came to."""
        for ours, theirs in zip(self.scorers, other.scorers, strict=True):
            for mine, its in zip(ours, theirs, strict=True):
                mine.merge(its)
        for ours, theirs in zip(self.checks, other.checks, strict=True):
            _join(ours, theirs)
        _join(self.mask_flags, other.mask_flags)
        self.problems += other.problems

    def sort(self) -> Part:
        """Put names into an order that does not depend on who finished first; return self."""
        for found in (*self.checks, self.mask_flags):
            ordered = {key: sorted(found[key]) for key in sorted(found)}
            found.clear()
            found |= ordered
        self.problems.sort()
        return self


def _join(ours: dict[str, list[str]], theirs: dict[str, list[str]]) -> None:
    for key, names in theirs.items():
        ours.setdefault(key, []).extend(names)


def score_items(job: Job, items: Iterable[Item], folders: int) -> Part:
    """Score items; files that cannot be are problems, all of them, rather than an error."""
    part = Part.empty(job, folders)
    for item in items:
        try:
            masks = _masks(job, item, part)
            image = read_image(item.image) if item.image else None
        except DataError as error:
            part.problems.append(str(error))
            continue
        for index, path in enumerate(item.maps):
            if path is not None:
                try:
                    _score(job, item.name, path, masks, image, part, index)
                except DataError as error:
                    part.problems.append(str(error))
    return part


def _masks(job: Job, item: Item, part: Part) -> dict[int, PreparedMask]:
    """Return the mask by threshold; most jobs have one."""
    masks: dict[int, PreparedMask] = {}
    for protocol in (variant.protocol for variant in job.variants):
        if (threshold := protocol.mask_threshold) not in masks:
            pixels, flags = inspect_mask(item.mask, threshold)
            if not masks:
                _join(part.mask_flags, {flag: [item.name] for flag in flags})
            masks[threshold] = PreparedMask(pixels, threshold)
    return masks


def _score(
    job: Job,
    name: str,
    path: Path,
    masks: dict[int, PreparedMask],
    image: np.ndarray | None,
    part: Part,
    index: int,
) -> None:
    read, checks = inspect_map(path)
    first = masks[job.variants[0].protocol.mask_threshold]
    fitted: dict[int, np.ndarray] = {}
    for variant, scorer in zip(job.variants, part.scorers[index], strict=True):
        how, protocol = variant.interpolation, variant.protocol
        if how not in fitted:
            fitted[how] = fit(read, first.shape, how)
        picture = image if scorer.extra else None
        scorer.add(name, fitted[how], masks[protocol.mask_threshold], job.dataset, picture)
    more = ["resized"] if read.shape != first.shape else []
    checks = (*checks, *more, *look_at(fitted[job.variants[0].interpolation], first))
    _join(part.checks[index], {check: [name] for check in checks})


def fit(pred: np.ndarray, shape: tuple[int, int], how: int = cv2.INTER_LINEAR) -> np.ndarray:
    """Return a map, uint8 (h, w), at a mask's size: bilinearly, as every protocol says."""
    if pred.shape == shape:
        return pred
    return cv2.resize(pred, (shape[1], shape[0]), interpolation=how)
