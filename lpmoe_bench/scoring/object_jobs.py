"""Scoring of objects and segments that any program found, in files of results or maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from lpmoe_bench.data.annotations import Mask, MaskParts
from lpmoe_bench.data.label_rules import LabelRules, shown_few
from lpmoe_bench.data.objects import Objects, read_objects
from lpmoe_bench.data.pixels import PixelRules
from lpmoe_bench.data.test_sets import TestSet
from lpmoe_bench.errors import DataError, UsageError
from lpmoe_bench.metrics.objects import ObjectScorer
from lpmoe_bench.metrics.panoptic import PanopticScorer
from lpmoe_bench.metrics.scorer import ScoreResult
from lpmoe_bench.scoring.matching import MatchedMaps
from lpmoe_bench.scoring.results import read_found, read_lists, read_panoptic_map, read_results
from lpmoe_bench.scoring.work import (
    CHECKS,
    Found,
    Item,
    MapsRead,
    Part,
    ScoringJob,
    flag_sentences,
    join_found,
    said,
)

# What is unusual about the truth.
ODD = {
    "beyond": "have boxes that reach beyond them; they count as they are",
    "flat": "have boxes without an area, which nothing can find",
    "twice": "have an object twice, of which one is found at most",
}


class ObjectJob(ScoringJob):
    """Detections, with boxes alone or with masks."""

    refused = dict.fromkeys(
        ("--vary", "--worst", "--verify", "--curves", "--group-by"),
        "scores of objects are of all images together, and there are scores alone",
    )
    suffixes: ClassVar[tuple[str, ...]] = (".json", ".png", ".tif", ".tiff", ".npy")

    @classmethod
    def check(cls, protocol: Any, rules: PixelRules, extra: Sequence[str], how: MapsRead) -> None:
        if rules.labels is None or not rules.labels.objects:
            raise UsageError(
                f"protocol {protocol.name} scores objects: name their truth with --gt FILE.json, a "
                f"file in COCO's form, or a --task that has objects"
            )
        if extra:
            raise UsageError(
                f"{extra[0]} is a metric of binary maps, and protocol {protocol.name} scores "
                f"objects; leave it out"
            )
        if how.values or how.resize:
            option = "--map-values" if how.values else "--resize-maps"
            raise UsageError(
                f"{option} is of label maps, and protocol {protocol.name} scores objects; leave it "
                f"out"
            )

    @classmethod
    def open_file(cls, path: Path, test: TestSet) -> tuple[MatchedMaps, list[str]]:
        """Return a file of results as the parts of it that each image has, and what to say of it.

        Raises DataError where it is none.
        """
        found, strangers = read_results(path, test)
        without = [n for n, one in found.items() if not len(_column(one, "classes"))]
        notes = [f"{len(without)} of {len(found)} images have no detection"] if without else []
        return MatchedMaps(found, (), tuple(strangers), ()), notes

    @property
    def labels(self) -> LabelRules:
        """What is declared of the truth."""
        assert self.rules.labels is not None
        return self.rules.labels

    @property
    def masks(self) -> bool:
        """Whether any variant scores masks."""
        return any("masks" in variant.protocol.parts for variant in self.variants)

    def scorers(self) -> list[Any]:
        return [ObjectScorer(variant.protocol, self.labels.classes) for variant in self.variants]

    def truth(self, item: Item, part: Part) -> Objects:
        found = read_objects(item.mask, self.rules, item.pictured, self.masks)
        outside, flat, twice = found.oddities
        flags = {"beyond": outside, "flat": flat, "twice": twice}
        join_found(part.mask_flags, {key: [item.name] for key, count in flags.items() if count})
        return found

    def score(self, item: Item, path: Mask, truth: Any, image: Any, part: Part, at: int) -> None:
        found, checks = read_found(path, self.rules, truth.shape, self.masks)
        for scorer in part.scorers[at]:
            scorer.add(item.name, found, truth, self.dataset)
        same = len(found.classes) == len(truth.classes) > 0
        same = same and sorted(found.boxes.tolist()) == sorted(truth.boxes.tolist())
        checks = [*checks, *(["truth"] * bool(same)), *(["nothing"] * (not len(found.classes)))]
        join_found(part.checks[at], {check: [item.name] for check in checks})

    def of_truth(self, flags: Found, total: int) -> list[str]:
        return [said(names, total, "images", ODD[flag]) for flag, names in flags.items()]

    def of_maps(
        self, title: str, checks: Found, total: int, flags: Found, exact: bool
    ) -> list[str]:
        told = []
        for check, names in checks.items():
            if check == "truth" and len(names) < total:
                continue  # a few perfect images are no reason to wonder
            told.append(said(names, total, "images", CHECKS[check][1]))
        return told

    def of_result(self, result: ScoreResult) -> list[str]:
        return flag_sentences(result.rows)


class PanopticJob(ObjectJob):
    """Panoptic maps."""

    suffixes = (".png", ".tif", ".tiff")

    @classmethod
    def check(cls, protocol: Any, rules: PixelRules, extra: Sequence[str], how: MapsRead) -> None:
        super().check(protocol, rules, extra, how)
        if rules.labels is None or rules.labels.format != "coco_panoptic":
            raise UsageError(
                f"protocol {protocol.name} scores panoptic maps: name their truth with --gt "
                f"FILE.json, a file in COCO's panoptic form, with the folder of its maps beside it"
            )

    @classmethod
    def open_file(cls, path: Path, test: TestSet) -> tuple[MatchedMaps, list[str]]:
        raise DataError(
            f"{path} is a file; panoptic results are a folder of maps, with their list in a JSON "
            f"file of the folder's name beside it"
        )

    @property
    def masks(self) -> bool:
        return True

    def scorers(self) -> list[Any]:
        labels = self.labels
        return [PanopticScorer(v.protocol, labels.classes, labels.things) for v in self.variants]

    @classmethod
    def attach(cls, files: Mapping[str, Path], folder: Path, test: TestSet) -> dict[str, Mask]:
        place = list_of(folder)
        if place is None:
            return dict(files)
        lists = read_lists(place, test)
        if lacking := [str(file) for name, file in files.items() if name not in lists]:
            raise DataError(
                f"{place} does not list the segments of {shown_few(lacking)}; add them, or move "
                f"the file away where numbers tell the classes"
            )
        return {n: MaskParts((place, file), objects=lists[n]) for n, file in files.items()}

    def score(self, item: Item, path: Mask, truth: Any, image: Any, part: Part, at: int) -> None:
        found, checks = read_panoptic_map(path, len(self.labels.classes))
        for scorer in part.scorers[at]:
            scorer.add(item.name, found, truth, self.dataset)
        join_found(part.checks[at], {check: [item.name] for check in checks})


def list_of(folder: Path) -> Path | None:
    """Return the JSON file that lists the segments of a folder's maps, None where there is none."""
    places = [folder.with_name(f"{folder.name}.json"), *sorted(folder.glob("*.json"))]
    there = [place for place in places if place.is_file()]
    if len(there) > 1:
        raise DataError(
            f"{shown_few([str(one) for one in there])} may each list the segments of {folder}; "
            f"leave one"
        )
    return there[0] if there else None


def _column(mask: Any, name: str) -> Any:
    return getattr(mask.objects, name)
