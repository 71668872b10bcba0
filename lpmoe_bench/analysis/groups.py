"""Which images of a test set vary together, such as the frames of one video."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from lpmoe_bench.analysis.samples import SeedRows
from lpmoe_bench.errors import DataError, UsageError
from lpmoe_bench.records.store import StoredRecord, image_rows

if TYPE_CHECKING:
    from lpmoe_bench.data.registry import Dataset, Registry

FEW_GROUPS = 8  # fewer of them resolve little


class Grouping(NamedTuple):
    """The groups of a test set's images. what: one such group, as in "5 sequences"."""

    what: str
    of: Mapping[str, str]

    @property
    def count(self) -> int:
        return len(set(self.of.values()))

    @property
    def text(self) -> str:
        """Return the count with its word: 5 sequences."""
        return _counted(self.count, self.what)


@dataclass
class GroupSource:
    """Where groups come from: a file that a user names, else what the rows say, else the registry.

    A verdict must not depend on which data lie on a machine: of the registry only rules count that
    need no more than names of images.
    """

    file: Path | None = None
    used: set[str] = field(default_factory=set)  # test sets of which the file has images
    _table: dict[str, str] | None = None

    def of(self, *rows: SeedRows) -> Grouping | None:
        """Return the groups of a test set, None where its images are not known to have any.

        Args:
            rows: of the methods compared, on one test set.

        Raises:
            DataError: the file cannot be read, or has no group of some images.
        """
        test = rows[0].test
        first = next((one for own in rows for one in own.rows if one is not None), None)
        names = [] if first is None else [*dict.fromkeys(first.images)]
        if self.file is not None:
            return self._of_file(test, names)
        for own in (one for side in rows for one in side.rows if one is not None):
            told = dict(zip(own.images, own.texts("group"), strict=True))
            if any(told.values()):
                return Grouping(_word(test), {image: told.get(image) or image for image in names})
        return _of_registry(test, names)

    def _of_file(self, test: str, names: Sequence[str]) -> Grouping | None:
        assert self.file is not None
        if self._table is None:
            self._table = read_groups(self.file)
        lacking = [name for name in names if name not in self._table]
        if len(lacking) == len(names):
            return None
        if lacking:
            raise DataError(
                f"{self.file} has no group of {len(lacking)} of {len(names)} images of {test}, "
                f"such as {lacking[0]}; give each image a line"
            )
        self.used.add(test)
        return Grouping("group", {name: self._table[name] for name in names})

    def require_use(self) -> None:
        """Raise UsageError where a file was named that has an image of no test set compared."""
        if self.file is not None and not self.used:
            raise UsageError(
                f"--groups {self.file} has no image of these test sets; its lines are image,group "
                f"with the names of images as per_image.csv has them"
            )


def few_groups(groups: Grouping, effective: float) -> str:
    """Return the clause that says that groups resolve little; empty where they are enough.

    Args:
        groups: those of a test set.
        effective: how many of one size would tell as much.
    """
    if effective >= FEW_GROUPS:
        return ""
    sizes = ""
    if groups.count >= FEW_GROUPS:
        sizes = f", by their sizes as good as {effective:.1f} of one size"
    return f"{sizes}; fewer than {FEW_GROUPS} resolve little"


def group_texts(stored: Iterable[StoredRecord], source: GroupSource) -> dict[tuple[str, str], str]:
    """Return {(test set, digest): such as "5 sequences"} where images are known to vary together.

    It is what captions say beside the count of images. Rows are read of one record a set, and only
    where they can tell: a file names groups, or the registry has a rule for them.

    Raises:
        DataError: the file cannot be read, or has no group of some images.
    """
    fullest: dict[tuple[str, str], tuple[int, StoredRecord]] = {}
    for one in stored:
        for facts in one.record.data.tests:
            images = one.record.counts.get(facts.label, {}).get("images", 0)
            key = facts.label, facts.digest
            if facts.label in one.record.scores and images > fullest.get(key, (-1,))[0]:
                fullest[key] = images, one
    found = {}
    for (test, digest), (_, one) in fullest.items():
        counted, dataset = one.record.counts.get(test, {}).get("groups"), _dataset(test)
        if counted and source.file is None:
            found[test, digest] = _counted(counted, _word(test))
        elif source.file is not None or (dataset and dataset.groups):
            try:
                image_rows(one.folder, test)
            except DataError:  # who judges by these rows says so
                continue
            if groups := source.of(SeedRows([one], test)):
                found[test, digest] = groups.text
    return found


def read_groups(path: Path) -> dict[str, str]:
    """Read lines of image,group, with or without a head; raises DataError."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            lines = [line for line in csv.reader(file) if any(map(str.strip, line))]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"--groups {path} could not be read ({error})") from None
    if lines and [cell.strip().lower() for cell in lines[0]] == ["image", "group"]:
        del lines[0]
    found: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        cells = [cell.strip() for cell in line]
        if len(cells) != 2 or not all(cells):
            raise DataError(f"--groups {path}, line {number}: got {line}; write image,group")
        # The same line twice does no harm; two groups of one image do.
        if found.setdefault(cells[0], cells[1]) != cells[1]:
            raise DataError(f"--groups {path} puts {cells[0]} into two groups; name it once")
    if not found:
        raise DataError(f"--groups {path} holds no line of image,group")
    return found


def _of_registry(test: str, names: Sequence[str]) -> Grouping | None:
    from lpmoe_bench.data.audit.groups import varying_groups

    dataset = _dataset(test)
    if dataset is None or dataset.groups is None:
        return None
    found = varying_groups(dataset, None, names)
    if not found:
        return None
    return Grouping(dataset.groups.unit, {name: found.get(name, name) for name in names})


def _dataset(test: str) -> Dataset | None:
    return _registry().datasets.get(test.partition("/")[0])


@cache
def _registry() -> Registry:
    from lpmoe_bench.data.registry import load_registry

    return load_registry()


def _counted(count: int, what: str) -> str:
    """Return a count with its word: 1 video, 13 stretches of 20 images of a video."""
    if count != 1:
        word, of, rest = what.partition(" of ")
        what = f"{word}{'es' if word.endswith('ch') else 's'}{of}{rest}"
    return f"{count} {what}"


def _word(test: str) -> str:
    dataset = _dataset(test)
    return dataset.groups.unit if dataset and dataset.groups else "group"
