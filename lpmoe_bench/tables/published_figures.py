"""Published figures: results/published/*.yaml, checked on the way in."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from lpmoe_bench.errors import DataError, UsageError
from lpmoe_bench.metrics.facts import METRICS
from lpmoe_bench.metrics.protocols import PROTOCOLS
from lpmoe_bench.yaml_files import YamlError, read_yaml
from method_zoo.errors import unknown

Level = Literal["primary", "slides", "secondary", "claim"]
REFERENCES = ("primary", "slides")  # the levels that may stand without a mark
LEVELS: dict[str, str] = {
    "primary": "the authors' paper or repository",
    "slides": "the authors' slides",
    "secondary": "quoted or run by others than the authors",
    "claim": "an abstract or a second-hand text",
}
OTHER_FILES = ("budgets.yaml",)


# Whatever is misspelt in these files would be a wrong figure beside somebody's own: no unknown
# field is passed over, and every figure of a fraction must be one.
class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PublishedSet(_Section):
    """A test set as sources name it. `same`: splits here that hold these images when complete."""

    title: str
    task: str | None = None
    images: int | None = Field(None, gt=0)
    same: list[str] = []
    near: list[str] = []
    note: str = ""


class PublishedMetric(_Section):
    """A metric of a source. `protocols`: those of ours under which it is defined alike.

    unit percent: values are fractions that the source prints times 100.
    """

    metric: str
    label: str
    protocols: list[str] = []
    unit: Literal["percent", "fraction", "plain"]
    decimals: int = Field(ge=0, le=6)
    pm_decimals: int = Field(0, ge=0, le=6)
    lower_is_better: bool = False

    @model_validator(mode="after")
    def _known(self) -> Self:
        for name in self.protocols:
            if name not in PROTOCOLS or not PROTOCOLS[name].has_metric(self.metric):
                raise ValueError(f"no protocol '{name}' has a metric '{self.metric}'")
        return self

    @property
    def higher_is_better(self) -> bool:
        own = METRICS.get(self.metric)
        return own.higher_is_better if own else not self.lower_is_better


# Parameters and shares stay texts, since their digits say how exactly a source counted.
class PublishedRow(_Section):
    """One method of a table; `method` is its name in the zoo, where it has one."""

    title: str
    method: str | None = None
    backbone: str = ""
    parameters_millions: str | None = Field(None, pattern=r"^\d+(\.\d+)?$")
    share_percent: str | None = Field(None, pattern=r"^\d+(\.\d+)?$")
    values: dict[str, float]
    pm: dict[str, float] = {}
    flags: dict[str, str] = {}


class PublishedTable(_Section):
    """One table of one source; columns are `set.metric`."""

    name: str
    title: str
    source: str
    level: Level
    backbone: str = ""
    protocol: str
    parameters: Literal["", "method", "with_decoder", "total"] = ""
    not_comparable: str = ""
    metrics: dict[str, PublishedMetric]
    columns: list[str]
    rows: list[PublishedRow]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for column in self.columns:
            if column.partition(".")[2] not in self.metrics:
                raise ValueError(f"column '{column}' names no metric of its table")
        for row in self.rows:
            strange = [key for key in row.values if key not in self.columns]
            strange += [key for key in (*row.pm, *row.flags) if key not in row.values]
            if strange:
                raise ValueError(f"row '{row.title}' has '{strange[0]}', which is no figure of it")
            for key, value in row.values.items():
                plain = self.metrics[key.partition(".")[2]].unit == "plain"
                if not (plain or 0 <= value <= 1):
                    raise ValueError(f"row '{row.title}' has {key} {value:g}, beyond 0 to 1")
        return self

    @property
    def conditions(self) -> str:
        """Under which conditions the figures came about."""
        never = self.not_comparable and f"not comparable: {self.not_comparable}"
        text = "; ".join(filter(None, (self.backbone, self.protocol, never)))
        return f"{text[:1].upper()}{text[1:]}."

    def metric(self, column: str) -> PublishedMetric:
        """Return the metric of a column `set.metric`."""
        return self.metrics[column.partition(".")[2]]

    def row_name(self, row: PublishedRow) -> str:
        """Return a method's title, with the backbone where rows differ in it."""
        several = len({one.backbone for one in self.rows}) > 1
        return f"{row.title} ({row.backbone})" if several and row.backbone else row.title

    def of_set(self, name: str) -> list[str]:
        """Return the columns of a test set, in the source's order."""
        return [column for column in self.columns if column.partition(".")[0] == name]

    @property
    def sets(self) -> list[str]:
        return list(dict.fromkeys(column.partition(".")[0] for column in self.columns))


@dataclass(frozen=True)
class PublishedFigures:
    """All published tables, and the test sets that they name."""

    sets: Mapping[str, PublishedSet]
    tables: Mapping[str, PublishedTable]

    def table(self, name: str) -> PublishedTable:
        """Return the table of that name; raises UsageError for an unknown one."""
        if name not in self.tables:
            raise UsageError(unknown("published table", name, self.tables))
        return self.tables[name]

    def beside(self, label: str) -> Iterator[tuple[PublishedTable, str]]:
        """Yield each (table, set) of the data that a test set of that label is or comes from."""
        for table in self.tables.values():
            for name in table.sets:
                if label in (*self.sets[name].same, *self.sets[name].near):
                    yield table, name


class _File(_Section):
    sets: dict[str, PublishedSet] = {}
    tables: list[PublishedTable] = []


@cache
def load_published(folder: Path | None = None) -> PublishedFigures:
    """Read all published figures; raises DataError naming the file and place that is wrong."""
    package = Path(__file__).parents[1]
    packaged = package / "published"  # in an installed wheel
    usual = packaged if packaged.is_dir() else package.parent / "results" / "published"
    sets: dict[str, PublishedSet] = {}
    tables: dict[str, PublishedTable] = {}
    for path in sorted((folder or usual).glob("*.yaml")):
        if path.name in OTHER_FILES:
            continue
        part = _read(path)
        named = {table.name: table for table in part.tables}
        twice = [*(sets.keys() & part.sets.keys()), *(tables.keys() & named.keys())]
        if twice or len(named) < len(part.tables):
            raise DataError(f"{path}: {', '.join(twice) or 'a table'} stands twice; rename one")
        sets |= part.sets
        tables |= named
    for table in tables.values():
        for name in table.sets:
            if name not in sets:
                raise DataError(f"published table {table.name}: {unknown('set', name, sets)}")
    return PublishedFigures(sets, tables)


def _read(path: Path) -> _File:
    try:
        return _File.model_validate(read_yaml(path))
    except ValidationError as error:
        first = error.errors()[0]
        text = first["msg"].removeprefix("Value error, ")
        place = ".".join(str(part) for part in first["loc"])
        raise DataError(f"{path}: {place}: {text[:1].lower()}{text[1:]}") from None
    except (OSError, YamlError) as error:
        raise DataError(f"{path} cannot be read ({error})") from None
