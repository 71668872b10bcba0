"""Images and their masks, matched by name, and where the splits of a data set keep them."""

import csv
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from os.path import isfile
from pathlib import Path

import numpy as np

from lpmoe_bench.data.images import THRESHOLD, read_image, read_mask
from lpmoe_bench.data.registry import Dataset, Layout
from lpmoe_bench.environment import no_collection
from lpmoe_bench.errors import DataError

# Images and their masks, matched by name.

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif")
SHOWN = 10


class UnpairedError(DataError):
    """Some names have no partner, and others do."""


@dataclass(frozen=True, slots=True)
class Pair:
    """One image file, its mask file, and the name both share."""

    name: str
    image: Path
    mask: Path


@no_collection()
def find_pairs(
    images: Path,
    masks: Path,
    only: Sequence[str] | None = None,
    spare_masks: bool = False,
    left_out: list[str] | None = None,
) -> list[Pair]:
    """Match image and mask files of two folders by the name before the suffix, sorted.

    A folder may end in a pattern, such as `masks/*_segmentation.png`: then the name is what stands
    before the suffix that the pattern demands. Hidden files and other kinds of files are ignored,
    sub-folders are not opened. With `only`, only those are matched, and all must be there; with
    `spare_masks`, masks without an image are nobody's. Raises DataError for a folder that is
    missing or holds no image, names that are no text, two files of one name, and names without a
    partner: all are counted, ten are shown; with `left_out`, to which the last are added, only
    where no pair is left.
    """
    image_files, mask_files = files_by_name(images), files_by_name(masks)
    if only is not None:
        names = sorted({_same(name) for name in only})
    elif spare_masks:
        names = sorted(image_files)
    else:
        names = sorted(image_files.keys() | mask_files.keys())
    pairs, unpaired = [], []
    for name in names:
        image, mask = image_files.get(name), mask_files.get(name)
        if image and mask:
            pairs.append(Pair(name, image, mask))
        else:
            kinds = " or ".join(["image"] * (not image) + ["mask"] * (not mask))
            unpaired.append(f"{name} (no {kinds})")
    if left_out is not None and pairs:
        left_out += unpaired
    elif unpaired:
        # Where no name has a partner, the two folders do not belong together: leaving names out
        # would not help, so that error is of the plain kind.
        raise (UnpairedError if pairs else DataError)(
            f"{len(unpaired)} of {len(names)} names have no partner in {images} and {masks}: "
            f"{shown(unpaired)}; an image and its mask share a name up to the suffix"
        )
    return pairs


def files_by_name(place: Path) -> dict[str, Path]:
    """Return the image files of a folder, or of a pattern in it, by name; raises DataError."""
    folder, pattern = (place.parent, place.name) if "*" in place.name else (place, "*")
    found: dict[str, Path] = {}
    doubles, no_text = [], []
    for name, file in _named(folder, pattern):
        if not is_text(file.name):
            no_text.append(ascii(file.name))
        other = found.setdefault(_same(name), file)
        if other is not file:
            doubles.append(f"{other.name} and {file.name}")
    if no_text:
        raise DataError(
            f"{len(no_text)} names in {folder} are no UTF-8 text: {shown(no_text)}; rename them, "
            f"or unpack their archive with the encoding of its names"
        )
    refuse_two_files(folder, doubles)
    if not found:
        what = f"files {pattern}" if pattern != "*" else f"image files ({', '.join(SUFFIXES)})"
        raise DataError(f"folder {folder} holds no {what}")
    return found


def refuse_two_files(folder: Path, doubles: Sequence[str]) -> None:
    """Raise DataError where two files of a folder have one name, such as a.jpg and a.png."""
    if doubles:
        raise DataError(
            f"{len(doubles)} names in {folder} belong to two files: {shown(doubles)}; keep one each"
        )


def is_there(place: Path) -> bool:
    """Whether a folder is there, or an image file of a pattern in it; names alone are read."""
    if "*" not in place.name:
        return place.is_dir()
    return place.parent.is_dir() and any(True for _ in _named(place.parent, place.name))


def _named(folder: Path, pattern: str) -> Iterator[tuple[str, Path]]:
    """Yield (name of the pair, file) of the image files of a pattern, sorted by file name."""
    front, _, back = pattern.partition("*")
    ending = back.lower() if back.lower().endswith(SUFFIXES) else ""
    back = back if not ending else back[: ending.rindex(".")]
    try:  # iterdir makes paths in half the time that the operator / takes
        files = {file.name: file for file in folder.iterdir()}
    except OSError as error:
        raise DataError(f"folder {folder} cannot be opened ({error.strerror})") from None
    for name in sorted(files):
        stem, dot, suffix = name.rpartition(".")
        if (dot + suffix).lower() not in SUFFIXES or name.startswith("."):
            continue
        if pattern == "*" or (
            stem.startswith(front) and stem.endswith(back) and name.lower().endswith(ending)
        ):
            yield stem[: len(stem) - len(back)], files[name]


def is_text(name: str) -> bool:
    """Tell names that are text from bytes of another encoding, which no record could hold."""
    # Python turns each byte that is no UTF-8 into a lone surrogate.
    return name.isascii() or not any("\ud800" <= letter < "\ue000" for letter in name)


def read_names(path: Path) -> list[str]:
    """Read a split list, one name a line; raises DataError when it is missing, empty or has
    doubles."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise DataError(f"split list {path} cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise DataError(f"split list {path} is no UTF-8 text; save it as UTF-8") from None
    names = [line.strip() for line in lines if line.strip()]
    if not names:
        raise DataError(f"split list {path} is empty; it needs one name a line")
    doubles = [name for name, count in Counter(map(_same, names)).items() if count > 1]
    if doubles:
        raise DataError(f"split list {path} names {len(doubles)} twice: {shown(doubles)}")
    return names


def read_pair(pair: Pair, threshold: int = THRESHOLD) -> tuple[np.ndarray, np.ndarray]:
    """Return image uint8 RGB (h, w, 3) and mask uint8 of 0 and 255 (h, w).

    threshold: a mask value above it, of 255, is object. Raises DataError when one cannot be read or
    their sizes differ.
    """
    image, mask = read_image(pair.image), read_mask(pair.mask, threshold)
    check_sizes(pair, image.shape, mask.shape)
    return image, mask


def check_sizes(pair: Pair, image: tuple[int, ...], mask: tuple[int, ...]) -> None:
    """Raise DataError when image and mask shapes, (h, w, ...), differ."""
    if image[:2] != mask[:2]:
        raise DataError(
            f"{pair.image} is {image[1]} x {image[0]} pixels but its mask {pair.mask} is "
            f"{mask[1]} x {mask[0]}; both must have one size"
        )


def shown(items: Iterable[str], separator: str = ", ") -> str:
    """Join at most ten items and say how many more there are."""
    items = list(items)
    more = f"{separator}and {len(items) - SHOWN} more" if len(items) > SHOWN else ""
    return separator.join(items[:SHOWN]) + more


def _same(name: str) -> str:
    """One spelling of a name: systems store accents in two ways."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


# Where the images and masks of a data set's split lie: its own layout or one seen in the wild.

COLUMNS = ("image", "label")
SOURCE = "SOURCE.txt"  # in the folder of a split: where `data add` had it from


def check_root(root: Path | None) -> None:
    """Raise DataError for a folder of data sets that is named but not there."""
    if root is not None and not root.is_dir():
        raise DataError(
            f"the data folder {root} does not exist; correct --data-root or LPMOE_BENCH_DATA, or "
            f"leave both out"
        )


def not_found(dataset: Dataset, root: Path | None) -> DataError:
    """Return the error for a data set of which no split is there."""
    where = f"under {root}" if root else "anywhere (LPMOE_BENCH_DATA is not set)"
    return DataError(f"{dataset.name} is not {where}; see lpmoe-bench data show {dataset.name}")


def split_pairs(dataset: Dataset, place: Path, split: str) -> list[Pair] | None:
    """Return the pairs of a split of the set in a folder, None where the split is not there.

    Looked for in this order: SPLIT/images and SPLIT/masks with the SOURCE.txt that `data add`
    writes; the layouts of the registry; the plain layout; SPLIT/images and SPLIT/masks that
    somebody else made. Raises DataError for what is there and broken.
    """
    # What `data add` made comes first: it was verified, whatever else lies in the folder.
    own = place / split
    if (own / SOURCE).is_file():
        return find_pairs(own / "images", own / "masks")
    for layout in dataset.layouts:
        if split in layout and _is_whole(layout, split, place):
            return layout_pairs(layout, split, place)
    by_split = any((place / name / "images").is_dir() for name in dataset.split_names)
    if split in dataset.splits and ((place / dataset.images).is_dir() or not by_split):
        listed = dataset.splits[split]
        only = None if listed is None else read_names(place / listed)
        return find_pairs(place / dataset.images, place / dataset.masks, only)
    return find_pairs(own / "images", own / "masks") if (own / "images").is_dir() else None


def _is_whole(layout: Layout, split: str, place: Path) -> bool:
    """Whether all folders and tables of a split are there."""
    items = [place / item for part in layout[split] for item in part]
    return all(i.is_file() if i.name.endswith(".csv") else is_there(i) for i in items)


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
    pairs = [_row_pair(path, row) for row in read_table(path, *COLUMNS)]
    _refuse_doubles([pair.name for pair in pairs], str(path))
    absent = [str(f)[:200] for pair in pairs for f in (pair.image, pair.mask) if not isfile(f)]
    if absent:
        raise DataError(f"{len(absent)} files that {path} names are not there: {shown(absent)}")
    return pairs


def read_table(path: Path, one: str, other: str) -> list[dict[str, str]]:
    """Read the rows of a CSV table that has two columns; raises DataError for other tables."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"table {path} cannot be read ({error})") from None
    if not rows or not {one, other} <= rows[0].keys():
        raise DataError(f"table {path} must have rows with the columns {one} and {other}")
    return rows


def _row_pair(path: Path, row: dict[str, str]) -> Pair:
    files = [path.parent / (row[column] or "").replace("\\", "/") for column in COLUMNS]
    for file in files:
        # The table is a stranger's: it must not make us read, or later copy, files of this machine.
        if "\0" in str(file) or not file.resolve().is_relative_to(path.parent.resolve()):
            raise DataError(
                f"table {path} names {str(file)!r}, which lies outside the table's folder"
            )
    return Pair(files[0].stem, *files)


def _refuse_doubles(names: Sequence[str], where: str) -> None:
    doubles = [name for name, count in Counter(names).items() if count > 1]
    if doubles:
        raise DataError(f"{len(doubles)} names stand twice in {where}: {shown(doubles)}")
