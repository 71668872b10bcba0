"""A sweep as it is planned and kept: its cells, the file of each, the folder of all."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from lpmoe_bench.config.settings import SET_SECTIONS, RunConfig, parse_sets
from lpmoe_bench.console import Terminal
from lpmoe_bench.environment import collect_environment
from lpmoe_bench.errors import DataError, ResourceError, UsageError
from lpmoe_bench.files import hold_lock, write_atomically, write_failure
from lpmoe_bench.records.model import run_folder
from lpmoe_bench.training.request import RunRequest, refuse_early
from method_zoo.errors import ZooError

if TYPE_CHECKING:
    from lpmoe_bench.training.plan import Plan, Sources

# What a sweep is on disk: its cells as planned, and what became of each attempt.

SCHEMA_VERSION = 1
Outcome = Literal["finished", "failed", "out of memory", "interrupted", "busy", "reset"]


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class SweepCell(_Frozen):
    """One run of a sweep: a method on a task with a seed, all its settings resolved.

    folder: of the run, below the folder of all runs. settings: what `run --config` takes, the
    device as it was asked for. batch_statistics: the method refuses micro-batches.
    train_images, test_images: how many are read in all epochs, and to be scored.
    """

    name: str
    task: str
    method: str
    seed: int
    fingerprint: str
    folder: Path
    settings: dict[str, Any]
    batch_statistics: bool = False
    train_images: int = 0
    test_images: int = 0


def _several(value: Any) -> Any:
    """Read what older plans hold: one file, or none."""
    return () if value is None else (value,) if isinstance(value, str | Path) else value


class DataPlaces(_Frozen):
    """Where the data of a sweep is, and files of plug-ins; absolute paths."""

    data_root: Path | None = None
    datasets: Annotated[tuple[Path, ...], BeforeValidator(_several)] = ()
    embedded: bool = False
    plugins: tuple[Path, ...] = ()


class Sweep(_Frozen):
    """The plan of a sweep; its id is a hash of all that its cells are."""

    schema_version: Literal[1] = SCHEMA_VERSION
    id: str
    created: str  # UTC, ISO 8601
    version: str
    git_sha: str | None = None
    places: DataPlaces
    cells: list[SweepCell]


class Attempt(_Frozen):
    """One try of a cell that has ended. exit_code is negative for a signal, None for no process.

    changes: settings of runtime that it was given because memory had run out before. log: file
    beside the attempt's own. A `reset` is no try: what was before it no longer counts.
    """

    ended: str  # UTC, ISO 8601
    seconds: float = 0.0
    outcome: Outcome
    exit_code: int | None = None
    reason: str = ""
    host: str = ""
    changes: list[str] = []
    log: str = ""


def sweep_id(cells: list[SweepCell], places: DataPlaces) -> str:
    """Return 12 hex digits that change with any setting, fingerprint, seed or place."""
    # The same command gives the same id, so it finds its sweep again and goes on.
    about = places.model_dump(mode="json")
    if len(places.datasets) < 2:  # as it was when there was one file at most
        about["datasets"] = next(iter(about["datasets"]), None)
    if not places.plugins:  # as it was before there were any
        del about["plugins"]
    content = [about, *(cell.model_dump(mode="json") for cell in cells)]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


# The folder of a sweep: its plan, the settings of each cell, a file for every attempt.

SWEEPS, PLAN = "sweeps", "plan.json"
ATTEMPTS = "attempts"
PLANNING, PLANNING_SECONDS = ".planning", 0.2  # the lock of who writes it, and how often to look
Model = TypeVar("Model", bound=BaseModel)


def sweep_folder(runs: Path, sweep: Sweep) -> Path:
    return runs / SWEEPS / sweep.id


def settings_file(folder: Path, cell: SweepCell) -> Path:
    """Return the file of a cell's settings, which `run --config` takes."""
    return folder / "cells" / f"{cell.name}.yaml"


def write_sweep(runs: Path, sweep: Sweep) -> Path:
    """Write a sweep's plan where it is not there yet, and return its folder; plan.json is last."""
    folder = sweep_folder(runs, sweep)
    while not (folder / PLAN).exists():
        # Of many workers that start at once, one writes and the others wait for it.
        lock = hold_lock(folder / PLANNING)
        if lock is None:
            time.sleep(PLANNING_SECONDS)
            continue
        with lock:
            if (folder / PLAN).exists():
                break
            # The plan is last: a sweep that is killed here has none, and is planned again.
            for cell in sweep.cells:
                write_atomically(settings_file(folder, cell), settings_text(cell))
            write_atomically(folder / PLAN, sweep.model_dump_json(indent=1) + "\n")
    return folder


def settings_text(cell: SweepCell) -> str:
    """Return the settings of a cell as YAML."""
    return yaml.safe_dump(cell.settings, sort_keys=False, allow_unicode=True)


def read_sweeps(runs: Path) -> list[tuple[Path, Sweep]]:
    """Return (folder, plan) of every sweep below the folder of runs, the oldest first."""
    plans = (runs / SWEEPS).glob(f"*/{PLAN}")
    found = [(path.parent, _read(path, Sweep)) for path in plans]
    return sorted(found, key=lambda item: (item[1].created, item[1].id))


def write_attempt(folder: Path, cell: SweepCell, attempt: Attempt, stem: str = "") -> None:
    """Keep an attempt in a file of its own."""
    write_atomically(
        _attempts(folder, cell) / f"{stem or new_stem()}.json", attempt.model_dump_json(indent=1)
    )


def read_attempts(folder: Path, cell: SweepCell) -> list[Attempt]:
    """Return the attempts of a cell since it was last reset, the oldest first."""
    # Names begin with the time in UTC, so their order is that of the attempts.
    paths = sorted(_attempts(folder, cell).glob("*.json"))
    attempts = [_read(path, Attempt) for path in paths]
    resets = [k for k, attempt in enumerate(attempts) if attempt.outcome == "reset"]
    return attempts[resets[-1] + 1 :] if resets else attempts


def log_file(folder: Path, cell: SweepCell, stem: str) -> Path:
    """Return the log of an attempt, in a folder that exists."""
    path = _attempts(folder, cell) / f"{stem}.log"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResourceError(write_failure(path, error)) from error
    return path


def last_log(folder: Path, cell: SweepCell) -> Path | None:
    """Return the log of the latest attempt, ended or not."""
    return max(_attempts(folder, cell).glob("*.log"), default=None)


def new_stem() -> str:
    """Return a name for files of an attempt that sorts by time and no other process has."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S.%f}-{os.getpid()}"


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def tried_cells(folder: Path) -> set[str]:
    """Return the names of the cells that have an attempt, ended or not."""
    return folder_listing(folder / ATTEMPTS)


def folder_listing(folder: Path) -> set[str]:
    """Return what a folder holds; nothing where it is not there."""
    try:
        return set(os.listdir(folder))
    except OSError:
        return set()


def _attempts(folder: Path, cell: SweepCell) -> Path:
    return folder / ATTEMPTS / cell.name


def _read(path: Path, model: type[Model]) -> Model:
    try:
        return model.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, ValidationError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{path} could not be read ({reason}); move it away") from None


# The cells of a sweep, resolved to their fingerprints before any of them runs.

# The settings that say which model is built.
MODEL = {"method", "options", "backbone", "decoder", "decoder_options", "size"}


@dataclass(frozen=True)
class SweepRequest:
    """What a user asked for. `sets`: texts of `--set`; `method.name=value` is for that method."""

    methods: Sequence[str]
    tasks: Sequence[str]
    seeds: Sequence[int]
    flags: Mapping[str, Any] = field(default_factory=dict)
    sets: Sequence[str] = ()
    file: Mapping[str, Any] = field(default_factory=dict)
    places: DataPlaces = field(default_factory=DataPlaces)
    runs: Path = Path("runs")
    offline: bool = False


def plan_sweep(request: SweepRequest, terminal: Terminal) -> Sweep:
    """Plan every cell; weights and data are resolved once and are the same for all of them.

    Cells go seed by seed, so that a sweep that is stopped early has all methods at some seeds.
    Errors are those of make_plan and of building the models: nothing runs unless every cell can.
    """
    for name, values in (("method", request.methods), ("task", request.tasks)):
        if not values:
            raise UsageError(f"--{name} is empty; name at least one, with commas between them")
    if not request.seeds:
        raise UsageError("--seeds is empty; give whole numbers with commas, such as 0,1,2")
    combinations = [(task, method) for task in request.tasks for method in request.methods]
    for task, method in combinations:  # all that settings alone can refuse, before torch is there
        refuse_early(_request(request, task, method))
    from lpmoe_bench.training.plan import make_plan

    # Weights are hashed and images read once for all cells that share them.
    known: dict[tuple, Sources] = {}
    notes: dict[str, None] = {}
    plans, built = [], set()
    for task, method in combinations:
        asked = _request(request, task, method)
        plan = make_plan(asked, terminal, known)
        _check_model(plan.config, built)
        plans.append((plan, _asked_device(asked)))
        notes |= dict.fromkeys(plan.notes)
    for note in notes:
        terminal.note(note)
    # A seed changes no data and no weights, so one plan stands for all seeds of its combination.
    cells = [_cell(plan, device, seed) for seed in request.seeds for plan, device in plans]
    code = collect_environment("")
    return Sweep(
        id=sweep_id(cells, request.places),
        created=now(),
        version=code.version,
        git_sha=code.git_sha,
        places=request.places,
        cells=cells,
    )


def _request(request: SweepRequest, task: str, method: str) -> RunRequest:
    return RunRequest(
        flags={**request.flags, "task": task, "method": method, "seed": request.seeds[0]},
        sets=parse_sets(sets_of(request.sets, method, request.methods)),
        file=request.file,
        data_root=request.places.data_root,
        embedded=request.places.embedded,
        datasets=request.places.datasets,
        runs=request.runs,
        offline=request.offline,
    )


def _check_model(config: RunConfig, built: set[str]) -> None:
    """Build a model on shapes alone, unless one like it was; UsageError names the method."""
    from lpmoe_bench.model.segmenter import check_buildable

    shape = config.model_dump_json(include=MODEL)
    try:
        if shape not in built:
            check_buildable(config)
    except (UsageError, ZooError) as error:
        raise UsageError(f"{config.method} cannot be built: {error}") from None
    built.add(shape)


def sets_of(sets: Sequence[str], method: str, methods: Sequence[str]) -> list[str]:
    """Return the `--set` texts that are for a method: all but those of the others by name.

    Raises UsageError for one of a method that is not asked for.
    """
    general, own = [], []
    for text in sets:
        owner, dot, rest = text.partition(".")
        if not dot or "=" in owner or owner in SET_SECTIONS:
            general.append(text)
        elif owner not in methods:
            raise UsageError.unknown("section or method of --set", owner, [*SET_SECTIONS, *methods])
        elif owner == method:
            own.append(rest)
    return general + own  # its own come later and win


def _asked_device(request: RunRequest) -> str:
    """Return the device as it was asked for: where the cell runs there may be another kind."""
    asked = (layer.get("runtime", {}).get("device") for layer in (request.sets, request.file))
    return next((str(device) for device in asked if device), "auto")


def _cell(plan: Plan, device: str, seed: int) -> SweepCell:
    from lpmoe_bench.training.plan import bound_to_batch

    config = plan.config.model_copy(update={"seed": seed})
    settings = config.model_dump(mode="json")
    settings["runtime"]["device"] = device
    for name in ("weights", "decoder_weights"):
        settings[name] = _absolute(settings[name])
    train = config.train
    in_epochs = train.epochs * len(plan.train_pairs)
    folder = run_folder(config.task, config.method, config.backbone, plan.fingerprint, seed)
    return SweepCell(
        name=f"{config.task}-{config.method}-s{seed}",
        task=config.task,
        method=config.method,
        seed=seed,
        fingerprint=plan.fingerprint,
        folder=folder,
        settings=settings,
        batch_statistics=bool(bound_to_batch(config, plan.method)),
        train_images=train.steps * train.batch if train.steps else in_epochs,
        test_images=sum(len(split.pairs) for split in plan.tests),
    )


def _absolute(path: str | None) -> str | None:
    """Make a file's path hold in every folder; other words, such as `random`, stay."""
    file = Path(path or "").expanduser()
    return str(file.resolve()) if file.is_file() else path
