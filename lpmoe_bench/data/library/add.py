"""Taking in a data set that a user has: recognise, verify, and put in place in one step."""

from __future__ import annotations

import itertools
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from dataclasses import replace as changed
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import cv2
import numpy as np
from pydantic import ValidationError

from lpmoe_bench.console import Terminal
from lpmoe_bench.data.annotations import ANNOTATIONS, Mask, MaskParts, mask_files
from lpmoe_bench.data.decoding import decode, read_file
from lpmoe_bench.data.images import read_mask, read_truth
from lpmoe_bench.data.library.archives import is_archive, unpack
from lpmoe_bench.data.library.recognise import recognise, recognise_objects
from lpmoe_bench.data.library.verify import Verified, judge_pairs, verify_set
from lpmoe_bench.data.matching import SUFFIXES, shown
from lpmoe_bench.data.pairs import SOURCE, Pair, UnpairedError, split_pairs
from lpmoe_bench.data.pixels import ABOVE, PixelRules, pixel_rules
from lpmoe_bench.data.registry import Dataset
from lpmoe_bench.data.splits import Facts, Split, checked
from lpmoe_bench.errors import BenchError, DataError, ResourceError, UsageError
from lpmoe_bench.files import sha256_file, staging, sync_folder, write_atomically, write_failure

ADDING = "adding"  # in the names of folders that sets are built in


class SplitSource(NamedTuple):
    """An archive or a folder, and the folder that an archive's content goes into."""

    path: Path
    folder: str = ""


@dataclass
class Added:
    """What was put in place: the splits as verified, pairs left out, what was put aside.

    missing: official splits that were not in the source and are not in place either.
    """

    dataset: str
    place: Path
    splits: list[Verified] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    aside: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        lines = [f"{self.dataset} is in {self.place}"]
        for one in self.splits:
            lines.append(f"  {one.label}: {'; '.join([f'{one.pairs} pairs', *one.remarks])}")
        lines += [f"  not found in it: {', '.join(self.missing)}"] if self.missing else []
        lines += [f"  left out: {text}" for text in self.skipped]
        lines += [f"  put aside, yours to delete: {text}" for text in self.aside]
        return "\n".join(lines)

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"place": str(self.place)}


def with_layout(
    dataset: Dataset, split: str | None, images: str | None, masks: str | None, object_: str
) -> Dataset:
    """Return a data set whose layout, or whose rule for masks, a user has named by hand."""
    named = (split, images, masks)
    if any(named) and not all(named):
        raise UsageError("--as-split, --images and --masks go together; give all three or none")
    if split is not None and split not in dataset.split_names:
        raise UsageError.unknown(f"split of {dataset.name}", split, dataset.split_names)
    declared = dataset.pixels.labels
    if split is not None and declared is not None and declared.objects:
        raise UsageError(
            f"{dataset.name} has files of objects and is taken as its entry says; write an entry "
            f"of your own for another layout, see --datasets, and leave --as-split out"
        )
    facts = dataset.model_dump()
    if split is not None:
        # What else is known of the set is of its own splits, which are none in this layout.
        facts |= {"layouts": [{split: [[images, masks]]}], "splits": {}, "local": []}
        facts |= {"checksums": {}, "confirmed": False}
        facts["counts"] = {k: v for k, v in dataset.counts.items() if k == split}
    if object_ and dataset.labels is not None:
        raise UsageError(f"{dataset.name} has labels of classes, to which --object says nothing")
    if object_ and dataset.ignore:
        raise UsageError(f"{dataset.name} has ignored pixels; write `object` into its entry")
    if object_:
        facts["object"] = pixel_rules({"object": object_}).object
    try:
        return Dataset.model_validate(facts)
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(
            f"{first['input']!r} cannot be used here: {first['msg'].lower()}; folders are named "
            f"below SOURCE"
        ) from None


def add_set(
    dataset: Dataset,
    source: Path,
    root: Path,
    terminal: Terminal,
    *,
    replace: bool = False,
    skip: bool = False,
) -> Added:
    """Put what a user downloaded, an archive or a folder, into the data folder.

    Raises DataError when it is neither, no split is recognised in it, pairs are broken (unless
    `skip` leaves them out) or a split is there already (unless `replace` puts that aside), and
    ResourceError for a full disk; the data folder is as it was then. After a kill the same call
    brings what is missing and ends well.
    """
    if not source.exists():
        raise DataError(f"{source} does not exist; give the archive or folder you downloaded")
    if not source.is_dir() and not is_archive(source):
        raise DataError(
            f"{source} is neither a folder nor a zip or tar archive; unpack it yourself and give "
            f"the folder"
        )
    return add_sources(dataset, [SplitSource(source)], root, terminal, replace=replace, skip=skip)


def add_sources(
    dataset: Dataset,
    sources: list[SplitSource],
    root: Path,
    terminal: Terminal,
    *,
    replace: bool = False,
    skip: bool = False,
) -> Added:
    """Do what add_set does with several archives that make up one set, or with one folder."""
    try:
        with staging(root, ADDING, dataset.name) as folder:
            tree, own = _tree(sources, folder, terminal), not sources[0].path.is_dir()
            unpaired: dict[str, list[str]] | None = {} if skip else None
            if dataset.pixels.labels is not None and dataset.pixels.labels.objects:
                if skip:
                    raise UsageError(
                        f"{dataset.name} has files of objects, which name their images: "
                        f"--skip-broken leaves none of them out; mend the file"
                    )
                with _named_after(sources, tree, own):
                    return _add_objects(dataset, sources, tree, folder, root, terminal, replace)
            with _named_after(sources, tree, own):
                splits = recognise(dataset, tree, unpaired)
            added, drafts = Added(dataset.name, root / dataset.folder), folder / "new"
            begun = {} if replace else read_begun(added.place)
            if not replace:
                refuse_present(dataset, root, [name for name in splits if name not in begun])
            with _named_after(sources, tree, own):
                rules = dataset.pixels_at(*_list_places(dataset, tree), added.place)
                built = {
                    name: build_split(
                        dataset, name, pairs, drafts / name, own, terminal, skip, rules
                    )
                    for name, pairs in splits.items()
                }
            origin = _origin(sources)
            for name, (verified, left_out) in built.items():
                left_out += [f"{verified.label}: {text}" for text in (unpaired or {}).get(name, [])]
                text = _source_text(dataset, name, origin, verified, left_out)
                write_atomically(drafts / name / SOURCE, text)
                added.splits.append(verified)
                added.skipped += left_out
            new = {name: verified.checksum for name, (verified, _) in built.items()}
            there = [name for name in new if _is_present(dataset, root, name)]
            for name in [] if replace else there:
                if begun.get(name) != new[name]:
                    refuse_present(dataset, root, [name])
            # All that the source can be refused for is past. Each split moves into place by a
            # rename, so a kill leaves it either as it was or complete; what a kill left out is
            # known by the file of what was begun, and the same command brings it.
            write_atomically(added.place / BEGUN, json.dumps(begun | new, indent=1) + "\n")
            for name in built:
                if replace or name not in there:
                    added.aside += _install(drafts / name, added.place / name)
            _bring_table(dataset, tree, added.place)
            _bring_classes(dataset, tree, added.place)
            sync_folder(added.place)
            (added.place / BEGUN).unlink()
            official = [name for name in dataset.split_names if name not in dataset.local]
            added.missing += [name for name in official if not _is_present(dataset, root, name)]
            return added
    except BenchError:
        raise
    except OSError as error:
        raise ResourceError(write_failure(root / dataset.folder, error)) from error


def _add_objects(
    dataset: Dataset,
    sources: list[SplitSource],
    tree: Path,
    folder: Path,
    root: Path,
    terminal: Terminal,
    replace: bool,
) -> Added:
    """Take a set of objects as it lies, verified where it is built, in one rename."""
    place, draft = root / dataset.folder, folder / dataset.folder
    found = recognise_objects(dataset, tree)
    if place.exists() and not replace:
        raise DataError(
            f"{place} is there already; --replace puts it aside, and lpmoe-bench data verify "
            f"{dataset.name} says whether there is a need"
        )
    draft.parent.mkdir(parents=True, exist_ok=True)
    if sources[0].path.is_dir():
        shutil.copytree(found, draft)
    else:  # unpacked here, and nobody else's
        os.rename(found, draft)
    added = Added(dataset.name, place, verify_set(dataset, folder, terminal=terminal))
    if broken := [f"{one.label}: {text}" for one in added.splits for text in one.problems]:
        told = shown(broken, "; ").replace(f"{draft}{os.sep}", "")
        raise DataError(f"{dataset.name} is not taken: {told}")
    if not (draft / SOURCE).exists():
        texts = [
            _source_text(dataset, one.label.partition("/")[2], _origin(sources), one, [])
            for one in added.splits
        ]
        write_atomically(draft / SOURCE, "\n".join(texts))
    added.aside += _install(draft, place)
    sync_folder(place.parent)
    official = [name for name in dataset.split_names if name not in dataset.local]
    added.missing += [name for name in official if not _is_present(dataset, root, name)]
    return added


def _origin(sources: list[SplitSource]) -> list[str]:
    """Return a sentence for each source: its name and, of an archive, its checksum."""
    paths = [source.path for source in sources]
    sums = [f", sha256 {sha256_file(path)}" if path.is_file() else "" for path in paths]
    return [f"Taken from {path.name}{sum_}." for path, sum_ in zip(paths, sums, strict=True)]


def _bring_table(dataset: Dataset, tree: Path, place: Path) -> None:
    """Copy the table of a set's groups, which says which of its images belong together."""
    if dataset.groups is None or dataset.groups.table is None:
        return
    name = PurePath(dataset.groups.table[0])
    found = sorted(tree.rglob(name.name))
    if len(found) == 1 and not (place / name).exists():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(found[0], place / name)


def _list_places(dataset: Dataset, tree: Path) -> list[Path]:
    """Return the folders below which the list of a set's classes lies in a tree."""
    listed = (dataset.labels or {}).get("classes")
    if not isinstance(listed, str):
        return []
    depth = len(PurePath(listed).parts)
    return [found.parents[depth - 1] for found in sorted(tree.rglob(listed))]


def _bring_classes(dataset: Dataset, tree: Path, place: Path) -> None:
    """Copy the list of a set's classes, without which its label maps mean nothing."""
    for folder in _list_places(dataset, tree)[:1]:
        assert dataset.labels is not None
        target = place / dataset.labels["classes"]
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / dataset.labels["classes"], target)


BEGUN = ".adding.json"  # in a set's folder, while its splits move into place


def read_begun(place: Path) -> dict[str, str]:
    """Return {split: checksum of its content} of what was being put in place when it was killed."""
    try:
        found = json.loads((place / BEGUN).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return {str(k): str(v) for k, v in found.items()} if isinstance(found, dict) else {}


def refuse_present(dataset: Dataset, root: Path, splits: list[str]) -> None:
    """Raise DataError when one of these splits is there already, sound or not."""
    for name in splits:
        if _is_present(dataset, root, name):
            place = dataset.location(root)
            raise DataError(
                f"{dataset.name}/{name} is in {place} already; --replace puts that aside, and "
                f"lpmoe-bench data verify {dataset.name} says whether there is a need"
            )


def _is_present(dataset: Dataset, root: Path, split: str) -> bool:
    place = dataset.location(root)
    try:
        return place is not None and split_pairs(dataset, place, split) is not None
    except DataError:
        return place is not None and (place / split).exists()


@contextmanager
def _named_after(sources: list[SplitSource], tree: Path, own: bool) -> Iterator[None]:
    """Let errors name the archives that a folder was unpacked from, since it will be gone."""
    try:
        yield
    except DataError as error:
        text = str(error)
        if own:
            names = " and ".join(source.path.name for source in sources)
            text = text.replace(f"{tree}{os.sep}", "").replace(str(tree), names)
        hint = "; --skip-broken leaves them out" if isinstance(error, UnpairedError) else ""
        raise DataError(text + hint) from None


def _tree(sources: list[SplitSource], folder: Path, terminal: Terminal) -> Path:
    """Return the folder to look into: the user's own, or what archives were unpacked to."""
    if sources[0].path.is_dir():
        return Path(os.path.abspath(sources[0].path))  # its own name counts, and "." has none
    # Named as the archive is: some layouts begin with that name, some archives below it.
    name = sources[0].path.name.partition(".")[0] if len(sources) == 1 else ""
    tree, files, nested = folder / "unpacked" / (name or "all"), 0, []
    for source in sources:
        (tree / source.folder).mkdir(parents=True, exist_ok=True)
        with terminal.bar(f"unpacking {source.path.name}", 1) as bar:
            came = unpack(source.path, tree / source.folder, bar.update)
        files, nested = files + came.images, nested + came.nested
    if not files and nested:
        raise DataError(
            f"{', '.join(str(source.path) for source in sources)} holds archives "
            f"({shown(nested)}); unpack it yourself and give the folder or one of them"
        )
    return tree


def _install(draft: Path, place: Path) -> list[str]:
    """Move a split into place; returns where what stood there was put."""
    aside: list[str] = []
    if place.exists():
        others = (place.with_name(f".{place.name}-replaced-{k}") for k in itertools.count(1))
        other = next(path for path in others if not path.exists())
        os.rename(place, other)
        aside.append(str(other))
    place.parent.mkdir(parents=True, exist_ok=True)
    os.rename(draft, place)
    return aside


def _source_text(
    dataset: Dataset, name: str, origin: list[str], verified: Verified, left_out: list[str]
) -> str:
    """Say where a split is from; it lies beside its images."""
    lines = [f"{dataset.title}, split {name}: {verified.pairs} pairs."]
    lines += [f"Page: {dataset.page}"] if dataset.page else []
    lines += [f"Licence: {dataset.licence}"] if dataset.licence else []
    lines += [*origin, f"Checksum of the content: {verified.checksum}"]
    lines += [f"Left out as broken: {text}" for text in left_out]
    return "\n".join(lines) + "\n"


# One split built beside its place: copied under one name a pair, masks converted, verified.


def build_split(
    dataset: Dataset,
    name: str,
    pairs: Sequence[Pair],
    place: Path,
    own: bool,
    terminal: Terminal,
    skip: bool,
    rules: PixelRules,
) -> tuple[Verified, list[str]]:
    """Build place/images and place/masks from pairs, which are moved if they are our `own`.

    rules: what is declared of the set's files, with its classes.
    Returns what was verified, and a sentence for each pair that was left out. Raises DataError when
    pairs are broken and `skip` does not leave them out, or none is left.
    """
    with terminal.bar(f"copying {dataset.name}/{name}", len(pairs)) as bar:
        copied, broken = [], {}
        for done, pair in enumerate(pairs, start=1):
            try:
                copied.append(_copy(pair, place, rules, own))
            except DataError as error:
                broken[pair.name] = str(error)
            bar.update(done, len(pairs))
    # Read afresh where they lie now, so that what is verified is what will be used.
    split = Split(dataset.name, name, tuple(copied))
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
    if broken and not (skip and read):
        hint = "--skip-broken leaves them out" if read else "none is left: nothing is taken"
        raise DataError(
            f"{len(broken)} of {len(pairs)} pairs of {split.label} are broken: "
            f"{shown(broken.values(), '; ')}; {hint}"
        )
    for pair in copied:
        if pair.name in broken:
            for file in (pair.image, *mask_files(pair.mask)):
                file.unlink()
    left_out = [f"{dataset.name}/{name}: {text}" for text in broken.values()]
    return judge_pairs(dataset, name, place, read, []), left_out


def _copy(pair: Pair, place: Path, rules: PixelRules, own: bool) -> Pair:
    """Put image and mask under the pair's name; a mask is rewritten if its object is declared, or
    if it is no image file of its own."""
    image = place / "images" / f"{pair.name}{pair.image.suffix}"
    mask = place / "masks" / f"{pair.name}{pair.mask.suffix}"
    for folder in (image.parent, mask.parent):
        folder.mkdir(parents=True, exist_ok=True)
    if rules.labels is not None:
        return _copy_labels(pair, place, image, rules, own)
    plain = isinstance(pair.mask, Path) and pair.mask.suffix.lower() in SUFFIXES
    if rules.ignore and not plain:
        raise DataError(f"{pair.mask} has ignored pixels; save it as one PNG file first")
    converted = None if rules.ignore else _converted(pair.mask, rules)
    if converted is None and isinstance(pair.mask, Path) and plain:
        _bring(pair.mask, mask, own)
    else:
        mask = mask.with_name(f"{PurePath(pair.name).name}.png")
        pixels = read_mask(pair.mask) if converted is None else converted
        mask.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
    _bring(pair.image, image, own)
    return Pair(pair.name, image, mask, rules if rules.ignore else changed(rules, object=""))


def _copy_labels(pair: Pair, place: Path, image: Path, rules: PixelRules, own: bool) -> Pair:
    """Put a label map, or each of its layers, as it is under the pair's name."""
    assert rules.labels is not None
    files = mask_files(pair.mask)
    folders = rules.labels.folders or ("masks",)
    if len(files) != len(folders) or (isinstance(pair.mask, MaskParts) and pair.mask.annotation):
        raise DataError(f"{pair.mask} is no label map of {len(folders)} files; see its entry")
    copied = [
        place / folder / f"{pair.name}{file.suffix}"
        for folder, file in zip(folders, files, strict=True)
    ]
    for file, target in zip(files, copied, strict=True):
        target.parent.mkdir(parents=True, exist_ok=True)
        _bring(file, target, own)
    _bring(pair.image, image, own)
    mask: Mask = copied[0]
    if isinstance(pair.mask, MaskParts):
        mask = changed(pair.mask, files=tuple(copied))
    return Pair(pair.name, image, mask, rules)


def _bring(source: Path, target: Path, own: bool) -> None:
    if not (source.is_file() and os.access(source, os.R_OK)):
        raise DataError(f"{source} cannot be read, or is no file")
    if own:
        os.replace(source, target)
    else:
        shutil.copyfile(source, target)


def _converted(mask: Mask, rules: PixelRules) -> np.ndarray | None:
    """Return a mask whose object is declared as 0 and 255; None for one to be kept as it is.

    That is also a grey one where the object has a colour, for it was converted before.
    """
    if rules.object in ("", ABOVE) or (isinstance(mask, MaskParts) and mask.annotation):
        return None
    if isinstance(rules.object, str) and rules.object.startswith("#"):
        for file in mask_files(mask):
            if file.suffix.lower() in ANNOTATIONS:
                return None
            pixels = decode(file, read_file(file), cv2.IMREAD_UNCHANGED)
            if pixels.ndim == 2 or (pixels[..., :3] == pixels[..., :1]).all():
                return None
    return read_truth(mask, rules=changed(rules, exif="image" if rules.exif else "")).mask
