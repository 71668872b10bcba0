"""A run's evaluation from its request to its records: one for each test set."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from lpmoe_bench.config.kinds import Kind, get_kind
from lpmoe_bench.config.settings import sides_text
from lpmoe_bench.console import Terminal
from lpmoe_bench.data.matching import shown
from lpmoe_bench.data.pixels import UNDECLARED, PixelRules
from lpmoe_bench.data.registry import Registry, load_registry
from lpmoe_bench.data.splits import MANIFESTS, Split, check_pairs, classes_of, image_checksums
from lpmoe_bench.data.tasks import open_split, own_rules
from lpmoe_bench.data.test_sets import TestSet, named_sets, own_set
from lpmoe_bench.environment import collect_environment, default_cache
from lpmoe_bench.errors import ResourceError, UsageError, is_out_of_memory
from lpmoe_bench.inference.predictor import Predictor, load_predictor, score_split
from lpmoe_bench.metrics.protocols import get_protocol
from lpmoe_bench.metrics.scorer import ScoreResult
from lpmoe_bench.model.costs import device_name, peak_memory_bytes
from lpmoe_bench.model.plugins import plugins_here
from lpmoe_bench.model.segmenter import code_note
from lpmoe_bench.records import model, store
from lpmoe_bench.records.provenance import changed_code, code_of_record

# The record of an evaluation: the run's own facts, and those of the scores on another set.


def place_of(run: model.Record, split: Split, protocol: str) -> Path:
    """Return the relative folder of a run's evaluation on one set."""
    folder = model.record_folder(run)
    return model.evaluation_folder(folder, [split.label], get_protocol(protocol).hash)


def evaluation_record(
    run: model.Record,
    split: Split,
    protocol: str,
    result: ScoreResult,
    predictor: Predictor,
    opened: int,
    notes: Sequence[str],
) -> model.Record:
    """Return the record of a run's scores on one set; what trained it is told by the run's own.

    Fingerprint and seed are the run's: they name the model that was scored. Speed and memory are
    those of this evaluation, FLOPs those of the model.
    """
    rules = get_protocol(protocol)
    return model.Record(
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
        protocol=model.ProtocolFacts(name=rules.name, version=rules.version, hash=rules.hash),
        scores={split.label: dict(result.scores)},
        counts={split.label: result.counts},
        parameters=run.parameters,
        costs=model.Costs(
            inference_images_per_second=predictor.images_per_second,
            peak_memory_bytes=peak_memory_bytes(predictor.fabric.device),
            state_bytes=run.costs.state_bytes,
            forward_flops=run.costs.forward_flops,
        ),
        training=run.training,
        environment=collect_environment(device_name(predictor.fabric.device.type)),
        data=model.DataFacts(
            train=run.data.train,
            validation=run.data.validation,
            tests=[model.SplitFacts(**split.facts)],
        ),
        adapter_sha256=run.adapter_sha256,
        adapter_digest=run.adapter_digest,
        code=code_of_record(run),
        test_opened=opened,
        notes=list(notes),
        imported=run.imported,
        plugins=plugins_here(run)[0],
        labels=model.label_facts(predictor.classes, {split.label: result.counts}),
    )


# Sets that a run cannot be scored on: of other classes, or those that it was trained on.


def refuse_other_classes(record: model.Record, split: Split) -> None:
    """Raise UsageError where the labels of a split are not what a run tells apart, DataError where
    they lack what it is scored by, such as masks.

    Numbers of classes are all that maps and labels have in common: with another list, or another
    order, they would be compared without a word.
    """
    kind, form = get_kind(record.config.get("kind", "binary")), split.rules.form
    if form and kind.classed and form not in kind.formats:
        raise UsageError(
            f"{split.label} has labels of format {form}, and this run is of a {kind.name} task, "
            f"which is scored on {' or '.join(kind.formats)}; name another set"
        )
    kind.reader.check(split.label, split.pairs)
    wanted, found = tuple(record.config.get("classes", ())), classes_of(split)
    if found == wanted:
        return
    if not found:
        raise UsageError(
            f"{split.label} has masks of one object, but this run tells {_classes_text(wanted)} "
            f"apart; name a set with its classes, or say --classes FILE of your own label maps"
        )
    if not wanted:
        raise UsageError(
            f"{split.label} has label maps of {len(found)} classes, but this run gives a mask of "
            f"one object; name a set of masks"
        )
    odd = [name for name in found if name not in wanted] or [n for n in wanted if n not in found]
    raise UsageError(
        f"{split.label} has {_classes_text(found)} and this run {len(wanted)}, "
        f"{f'such as {odd[0]}' if odd else 'in another order'}; name a set with the classes "
        f"{shown(wanted)}, in this order"
    )


def _classes_text(names: Sequence[str]) -> str:
    return f"{len(names)} class{'es' * (len(names) != 1)}"


# Images of a test set that a run was trained on, told by what their files hold.


def refuse_training_set(record: model.Record, split: Split) -> None:
    """Raise UsageError when a split is the very one a run was trained on or selected by."""
    # By content first: a set that was renamed or copied is still the set. Then by name, since one
    # changed file, such as a mask saved anew, gives another digest.
    for facts in (record.data.train, record.data.validation):
        if facts is not None and split.digest == facts.digest:
            raise UsageError(
                f"{split.label} is {facts.label}, which this run was trained on: its scores "
                f"would say nothing about new images; name another set"
            )
    trained = record.data.train
    if trained is not None and split.label == trained.label and split.dataset != "own":
        raise UsageError(
            f"{split.label} is the set this run was trained on, in another copy: its scores would "
            f"say nothing about new images; name another set"
        )


def training_images(
    record: model.Record, registry: Registry, root: Path | None, cache: Path
) -> dict[str, str] | None:
    """Return {checksum: name} of the images of a run's training list, or None where they are not
    found here."""
    facts = record.data.train
    if facts is None:
        return None
    sets, names = (part.split("+") for part in facts.label.split("/", 1))
    references = [facts.label]
    if len(sets) > 1 or len(names) > 1:  # several sets as one: the task says which went together
        task = registry.tasks.get(record.task)
        listed = [*task.train, *task.stand_in.train] if task else []
        parts = [(label, *label.split("/", 1)) for label in dict.fromkeys(listed)]
        references = [label for label, one, split in parts if one in sets and split in names]
    # The whole list or nothing: half of it would call a set clean that was not looked at.
    found: dict[str, str] = {}
    for reference in references:
        try:
            split = open_split(*registry.split(reference), root, cache / MANIFESTS)
        except UsageError:  # of a registry that this one does not know
            return None
        if split is None:
            return None
        found |= image_checksums(split, cache / MANIFESTS)
    return found or None


# One evaluation of a run on its test sets.


@dataclass(frozen=True)
class EvaluationRequest:
    """What a user asked for: a run, test sets by name or as own folders, and a protocol.

    runs: where records go; None: beside the run's own.
    """

    run: Path
    sets: tuple[str, ...] = ()
    test_images: Path | None = None
    test_masks: Path | None = None
    name: str = "test"
    rules: PixelRules = UNDECLARED
    protocol: str | None = None
    data_root: Path | None = None
    datasets: Sequence[Path] | None = None
    runs: Path | None = None
    cache: Path = field(default_factory=default_cache)
    offline: bool = False
    save_predictions: bool = False
    allow_overlap: bool = False
    force: bool = False


@dataclass(frozen=True)
class EvaluationJob:
    """One test set to score a run on, and where its record goes. notes: what that must say."""

    run: model.Record
    split: Split
    protocol: str
    notes: tuple[str, ...]
    place: Path


def evaluate_run(request: EvaluationRequest, terminal: Terminal) -> dict[str, store.StoredRecord]:
    """Score a trained run on test sets and return a record for each, by the set's label.

    Finished ones are returned as they are, unless forced: earlier evaluations, and the run's own
    record where it was scored on the set by the same protocol when it was trained.
    Raises UsageError for a set the run was trained on, DataError for what is missing or broken,
    ResourceError for a lack of memory or disk; each in one sentence.
    """
    predictor: Predictor | None = None
    made: dict[str, store.StoredRecord] = {}
    for job in plan_jobs(request, terminal):
        digests = {facts.label: facts.digest for facts in job.run.data.tests}
        is_own = digests.get(job.split.label) == job.split.digest
        same_rules = job.run.protocol.hash == get_protocol(job.protocol).hash
        if is_own and same_rules and not request.force:
            terminal.note(
                f"the run itself was scored on {job.split.label}; showing that (--force evaluates "
                f"again)"
            )
            made[job.split.label] = store.StoredRecord(request.run, job.run)
            _remember(job, request.run, request)
            continue
        # Two evaluations of one run at once would open the test set twice and count one.
        with store.only_one(job.place):
            record = None if request.force else _finished(job, terminal)
            if record is None:
                if predictor is None:
                    said = (request.run, request.cache, request.offline, lambda note: None)
                    predictor, _ = load_predictor(*said)  # job.notes say what there is to say
                record = _score(job, predictor, request, terminal)
        made[job.split.label] = store.StoredRecord(job.place, record)
        _remember(job, job.place, request)
    return made


def _remember(job: EvaluationJob, folder: Path, request: EvaluationRequest) -> None:
    """Keep beside a record where a user's own folders are."""
    if job.split.dataset == "own":
        places = store.Places(request.test_images, request.test_masks)
        store.remember_places(folder, job.split.label, places)


def plan_jobs(request: EvaluationRequest, terminal: Terminal) -> list[EvaluationJob]:
    """Return what is to be scored, all of it known and allowed; raises as `evaluate_run`."""
    run = store.read_record(request.run)
    if run.kind != "run":
        raise UsageError(f"{request.run} holds a record of kind {run.kind}; name a trained run")
    kind = get_kind(run.config.get("kind", "binary"))  # old records have no word of it
    protocol = _protocol_for(kind, run, request.protocol)
    root, registry = _root(request, run), load_registry(request.datasets)
    own = request.test_images is not None or request.test_masks is not None
    if not own and not request.sets:
        raise UsageError(
            "name a test set with --test-set, such as --test-set ecssd, or your own folders with "
            "--test-images and --test-masks"
        )
    tests = named_sets(request.sets, registry, request.data_root, request.cache, terminal)
    if own:
        tests.append(_own_set(request, kind))
    jobs = []
    for test, notes in _untrained(request, run, registry, tests, terminal):
        if test.protocol not in ("", protocol):
            terminal.note(
                f"{test.split.label} is scored by protocol {protocol}; its own task has "
                f"{test.protocol}: --protocol {test.protocol}"
            )
        place = root / place_of(run, test.split, protocol)
        jobs.append(EvaluationJob(run, test.split, protocol, tuple(notes), place))
    if not jobs:
        raise UsageError("no set is left that this run was not trained on; name another one")
    return jobs


def _own_set(request: EvaluationRequest, kind: Kind) -> TestSet:
    """Return a user's own folders as a test set for a run of a kind; raises as `own_set`."""
    images, masks, rules = request.test_images, request.test_masks, request.rules
    if masks is not None:
        rules = own_rules("this run", kind.name, masks, rules)
    return own_set(images, masks, request.name, request.cache, rules)


def _protocol_for(kind: Kind, run: model.Record, asked: str | None) -> str:
    """Return the name of the protocol, the run's own where none is asked for."""
    rules = get_protocol(asked or run.protocol.name)
    if rules.kind != kind.name:
        raise UsageError(
            f"protocol {rules.name} scores {rules.kind} tasks, and this run is of a {kind.name} "
            f"one; choose another, such as {kind.protocol}, or leave it out"
        )
    return rules.name


def _root(request: EvaluationRequest, run: model.Record) -> Path:
    """Return the folder that records go under."""
    root = request.runs
    if root is None:
        own, here = model.record_folder(run), request.run.resolve()
        inside = here.parts[-len(own.parts) :] == own.parts
        root = here.parents[len(own.parts) - 1] if inside else Path("runs")
    if "results" in root.resolve().parts[-2:]:
        raise UsageError(f"{root} holds published records; name another folder with --runs")
    return root


def _untrained(
    request: EvaluationRequest,
    run: model.Record,
    registry: Registry,
    tests: list[TestSet],
    terminal: Terminal,
) -> Iterator[tuple[TestSet, list[str]]]:
    """Yield the sets that the run was not trained on, each with what its record must say.

    A split that was not named itself is left out with a note; raises UsageError for a named one.
    """
    # Drawn scenes share no image with photographs, so nothing needs to be read for them.
    train = run.data.train
    trained = None
    if not all(test.split.generated for test in tests) and not (train and train.generated):
        trained = training_images(run, registry, request.data_root, request.cache)
    for test in tests:
        split = test.split
        notes = [f"{split.label}: {split.note}"] if split.note else []
        shared, overlap = [], ""
        try:
            refuse_other_classes(run, split)
            refuse_training_set(run, split)
            if trained:
                images = image_checksums(split, request.cache / MANIFESTS)
                shared = sorted(name for key, name in images.items() if key in trained)
                overlap = (
                    f"{len(shared)} of the {len(split.pairs)} images of {split.label} are in the "
                    f"run's training list: {shown(shared)}"
                )
            if shared and not request.allow_overlap:
                raise UsageError(
                    f"{overlap}; name a set without them, or say --allow-overlap, which the record "
                    f"tells"
                )
        except UsageError as error:
            if test.by_name:
                raise
            terminal.note(f"{split.label} is left out: {error}")
            continue
        if shared:
            notes.append(overlap)
        if run.imported:
            notes.append(
                f"the run was imported, and which images it was trained on is not known: whether "
                f"{split.label} holds some of them cannot be told"
            )
            if run.decoder and run.decoder.note:
                notes.append(f"decoder {run.decoder.name}: {run.decoder.note}")
        if not split.generated and trained is None and train and not train.generated:
            notes.append(
                f"{train.label}, which the run was trained on, is not found here: whether "
                f"{split.label} holds images of it was told by the whole set's checksum alone"
            )
        notes += plugins_here(run)[1] or code_note(run)
        for note in notes:
            terminal.note(note)
        yield test, notes


def _finished(job: EvaluationJob, terminal: Terminal) -> model.Record | None:
    """Return the record that is there for this very model and set.

    Raises UsageError for one of other images.
    """
    if not (job.place / store.RECORD).exists():
        return None
    record = store.read_record(job.place)
    store.check_files(job.place, record)
    if [facts.digest for facts in record.data.tests] != [job.split.digest]:
        raise UsageError(
            f"{job.place} was made on other images that are called {job.split.label} too; give "
            f"your own folders another --name, or replace it with --force"
        )
    if record.adapter_sha256 != job.run.adapter_sha256:
        terminal.note(f"{job.place} is of an earlier training of this run; it is kept beside")
        return None
    terminal.note(f"{job.place} is finished; showing it (--force evaluates again)")
    if changes := changed_code(record):
        terminal.note(f"its scores are those of other code than is here: {', '.join(changes)}")
    return record


def _score(
    job: EvaluationJob, predictor: Predictor, request: EvaluationRequest, terminal: Terminal
) -> model.Record:
    """Score one set and write its record; one that stood there keeps its files."""
    split, place = job.split, job.place
    with terminal.bar(f"checking {split.label}", len(split.pairs)) as bar:
        for note in check_pairs(split, bar.update, request.cache / MANIFESTS):
            terminal.note(note)
    if (place / store.RECORD).exists():
        store.set_aside(place)
    # Counted before the first image is read: a kill while scoring has opened the test set as well.
    opened = store.count_opening(place)
    predictor.images, predictor.seconds = 0, 0.0
    keep = place / "predictions" / split.label.replace("/", "-")
    save_to = keep if request.save_predictions else None
    try:
        with terminal.bar(f"scoring {split.label}", len(split.pairs)) as bar:
            result = score_split(predictor, split, job.protocol, bar.update, save_to)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise ResourceError(
            f"out of memory while scoring {split.label} with batches of {predictor.batch} at "
            f"{sides_text(predictor.sides)} px; free some, or compute on the CPU with "
            f"CUDA_VISIBLE_DEVICES="
        ) from None
    record = evaluation_record(job.run, split, job.protocol, result, predictor, opened, job.notes)
    # The record holds the count from here on; the file that kept it goes last.
    record = store.write_record(place, record, result.rows)
    (place / store.OPENED_FILE).unlink(missing_ok=True)
    return record
