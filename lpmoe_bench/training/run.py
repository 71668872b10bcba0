"""The facts of a finished training and evaluation, as the record that proves them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors.torch import save

from lpmoe_bench.config.kinds import get_kind
from lpmoe_bench.config.settings import RunConfig, sides_text
from lpmoe_bench.console import Terminal
from lpmoe_bench.data.loader import Keep, Prefixes
from lpmoe_bench.data.splits import Split
from lpmoe_bench.environment import Environment, collect_environment
from lpmoe_bench.errors import (
    BenchError,
    DataError,
    InterruptedRun,
    ResourceError,
    UsageError,
    is_out_of_memory,
)
from lpmoe_bench.files import write_atomically
from lpmoe_bench.inference.predictor import (
    Predictor,
    new_fabric,
    new_predictor,
    score_split,
    validation_score,
)
from lpmoe_bench.metrics.facts import get_metric
from lpmoe_bench.metrics.protocols import get_protocol
from lpmoe_bench.metrics.scorer import ScoreResult
from lpmoe_bench.model import costs
from lpmoe_bench.model.decoders.decoder import DecoderWeights
from lpmoe_bench.model.plugins import changed_plugins, used_plugins
from lpmoe_bench.model.segmenter import (
    ADAPTER_FORMAT,
    Segmenter,
    blueprint,
    build_segmenter,
    check_memory,
    shape_key,
)
from lpmoe_bench.model.weights.resolve import Weights, load_backbone
from lpmoe_bench.records import model as records
from lpmoe_bench.records import store
from lpmoe_bench.records.provenance import changed_code, code_facts
from lpmoe_bench.records.verify import tensors_digest
from lpmoe_bench.training import features
from lpmoe_bench.training.image_cache import keep_resized
from lpmoe_bench.training.loop import TrainingRun, train
from lpmoe_bench.training.plan import Plan, make_plan
from lpmoe_bench.training.prolong import Start, starting_point
from lpmoe_bench.training.request import RunRequest
from lpmoe_bench.training.state import Progress
from method_zoo import Backbone
from method_zoo.method import Method

if TYPE_CHECKING:  # it takes seconds to import, which a plan or a refusal need not wait for
    from lightning_fabric import Fabric

LAST_STATE = "no validation, the last state is kept"


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
    cache: features.FeatureCache | None = None


def make_record(facts: RunFacts) -> records.Record:
    """Put the facts of a run into the fields of run.json."""
    plan, config = facts.plan, facts.plan.config
    protocol = get_protocol(config.protocol)
    labels = [split.label for split in plan.tests]
    # Names of weights files alone: where they lie is nobody's business, their digests are kept.
    paths = {"weights": config.weights, "decoder_weights": config.decoder_weights}
    names = {field: Path(path).name if path else None for field, path in paths.items()}
    counts = {k: r.counts for k, r in zip(labels, facts.results, strict=True)}
    return records.Record(
        kind="run",
        id=plan.id,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        label=config.label,
        config=config.model_dump() | names,
        fingerprint=plan.fingerprint,
        seed=config.seed,
        method=method_of_record(config, plan.method),
        decoder=decoder_of_record(config, plan.decoder_weights),
        backbone=backbone_facts(config, plan.weights),
        task=config.task,
        protocol=records.ProtocolFacts(
            name=protocol.name, version=protocol.version, hash=protocol.hash
        ),
        scores={k: dict(r.scores) for k, r in zip(labels, facts.results, strict=True)},
        counts=counts,
        parameters=records.Parameters.model_validate(costs.count_parameters(facts.segmenter)),
        costs=_costs(facts),
        training=_training(facts),
        environment=_environment(facts),
        data=records.DataFacts(
            train=records.SplitFacts(**plan.train.facts),
            validation=records.SplitFacts(**plan.validation.facts) if plan.validation else None,
            tests=[records.SplitFacts(**split.facts) for split in plan.tests],
        ),
        adapter_sha256=hashlib.sha256(facts.state).hexdigest(),
        adapter_digest=tensors_digest(facts.state),
        code=code_facts(config.method, config.decoder, config.train.loss),
        test_opened=facts.opened,
        notes=_notes(facts),
        plugins=used_plugins(config),
        labels=records.label_facts(config.classes, counts),
    )


def _environment(facts: RunFacts) -> Environment:
    """Describe this process, with the code that training started from."""
    found = collect_environment(costs.device_name(facts.plan.config.runtime.device))
    if not facts.progress.commits:
        return found
    # A resume may run other code: later commits are in the notes.
    sha, _, dirty = facts.progress.commits[0].partition("-")
    return found.model_copy(update={"git_sha": sha, "git_dirty": bool(dirty)})


def _notes(facts: RunFacts) -> list[str]:
    """Return what a reader of the record should know: of the plan, a resume, cached features."""
    notes, commits = list(facts.plan.notes), facts.progress.commits
    if facts.plan.validation is None:
        notes.append(f"{LAST_STATE}: it was trained on all images of its training list")
    if len(commits) > 1:
        notes.append(f"trained by the code of several commits: {', '.join(commits)}")
    if prolonged := facts.progress.prolonged:
        notes.append(f"prolonged from the state of {prolonged}; seconds and images count both")
    if len(codes := facts.progress.codes) > 1:
        notes.append(
            f"its method, decoder or loss changed while it was trained: {', '.join(codes)}"
        )
    if cache := facts.cache:
        frozen = facts.segmenter.method.frozen_blocks
        notes.append(
            f"features of the {frozen} frozen blocks came from a cache "
            f"({facts.plan.config.runtime.cache_features}): images/s and seconds of training are "
            f"without them, of which this process computed {cache.computed} in "
            f"{cache.seconds:.0f} s"
        )
    if set(compiles := facts.progress.compiles) - {"off"}:
        notes.append(
            f"trained by torch.compile's code (runtime.compile={', then '.join(compiles)}): "
            f"seconds of training are with compiling"
        )
    if facts.plan.config.runtime.cache_images:
        notes.append(
            "resized images came from a cache (runtime.cache_images), where they were kept: "
            "images/s and seconds of training are without decoding these"
        )
    return notes


def backbone_facts(config: RunConfig, weights: Weights) -> records.BackboneFacts:
    """Return what a record says of the backbone."""
    return records.BackboneFacts(
        name=config.backbone,
        weights_sha256=weights.sha256,
        weights_source=weights.source,
        licence=weights.licence,
        note=weights.note,
        facts=asdict(weights.facts),
        read=list(weights.read),
    )


def decoder_of_record(config: RunConfig, weights: DecoderWeights) -> records.DecoderFacts:
    """Return what a record says of the decoder."""
    return records.DecoderFacts(
        name=config.decoder,
        options=config.decoder_options,
        weights_sha256=weights.sha256,
        weights_source=weights.path.name if weights.path else "",
        note=weights.note,
    )


def method_of_record(config: RunConfig, method: type[Method]) -> records.MethodFacts:
    """Return what a record says of the method."""
    return records.MethodFacts(
        name=config.method,
        title=method.title,
        paper=method.paper,
        fidelity=method.fidelity,
        mergeable=method.mergeable,
        identity_at_init=method.identity_at_init,
        options=config.options,
    )


def _costs(facts: RunFacts) -> records.Costs:
    progress, predictor, flops = facts.progress, facts.predictor, flops_of(facts.plan.config)
    return records.Costs(
        train_images_per_second=progress.images / progress.seconds,
        # With cached features it would be the speed of another model.
        inference_images_per_second=None if predictor.prefixes else predictor.images_per_second,
        train_seconds=progress.seconds,
        peak_memory_bytes=max(
            progress.peak_memory_bytes, costs.peak_memory_bytes(predictor.fabric.device)
        ),
        state_bytes=len(facts.state),
        forward_flops=flops.forward if flops else None,
        training_flops=flops.training if flops else None,
    )


_counted: dict[tuple[object, ...], costs.Flops | None] = {}


def flops_of(config: RunConfig) -> costs.Flops | None:
    """Count on shapes alone, once a process for all seeds: it takes longer than a small training.

    A method that needs values for its shapes goes without a count.
    """
    key = shape_key(config)
    if key not in _counted:
        try:
            _counted[key] = costs.count_flops(blueprint(config), config.sides)
        except NotImplementedError:
            _counted[key] = None
    return _counted[key]


# What a process builds for those that it forks, each of which takes it once.
_backbones: list[tuple[Weights, tuple[int, int], Backbone]] = []


def prepare_parts(plan: Plan) -> None:
    """Build what a run of this plan needs and no setting of training changes.

    That is its backbone, the operations that it takes, the size of its model, the digest of its
    code (that is imported here, whatever its files are later) and the kernels of its scores.
    """
    config = plan.config
    flops_of(config)
    check_memory(config)
    code_facts(config.method, config.decoder)
    # One backbone is enough: each forked process has its own copy of this memory.
    if not any(_is_for(plan, *known[:2]) for known in _backbones):
        sides = config.sides
        _backbones.append((plan.weights, sides, load_backbone(plan.weights, sides)))
    if not get_kind(config.kind).classed:
        pixels = np.arange(32 * 32, dtype=np.uint16).astype(np.uint8).reshape(32, 32)
        mask = np.zeros((32, 32), np.uint8)
        mask[8:20, 8:20] = 255
        scorer = get_kind(config.kind).outputs.scorer(get_protocol(config.protocol), ())
        scorer.add("pair", pixels, mask)


def _is_for(plan: Plan, weights: Weights, sides: tuple[int, int]) -> bool:
    return (weights, sides) == (plan.weights, plan.config.sides)


def _take_backbone(plan: Plan) -> Backbone | None:
    """Return the backbone that was built for such a plan, None where none is left."""
    # Methods change it, so that nobody else may have it.
    for place, known in enumerate(_backbones):
        if _is_for(plan, *known[:2]):
            return _backbones.pop(place)[2]
    return None


def _training(facts: RunFacts) -> records.Training:
    config, progress = facts.plan.config.train, facts.progress
    return records.Training(
        epochs=None if config.steps else config.epochs,
        steps=progress.step,
        batch=config.batch,
        lr=config.lr,
        best_step=progress.best_step,
        best_validation=progress.best_score,
    )


# One run from its plan to its record: build, train, evaluate, write.


def run_request(
    request: RunRequest, terminal: Terminal, force: bool = False, accept: bool = False
) -> store.StoredRecord:
    """Plan a run, say what it is, and train it, or return the finished one unless forced.

    accept: also a finished one that was made by other code. Raises the errors of `make_plan` and
    `execute`.
    """
    plan = make_plan(request, terminal)
    announce(plan, terminal)
    if (plan.folder / store.RECORD).exists() and not force:
        record = _finished(plan, accept)
        _name_other_code(record, plan, terminal)
    try:
        record = execute(plan, terminal, force, accept)
        if request.folders is not None and request.folders.test_images is not None:
            own = store.Places(request.folders.test_images, request.folders.test_masks)
            store.remember_places(plan.folder, plan.tests[0].label, own)
        return store.StoredRecord(plan.folder, record)
    except KeyboardInterrupt:  # outside of training, which stops after its step
        raise InterruptedRun("interrupted; the same command goes on where it was") from None


def foretell(plan: Plan, force: bool = False, accept: bool = False) -> str:
    """Say what `run_request` would do with the finished run of a plan; empty where there is none.

    force, accept: as `run_request` takes them.
    """
    if not (plan.folder / store.RECORD).exists():
        return ""
    if force:
        return f"{plan.folder} is finished; --force runs it again and keeps the old files"
    try:
        _finished(plan, accept)
    except BenchError as error:
        return f"the run would end at once with exit code {error.exit_code}: {error}"
    return f"{plan.folder} is finished; it would be shown (--force runs it again)"


def announce(plan: Plan, terminal: Terminal) -> None:
    """Say what will run, on what, and everything a reader of the numbers should know."""
    config, train, validation = plan.config, plan.config.train, plan.validation
    options = ", ".join(f"{k}={v}" for k, v in config.options.items())
    terminal.say(f"{plan.method.title} ({options or 'no options'}) on {config.backbone}")
    terminal.say(
        f"train {plan.train.label} {len(plan.train_pairs)} images, "
        + (f"validation {validation.label} {len(validation.pairs)}" if validation else LAST_STATE)
        + ", test "
        + ", ".join(f"{s.label} {len(s.pairs)}" for s in plan.tests)
    )
    length = f"{train.steps} steps" if train.steps else f"{train.epochs} epochs"
    terminal.say(
        f"{sides_text(config.size)} px, batch {train.batch}, {length}, lr {train.lr:g}, "
        f"{train.precision} on {config.runtime.device}, seed {config.seed}"
    )
    if plan.weights.note:
        terminal.note(f"backbone {config.backbone}: {plan.weights.note}")
    terminal.say(f"weights {'; '.join((plan.weights.facts.text, *plan.weights.read))}")
    for remark in plan.weights.remarks:
        terminal.note(remark)
    if plan.decoder_weights.note:
        terminal.note(f"decoder {config.decoder}: {plan.decoder_weights.note}")
    for note in plan.notes:
        terminal.note(note)
    if mode := config.runtime.cache_features:
        expected = features.forecast(plan)
        where = "in memory" if mode == "memory" else "on disk"
        if isinstance(expected, str):  # why there will be none
            terminal.note(expected)
        else:
            terminal.say(f"features of frozen blocks {where}: {expected}")
    terminal.say(f"run {plan.id}")
    if not (plan.folder / store.RECORD).exists() and (text := starting_point(plan).text):
        terminal.note(text)


def _finished(plan: Plan, accept: bool) -> records.Record:
    """Return the finished record of a plan.

    Raises DataError for one that is another run's or was changed, and UsageError for one that other
    code made, unless that is accepted.
    """
    record = store.read_record(plan.folder)
    store.check_files(plan.folder, record)
    if (record.fingerprint, record.seed) != (plan.fingerprint, plan.config.seed):
        raise DataError(f"{plan.folder} holds another run's record; move it away")
    if not accept and (changes := _other_code(record, plan)):
        raise UsageError(
            f"{plan.folder} is finished, but other code of its method, decoder or loss made it: "
            f"{', '.join(changes)}; --force runs it again and keeps the old files, --accept takes "
            f"it as it is"
        )
    return record


def _other_code(record: records.Record, plan: Plan) -> list[str]:
    """Say what of the code that made a record is another here, plug-ins too."""
    # Plug-ins are in the digest of the code; a record that has none may still name them.
    return changed_code(record) or changed_plugins(record.plugins, used_plugins(plan.config))


def _name_other_code(record: records.Record, plan: Plan, terminal: Terminal) -> None:
    terminal.note(f"{plan.folder} is finished; showing it (--force runs it again)")
    if changes := _other_code(record, plan):
        terminal.note(f"accepted, though other code made it: {', '.join(changes)}")
    here, there = collect_environment(""), record.environment
    if (here.version, here.git_sha) != (there.version, there.git_sha):
        terminal.note(
            f"it was made by version {there.version} at {there.git_sha or 'no commit'}; "
            f"this is version {here.version} at {here.git_sha or 'no commit'}"
        )


def execute(
    plan: Plan, terminal: Terminal, force: bool = False, accept: bool = False
) -> records.Record:
    """Train, evaluate and record a plan; a finished one is returned as it is, unless forced.

    accept: also a finished one that was made by other code.

    Raises InterruptedRun, DivergedError, ResourceError, DataError and, for a finished one of other
    code, UsageError in one sentence each.
    """
    # Two processes in one folder would overwrite each other's state: the second is refused.
    with store.only_one(plan.folder):
        # Looked at again now that the lock is held: another process may have just finished it.
        if (plan.folder / "run.json").exists():
            if not force:
                return _finished(plan, accept)
            store.set_aside(plan.folder)
        try:
            return _execute(plan, terminal)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            size = sides_text(plan.config.size)
            raise ResourceError(
                f"out of memory at batch {plan.config.train.batch}, size {size}; "
                f"use --set runtime.checkpointing=true, which changes no result, or a smaller size"
            ) from None


def _execute(plan: Plan, terminal: Terminal) -> records.Record:
    config = plan.config
    check_memory(config)
    fabric = make_fabric(plan)
    # Random draws are seeded inside, so a resumed run builds the very model it had.
    segmenter = build_segmenter(config, plan.weights, plan.decoder_weights, _take_backbone(plan))
    if config.runtime.devices > 1 and config.runtime.device == "cuda":
        torch.nn.SyncBatchNorm.convert_sync_batchnorm(segmenter)  # in place
    cache = features.open_features(plan, segmenter, fabric, terminal)
    keep = keep_resized(plan, terminal) if plan.config.runtime.cache_images else None
    with terminal.bar(f"training {config.method}", 1) as bar:

        def report(step: int, steps: int, loss: float, speed: float) -> None:
            bar.update(step, steps, f"loss {loss:.4f}  {speed:.1f} images/s")

        start = starting_point(plan)
        progress = train(make_training(plan, segmenter, fabric, cache, report, start, keep))
    if not fabric.is_global_zero:  # the first process alone tests and writes
        raise SystemExit(0)
    # Counted before a test image is read: a run that is killed here has opened the test set too.
    opened = store.count_opening(plan.folder)
    predictor = make_predictor(plan, segmenter, fabric)
    if config.runtime.cache_test and cache and cache.fill(features.wanted_to_test(plan), terminal):
        predictor = make_predictor(plan, cache.model, fabric, cache.read)
    results = [_evaluate(plan, predictor, terminal, split) for split in plan.tests]
    state = save(segmenter.state(), metadata=adapter_header(config, plan.weights, plan.fingerprint))
    facts = RunFacts(plan, segmenter, progress, predictor, results, opened, state, cache)
    record, rows = make_record(facts), [row for result in results for row in result.rows]
    # Adapter, then record, then the saved state goes: killed in between, the run goes on from
    # its last step and ends with the same scores. A folder with run.json is finished.
    write_atomically(plan.folder / store.ADAPTER_FILE, state)
    record = store.write_record(plan.folder, record, rows, progress.curve)
    state_file = plan.folder / store.STATE_FILE
    # A rate that does not fall is that of a longer run too: more epochs may go on from here.
    if config.train.power == 0 and state_file.exists():
        state_file.replace(plan.folder / store.KEPT_STATE)
    state_file.unlink(missing_ok=True)
    (plan.folder / store.OPENED_FILE).unlink(missing_ok=True)
    return record


def make_training(
    plan: Plan,
    segmenter: Segmenter,
    fabric: Fabric,
    cache: features.FeatureCache | None,
    report: Callable[[int, int, float, float], None],
    start: Start | None = None,
    keep: Keep | None = None,
) -> TrainingRun:
    """Return what `train` needs, with features in the place of images where they are cached."""
    config = plan.config
    model, prefixes = (cache.model, cache.read) if cache else (segmenter, None)
    validator = make_predictor(plan, model, fabric, prefixes)
    select = config.train.select
    validate = None
    if plan.validation is not None:
        pairs = plan.validation.pairs
        validate = partial(validation_score, validator, pairs, select, config.protocol)
    return TrainingRun(
        plan.id,
        config,
        fabric,
        segmenter,
        model,
        plan.training_set(prefixes, keep),
        validate,
        1 if validate is None or get_metric(select).higher_is_better else -1,
        plan.folder,
        report,
        (start.file, start.run) if start and start.file else None,
    )


def make_predictor(
    plan: Plan, model: torch.nn.Module, fabric: Fabric, prefixes: Prefixes | None = None
) -> Predictor:
    """Return what predicts for a run, with no more images at once than training has."""
    predictor = new_predictor(plan.config, model, fabric, prefixes, plan.train.rules.labels)
    predictor.batch = min(plan.config.runtime.micro_batch or predictor.batch, predictor.batch)
    return predictor


def _evaluate(plan: Plan, predictor: Predictor, terminal: Terminal, split: Split) -> ScoreResult:
    keep = plan.folder / "predictions" / split.label.replace("/", "-")
    with terminal.bar(f"scoring {split.label}", len(split.pairs)) as bar:
        folder = keep if plan.config.runtime.save_predictions else None
        return score_split(predictor, split, plan.config.protocol, bar.update, folder)


def make_fabric(plan: Plan) -> Fabric:
    """Return the Fabric of a plan: device, processes and precision."""
    from lightning_fabric.strategies import DDPStrategy

    runtime = plan.config.runtime
    strategy = "auto"
    if runtime.devices > 1:
        strategy = DDPStrategy(find_unused_parameters=plan.method.find_unused_parameters)
    precision = plan.config.train.precision
    fabric = new_fabric(runtime.device, precision, runtime.devices, strategy)
    fabric.launch()
    return fabric


def adapter_header(config: RunConfig, weights: Weights, fingerprint: str) -> dict[str, str]:
    """Return what an adapter file says of itself: enough to build the model it fits."""
    return {
        "format": ADAPTER_FORMAT,
        "fingerprint": fingerprint,
        "backbone": weights.backbone,
        "backbone_sha256": weights.sha256,
        "config": json.dumps(config.model_dump(), sort_keys=True),
    }
