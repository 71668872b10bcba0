"""Recognise a data set in a folder tree: its known layouts at any depth, else an obvious one."""

import os
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from lpmoe_bench.data.matching import MASK_SUFFIXES, NAME, holds_any, shown
from lpmoe_bench.data.pairs import Pair, find_pairs, layout_pairs, split_pairs, wanted
from lpmoe_bench.data.registry import Dataset, Layout
from lpmoe_bench.errors import DataError

DEPTH, MOST_FOLDERS = 32, 20_000
IMAGES = "images image imgs img im input inputs sat jpegimages shadowimages frame frames"
MASKS = "masks mask gt gts labels label groundtruth ground_truth annotations map shadowmasks"


def recognise(
    dataset: Dataset, tree: Path, left_out: dict[str, list[str]] | None = None
) -> dict[str, list[Pair]]:
    """Return the pairs of every split of the set that is found in a folder tree.

    A split is looked for in the folder itself, then deeper, whatever the case of folder names; the
    folder's own name may be the first of a layout.
    Raises DataError when nothing is recognised, when a split is found at two places, and for what
    is wrong with the pairs; with `left_out`, names without a partner are added to it by split.
    """
    folders = _folders(tree)
    found: dict[str, list[Pair]] = {}
    for split in dataset.split_names:
        unpaired = None if left_out is None else left_out.setdefault(split, [])
        pairs = _find(dataset, split, folders, tree, unpaired)
        if pairs is not None:
            found[split] = pairs
    # A layout that is known is sure; a folder that merely looks like one is taken where none is.
    found = found or ({} if dataset.layers else _obvious(dataset, folders, left_out))
    if not found:
        there = [str(folder.relative_to(tree)) for folder in folders[1:]]
        raise DataError(
            f"no split of {dataset.name} is recognised in {tree}: looked for "
            f"{wanted(dataset)}; found {shown(there) or 'no folders'}; name them: --as-split "
            f"NAME --images DIR --masks DIR"
        )
    return found


def recognise_objects(dataset: Dataset, tree: Path) -> Path:
    """Return the folder of a tree that holds splits of a set of objects as its entry says.

    A file of labels names many images, so that such a set is taken as it lies. Raises DataError
    when there is no such folder, and for what is wrong with the labels.
    """
    folders = _folders(tree)
    for folder in folders:
        if any(split_pairs(dataset, folder, split) is not None for split in dataset.split_names):
            return folder
    there = [str(folder.relative_to(tree)) for folder in folders[1:]]
    raise DataError(
        f"no split of {dataset.name} is recognised in {tree}: looked for {wanted(dataset)}; found "
        f"{shown(there) or 'no folders'}; another layout is an entry of your own, see --datasets"
    )


def _folders(tree: Path) -> list[Path]:
    """Return a folder and those below it, the upper ones first."""
    found = [tree]
    for folder in found:  # it grows while it is walked through
        if len(folder.parts) - len(tree.parts) >= DEPTH or len(found) > MOST_FOLDERS:
            continue
        with os.scandir(folder) as entries:
            names = sorted(e.name for e in entries if e.is_dir(follow_symlinks=False))
        found += [folder / name for name in names if not name.startswith((".", "__MACOSX"))]
    return found


def _find(
    dataset: Dataset, split: str, folders: list[Path], tree: Path, left_out: list[str] | None
) -> list[Pair] | None:
    """Return the pairs of a split at the uppermost place that has it."""
    layouts = list(_layouts(dataset, split))
    above = filter(None, (_from_above(layout, split, tree) for layout in layouts))
    real = filter(None, (_real(layout, split, tree.parent) for layout in above))
    places = [(tree.parent, layout) for layout in real][:1]
    for folder in folders:
        # All folders of one depth are looked at: two that fit are a doubt that only the user ends.
        if places and len(folder.parts) > len(places[0][0].parts):
            break
        real = filter(None, (_real(layout, split, folder) for layout in layouts))
        places += [(folder, layout) for layout in real][:1]
        plain = dataset.splits.get(split)
        if not places and plain and (folder / plain).is_file():
            return split_pairs(dataset, folder, split)
    if not places:
        return None
    if len(places) > 1:
        where = ", ".join(str(folder.relative_to(tree)) for folder, _ in places)
        raise DataError(
            f"{dataset.name}/{split} is found {len(places)} times in {tree} ({where}); give one"
        )
    return layout_pairs(places[0][1], split, places[0][0], left_out, dataset.variable)


def _layouts(dataset: Dataset, split: str) -> Iterable[Layout]:
    yield from (layout for layout in dataset.layouts if split in layout)
    folders = dataset.layers or ("masks",)
    yield {split: [[f"{split}/images", *(f"{split}/{folder}" for folder in folders)]]}
    plain = [dataset.images, *dataset.mask_places]
    if dataset.splits.get(split, "") is None and not any(map(os.path.isabs, plain)):
        yield {split: [plain]}


def _from_above(layout: Layout, split: str, tree: Path) -> Layout | None:
    """Return a layout of which the tree is the first folder, None where it is not."""
    parts = [[item.partition("/") for item in part] for part in layout[split]]
    if not all(rest and name.lower() == tree.name.lower() for p in parts for name, _, rest in p):
        return None
    return layout | {split: [[f"{tree.name}/{rest}" for _, _, rest in part] for part in parts]}


def _real(layout: Layout, split: str, folder: Path) -> Layout | None:
    """Return a layout with the names as they are spelt on disk; None where a part is missing."""
    spelt = [[_spelt(folder, item) for item in part] for part in layout[split]]
    if any(item is None for part in spelt for item in part):
        return None
    # The other splits stay, for they tell whether a folder of masks is shared.
    return {
        name: [[_spelt(folder, item) or item for item in part] for part in parts]
        for name, parts in layout.items()
    }


def _spelt(folder: Path, item: str) -> str | None:
    """Find a/b or a/*.png below a folder whatever its case; the pattern at its end stays."""
    names, place, done = item.split("/"), folder, []
    for k, name in enumerate(names):
        if "*" in name or NAME in name:
            pattern = "/".join(names[k:])
            if not holds_any(place / pattern, MASK_SUFFIXES):
                return None
            return "/".join([*done, pattern])
        try:
            there = {entry.lower(): entry for entry in sorted(os.listdir(place), reverse=True)}
        except OSError:
            return None
        exact = name if (place / name).exists() else there.get(name.lower())
        if exact is None:
            return None
        done.append(exact)
        place = place / exact
    return "/".join(done)


def _obvious(
    dataset: Dataset, folders: list[Path], left_out: dict[str, list[str]] | None
) -> dict[str, list[Pair]]:
    """Return splits of folders whose names leave no doubt: one of images beside one of masks."""
    found: dict[str, list[tuple[Path, Path]]] = defaultdict(list)
    for folder in folders:
        names = {path.name.lower(): path for path in folders if path.parent == folder}
        images = [names[one] for one in IMAGES.split() if one in names]
        masks = [names[one] for one in MASKS.split() if one in names]
        if len(images) == 1 and len(masks) == 1:
            name = folder.name.lower()
            role = "train" if "train" in name else "validation" if "val" in name else "test"
            found[role].append((images[0], masks[0]))
    result: dict[str, list[Pair]] = {}
    for role, places in found.items():
        splits = [s for s in dataset.split_names if dataset.role(s) == role]
        if len(splits) == 1 and len(places) == 1:
            unpaired = None if left_out is None else left_out.setdefault(splits[0], [])
            result[splits[0]] = find_pairs(*places[0], left_out=unpaired)
    return result
