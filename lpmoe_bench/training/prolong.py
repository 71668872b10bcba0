"""Where a run begins: at its own saved state, at that of the same run of fewer epochs, or at 0."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from lpmoe_bench.config.settings import TrainConfig, fingerprint
from lpmoe_bench.data.loader import epoch_batches
from lpmoe_bench.records.model import run_folder
from lpmoe_bench.records.store import KEPT_STATE, STATE_FILE
from lpmoe_bench.training.loop import schedule
from lpmoe_bench.training.plan import Plan
from lpmoe_bench.training.state import saved_steps


class Start(NamedTuple):
    """step: how many are done already. file: the state to begin with, None for the first step.
    run: whose state it is. text: what there is to say of it; empty where there is nothing."""

    step: int = 0
    file: Path | None = None
    run: str = ""
    text: str = ""


def starting_point(plan: Plan) -> Start:
    """Return where a run would begin now.

    A run whose epochs were raised goes on from the run of fewer epochs where its learning rates so
    far were the same, so that its result is that of a run from the first step.
    """
    steps = _steps(plan, plan.config.train)
    own = saved_steps(plan.folder / STATE_FILE, plan.id)
    if own is not None:
        text = f"unfinished: it goes on after step {own} of {steps}"
        return Start(own, plan.folder / STATE_FILE, plan.id, text)
    reasons = []
    for epochs, folder in _shorter(plan):
        run = "/".join(folder.parts[-4:])
        shorter = plan.config.train.model_copy(update={"epochs": epochs})
        words = f"{run} is this run of {epochs} epoch{'s' if epochs > 1 else ''}"
        for file in (folder / KEPT_STATE, folder / STATE_FILE):
            done = saved_steps(file, run)
            if done is None:
                continue
            if not _same_rates(shorter, plan, done):
                break
            text = f"{words}: it is prolonged from its state after step {done} of {steps}"
            return Start(done, file, run, text)
        if not _same_rates(shorter, plan, _steps(plan, shorter)):
            rates = f"train.power={shorter.power:g} and train.warmup={shorter.warmup:g}"
            reasons.append(
                f"{words}, but cannot be prolonged: with {rates} its learning rate follows its own "
                f"length; runs of train.power=0 and train.warmup=0 can be"
            )
        else:
            reasons.append(f"{words}, but its state was not kept, so that it cannot be prolonged")
    return Start(text=reasons[0] if reasons else "")


def _shorter(plan: Plan) -> Iterator[tuple[int, Path]]:
    """Yield the runs that differ in nothing but fewer epochs, the longest first."""
    config, train = plan.config, plan.config.train
    try:
        there = set(os.listdir(plan.folder.parent))
    except OSError:
        return
    if train.steps or not there - {plan.folder.name}:
        return
    # No record is read: from its fingerprint follows
    # the name that a shorter run's folder would have.
    for epochs in range(train.epochs - 1, 0, -1):
        fewer = config.model_copy(update={"train": train.model_copy(update={"epochs": epochs})})
        hashed = fingerprint(fewer, plan.digests)
        name = run_folder(config.task, config.method, config.backbone, hashed, config.seed).name
        if name in there:
            yield epochs, plan.folder.with_name(name)


def _steps(plan: Plan, train: TrainConfig) -> int:
    devices, count = plan.config.runtime.devices, len(plan.train_pairs)
    per_epoch = len(epoch_batches(count, train.batch, plan.config.seed, 0, 0, devices))
    return train.steps or per_epoch * train.epochs


def _same_rates(shorter: TrainConfig, plan: Plan, done: int) -> bool:
    """Whether the first steps of the shorter run had the rates that they would have here."""
    train = plan.config.train
    one, other = _steps(plan, shorter), _steps(plan, train)
    # Exactly equal, step by step: rates that nearly agree would end in other last bits.
    return all(schedule(k, one, shorter) == schedule(k, other, train) for k in range(done))
