"""What baseline.json says: pinned cells, the policy of the gate, the history of its pins."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from lpmoe_bench.errors import DataError, UsageError
from lpmoe_bench.files import write_atomically
from lpmoe_bench.records.context import plain

BASELINE_VERSION = 1
DEFAULT_FLOOR = 0.001  # no table prints a smaller difference
REPLAY_FLOOR = 0.0  # the noise of a rerun is known, and often it is none
DEFAULT_LEVEL, DEFAULT_SPEED = 0.05, 0.3
ROUNDING = 1e-9


class _Section(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False
    )
    # Fields that came later are written only where they say something: older files stay as they
    # are, and an older lpmoe-bench reads a file that makes no use of them.
    later: ClassVar[frozenset[str]] = frozenset()

    @model_serializer(mode="wrap")
    def _without_unused(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content = serialise(self)
        return {k: v for k, v in content.items() if v is not None or k not in self.later}


class Policy(_Section):
    """What the gate forgives. Scores in [0, 1]; `floor` and `cap` are drops.

    level: chance of an alarm about a call without any regression, on average over baselines.
    confidence: the share of baselines for each of which the level is to hold; None for the average
    alone, of which 0.5 changes nothing. floor: no drop up to it is a regression; None stands for
    DEFAULT_FLOOR, or where seeds are replayed for REPLAY_FLOOR, and gives one seed no limit. cap:
    every drop beyond it is one, whatever the seeds say. speed_tolerance: the share of images a
    second that may be lost on the same hardware; 1 judges no speed.
    """

    later = frozenset({"confidence"})
    level: float = Field(default=DEFAULT_LEVEL, gt=0, le=0.5)
    confidence: float | None = Field(default=None, ge=0.5, le=0.999)
    floor: float | None = Field(default=None, ge=0)
    cap: float | None = Field(default=None, gt=0)
    speed_tolerance: float = Field(default=DEFAULT_SPEED, ge=0, le=1)

    @model_validator(mode="after")
    def _ordered(self) -> Policy:
        if self.floor is not None and self.cap is not None and self.cap < self.floor:
            raise ValueError(f"the cap {self.cap:g} lies below the floor {self.floor:g}")
        return self

    def changed(self, **given: float | None) -> Policy:
        """Return the policy with other limits where they are given; raises UsageError."""
        changed: dict[str, Any] = {k: v for k, v in given.items() if v is not None}
        try:
            return Policy.model_validate(self.model_dump() | changed)
        except ValidationError as error:
            first = error.errors()[0]
            name = "--" + str(first["loc"][0]).replace("_", "-") if first["loc"] else "the limits"
            text = first["msg"].removeprefix("Value error, ")
            raise UsageError(f"{name}: {text[:1].lower()}{text[1:]}") from None


class MetricPin(_Section):
    """One metric of one cell: a score a seed, and the spread learnt from them.

    sd: over seeds, None for one. rest_variance: mean square of seed x image, what is left of the
    rows an image when seed means and image means are taken off; None without rows. tolerance: the
    drop of as many new seeds that would be a regression if this metric were judged alone. reruns:
    the scores of the same seeds run once more, None where no seed was; all else is of the first.
    """

    later = frozenset({"reruns"})
    scores: list[float] = Field(min_length=1)
    mean: float
    sd: float | None = Field(default=None, ge=0)
    rest_variance: float | None = Field(default=None, ge=0)
    tolerance: float | None = Field(default=None, ge=0)
    reruns: list[float] | None = None

    @property
    def replayed(self) -> list[float]:
        """The mean of both runs of each seed; raises ValueError where each was run once."""
        if self.reruns is None:
            raise ValueError("each seed was run once")
        return [(a + b) / 2 for a, b in zip(self.scores, self.reruns, strict=True)]

    @model_validator(mode="after")
    def _consistent(self) -> MetricPin:
        # The file is edited and merged by people: what can be worked out again is checked.
        mean = math.fsum(self.scores) / len(self.scores)
        if abs(mean - self.mean) > ROUNDING * max(1.0, abs(mean)):
            raise ValueError(f"the mean of the scores is {mean:g}, not {self.mean:g}")
        if (self.sd is None) != (len(self.scores) == 1):
            raise ValueError("an sd needs two scores, and two scores need an sd")
        if self.reruns is not None and len(self.reruns) != len(self.scores):
            raise ValueError(f"{len(self.reruns)} reruns of {len(self.scores)} scores")
        return self


class SpeedPin(_Section):
    """Images a second, one a seed, and the hardware that they hold for."""

    hardware: str
    train: list[float] = []
    inference: list[float] = []


class CellPin(_Section):
    """One method with its settings on one test set.

    identity: everything that must agree for a comparison, by dotted name. images: how many were
    scored. image_digest: of their names, None without rows. counts: parameters and FLOPs.
    """

    name: str
    identity: dict[str, Any]
    seeds: list[int | str] = Field(min_length=1)
    images: int = Field(ge=0)
    image_digest: str | None = None
    metrics: dict[str, MetricPin] = Field(min_length=1)
    counts: dict[str, int] = {}
    speed: SpeedPin | None = None

    @property
    def replay(self) -> bool:
        """Whether each seed was run twice, so that candidates are judged seed by seed."""
        return any(metric.reruns is not None for metric in self.metrics.values())

    @model_validator(mode="after")
    def _one_score_a_seed(self) -> CellPin:
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("a seed is named twice")
        for key, pin in self.metrics.items():
            if len(pin.scores) != len(self.seeds):
                raise ValueError(f"{key} has {len(pin.scores)} scores of {len(self.seeds)} seeds")
            if self.replay and pin.reruns is None:
                raise ValueError(f"{key} has no reruns, and others of the cell have")
        return self


class Change(_Section):
    """One pin: why, of which records, and what it changed, in sentences."""

    reason: str
    created: str  # of the newest record, UTC, ISO 8601
    version: str
    git_sha: str | None = None
    changes: list[str] = []


class Baseline(_Section):
    """The whole file. Cells are ordered by name, history from the first pin to the last."""

    schema_version: Literal[1] = BASELINE_VERSION
    policy: Policy = Policy()
    cells: list[CellPin] = Field(min_length=1)
    history: list[Change] = []

    @property
    def replay(self) -> bool:
        """Whether seeds were run twice; new pins are then to be so too."""
        return any(cell.replay for cell in self.cells)

    @model_validator(mode="after")
    def _names_differ(self) -> Baseline:
        counted = Counter(cell.name for cell in self.cells)
        if twice := sorted(name for name, count in counted.items() if count > 1):
            raise ValueError(f"cell {twice[0]} is there twice")
        return self

    def narrowed(
        self,
        only: Sequence[tuple[str, str]] = (),
        tasks: Sequence[str] = (),
        methods: Sequence[str] = (),
        test_sets: Sequence[str] = (),
    ) -> Baseline:
        """Return the pins that a check of these records alone is held against.

        A pin is left out where it is known to be of another task, method, test set or setting.
        """
        names = {"task": tasks, "method": methods, "test_set": test_sets}

        def fits(pin: CellPin) -> bool:
            if any(wanted and pin.identity.get(key) not in wanted for key, wanted in names.items()):
                return False
            for name, text in only:
                keys = (f"setting {name}", name, name.removeprefix("train."))
                # A pin that does not say a setting is not known to be of another, so it stays.
                known = [pin.identity[key] for key in keys if key in pin.identity]
                if known and plain(known[0]) != text.lower():
                    return False
            return True

        return self.model_copy(update={"cells": [pin for pin in self.cells if fits(pin)]})


def parse_baseline(content: Any, source: Path) -> Baseline:
    """Check the content of a baseline file; raises DataError in one sentence."""
    version = content.get("schema_version") if isinstance(content, dict) else None
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise DataError(f"{source} is no baseline: it has no schema_version; pin one anew")
    if version > BASELINE_VERSION:
        raise DataError(
            f"{source} has baseline version {version}, this lpmoe-bench reads up to "
            f"{BASELINE_VERSION}; install a newer lpmoe-bench"
        )
    try:
        return Baseline.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "file"
        text = first["msg"].removeprefix("Value error, ")
        raise DataError(f"{source} is damaged: {place}: {text[:1].lower()}{text[1:]}") from None


def read_baseline(path: Path) -> Baseline:
    """Read a baseline; raises DataError where it is missing, damaged or from a newer version."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(
            f"{path} does not exist; write it with: lpmoe-bench check pin ROOT --baseline {path}"
        ) from None
    except OSError as error:
        raise DataError(f"{path} could not be read ({error.strerror})") from None
    except (ValueError, RecursionError):
        raise DataError(
            f"{path} is not valid JSON: damaged, or half of a merge; restore it from git"
        ) from None
    return parse_baseline(content, path)


def write_baseline(path: Path, baseline: Baseline) -> None:
    """Write a baseline by rename; equal content gives equal bytes. Raises ResourceError."""
    write_atomically(path, baseline_text(baseline))


def baseline_text(baseline: Baseline) -> str:
    """Return the file's text: keys in the order of the schema, a list of numbers on one line."""
    return _indented(baseline.model_dump(), "\n") + "\n"


_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode


def _indented(value: Any, begin: str) -> str:
    """Write as `json.dumps` does with an indent of one, but for lists of numbers."""
    inner = begin + " "
    if isinstance(value, dict) and value:
        pairs = (f"{inner}{_encode(k)}: {_indented(v, inner)}" for k, v in value.items())
        return f"{{{','.join(pairs)}{begin}}}"
    if isinstance(value, list) and not all(type(one) in (int, float) for one in value):
        return f"[{','.join(inner + _indented(one, inner) for one in value)}{begin}]"
    return _encode(value)
