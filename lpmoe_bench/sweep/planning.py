"""The cells of a sweep, resolved to their fingerprints before any of them runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lpmoe_bench.config.settings import SET_SECTIONS, RunConfig, parse_sets
from lpmoe_bench.console import Terminal
from lpmoe_bench.environment import collect_environment
from lpmoe_bench.errors import UsageError
from lpmoe_bench.model.weights.resolve import default_cache
from lpmoe_bench.records.model import run_folder
from lpmoe_bench.sweep.model import Cell, Places, Sweep, sweep_id
from lpmoe_bench.sweep.store import now
from method_zoo.errors import ZooError, unknown

if TYPE_CHECKING:
    from lpmoe_bench.training.plan import Plan, RunRequest, Sources

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
    places: Places = field(default_factory=Places)
    runs: Path = Path("runs")
    offline: bool = False


def plan_sweep(request: SweepRequest, terminal: Terminal) -> Sweep:
    """Plan every cell; weights and data are resolved once and are the same for all of them.

    Cells go seed by seed, so that a sweep that is stopped early has all methods at some seeds.
    Errors are those of make_plan and of building the models: nothing runs unless every cell can.
    """
    from lpmoe_bench.training.plan import make_plan

    for name, values in (("methods", request.methods), ("tasks", request.tasks)):
        if not values:
            raise UsageError(f"--{name} is empty; name at least one, with commas between them")
    if not request.seeds:
        raise UsageError("--seeds is empty; give whole numbers with commas, such as 0,1,2")
    combinations = [(task, method) for task in request.tasks for method in request.methods]
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
    from lpmoe_bench.training.plan import RunRequest

    return RunRequest(
        flags={**request.flags, "task": task, "method": method, "seed": request.seeds[0]},
        sets=parse_sets(sets_of(request.sets, method, request.methods)),
        file=request.file,
        data_root=request.places.data_root,
        embedded=request.places.embedded,
        datasets=request.places.datasets,
        runs=request.runs,
        cache=default_cache(),
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
            raise UsageError(
                unknown("section or method of --set", owner, [*SET_SECTIONS, *methods])
            )
        elif owner == method:
            own.append(rest)
    return general + own  # its own come later and win


def _asked_device(request: RunRequest) -> str:
    """Return the device as it was asked for: where the cell runs there may be another kind."""
    for layer in (request.sets, request.file):
        device = layer.get("runtime", {}).get("device")
        if device:
            return str(device)
    return "auto"


def _cell(plan: Plan, device: str, seed: int) -> Cell:
    config = plan.config.model_copy(update={"seed": seed})
    settings = config.model_dump(mode="json")
    settings["runtime"]["device"] = device
    for name in ("weights", "decoder_weights"):
        settings[name] = _absolute(settings[name])
    train = config.train
    whole = train.epochs * len(plan.train_pairs)
    folder = run_folder(config.task, config.method, config.backbone, plan.fingerprint, seed)
    return Cell(
        name=f"{config.task}-{config.method}-s{seed}",
        task=config.task,
        method=config.method,
        seed=seed,
        fingerprint=plan.fingerprint,
        folder=folder,
        settings=settings,
        batch_statistics=plan.method.batch_statistics,
        train_images=train.steps * train.batch if train.steps else whole,
        test_images=sum(len(split.pairs) for split in plan.tests),
    )


def _absolute(path: str | None) -> str | None:
    """Make a file's path hold in every folder; other words, such as `random`, stay."""
    file = Path(path or "").expanduser()
    return str(file.resolve()) if file.is_file() else path
