"""One run from its plan to its record: build, train, evaluate, write."""

from __future__ import annotations

import json
from collections.abc import Callable

import torch
from lightning.fabric import Fabric
from lightning.fabric.strategies import DDPStrategy
from safetensors.torch import save

from lpmoe_bench.console import Terminal
from lpmoe_bench.data.loader import Prefixes
from lpmoe_bench.errors import DataError, ResourceError
from lpmoe_bench.feature_cache import FeatureCache, open_features
from lpmoe_bench.feature_cache.forecast import wanted_to_test
from lpmoe_bench.files import write_atomically
from lpmoe_bench.inference.predictor import Predictor, evaluate, validation_score
from lpmoe_bench.metrics.facts import get_metric
from lpmoe_bench.metrics.scorer import ScoreResult
from lpmoe_bench.model.costs import is_out_of_memory
from lpmoe_bench.model.segmenter import Segmenter, build_segmenter
from lpmoe_bench.model.trained import ADAPTER_FORMAT
from lpmoe_bench.plan import Plan
from lpmoe_bench.records.folder import OPENED_FILE, count_opening, only_one, set_aside
from lpmoe_bench.records.model import Record
from lpmoe_bench.records.store import ADAPTER_FILE, STATE_FILE, read_record
from lpmoe_bench.run_record import RunFacts, write_run
from lpmoe_bench.train import TrainingRun, train


def execute(plan: Plan, terminal: Terminal, force: bool = False) -> Record:
    """Train, evaluate and record a plan; a finished one is returned as it is, unless forced.

    Raises InterruptedRun, DivergedError, ResourceError and DataError in one sentence each.
    """
    with only_one(plan.folder):
        if (plan.folder / "run.json").exists():
            if not force:
                return _own_record(plan)
            set_aside(plan.folder)
        try:
            return _execute(plan, terminal)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise ResourceError(
                f"out of memory at batch {plan.config.train.batch}, size {plan.config.size}; "
                f"use --set runtime.checkpointing=true, which changes no result, or a smaller size"
            ) from None


def _execute(plan: Plan, terminal: Terminal) -> Record:
    config = plan.config
    fabric = make_fabric(plan)
    segmenter = build_segmenter(config, plan.weights, plan.decoder_weights)
    if config.runtime.devices > 1 and config.runtime.device == "cuda":
        torch.nn.SyncBatchNorm.convert_sync_batchnorm(segmenter)  # in place
    cache = open_features(plan, segmenter, fabric, terminal)
    with terminal.bar(f"training {config.method}", 1) as bar:
        progress = train(
            make_training(
                plan,
                segmenter,
                fabric,
                cache,
                lambda step, steps, loss, speed: bar.update(
                    step, steps, f"loss {loss:.4f}  {speed:.1f} images/s"
                ),
            )
        )
    if not fabric.is_global_zero:
        raise SystemExit(0)
    opened = count_opening(plan.folder)
    predictor = make_predictor(plan, segmenter, fabric)
    if config.runtime.cache_test and cache and cache.fill(wanted_to_test(plan), terminal):
        predictor = make_predictor(plan, cache.model, fabric, cache.read)
    results = [_evaluate(plan, predictor, terminal, index) for index in range(len(plan.tests))]
    state = save(segmenter.state(), metadata=adapter_header(plan))
    facts = RunFacts(plan, segmenter, progress, predictor, results, opened, state, cache)
    write_atomically(plan.folder / ADAPTER_FILE, state)
    record = write_run(facts)
    (plan.folder / STATE_FILE).unlink(missing_ok=True)
    (plan.folder / OPENED_FILE).unlink(missing_ok=True)
    return record


def make_training(
    plan: Plan,
    segmenter: Segmenter,
    fabric: Fabric,
    cache: FeatureCache | None,
    report: Callable[[int, int, float, float], None],
) -> TrainingRun:
    """Return what `train` needs, with features in the place of images where they are cached."""
    config = plan.config
    model, prefixes = (cache.model, cache.read) if cache else (segmenter, None)
    validator = make_predictor(plan, model, fabric, prefixes)
    select, pairs = config.train.select, plan.validation.pairs
    return TrainingRun(
        plan.id,
        config,
        fabric,
        segmenter,
        model,
        plan.training_set(prefixes),
        lambda: validation_score(validator, pairs, select, config.protocol),
        1 if get_metric(select).higher_is_better else -1,
        plan.folder,
        report,
    )


def make_predictor(
    plan: Plan, model: torch.nn.Module, fabric: Fabric, prefixes: Prefixes | None = None
) -> Predictor:
    """Return what predicts for a run, with no more images at once than training has."""
    predictor = Predictor(model, fabric, plan.config.size, prefixes=prefixes)
    predictor.batch = min(plan.config.runtime.micro_batch or predictor.batch, predictor.batch)
    return predictor


def _own_record(plan: Plan) -> Record:
    """Return the finished record of a plan; raises DataError when it is another run's."""
    record = read_record(plan.folder)
    if (record.fingerprint, record.seed) != (plan.fingerprint, plan.config.seed):
        raise DataError(f"{plan.folder} holds another run's record; move it away")
    return record


def _evaluate(plan: Plan, predictor: Predictor, terminal: Terminal, index: int) -> ScoreResult:
    split = plan.tests[index]
    keep = plan.folder / "predictions" / split.label.replace("/", "-")
    with terminal.bar(f"scoring {split.label}", len(split.pairs)) as bar:
        return evaluate(
            predictor,
            split,
            plan.config.protocol,
            bar.update,
            keep if plan.config.runtime.save_predictions else None,
        )


def make_fabric(plan: Plan) -> Fabric:
    """Return the Fabric of a plan: device, processes and precision."""
    runtime = plan.config.runtime
    strategy = "auto"
    if runtime.devices > 1:
        strategy = DDPStrategy(find_unused_parameters=plan.method.find_unused_parameters)
    fabric = Fabric(
        accelerator=runtime.device,
        devices=runtime.devices,
        strategy=strategy,
        precision=plan.config.train.precision,  # type: ignore[arg-type]
    )
    fabric.launch()
    return fabric


def adapter_header(plan: Plan) -> dict[str, str]:
    """Return what an adapter file says of itself: enough to build the model it fits."""
    return {
        "format": ADAPTER_FORMAT,
        "fingerprint": plan.fingerprint,
        "backbone": plan.weights.backbone,
        "backbone_sha256": plan.weights.sha256,
        "config": json.dumps(plan.config.model_dump(), sort_keys=True),
    }
