"""A split: its pairs, a digest of their content, and the check that all can be read."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import time
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard, TypeVar

import cv2
import numpy as np

from lpmoe_bench.console import OnProgress
from lpmoe_bench.data.annotations import MaskParts, mask_checksum, mask_files
from lpmoe_bench.data.decoding import decoder_words
from lpmoe_bench.data.images import ImageValues, inspect_image, read_image, read_mask, read_truth
from lpmoe_bench.data.labels import UnknownLabelsError, count_classes, read_labels, told_unknown
from lpmoe_bench.data.matching import grouped, shown
from lpmoe_bench.data.objects import read_objects
from lpmoe_bench.data.pairs import Pair, check_sizes
from lpmoe_bench.data.pixels import UNDECLARED, PixelRules, check_range
from lpmoe_bench.environment import no_collection
from lpmoe_bench.errors import DataError, ResourceError
from lpmoe_bench.files import sha256_file, write_atomically

# Manifest cache: what reading a pair's two files told, for as long as the files are the same.

VERSION = 2
MANIFESTS = "manifests"  # folder of the cache: see Manifest
SETTLED_SECONDS = 2.0  # ticks of FAT, the coarsest
CONTENT = re.compile(r"[0-9a-f]{64}\0[0-9a-f]{64}")


MOST_LEVELS = 16  # of a mask, that are kept one by one


class PairValues(NamedTuple):
    """What the values of a pair are. kind: of the image's, such as uint16; low, high: the least and
    the greatest; told: whether a tag or a rule says what is black and white. levels: the mask's
    values, of more than 16 the first and the last alone; many: whether there are more. share: of
    the mask that is object. counts: of a label map, the pixels of each class and last of none;
    unknown: its values that are neither a class nor ignored. objects: where these are labelled,
    how many there are, crowds, boxes that reach beyond the image or have no area, and doubles;
    counts has those of each class then, and the crowds."""

    kind: str
    low: float
    high: float
    told: bool
    levels: tuple[int, ...]
    many: bool
    share: float
    counts: tuple[int, ...] = ()
    unknown: tuple[str, ...] = ()
    objects: tuple[int, ...] = ()


class Facts(NamedTuple):
    """What is known of a pair. content: both checksums, joined by a NUL; shape: (h, w) and flags of
    its mask, and what its values are, all None as long as it was not decoded and found sound."""

    content: str
    shape: tuple[int, int] | None = None
    flags: tuple[str, ...] | None = None
    seen: PairValues | None = None

    @property
    def image_checksum(self) -> str:
        return self.content.partition("\0")[0]


class Manifest:
    """Facts of pairs by name, kept in one file for each folder of images.

    A fact holds while size, dates and inode of both files stay as they were. The file is only a
    cache: it may be deleted, and one that cannot be read or written is done without.
    """

    def __init__(self, file: Path | None):
        self.file = file
        self._rows: dict[str, list[Any]] = {} if file is None else _load(file)
        self._changed = False

    @classmethod
    def of(cls, folder: Path | None, pairs: Iterable[Pair], kind: str) -> Manifest:
        """Open the manifest of these pairs under a folder; without one, nothing is kept."""
        first = next(iter(pairs), None)
        if folder is None or first is None:
            return cls(None)
        if isinstance(first.mask, MaskParts):
            kind = f"{kind} {first.mask.kind}"
        places = f"{kind}\0{first.image.parent.resolve()}\0{first.mask.parent.resolve()}"
        return cls(folder / f"{hashlib.sha256(places.encode()).hexdigest()[:24]}.json")

    def each(
        self, pairs: Iterable[Pair], ready: Callable[[Facts], bool], read: _Reader
    ) -> Iterator[tuple[Pair, Facts]]:
        """Yield (pair, facts) in order: known ones where they are `ready`, else those of `read`.

        `read` takes the pairs that must be read, with what is known of them, and yields facts for
        each, in order; those without content are not kept. It may raise DataError, which drops the
        rest; what was read until then is kept.
        """
        pairs = list(pairs)
        with no_collection():
            # Stamped before anything is read: a file that changes meanwhile has another stamp the
            # next time, and what was read of it is not believed then.
            stamps = [stamp_of(one) if self.file is not None else "" for one in pairs]
            known = [self._known(one.name, now) for one, now in zip(pairs, stamps, strict=True)]
        is_known = [facts is not None and ready(facts) for facts in known]
        rows = list(zip(pairs, stamps, known, is_known, strict=True))
        fresh = read([(pair, facts) for pair, _, facts, done in rows if not done])
        try:
            for pair, stamp, facts, done in rows:
                if not done:
                    facts = next(fresh)
                    self._remember(pair.name, stamp, facts)
                assert facts is not None
                yield pair, facts
        finally:
            self.save()

    def _known(self, name: str, stamp: str) -> Facts | None:
        row = self._rows.get(name)
        if not stamp or not _is_sound(row) or row[0] != stamp:
            return None
        _, content, shape, flags, seen = row
        if flags is None or seen is None:
            return Facts(content)
        values: list[Any] = [*seen[:4], tuple(seen[4]), *seen[5:7], *map(tuple, seen[7:])]
        known = PairValues(*values)
        return Facts(content, shape and tuple(shape), tuple(flags), known)

    def _remember(self, name: str, stamp: str, facts: Facts) -> None:
        # A file that was written within one tick of the disk's clock may be written again in the
        # same tick, and would keep its stamp: only what has settled is kept.
        if stamp and facts.content:
            # Four numbers a file: size, inode, date of the content, date of the inode.
            numbers = stamp.partition("|")[0].split()
            newest = max(map(int, (*numbers[2::4], *numbers[3::4])))  # of the dates
            if time.time_ns() - newest > SETTLED_SECONDS * 1e9:
                self._rows[name] = [stamp, *facts]
                self._changed = True

    def save(self) -> None:
        """Write what is new."""
        if self.file is None or not self._changed:
            return
        text = json.dumps({"version": VERSION, "rows": self._rows}, separators=(",", ":"))
        try:
            write_atomically(self.file, text)
            self._changed = False
        except ResourceError:
            self.file = None  # a full or read-only disk: everything still works, but slower


_Reader = Callable[[list[tuple[Pair, Facts | None]]], Iterator[Facts]]


def stamp_of(pair: Pair) -> str:
    """Return size, inode and dates of all files; empty when one cannot be asked."""
    try:
        one, others = os.stat(pair.image), [os.stat(file) for file in mask_files(pair.mask)]
    except OSError:
        return ""
    files = " ".join(
        f"{s.st_size} {s.st_ino} {s.st_mtime_ns} {s.st_ctime_ns}" for s in (one, *others)
    )
    return f"{files}|{pair.rules.key}" if pair.rules.key else files


MOST_STAMPED = 20_000  # pairs whose files are all looked at each time


class Stamps:
    """Sizes, inodes and dates of the files of pairs, to be compared with later ones.

    Of more than 20,000 pairs each comparison looks at the folders, which tell of files that came,
    went or were replaced, and at 20,000 pairs drawn anew: to look at a million takes longer than a
    small training. What is missed then is a file written in place.
    """

    def __init__(self, pairs: Sequence[Pair]):
        self.pairs = pairs
        # Eight bytes a pair. Hashes of texts hold in this process and in those forked from it,
        # which is where they are compared.
        self.stamps = array("q", (hash(stamp_of(pair)) for pair in pairs))
        parents = (file.parent for p in pairs for file in (p.image, *mask_files(p.mask)))
        self.folders = {folder: _changed(folder) for folder in set(parents)}

    def hold(self) -> bool:
        """Whether the files are as they were, as far as is looked at; reads none."""
        places: Sequence[int] = range(len(self.pairs))
        if len(places) > MOST_STAMPED:
            places = random.SystemRandom().sample(places, MOST_STAMPED)
        return all(_changed(folder) == then for folder, then in self.folders.items()) and all(
            hash(stamp_of(self.pairs[k])) == self.stamps[k] for k in places
        )


def _changed(folder: Path) -> int | None:
    try:
        return folder.stat().st_mtime_ns
    except OSError:
        return None


@no_collection()
def _load(file: Path) -> dict[str, list[Any]]:
    """Return the rows of a manifest; none when there is no sound one."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    rows = content.get("rows") if isinstance(content, dict) else None
    if not isinstance(rows, dict) or content.get("version") != VERSION:
        return {}
    return rows  # each is looked at when it is asked for


def _is_sound(row: Any) -> TypeGuard[list[Any]]:
    """Whether a row has the form of [stamp, *Facts]: anybody may have written into the file."""
    match row:
        case [str(), str(content), None | [_, _], None | [*_], seen]:
            return CONTENT.fullmatch(content) is not None and _are_values(seen)
    return False


def _are_values(seen: Any) -> bool:
    """Whether this has the form of PairValues; its last three came later, and none is as good."""
    match seen:
        case None:
            return True
        case [_, _, _, _, [*_], _, _, *later]:
            return len(later) in (0, 2, 3) and all(isinstance(one, list) for one in later)
    return False


OBJECT_NOTES = {  # what is said of counts in `PairValues.objects`, by their places
    1: "crowds of {} are not trained on, and absorb what is found in them",
    2: "boxes of {} reach beyond their image: cut at its edge in training, scored as they are",
    3: "objects of {} have no area: not trained on, scored as they are",
    4: "objects of {} stand twice, with the same class and place",
}
Item = TypeVar("Item")
Value = TypeVar("Value")
UNUSUAL = {  # what check_pairs says about flags of inspect_mask
    "grey levels": "hold grey levels; values above 128 count as object",
    "values 0 and 1": "hold only 0 and 1; 1 counts as object",
    "two colours": "are painted in two colours; the lighter one counts as object",
    "ignored pixels": "have ignored pixels, which count for nothing",
    "empty": "are empty",
    "void": "have no labelled pixel, and teach and tell nothing",
}


@dataclass(frozen=True)
class Split:
    """The pairs of one split. digest: 64 hex digits of their content, whatever their order and
    place. note: what must be said beside its name. generated: drawn by this program. groups:
    {name of a pair: group} of images that vary together, where known."""

    dataset: str
    name: str
    pairs: tuple[Pair, ...] = ()
    digest: str = ""
    note: str = ""
    generated: bool = False
    groups: Mapping[str, str] = field(default_factory=dict)

    @property
    def label(self) -> str:
        return "/".join(part for part in (self.dataset, self.name) if part)

    @property
    def rules(self) -> PixelRules:
        """What is declared of the values of its files; of several sets as one, of the first."""
        return self.pairs[0].rules if self.pairs else UNDECLARED

    @property
    def facts(self) -> dict[str, Any]:
        """What a record says of it."""
        return {
            "label": self.label,
            "digest": self.digest,
            "images": len(self.pairs),
            "note": self.note,
            "generated": self.generated,
            "pixels": self.rules.facts,
        }


def classes_of(split: Split) -> tuple[str, ...]:
    """Return the classes of a split's label maps, in order; none of binary masks."""
    return split.rules.labels.classes if split.rules.labels else ()


def things_of(split: Split) -> tuple[str, ...]:
    """Return the classes whose objects are told apart, where others are stuff; else none."""
    return split.rules.labels.things if split.rules.labels else ()


def make_split(like: Split, name: str, pairs: Sequence[Pair], cache: Path | None = None) -> Split:
    """Return a split of these pairs, with their digest; the rest is taken from another split.

    `cache` is a folder that keeps what was read of files, so that the next time is quick.
    """
    digest = digest_of(contents(like, pairs, cache))
    return replace(like, name=name, pairs=tuple(pairs), digest=digest)


def image_checksums(split: Split, cache: Path | None = None) -> dict[str, str]:
    """Return {checksum of the image: name} of a split, whatever masks its images have."""
    found = contents(split, split.pairs, cache)
    return {facts.image_checksum: pair.name for pair, facts in found}


def digest_of(found: Iterable[tuple[Pair, Facts]]) -> str:
    """Return 64 hex digits of the names of pairs, what their files hold and what is declared."""
    return _hash(f"{pair.name}\0{facts.content}{pair.rules.key}\n" for pair, facts in found)


def checksum_of(found: Iterable[tuple[Pair, Facts]]) -> str:
    """Return 64 hex digits of what the files of pairs hold, whatever their names and dates."""
    return _hash(f"{facts.content}\n" for _, facts in found)


def _hash(lines: Iterable[str]) -> str:
    # Sorted: a set that is listed in another order is the same set.
    return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()


def contents(
    like: Split, pairs: Sequence[Pair], cache: Path | None
) -> Iterator[tuple[Pair, Facts]]:
    """Yield each pair with the checksums of its files."""
    manifest, content = _manifest(like, pairs, cache)

    def read(unread: list[tuple[Pair, Facts | None]]) -> Iterator[Facts]:
        return map(Facts, in_threads(content, [pair for pair, _ in unread]))

    return manifest.each(pairs, lambda facts: bool(facts.content), read)


def _manifest(
    like: Split, pairs: Sequence[Pair], cache: Path | None
) -> tuple[Manifest, Callable[[Pair], str]]:
    content = _hash_pixels if like.generated else _hash_files
    return Manifest.of(cache, pairs, content.__name__), content


def check_pairs(
    split: Split, report: OnProgress | None = None, cache: Path | None = None, varied: bool = False
) -> list[str]:
    """Decode every image and mask once, so that a broken file is known before training starts.

    Args:
        split: what is checked.
        report: is told (pairs checked, all pairs).
        cache: as in make_split: pairs found sound before are not decoded again while their files
            are the same.
        varied: refuse masks that are all empty, or all full, and label maps of fewer than two
            classes in all.

    Returns:
        One note for each unusual kind of mask, and what decoders said of files.

    Raises:
        DataError: for all broken files at once: all are counted, ten are shown; for 16-bit images
            of which nobody knows the range.
    """
    broken: list[str] = []
    said: list[str] = []
    unusual: dict[str, list[str]] = {flag: [] for flag in UNUSUAL}
    read: list[tuple[Pair, Facts]] = []
    unknown: list[tuple[str, Pair, tuple[str, ...]]] = []  # of label maps: sentence, values
    for done, (pair, facts) in enumerate(checked(split, broken, cache, said=said), start=1):
        if facts.seen and facts.seen.unknown:
            unknown.append((broken.pop(), pair, facts.seen.unknown))
        for flag in facts.flags or ():
            unusual[flag].append(pair.name)
        read.append((pair, facts))
        if report is not None:
            report(done, len(split.pairs))
    if broken or unknown:
        told = [*_told_unknown(unknown), *grouped(broken)]
        raise DataError(
            f"{len(broken) + len(unknown)} problems in the {len(split.pairs)} pairs of "
            f"{split.label}: {shown(told, '; ')}"
        )
    check_range(deep_values(read), split.label)
    if split.rules.labels is not None and split.rules.labels.objects:
        return [*object_notes(split, read, varied), *_notes(split, {}, said)]
    if classes_of(split):
        return [*_class_notes(split, read, varied), *_notes(split, unusual, said)]
    shares = {facts.seen.share for _, facts in read if facts.seen}
    if varied and shares in ({0.0}, {1.0}):
        state = "empty" if 0.0 in shares else "object throughout"
        raise DataError(
            f"all {len(split.pairs)} masks of {split.label} are {state}: nothing can be learnt or "
            f"told from them; are they masks, and is what counts as object declared?"
        )
    return _notes(split, unusual, said)


def _told_unknown(found: Sequence[tuple[str, Pair, tuple[str, ...]]]) -> list[str]:
    """Say once which values of label maps are no classes; found: of each its own sentence, too."""
    if len(found) < 2:
        return [sentence for sentence, _, _ in found]
    values = sorted({v for _, _, own in found for v in own}, key=lambda v: (len(v), v))
    first = found[0][1]
    assert first.rules.labels is not None
    held, mend = told_unknown(values, first.rules.labels)
    return [f"{len(found)} label maps, such as {first.mask}, hold the {held}; {mend}"]


def _notes(split: Split, unusual: Mapping[str, list[str]], said: list[str]) -> list[str]:
    notes = [
        f"{len(names)} of {len(split.pairs)} masks of {split.label} {UNUSUAL[flag]} "
        f"(such as {names[0]})"
        for flag, names in unusual.items()
        if names
    ]
    return notes + ([f"decoders say: {shown(said, '; ')}"] if said else [])


def _class_notes(split: Split, read: Sequence[tuple[Pair, Facts]], varied: bool) -> list[str]:
    """Say which classes no map has; raises DataError for fewer than two, where that is asked."""
    totals = class_totals(facts.seen for _, facts in read if facts.seen)
    classes = classes_of(split)
    there = [name for name, pixels in zip(classes, totals, strict=False) if pixels]
    if varied and len(there) < 2:
        what = f"are {there[0]} throughout" if there else "have no labelled pixel"
        labels = split.rules.labels
        ignored = ", ".join(map(str, labels.ignore if labels else ())) or "nothing"
        raise DataError(
            f"all {len(split.pairs)} label maps of {split.label} (such as {read[0][0].mask}) "
            f"{what}: nothing can be learnt or told from them; ignored is {ignored}: correct "
            f"`ignore`, `first` or `classes`"
        )
    absent = [name for name in classes if name not in there]
    if not absent:
        return []
    return [
        f"{len(absent)} of {len(classes)} classes are in no image of {split.label}: {shown(absent)}"
    ]


def object_notes(split: Split, read: Sequence[tuple[Pair, Facts]], varied: bool) -> list[str]:
    """Say what is unusual about the objects of a split; raises DataError for none at all, where
    that is asked."""
    found = [(pair.name, facts.seen) for pair, facts in read if facts.seen]
    if varied and not any(any(seen.counts[:-1]) for _, seen in found):
        raise DataError(
            f"all {len(split.pairs)} images of {split.label} are without an object: nothing can be "
            f"learnt or told from them; are these the labels of these images?"
        )
    notes = []
    if absent := [name for name, seen in found if not any(seen.counts)]:
        notes.append(
            f"{len(absent)} of {len(split.pairs)} images of {split.label} have no object (such as "
            f"{absent[0]})"
        )
    for place, text in OBJECT_NOTES.items():
        odd = {name: seen.objects[place] for name, seen in found if seen.objects[place:]}
        if names := [name for name, count in odd.items() if count]:
            notes.append(
                f"{sum(odd.values())} {text.format(split.label)}, in {len(names)} images (such as "
                f"{names[0]})"
            )
    totals = class_totals(seen for _, seen in found)
    classes = classes_of(split)
    lacking = [name for name, count in zip(classes, totals, strict=False) if not count]
    if lacking:
        notes.append(
            f"{len(lacking)} of {len(classes)} classes are in no image of {split.label}: "
            f"{shown(lacking)}"
        )
    return notes


def class_totals(seen: Iterable[PairValues]) -> list[int]:
    """Return the pixels of each class in all label maps together, and last those of none."""
    return [sum(column) for column in zip(*(one.counts for one in seen if one.counts), strict=True)]


def deep_values(read: Iterable[tuple[Pair, Facts]]) -> dict[str, int]:
    """Return, by name, the greatest value of each 16-bit image whose range nobody has told."""
    return {
        pair.name: int(facts.seen.high)
        for pair, facts in read
        if facts.seen and facts.seen.kind == "uint16" and not facts.seen.told
    }


CHUNK = 64  # pairs read at once, after which it is asked what decoders have said


def checked(
    split: Split,
    broken: list[str],
    cache: Path | None = None,
    afresh: bool = False,
    said: list[str] | None = None,
) -> Iterator[tuple[Pair, Facts]]:
    """Yield every pair with its facts, in order; what is wrong is added to `broken`.

    `afresh` reads every file, whatever is known of it; sound pairs have their content then. What
    decoders say of files is added to `said`.
    """
    manifest, content = _manifest(split, split.pairs, cache)

    def decode(item: tuple[Pair, Facts | None]) -> tuple[list[str], Facts]:
        pair, known = item
        problems, shape, flags, seen = inspect_pair(pair)
        if problems or (manifest.file is None and not afresh):
            return problems, Facts("", shape, flags, seen)
        # A known checksum is of these very files, by their stamp: hashing is saved, not decoding.
        checksum = known.content if known and not afresh else content(pair)
        return problems, Facts(checksum, shape, flags, seen)

    def read(unread: list[tuple[Pair, Facts | None]]) -> Iterator[Facts]:
        for start in range(0, len(unread), CHUNK):
            chunk, heard = unread[start : start + CHUNK], []
            with decoder_words(heard):
                found = list(in_threads(decode, chunk))
            if heard and said is not None:  # of which file is known once each is read alone
                said.extend(_words_of(chunk))
            for problems, facts in found:
                broken.extend(problems)
                yield facts

    return manifest.each(split.pairs, lambda facts: not afresh and facts.flags is not None, read)


def sound_pairs(split: Split, cache: Path | None = None) -> tuple[list[Pair], list[str]]:
    """Return the pairs of a split that can be read, and what is wrong with the others."""
    problems: list[str] = []
    sound, seen = [], 0
    for pair, _ in checked(split, problems, cache):
        if len(problems) == seen:
            sound.append(pair)
        seen = len(problems)
    if not sound:
        raise DataError(f"no pair of {split.label} can be read: {shown(problems, '; ')}")
    return sound, problems


def _words_of(chunk: Sequence[tuple[Pair, Facts | None]]) -> Iterator[str]:
    """Yield what decoders say of the files of pairs, each behind its file's name."""
    for pair, _ in chunk:
        reads = [
            (pair.image, inspect_image),
            *((file, read_mask) for file in mask_files(pair.mask)),
        ]
        for file, read in reads:
            heard: list[str] = []
            with decoder_words(heard), suppress(DataError):
                read(file)
            yield from (f"{file}: {line}" for line in dict.fromkeys(heard))


def inspect_pair(
    pair: Pair,
) -> tuple[list[str], tuple[int, int], tuple[str, ...], PairValues | None]:
    """Return the problems of a pair, the (h, w) of its image, the flags of its mask and what the
    values of both are, None where one cannot be read."""
    problems: list[str] = []
    shape, image, truth = (0, 0), None, None
    with _noted_in(problems):
        shape, image = inspect_image(pair.image, pair.rules)
    if pair.rules.labels is not None and pair.rules.labels.objects:
        return problems, shape, (), _inspect_objects(pair, shape, image, problems)
    if pair.rules.labels is not None:
        return problems, shape, *_inspect_labels(pair, shape, image, problems)
    with _noted_in(problems):
        truth = read_truth(pair.mask, rules=pair.rules, image=pair.image, look=True)
    with _noted_in(problems):
        if image is not None and truth is not None:
            check_sizes(pair, shape, truth.mask.shape)
    if image is None or truth is None:
        return problems, shape, (), None
    many = len(truth.levels) > MOST_LEVELS
    levels = (truth.levels[0], truth.levels[-1]) if many else truth.levels
    share = cv2.countNonZero(truth.mask) / truth.mask.size
    return problems, shape, truth.flags, PairValues(*image, levels, many, share)


def _inspect_labels(
    pair: Pair, shape: tuple[int, int], image: ImageValues | None, problems: list[str]
) -> tuple[tuple[str, ...], PairValues | None]:
    """Return the flags of a label map and what its values are; what is wrong joins problems."""
    found, unknown = None, ()
    with _noted_in(problems):
        try:
            found = read_labels(pair)
        except UnknownLabelsError as error:
            unknown = error.values
            raise
    with _noted_in(problems):
        if image is not None and found is not None:
            check_sizes(pair, shape, found.labels.shape)
    if image is None or (found is None and not unknown):
        return (), None
    if found is None:
        return (), PairValues(*image, (), False, 0.0, (), unknown)
    assert pair.rules.labels is not None
    counts = count_classes(found.labels, len(pair.rules.labels.classes))
    share = 1 - counts[-1] / found.labels.size
    return found.flags, PairValues(*image, (), False, share, counts)


def _inspect_objects(
    pair: Pair, shape: tuple[int, int], image: ImageValues | None, problems: list[str]
) -> PairValues | None:
    """Return what is known of the objects of a pair; what is wrong joins problems."""
    found = None
    with _noted_in(problems):
        found = read_objects(pair.mask, pair.rules, pair.image)
    if image is None or found is None:
        return None
    if found.shape != shape:
        problems.append(
            f"{pair.image} is {shape[1]} x {shape[0]} pixels, but its labels in {pair.mask} are of "
            f"an image of {found.shape[1]} x {found.shape[0]}; boxes and masks would be misplaced"
        )
        return None
    assert pair.rules.labels is not None
    objects = found.classes[~found.crowd]
    counts = np.bincount(objects, minlength=len(pair.rules.labels.classes))
    if found.labels is not None:  # stuff counts once an image
        stuff = np.unique(found.labels)
        counts[stuff[stuff < len(counts)]] += 1
    crowds = int(found.crowd.sum())
    about = (len(found.classes), crowds, *found.oddities)
    counted = (*counts.tolist(), crowds)
    return PairValues(*image, (), False, 0.0, counted, (), about)


@contextmanager
def _noted_in(problems: list[str]) -> Iterator[None]:
    """Add the sentence of a DataError to a list, and go on."""
    try:
        yield
    except DataError as error:
        problems.append(str(error))


def _hash_files(pair: Pair) -> str:
    """Hash the bytes of the image, and of its mask or what its file says of this image."""
    try:
        return f"{sha256_file(pair.image)}\0{mask_checksum(pair.mask)}"
    except OSError as error:
        raise DataError(f"{error.filename} cannot be read ({error.strerror})") from None


def _hash_pixels(pair: Pair) -> str:
    """Hash decoded pixels, of scenes that each machine draws itself: PNG encoders differ."""
    labels = pair.rules.labels
    if labels is not None and labels.objects:
        found = read_objects(pair.mask, pair.rules, pair.image)
        stuff = [] if found.labels is None else [found.labels]
        label = [found.classes, found.crowd, found.boxes, *stuff, *(found.masks or ())]
        truth = np.concatenate([np.ravel(one).astype(np.float64) for one in label])
    else:
        truth = read_mask(pair.mask) if labels is None else read_labels(pair).labels
    arrays = (read_image(pair.image), truth)
    parts = (hashlib.sha256(str(a.shape).encode() + a.tobytes()) for a in arrays)
    return "\0".join(part.hexdigest() for part in parts)


def in_threads(function: Callable[[Item], Value], items: Iterable[Item]) -> Iterator[Value]:
    """Yield the results in order, computed by threads; an error or Ctrl-C drops the rest."""
    # Threads, not processes: decoding and hashing give the interpreter's lock back.
    pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1))
    try:
        yield from pool.map(function, items)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
