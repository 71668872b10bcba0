"""Verification of a data set: every pair decoded, values, sizes, counts and checksums compared."""

import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from lpmoe_bench.console import Terminal
from lpmoe_bench.data.images import grid, overlay, read_image
from lpmoe_bench.data.labels import (
    VOID,
    class_colours,
    legend,
    overlay_labels,
    paint_labels,
    read_labels,
)
from lpmoe_bench.data.matching import grouped
from lpmoe_bench.data.objects import pixels_of, read_objects
from lpmoe_bench.data.pairs import (
    Pair,
    UnpairedError,
    check_sizes,
    not_found,
    pair_truth,
    shown,
    split_pairs,
)
from lpmoe_bench.data.pixels import check_range
from lpmoe_bench.data.registry import Dataset
from lpmoe_bench.data.splits import (
    MOST_LEVELS,
    Facts,
    PairValues,
    Split,
    checked,
    checksum_of,
    class_totals,
    deep_values,
    digest_of,
)
from lpmoe_bench.errors import DataError, UsageError
from lpmoe_bench.files import write_atomically

MASKS = {  # flags of inspect_mask in a report
    "grey levels": "with grey levels (above 128 is object)",
    "values 0 and 1": "of 0 and 1 (1 is object)",
    "two colours": "in two colours (the lighter is object)",
    "ignored pixels": "with ignored pixels",
    "empty": "empty",
    "void": "without a labelled pixel",
}


# What `PairValues.objects` counts, in its order.
OBJECTS = ("objects", "crowds", "boxes outside", "without area", "twice")


@dataclass(frozen=True)
class ClassShare:
    """How much of a split's labels is a class: part of the labelled pixels or, where these are
    labelled, of the objects; and images."""

    name: str
    share: float
    images: int
    of: str = "labelled pixels"

    @property
    def text(self) -> str:
        # Two digits that say something: rare classes are what one looks for.
        part = f"{self.share:.1%}" if self.share >= 0.01 else f"{100 * self.share:.2g}%"
        where = f"in {self.images} images" if self.images else "in no image"
        return f"{self.name}: {part} of {self.of}, {where}"


@dataclass(frozen=True)
class Verified:
    """What was found in one split.

    problems make a run fail or its scores wrong; remarks do not. repairs: commands or steps, one
    for each kind of problem that can be repaired. sizes: the smallest and largest image, w x h.
    values: of images and masks, and how much of a mask is object. masks: how many of each unusual
    kind. classes, void: of label maps, each class and the part of pixels that is none; unknown:
    {value that is neither a class nor ignored: in how many files}. objects: where these are
    labelled, how many there are, and how many of each unusual kind. checksum: of the content,
    whatever its names and dates; digest: the one that records carry, with the names.
    """

    label: str
    place: str
    pairs: int
    official: int | None = None
    confirmed: bool = False
    sizes: tuple[str, str] | None = None
    values: dict[str, str] = field(default_factory=dict)
    masks: dict[str, int] = field(default_factory=dict)
    classes: list[ClassShare] = field(default_factory=list)
    void: float | None = None
    unknown: dict[str, int] = field(default_factory=dict)
    objects: dict[str, int] = field(default_factory=dict)
    checksum: str = ""
    digest: str = ""
    problems: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    repairs: list[str] = field(default_factory=list)


def verify_set(
    dataset: Dataset, root: Path | None, cache: Path | None = None, terminal: Terminal | None = None
) -> list[Verified]:
    """Verify every split that is there; raises DataError when none is.

    Everything is read afresh; with `cache`, what was read is kept there for the next run.
    """
    terminal = terminal or Terminal(quiet=True)
    place = dataset.location(root)
    if place is None:
        raise not_found(dataset, root)
    found = []
    for name in dataset.split_names:
        try:
            pairs = split_pairs(dataset, place, name)
        except DataError as error:
            found.append(_cannot_open(dataset, place, name, error))
            continue
        if pairs is None:
            continue
        split = Split(dataset.name, name, tuple(pairs))
        broken: list[str] = []
        said: list[str] = []
        read: list[tuple[Pair, Facts]] = []
        with terminal.bar(f"verifying {split.label}", len(pairs)) as bar:
            for one in checked(split, broken, cache, afresh=True, said=said):
                read.append(one)
                bar.update(len(read), len(pairs))
        found.append(judge_pairs(dataset, name, place, read, broken))
        if said:
            found[-1].remarks.append(f"decoders say: {shown(said, '; ')}")
    if not found:
        raise not_found(dataset, root)
    return found


def _cannot_open(dataset: Dataset, place: Path, name: str, error: DataError) -> Verified:
    found = _about(dataset, place, name, problems=[str(error)], repairs=[_again(dataset)])
    # Where a list says which images belong to the split, one less would be another split.
    if isinstance(error, UnpairedError) and dataset.splits.get(name) is None:
        found.repairs.append(
            f"lpmoe-bench data add {dataset.name} {shlex.quote(found.place)} --skip-broken "
            f"--replace  (leaves them out)"
        )
    return found


def _about(dataset: Dataset, place: Path, name: str, pairs: int = 0, **facts: Any) -> Verified:
    return Verified(
        label=f"{dataset.name}/{name}",
        place=str(place),
        pairs=pairs,
        official=dataset.counts.get(name),
        confirmed=dataset.is_confirmed(name),
        **facts,
    )


def judge_pairs(
    dataset: Dataset, name: str, place: Path, read: list[tuple[Pair, Facts]], broken: list[str]
) -> Verified:
    """Say what pairs that were read afresh amount to; broken: what is wrong with some of them."""
    flags = Counter(flag for _, facts in read for flag in facts.flags or ())
    shapes = [facts.shape for _, facts in read if facts.shape and all(facts.shape)]
    shapes.sort(key=lambda shape: (shape[0] * shape[1], shape))
    small, large = (f"{w} x {h}" for h, w in (shapes[0], shapes[-1])) if shapes else ("", "")
    found = _about(
        dataset,
        place,
        name,
        len(read),
        sizes=(small, large) if shapes else None,
        values=_values([facts.seen for _, facts in read if facts.seen]),
        **_classes([facts.seen for _, facts in read if facts.seen], read),
        masks={text: flags[flag] for flag, text in MASKS.items() if flags[flag]},
        # Broken files have no content that could be named: a checksum of the rest would mislead.
        checksum="" if broken else checksum_of(read),
        digest="" if broken else digest_of(read),
        problems=broken,
    )
    try:
        check_range(deep_values(read), f"{dataset.name}/{name}")
    except DataError as error:
        found.problems.append(str(error))
    if broken:
        found.repairs.append(_again(dataset))
    if dataset.labels is not None:
        found.repairs.extend(_repairs_of_labels(found))
    elif any("only values above" in problem or "colours" in problem for problem in found.problems):
        found.repairs.append(
            f"lpmoe-bench data add {dataset.name} {shlex.quote(found.place)} --object nonzero "
            f"--replace  (everything but 0 becomes object, saved as 255)"
        )
    if found.official not in (None, found.pairs):
        sure = "" if found.confirmed else " (not confirmed)"
        found.remarks.append(f"{found.pairs} pairs counted, officially {found.official}{sure}")
        # Too few may be a download that broke off; too many, or a hand-made copy, is no damage.
        if found.official > found.pairs and not found.problems and dataset.archives:
            found.repairs.append(_again(dataset))
    expected = dataset.checksums.get(name)
    if expected and found.checksum and expected != found.checksum:
        found.problems.append(f"the content has checksum {found.checksum}, expected is {expected}")
        found.repairs.append(_again(dataset))
    if name in dataset.local:
        found.remarks.append("a local split, comparable with no published table")
    return found


def _classes(seen: Sequence[PairValues], read: list[tuple[Pair, Facts]]) -> dict[str, Any]:
    """Say of label maps how much each class is, what is void and which values are unknown."""
    rules = read[0][0].rules.labels if read else None
    if rules is None:
        return {}
    unknown = Counter(value for one in seen for value in one.unknown)
    *totals, void = class_totals(seen) or [0] * (len(rules.classes) + 1)
    images = [sum(column) for column in zip(*([n > 0 for n in s.counts] for s in seen if s.counts),
                                            strict=True)]  # fmt: skip
    labelled, of = max(1, sum(totals)), "objects" if rules.objects else "labelled pixels"
    shares = [
        ClassShare(name, total / labelled, count, of)
        for name, total, count in zip(
            rules.classes, totals, (images or [0] * (len(totals) + 1))[:-1], strict=True
        )
    ]
    if rules.objects:
        return {"classes": shares, "objects": _objects(seen)}
    return {"classes": shares, "void": void / max(1, sum(totals) + void), "unknown": dict(unknown)}


def _objects(seen: Sequence[PairValues]) -> dict[str, int]:
    """Count the objects of a split, those that are unusual, and images without any."""
    rows = [one.objects for one in seen if one.objects]
    totals = [sum(column) for column in zip(*rows, strict=True)] or [0] * len(OBJECTS)
    counts = dict(zip(OBJECTS, totals, strict=True))
    return counts | {"images without": sum(not any(one.counts) for one in seen)}


def _repairs_of_labels(found: Verified) -> list[str]:
    """Say what to write for values that are no class."""
    if not found.unknown:
        return []
    most = max(found.unknown, key=lambda value: found.unknown[value])
    shown_value = f'"{most}"' if most.startswith("#") else most
    return [
        f"name the class of {shown(found.unknown)} in `classes` of its entry, or write `ignore: "
        f"[{shown_value}]` into its labels for what counts for nothing"
    ]


def _values(seen: Sequence[PairValues]) -> dict[str, str]:
    """Say which values images and masks hold, each kind with how many."""
    images: dict[str, list[PairValues]] = {}
    for one in seen:
        images.setdefault(one.kind, []).append(one)
    texts = [
        f"{len(of_kind)} of {kind}, {min(one.low for one in of_kind):g} to "
        f"{max(one.high for one in of_kind):g}"
        for kind, of_kind in sorted(images.items())
    ]
    if any(one.counts or one.unknown for one in seen):
        return {"images": "; ".join(texts)}
    levels = sorted({level for one in seen for level in one.levels})
    many = len(levels) > MOST_LEVELS or any(one.many for one in seen)
    masks = f"{levels[0]} to {levels[-1]}" if many else ", ".join(map(str, levels)) or "colours"
    shares = sorted(one.share for one in seen)
    object_ = f"{shares[0]:.1%} to {shares[-1]:.1%} of a mask" if shares else ""
    said = {"images": "; ".join(texts), "masks": masks if seen else "", "object": object_}
    return {name: text for name, text in said.items() if text}


def _again(dataset: Dataset) -> str:
    """Return the command that replaces what is on disk by a good copy."""
    if dataset.archives:
        return f"lpmoe-bench data fetch {dataset.name} --replace"
    if not (dataset.by_hand or dataset.page):
        return f"correct the entry of {dataset.name}, or the files in its folder"
    where = f"  (FILE: {dataset.by_hand or 'a good copy'}, see {dataset.page or 'its source'})"
    return f"lpmoe-bench data add {dataset.name} FILE --replace{where}"


# Overlays of a few pairs: what is object is seen at once.

SHEET_PAIRS = 12
FRAME = 2  # pixels of the line around a box


def write_sheet(
    dataset: Dataset, root: Path | None, file: Path, count: int = SHEET_PAIRS
) -> list[str]:
    """Draw image, mask and overlay of a few pairs of each split, as training reads them.

    Args:
        dataset: whose splits are shown.
        root: the folder of data sets.
        file: a PNG or JPEG to write.
        count: at most so many pairs of all splits together, evenly spaced by name.

    Returns:
        A sentence for each pair that cannot be read.

    Raises:
        DataError: no pair is found, or none can be read.
        UsageError: the file's name ends in no suffix of a picture.
    """
    place = dataset.location(root)
    splits = [split_pairs(dataset, place, name) for name in dataset.split_names] if place else []
    pairs = sorted({pair.image: pair for found in splits for pair in found or ()}.values(), key=str)
    if not pairs:
        raise not_found(dataset, root)
    if file.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise UsageError(f"--sheet is {file}; name a .png or .jpg file")
    step = max(1, len(pairs) // count)
    rows, failed = [], []
    for pair in pairs[::step][:count]:
        try:
            rows.append(_shown_pair(pair))
        except DataError as error:
            failed.append(str(error))
    if not rows:
        raise DataError(f"no pair of {dataset.name} can be shown: {failed[0]}")
    rules = pairs[0].rules.labels
    titles = ["mask (grey: ignored)", "object"] if rules is None else ["classes", "over the image"]
    pixels = grid(["image", *titles], rows)
    if rules is not None:
        pixels = np.vstack([pixels, legend(rules.classes, class_colours(rules), pixels.shape[1])])
    write_atomically(file, cv2.imencode(file.suffix, pixels[..., ::-1])[1].tobytes())
    return failed


def _shown_pair(pair: Pair) -> list[np.ndarray]:
    """Return image, mask and overlay of a pair; raises DataError where it cannot be read."""
    image = read_image(pair.image, pair.rules)
    if pair.rules.labels is not None and pair.rules.labels.objects:
        labels, colours = _object_map(pair), class_colours(pair.rules.labels)
        check_sizes(pair, image.shape, labels.shape)
        return [image, paint_labels(labels, colours), overlay_labels(image, labels, colours)]
    if pair.rules.labels is not None:
        labels, colours = read_labels(pair).labels, class_colours(pair.rules.labels)
        check_sizes(pair, image.shape, labels.shape)
        return [image, paint_labels(labels, colours), overlay_labels(image, labels, colours)]
    truth = pair_truth(pair)
    check_sizes(pair, image.shape, truth.mask.shape)
    mask = truth.mask if truth.ignored is None else np.where(truth.ignored, 96, truth.mask)
    return [image, mask.astype(np.uint8), overlay(image, truth.mask)]


def _object_map(pair: Pair) -> np.ndarray:
    """Return the class of each pixel of an object, uint8 (h, w), VOID beside them; the frames of
    boxes where there are no masks."""
    found = read_objects(pair.mask, pair.rules, pair.image)
    labels = np.full(found.shape, VOID, np.uint8) if found.labels is None else found.labels.copy()
    for place, own in enumerate(found.classes.tolist()):
        if found.masks is not None:
            labels[pixels_of(found, place)] = own
            continue
        left, top, right, bottom = np.rint(found.boxes[place]).astype(int).tolist()
        cv2.rectangle(labels, (left, top), (right - 1, bottom - 1), own, FRAME)
    return labels


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
        facts = {
            "folder": one.place,
            "pairs": one.pairs,
            **_sizes_and_masks(one),
            "values": "; ".join(f"{name} {text}" for name, text in one.values.items()),
            **_labels_text(one),
            "content": one.checksum,
            "digest": one.digest,
        }
        facts = [(field, str(text)) for field, text in facts.items() if text != ""]
        lines += [f"  {field:<9} {text}" for field, text in facts + _remarks(one)]
    return "\n".join(lines)


def verification_markdown(found: Sequence[Verified]) -> str:
    """Return one table row for each split, then what is wrong and how to repair it."""
    lines = [
        "| split | sound | pairs | official | sizes | masks | content sha256 |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in found:
        sure = "" if one.confirmed else " (not confirmed)"
        cells = (
            one.label,
            "no" if one.problems else "yes",
            str(one.pairs),
            "" if one.official is None else f"{one.official}{sure}",
            *_sizes_and_masks(one).values(),
            f"`{one.checksum[:16]}`" if one.checksum else "",
        )
        lines.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
    for one in found:
        said = [f"- {field}: {text}" for field, text in _remarks(one) if field != "remark"]
        lines += ["", f"{one.label}:", "", *said] if said else []
    for one in (one for one in found if one.classes):
        lines += ["", f"Classes of {one.label}, {_void_text(one)}:", ""]
        lines += [f"| class | of {one.classes[0].of} | images |", "|---|---|---|"]
        lines += [
            f"| {c.name.replace('|', '/')} | {c.share:.3%} | {c.images} |" for c in one.classes
        ]
    return "\n".join(lines) + "\n"


def _labels_text(one: Verified) -> dict[str, str]:
    """Return what is said of label maps: void, unknown values, classes a line each."""
    if not one.classes:
        return {}
    unknown = [f"{value} in {count} files" for value, count in one.unknown.items()]
    return {
        "labels": f"{len(one.classes)} classes, {_void_text(one)}",
        "objects": ", ".join(f"{name} {count}" for name, count in one.objects.items()),
        "unknown": shown(unknown),
        **{f"class {number}": share.text for number, share in enumerate(one.classes)},
    }


def _void_text(one: Verified) -> str:
    if one.objects:
        return f"{one.objects['objects']} objects"
    return f"{one.void or 0:.2%} of pixels void"


def _sizes_and_masks(one: Verified) -> dict[str, str]:
    sizes = " to ".join(dict.fromkeys(one.sizes or ()))
    return {"sizes": sizes, "masks": ", ".join(f"{n} {text}" for text, n in one.masks.items())}


def _remarks(one: Verified) -> list[tuple[str, str]]:
    """Return (kind, text) of what must be said of a split: problems, remarks, repairs."""
    told = grouped(one.problems)
    more = len(told) - SHOWN
    problems = told[:SHOWN] + ([f"and {more} more"] if more > 0 else [])
    kinds = {"problem": problems, "remark": one.remarks, "repair": one.repairs}
    return [(kind, text) for kind, texts in kinds.items() for text in texts if text]
