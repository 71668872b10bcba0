"""Verification of a data set: every pair decoded, values, sizes, counts and checksums compared."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from lpmoe_bench.data.pairs import LonelyError, Pair, split_pairs
from lpmoe_bench.data.registry import Dataset
from lpmoe_bench.data.splits import Facts, OnProgress, Split, checked, checksum_of, digest_of
from lpmoe_bench.errors import DataError

MASKS = {  # flags of inspect_mask in a report
    "grey levels": "with grey levels (above 128 is object)",
    "values 0 and 1": "of 0 and 1 (1 is object)",
    "two colours": "in two colours (the lighter is object)",
    "empty": "empty",
}


class Bars(Protocol):
    """Whatever shows progress: a Terminal."""

    def bar(self, title: str, total: int) -> AbstractContextManager[_Bar]: ...


class _Bar(Protocol):
    def update(self, done: int, total: int, about: str = "") -> None: ...


@dataclass(frozen=True)
class Verified:
    """What was found in one split.

    problems make a run fail or its scores wrong; remarks do not. repairs: commands or steps, one
    for each kind of problem that can be repaired. sizes: the smallest and largest image, w x h.
    masks: how many of each unusual kind. checksum: of the content, whatever its names and dates;
    digest: the one that records carry, with the names.
    """

    label: str
    place: str
    pairs: int
    official: int | None = None
    confirmed: bool = False
    sizes: tuple[str, str] | None = None
    masks: dict[str, int] = field(default_factory=dict)
    checksum: str = ""
    digest: str = ""
    problems: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    repairs: list[str] = field(default_factory=list)


def verify_set(
    dataset: Dataset, root: Path | None, cache: Path | None = None, bars: Bars | None = None
) -> list[Verified]:
    """Verify every split that is there; raises DataError when none is.

    Everything is read afresh; with `cache`, what was read is kept there for the next run.
    """
    place = dataset.location(root)
    found = [] if place is None else list(_splits(dataset, place, cache, bars))
    if not found:
        where = f"under {root}" if root else "anywhere (LPMOE_BENCH_DATA is not set)"
        raise DataError(f"{dataset.name} is not {where}; see lpmoe-bench data show {dataset.name}")
    return found


def _splits(
    dataset: Dataset, place: Path, cache: Path | None, bars: Bars | None
) -> Iterator[Verified]:
    for name in dataset.split_names:
        try:
            pairs = split_pairs(dataset, place, name)
        except DataError as error:
            yield _cannot_open(dataset, place, name, error)
            continue
        if pairs is not None:
            yield _with_bar(dataset, name, place, pairs, cache, bars)


def _with_bar(
    dataset: Dataset,
    name: str,
    place: Path,
    pairs: list[Pair],
    cache: Path | None,
    bars: Bars | None,
) -> Verified:
    if bars is None:
        return verify_pairs(dataset, name, place, pairs, cache)
    with bars.bar(f"verifying {dataset.name}/{name}", len(pairs)) as bar:
        return verify_pairs(dataset, name, place, pairs, cache, bar.update)


def _cannot_open(dataset: Dataset, place: Path, name: str, error: DataError) -> Verified:
    repairs = [_again(dataset)]
    if isinstance(error, LonelyError) and dataset.splits.get(name) is None:
        where = shlex.quote(str(place))
        repairs.append(
            f"lpmoe-bench data add {dataset.name} {where} --skip-broken --replace  "
            f"(leaves them out)"
        )
    return Verified(
        f"{dataset.name}/{name}",
        str(place),
        0,
        dataset.counts.get(name),
        dataset.is_confirmed(name),
        problems=[str(error)],
        repairs=repairs,
    )


def verify_pairs(
    dataset: Dataset,
    name: str,
    place: Path,
    pairs: list[Pair],
    cache: Path | None = None,
    report: OnProgress | None = None,
) -> Verified:
    """Decode all pairs of a split and compare what is known of it."""
    split = Split(dataset.name, name, tuple(pairs), "")
    broken: list[str] = []
    read: list[tuple[Pair, Facts]] = []
    for done, one in enumerate(checked(split, broken, cache, afresh=True), start=1):
        read.append(one)
        if report is not None:
            report(done, len(pairs))
    return judge_pairs(dataset, name, place, read, broken)


def judge_pairs(
    dataset: Dataset, name: str, place: Path, read: list[tuple[Pair, Facts]], broken: list[str]
) -> Verified:
    """Say what pairs that were read afresh amount to; broken: what is wrong with some of them."""
    facts = [one for _, one in read]
    flags = Counter(flag for one in facts for flag in one.flags or ())
    found = Verified(
        f"{dataset.name}/{name}",
        str(place),
        len(read),
        dataset.counts.get(name),
        dataset.is_confirmed(name),
        _sizes(facts),
        {words: flags[flag] for flag, words in MASKS.items() if flags[flag]},
        "" if broken else checksum_of(read),
        "" if broken else digest_of(read),
        problems=broken,
    )
    _complete(dataset, name, found)
    return found


def _complete(dataset: Dataset, name: str, found: Verified) -> None:
    """Add what the numbers mean: problems, remarks, and how to repair."""
    if found.problems:
        found.repairs.append(_again(dataset))
    if any("only values above" in problem or "colours" in problem for problem in found.problems):
        found.repairs.append(
            f"lpmoe-bench data add {dataset.name} {shlex.quote(found.place)} --object nonzero "
            f"--replace  "
            f"(everything but 0 becomes object, saved as 255)"
        )
    if found.official not in (None, found.pairs):
        sure = "" if found.confirmed else " (not confirmed)"
        found.remarks.append(f"{found.pairs} pairs counted, officially {found.official}{sure}")
        if found.official > found.pairs and not found.problems and dataset.archives:
            found.repairs.append(_again(dataset))
    expected = dataset.checksums.get(name)
    if expected and found.checksum and expected != found.checksum:
        found.problems.append(f"the content has checksum {found.checksum}, expected is {expected}")
        found.repairs.append(_again(dataset))
    if name in dataset.local:
        found.remarks.append("a local split, comparable with no published table")


def _again(dataset: Dataset) -> str:
    """Return the command that replaces what is on disk by a good copy."""
    if dataset.archives:
        return f"lpmoe-bench data fetch {dataset.name} --replace"
    where = f"  (FILE: {dataset.by_hand or 'a good copy'}, see {dataset.page or 'its source'})"
    return f"lpmoe-bench data add {dataset.name} FILE --replace{where}"


def _sizes(facts: list[Facts]) -> tuple[str, str] | None:
    shapes = [one.shape for one in facts if one.shape and all(one.shape)]
    if not shapes:
        return None
    by_area = sorted(shapes, key=lambda shape: (shape[0] * shape[1], shape))
    small, large = (f"{w} x {h}" for h, w in (by_area[0], by_area[-1]))
    return small, large


# A verification as text for people, as JSON and as Markdown.

SHOWN = 10  # problems of one split in text; JSON has them all


def verification_json(found: Sequence[Verified]) -> dict[str, Any]:
    """Return what was verified, and whether all of it is sound."""
    return {"sound": not any(one.problems for one in found), "splits": [asdict(v) for v in found]}


def verification_text(found: Sequence[Verified]) -> str:
    """Return a few lines for each split."""
    lines = []
    for one in found:
        lines.append(f"{one.label}: {'sound' if not one.problems else 'not sound'}")
        lines += [f"  {field:<9} {text}" for field, text in _facts(one)]
    return "\n".join(lines)


def verification_markdown(found: Sequence[Verified]) -> str:
    """Return one table row for each split, then what is wrong and how to repair it."""
    lines = [
        "| split | sound | pairs | official | sizes | masks | content sha256 |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in found:
        cells = (
            one.label,
            "no" if one.problems else "yes",
            str(one.pairs),
            _official(one),
            _size_words(one),
            _masks(one),
            f"`{one.checksum[:16]}`" if one.checksum else "",
        )
        lines.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
    for one in found:
        said = [(field, text) for field, text in _facts(one) if field in ("problem", "repair")]
        if said:
            lines += ["", f"{one.label}:", ""]
            lines += [f"- {field}: {text}" for field, text in said]
    return "\n".join(lines) + "\n"


def _facts(one: Verified) -> list[tuple[str, str]]:
    """Return (field, text) of one split, leaving out what is empty."""
    more = len(one.problems) - SHOWN
    hidden = [("problem", f"and {more} more")] if more > 0 else []
    lines = [
        ("folder", one.place),
        ("pairs", str(one.pairs)),
        ("sizes", _size_words(one)),
        ("masks", _masks(one)),
        ("content", one.checksum),
        ("digest", one.digest),
        *(("problem", text) for text in one.problems[:SHOWN]),
        *hidden,
        *(("remark", text) for text in one.remarks),
        *(("repair", text) for text in one.repairs),
    ]
    return [(field, text) for field, text in lines if text]


def _official(one: Verified) -> str:
    if one.official is None:
        return ""
    return f"{one.official}" + ("" if one.confirmed else " (not confirmed)")


def _size_words(one: Verified) -> str:
    if one.sizes is None:
        return ""
    small, large = one.sizes
    return small if small == large else f"{small} to {large}"


def _masks(one: Verified) -> str:
    return ", ".join(f"{count} {words}" for words, count in one.masks.items())
