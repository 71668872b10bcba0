"""Where the images and masks of a data set's split lie: its own layout or one seen in the wild."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from os.path import isfile
from pathlib import Path

from lpmoe_bench.errors import DataError
from lpmoe_bench.registry.pairs import Pair, find_pairs, is_there, read_stems, shown
from lpmoe_bench.registry.schema import Dataset, Layout

COLUMNS = ("image", "label")
SOURCE = "SOURCE.txt"  # in the folder of a split: where `data add` had it from


def check_root(root: Path | None) -> None:
    """Raise DataError for a folder of data sets that is named but not there."""
    if root is not None and not root.is_dir():
        raise DataError(
            f"the data folder {root} does not exist; correct --data-root or LPMOE_BENCH_DATA, or "
            f"leave both out"
        )


def split_pairs(dataset: Dataset, place: Path, split: str) -> list[Pair] | None:
    """Return the pairs of a split of the set in a folder, None where the split is not there.

    Looked for in this order: SPLIT/images and SPLIT/masks with the SOURCE.txt that `data add`
    writes; the layouts of the registry; the plain layout; SPLIT/images and SPLIT/masks that
    somebody else made. Raises DataError for what is there and broken.
    """
    own = place / split
    if (own / SOURCE).is_file():
        return find_pairs(own / "images", own / "masks")
    for layout in dataset.layouts:
        if split in layout and not missing_parts(layout, split, place):
            return layout_pairs(layout, split, place)
    by_split = any((place / name / "images").is_dir() for name in dataset.split_names)
    if split in dataset.splits and ((place / dataset.images).is_dir() or not by_split):
        listed = dataset.splits[split]
        stems = None if listed is None else read_stems(place / listed)
        return find_pairs(place / dataset.images, place / dataset.masks, stems)
    return find_pairs(own / "images", own / "masks") if (own / "images").is_dir() else None


def missing_parts(layout: Layout, split: str, place: Path) -> list[str]:
    """Return the folders and tables of a split that are not there."""
    named = [item for part in layout[split] for item in part]
    return [item for item in named if not _exists(place / item)]


def _exists(path: Path) -> bool:
    return path.is_file() if path.name.endswith(".csv") else is_there(path)


def layout_pairs(
    layout: Layout, split: str, place: Path, left_out: list[str] | None = None
) -> list[Pair]:
    """Return the pairs of all parts of a split; raises DataError, also for a name in two parts.

    left_out: as in find_pairs.
    """
    pairs: list[Pair] = []
    for part in layout[split]:
        if len(part) == 1:
            pairs += table_pairs(place / part[0])
        else:
            # One folder of masks for several splits: the rest of them is no error then.
            spare = sum(other[-1] == part[-1] for rest in layout.values() for other in rest) > 1
            images, masks = (place / item for item in part)
            pairs += find_pairs(images, masks, spare_masks=spare, left_out=left_out)
    _refuse_doubles([pair.name for pair in pairs], str(place))
    return sorted(pairs, key=lambda pair: pair.name)


def table_pairs(path: Path) -> list[Pair]:
    """Read the pairs of a CSV table with the columns image and label, paths beside the table.

    Raises DataError for other tables, paths that lead out of the table's folder, missing files and
    names that stand twice.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"table {path} cannot be read ({error})") from None
    if not rows or not set(COLUMNS) <= rows[0].keys():
        raise DataError(f"table {path} must have rows with the columns image and label")
    pairs = [_row_pair(path, row) for row in rows]
    _refuse_doubles([pair.name for pair in pairs], str(path))
    absent = [str(f)[:200] for pair in pairs for f in (pair.image, pair.mask) if not isfile(f)]
    if absent:
        raise DataError(f"{len(absent)} files that {path} names are not there: {shown(absent)}")
    return pairs


def _row_pair(path: Path, row: dict[str, str]) -> Pair:
    files = [path.parent / (row[column] or "").replace("\\", "/") for column in COLUMNS]
    for file in files:
        if "\0" in str(file) or not file.resolve().is_relative_to(path.parent.resolve()):
            raise DataError(
                f"table {path} names {str(file)!r}, which lies outside the table's folder"
            )
    return Pair(files[0].stem, *files)


def _refuse_doubles(names: Sequence[str], where: str) -> None:
    doubles = [name for name, count in Counter(names).items() if count > 1]
    if doubles:
        raise DataError(f"{len(doubles)} names stand twice in {where}: {shown(doubles)}")
