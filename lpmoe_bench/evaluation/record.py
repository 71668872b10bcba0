"""The record of an evaluation: the run's own facts, and those of the scores on another set."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from lpmoe_bench.data.splits import Split
from lpmoe_bench.environment import collect_environment
from lpmoe_bench.evaluate import Predictor
from lpmoe_bench.metrics.protocols import get_protocol
from lpmoe_bench.metrics.scorer import ScoreResult
from lpmoe_bench.model.costs import device_name, peak_memory_bytes
from lpmoe_bench.records.model import (
    Costs,
    DataFacts,
    ProtocolFacts,
    Record,
    SplitFacts,
    evaluation_folder,
    run_folder,
)


def place_of(run: Record, split: Split, protocol: str) -> Path:
    """Return the relative folder of a run's evaluation on one set."""
    backbone = run.backbone.name if run.backbone else "none"
    folder = run_folder(run.task, run.method.name, backbone, run.fingerprint, run.seed or 0)
    return evaluation_folder(folder, [split.label], get_protocol(protocol).hash)


def evaluation_record(
    run: Record,
    split: Split,
    protocol: str,
    result: ScoreResult,
    predictor: Predictor,
    opened: int,
    notes: Sequence[str],
) -> Record:
    """Return the record of a run's scores on one set; what trained it is told by the run's own.

    Fingerprint and seed are the run's: they name the model that was scored. Speed and memory are
    those of this evaluation, FLOPs those of the model.
    """
    rules = get_protocol(protocol)
    return Record(
        kind="evaluation",
        id=place_of(run, split, protocol).as_posix(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        label=run.label,
        config=run.config | {"protocol": protocol},
        fingerprint=run.fingerprint,
        seed=run.seed,
        method=run.method,
        decoder=run.decoder,
        backbone=run.backbone,
        task=run.task,
        protocol=ProtocolFacts(name=rules.name, version=rules.version, hash=rules.hash),
        scores={split.label: dict(result.scores)},
        counts={split.label: result.counts},
        parameters=run.parameters,
        costs=Costs(
            inference_images_per_second=predictor.images_per_second,
            peak_memory_bytes=peak_memory_bytes(predictor.fabric.device),
            state_bytes=run.costs.state_bytes,
            forward_flops=run.costs.forward_flops,
        ),
        training=run.training,
        environment=collect_environment(device_name(predictor.fabric.device.type)),
        data=DataFacts(
            train=run.data.train, validation=run.data.validation, tests=[SplitFacts(**split.facts)]
        ),
        adapter_sha256=run.adapter_sha256,
        test_opened=opened,
        notes=list(notes),
    )
