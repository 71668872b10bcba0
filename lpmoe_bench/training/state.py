"""The state of a training run on disk: saved in one rename, resumed bit-equal."""

from __future__ import annotations

import dataclasses
import json
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from torch.optim import Optimizer

from lpmoe_bench.environment import collect_environment
from lpmoe_bench.errors import DataError, UsageError
from lpmoe_bench.files import write_atomically
from lpmoe_bench.model.segmenter import Segmenter, under
from lpmoe_bench.records.store import STATE_FILE


@dataclass
class Progress:
    """How far a run has come. `step` counts finished optimiser steps."""

    step: int = 0
    best_step: int = 0
    best_score: float | None = None
    seconds: float = 0.0
    images: int = 0
    peak_memory_bytes: int = 0
    processes: int = 0
    commits: list[str] = field(default_factory=list)  # of the code, more than one after a resume
    loss_sum: float = 0.0  # since the last row of the curve
    loss_count: int = 0
    curve: list[dict[str, float | int | None]] = field(default_factory=list)


def save_training_state(
    folder: Path,
    run_id: str,
    segmenter: Segmenter,
    optimizer: Optimizer,
    best: dict[str, Tensor],
    progress: Progress,
) -> None:
    """Write model, best model, optimiser moments and progress as one safetensors file."""
    tensors = {f"model/{k}": v for k, v in segmenter.state().items()}
    tensors |= {f"best/{k}": v for k, v in best.items()}
    for index, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{index}/{k}": torch.as_tensor(v) for k, v in moments.items()}
    tensors = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
    about = {"run": run_id, "progress": json.dumps(dataclasses.asdict(progress))}
    write_atomically(folder / STATE_FILE, save(tensors, metadata=about))


def load_training_state(
    folder: Path, run_id: str, segmenter: Segmenter, optimizer: Optimizer
) -> tuple[Progress, dict[str, Tensor]]:
    """Load what save_training_state wrote; a fresh Progress and no best state where there is none.

    Raises DataError when the file is damaged or belongs to another run.
    """
    path = folder / STATE_FILE
    if not path.exists():
        return Progress(), {}
    try:
        with safe_open(str(path), framework="pt") as file:
            about = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        if about.get("run") != run_id:
            raise DataError(f"{path} belongs to run {about.get('run')}; delete it to start over")
        progress = Progress(**json.loads(about["progress"]))
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path} is damaged ({error}); delete it to start over") from None
    segmenter.load_state(under("model/", tensors))
    _load_moments(optimizer, under("optimizer/", tensors))
    return progress, under("best/", tensors)


def _load_moments(optimizer: Optimizer, moments: dict[str, Tensor]) -> None:
    state = optimizer.state_dict()
    state["state"] = {}
    for key, tensor in moments.items():
        index, _, name = key.partition("/")
        state["state"].setdefault(int(index), {})[name] = tensor
    optimizer.load_state_dict(state)


def note_process(progress: Progress, processes: int) -> None:
    """Keep which code and how many processes train; a resume may change the one, not the other."""
    if progress.processes not in (0, processes):
        raise UsageError(
            f"this run was started with {progress.processes} processes; resume it with "
            f"--set runtime.devices={progress.processes}, or move its folder away"
        )
    progress.processes = processes
    code = collect_environment("")
    commit = f"{code.git_sha}{'-dirty' if code.git_dirty else ''}"
    if code.git_sha and commit not in progress.commits:
        progress.commits.append(commit)


def running_statistics(segmenter: Segmenter) -> dict[str, Tensor]:
    """Copy what a forward pass may change beside the gradients: running statistics."""
    trained = {f"method.{name}" for name in segmenter.method.trainable()}
    state = segmenter.state().items()
    return {k: v.clone() for k, v in state if k.startswith("method.") and k not in trained}


def restore(segmenter: Segmenter, good: dict[str, Tensor]) -> None:
    """Put copied tensors back in place."""
    state = segmenter.state()
    for name, tensor in good.items():
        state[name].copy_(tensor)


class Saver:
    """Saves at most every `seconds`, and for at most a twentieth of the time."""

    def __init__(
        self, folder: Path, run_id: str, segmenter: Segmenter, optimizer: Optimizer, seconds: float
    ):
        self.folder, self.run_id, self.segmenter = folder, run_id, segmenter
        self.optimizer, self.seconds, self.pause = optimizer, seconds, seconds
        self.saved = time.monotonic()

    def due(self) -> bool:
        """Whether it is time to save again."""
        return time.monotonic() - self.saved >= self.pause

    def save(self, best: dict[str, Tensor], progress: Progress) -> None:
        """Save now, whether it is due or not."""
        started = time.monotonic()
        save_training_state(
            self.folder, self.run_id, self.segmenter, self.optimizer, best, progress
        )
        self.saved = time.monotonic()
        self.pause = max(self.seconds, 20 * (self.saved - started))
