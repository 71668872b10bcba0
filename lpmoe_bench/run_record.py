"""The facts of a finished training and evaluation, as the record that proves them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from lpmoe_bench.config.settings import RunConfig
from lpmoe_bench.environment import Environment, collect_environment
from lpmoe_bench.feature_cache import FeatureCache
from lpmoe_bench.inference.predictor import Predictor
from lpmoe_bench.metrics.protocols import get_protocol
from lpmoe_bench.metrics.scorer import ScoreResult
from lpmoe_bench.model.costs import (
    Flops,
    count_flops,
    count_parameters,
    device_name,
    peak_memory_bytes,
)
from lpmoe_bench.model.segmenter import Segmenter, blueprint
from lpmoe_bench.plan import Plan
from lpmoe_bench.records.model import (
    BackboneFacts,
    Costs,
    DataFacts,
    DecoderFacts,
    MethodFacts,
    Parameters,
    ProtocolFacts,
    Record,
    SplitFacts,
    Training,
)
from lpmoe_bench.records.store import write_record
from lpmoe_bench.train_state import Progress


@dataclass(frozen=True)
class RunFacts:
    """What a run has produced: the trained model, how it went, its scores, its saved state.

    cache: the features that it trained on, None where it computed all in every epoch.
    """

    plan: Plan
    segmenter: Segmenter
    progress: Progress
    predictor: Predictor
    results: list[ScoreResult]
    opened: int
    state: bytes
    cache: FeatureCache | None = None


def write_run(facts: RunFacts) -> Record:
    """Write the record of a run into its folder and return it."""
    record = make_record(facts)
    rows = [row for result in facts.results for row in result.rows]
    write_record(facts.plan.folder, record, rows, facts.progress.curve)
    return record


def make_record(facts: RunFacts) -> Record:
    """Put the facts of a run into the fields of run.json."""
    plan, config = facts.plan, facts.plan.config
    protocol = get_protocol(config.protocol)
    labels = [split.label for split in plan.tests]
    return Record(
        kind="run",
        id=plan.id,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        label=config.label,
        config=config.model_dump() | _weights_names(config),
        fingerprint=plan.fingerprint,
        seed=config.seed,
        method=_method(plan),
        decoder=_decoder(plan),
        backbone=BackboneFacts(
            name=config.backbone,
            weights_sha256=plan.weights.sha256,
            weights_source=plan.weights.source,
            licence=plan.weights.licence,
            note=plan.weights.note,
        ),
        task=config.task,
        protocol=ProtocolFacts(name=protocol.name, version=protocol.version, hash=protocol.hash),
        scores={k: dict(r.scores) for k, r in zip(labels, facts.results, strict=True)},
        counts={k: r.counts for k, r in zip(labels, facts.results, strict=True)},
        parameters=Parameters.model_validate(count_parameters(facts.segmenter)),
        costs=_costs(facts),
        training=_training(facts),
        environment=_environment(facts),
        data=DataFacts(
            train=SplitFacts(**plan.train.facts),
            validation=SplitFacts(**plan.validation.facts),
            tests=[SplitFacts(**split.facts) for split in plan.tests],
        ),
        adapter_sha256=hashlib.sha256(facts.state).hexdigest(),
        test_opened=facts.opened,
        notes=[*plan.notes, *_resumed(facts.progress), *_cached(facts)],
    )


def _environment(facts: RunFacts) -> Environment:
    """Describe this process, with the code that training started from."""
    found = collect_environment(device_name(facts.plan.config.runtime.device))
    if not facts.progress.commits:
        return found
    sha, _, dirty = facts.progress.commits[0].partition("-")
    return found.model_copy(update={"git_sha": sha, "git_dirty": bool(dirty)})


def _resumed(progress: Progress) -> list[str]:
    """Say when a run was stopped and resumed by other code."""
    if len(progress.commits) < 2:
        return []
    return [f"trained by the code of several commits: {', '.join(progress.commits)}"]


def _cached(facts: RunFacts) -> list[str]:
    """Say what the speed of a run with cached features leaves out."""
    if facts.cache is None:
        return []
    cache, frozen = facts.cache, facts.segmenter.method.frozen_blocks
    return [
        f"features of the {frozen} frozen blocks came from a cache "
        f"({facts.plan.config.runtime.cache_features}): images/s and seconds of training are "
        f"without them, of which this process computed {cache.computed} in {cache.seconds:.0f} s"
    ]


def _weights_names(config: RunConfig) -> dict[str, str | None]:
    """Keep the names of weights files: where they lie is nobody's business, digests are kept."""
    paths = {"weights": config.weights, "decoder_weights": config.decoder_weights}
    return {field: Path(path).name if path else None for field, path in paths.items()}


def _decoder(plan: Plan) -> DecoderFacts:
    config, weights = plan.config, plan.decoder_weights
    return DecoderFacts(
        name=config.decoder,
        options=config.decoder_options,
        weights_sha256=weights.sha256,
        weights_source=weights.path.name if weights.path else "",
        note=weights.note,
    )


def _method(plan: Plan) -> MethodFacts:
    method = plan.method
    return MethodFacts(
        name=plan.config.method,
        title=method.title,
        paper=method.paper,
        fidelity=method.fidelity,
        mergeable=method.mergeable,
        identity_at_init=method.identity_at_init,
        options=plan.config.options,
    )


def _costs(facts: RunFacts) -> Costs:
    progress, predictor, flops = facts.progress, facts.predictor, _flops(facts.plan.config)
    return Costs(
        train_images_per_second=progress.images / progress.seconds,
        # With cached features it would be the speed of another model.
        inference_images_per_second=None if predictor.prefixes else predictor.images_per_second,
        train_seconds=progress.seconds,
        peak_memory_bytes=max(
            progress.peak_memory_bytes, peak_memory_bytes(predictor.fabric.device)
        ),
        state_bytes=len(facts.state),
        forward_flops=flops.forward if flops else None,
        training_flops=flops.training if flops else None,
    )


def _flops(config: RunConfig) -> Flops | None:
    """Count on shapes alone; a method that needs values for its shapes goes without a count."""
    try:
        return count_flops(blueprint(config), config.size)
    except NotImplementedError:
        return None


def _training(facts: RunFacts) -> Training:
    config, progress = facts.plan.config.train, facts.progress
    return Training(
        epochs=None if config.steps else config.epochs,
        steps=progress.step,
        batch=config.batch,
        lr=config.lr,
        best_step=progress.best_step,
        best_validation=progress.best_score,
    )
