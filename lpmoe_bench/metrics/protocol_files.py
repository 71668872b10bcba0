"""Protocols of one's own: a YAML file that changes some rules of a shipped protocol."""

from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from lpmoe_bench.errors import UsageError
from lpmoe_bench.metrics.base import ScoringRules
from lpmoe_bench.metrics.extra import EXTRA, get_extra, known_metrics
from lpmoe_bench.metrics.facts import METRICS, get_metric
from lpmoe_bench.metrics.protocols import (
    PROTOCOLS,
    EmptyMasks,
    Protocol,
    Resize,
    get_protocol,
    map_protocol,
)
from lpmoe_bench.yaml_files import YamlError, read_yaml

ENDINGS = (".yaml", ".yml")
LONGEST = 60  # letters of a name, which stands in tables
RESIZE = {how.split()[0]: how for how in get_args(Resize)}
THRESHOLDS = {
    "levels": "256 levels, at least",
    "matlab": "MATLAB grid, at least",
    "matlab_e_above": "MATLAB grid, at least; E above",
}
FIELDS = (
    *("base", "name", "version", "title", "source", "normalisation", "resize", "empty_masks"),
    *("threshold", "mask_threshold", "thresholds", "f_beta2", "columns", "headline", "primary"),
    "percent",
)


def open_protocol(name: str) -> ScoringRules:
    """Return the shipped protocol of that name, of any kind of task, or that of a YAML file, of
    binary maps; raises UsageError."""
    if name.lower().endswith(ENDINGS):
        return read_protocol(Path(name))
    return get_protocol(name)


def read_protocol(path: Path) -> Protocol:
    """Read a protocol of one's own.

    Args:
        path: YAML with these fields, each of which changes a rule of `base`: name, version, title,
            source; normalisation (minmax or none); resize (bilinear, bicubic or nearest);
            empty_masks (skip, score, zero or one); threshold (a fraction, of the map); thresholds
            (levels, matlab or matlab_e_above); mask_threshold (0 to 254); f_beta2; columns (keys of
            metrics, extra ones too); headline, primary and percent (of these columns).

    Returns:
        The protocol, whose hash is of all rules as of a shipped one.

    Raises:
        UsageError: the file cannot be read, or a field is unknown or has a value that it does not
            take, in a sentence that says which.
    """
    content = _content(path)
    for field in content:
        if field not in FIELDS:
            raise UsageError(f"{path}: {UsageError.unknown('field', str(field), FIELDS)}")
    rules = _Rules(path, content)
    if "base" not in content:
        raise UsageError(
            f"{path}: base is missing; name the protocol that this one departs from, such as "
            f"'base: cod'"
        )
    base = map_protocol(rules.text("base", ""))
    name = rules.text("name", path.stem)
    if not name.isprintable() or not 0 < len(name) <= LONGEST:
        raise UsageError(f"{path}: name must be printable text of at most {LONGEST} letters")
    if name in PROTOCOLS:
        raise UsageError(
            f"{path}: name is '{name}', which is a shipped protocol; give yours another"
        )
    metrics, extra = rules.columns(base)
    columns = (*metrics, *extra)
    headline = rules.some("headline", columns, [k for k in base.headline if k in columns])
    primary = rules.text("primary", base.primary if base.primary in metrics else metrics[0])
    if primary not in metrics:
        raise UsageError(
            f"{path}: primary is '{primary}'; it must be one of the columns that are no extra "
            f"metrics: {', '.join(metrics)}"
        )
    pooled = all(METRICS[key].of_counts for key in metrics)
    return replace(
        base,
        name=name,
        version=rules.whole("version", 1, 1, 10**6),
        title=rules.text("title", f"{base.title}, changed in {path.name}"),
        source=rules.text("source", f"a file of the user's; departs from {base.label}"),
        normalisation=rules.choice("normalisation", ("minmax", "none"), base.normalisation),
        resize=RESIZE[rules.choice("resize", tuple(RESIZE), base.resize.split()[0])],
        empty_masks=rules.choice("empty_masks", get_args(EmptyMasks), base.empty_masks),
        binary_threshold=rules.number("threshold", base.binary_threshold, 0, 1),
        mask_threshold=rules.whole("mask_threshold", base.mask_threshold, 0, 254),
        thresholds=rules.grid(base),
        f_beta2=rules.number("f_beta2", base.f_beta2, 0, 100),
        aggregation="counts of the data set" if pooled else COUNTED_BY_IMAGE,
        metrics=metrics,
        headline=tuple(headline or columns[:4]),
        primary=primary,
        percent=tuple(rules.some("percent", columns, [k for k in base.percent if k in columns])),
        extra=extra,
    )


COUNTED_BY_IMAGE = "image mean, maxima of the mean curve"


def _content(path: Path) -> dict[Any, Any]:
    try:
        content = read_yaml(path)
    except FileNotFoundError:
        raise UsageError(f"--protocol {path} does not exist") from None
    except OSError as error:
        raise UsageError(f"--protocol {path} could not be read ({error.strerror})") from None
    except YamlError as error:
        raise UsageError(f"--protocol {path} is not valid YAML: {error}") from None
    if not isinstance(content, dict):
        raise UsageError(f"--protocol {path} must hold fields by name, such as 'base: cod'")
    return content


class _Rules:
    """Fields of a file, each checked when it is asked for; raises UsageError naming file and field.

    Every method takes the field's name and what stands where the file says nothing.
    """

    def __init__(self, path: Path, content: dict[Any, Any]):
        self.path, self.content = path, content

    def wrong(self, field: str, allowed: str) -> UsageError:
        text = repr(self.content[field])
        text = text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
        return UsageError(f"{self.path}: {field} is {text}; {allowed}")

    def text(self, field: str, usual: str) -> str:
        value = self.content.get(field, usual)
        if not isinstance(value, str) or not value.strip():
            raise self.wrong(field, "it must be text")
        return " ".join(value.split())

    def choice(self, field: str, allowed: tuple[str, ...], usual: str) -> Any:
        value = self.content.get(field, usual)
        value = "none" if field == "normalisation" and value is None else value  # YAML's null
        if value not in allowed:
            raise self.wrong(field, f"it must be {', '.join(allowed[:-1])} or {allowed[-1]}")
        return value

    def number(self, field: str, usual: float, low: float, high: float) -> float:
        value = self.content.get(field, usual)
        if not isinstance(value, int | float) or isinstance(value, bool) or not low <= value < high:
            hint = ", a fraction: 0.5 for 127.5 of 255" if field == "threshold" else ""
            raise self.wrong(field, f"it must be a number from {low:g} to below {high:g}{hint}")
        return float(value)

    def whole(self, field: str, usual: int, low: int, high: int) -> int:
        value = self.content.get(field, usual)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise self.wrong(field, f"it must be a whole number from {low} to {high}")
        return value

    def grid(self, base: Protocol) -> Any:
        if "thresholds" not in self.content:
            return base.thresholds
        return THRESHOLDS[self.choice("thresholds", tuple(THRESHOLDS), "")]

    def names(self, field: str) -> list[str]:
        """Return the names of a list; raises UsageError for what is none, or says one twice."""
        value = self.content[field]
        if not isinstance(value, list) or not value or not all(isinstance(v, str) for v in value):
            raise self.wrong(field, "it must be a list of keys, such as [iou, dice]")
        if twice := [name for name in value if value.count(name) > 1]:
            raise self.wrong(field, f"it holds {twice[0]} twice")
        return value

    def columns(self, base: Protocol) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the keys of metrics, and those of extra ones."""
        if "columns" not in self.content:
            return base.metrics, base.extra
        names = self.names("columns")
        for name in names:
            if name not in known_metrics():
                try:
                    (get_extra if name.casefold() in EXTRA else get_metric)(name)
                except UsageError as error:
                    raise UsageError(f"{self.path}: columns: {error}") from None
        metrics = tuple(name for name in names if name in METRICS)
        if not metrics:
            raise self.wrong("columns", "one column at least must be no extra metric, such as iou")
        return metrics, tuple(name for name in names if name in EXTRA)

    def some(self, field: str, columns: tuple[str, ...], usual: list[str]) -> list[str]:
        if field not in self.content:
            return usual
        names = self.names(field)
        for name in names:
            if name not in columns:
                raise UsageError(
                    f"{self.path}: {field} names '{name}', which is no column; columns are "
                    f"{', '.join(columns)}"
                )
        return names
