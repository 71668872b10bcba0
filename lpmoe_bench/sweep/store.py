"""The folder of a sweep: its plan, the settings of each cell, a file for every attempt."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from lpmoe_bench.errors import DataError, ResourceError
from lpmoe_bench.files import write_atomically, write_failure
from lpmoe_bench.sweep.model import Attempt, Cell, Sweep

SWEEPS, PLAN = "sweeps", "plan.json"
Model = TypeVar("Model", bound=BaseModel)


def sweep_folder(runs: Path, sweep: Sweep) -> Path:
    return runs / SWEEPS / sweep.id


def settings_file(folder: Path, cell: Cell) -> Path:
    """Return the file of a cell's settings, which `run --config` takes."""
    return folder / "cells" / f"{cell.name}.yaml"


def write_sweep(runs: Path, sweep: Sweep) -> Path:
    """Write a sweep's plan where it is not there yet, and return its folder; plan.json is last."""
    folder = sweep_folder(runs, sweep)
    if not (folder / PLAN).exists():
        for cell in sweep.cells:
            write_atomically(settings_file(folder, cell), settings_text(cell))
        write_atomically(folder / PLAN, sweep.model_dump_json(indent=1) + "\n")
    return folder


def settings_text(cell: Cell) -> str:
    """Return the settings of a cell as YAML."""
    return yaml.safe_dump(cell.settings, sort_keys=False, allow_unicode=True)


def read_sweeps(runs: Path) -> list[tuple[Path, Sweep]]:
    """Return (folder, plan) of every sweep below the folder of runs, the oldest first."""
    plans = (path for path in (runs / SWEEPS).glob(f"*/{PLAN}"))
    found = [(path.parent, _read(path, Sweep)) for path in plans]
    return sorted(found, key=lambda item: (item[1].created, item[1].id))


def write_attempt(folder: Path, cell: Cell, attempt: Attempt, stem: str = "") -> None:
    """Keep an attempt in a file of its own."""
    write_atomically(
        _attempts(folder, cell) / f"{stem or new_stem()}.json", attempt.model_dump_json(indent=1)
    )


def read_attempts(folder: Path, cell: Cell) -> list[Attempt]:
    """Return the attempts of a cell since it was last reset, the oldest first."""
    paths = sorted(_attempts(folder, cell).glob("*.json"))
    attempts = [_read(path, Attempt) for path in paths]
    resets = [k for k, attempt in enumerate(attempts) if attempt.outcome == "reset"]
    return attempts[resets[-1] + 1 :] if resets else attempts


def log_file(folder: Path, cell: Cell, stem: str) -> Path:
    """Return the log of an attempt, in a folder that exists."""
    path = _attempts(folder, cell) / f"{stem}.log"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResourceError(write_failure(path, error)) from error
    return path


def last_log(folder: Path, cell: Cell) -> Path | None:
    """Return the log of the latest attempt, ended or not."""
    return max(_attempts(folder, cell).glob("*.log"), default=None)


def new_stem() -> str:
    """Return a name for files of an attempt that sorts by time and no other process has."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S.%f}-{os.getpid()}"


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _attempts(folder: Path, cell: Cell) -> Path:
    return folder / "attempts" / cell.name


def _read(path: Path, model: type[Model]) -> Model:
    try:
        return model.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, ValidationError) as error:
        words = " ".join(str(error).split())[:200]
        raise DataError(f"{path} could not be read ({words}); move it away") from None
