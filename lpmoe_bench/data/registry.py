"""All tasks and data sets by name: the entries of datasets.yaml, merged with a user's own."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic

from lpmoe_bench.config.kinds import KINDS, get_kind
from lpmoe_bench.config.settings import check_loss
from lpmoe_bench.data.pixels import PixelRules, pixel_rules
from lpmoe_bench.errors import UsageError
from lpmoe_bench.metrics.facts import get_metric
from lpmoe_bench.metrics.protocols import PROTOCOLS, get_protocol
from lpmoe_bench.yaml_files import YamlError, read_yaml

# The entries of datasets.yaml: a task, a data set, its archives and its folder layouts.

NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"  # names become parts of labels and of folders
# A path that stays within its folder: a list of data sets may come from anybody, and what it names
# is read, unpacked into and copied from.
INSIDE = r"^(?!/|~)(?!.*\.\.)[^\\:\x00]+$"
CHECKSUM = r"^(sha256:[0-9a-f]{64}|md5:[0-9a-f]{32})$"
WEB = r"^https?://[^\s]+$"
MOST_GROUP_PATTERN = 100  # letters


def _like(pattern: str, told: str) -> Callable[[Any], Any]:
    """Return a check of a text that says in words what is allowed."""

    def check(value: Any) -> Any:
        if not isinstance(value, str) or not re.match(pattern, value):
            raise ValueError(f"{value!r} cannot be used; {told}")
        return value

    return check


Name = Annotated[
    str,
    pydantic.BeforeValidator(
        _like(NAME, "use letters, digits, dots, dashes and underscores, and no dot first")
    ),
]
Inside = Annotated[
    str,
    pydantic.BeforeValidator(
        _like(
            INSIDE,
            "name a place inside the set's folder with forward slashes, such as images/train",
        )
    ),
]


def _as_parts(value: Any) -> Any:
    """Let one part stand without the list around it."""
    if isinstance(value, str):
        return [[value]]
    if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        return [value]
    return value


def _of_known_kind(part: list[str]) -> list[str]:
    tables = [item.endswith(".csv") for item in part]
    if tables != [True] and (any(tables) or len(part) < 2):
        raise ValueError(
            f"{part!r} is no part of a split; give two places [images, masks] or one table.csv"
        )
    return part


# [images, masks], folders or patterns such as folder/*_suffix.ext, with a place for each layer of
# labels; or [table.csv]
Part = Annotated[list[Inside], pydantic.AfterValidator(_of_known_kind)]
Parts = Annotated[list[Part], pydantic.BeforeValidator(_as_parts), pydantic.Field(min_length=1)]
SplitName = Name
Layout = dict[SplitName, Parts]


class _Model(pydantic.BaseModel):
    # Python's regular expressions, because pydantic's own know no lookahead.
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, regex_engine="python-re")


class _Entry(_Model):
    name: Name
    title: str


class StandIn(_Model):
    """What a task uses where its own training sets are not there; no train: the embedded set."""

    train: list[str] = []
    test: list[str] = []


class Task(_Entry):
    """What a task trains and tests on, and how. train, test: `data set/split` references.

    kind: of its truth, such as binary masks, classes of label maps, or objects; see KINDS.
    stand_in: other sets for where those of `train` are not found. loss, select: names of a loss and
    of the score that picks the best epoch; these and the protocol may be left out where the kind
    has its own. embedded: the set drawn in code that is used where no real one is found; empty for
    none, and a task may have nothing else.
    """

    kind: str = "binary"
    protocol: str
    loss: str
    select: str
    train: list[str]
    test: list[str]
    stand_in: StandIn = StandIn()
    embedded: str = ""
    recipe: dict[str, Any] = {}

    @pydantic.model_validator(mode="before")
    @classmethod
    def _of_kind(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        kind = KINDS.get(str(values.get("kind", "binary")))
        if kind is not None and kind.classed:
            own = {"protocol": kind.protocol, "loss": kind.loss, "select": kind.select}
            values = own | {k: v for k, v in values.items() if k not in own or v}
        if values.get("embedded") and not (values.get("train") or values.get("test")):
            values = values | {"train": [], "test": []}
        return values

    @pydantic.model_validator(mode="after")
    def _is_whole(self) -> Task:
        try:
            get_kind(self.kind)
        except UsageError as error:
            raise ValueError(f"key 'kind': {error}") from None
        lacking = [key for key in ("train", "test") if not getattr(self, key)]
        if len(lacking) == 1 or (lacking and not self.embedded):
            raise ValueError(f"key '{lacking[0]}' names no set; {EXAMPLES[lacking[0]]}")
        return self

    @property
    def references(self) -> list[str]:
        """All `data set/split` of the task, each once."""
        stand_in = self.stand_in
        return list(dict.fromkeys([*self.train, *self.test, *stand_in.train, *stand_in.test]))


class Archive(_Model):
    """A file that can be fetched without a form. url: or several, the first that works is taken.

    checksum: `sha256:...` or `md5:...` where one is published; without, that of the first fetch is
    recorded and enforced after. folder: where its content goes in, for archives without one.
    """

    url: Annotated[
        list[Annotated[str, pydantic.BeforeValidator(_like(WEB, "give an address, https://..."))]],
        pydantic.BeforeValidator(lambda value: [value] if isinstance(value, str) else value),
        pydantic.Field(min_length=1),
    ]
    checksum: Annotated[
        str,
        pydantic.BeforeValidator(
            _like(CHECKSUM + "|^$", "write sha256: and 64 digits, or md5: and 32, of 0-9 and a-f")
        ),
    ] = ""
    folder: Annotated[
        str,
        pydantic.BeforeValidator(_like(INSIDE + "|^$", "name a folder inside the set's folder")),
    ] = ""

    @property
    def file(self) -> str:
        """The name under which it is kept."""
        return self.url[0].partition("?")[0].rstrip("/").rpartition("/")[2]


class Groups(_Model):
    """Images that belong together by nature, such as frames of one video; what: one such group.

    table: a CSV in the set's folder with the columns of names and of groups. starts: the first
    number of each group, for names that are numbers up to `last`. folder: the group is the folder
    in the name. pattern: a regular expression that the beginning of a name fits, whose one group in
    brackets is the group. The first of these that is there counts. stretch: for statistics a group
    is cut into stretches of so many images, in the order of their names, where few long videos
    would leave nothing to vary; 0 for none. alike: near duplicates of no known group are taken for
    one. confirmed: as for counts.
    """

    what: str
    table: Annotated[list[Inside], pydantic.Field(min_length=3, max_length=3)] | None = None
    starts: list[int] = []
    last: int = 0
    folder: bool = False
    pattern: str = pydantic.Field("", max_length=MOST_GROUP_PATTERN)
    stretch: int = pydantic.Field(0, ge=0)
    alike: bool = False
    confirmed: bool = False

    @pydantic.field_validator("pattern")
    @classmethod
    def _has_one_group(cls, pattern: str) -> str:
        try:
            groups = re.compile(pattern).groups if pattern else 1
        except re.error as error:
            raise ValueError(f"{pattern!r} is no regular expression ({error})") from None
        if groups != 1:
            raise ValueError(
                f"{pattern!r} has {groups} groups in brackets; exactly one is the group, such as "
                f"(case[0-9]+)_"
            )
        return pattern

    @pydantic.model_validator(mode="after")
    def _is_told(self) -> Groups:
        if not (self.table or self.starts or self.folder or self.pattern or self.alike):
            raise ValueError("give a table, starts, folder: true, a pattern, or alike: true")
        if self.starts != sorted(set(self.starts)) or (self.starts and self.last < self.starts[-1]):
            raise ValueError("starts must grow, and last be no smaller than the last of them")
        if self.stretch and not (self.table or self.starts or self.folder or self.pattern):
            raise ValueError("stretch cuts groups: give a table, starts, folder: true or a pattern")
        return self

    @property
    def unit(self) -> str:
        """What varies in statistics: a group, or a stretch of one."""
        return f"stretch of {self.stretch} images of a {self.what}" if self.stretch else self.what


class Dataset(_Entry):
    """A data set in a folder.

    splits: {name: list file, None for every image} of the plain layout: one folder of `images`, one
    of `masks`. layouts: others seen in the wild. folder: under the data root, the set's name by
    default; in a user's own file also beside that file (`base`), or absolute. counts: official
    pairs a split, seen in a source if `confirmed` (for all or for those it lists). local: splits
    that are not official ones. leave_out: lists of names that a layout's split goes without.
    object, ignore, bands, range, resize_masks, exif, category: what its files mean, see
    `PixelRules`; `object` speaks of masks as they are downloaded, in the layouts or, where there
    are none, in the plain one. labels: the classes of label maps, or of objects, see `label_rules`;
    a list of classes lies in the set's folder or beside a user's own file; `files` are those of
    each split, where one holds the labels of all its images. by_hand: the file to download
    where there is no direct archive. checksums: of a split's content, as `data verify` prints it.
    groups: images that belong together by nature.
    """

    task: str
    folder: str = ""
    images: str = "images"
    masks: str = "masks"
    splits: dict[SplitName, str | None] = {}
    layouts: list[Layout] = []
    counts: dict[str, int] = {}
    confirmed: bool | list[str] = False
    local: list[str] = []
    leave_out: dict[SplitName, str] = {}
    object: str | int | list[int] = ""
    ignore: int | list[int] = []
    bands: int | list[int] = []
    range: list[float] = []
    resize_masks: bool = False
    exif: str = ""
    category: str | list[str] = []
    labels: dict[str, Any] | None = None
    variable: str = ""
    page: str = ""
    archives: list[Archive] = []
    by_hand: str = ""
    licence: str = ""
    note: str = ""
    checksums: dict[str, str] = {}
    groups: Groups | None = None
    base: Path | None = None

    @pydantic.model_validator(mode="before")
    @classmethod
    def _defaults(cls, values: Any) -> Any:
        if isinstance(values, dict):
            values = {"folder": values.get("name"), **values}
            files = isinstance(values.get("labels"), dict) and values["labels"].get("files")
            if "splits" not in values and not values.get("layouts") and not files:
                values["splits"] = {"all": None}
        return values

    @pydantic.model_validator(mode="after")
    def _has_pixel_rules(self) -> Dataset:
        try:
            self.pixels_at()
        except UsageError as error:
            raise ValueError(str(error)) from None
        listed = (self.labels or {}).get("classes")
        for place in [*([listed] if isinstance(listed, str) else []), *self.layers]:
            _like(INSIDE, "name a place inside the set's folder, such as classes.txt")(place)
        count = len(self.mask_places)
        if self.pixels.labels and self.pixels.labels.format == "coco_panoptic":
            count = 2  # a file and the folder of its maps
        for part in (p for layout in self.layouts for parts in layout.values() for p in parts):
            alone = bool(self.layers) or count > 1  # a table will not do
            if len(part) != 1 + count and (len(part) > 1 or alone):
                of = "layers" if self.layers else "labels"
                places = f"a place of images and {count} of {of}" if alone else ""
                raise ValueError(
                    f"{part!r} is no part of a split; give "
                    f"{places or 'two places [images, masks] or one table.csv'}"
                )
        return self

    @pydantic.model_validator(mode="after")
    def _has_splits(self) -> Dataset:
        if not self.split_names:
            raise ValueError("splits or layouts must name at least one split")
        return self

    @property
    def layers(self) -> tuple[str, ...]:
        """The folders of its masks where each is a class; none where one folder has them all."""
        return self.pixels.labels.folders if self.pixels.labels else ()

    @property
    def mask_places(self) -> tuple[str, ...]:
        """Where masks lie in the plain layout, several where they are layers."""
        return self.layers or (self.masks,)

    @cached_property
    def label_files(self) -> dict[str, tuple[str, ...]]:
        """The files of labels of each split of the plain layout, where one file holds them all;
        raises ValueError for what are none."""
        files = (self.labels or {}).get("files") or {}
        if not isinstance(files, Mapping):
            raise ValueError(f"files is {files!r}; it names a file for each split")
        found = {
            str(split): tuple([one] if isinstance(one, str) else one)
            for split, one in files.items()
        }
        check = _like(INSIDE, "name a file inside the set's folder, such as instances_train.json")
        for one in (one for listed in found.values() for one in listed):
            check(one)
        wanted = 2 if self.pixels.form == "coco_panoptic" else 1
        if any(len(listed) != wanted for listed in found.values()):
            what = "[file.json, folder of its maps]" if wanted == 2 else "one file"
            raise ValueError(f"files of labels of format {self.pixels.form} are {what} a split")
        return found

    @cached_property
    def pixels(self) -> PixelRules:
        """What is declared of the values of its files; a list of classes in a file is not read."""
        return self.pixels_at()

    def pixels_at(self, *places: Path) -> PixelRules:
        """Return what is declared, with the classes that a file in one of these folders lists.

        Raises UsageError for a list that is none, DataError where it is missing.
        """
        declared = {rule.name: getattr(self, rule.name) for rule in fields(PixelRules)}
        if self.labels is not None:  # where files lie decides nothing of what they mean
            declared["labels"] = {k: v for k, v in self.labels.items() if k != "files"}
        return pixel_rules(declared, *places, *([self.base] if self.base and places else []))

    @property
    def split_names(self) -> list[str]:
        """All splits, of the plain layout and of the others."""
        of_layouts = (name for one in self.layouts for name in one)
        return list(dict.fromkeys([*self.splits, *self.label_files, *of_layouts]))

    def role(self, split: str) -> Literal["train", "validation", "test"]:
        """What a split is for, by its name: train..., val..., every other one is for testing."""
        if split.startswith("train"):
            return "train"
        return "validation" if split.startswith("val") else "test"

    def validation_of(self, split: str) -> str:
        """Return the split that belongs to a training split for validation, empty for none.

        It is named as that one is, such as val_x of train_x, and is official if that one is.
        """
        rest = split.removeprefix("train")
        names = [f"val{rest}", f"validation{rest}"] if split.startswith("train") else []
        local = split in self.local
        found = (name for name in names if name in self.split_names)
        return next((name for name in found if (name in self.local) is local), "")

    def is_confirmed(self, split: str) -> bool:
        """Whether the split's count was seen in a source."""
        return self.confirmed if isinstance(self.confirmed, bool) else split in self.confirmed

    def location(self, root: Path | None) -> Path | None:
        """Return the folder that holds the set, None where it is not there."""
        places = [place / self.folder for place in (root, self.base) if place is not None]
        if Path(self.folder).is_absolute():
            places = [Path(self.folder)]
        return next((place for place in places if place.is_dir()), None)


# All tasks and data sets by name: datasets.yaml merged with a user's own, read safely.


@dataclass(frozen=True)
class Registry:
    """All tasks and data sets by name."""

    tasks: dict[str, Task]
    datasets: dict[str, Dataset]

    def task(self, name: str) -> Task:
        """Return a task; raises UsageError with the nearest name."""
        if name not in self.tasks:
            raise UsageError.unknown("task", name, self.tasks)
        return self.tasks[name]

    def dataset(self, name: str) -> Dataset:
        """Return a data set; raises UsageError with the nearest name."""
        if name not in self.datasets:
            raise UsageError.unknown("data set", name, self.datasets)
        return self.datasets[name]

    def split(self, reference: str) -> tuple[Dataset, str]:
        """Return the data set and split of `data set/split`; raises UsageError."""
        name, slash, split = reference.partition("/")
        if not slash:
            raise UsageError(f"'{reference}' names no split; write it as data set/split")
        dataset = self.dataset(name)
        if split not in dataset.split_names:
            raise UsageError.unknown(f"split of {name}", split, dataset.split_names)
        return dataset, split


def load_registry(extra: Path | Sequence[Path] | None = None) -> Registry:
    """Read the packaged datasets.yaml and merge a user's own files into it, in their order.

    An entry that says `override: true` corrects an entry of the same name: it takes the place of
    what it says, and the rest stays. Raises UsageError naming file and entry for broken YAML,
    unknown or missing keys, names that exist already, and references to tasks, data sets, splits,
    losses, scores or protocols that do not.
    """
    package = Path(__file__).parents[1]
    packaged = package / "datasets.yaml"  # in a checkout it lies beside the package
    packaged = packaged if packaged.exists() else package.parent / packaged.name
    own = [extra] if isinstance(extra, Path) else list(extra or ())
    key = tuple((str(path.absolute()), _dates(path)) for path in (packaged, *own))
    # What was written within the last seconds may be written again without another date.
    settled = all(time.time_ns() - max(dates[2:]) > SETTLED_NANOSECONDS for _, dates in key)
    if key in _loaded and settled:
        return _loaded[key]
    registry = _load(packaged, own)
    if settled:
        _loaded.clear()  # one is enough: a process reads the same files again and again
        _loaded[key] = registry
    return registry


_loaded: dict[tuple, Registry] = {}
SETTLED_NANOSECONDS = 2_000_000_000


def _dates(path: Path) -> tuple[int, ...]:
    """Return size, inode and dates of a file, zeros of one that is not there."""
    try:
        found = path.stat()
    except OSError:
        return (0, 0, 0, 0)
    return (found.st_size, found.st_ino, found.st_mtime_ns, found.st_ctime_ns)


def _load(packaged: Path, own: Sequence[Path]) -> Registry:
    registry = Registry({}, {})
    _merge(packaged, None, registry)
    for path in own:
        _merge(path, path.resolve().parent, registry)
    # Only now: a user's own sets may name tasks of the package, and its own tasks their sets.
    _check_references(registry)
    return registry


def _check_references(registry: Registry) -> None:
    """Raise UsageError, naming the entry, where one names what is not there."""
    for item in (*registry.datasets.values(), *registry.tasks.values()):
        kind = "data set" if isinstance(item, Dataset) else "task"
        try:
            if isinstance(item, Dataset):
                _check_labels(registry.task(item.task), [item])
                listed = item.confirmed if isinstance(item.confirmed, list) else []
                named = (*item.counts, *item.local, *item.checksums, *listed)
                references = [f"{item.name}/{split}" for split in named]
            else:
                references = item.references
                _check_names(item)
                _check_labels(item, [registry.split(reference)[0] for reference in references])
            for reference in references:
                registry.split(reference)
        except UsageError as error:
            raise UsageError(f"{kind} '{item.name}': {error}") from None


def _check_names(task: Task) -> None:
    """Raise UsageError where a task names a loss, score or protocol that is not there."""
    check_loss(task.loss, task.kind)
    get_protocol(task.protocol)
    get_metric(task.select)


def _check_labels(task: Task, datasets: Sequence[Dataset]) -> None:
    """Raise UsageError where the sets of a task have other labels than it or than each other."""
    for dataset in datasets:
        if get_kind(task.kind).classed and dataset.labels is None:
            raise UsageError(
                f"task {task.name} is {task.kind}, but data set {dataset.name} has no labels; "
                f"declare `labels: {{classes: [...]}}` in its entry, or name another set"
            )
        formats = get_kind(task.kind).formats
        if formats and dataset.pixels.form not in formats:
            raise UsageError(
                f"data set {dataset.name} has labels of format {dataset.pixels.form}, but task "
                f"{task.name} is {task.kind}, whose sets have {' or '.join(formats)}; name another "
                f"set"
            )
        if dataset.labels is not None and not get_kind(task.kind).classed:
            raise UsageError(
                f"data set {dataset.name} has labels of classes, but task {task.name} is "
                f"{task.kind}; write `kind: semantic` into the task, or name another set"
            )
    check_same_classes(task.name, {one.name: one.pixels for one in datasets})


def check_same_classes(task: str, rules: Mapping[str, PixelRules]) -> None:
    """Raise UsageError where sets of one task have other classes, or in another order.

    Args:
        task: its name.
        rules: what is declared of the files of each set, by name; a list that was not read counts
            as none.
    """
    lists = {name: one.labels.classes for name, one in rules.items() if one.labels}
    lists = {name: classes for name, classes in lists.items() if classes}
    for name, classes in lists.items():
        first, wanted = next(iter(lists.items()))
        if classes != wanted:
            odd = [item for item in classes if item not in wanted]
            odd = odd or [item for item in wanted if item not in classes]
            text = f"such as {odd[0]}" if odd else "in another order"
            raise UsageError(
                f"task {task} has sets of different classes: {len(classes)} of {name} and "
                f"{len(wanted)} of {first}, {text}; give both one list, or each a task of its own"
            )


def _merge(path: Path, base: Path | None, registry: Registry) -> None:
    """Add the entries of one file."""
    content = _read(path)
    for section in content:
        if section not in ("tasks", "datasets"):
            error = UsageError.unknown("section", str(section), ("tasks", "datasets"))
            raise UsageError(f"{path}: {error}")
    _add(path, "task", content.get("tasks"), registry.tasks, Task, None)
    _add(path, "data set", content.get("datasets"), registry.datasets, Dataset, base)


def _add(
    path: Path, kind: str, section: Any, known: dict, model: type[_Entry], base: Path | None
) -> None:
    if section is not None and not isinstance(section, Mapping):
        raise UsageError(f"{path}: the section of {kind}s must hold entries by name")
    for name, entry in (section or {}).items():
        where = f"{path}: {kind} '{name}'"
        if not isinstance(entry, Mapping):
            raise UsageError(f"{where} must hold settings by name, such as 'title: My set'")
        # These are given here, and the model's own refusal of other keys has no nearest name.
        given = {"name": name} | ({"base": base} if model is Dataset else {})
        keys = {*model.model_fields, "override"} - given.keys()
        for key in entry:
            if key not in keys:
                raise UsageError(f"{where}: {UsageError.unknown('key', str(key), keys)}")
        entry = _corrected(where, kind, dict(entry), known.get(name), known)
        try:
            known[name] = model.model_validate({**entry, **given})
        except pydantic.ValidationError as error:
            raise UsageError(f"{where}: {_sentence(error)}") from None


def _corrected(
    where: str, kind: str, entry: dict[str, Any], old: _Entry | None, known: Mapping[str, Any]
) -> dict[str, Any]:
    """Return an entry with what it keeps of the one that it corrects."""
    override = entry.pop("override", False)
    if not override:
        if old is not None:
            raise UsageError(
                f"{where} exists already; give yours another name, or write `override: true` in it "
                f"to correct that one"
            )
        return entry
    if old is None:
        error = UsageError.unknown(kind, where.rpartition(" ")[2].strip("'"), known)
        raise UsageError(f"{where}: override: true corrects an entry that is there; {error}")
    kept = old.model_dump(exclude={"name", "base"}, exclude_unset=True)
    for key in ("counts", "splits", "checksums"):
        if isinstance(entry.get(key), Mapping):
            entry[key] = {**kept.get(key, {}), **entry[key]}
    return {**kept, **entry}


EXAMPLES = {
    "title": "title: My set",
    "task": "task: cod",
    "protocol": "protocol: cod",
    "loss": "loss: structure",
    "select": "select: s_measure",
    "train": "train: [my_set/train]",
    "test": "test: [my_set/test]",
    "what": "what: video",
    "url": "url: https://...",
}


def _sentence(error: pydantic.ValidationError) -> str:
    """Return the first mistake of an entry as a sentence."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    name = str(first["loc"][-1]) if first["loc"] else ""
    if first["type"] == "missing":
        return _missing(key, name)
    text = first["msg"].removeprefix("Value error, ")
    text = text[:1].lower() + text[1:]
    if first["type"] != "value_error" and isinstance(first["input"], str | int | float | bool):
        text += f", and not {first['input']!r}"
    return f"key '{key}': {text}" if key else text


def _missing(key: str, name: str) -> str:
    known = f"; one of {', '.join(PROTOCOLS)}" if name == "protocol" else ""
    example = f"; add a line such as `{EXAMPLES[name]}`" if name in EXAMPLES else ""
    return f"key '{key}' is missing{example}{known}"


def _read(path: Path) -> Mapping[str, Any]:
    """Read a YAML file into a mapping; raises UsageError in one sentence."""
    try:
        content = read_yaml(path)
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror})") from None
    except YamlError as error:
        line = f", line {error.line}" if error.line else ""
        raise UsageError(f"{path}{line} is not valid YAML: {error.why}") from None
    if not isinstance(content, Mapping):
        raise UsageError(f"{path} must hold the sections 'tasks' or 'datasets'")
    return content
