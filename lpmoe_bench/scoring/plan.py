"""A request to score maps, resolved before anything is scored: folders, masks, protocol."""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from lpmoe_bench.config.kinds import Kind, get_kind, kind_of_files
from lpmoe_bench.console import Terminal
from lpmoe_bench.data.images import read_image
from lpmoe_bench.data.label_rules import LabelRules
from lpmoe_bench.data.matching import shown
from lpmoe_bench.data.object_files import form_of_file
from lpmoe_bench.data.pixels import UNDECLARED, PixelRules
from lpmoe_bench.data.registry import Task, check_same_classes, load_registry
from lpmoe_bench.data.test_sets import TestSet, files_digest, find_files, folder_set, task_sets
from lpmoe_bench.environment import default_cache
from lpmoe_bench.errors import DataError, UsageError
from lpmoe_bench.metrics.base import ScoringRules
from lpmoe_bench.metrics.extra import extra_key, needs_image
from lpmoe_bench.metrics.protocol_files import open_protocol
from lpmoe_bench.records.model import score_folder
from lpmoe_bench.scoring import matching
from lpmoe_bench.scoring.matching import MatchedMaps, match_maps, plain_name
from lpmoe_bench.scoring.results import COCO
from lpmoe_bench.scoring.work import AS_THEY_ARE, MapsRead, MaskJob, ScoringJob

# Folders of maps: what each is called, and which of its files are maps of which test set.

LONGEST_BYTES = 120  # of a name, which becomes part of a path
GENERIC = ("", "test", "all", "gt", "mask", "masks")  # names that tell no test set from another


@dataclass(frozen=True)
class MapFolder:
    """One method's maps. matches: by the label of each test set that it has maps of."""

    title: str
    path: Path
    matches: Mapping[str, MatchedMaps]
    notes: tuple[str, ...] = ()

    def fingerprint(
        self,
        sets: Sequence[TestSet],
        protocol: ScoringRules,
        extra: Sequence[str],
        values: str = "",
    ) -> str:
        """Return 64 hex digits of what decides the scores: maps, masks and how they are scored."""
        # No paths and no names of methods: the same maps in another folder are the same scores.
        facts = {
            "maps": {label: files_digest(found.files) for label, found in self.matches.items()},
            "tests": {s.label: s.split.digest for s in sets if s.label in self.matches},
            "protocol": protocol.hash,
            "extra": sorted(extra),
        }
        facts |= {"values": values} if values else {}  # what those of label maps mean
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def titles_of(folders: Sequence[Path], names: Sequence[str]) -> list[str]:
    """Return the methods' names: those given, one a folder, else the folders' own.

    Raises UsageError for another number of names, equal ones, the same folder twice, or a name that
    cannot stand in a table.
    """
    places = [folder.resolve() for folder in folders]
    if len(set(places)) < len(places):
        raise UsageError("one folder of maps was named twice; name each once")
    if names and len(names) != len(folders):
        raise UsageError(
            f"--name is given {len(names)} times for {len(folders)} folders; give it once for each"
        )
    titles = [" ".join(name.split()) for name in names or map(_own_name, places)]
    for title in titles:
        if not title or not title.isprintable() or len(title.encode()) > LONGEST_BYTES:
            raise UsageError(
                f"the name {title[:40]!r} cannot stand in a table; give one of printable signs, at "
                f"most {LONGEST_BYTES} bytes, with --name"
            )
        if titles.count(title) > 1:
            raise UsageError(f"two methods are called {title}; tell them apart with --name")
    return titles


def _own_name(place: Path) -> str:
    return place.stem if place.suffix.lower() == ".json" else place.name


def open_folder(
    title: str,
    folder: Path,
    sets: Sequence[TestSet],
    allow_missing: bool,
    absent: Sequence[str] = (),
    pattern: str | None = None,
    job: type[ScoringJob] = MaskJob,
) -> MapFolder:
    """Find the maps of each test set in a folder, or in a sub-folder of it named after the set.

    `absent` are sets of the task whose masks are not found: maps of them are noted. `pattern`:
    which files are maps, as `choose_files` takes it. job: that will score them.
    Raises DataError for a folder of the masks themselves, names that match nothing and, unless
    allowed, missing or extra ones.
    """
    if folder.is_file():
        return _open_file(title, folder, sets, allow_missing, job)
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder; name one that holds maps")
    # Masks scored against themselves are perfect, which would be believed.
    for test in sets:
        if any(mask.resolve().is_relative_to(folder.resolve()) for mask in test.masks.values()):
            raise DataError(
                f"{folder} holds the masks of {test.label} themselves; name the folder of maps"
            )
    labels = [test.label for test in sets]
    places = _sub_folders(folder, [*labels, *absent])
    notes = [
        f"{title} has maps of {label} in {places.pop(label).name}, but no masks of it are found: "
        f"not scored"
        for label in absent
        if label in places
    ]
    if not places:
        label = sets[0].label if len(sets) == 1 else _only_set(folder, sets, pattern, job)
        places = {label: folder}
    elif missing := [label for label in labels if label not in places]:
        notes.append(f"{title} has no sub-folder for {', '.join(missing)}: not scored")
    matches = {}
    for test in sets:
        if test.label in places:
            place = places[test.label]
            files, left = _files_of(place, pattern, job)
            if left:
                notes.append(f"{title}: {len(left)} files are not named {pattern}: left out")
            found = match_maps(test.masks, files)
            gaps = _gaps(found, test, place, allow_missing)
            own = job.attach(found.files, place, test)
            matches[test.label] = replace(found, files=dict(own))
            notes += [f"{title}, {test.label}: {note}" for note in (*found.notes, *gaps)]
    return MapFolder(title, folder, matches, tuple(notes))


def _open_file(
    title: str, file: Path, sets: Sequence[TestSet], allow_missing: bool, job: type[ScoringJob]
) -> MapFolder:
    """Return a file that holds what was found in all images; raises DataError."""
    if len(sets) != 1:
        labels = ", ".join(test.label for test in sets)
        raise UsageError(
            f"{file} is of one test set, and there are {len(sets)} ({labels}); name it with "
            f"--test-set"
        )
    found, notes = job.open_file(file, sets[0])
    if found.extra:
        gap = f"speaks of {len(found.extra)} images that {sets[0].label} does not have"
        notes.append(f"it {gap} ({shown(found.extra)})")
        if not allow_missing:
            raise DataError(
                f"{file} {gap} ({shown(found.extra)}); is it of another set? With --allow-missing "
                f"the others are scored"
            )
    label = sets[0].label
    return MapFolder(title, file, {label: found}, tuple(f"{title}, {label}: {n}" for n in notes))


def _sub_folders(folder: Path, labels: Sequence[str]) -> dict[str, Path]:
    """Return the sub-folder of each test set that has one: named after it and no other.

    That of sinet_cod/test_camo may be called sinet_cod-test_camo, sinet_cod/test_camo or, where no
    other set answers to it, CAMO; case and punctuation do not matter.
    """
    answers = Counter(alias for label in labels for alias in _aliases(label))
    inside = {plain_name(place.name): place for place in sorted(folder.iterdir()) if place.is_dir()}
    found = {}
    for label in labels:
        clear = [alias for alias in _aliases(label) if alias in inside and answers[alias] < 2]
        if (folder / label).is_dir():
            found[label] = folder / label
        elif clear:
            found[label] = inside[clear[0]]
    return found


def _aliases(label: str) -> list[str]:
    dataset, _, split = label.partition("/")
    names = (label, split.removeprefix("test_"), dataset)
    return [plain for plain in dict.fromkeys(map(plain_name, names)) if plain not in GENERIC]


def _files_of(
    folder: Path, pattern: str | None, job: type[ScoringJob]
) -> tuple[dict[str, Path], list[str]]:
    """Return the maps of a folder by name, and the names of files that are none."""
    files = find_files(folder, job.suffixes)
    return matching.choose_files(files, pattern, folder) if pattern else (files, [])


def _only_set(
    folder: Path, sets: Sequence[TestSet], pattern: str | None, job: type[ScoringJob]
) -> str:
    """Return the one test set that names in the folder belong to; raises UsageError."""
    files = _files_of(folder, pattern, job)[0]
    fitting = [test.label for test in sets if match_maps(test.masks, files).files]
    if len(fitting) == 1:
        return fitting[0]
    labels = ", ".join(fitting or [test.label for test in sets])
    raise UsageError(
        f"names in {folder} match {len(fitting)} test sets ({labels}); choose one with --set, or "
        f"put maps into sub-folders such as {sets[0].label.replace('/', '-')}"
    )


def _gaps(found: MatchedMaps, test: TestSet, folder: Path, allow_missing: bool) -> list[str]:
    """Say how many masks and files have no partner; raises DataError unless that is allowed."""
    if not found.files:
        raise DataError(
            f"no file in {folder} has the name of a mask of {test.label}: files such as "
            f"{shown(found.extra[:3])}, masks such as {shown(found.missing[:3])}; say how they "
            f"are named with --prefix, --suffix or --pattern"
        )
    gaps = []
    if found.missing:
        gaps.append(
            f"{len(found.missing)} of {len(test.masks)} masks of {test.label} have no map "
            f"({shown(found.missing)})"
        )
    if found.extra:
        gaps.append(f"{len(found.extra)} files belong to no mask ({shown(found.extra)})")
    # A mean over fewer images is another number: it is never made without the user's word.
    if gaps and not allow_missing:
        raise DataError(
            f"{folder}: {'; '.join(gaps)}; with --allow-missing the {len(found.files)} that match "
            f"are scored"
        )
    return gaps


# The request, and the plan made of it.

# Names of test sets that the registry lacks, of which none is the name of a video.
KNOWN_SETS = (
    *("ECSSD", "PASCAL", "PASCAL-S", "PASCALS", "DUTS", "DUTS-TE", "DUT-OMRON", "DUTOMRON"),
    *("HKU-IS", "HKUIS", "SOD", "MSRA-B", "SOC", "CAMO", "COD10K", "NC4K", "CHAMELEON"),
    *("NLPR", "NJU2K", "NJUD", "STERE", "SIP", "DES", "RGBD135", "LFSD", "SSD", "VT5000"),
    *("Kvasir", "CVC-ClinicDB", "CVC-ColonDB", "CVC-300", "ETIS", "ETIS-LaribPolypDB"),
)
OWN_TASK = "own"  # the task of a record where none was named
CLASSES_TOLD = "--classes tells of label maps"


@dataclass(frozen=True)
class ScoreRequest:
    """What a user asked for.

    pattern, prefix, suffix: how files of maps are named after their masks. group_by: "folder" for
    one test set that is also averaged by sub-folder, "set" for a test set in each sub-folder of
    `gt`, None for what these look like. jobs: processes, by default as many as pay. again: score
    maps that have a record as well, because something else is made of them, such as curves. how:
    label maps are read. besides: what is made besides scores, as options call it.
    """

    folders: Sequence[Path]
    names: Sequence[str] = ()
    gt: Path | None = None
    images: Path | None = None
    rules: PixelRules = UNDECLARED
    task: str | None = None
    test_set: str | None = None
    protocol: str | None = None
    datasets: Sequence[Path] | None = None
    data_root: Path | None = None
    embedded: bool = False
    cache: Path = field(default_factory=default_cache)
    runs: Path = Path("runs")
    allow_missing: bool = False
    pattern: str | None = None
    prefix: str = ""
    suffix: str = ""
    group_by: str | None = None
    force: bool = False
    jobs: int | None = None
    extra: Sequence[str] = ()
    curves: bool = False
    again: bool = False
    how: MapsRead = AS_THEY_ARE
    besides: Sequence[str] = ()


@dataclass
class ScorePlan:
    """A request resolved: what is scored against what. For each folder, in order, the fingerprint
    of its scores and the place of its record. notes: what a user should know. by_folder: whether
    scores are averaged by sub-folder as well. job: the class of jobs that do it."""

    task: str
    protocol: Any
    extra: tuple[str, ...]
    sets: list[TestSet]
    folders: list[MapFolder]
    fingerprints: list[str]
    places: list[Path]
    notes: list[str]
    by_folder: bool = False
    how: MapsRead = AS_THEY_ARE
    job: type[ScoringJob] = MaskJob

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes of label maps; none of binary ones."""
        labels = self.sets[0].rules.labels
        return labels.classes if labels else ()

    def load(self, folder: MapFolder, label: str) -> Callable[[str], tuple[np.ndarray, np.ndarray]]:
        """Return what reads an image's map and mask from their files as they are scored, (h, w)."""
        test, files = self._test_set(label), folder.matches[label].files
        return lambda name: self.job.read(test, name, files[name], self.protocol, self.how)

    def load_image(self, label: str, name: str) -> np.ndarray | None:
        """Return an image, RGB uint8 (h, w, 3), None where it is not known."""
        test = self._test_set(label)
        return read_image(test.images[name], test.rules) if name in test.images else None

    def rules_of(self, label: str) -> PixelRules:
        """Return what is declared of the files of a test set."""
        return self._test_set(label).rules

    def _test_set(self, label: str) -> TestSet:
        return next(test for test in self.sets if test.label == label)


def plan_scores(request: ScoreRequest, terminal: Terminal) -> ScorePlan:
    """Resolve a request; raises UsageError or DataError in one sentence each."""
    if "results" in request.runs.resolve().parts[-2:]:
        raise UsageError(f"--runs {request.runs} holds published records; choose another folder")
    titles = titles_of(request.folders, request.names)
    request = _with_objects(request, terminal)
    task, protocol, notes = _rules(request)
    job = get_kind(protocol.kind).job
    asked = [*request.besides, *(["--group-by"] if request.group_by == "folder" else [])]
    for option in asked:
        if option in job.refused:
            raise UsageError(
                f"{option} makes nothing of what protocol {protocol.name} scores: "
                f"{job.refused[option]}; leave it out"
            )
    extra = (*protocol.extra, *(extra_key(key) for key in request.extra))
    extra = tuple(key for key in dict.fromkeys(extra) if key not in protocol.metrics)
    pattern = matching.pattern_of(request.pattern, request.prefix, request.suffix)
    sets, absent = _sets(request, task, terminal)
    for test in sets:
        job.check(protocol, test.rules, extra, request.how)
    check_same_classes(task.name if task else OWN_TASK, {test.label: test.rules for test in sets})
    if needs_image(extra) and not all(s.images for s in sets):
        raise UsageError("an extra metric looks at images; name their folder with --images")
    folders = [
        open_folder(title, path, sets, request.allow_missing, absent, pattern, job)
        for title, path in zip(titles, request.folders, strict=True)
    ]
    used = {label for folder in folders for label in folder.matches}
    sets = [test for test in sets if test.label in used]
    name = task.name if task else OWN_TASK
    prints = [folder.fingerprint(sets, protocol, extra, request.how.values) for folder in folders]
    named = zip(titles, prints, strict=True)
    places = [request.runs / score_folder(name, title, print_) for title, print_ in named]
    frames = request.gt is not None and any(matching.are_frames(test.masks) for test in sets)
    notes += _said_of_sets(request, sets, frames)
    notes += [note for folder in folders for note in folder.notes]
    by_folder = request.group_by == "folder" or (request.group_by is None and frames)
    by_folder = by_folder and "--group-by" not in job.refused
    return ScorePlan(
        name, protocol, extra, sets, folders, prints, places, notes, by_folder, request.how, job
    )


def _said_of_sets(request: ScoreRequest, sets: Sequence[TestSet], frames: bool) -> list[str]:
    """Say how sub-folders of the masks were taken, where nobody said it."""
    if request.gt is None or request.group_by is not None:
        return []
    if len(sets) > 1:
        labels = ", ".join(test.label for test in sets)
        return [f"{len(sets)} sub-folders are a test set each ({labels}); --group-by folder pools"]
    if frames:
        return ["sub-folders hold frames of videos: one test set, with the mean of each video too"]
    return []


def _with_objects(request: ScoreRequest, terminal: Terminal) -> ScoreRequest:
    """Declare what a file in COCO's form holds, where it is the truth of objects."""
    if request.gt is None:
        return request
    asked = request.protocol
    rules, protocol = object_truth(request.gt, request.rules, asked, request.folders)
    if asked is None and protocol is not None:
        terminal.note(
            f"no --protocol and no --task: protocol {protocol} counts, by what {request.gt.name} "
            f"holds"
        )
    return replace(request, rules=rules, protocol=protocol)


def object_truth(
    gt: Path, rules: PixelRules, protocol: str | None, places: Iterable[Path]
) -> tuple[PixelRules, str | None]:
    """Return what is declared of a truth, and the protocol, where it is a file of objects.

    It is where a file of results is scored, or by a protocol of objects; else its shapes are masks,
    and both are returned as they are.

    Args:
        gt: the truth.
        rules: what was declared of it.
        protocol: the one that was named, if any.
        places: of what is scored.

    Raises:
        DataError: it is no file in COCO's form.
    """
    if gt.suffix.lower() != ".json" or rules.labels is not None:
        return rules, protocol
    named = open_protocol(protocol) if protocol else None
    of_objects = named is not None and {*COCO} & {*get_kind(named.kind).formats}
    if not of_objects and not any(path.suffix.lower() == ".json" for path in places):
        return rules, protocol
    form, has_masks = form_of_file(gt)
    kind = "panoptic" if form == "coco_panoptic" else "instance" if has_masks else "detection"
    return replace(rules, labels=LabelRules(form, ())), protocol or get_kind(kind).protocol


def _rules(request: ScoreRequest) -> tuple[Task | None, ScoringRules, list[str]]:
    """Return the task, if any, and the protocol: the one named, or the task's, or a default."""
    task, own = None, request.rules.labels is not None
    if request.task is not None:
        task = load_registry(request.datasets).task(request.task)
    elif request.gt is None:
        raise UsageError("maps are scored against masks: name their folder with --gt, or a --task")
    kind = get_kind(task.kind) if task else kind_of_files(request.rules.form)
    if task and request.gt is not None and kind.classed != own:
        _refuse_own(task, kind)
    if request.protocol is not None or task is not None:
        protocol = open_protocol(request.protocol or (task.protocol if task else ""))
        # Without classes and without a task, the protocol says of which kind the maps are.
        fits = request.rules.form in get_kind(protocol.kind).formats
        if protocol.kind != kind.name and (task or own) and not (own and fits):
            labels = request.rules.labels
            told = "its truth lists objects" if labels and labels.objects else CLASSES_TOLD
            what = f"task {task.name} is {kind.name}" if task else told
            raise UsageError(
                f"protocol {protocol.name} scores {protocol.kind} tasks, and {what}; choose "
                f"another, such as {kind.protocol}"
            )
        return task, protocol, []
    note = (
        f"no --protocol and no --task: protocol {kind.protocol} counts; others give other "
        f"numbers (lpmoe-bench list protocols, --vary)"
    )
    return None, open_protocol(kind.protocol), [note]


def _refuse_own(task: Task, kind: Kind) -> None:
    """Raise UsageError for own files of another kind than the task's."""
    if kind.classed:
        raise UsageError(
            f"task {task.name} is {kind.name}: say which classes the label maps of --gt have, with "
            f"--classes FILE and --ignore 255"
        )
    raise UsageError(
        f"--classes lists classes of label maps, but task {task.name} is {kind.name}; leave one of "
        f"the two out"
    )


def _set_names(request: ScoreRequest, masks: Path) -> list[str]:
    """Return the sub-folders of the masks that are test sets, "" for the folder as one set."""
    if request.group_by == "folder" or not masks.is_dir():
        return [""]
    with os.scandir(masks) as entries:  # the known sets are read only where there are sub-folders
        if request.group_by != "set" and not any(entry.is_dir() for entry in entries):
            return [""]
    known = [*load_registry(request.datasets).datasets, *KNOWN_SETS]
    if request.group_by == "set":
        known += [place.name for place in masks.iterdir() if place.is_dir()]
    names = [place.name for place in matching.set_folders(masks, request.folders, known)]
    if request.group_by == "set" and not names:
        raise UsageError(
            f"--group-by set: {masks} has no two sub-folders of masks that each folder of maps "
            f"has too"
        )
    return names or [""]


def _sets(
    request: ScoreRequest, task: Task | None, terminal: Terminal
) -> tuple[list[TestSet], list[str]]:
    """Return the test sets, and the names of those of the task that are not found."""
    if request.gt is not None:
        if request.test_set or request.embedded:
            raise UsageError("--gt names the masks; drop --set and --embedded")
        return [
            folder_set(
                request.gt / name,
                request.images and request.images / name,
                request.cache,
                request.rules,
                name or "test",
            )
            for name in _set_names(request, request.gt)
        ], []
    if request.rules.facts:
        raise UsageError("what masks mean is declared of --gt; a task's sets say it themselves")
    if request.group_by == "set":
        raise UsageError("--group-by set belongs to --gt; the test sets of a task are known")
    if request.images is not None:
        raise UsageError("--images belongs to --gt; a task knows its images")
    assert task is not None
    with terminal.bar("preparing data", 1) as bar:
        return task_sets(
            task,
            load_registry(request.datasets),
            request.data_root,
            request.test_set,
            request.embedded,
            request.cache,
            bar.update,
        )
