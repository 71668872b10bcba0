"""One split built beside its place: copied under one name a pair, masks converted, verified."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from lpmoe_bench.console import Terminal
from lpmoe_bench.datasets.verify import Verified, judge
from lpmoe_bench.errors import DataError
from lpmoe_bench.images import decode, read_whole
from lpmoe_bench.registry.manifest import Facts
from lpmoe_bench.registry.pairs import Pair, shown
from lpmoe_bench.registry.schema import Dataset
from lpmoe_bench.registry.splits import Split, checked


@dataclass(frozen=True)
class Draft:
    """A split that is ready to be moved into place, and what was left out of it."""

    place: Path
    verified: Verified
    skipped: list[str] = field(default_factory=list)


def draft_split(
    dataset: Dataset,
    name: str,
    pairs: Sequence[Pair],
    place: Path,
    own: bool,
    terminal: Terminal,
    skip: bool,
) -> Draft:
    """Build place/images and place/masks from pairs, which are moved if they are our `own`.

    Raises DataError when pairs are broken and `skip` does not leave them out, or none is left.
    """
    with terminal.bar(f"copying {dataset.name}/{name}", len(pairs)) as bar:
        copied, broken = [], {}
        for done, pair in enumerate(pairs, start=1):
            try:
                copied.append(_copy(pair, place, dataset.object, own))
            except DataError as error:
                broken[pair.name] = str(error)
            bar.update(done, len(pairs))
    split = Split(dataset.name, name, tuple(copied), "")
    with terminal.bar(f"verifying {dataset.name}/{name}", len(copied)) as bar:
        read: list[tuple[Pair, Facts]] = []
        problems: list[str] = []
        for done, (pair, facts) in enumerate(checked(split, problems, afresh=True), start=1):
            if problems:
                broken[pair.name] = "; ".join(problems).replace(f"{place}{os.sep}", "")
                problems.clear()
            else:
                read.append((pair, facts))
            bar.update(done, len(copied))
    _judge_broken(split, broken, len(pairs), bool(read), skip)
    for pair in copied:
        if pair.name in broken:
            pair.image.unlink()
            pair.mask.unlink()
    left_out = [f"{dataset.name}/{name}: {text}" for text in broken.values()]
    return Draft(place, judge(dataset, name, place, read, []), left_out)


def _judge_broken(split: Split, broken: dict[str, str], total: int, left: bool, skip: bool) -> None:
    if broken and not (skip and left):
        hint = "--skip-broken leaves them out" if left else "none is left: nothing is taken"
        raise DataError(
            f"{len(broken)} of {total} pairs of {split.label} are broken: "
            f"{shown(broken.values(), '; ')}; {hint}"
        )


def _copy(pair: Pair, place: Path, rule: str, own: bool) -> Pair:
    """Put image and mask under the pair's name; a mask is rewritten if the rule asks for it."""
    image = place / "images" / f"{pair.name}{pair.image.suffix}"
    mask = place / "masks" / f"{pair.name}{pair.mask.suffix}"
    for folder in (image.parent, mask.parent):
        folder.mkdir(parents=True, exist_ok=True)
    converted = None if rule == "above 128" else _converted(pair.mask, rule)
    if converted is None:
        _bring(pair.mask, mask, own)
    else:
        mask = mask.with_name(f"{pair.name}.png")
        mask.write_bytes(converted)
    _bring(pair.image, image, own)
    return Pair(pair.name, image, mask)


def _bring(source: Path, target: Path, own: bool) -> None:
    if not (source.is_file() and os.access(source, os.R_OK)):
        raise DataError(f"{source} cannot be read, or is no file")
    if own:
        os.replace(source, target)
    else:
        shutil.copyfile(source, target)


def _converted(path: Path, rule: str) -> bytes | None:
    """Return a mask as PNG of 0 and 255, None for a grey one where the rule is a colour.

    `nonzero`: object wherever a colour or index is not 0. A colour, `#rrggbb`: object where each
    channel is on the same side of the middle as the colour's, since resizing mixes colours.
    """
    pixels = decode(path, read_whole(path), cv2.IMREAD_UNCHANGED)
    if pixels.ndim == 3 and pixels.shape[2] == 4:
        pixels = pixels[..., :3] * (pixels[..., 3:] > 0)
    if rule == "nonzero":
        found = (pixels if pixels.ndim == 2 else pixels.max(axis=2)) > 0
    elif pixels.ndim == 2 or (pixels == pixels[..., :1]).all():
        return None
    else:
        blue_green_red = bytes.fromhex(rule[1:])[::-1]
        middle = np.iinfo(pixels.dtype).max // 2
        found = ((pixels > middle) == [value > 127 for value in blue_green_red]).all(axis=2)
    return cv2.imencode(".png", found.astype(np.uint8) * 255)[1].tobytes()
