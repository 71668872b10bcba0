"""What records must have in common to share a table, how a caption says it, and which are kept."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Any

from lpmoe_bench.config.settings import fields_by_role, later_fields, sides_text
from lpmoe_bench.errors import UsageError
from lpmoe_bench.records.model import Record, SplitFacts
from lpmoe_bench.records.store import FoundRecords, StoredRecord
from method_zoo.options import method_name

# What records must have in common to share a table, and how a caption says it.


DIGITS = 8  # of a digest, in sentences
# What a table may mix when asked.
ACROSS = ("decoder",)
# Recipe fields that a context holds; the method's own options stand in its row.
_IN_CONTEXT = {"task", "backbone", "decoder", "size", "protocol"}
_IN_CONTEXT |= {"train.epochs", "train.steps", "train.batch", "train.limit_train", "train.loss"}
_NOT_OWN = _IN_CONTEXT | {"method", "options", "decoder_options"}


@dataclass(frozen=True)
class Context:
    """Everything that must agree within a table; of figures that others printed, or of tables that
    are stacked, much of it is unknown or left open."""

    task: str
    test_set: str
    test_digest: str = ""
    train_set: str | None = None
    train_digest: str | None = None
    protocol: str = ""
    protocol_version: int = 0
    protocol_hash: str = ""
    backbone: str | None = None
    backbone_weights: str | None = None
    decoder: str | None = None
    decoder_options: str = "{}"
    decoder_weights: str | None = None
    size: int | tuple[int, int] | None = None
    epochs: int | None = None
    steps: int | None = None
    batch: int | None = None
    limit_train: int | None = None
    loss: str | None = None

    @property
    def order(self) -> list[str]:
        return [str(getattr(self, field.name)) for field in fields(self)]


def context_of(record: Record, test: str) -> Context:
    """Return what the record's scores on a test set depend on, besides the method."""
    config, budget = record.config, record.config.get("train") or {}
    train, facts = record.data.train, test_facts(record, test)
    backbone, decoder, size = record.backbone, record.decoder, config.get("size")
    return Context(
        task=record.task,
        test_set=test,
        test_digest=facts.digest if facts else "",
        train_set=train.label if train else None,
        train_digest=train.digest if train else None,
        protocol=record.protocol.name,
        protocol_version=record.protocol.version,
        protocol_hash=record.protocol.hash,
        backbone=backbone.name if backbone else None,
        backbone_weights=backbone.weights_sha256 if backbone else None,
        decoder=decoder.name if decoder else None,
        decoder_options=json.dumps(decoder.options, sort_keys=True) if decoder else "{}",
        decoder_weights=decoder.weights_sha256 if decoder else None,
        # JSON has no tuples; a context is a key, and a list could be none.
        size=tuple(size) if isinstance(size, list) else size,
        epochs=None if budget.get("steps") else budget.get("epochs"),
        **{key: budget.get(key) for key in ("steps", "batch", "limit_train", "loss")},
    )


def shared(context: Context, across: Sequence[str]) -> Context:
    """Return the context less what a table may mix, which is one of ACROSS."""
    # What a table mixes its rows must name, as `row_labels` does for decoders.
    if "decoder" in across:
        return replace(context, decoder=None, decoder_options="{}", decoder_weights=None)
    return context


def decoder_text(record: Record) -> str:
    """Return the decoder's name, options and note, such as `fpn (width 64)`."""
    if record.decoder is None:
        return ""
    words = [f"{k} {v}" for k, v in sorted(record.decoder.options.items())]
    words += [record.decoder.note] if record.decoder.note else []
    return record.decoder.name + (f" ({', '.join(words)})" if words else "")


def test_facts(record: Record, test: str) -> SplitFacts | None:
    """Return what the record says of a test set."""
    return next((facts for facts in record.data.tests if facts.label == test), None)


def unsealed_text(records: Sequence[Record]) -> str:
    """Say how many records carry no digests, in a sentence; empty where all do."""
    count = sum(record.seal is None for record in records)
    if not count:
        return ""
    return (
        f"{count} of {len(records)} records are of schema 1: unsealed, and without a digest of the "
        f"code that made them"
    )


SAME_TRAINING_IMAGES = (
    "every seed trains on all training images, less the part kept for validation: the spread over "
    "seeds holds nothing of another choice of images"
)  # said wherever `all_training_images` holds for all that is compared


def all_training_images(record: Record) -> bool:
    """Whether a run trained on its whole training list, less what it kept for validation."""
    train, kept = record.data.train, record.data.validation
    limit = (record.config.get("train") or {}).get("limit_train")
    return train is not None and (
        limit is None or limit >= train.images - (kept.images if kept else 0)
    )


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings by dotted name."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        # An empty mapping stays a value: else a setting would vanish from the comparison.
        if value and isinstance(value, dict):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = value
    return found


@cache
def _is_own(key: str) -> bool:
    return (
        fields_by_role().get(key, "recipe") == "recipe"
        and key not in _NOT_OWN
        and not key.startswith(("options.", "decoder_options.", "runtime."))
    )


_later_fields = cache(later_fields)


def _as_stored(value: Any) -> Any:
    # A record that was read holds lists, one that was just made what the settings hold.
    return list(value) if isinstance(value, tuple) else value


def own_settings(record: Record) -> dict[str, Any]:
    """Return the recipe settings that may differ within a table, less the method's options."""
    own = {key: value for key, value in flat(record.config).items() if _is_own(key)}
    for key, usual in _later_fields().items():  # which older records do not have
        if key in own and _as_stored(own[key]) == _as_stored(usual):
            del own[key]
    train, validation = record.data.train, record.data.validation
    if train and validation and validation.label != f"{train.label}-validation":
        own["validation set"] = validation.label  # one of its own, and not carved from train
    return own


def caption(context: Context, record: Record, groups: Mapping[str, str] | None = None) -> str:
    """Say the context in words.

    Args:
        context: of the table.
        record: one of the table's.
        groups: {test set: what of its images vary together, such as 5 sequences}, of all sets of a
            wide table; empty texts where none are known to.
    """
    groups, train = groups or {context.test_set: ""}, record.data.train
    names = [*groups]
    words = ", ".join(_set(name, test_facts(record, name), groups=groups[name]) for name in names)
    sentences = [f"Task {context.task}, test set{'s' if len(names) > 1 else ''} {words}."]
    if train:
        sentences.append(f"Trained on {_set(train.label, train, context.limit_train)}.")
    words = settings_caption(context, record)
    return " ".join([*sentences, words] if words else sentences)


def data_text(context: Context, record: Record, groups: str = "") -> str:
    """Say what one test set is, and what was trained on for it with which loss, in a line."""
    train = record.data.train
    words = _set(context.test_set, test_facts(record, context.test_set), groups=groups)
    words += f", trained on {_set(train.label, train, context.limit_train)}" if train else ""
    return words + (f", loss {context.loss}." if context.loss else ".")


def settings_caption(context: Context, record: Record) -> str:
    """Say backbone, decoder, size and budget in a sentence; empty where nothing is known."""
    facts = (
        ("backbone {}", context.backbone),
        ("decoder {}", decoder_text(record) if context.decoder else None),
        ("{} px", sides_text(context.size) if context.size else None),
        ("{} epochs" if context.epochs != 1 else "{} epoch", context.epochs),
        ("{} steps", context.steps),
        ("batch {}", context.batch),
        ("loss {}", context.loss),
    )
    words = ", ".join(text.format(value) for text, value in facts if value is not None)
    return words[:1].upper() + words[1:] + "." if words else ""


def _set(label: str, facts: SplitFacts | None, limit: int | None = None, groups: str = "") -> str:
    if facts is None:
        return label
    few = limit is not None and limit < facts.images
    words = [f"{limit} of {facts.images} images" if few else f"{facts.images} images"]
    words = [", ".join([*words, *filter(None, [groups])])]
    words += ["generated set"] if facts.generated else []
    words += [facts.note] if facts.note else []
    return f"{label} ({'; '.join(words)})"


def splits(contexts: Sequence[Context]) -> Iterator[str]:
    """Say, for each test set that needs more than one table, why."""
    by_test: dict[tuple[str, str], list[dict[str, str]]] = {}
    for context in contexts:
        facts = by_test.setdefault((context.task, context.test_set), [])
        facts.append(context_text(context))
    for (_, test), facts in by_test.items():
        values = {name: dict.fromkeys(one[name] for one in facts) for name in facts[0]}
        reasons = "; ".join(f"{name} ({', '.join(v)})" for name, v in values.items() if len(v) > 1)
        if facts[1:]:
            yield f"{test}: {len(facts)} tables, for these are not comparable: {reasons}"


def context_text(context: Context) -> dict[str, str]:
    """Return the facts of a context by name, both as sentences have them; digests shortened.

    The options of a decoder stand with its name.
    """
    facts = dict(vars(context))
    options: dict[str, Any] = json.loads(facts.pop("decoder_options"))
    if options:
        facts["decoder"] += f" ({', '.join(f'{key} {one}' for key, one in options.items())})"
    if facts["train_set"] is not None and facts["limit_train"] is None:
        facts["limit_train"] = "all"
    return {
        name.replace("_", " "): "none"
        if value is None
        else str(value)[: DIGITS if name.endswith(("digest", "hash", "weights")) else None]
        for name, value in facts.items()
    }


def plain(value: Any) -> str:
    """Write the value of a setting as people type it."""
    return f"{value:g}" if isinstance(value, float) else str(value).lower()


# Records of certain settings: what `--only train.limit_train=150` keeps.


def parse_only(texts: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """Read NAME=VALUE for each; raises UsageError for another form."""
    pairs = [text.partition("=") for text in texts]
    for name, equals, value in pairs:
        if not (name and equals):
            raise UsageError(
                f"--only got '{name}{equals}{value}'; write it as name=value, such as "
                f"train.limit_train=150"
            )
    return tuple((name, value) for name, _, value in pairs)


def keep_only(
    stored: Sequence[StoredRecord], wanted: Sequence[tuple[str, str]]
) -> list[StoredRecord]:
    """Return the records of all these settings, with maps of unknown making for their test sets.

    Raises UsageError where a setting is unknown or rules out every run.
    """
    if not wanted or not stored:
        return list(stored)
    # A record's settings, its seed among them, as `--only` writes them.
    kept = [
        (one, {key: plain(value) for key, value in flat(one.record.config).items()})
        for one in stored
        if one.record.kind != "score"
    ]
    known = {name for _, settings in kept for name in settings}
    for key, text in wanted:
        if key not in known:
            raise UsageError.unknown("setting among these records", key, known)
        there = {settings.get(key, "") for _, settings in kept}
        kept = [(one, own) for one, own in kept if own.get(key, "") == text.lower()]
        if not kept:
            raise UsageError(f"no record has {key}={text}; there is {', '.join(sorted(there)[:8])}")
    chosen = {id(one) for one, _ in kept}
    tests = {test for one, _ in kept for test in one.record.scores}
    return [
        one
        for one in stored
        if id(one) in chosen or (one.record.kind == "score" and tests & set(one.record.scores))
    ]


def narrow(
    found: FoundRecords,
    only: Sequence[tuple[str, str]] = (),
    tasks: Sequence[str] = (),
    methods: Sequence[str] = (),
    test_sets: Sequence[str] = (),
) -> FoundRecords:
    """Return the records of these settings, tasks and methods, with scores of these test sets.

    An empty list leaves all. Raises UsageError where a name is of none of the records.
    """
    if not (only or tasks or methods or test_sets):
        return found
    stored = keep_only(found.stored, only)
    wanted = [method_name(name) for name in methods]
    for kind, given, known in (
        ("task", tasks, {one.record.task for one in stored}),
        ("method", wanted, {one.record.method.name for one in stored}),
        ("test set", test_sets, {test for one in stored for test in one.record.scores}),
    ):
        for name in given:
            if name not in known:
                raise UsageError.unknown(f"{kind} among these records", name, known)
    kept = []
    for one in stored:
        record = one.record
        if (tasks and record.task not in tasks) or (wanted and record.method.name not in wanted):
            continue
        scores = {k: v for k, v in record.scores.items() if not test_sets or k in test_sets}
        if scores:
            kept.append(one._replace(record=record.model_copy(update={"scores": scores})))
    return FoundRecords(kept, found.notes)
