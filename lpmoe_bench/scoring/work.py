"""The scoring of some images: each mask read and prepared once for the maps of all folders."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import cv2
import numpy as np

from lpmoe_bench.data.annotations import Mask
from lpmoe_bench.data.images import read_image, read_truth
from lpmoe_bench.data.maps import MAP_SUFFIXES, full_scale, inspect_map, seen_in_8_bits
from lpmoe_bench.data.pixels import UNDECLARED, PixelRules
from lpmoe_bench.data.splits import UNUSUAL
from lpmoe_bench.data.test_sets import TestSet
from lpmoe_bench.errors import DataError, UsageError
from lpmoe_bench.metrics.base import MASK_FLAGS
from lpmoe_bench.metrics.maps import PreparedMask
from lpmoe_bench.metrics.protocols import Protocol
from lpmoe_bench.metrics.scorer import Scorer, ScoreResult
from lpmoe_bench.records.model import Precision
from lpmoe_bench.scoring.matching import MatchedMaps

RESIZE = {
    "bilinear to mask": cv2.INTER_LINEAR,
    "bicubic to mask": cv2.INTER_CUBIC,
    "nearest to mask": cv2.INTER_NEAREST,
}

# What is suspicious about maps, image by image and as one sentence for a whole folder.

Found = Mapping[str, Sequence[str]]  # names of images by check, sorted

SHOWN, STRETCH = 3, 2.0  # a map that spans less than 255 / STRETCH is stretched strongly
# What a record's counts call the check, and what a sentence says of the maps.
CHECKS = {
    "resized": ("resized_maps", "are not of their mask's size and were resized"),
    "jpeg": ("jpeg_maps", "are JPEG files, which do not keep values exactly; save PNG"),
    "transposed": (
        "transposed_maps",
        "have height and width of their mask exchanged: are they transposed?",
    ),
    "16 bits": ("16_bit_maps", "have 16 bits and are scored in that precision"),
    "floats": ("float_maps", "hold floats and are scored in that precision"),
    "three channels": ("three_channel_maps", "are RGB with equal channels, of which one counts"),
    "in two colours": ("two_colour_maps", "are in two colours, of which the lighter one is object"),
    "colours": ("coloured_maps", "are in colours, of which the luminance counts: are they maps?"),
    "transparent": ("transparent_maps", "are partly transparent, seen over black"),
    "constant": ("constant_maps", "are constant"),
    "0 and 1": ("zero_one_maps", "hold nothing above 1 of 255"),
    "two values": (
        "binary_maps",
        "hold two values only: binarised maps score other than probabilities where thresholds vary",
    ),
    "narrow": ("narrow_maps", f"span less than 1/{STRETCH:g} of 0 to 255"),
    "faint": ("faint_maps", "hold nothing above half of their range"),
    "inverted": ("inverted_maps", "are darker on the object than elsewhere"),
    "mask": ("maps_equal_to_mask", "equal their mask pixel by pixel"),
    "no scores": (
        "maps_without_scores",
        "are maps, which have no scores: all objects rank alike, and average precision depends on "
        "their order",
    ),
    "listed alone": (
        "maps_without_a_segment",
        "lack a segment that their list has, which counts as not found",
    ),
    "nothing": ("images_without_detections", "have no detection"),
    "truth": ("results_equal_to_truth", "equal their truth, object by object: are these results?"),
}


def look_at(pred: np.ndarray, mask: PreparedMask) -> Iterator[str]:
    """Yield the checks that a map (h, w) of its mask's size does not pass."""
    # By the means of OpenCV and a few pixels first: this is done for every map, beside its scores.
    full = full_scale(pred)
    low, high = cv2.minMaxLoc(pred)[:2] if pred.dtype == np.uint8 else (pred.min(), pred.max())
    low, high = float(low), float(high)
    two = all(bool(np.all((p == low) | (p == high))) for p in (pred[::16, ::16], pred))
    if low == high:
        yield "constant"
    elif high == 1 and full == 255:
        yield "0 and 1"
    else:
        if two:
            yield "two values"
        if (high - low) * STRETCH < full:
            yield "narrow"
        if high * 2 <= full:
            yield "faint"
    if low < high and mask.mixed and cv2.mean(pred, mask.pixels)[0] < cv2.mean(pred)[0]:
        yield "inverted"
    extremes = two and {low, high} <= {0, full}
    if extremes and mask.foreground and np.array_equal(pred != 0, mask.pixels.view(np.bool_)):
        yield "mask"


def precision_of(found: Iterable[str]) -> Precision:
    """Return the widest precision among maps of which these checks were told."""
    return "float" if "floats" in found else "uint16" if "16 bits" in found else "uint8"


def sentences(found: Found, total: int, protocol: Protocol) -> list[str]:
    """Say each check that maps of a folder did not pass, with how many and the first names."""
    told = []
    for check, names in found.items():
        text = CHECKS[check][1]
        if check in ("narrow", "0 and 1", "faint"):
            stretched = protocol.normalisation == "minmax"
            text += f"; protocol {protocol.name} " + (
                "stretches each to the full range" if stretched else "does not stretch them"
            )
            text += ", so that they have no object" * (check == "faint" and not stretched)
        if check == "resized":
            text += {"bilinear": " bilinearly", "bicubic": " bicubically"}.get(
                protocol.resize.split()[0], " to the nearest pixel"
            )
        if check == "inverted" and 2 * len(names) > total:
            text += ": they look inverted, object must be bright"
        if check == "mask" and len(names) == total:
            text += ": is this a folder of masks?"
        told.append(said(names, total, "maps", text))
    return told


def said(names: Sequence[str], total: int, kind: str, text: str) -> str:
    """Say of how many of all masks, maps or images something is true, with the first names."""
    first = ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
    return f"{len(names)} of {total} {kind} {text} ({first})"


def flag_sentences(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say each flag of images' rows that no check of masks and maps has said, with their names."""
    told = []
    for flag in (flag for flag in MASK_FLAGS if flag not in ("empty_mask", "constant_pred")):
        names = [row["image"] for row in rows if flag in row["flags"].split(";")]
        if names:
            told.append(said(names, len(rows), "images", f"are unusual: {MASK_FLAGS[flag]}"))
    return told


def refuse_zero_one(found: Found, total: int, protocol: Protocol, title: str) -> None:
    """Raise DataError where maps of 0 and 1 would all count as background."""
    # Divided by 255 as every map is, they would all lie below every threshold. A black map, which
    # is constant, fits into such a folder.
    small, constant = (len(found.get(check, ())) for check in ("0 and 1", "constant"))
    if small and small + constant == total and protocol.normalisation != "minmax":
        raise DataError(
            f"the maps of {title} hold nothing above 1 of 255, and protocol {protocol.name} does "
            f"not stretch maps; save them with 255 for 1"
        )


class Variant(NamedTuple):
    """A way to score: by a protocol, of the job's kind of maps."""

    protocol: Any

    @property
    def interpolation(self) -> int:
        """How maps of another size are resized, as cv2 calls it."""
        return RESIZE[self.protocol.resize]


class Item(NamedTuple):
    """One mask and its maps, one a folder, None where a folder has none. image: if needed.

    pictured: the file of the image, where it is known, whether needed or not.
    """

    name: str
    mask: Mask
    maps: tuple[Any, ...]
    image: Path | None = None
    pictured: Path | None = None


@dataclass(frozen=True)
class MapsRead:
    """How label maps of a folder are read, where that is to be declared.

    values: `index` where classes count from 0, `set` where a map has the values or colours of the
    set's truth. resize: maps of another size than their truth's are resized to it.
    """

    values: str = ""
    resize: bool = False


AS_THEY_ARE = MapsRead()


@dataclass(frozen=True)
class ScoringJob(ABC):
    """What to score of every item: each kind of task has its own.

    The first variant is what counts, with `extra` metrics and, if asked for, curves. dataset: the
    label of the test set. rules: what is declared of its files. how: of the maps. refused: options
    of `score` that make nothing of such maps, and why. titles: of the pictures that `shown` gives.
    suffixes: of files in a folder that are maps.
    """

    refused: ClassVar[Mapping[str, str]] = {}
    titles: ClassVar[tuple[str, str, str]] = ("mask", "map", "missed: blue, extra: orange")
    suffixes: ClassVar[tuple[str, ...]] = MAP_SUFFIXES
    dataset: str
    variants: tuple[Variant, ...]
    extra: tuple[str, ...] = ()
    curves: bool = False
    rules: PixelRules = UNDECLARED
    how: MapsRead = AS_THEY_ARE

    @classmethod
    @abstractmethod
    def check(cls, protocol: Any, rules: PixelRules, extra: Sequence[str], how: MapsRead) -> None:
        """Raise UsageError for what this kind of maps cannot be asked for."""

    @classmethod
    def open_file(cls, path: Path, test: Any) -> tuple[MatchedMaps, list[str]]:
        """Return what a file of results says of each image of a test set, and what to say of it.

        Raises DataError where this kind has no such files.
        """
        raise DataError(f"{path} is no folder; name one that holds maps")

    @classmethod
    def attach(cls, files: Mapping[str, Path], folder: Path, test: Any) -> Mapping[str, Mask]:
        """Return the files of a folder with what else belongs to each; raises DataError."""
        return files

    @abstractmethod
    def scorers(self) -> list[Any]:
        """Return an empty scorer for each variant."""

    @abstractmethod
    def truth(self, item: Item, part: Part) -> Any:
        """Return what an item's label file says, and tell a part what is unusual about it."""

    @abstractmethod
    def score(self, item: Item, path: Path, truth: Any, image: Any, part: Part, at: int) -> None:
        """Score the map of the folder `at`; raises DataError."""

    @abstractmethod
    def of_truth(self, flags: Found, total: int) -> list[str]:
        """Say what is unusual about the truth of a test set of `total` images."""

    @abstractmethod
    def of_maps(
        self, title: str, checks: Found, total: int, flags: Found, exact: bool
    ) -> list[str]:
        """Say what is unusual about the maps of a folder.

        flags: of the truth. exact: whether its files keep values exactly. Raises DataError where
        the maps cannot be meant.
        """

    @abstractmethod
    def of_result(self, result: ScoreResult) -> list[str]:
        """Say what the scores of a folder tell that nothing before has said."""

    # What pictures of the worst and a second count are made from, where these are not refused.

    @classmethod
    def read(
        cls, test: TestSet, name: str, path: Path, protocol: Any, how: MapsRead
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return map and truth of an image, (h, w), from their files as they are scored."""
        raise NotImplementedError

    @classmethod
    def shown(
        cls, pred: np.ndarray, truth: np.ndarray, rules: PixelRules
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return truth, map and where the map is wrong as pictures, uint8."""
        raise NotImplementedError


class MaskJob(ScoringJob):
    """Maps of binary masks."""

    @classmethod
    def check(cls, protocol: Any, rules: PixelRules, extra: Sequence[str], how: MapsRead) -> None:
        if how.values or how.resize:
            option = "--map-values" if how.values else "--resize-maps"
            raise UsageError(
                f"{option} is of label maps, and protocol {protocol.name} scores binary maps, "
                f"which are resized as it says; leave it out"
            )

    def scorers(self) -> list[Scorer]:
        first, *others = (variant.protocol for variant in self.variants)
        return [
            Scorer(first, extra=self.extra, curves=self.curves),
            *(Scorer(protocol) for protocol in others),
        ]

    def truth(self, item: Item, part: Part) -> dict[int, PreparedMask]:
        """Return the mask by threshold; most jobs have one."""
        masks: dict[int, PreparedMask] = {}
        for threshold in dict.fromkeys(
            variant.protocol.mask_threshold for variant in self.variants
        ):
            truth = read_truth(item.mask, threshold, self.rules, item.pictured)
            if not masks:  # what is unusual is told of the protocol that counts
                join_found(part.mask_flags, {flag: [item.name] for flag in truth.flags})
            masks[threshold] = PreparedMask(truth.mask, threshold, truth.ignored)
        return masks

    def score(
        self,
        item: Item,
        path: Path,
        truth: dict[int, PreparedMask],
        image: np.ndarray | None,
        part: Part,
        at: int,
    ) -> None:
        read, checks = inspect_map(path)
        counting = self.variants[0]
        first = truth[counting.protocol.mask_threshold]
        fitted = {
            how: fit(read, first.shape, how) for how in {v.interpolation for v in self.variants}
        }
        for variant, scorer in zip(self.variants, part.scorers[at], strict=True):
            mask = truth[variant.protocol.mask_threshold]
            picture = image if scorer.extra else None
            scorer.add(item.name, fitted[variant.interpolation], mask, self.dataset, picture)
        resized = ["resized"] if read.shape != first.shape else []
        if resized and read.shape == first.shape[::-1]:
            resized.append("transposed")
        checks = (*checks, *resized, *look_at(fitted[counting.interpolation], first))
        join_found(part.checks[at], {check: [item.name] for check in checks})

    def of_truth(self, flags: Found, total: int) -> list[str]:
        return [said(flags[flag], total, "masks", UNUSUAL[flag]) for flag in flags]

    def of_maps(
        self, title: str, checks: Found, total: int, flags: Found, exact: bool
    ) -> list[str]:
        protocol = self.variants[0].protocol
        refuse_zero_one(checks, total, protocol, title)
        notes = sentences(checks, total, protocol)
        binary, grey = checks.get("two values", ()), flags.get("grey levels", ())
        if exact and len(binary) == total and set(binary) <= set(grey):
            notes.append("every mask is grey and every map binary: are the two folders swapped?")
        return notes

    def of_result(self, result: ScoreResult) -> list[str]:
        return flag_sentences(result.rows)

    @classmethod
    def read(
        cls, test: TestSet, name: str, path: Path, protocol: Any, how: MapsRead
    ) -> tuple[np.ndarray, np.ndarray]:
        mask = test.truth(name, protocol.mask_threshold).mask
        pred = inspect_map(path)[0]
        return fit(pred, (mask.shape[0], mask.shape[1]), RESIZE[protocol.resize]), mask

    @classmethod
    def shown(
        cls, pred: np.ndarray, truth: np.ndarray, rules: PixelRules
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        seen = seen_in_8_bits(pred)
        return truth, seen, error_picture(seen, truth)


# Blue and orange are apart for colour-blind eyes too.
MISSED, INVENTED = np.array((0, 90, 181)), np.array((220, 100, 0))


def error_picture(pred: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Show what a map says too little of (blue) and too much (orange), on white; RGB (h, w, 3).

    pred and mask: uint8 (h, w); object above 128 in the mask, as most protocols have it.
    """
    true = mask > 128
    share = np.where(true, 255 - pred, pred)[..., None].astype(np.float32) / 255
    colour = np.where(true[..., None], MISSED, INVENTED).astype(np.float32)
    return (255 * (1 - share) + colour * share + 0.5).astype(np.uint8)


@dataclass
class Part:
    """What some items came to. scorers: [folder][variant]. checks: a folder's {check: names}.
    mask_flags: {flag: names}. problems: a sentence for each file that cannot be scored."""

    scorers: list[list[Any]]
    checks: list[dict[str, list[str]]]
    mask_flags: dict[str, list[str]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @classmethod
    def empty(cls, job: ScoringJob, folders: int) -> Part:
        return cls([job.scorers() for _ in range(folders)], [{} for _ in range(folders)])

    def take(self, other: Part) -> None:
        """Take over what other items came to."""
        for ours, theirs in zip(self.scorers, other.scorers, strict=True):
            for mine, its in zip(ours, theirs, strict=True):
                mine.merge(its)
        for ours, theirs in zip(self.checks, other.checks, strict=True):
            join_found(ours, theirs)
        join_found(self.mask_flags, other.mask_flags)
        self.problems += other.problems

    def in_order(self) -> Part:
        """Return the same in an order that does not depend on who finished first."""

        def ordered(found: Found) -> dict[str, list[str]]:
            return {key: sorted(found[key]) for key in sorted(found)}

        checks, flags = list(map(ordered, self.checks)), ordered(self.mask_flags)
        return Part(self.scorers, checks, flags, sorted(self.problems))


def join_found(ours: dict[str, list[str]], theirs: Mapping[str, Sequence[str]]) -> None:
    """Add names by check to those that are there."""
    for key, names in theirs.items():
        ours.setdefault(key, []).extend(names)


def score_items(job: ScoringJob, items: Iterable[Item], folders: int) -> Part:
    """Score items; files that cannot be are problems, all of them, rather than an error."""
    part = Part.empty(job, folders)
    for item in items:
        try:
            truth = job.truth(item, part)
            image = read_image(item.image, job.rules) if item.image else None
        except DataError as error:
            part.problems.append(str(error))
            continue
        for index, path in enumerate(item.maps):
            if path is not None:
                try:
                    job.score(item, path, truth, image, part, index)
                except DataError as error:
                    part.problems.append(str(error))
    return part


def fit(pred: np.ndarray, shape: tuple[int, int], how: int = cv2.INTER_LINEAR) -> np.ndarray:
    """Return a map (h, w) at a mask's size, in its own precision: bilinearly, if not told else."""
    if pred.shape == shape:
        return pred
    if pred.dtype != np.uint8:  # between whole numbers there is more than their precision holds
        pred = pred.astype(np.float64) / full_scale(pred)
        return np.clip(cv2.resize(pred, shape[::-1], interpolation=how), 0, 1)
    return cv2.resize(pred, (shape[1], shape[0]), interpolation=how)
