"""The training loop, readable top to bottom; it never sees a test image."""

from __future__ import annotations

import itertools
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import AdamW

from lpmoe_bench.config.settings import RunConfig, TrainConfig
from lpmoe_bench.console import stop_requested
from lpmoe_bench.data.loader import PairDataset, as_floats, epoch_batches, loader
from lpmoe_bench.errors import DivergedError, InterruptedRun, ResourceError, UsageError
from lpmoe_bench.model.costs import peak_memory_bytes
from lpmoe_bench.model.segmenter import Segmenter, keep_frozen_rounded
from lpmoe_bench.training.divergence import divergence_cause
from lpmoe_bench.training.state import Progress, Saver, load_training_state, note_process

if TYPE_CHECKING:  # it takes seconds to import, which a plan or a refusal need not wait for
    from lightning_fabric import Fabric


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
    # Several processes read at once: all must find at the same step that it gave no number.
    late = reads_late(fabric.device.type) and fabric.world_size == 1
    # Of the forms of AdamW the fused one alone can be told on the device to leave a step out.
    optimizer = AdamW(_parameter_groups(segmenter, config), fused=late or None)
    # Before Fabric wraps model and optimiser, under whose names the file has no tensors.
    progress, best = load_training_state(run.folder, run.id, segmenter, optimizer, run.start)
    keep_frozen_rounded(segmenter, config.precision)
    model, wrapped = fabric.setup(_compiled(run), optimizer)
    per_epoch = len(_epoch(run, 0))
    if per_epoch == 0:
        raise UsageError(
            f"{len(run.dataset)} training images make no batch for {fabric.world_size} processes; "
            f"use more images or fewer devices"
        )
    steps = config.steps or per_epoch * config.epochs
    note_process(progress, fabric.world_size, run.config)
    saver = Saver(run.folder, run.id, segmenter, optimizer, run.config.runtime.save_seconds)
    taken = Steps(run, model, wrapped, steps, RunningStatistics(segmenter), optimizer, late)
    # After a resume this may begin within an epoch: its first batches are left out.
    batches = _batches(run, progress.step, steps, per_epoch)
    segmenter.train()
    with stop_requested() as stopped:
        clock = time.perf_counter()
        while progress.step < steps and not _stale(progress, config, per_epoch):
            images, targets = next(batches)
            with _compiler_errors():
                taken.take(images, targets, progress.step + len(taken))
            number = progress.step + len(taken)
            last, stop = number % per_epoch == 0 or number == steps, stopped()
            save = last or stop or saver.due()
            # Nothing is scored or saved before all of its steps were seen finite.
            while len(taken) > (late and not save):
                try:
                    loss, rate, count = taken.read()
                except DivergedError as error:
                    cause = taken.undo(progress.step, per_epoch)
                    saver.save(best, progress)
                    raise DivergedError(
                        f"training diverged at step {progress.step + 1} of {steps}: {error}"
                        f"{cause and f'; {cause}'}; the last good state is kept in {run.folder}; "
                        f"lower the rate with --set train.lr"
                    ) from None
                progress.step += 1
                progress.images += count * fabric.world_size
                progress.seconds += time.perf_counter() - clock
                clock = time.perf_counter()
                _log(run, progress, steps, loss, rate)
            # Step, then best state, then save, then stop: what is saved is always a whole step.
            if last:
                best = _select_best(run, progress, best)
            if fabric.is_global_zero and save:
                saver.save(best, progress)
            # With what is saved a signal that came while it was scored ends the run as well.
            if stop or (save and stopped()):
                raise InterruptedRun(
                    f"interrupted after step {progress.step} of {steps}; "
                    f"the same command resumes there"
                )
            clock = time.perf_counter() if save else clock
    segmenter.load_state(best)
    return progress


def _compiled(run: TrainingRun) -> Any:
    """Return the model as it trains; it is scored plainly, as by whoever loads it."""
    asked = run.config.runtime.compile
    if asked is None:
        return run.model
    return torch.compile(run.model, mode="reduce-overhead" if asked == "graphs" else None)


@contextmanager
def _compiler_errors() -> Iterator[None]:
    """Raise ResourceError where a model cannot be compiled here, as without a C++ compiler."""
    try:
        yield
    except Exception as error:
        if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            raise
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ResourceError(
            f"runtime.compile: torch could not compile this model here ({first}); leave "
            f"runtime.compile out"
        ) from None


def _stale(progress: Progress, config: TrainConfig, per_epoch: int) -> bool:
    """Tell, between epochs, whether the best score is older than patience allows."""
    if config.patience is None or progress.best_score is None or progress.step % per_epoch:
        return False
    return progress.step - progress.best_step >= config.patience * per_epoch


def reads_late(device: str) -> bool:
    """Say whether what a step gives is read one step later, while the next one is computed.

    A GPU works on what it was given while the program goes on, unless a number of it is asked for.
    """
    return device == "cuda"


class Begun(NamedTuple):
    """A step that was begun. numbers: its loss and the norm of its gradient, on their way here."""

    images: Tensor
    targets: Any
    good: list[Tensor]  # running statistics before it
    rate: float
    numbers: Tensor
    arrived: torch.cuda.Event | None


class Steps:
    """Takes optimiser steps and reads what they gave, in their order.

    A step that gives no number changes no weight and no moment. late: it is noticed when the step
    is read, and till then, as the device finds by itself, those behind it change nothing either.
    """

    def __init__(
        self,
        run: TrainingRun,
        model: nn.Module,
        wrapped: Any,
        steps: int,
        statistics: RunningStatistics,
        optimizer: AdamW,
        late: bool,
    ):
        self.run, self.model, self.wrapped, self.steps = run, model, wrapped, steps
        self.statistics, self.optimizer, self.late = statistics, optimizer, late
        self.unread: deque[Begun] = deque()
        if late:
            # What the fused AdamW reads: 1 keeps it from doing anything.
            optimizer.found_inf = torch.zeros((), device=run.fabric.device)  # type: ignore[attr-defined]

    def __len__(self) -> int:
        return len(self.unread)

    def take(self, images: Tensor, targets: Any, step: int) -> None:
        """Do one step, in micro-batches where asked for."""
        config, fabric = self.run.config.train, self.run.fabric
        # The forward pass of a step that diverges moves BatchNorm already; weights not.
        good = self.statistics.copy()
        # Randomness inside a method is keyed by the step, so a resumed run draws the same numbers.
        torch.manual_seed(_key(self.run.config.seed, step, fabric.global_rank))
        share = schedule(step, self.steps, config)
        for group in self.wrapped.param_groups:
            group["lr"] = share * group["peak"]
        size = self.run.config.runtime.micro_batch or len(images)
        starts = range(0, len(images), size)
        total = torch.zeros((), device=images.device)
        # A chunk weighs as its share of the batch: the gradients add up to those of the whole.
        for start in starts:
            image, target = images[start : start + size], targets[start : start + size]
            # Processes exchange their gradients once a step, with the last chunk.
            apart = start != starts[-1]
            with fabric.no_backward_sync(self.model, enabled=apart):  # type: ignore[arg-type]
                loss = self.model(image, target) * (len(image) / len(images))
                fabric.backward(loss)
            total += loss.detach()
        # Without a limit it measures the norm and leaves the gradients as they are.
        norm = fabric.clip_gradients(
            self.model,
            self.wrapped,
            max_norm=math.inf if config.clip is None else config.clip,
            error_if_nonfinite=False,  # type: ignore[arg-type]
        )
        # The mean over processes is the same number in all of them, so all stop at the same step.
        mean = torch.as_tensor(fabric.all_reduce(total, reduce_op="mean"))
        numbers = torch.stack([mean.double(), torch.as_tensor(norm).detach().double()])
        finite, arrived = torch.isfinite(numbers).all(), None
        if self.late:
            found: Any = self.optimizer.found_inf  # type: ignore[attr-defined]
            found.copy_(torch.maximum(found, (~finite).float()))
            numbers = numbers.to("cpu", non_blocking=True)
            if images.is_cuda:
                arrived = torch.cuda.Event()
                arrived.record()
        self.unread.append(Begun(images, targets, good, share * config.lr, numbers, arrived))
        if self.late or finite:
            self.wrapped.step()
            self.wrapped.zero_grad(set_to_none=True)

    def read(self) -> tuple[float, float, int]:
        """Return loss, rate and number of images of the first step that is not read.

        Raises DivergedError.
        """
        taken = self.unread[0]
        if taken.arrived is not None:
            taken.arrived.synchronize()
        loss, norm = taken.numbers.tolist()
        if not math.isfinite(loss) or not math.isfinite(norm):
            raise DivergedError(f"loss {loss:g}, norm of the gradient {norm:g}")
        self.unread.popleft()
        return loss, taken.rate, len(taken.images)

    def undo(self, step: int, per_epoch: int) -> str:
        """Leave the model as it was before the step that could not be read, and say its cause.

        What gave no number is computed again, with the draws that it had.
        """
        run, taken = self.run, self.unread[0]
        epoch, done = divmod(step, per_epoch)
        names = [run.dataset.pairs[index].name for _, index in _epoch(run, epoch)[done]]
        torch.manual_seed(_key(run.config.seed, step, run.fabric.global_rank))
        size = run.config.runtime.micro_batch or len(taken.images)
        alone = run.fabric.world_size == 1
        cause = divergence_cause(
            self.model, taken.images, taken.targets, names, size, backward=alone
        )
        self.statistics.restore(taken.good)
        return cause


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


def _batches(
    run: TrainingRun, first: int, steps: int, per_epoch: int
) -> Iterator[tuple[Tensor, Any]]:
    """Yield the batches of the steps from `first` on, on this device.

    One loader reads for all epochs: its workers start once, and read on while a model is scored.
    """
    device, world = run.fabric.device.type, run.fabric.world_size
    epochs = range(first // per_epoch, -(-steps // per_epoch))
    keys = itertools.chain.from_iterable(_epoch(run, epoch) for epoch in epochs)
    wanted = itertools.islice(keys, first % per_epoch, steps - epochs.start * per_epoch)
    batch, workers = -(-run.config.train.batch // world), run.config.runtime.workers
    for images, targets in loader(run.dataset, wanted, workers, device, world, batch):
        yield as_floats(run.fabric.to_device(images)), run.fabric.to_device(targets)


def _key(*parts: int) -> int:
    """Mix integers into one seed."""
    key = 0
    for part in parts:
        # + 1, so that a part of 0 counts too: (1, 0) and (1,) are different seeds.
        key = (key * 1_000_003 + part + 1) % (2**63)
    return key
