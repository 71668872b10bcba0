"""The entries of datasets.yaml: a task, a data set, its archives and its folder layouts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"  # names become parts of labels and of folders
GIVEN_BY_LOADER = {"name", "base"}
INSIDE = r"^(?!/|~)(?!.*\.\.)[^\\:\x00]+$"  # a path that stays within its folder
CHECKSUM = r"^(sha256:[0-9a-f]{64}|md5:[0-9a-f]{32})$"
OBJECT = r"^(above 128|nonzero|#[0-9a-f]{6})$"
WEB = r"^https?://[^\s]+$"
Inside = Annotated[str, Field(pattern=INSIDE)]


def _as_parts(value: Any) -> Any:
    """Let one part stand without the list around it."""
    if isinstance(value, str):
        return [[value]]
    if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        return [value]
    return value


def _of_known_kind(part: list[str]) -> list[str]:
    tables = [item.endswith(".csv") for item in part]
    if tables not in ([False, False], [True]):
        raise ValueError("give two folders [images, masks] or one table.csv")
    return part


# [images, masks], folders or folder/*_suffix.ext where the star is the name; or [table.csv]
Part = Annotated[list[Inside], AfterValidator(_of_known_kind)]
Parts = Annotated[list[Part], BeforeValidator(_as_parts), Field(min_length=1)]
SplitName = Annotated[str, Field(pattern=NAME)]
Layout = dict[SplitName, Parts]


class _Model(BaseModel):
    # Python's regular expressions, because pydantic's own know no lookahead.
    model_config = ConfigDict(extra="forbid", frozen=True, regex_engine="python-re")


class _Entry(_Model):
    name: str = Field(pattern=NAME)
    title: str


class StandIn(_Model):
    """What a task uses where its own training sets are not there; no train: the embedded set."""

    train: list[str] = []
    test: list[str] = []


class Task(_Entry):
    """What a task trains and tests on, and how. train, test: `data set/split` references.

    stand_in: other sets for where those of `train` are not found. loss, select: names of a loss
    and of the score that picks the best epoch. embedded: the set drawn in code that is used where
    no real one is found; empty for none.
    """

    protocol: str
    loss: str
    select: str
    train: list[str] = Field(min_length=1)
    test: list[str] = Field(min_length=1)
    stand_in: StandIn = StandIn()
    embedded: str = ""
    recipe: dict[str, Any] = {}

    @property
    def references(self) -> list[str]:
        """All `data set/split` of the task, each once."""
        both = [*self.train, *self.test, *self.stand_in.train, *self.stand_in.test]
        return list(dict.fromkeys(both))


class Archive(_Model):
    """A file that can be fetched without a form. url: or several, the first that works is taken.

    checksum: `sha256:...` or `md5:...` where one is published; without, that of the first fetch is
    recorded and enforced after. folder: where its content goes in, for archives without one.
    """

    url: Annotated[
        list[Annotated[str, Field(pattern=WEB)]],
        BeforeValidator(lambda value: [value] if isinstance(value, str) else value),
        Field(min_length=1),
    ]
    checksum: str = Field("", pattern=CHECKSUM + "|^$")
    folder: str = Field("", pattern=INSIDE + "|^$")

    @property
    def file(self) -> str:
        """The name under which it is kept."""
        return self.url[0].partition("?")[0].rstrip("/").rpartition("/")[2]


class Groups(_Model):
    """Images that belong together by nature, such as frames of one video; what: one such group.

    table: a CSV in the set's folder with the columns of names and of groups. starts: the first
    number of each group, for names that are numbers up to `last`, where there is no table. alike:
    near duplicates of no known group are taken for one. confirmed: as for counts.
    """

    what: str
    table: Annotated[list[Inside], Field(min_length=3, max_length=3)] | None = None
    starts: list[int] = []
    last: int = 0
    alike: bool = False
    confirmed: bool = False

    @model_validator(mode="after")
    def _is_told(self) -> Groups:
        if not (self.table or self.starts or self.alike):
            raise ValueError("give a table, starts, or alike: true")
        if self.starts != sorted(set(self.starts)) or (self.starts and self.last < self.starts[-1]):
            raise ValueError("starts must grow, and last be no smaller than the last of them")
        return self


class Dataset(_Entry):
    """A data set in a folder.

    splits: {name: list file, None for every image} of the plain layout: one folder of `images`, one
    of `masks`. layouts: others seen in the wild. folder: under the data root, the set's name by
    default; in a user's own file also beside that file (`base`), or absolute. counts: official
    pairs a split, seen in a source if `confirmed` (for all or for those it lists). local: splits
    that are not official ones. object: what of a mask is object: `above 128`, or what `data add`
    converts: `nonzero`, or a colour such as `#ff0000`. by_hand: the file to download
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
    object: str = Field("above 128", pattern=OBJECT)
    page: str = ""
    archives: list[Archive] = []
    by_hand: str = ""
    licence: str = ""
    note: str = ""
    checksums: dict[str, str] = {}
    groups: Groups | None = None
    base: Path | None = None

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, values: Any) -> Any:
        if isinstance(values, dict):
            values = {"folder": values.get("name"), **values}
            if "splits" not in values and not values.get("layouts"):
                values["splits"] = {"all": None}
        return values

    @model_validator(mode="after")
    def _has_splits(self) -> Dataset:
        if not self.split_names:
            raise ValueError("splits or layouts must name at least one split")
        return self

    @property
    def split_names(self) -> list[str]:
        """All splits, of the plain layout and of the others."""
        return list(dict.fromkeys([*self.splits, *(n for one in self.layouts for n in one)]))

    def role(self, split: str) -> Literal["train", "validation", "test"]:
        """What a split is for, by its name: train..., val..., every other one is for testing."""
        if split.startswith("train"):
            return "train"
        return "validation" if split.startswith("val") else "test"

    def is_confirmed(self, split: str) -> bool:
        """Whether the split's count was seen in a source."""
        return self.confirmed if isinstance(self.confirmed, bool) else split in self.confirmed

    def location(self, root: Path | None) -> Path | None:
        """Return the folder that holds the set, None where it is not there."""
        places = [place / self.folder for place in (root, self.base) if place is not None]
        if Path(self.folder).is_absolute():
            places = [Path(self.folder)]
        return next((place for place in places if place.is_dir()), None)
