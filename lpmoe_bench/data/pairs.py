"""Images and their masks, matched by name, and where the splits of a data set keep them."""

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from os.path import isfile
from pathlib import Path, PurePosixPath

import numpy as np

from lpmoe_bench.data.annotations import Mask, MaskParts, is_coco, mask_files, read_coco
from lpmoe_bench.data.images import read_image, read_truth
from lpmoe_bench.data.label_rules import LISTING
from lpmoe_bench.data.matching import (
    MASK_SUFFIXES,
    SUFFIXES,
    common_rule,
    divide_place,
    holds_any,
    is_open,
    named_files,
    same_name,
    shown,
)
from lpmoe_bench.data.object_files import read_object_files
from lpmoe_bench.data.pixels import THRESHOLD, UNDECLARED, PixelRules, Truth, declare
from lpmoe_bench.data.registry import Dataset, Layout
from lpmoe_bench.environment import no_collection
from lpmoe_bench.errors import DataError

# Images and their masks, matched by name.


class UnpairedError(DataError):
    """Some names have no partner, and others do."""


@dataclass(frozen=True, slots=True)
class Pair:
    """One image file, its mask, the name both share, which is a path where folders hold folders,
    and what is declared of their values."""

    name: str
    image: Path
    mask: Mask
    rules: PixelRules = UNDECLARED


@no_collection()
def find_pairs(
    images: Path,
    masks: Path,
    only: Sequence[str] | None = None,
    spare_masks: bool = False,
    left_out: list[str] | None = None,
    said: list[str] | None = None,
    variable: str = "",
    rules: PixelRules = UNDECLARED,
) -> list[Pair]:
    """Match images and masks of two places by name, sorted.

    A place is a folder, with all that is below it, or a pattern such as `masks/*_segmentation.png`:
    see named_files. Masks may be a COCO file, or a folder that holds nothing else, and then its
    images are the pairs. Where a pattern leaves more open than the name, several masks of an image
    are one, their union. Files of both places are images where the masks' pattern leaves them out.

    Args:
        images: where they are.
        masks: where they are; in the same folder too.
        only: match only these names, and all of them must be there.
        spare_masks: masks without an image are nobody's.
        left_out: names without a partner are added to it, where any pair is left.
        said: where names differ by one rule that fits all, use it and add a sentence on it.
        variable: of the masks' MATLAB files.
        rules: what is declared of their values.

    Raises:
        DataError: for a folder that is missing or holds no image, names that are no text, two files
            of one name, and names without a partner: all are counted, ten are shown.
    """
    image_files = named_files(images, SUFFIXES)
    coco = _coco_file(masks)
    if coco:
        mask_files = _of_coco(coco, image_files, rules.category, said)
    else:
        mask_files = _mask_files(masks, variable)
    _divide(image_files, mask_files, images, masks)
    image_names = _single(image_files, images, SUFFIXES)
    masks_by_name = _joined(mask_files, masks, variable)
    if only is not None:
        names = sorted({same_name(name) for name in only})
    elif coco:
        names = sorted(masks_by_name)
    elif spare_masks:
        names = sorted(image_names)
    else:
        names = sorted(image_names.keys() | masks_by_name.keys())
    if not coco and not image_names.keys() & masks_by_name.keys():
        masks_by_name, names = _by_rule(image_names, masks_by_name, names, said)
    pairs, unpaired = [], []
    for name in names:
        image, mask = image_names.get(name), masks_by_name.get(name)
        if image and mask:
            pairs.append(Pair(name, image, mask, rules))
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
            f"{_proposal(image_names, masks_by_name, images, masks)}"
        )
    return pairs


def find_layers(
    images: Path,
    masks: Sequence[Path],
    only: Sequence[str] | None = None,
    spare_masks: bool = False,
    left_out: list[str] | None = None,
    said: list[str] | None = None,
    variable: str = "",
    rules: PixelRules = UNDECLARED,
) -> list[Pair]:
    """Match images with masks of one place, or of several whose files are layers of one map.

    Args:
        images: where they are.
        masks: where they are; several for layers, of which each image has all.
        only, spare_masks, left_out, said, variable, rules: as in `find_pairs`.

    Raises:
        DataError: as `find_pairs`; also where an image lacks one of its layers.
    """
    how = (left_out, said, variable, rules)
    pairs = find_pairs(images, masks[0], only, spare_masks, *how)
    if len(masks) == 1:
        return pairs
    parts = {pair.name: [*mask_files(pair.mask)] for pair in pairs}
    for place in masks[1:]:
        for pair in find_pairs(images, place, list(parts), False, *how):
            parts[pair.name] += mask_files(pair.mask)
    whole = [pair for pair in pairs if len(parts[pair.name]) >= len(masks)]  # others: left_out
    return [replace(p, mask=MaskParts(tuple(parts[p.name]), variable, layers=True)) for p in whole]


def find_objects(
    images: Path, places: Sequence[Path], rules: PixelRules, only: Sequence[str] | None = None
) -> list[Pair]:
    """Match images with the labels of their objects, sorted by name.

    Args:
        images: where they are.
        places: of the labels: a file of all, a folder of one for each image, or a file and the
            folder of its maps; see `read_object_files`.
        rules: what is declared; pairs have the classes that the files list.
        only: match only these names, and all of them must be there.

    Raises:
        DataError: as `find_pairs` and `read_object_files`; also for images without a label.
    """
    assert rules.labels is not None
    if rules.labels.format == "instances":
        return find_pairs(images, places[0], only, rules=rules)
    files = _single(named_files(images, SUFFIXES), images, SUFFIXES)
    found = read_object_files(places, files, rules.labels)
    rules = replace(rules, labels=found.rules)
    whole = rules.labels is not None and rules.labels.format in LISTING  # which lists its images
    names = found.masks if whole else files
    if only is not None:
        names = [same_name(name) for name in only]
    if lacking := sorted(name for name in names if name not in found.masks or name not in files):
        raise DataError(
            f"{len(lacking)} of {len(names)} images have no label in {places[0]}, or are not in "
            f"{images}: {shown(lacking)}"
        )
    return [Pair(name, files[name], found.masks[name], rules) for name in sorted(names)]


def find_masks(place: Path) -> dict[str, Mask]:
    """Return the masks of a place by name, without their images; raises DataError as find_pairs."""
    if not divide_place(place)[0].is_dir() and not place.is_file():
        raise DataError(f"{place} is no folder; name one that holds masks")
    coco = _coco_file(place)
    return _joined(_of_coco(coco, {}) if coco else _mask_files(place, ""), place, "")


def _mask_files(place: Path, variable: str) -> dict[str, list[Path]]:
    """Return the files of masks by name: images, and annotations where there are no images."""
    found = named_files(place, MASK_SUFFIXES)
    if not divide_place(place)[1]:
        plain = {
            name: kept
            for name, files in found.items()
            if (kept := [file for file in files if file.suffix.lower() in SUFFIXES])
        }
        found = plain or found
    return found


def _divide(
    images: dict[str, list[Path]], masks: dict[str, list], image_place: Path, mask_place: Path
) -> None:
    """Take files that both places hold away from the one whose rule is the wider."""
    one, other = divide_place(image_place)[0], divide_place(mask_place)[0]
    if not (one.is_relative_to(other) or other.is_relative_to(one)):
        return  # as a rule, and to compare all files takes a while
    image_set = {file for files in images.values() for file in files}
    mask_set = {file for files in masks.values() for file in files if isinstance(file, Path)}
    common = image_set & mask_set
    if not common:
        return
    if common == image_set == mask_set and all(len(files) == 1 for files in images.values()):
        raise DataError(
            f"{image_place} and {mask_place} are the same {len(common)} files; images and masks "
            f"are two"
        )
    wider = images if len(image_set) > len(mask_set) else masks if image_set < mask_set else None
    for name in list(wider or ()):
        assert wider is not None
        wider[name] = [file for file in wider[name] if file not in common]
        if not wider[name]:
            del wider[name]


def _single(
    found: Mapping[str, list[Path]], place: Path, suffixes: Sequence[str]
) -> dict[str, Path]:
    """Return one file a name; raises DataError for none at all, and for two of one name."""
    folder, pattern = divide_place(place)
    doubles = [
        f"{files[0].name} and {other.name}" for files in found.values() for other in files[1:]
    ]
    refuse_two_files(folder, doubles)
    if not found:
        what = f"files {pattern}" if pattern else f"image files ({', '.join(suffixes)})"
        raise DataError(f"folder {folder} holds no {what}")
    return {name: files[0] for name, files in found.items()}


def _joined(found: Mapping[str, list], place: Path, variable: str) -> dict[str, Mask]:
    """Return one mask a name: a file, or several that a pattern lets belong to it."""
    if not is_open(place):
        single = _single(found, place, MASK_SUFFIXES)
        if not variable:
            return dict(single)
        return {name: MaskParts((file,), variable) for name, file in single.items()}
    if not found:
        _single(found, place, MASK_SUFFIXES)
    return {
        name: files[0] if len(files) == 1 and not variable else MaskParts(tuple(files), variable)
        for name, files in found.items()
    }


def _coco_file(place: Path) -> Path | None:
    """Return the COCO file that a place is, or holds and nothing else."""
    if place.suffix.lower() == ".json" and place.is_file() and not divide_place(place)[1]:
        return place
    if not place.is_dir():
        return None
    inside = [entry for entry in place.iterdir() if not entry.name.startswith(".")]
    if len(inside) == 1 and inside[0].suffix.lower() == ".json" and is_coco(inside[0]):
        return inside[0]
    return None


def _of_coco(
    path: Path,
    images: Mapping[str, list[Path]],
    wanted: Sequence[str] = (),
    said: list[str] | None = None,
) -> dict[str, list]:
    """Return the masks that a COCO file has, by the names of the images.

    wanted: categories that are object; raises DataError where the file has no such one. said: where
    none is wanted and there are several, a sentence on their union is added.
    """
    by_last: dict[str, list[str]] = {}
    for name in images:
        by_last.setdefault(name.rpartition("/")[2], []).append(name)
    found: dict[str, list] = {}
    content = read_coco(path)
    known = list(content.index)
    if unknown := [name for name in wanted if name not in known]:
        raise DataError(f"{path} has no category {unknown[0]}; it has {shown(known)}")
    if said is not None and not wanted and len(known) > 1:
        said.append(
            f"objects of all {len(known)} categories of {path.name} ({shown(known)}) are one mask; "
            + declare("for some of them", category=known[:1])
        )
    for file, annotation in content.images.items():
        name = same_name(PurePosixPath(file).with_suffix("").as_posix())
        # A file says `train/a.jpg` where the folder given is that of train, or the other way round.
        likely = by_last.get(name.rpartition("/")[2], [])
        if name not in images and len(likely) == 1:
            name = likely[0]
        found.setdefault(name, []).append(MaskParts((path,), annotation=annotation))
    return found


def _by_rule(
    images: Mapping[str, Path], masks: Mapping[str, Mask], names: list[str], said: list[str] | None
) -> tuple[Mapping[str, Mask], list[str]]:
    """Return masks by the names of their images where one rule fits all and may be used."""
    rule, count = common_rule(images, masks) if said is not None else (None, 0)
    if rule is None or count < max(len(images), len(masks)):
        return masks, names
    assert said is not None
    image, mask = rule.patterns()
    said.append(f"masks are matched by one rule that fits all {count}: image {image}, mask {mask}")
    return {name: masks[other] for name, other in rule.match(images, masks).items()}, sorted(images)


def _proposal(
    images: Mapping[str, Path], masks: Mapping[str, Mask], image_place: Path, mask_place: Path
) -> str:
    """Return the patterns that would pair most of names that differ by a rule."""
    if len(images.keys() & masks.keys()) > len(images) / 2:
        return ""
    last = [{name.rpartition("/")[2] for name in names} for names in (images, masks)]
    if last[0] == last[1] and len(last[0]) == len(images) == len(masks):
        return "; folders that a star stands for are part of a name: write {name} for the rest"
    rule, count = common_rule(images, masks)
    if rule is None or count <= len(images) / 2:
        return ""
    one, other = (
        f"{divide_place(place)[0]}/{text}"
        for place, text in zip((image_place, mask_place), rule.patterns(), strict=True)
    )
    return f". {count} would be paired by '{one}' as images and '{other}' as masks"


def refuse_two_files(folder: Path, doubles: Sequence[str]) -> None:
    """Raise DataError where two files of a folder have one name, such as a.jpg and a.png."""
    if doubles:
        raise DataError(
            f"{len(doubles)} names in {folder} belong to two files: {shown(doubles)}; keep one each"
        )


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
    doubles = [name for name, count in Counter(map(same_name, names)).items() if count > 1]
    if doubles:
        raise DataError(f"split list {path} names {len(doubles)} twice: {shown(doubles)}")
    return names


def read_pair(pair: Pair, threshold: int = THRESHOLD) -> tuple[np.ndarray, np.ndarray]:
    """Return image uint8 RGB (h, w, 3) and mask uint8 of 0 and 255 (h, w).

    threshold: an undeclared mask value above it, of 255, is object. Raises DataError when one
    cannot be read or their sizes differ.
    """
    image, mask = read_image(pair.image, pair.rules), pair_truth(pair, threshold).mask
    check_sizes(pair, image.shape, mask.shape)
    return image, mask


def pair_truth(pair: Pair, threshold: int = THRESHOLD) -> Truth:
    """Return what the mask of a pair says; raises DataError as `read_truth`."""
    return read_truth(pair.mask, threshold, pair.rules, pair.image)


def check_sizes(pair: Pair, image: tuple[int, ...], mask: tuple[int, ...]) -> None:
    """Raise DataError when image and mask shapes, (h, w, ...), differ."""
    if image[:2] != mask[:2]:
        raise DataError(
            f"{pair.image} is {image[1]} x {image[0]} pixels but its mask {pair.mask} is "
            f"{mask[1]} x {mask[0]}; both must have one size, or "
            + declare("if masks are to be stretched to their images", resize_masks=True)
        )


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
    place = dataset.location(root)
    if place is None:
        where = f"under {root}" if root else "anywhere (LPMOE_BENCH_DATA is not set)"
        return DataError(f"{dataset.name} is not {where}; see lpmoe-bench data show {dataset.name}")
    there = sorted(entry.name for entry in place.iterdir() if not entry.name.startswith("."))
    return DataError(
        f"{dataset.name} is in {place}, but none of its splits: looked for {wanted(dataset)}; "
        f"found {shown(there) or 'nothing'}; correct the entry of {dataset.name}, or the folder"
    )


def wanted(dataset: Dataset) -> str:
    """Return what the layouts of a set look for."""
    layouts = [
        " + ".join(item for part in parts for item in part)
        for layout in dataset.layouts
        for parts in layout.values()
    ]
    plain = (
        [" + ".join((dataset.images, *dataset.mask_places))]
        if dataset.splits or not (layouts or dataset.label_files)
        else []
    )
    plain += [" + ".join((dataset.images, *files)) for files in dataset.label_files.values()]
    return shown(dict.fromkeys([*layouts, *plain]), "; ")


def split_pairs(dataset: Dataset, place: Path, split: str) -> list[Pair] | None:
    """Return the pairs of a split of the set in a folder, None where the split is not there.

    Looked for in this order: SPLIT/images and SPLIT/masks with the SOURCE.txt that `data add`
    writes; the layouts of the registry; the plain layout; SPLIT/images and SPLIT/masks that
    somebody else made. Raises DataError for what is there and broken.
    """
    # What `data add` made comes first: it was verified, whatever else lies in the folder. Its masks
    # were converted as the entry says, as are those of a plain layout beside others.
    own, rules = place / split, dataset.pixels_at(place)
    if rules.labels is not None and rules.labels.objects:
        return _object_split(dataset, place, split, rules)
    converted = rules if rules.ignore or rules.labels else replace(rules, object="")
    # Label maps were copied as they are, with the variable that holds them.
    variable = dataset.variable if rules.labels else ""
    of_split = [own / folder for folder in dataset.layers or ("masks",)]
    if (own / SOURCE).is_file():
        return find_layers(own / "images", of_split, rules=converted, variable=variable)
    for layout in dataset.layouts:
        if split in layout and _is_whole(layout, split, place):
            pairs = _without(dataset, place, split, layout)
            return [replace(pair, rules=rules) for pair in pairs] if rules.facts else pairs
    images, masks = place / dataset.images, [place / name for name in dataset.mask_places]
    by_split = any((place / name / "images").is_dir() for name in dataset.split_names)
    if split in dataset.splits and (holds_any(images, SUFFIXES) or not by_split):
        only = _listed(dataset, place, split)
        rules = converted if dataset.layouts else rules
        return find_layers(images, masks, only, variable=dataset.variable, rules=rules)
    if not (own / "images").is_dir():
        return None
    return find_layers(own / "images", of_split, rules=rules, variable=variable)


def _object_split(
    dataset: Dataset, place: Path, split: str, rules: PixelRules
) -> list[Pair] | None:
    """Return the pairs of a split whose labels are of objects, None where it is not there."""
    images = place / dataset.images
    for layout in dataset.layouts:
        if split in layout and _is_whole(layout, split, place):
            parts = ([place / item for item in part] for part in layout[split])
            pairs = [pair for one, *labels in parts for pair in find_objects(one, labels, rules)]
            _refuse_doubles([pair.name for pair in pairs], str(place))
            return sorted(pairs, key=lambda pair: pair.name)
    files = [place / one for one in dataset.label_files.get(split, ())]
    if files and all(one.exists() for one in files):
        return find_objects(images, files, rules)
    if split in dataset.splits and holds_any(images, SUFFIXES):
        only = _listed(dataset, place, split)
        return find_objects(images, [place / dataset.masks], rules, only)
    return None


def _listed(dataset: Dataset, place: Path, split: str) -> list[str] | None:
    """Return the names of a split, None for all: its list lies in the set or beside its entry."""
    listed = dataset.splits[split]
    return None if listed is None else _names_of(dataset, place, listed)


def _names_of(dataset: Dataset, place: Path, listed: str) -> list[str]:
    beside = dataset.base / listed if dataset.base else None
    return read_names(beside if beside and not (place / listed).exists() else place / listed)


def _without(dataset: Dataset, place: Path, split: str, layout: Layout) -> list[Pair]:
    """Return the pairs of a layout's split, less those that the entry leaves out."""
    if split not in dataset.leave_out:
        return layout_pairs(layout, split, place, variable=dataset.variable)
    gone = {same_name(name) for name in _names_of(dataset, place, dataset.leave_out[split])}
    unpaired: list[str] = []
    pairs = layout_pairs(layout, split, place, unpaired, dataset.variable)
    if others := [name for name in unpaired if same_name(unpaired_name(name)) not in gone]:
        raise UnpairedError(
            f"{len(others)} names of {dataset.name}/{split} have no partner and are not left out "
            f"by its entry: {shown(others)}"
        )
    return [pair for pair in pairs if pair.name not in gone]


def unpaired_name(text: str) -> str:
    """Return the name in what `left_out` says of a name without a partner."""
    return text.rpartition(" (no ")[0]


def _is_whole(layout: Layout, split: str, place: Path) -> bool:
    """Whether all folders, files and tables of a split are there."""
    items = [place / item for part in layout[split] for item in part]
    return all(
        item.is_file()
        if item.suffix in (".csv", ".json") and not divide_place(item)[1]
        else holds_any(item, MASK_SUFFIXES)
        for item in items
    )


def layout_pairs(
    layout: Layout, split: str, place: Path, left_out: list[str] | None = None, variable: str = ""
) -> list[Pair]:
    """Return the pairs of all parts of a split; raises DataError, also for a name in two parts.

    left_out, variable: as in find_pairs.
    """
    pairs: list[Pair] = []
    for part in layout[split]:
        if len(part) == 1:
            pairs += table_pairs(place / part[0])
        else:
            # One folder of masks for several splits: the rest of them is no error then.
            spare = sum(other[-1] == part[-1] for rest in layout.values() for other in rest) > 1
            images, *masks = (place / item for item in part)
            pairs += find_layers(
                images, masks, spare_masks=spare, left_out=left_out, variable=variable
            )
    _refuse_doubles([pair.name for pair in pairs], str(place))
    return sorted(pairs, key=lambda pair: pair.name)


def table_pairs(path: Path) -> list[Pair]:
    """Read the pairs of a CSV table with the columns image and label, paths beside the table.

    Raises DataError for other tables, paths that lead out of the table's folder, missing files and
    names that stand twice.
    """
    rows = [_row_files(path, row) for row in read_table(path, *COLUMNS)]
    names = [image.stem for image, _ in rows]
    if len(set(names)) < len(names):  # frames of one name in several folders
        names = [image.relative_to(path.parent).with_suffix("").as_posix() for image, _ in rows]
    _refuse_doubles(names, str(path))
    pairs = [Pair(name, *files) for name, files in zip(names, rows, strict=True)]
    absent = [str(file)[:200] for files in rows for file in files if not isfile(file)]
    if absent:
        raise DataError(f"{len(absent)} files that {path} names are not there: {shown(absent)}")
    return pairs


def read_table(path: Path, one: str, other: str) -> list[dict[str, str]]:
    """Read the rows of a CSV table that has two columns; raises DataError for other tables."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file, skipinitialspace=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"table {path} cannot be read ({error})") from None
    if not rows or not {one, other} <= rows[0].keys():
        raise DataError(f"table {path} must have rows with the columns {one} and {other}")
    return rows


def _row_files(path: Path, row: dict[str, str]) -> tuple[Path, Path]:
    files = [path.parent / (row[column] or "").replace("\\", "/") for column in COLUMNS]
    for file in files:
        # The table is a stranger's: it must not make us read, or later copy, files of this machine.
        if "\0" in str(file) or not file.resolve().is_relative_to(path.parent.resolve()):
            raise DataError(
                f"table {path} names {str(file)!r}, which lies outside the table's folder"
            )
    return files[0], files[1]


def _refuse_doubles(names: Sequence[str], where: str) -> None:
    doubles = [name for name, count in Counter(names).items() if count > 1]
    if doubles:
        raise DataError(f"{len(doubles)} names stand twice in {where}: {shown(doubles)}")
