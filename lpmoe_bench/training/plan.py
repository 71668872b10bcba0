"""A run resolved to its last fact before anything trains: config, data, weights, fingerprint."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch

from lpmoe_bench.config.kinds import get_kind
from lpmoe_bench.config.recipes import recipe_notes
from lpmoe_bench.config.settings import RunConfig, RuntimeConfig, fingerprint
from lpmoe_bench.console import Terminal
from lpmoe_bench.data.loader import Keep, PairDataset, Prefixes, carve_validation, subset
from lpmoe_bench.data.pairs import Pair
from lpmoe_bench.data.registry import Registry, Task, load_registry
from lpmoe_bench.data.splits import (
    MANIFESTS,
    Split,
    Stamps,
    check_pairs,
    checked,
    class_totals,
    classes_of,
    make_split,
    things_of,
)
from lpmoe_bench.data.tasks import OWN, TaskData, resolve
from lpmoe_bench.errors import DataError, ResourceError, UsageError
from lpmoe_bench.metrics.facts import is_of_class
from lpmoe_bench.metrics.protocols import get_protocol
from lpmoe_bench.model.decoders.decoder import NORMALISES, DecoderWeights, resolve_decoder_weights
from lpmoe_bench.model.decoders.names import get_decoder
from lpmoe_bench.model.weights.resolve import Weights, resolve_weights
from lpmoe_bench.records.model import run_folder
from lpmoe_bench.training.request import RunRequest, check_settings, layers_of, merged_config
from method_zoo.method import Method
from method_zoo.options import get_method, signature_options, vars_of
from method_zoo.source import SourceFacts


def complete_config(config: RunConfig, method: type[Method]) -> RunConfig:
    """Check names, fill in the defaults of method and decoder, and settle `auto`."""
    decoder, options = get_decoder(config.decoder), signature_options(method)
    of_decoder = SourceFacts(signature_options(decoder), vars_of(decoder))
    config = check_settings(config, vars_of(method), options, of_decoder)
    precision, device = config.train.precision, _device(config.runtime)
    _check_batch(config, method, device)
    if precision == "auto":
        bf16 = device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        precision = "bf16-mixed" if bf16 else "32-true"
    if precision == "tf32" and device != "cuda":
        raise UsageError(
            f"train.precision is tf32, which is of NVIDIA GPUs, and this run is on {device}; "
            f"choose 32-true or bf16-mixed"
        )
    _check_compile(config, method, device)
    return config.model_copy(
        update={
            "train": config.train.model_copy(update={"precision": precision}),
            "runtime": config.runtime.model_copy(update={"device": device}),
        }
    )


def _check_compile(config: RunConfig, method: type[Method], device: str) -> None:
    runtime = config.runtime
    if runtime.compile is not None and method.find_unused_parameters:
        # Which parts a step uses is not known to the compiler, so all run, and AdamW moves those
        # that are idle too: other weights, by more than rounding.
        raise UsageError(
            f"runtime.compile trains all parts of {config.method} in every step, of which it uses "
            f"some alone: its weights would be others; leave it out"
        )
    if runtime.compile != "graphs":
        return
    if device != "cuda":
        raise UsageError(
            f"runtime.compile is graphs, which is of NVIDIA GPUs, and this run is on {device}; "
            f"choose default, or leave it out"
        )
    if runtime.micro_batch is not None:
        # Each replay writes where the last one left its gradients, which would be a sum by then.
        raise UsageError(
            "runtime.compile is graphs, which cannot add up the gradients of runtime.micro_batch; "
            "leave one of them out"
        )


def _device(runtime: RuntimeConfig) -> str:
    """Return the device kind; raises ResourceError when there is none, or too few."""
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if runtime.device == "cuda" and not found:
        raise ResourceError("runtime.device is cuda, but no GPU is found here; use cpu or auto")
    device = "cpu" if runtime.device == "cpu" or not found else "cuda"
    if device == "cuda" and runtime.devices > found:
        raise ResourceError(f"runtime.devices is {runtime.devices}, but {found} GPUs are found")
    return device


def bound_to_batch(config: RunConfig, method: type[Method]) -> dict[str, str]:
    """Return why a batch must stay whole, by the title of the method or decoder that wants it."""
    decoder = get_decoder(config.decoder)
    reasons = {
        method.title: NORMALISES if method.batch_statistics else "",
        decoder.title: decoder.depends_on_batch(config.train.loss, config.decoder_options),
    }
    return {title: reason for title, reason in reasons.items() if reason}


def _check_batch(config: RunConfig, method: type[Method], device: str) -> None:
    """Refuse what would change what a batch gives behind the fingerprint's back."""
    for title, reason in bound_to_batch(config, method).items():
        if reason == NORMALISES and config.train.batch < 2:
            raise UsageError(f"{title} {reason}; train.batch must be 2 or more")
        if config.runtime.micro_batch or (config.runtime.devices > 1 and device == "cpu"):
            raise UsageError(
                f"{title} {reason}, which micro-batches and several CPU processes divide; "
                f"use --set runtime.checkpointing=true to save memory"
            )


class Divided(NamedTuple):
    """The training list of a run: what is trained on and validated on.

    rest: how many pairs there were to train on, of which `pairs` are taken.
    """

    pairs: tuple[Pair, ...]
    rest: int
    validation: Split | None


@dataclass(frozen=True)
class Sources:
    """Weights and data of a run, resolved; plans that share them need them resolved once.

    divided: by what a division depends on, the last few.
    """

    weights: Weights
    decoder_weights: DecoderWeights
    data: TaskData
    divided: dict[tuple, Divided] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """An immutable run: everything the fingerprint hashes is resolved and verified.

    `train` is the whole training list; `train_pairs` are those of it that are trained on, less
    the validation images and those beyond `limit_train`, which depend on the seed. validation: a
    split of its own where the set has one, else carved from train; None where nothing is selected.
    digests: what the fingerprint hashes beside settings.
    """

    config: RunConfig
    method: type[Method]
    weights: Weights
    decoder_weights: DecoderWeights
    train: Split
    train_pairs: tuple[Pair, ...]
    validation: Split | None
    tests: tuple[Split, ...]
    notes: tuple[str, ...]
    fingerprint: str
    folder: Path
    cache: Path
    digests: dict[str, Any]

    @property
    def id(self) -> str:
        return "/".join(self.folder.parts[-4:])

    def training_set(
        self, prefixes: Prefixes | None = None, keep: Keep | None = None
    ) -> PairDataset:
        """Return the items of training, with prefixes in the place of images where given.

        keep: see `PairDataset`.
        """
        config, train = self.config, self.config.train
        return PairDataset(
            self.train_pairs,
            config.sides,
            config.seed,
            train.flip,
            train.scale,
            train.photometric,
            prefixes,
            config.preprocessing,
            train.decode == "reduced",
            config.fit,
            get_kind(config.kind).reader,
            keep,
            as_bytes=True,
        )


def make_plan(
    request: RunRequest, terminal: Terminal, known: dict[tuple, Sources] | None = None
) -> Plan:
    """Resolve a request; raises UsageError, ZooError or DataError in one sentence each.

    `known` keeps what was resolved, by what it depends on, for further plans of the same data
    root: they are then of the very same weights and data, and quick.
    """
    if "results" in request.runs.resolve().parts[-2:]:
        raise UsageError(f"--runs {request.runs} holds published records; run into another folder")
    registry = load_registry(request.datasets)
    asked = layers_of(request, registry)
    method = get_method(asked.method)
    config = complete_config(merged_config(asked, vars_of(method)), method)
    known, task = {} if known is None else known, asked.task
    key = (task.name, config.backbone, config.weights, config.facts)
    key = (*key, config.decoder, config.decoder_weights)
    if key not in known:
        found = _prepared.get((*key, *_places(request)))
        if found is not None and found.holds(registry):
            known[key] = found.sources
        else:
            known[key] = _sources(config, task, registry, request, terminal)
    sources = known[key]
    weights, decoder_weights, data = sources.weights, sources.decoder_weights, sources.data
    # What a file tells of its weights is as if it had been asked for, and what the name implies as
    # if it had not: so equal runs have equal fingerprints.
    classes, things = _classes(config, data), things_of(data.train)
    facts = {"facts": weights.differing, "classes": classes, "things": things}
    config = config.model_copy(update=facts)
    divided = _divided(sources, config, request.cache / MANIFESTS)
    if divided.validation is not None:
        _check_validation(config, divided.validation, request.cache / MANIFESTS)
    limit = config.train.limit_train
    few = limit is not None and limit > divided.rest
    above = [f"train.limit_train is {limit}, but there are {divided.rest} images: all are taken"]
    digests = _digests(config, sources)
    # The seed is no part of it: seeds of one setting share a fingerprint and lie side by side.
    hashed = _fingerprint(config, digests, request.expect)
    place = run_folder(config.task, config.method, config.backbone, hashed, config.seed)
    return Plan(
        config=config,
        method=method,
        weights=weights,
        decoder_weights=decoder_weights,
        train=data.train,
        train_pairs=divided.pairs,
        validation=divided.validation,
        tests=tuple(data.tests),
        notes=(
            *recipe_notes(asked.recipe),
            *data.notes,
            *(above if few else ()),
            *request.extra_notes,
        ),
        fingerprint=hashed,
        folder=request.runs / place,
        cache=request.cache,
        digests=digests,
    )


@dataclass(frozen=True)
class _Prepared:
    """Sources that were resolved before, with the stamps that their files had then."""

    sources: Sources
    registry: Registry
    pairs: tuple[Stamps, ...]
    weights: tuple[Any, ...]

    @classmethod
    def of(cls, sources: Sources, registry: Registry) -> Self:
        """Keep sources as they are now."""
        data = sources.data
        splits = [data.train, *([data.validation] if data.validation else []), *data.tests]
        stamps = tuple(Stamps(split.pairs) for split in splits)
        return cls(sources, registry, stamps, _weight_dates(sources))

    def holds(self, registry: Registry) -> bool:
        """Whether files and what is declared of them are as they were; reads no file."""
        same = registry == self.registry and _weight_dates(self.sources) == self.weights
        return same and all(stamps.hold() for stamps in self.pairs)


_prepared: dict[tuple, _Prepared] = {}  # by the key of make_plan and the places of the request


def prepare_run(request: RunRequest, terminal: Terminal) -> Plan:
    """Plan a run and keep its weights and data, for plans of this process and of those forked.

    They are resolved again where one of their files has another size or date by then. Raises the
    errors of `make_plan`.
    """
    known: dict[tuple, Sources] = {}
    plan = make_plan(request, terminal, known)
    registry = load_registry(request.datasets)
    for key, sources in known.items():
        if (place := (*key, *_places(request))) not in _prepared:
            _prepared[place] = _Prepared.of(sources, registry)
    return plan


def _places(request: RunRequest) -> tuple[Any, ...]:
    """Return what sources depend on beside settings."""
    named = request.datasets
    datasets = tuple(map(str, [named] if isinstance(named, Path) else named or ()))
    root = str(request.data_root) if request.data_root else None
    return (root, request.folders, request.embedded, datasets, request.cache, request.offline)


def _weight_dates(sources: Sources) -> tuple[Any, ...]:
    files = [sources.weights.path, sources.decoder_weights.path]
    return tuple(file and _dates(file) for file in files)


def _dates(file: Path) -> tuple[int, ...] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return (found.st_size, found.st_ino, found.st_mtime_ns, found.st_ctime_ns)


def _own_validation(data: TaskData, config: RunConfig) -> Split | None:
    """Return the split that the set has for validation, None where another way was asked for."""
    return None if config.train.carve or not config.train.validation else data.validation


def _classes(config: RunConfig, data: TaskData) -> tuple[str, ...]:
    """Return the names of the classes of a run's data; raises UsageError for others than asked."""
    found = classes_of(data.train)
    if config.classes not in ((), found):
        raise UsageError(
            f"classes is {', '.join(config.classes)}, but {data.train.label} has "
            f"{', '.join(found) or 'none'}; leave classes out: the data set has them"
        )
    weights = config.train.class_weights
    if weights is not None and len(weights) != len(found):
        raise UsageError(
            f"train.class_weights has {len(weights)} numbers, and {data.train.label} has "
            f"{len(found)} classes: {', '.join(found)}; give one for each, in this order"
        )
    if 0 < len(found) < get_kind(config.kind).least_classes:
        raise UsageError(
            f"{data.train.label} has one class, {found[0]}; name the background too, or use a "
            f"binary task"
        )
    return found


MOST_DIVIDED = 16  # divisions of one list that are kept


def _divided(sources: Sources, config: RunConfig, cache: Path) -> Divided:
    """Return what is trained and validated on, kept for further plans."""
    train, known = config.train, sources.divided
    key = (config.seed, train.validation, train.carve, train.limit_train, train.limit_validation)
    if key not in known:
        # Validation first: a smaller limit_train leaves it as it is.
        rest, validation = _carved(sources.data, config, cache)
        pairs = tuple(subset(rest, train.limit_train, config.seed))
        if len(known) == MOST_DIVIDED:
            del known[next(iter(known))]  # the oldest
        known[key] = Divided(pairs, len(rest), validation)
    return known[key]


def _carved(data: TaskData, config: RunConfig, cache: Path) -> tuple[Sequence[Pair], Split | None]:
    """Return the pairs that may be trained on, and the validation split."""
    train, seed = config.train, config.seed
    named = data.validation is not None and data.validation.dataset == OWN
    if named and (train.carve or not train.validation):
        raise UsageError(
            "--val-images and --val-masks name what is validated on, of which train.select=last "
            "and train.carve=true want nothing; leave one or the other out"
        )
    if not train.validation:
        return data.train.pairs, None
    own = _own_validation(data, config)
    if own is not None:
        rest, pairs, like, name = data.train.pairs, own.pairs, own, own.name
    else:
        rest, pairs = carve_validation(data.train.pairs, train.validation, seed)
        like, name = data.train, f"{data.train.name}-validation"
    return rest, make_split(like, name, subset(pairs, train.limit_validation, seed), cache)


def _check_validation(config: RunConfig, validation: Split, cache: Path) -> None:
    """Raise UsageError where validation images cannot tell the score that picks the best epoch."""
    classes, select = config.classes, config.train.select
    of_class = select.partition("/")[2] if is_of_class(select) else ""
    if of_class and of_class not in classes:
        error = UsageError.unknown("class", of_class, classes)
        raise UsageError(f"train.select is {select}: {error}")
    seen = (facts.seen for _, facts in checked(validation, [], cache) if classes)
    totals = class_totals(one for one in seen if one)
    there = {name for name, pixels in zip(classes, totals, strict=False) if pixels}
    if not totals or (of_class in there if of_class else there):
        return
    lacking = f"has class {of_class}" if of_class else "has a labelled pixel"
    raise UsageError(
        f"train.select is {select}, but none of the {len(validation.pairs)} images of "
        f"{validation.label} {lacking}, so that it could pick nothing; choose another score, a "
        f"larger train.validation, or train.select=last with train.validation=0"
    )


def _digests(config: RunConfig, sources: Sources) -> dict[str, Any]:
    """Return what a fingerprint hashes beside settings."""
    # Digests in the place of paths: the same files elsewhere are the same run.
    digests: dict[str, Any] = {
        "train": sources.data.train.digest,  # validation may be carved from it by name and seed
        "tests": {split.label: split.digest for split in sources.data.tests},
        "protocol": get_protocol(config.protocol).hash,
        "weights": sources.weights.sha256,
    }
    if (own := _own_validation(sources.data, config)) is not None:  # else carved, as it always was
        digests["validation"] = own.digest
    if sources.decoder_weights.sha256:  # else no word of it, as before there were such weights
        digests["decoder_weights"] = sources.decoder_weights.sha256
    return digests


def _fingerprint(config: RunConfig, digests: dict[str, Any], expected: str) -> str:
    """Return the fingerprint of settings, data and weights; raises DataError for another than was
    planned."""
    found = fingerprint(config, digests)
    if expected not in ("", found):
        raise DataError(
            f"data, weights or code changed since this was planned: its fingerprint is "
            f"{found[:12]} now, planned was {expected[:12]}; plan again, or bring them back"
        )
    return found


def _sources(
    config: RunConfig, task: Task, registry: Registry, request: RunRequest, terminal: Terminal
) -> Sources:
    """Find weights and data and verify them; every image is decoded once."""
    weights = resolve_weights(
        config.backbone, config.weights, request.cache, request.offline, terminal.say, config.facts
    )
    decoder_weights = resolve_decoder_weights(get_decoder(config.decoder), config.decoder_weights)
    with terminal.bar("preparing data", 1) as bar:
        places = (request.data_root, request.folders, request.embedded, request.cache)
        data = resolve(task, registry, *places, bar.update)
    own = _own_validation(data, config)
    for split in (data.train, *([own] if own else []), *data.tests):
        with terminal.bar(f"checking {split.label}", len(split.pairs)) as bar:
            for note in check_pairs(split, bar.update, request.cache / MANIFESTS, varied=True):
                terminal.note(note)
            get_kind(config.kind).reader.check(split.label, split.pairs)
    return Sources(weights, decoder_weights, data)
