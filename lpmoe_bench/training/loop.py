"""The training loop, readable top to bottom; it never sees a test image."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from lpmoe_bench.config.settings import RunConfig, TrainConfig
from lpmoe_bench.console import stop_requested
from lpmoe_bench.data.loader import PairDataset, epoch_batches, loader
from lpmoe_bench.environment import collect_environment
from lpmoe_bench.errors import DataError, DivergedError, InterruptedRun, UsageError
from lpmoe_bench.files import check_regular, write_atomically
from lpmoe_bench.model.costs import peak_memory_bytes
from lpmoe_bench.model.segmenter import Segmenter, under
from lpmoe_bench.records.provenance import code_facts
from lpmoe_bench.records.store import STATE_FILE
from lpmoe_bench.training.divergence import divergence_cause

if TYPE_CHECKING:  # it takes seconds to import, which a plan or a refusal need not wait for
    from lightning_fabric import Fabric

# The state of a training run on disk: saved in one rename, resumed bit-equal.


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
    prolonged: str = ""  # the run of fewer steps whose state this one began with, and its step
    loss_sum: float = 0.0  # since the last row of the curve
    loss_count: int = 0
    curve: list[dict[str, float | int | None]] = field(default_factory=list)


def load_training_state(
    run: TrainingRun, optimizer: Optimizer
) -> tuple[Progress, dict[str, Tensor]]:
    """Load what `Saver.save` wrote; a fresh Progress and no best state where there is none.

    Without a state of its own a run begins with that of `run.start`, if it has one.

    Raises DataError when the file is damaged or belongs to another run.
    """
    path, run_id, segmenter = run.folder / STATE_FILE, run.id, run.segmenter
    if not path.exists():
        if run.start is None:
            return Progress(), {}
        path, run_id = run.start
    progress, tensors = _read_state(path, run_id)
    if run_id != run.id:
        progress.prolonged = f"{run_id} after step {progress.step}"
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
    code = collect_environment("")
    commit = f"{code.git_sha}{'-dirty' if code.git_dirty else ''}"
    if code.git_sha and commit not in progress.commits:
        progress.commits.append(commit)
    facts = code_facts(config.method, config.decoder, config.train.loss)
    if facts and facts.digest[:12] not in progress.codes:
        progress.codes.append(facts.digest[:12])


class RunningStatistics:
    """What a forward pass may change beside the gradients, such as the means of BatchNorm.

    Found once: to walk the whole state before every step would take milliseconds. Most methods have
    none, and a step then costs nothing.
    """

    def __init__(self, segmenter: Segmenter):
        trained = {f"method.{name}" for name in segmenter.method.trainable()}
        buffers = {name for name, _ in segmenter.named_buffers()}
        # Of a decoder its buffers alone: what is frozen of it may be large, and stays as it is.
        names = [
            name
            for name in segmenter.state()
            if name in buffers or (name.startswith("method.") and name not in trained)
        ]
        # By owner and name, and not the tensors themselves, which a module may replace.
        parts = [name.rpartition(".") for name in names]
        self.places = [(segmenter.get_submodule(owner), name) for owner, _, name in parts]

    def copy(self) -> list[Tensor]:
        """Copy them as they are now."""
        return [getattr(owner, name).detach().clone() for owner, name in self.places]

    @torch.no_grad()
    def restore(self, good: Sequence[Tensor]) -> None:
        """Put copies back in place."""
        for (owner, name), tensor in zip(self.places, good, strict=True):
            getattr(owner, name).copy_(tensor)


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


# Ctrl-C and `kill` as a request to stop after the current step.

CURVE_ROWS = 200


@dataclass(frozen=True)
class TrainingRun:
    """What one training needs: a built model, training images, a validation score, a folder.

    `model` takes what the dataset gives: the segmenter, or one around it that takes prefixes.
    `validate` scores the current model on validation images, None where the last state is kept;
    `sign` is -1 where a lower score is better. `start`: a state to begin with and the run that it
    is of, where this one has none of its own. `report` is called after every step with (finished
    steps, all steps, loss, images per second).
    """

    id: str
    config: RunConfig
    fabric: Fabric
    segmenter: Segmenter
    model: nn.Module
    dataset: PairDataset
    validate: Callable[[], float] | None
    sign: int
    folder: Path
    report: Callable[[int, int, float, float], None]
    start: tuple[Path, str] | None = None


def train(run: TrainingRun) -> Progress:
    """Train to the end, from the last saved state if there is one, and load the best state.

    Raises DivergedError when the loss stops being finite and InterruptedRun on SIGINT or SIGTERM;
    both leave a saved state behind.
    """
    config, fabric, segmenter = run.config.train, run.fabric, run.segmenter
    segmenter.to(fabric.device)
    optimizer = AdamW(_parameter_groups(segmenter, config))
    # Before Fabric wraps model and optimiser, under whose names the file has no tensors.
    progress, best = load_training_state(run, optimizer)
    model, optimizer = fabric.setup(run.model, optimizer)
    per_epoch = len(_epoch(run, 0))
    if per_epoch == 0:
        raise UsageError(
            f"{len(run.dataset)} training images make no batch for {fabric.world_size} processes; "
            f"use more images or fewer devices"
        )
    steps = config.steps or per_epoch * config.epochs
    note_process(progress, fabric.world_size, run.config)
    saver = Saver(run.folder, run.id, segmenter, optimizer, run.config.runtime.save_seconds)
    statistics = RunningStatistics(segmenter)
    with stop_requested() as stopped:
        while progress.step < steps and not _stale(progress, config, per_epoch):
            # After a resume this may lie within an epoch: its first `done` batches are left out.
            epoch, done = divmod(progress.step, per_epoch)
            segmenter.train()
            clock = time.perf_counter()
            for images, targets in _batches(run, epoch, done):
                # The forward pass of a step that diverges has moved BatchNorm already; weights not.
                good = statistics.copy()
                try:
                    loss, rate = _step(run, model, optimizer, images, targets, progress.step, steps)
                except DivergedError as error:
                    cause = _cause(run, model, images, targets, progress.step, per_epoch)
                    statistics.restore(good)
                    saver.save(best, progress)
                    raise DivergedError(
                        f"training diverged at step {progress.step + 1} of {steps}: {error}"
                        f"{cause and f'; {cause}'}; the last good state is kept in {run.folder}; "
                        f"lower the rate with --set train.lr"
                    ) from None
                progress.step += 1
                progress.images += len(images) * fabric.world_size
                progress.seconds += time.perf_counter() - clock
                _log(run, progress, steps, loss, rate)
                # Step, then best state, then save, then stop: what is saved is always a whole step.
                last = progress.step % per_epoch == 0 or progress.step == steps
                if last:
                    best = _select_best(run, progress, best)
                if fabric.is_global_zero and (last or saver.due() or stopped()):
                    saver.save(best, progress)
                if stopped():
                    raise InterruptedRun(
                        f"interrupted after step {progress.step} of {steps}; "
                        f"the same command resumes there"
                    )
                if progress.step == steps:  # which may be within an epoch
                    break
                clock = time.perf_counter()
    segmenter.load_state(best)
    return progress


def _stale(progress: Progress, config: TrainConfig, per_epoch: int) -> bool:
    """Tell, between epochs, whether the best score is older than patience allows."""
    if config.patience is None or progress.best_score is None or progress.step % per_epoch:
        return False
    return progress.step - progress.best_step >= config.patience * per_epoch


def _step(
    run: TrainingRun,
    model: nn.Module,
    optimizer: Optimizer,
    images: Tensor,
    targets: Any,
    step: int,
    steps: int,
) -> tuple[float, float]:
    """Do one optimiser step, in micro-batches where asked for; return its loss and rate."""
    config, fabric = run.config.train, run.fabric
    # Randomness inside a method is keyed by the step, so a resumed run draws the same numbers.
    torch.manual_seed(_key(run.config.seed, step, fabric.global_rank))
    share = schedule(step, steps, config)
    for group in optimizer.param_groups:
        group["lr"] = share * group["peak"]
    size = run.config.runtime.micro_batch or len(images)
    starts = range(0, len(images), size)
    total = torch.zeros((), device=images.device)
    # A chunk weighs as its share of the batch: the gradients add up to those of the whole batch.
    for start in starts:
        image, target = images[start : start + size], targets[start : start + size]
        # Processes exchange their gradients once a step, with the last chunk.
        with fabric.no_backward_sync(model, enabled=start != starts[-1]):  # type: ignore[arg-type]
            loss = model(image, target) * (len(image) / len(images))
            fabric.backward(loss)
        total += loss.detach()
    # Without a limit it measures the norm and leaves the gradients as they are.
    norm = fabric.clip_gradients(
        model,
        optimizer,
        max_norm=math.inf if config.clip is None else config.clip,
        error_if_nonfinite=False,  # type: ignore[arg-type]
    )
    # The mean over processes is the same number in all of them, so all stop at the same step.
    value = torch.as_tensor(fabric.all_reduce(total, reduce_op="mean")).item()
    length = torch.as_tensor(norm).item()
    if not math.isfinite(value) or not math.isfinite(length):
        raise DivergedError(f"loss {value:g}, norm of the gradient {length:g}")
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return value, share * config.lr


def _cause(
    run: TrainingRun, model: nn.Module, images: Tensor, targets: Any, step: int, per_epoch: int
) -> str:
    """Say why a step gave no number, by computing it again with the draws that it had."""
    epoch, done = divmod(step, per_epoch)
    names = [run.dataset.pairs[index].name for _, index in _epoch(run, epoch)[done]]
    torch.manual_seed(_key(run.config.seed, step, run.fabric.global_rank))
    size = run.config.runtime.micro_batch or len(images)
    alone = run.fabric.world_size == 1
    return divergence_cause(model, images, targets, names, size, backward=alone)


def _log(run: TrainingRun, progress: Progress, steps: int, loss: float, rate: float) -> None:
    """Report a step and add a row of averages to the curve now and then."""
    progress.peak_memory_bytes = max(
        progress.peak_memory_bytes, peak_memory_bytes(run.fabric.device)
    )
    progress.loss_sum += loss
    progress.loss_count += 1
    speed = progress.images / progress.seconds
    if progress.step % max(1, steps // CURVE_ROWS) == 0 or progress.step == steps:
        progress.curve.append(
            {
                "step": progress.step,
                "loss": progress.loss_sum / progress.loss_count,
                "learning_rate": rate,
                "validation": None,
                "images_per_second": speed,
            }
        )
        progress.loss_sum, progress.loss_count = 0.0, 0
    run.report(progress.step, steps, loss, speed)


def _select_best(
    run: TrainingRun, progress: Progress, best: dict[str, Tensor]
) -> dict[str, Tensor]:
    """Score the model on validation and return the best state so far, or else the present one."""
    validate = run.validate
    if validate is None:
        progress.best_step = progress.step
        return {k: v.detach().to("cpu", copy=True) for k, v in run.segmenter.state().items()}
    run.segmenter.eval()
    # One process scores; the others have to know, or they would keep other best states.
    score = run.fabric.broadcast(validate() if run.fabric.is_global_zero else 0.0)
    run.segmenter.train()
    row = {"step": progress.step, "loss": None, "learning_rate": None, "images_per_second": None}
    progress.curve.append(row | {"validation": score})
    # Of equal scores the earlier state is kept, so that a longer run does not move a tie.
    if progress.best_score is not None and run.sign * score <= run.sign * progress.best_score:
        return best
    progress.best_step, progress.best_score = progress.step, score
    # copy=True: on a CPU these would else be the very tensors that training goes on to change.
    return {k: v.detach().to("cpu", copy=True) for k, v in run.segmenter.state().items()}


def schedule(step: int, steps: int, config: TrainConfig) -> float:
    """Return the share of the peak rates at a step: linear warm-up, then decay to zero."""
    warm = max(1, round(config.warmup * steps))
    if step < warm:
        # The first step has a rate above 0; the last one of the warm-up has the peak.
        return (step + 1) / warm
    return (1 - (step - warm) / max(1, steps - warm)) ** config.power


def _parameter_groups(segmenter: Segmenter, config: TrainConfig) -> list[dict]:
    """Group what trains: method and decoder have their own rates, tensors of one axis no decay."""
    groups = []
    for part, peak in ((segmenter.method, config.lr), (segmenter.decoder, config.decoder_lr)):
        trained = [p for p in part.parameters() if p.requires_grad]
        matrices = [p for p in trained if p.ndim > 1]
        vectors = [p for p in trained if p.ndim <= 1]
        for parameters, decay in ((matrices, config.weight_decay), (vectors, 0.0)):
            if parameters:
                groups.append({"params": parameters, "weight_decay": decay, "peak": peak})
    return groups


def _epoch(run: TrainingRun, epoch: int) -> list[list[tuple[int, int]]]:
    config, rank, world = run.config, run.fabric.global_rank, run.fabric.world_size
    return epoch_batches(len(run.dataset), config.train.batch, config.seed, epoch, rank, world)


def _batches(run: TrainingRun, epoch: int, done: int) -> Iterator[tuple[Tensor, Any]]:
    """Yield the batches of an epoch after the first `done`, on this device."""
    device, world = run.fabric.device.type, run.fabric.world_size
    batches, workers = _epoch(run, epoch)[done:], run.config.runtime.workers
    for images, targets in loader(run.dataset, batches, workers, device, world):
        yield run.fabric.to_device(images), run.fabric.to_device(targets)


def _key(*parts: int) -> int:
    """Mix integers into one seed."""
    key = 0
    for part in parts:
        # + 1, so that a part of 0 counts too: (1, 0) and (1,) are different seeds.
        key = (key * 1_000_003 + part + 1) % (2**63)
    return key
