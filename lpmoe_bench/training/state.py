"""The state of a training run on disk: saved in one rename, resumed bit-equal."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from torch.optim import Optimizer

from lpmoe_bench.config.settings import RunConfig
from lpmoe_bench.environment import collect_environment
from lpmoe_bench.errors import DataError, UsageError
from lpmoe_bench.files import check_regular, write_atomically
from lpmoe_bench.model.segmenter import Segmenter, under
from lpmoe_bench.records.provenance import code_facts
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
    codes: list[str] = field(default_factory=list)  # digests of method, decoder and loss, likewise
    compiles: list[str] = field(default_factory=list)  # runtime.compile, likewise, or off
    prolonged: str = ""  # the run of fewer steps whose state this one began with, and its step
    loss_sum: float = 0.0  # since the last row of the curve
    loss_count: int = 0
    curve: list[dict[str, float | int | None]] = field(default_factory=list)


def load_training_state(
    folder: Path,
    run_id: str,
    segmenter: Segmenter,
    optimizer: Optimizer,
    start: tuple[Path, str] | None = None,
) -> tuple[Progress, dict[str, Tensor]]:
    """Load what `Saver.save` wrote; a fresh Progress and no best state where there is none.

    start: a state to begin with and the run that it is of, where this one has none of its own.

    Raises DataError when the file is damaged or belongs to another run.
    """
    path, owner = folder / STATE_FILE, run_id
    if not path.exists():
        if start is None:
            return Progress(), {}
        path, owner = start
    progress, tensors = _read_state(path, owner)
    if owner != run_id:
        progress.prolonged = f"{owner} after step {progress.step}"
    segmenter.load_state(under("model/", tensors))
    _load_moments(optimizer, under("optimizer/", tensors))
    return progress, under("best/", tensors)


def _read_state(path: Path, run_id: str) -> tuple[Progress, dict[str, Tensor]]:
    """Read a saved state and hold it against its checksum; raises DataError."""
    try:
        check_regular(path)
        with safe_open(str(path), framework="pt") as file:
            about = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        # A bit that turned over on the disk would train on as another number. States of before
        # version 0.2 have no checksum.
        expected = about.get("sha256")
        if expected not in (None, _state_digest(about["progress"], tensors)):
            raise ValueError("its checksum is that of other content")
        progress = Progress(**json.loads(about["progress"]))
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path} is damaged ({error}); delete it to start over") from None
    if about.get("run") != run_id:
        raise DataError(f"{path} belongs to run {about.get('run')}; delete it to start over")
    return progress, tensors


def _state_digest(progress: str, tensors: Mapping[str, Tensor]) -> str:
    """Return 64 hex digits over how far a run has come and its tensors by name."""
    digest = hashlib.sha256(progress.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def saved_steps(path: Path, run_id: str) -> int | None:
    """Return how many steps of a run a file has the state of; None where it is no such state."""
    try:
        check_regular(path)
        with safe_open(str(path), framework="pt") as file:
            about = file.metadata() or {}
        return int(json.loads(about["progress"])["step"]) if about["run"] == run_id else None
    except (SafetensorError, OSError, KeyError, TypeError, ValueError):
        return None


def _load_moments(optimizer: Optimizer, moments: dict[str, Tensor]) -> None:
    # A fresh optimiser has no moments yet: their names are taken from the file.
    state = optimizer.state_dict()
    state["state"] = {}
    for key, tensor in moments.items():
        index, _, name = key.partition("/")
        state["state"].setdefault(int(index), {})[name] = tensor
    optimizer.load_state_dict(state)


def note_process(progress: Progress, processes: int, config: RunConfig) -> None:
    """Keep which code and how many processes train; a resume may change the one, not the other."""
    # Each process draws its own part of a batch: another number of them is another training.
    if progress.processes not in (0, processes):
        raise UsageError(
            f"this run was started with {progress.processes} processes; resume it with "
            f"--set runtime.devices={progress.processes}, or move its folder away"
        )
    progress.processes = processes
    if (asked := config.runtime.compile or "off") not in progress.compiles:
        progress.compiles.append(asked)
    code = collect_environment("")
    commit = f"{code.git_sha}{'-dirty' if code.git_dirty else ''}"
    if code.git_sha and commit not in progress.commits:
        progress.commits.append(commit)
    facts = code_facts(config.method, config.decoder, config.train.loss)
    if facts and facts.digest[:12] not in progress.codes:
        progress.codes.append(facts.digest[:12])


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
        """Write model, best model, optimiser moments and progress, whether it is due or not."""
        started = time.monotonic()
        tensors = {f"model/{k}": v for k, v in self.segmenter.state().items()}
        tensors |= {f"best/{k}": v for k, v in best.items()}
        for index, moments in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer/{index}/{k}": torch.as_tensor(v) for k, v in moments.items()}
        tensors = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
        text = json.dumps(dataclasses.asdict(progress))
        about = {"run": self.run_id, "progress": text, "sha256": _state_digest(text, tensors)}
        # One file in one rename: model, moments and progress are always of the same step. No state
        # of a random generator is in it, for order and draws follow from seed, epoch and step.
        write_atomically(self.folder / STATE_FILE, save(tensors, metadata=about))
        self.saved = time.monotonic()
        # On a slow disk saves come less often, so that they never take more than 5 % of the time.
        self.pause = max(self.seconds, 20 * (self.saved - started))
