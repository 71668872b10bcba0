"""What a record says: the fields of run.json, schema version 2, and the digests that seal it."""

import hashlib
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pydantic
import pydantic_core
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lpmoe_bench.config.settings import SECTIONS
from lpmoe_bench.console import CONTROLS, printable
from lpmoe_bench.environment import Environment
from lpmoe_bench.errors import DataError, UsageError
from lpmoe_bench.metrics.classes import check_classes
from lpmoe_bench.metrics.extra import known_metrics
from lpmoe_bench.metrics.protocols import PROTOCOLS, ScoringRules

if TYPE_CHECKING:
    from lpmoe_bench.metrics.row_scores import RowScore

# Version 1 had no digests of what lies beside it and no digest of itself, and is called unsealed.
# It loads for ever: each later field is left out where a record knows nothing of it.
SCHEMA_VERSION = 2
UNSEALED = re.compile(r'"schema_version":\s*1\s*[,}]')  # true and 1.0 are no version
LATER = ("maps", "imported", "plugins", "adapter_digest", "code", "labels", "seal")
PLAIN_SETTINGS = ("epochs", "steps", "batch", "limit_train", "loss")  # of train
SLACK = 1e-6  # by which a score may leave its metric's limits: rounding


Precision = Literal["uint8", "uint16", "float"]
# Strict: of JSON only numbers, so that neither "0.9" nor true is read as one.
Count = Annotated[int, Field(ge=0, lt=2**63, strict=True)]
Number = Annotated[float, Field(strict=True)]
Share = Annotated[float, Field(ge=0, le=1)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class MethodFacts(_Section):
    """The method, as a table prints it without importing its code."""

    name: str
    title: str
    paper: str = ""
    fidelity: str = ""
    mergeable: bool = False
    identity_at_init: bool | None = None
    options: dict[str, Any] = {}


class DecoderFacts(_Section):
    """The decoder; `note` is what must be said wherever its name is printed."""

    name: str
    options: dict[str, Any] = {}
    weights_sha256: str | None = None  # of the checkpoint it started from; None: at random
    weights_source: str = ""
    note: str = ""


class BackboneFacts(_Section):
    """The frozen backbone; `note` is what must be said wherever its name is printed.

    facts: how images are normalised, patch, grid, resampling of the position table. read: what was
    stripped, left out and resized to read its file. Both are left out where they are not known.
    """

    name: str
    weights_sha256: str | None = None
    weights_source: str = ""
    licence: str = ""
    note: str = ""
    facts: dict[str, Any] = {}
    read: list[str] = []

    @pydantic.model_serializer(mode="wrap")
    def _without_nothing(self, serialize: pydantic.SerializerFunctionWrapHandler) -> dict[str, Any]:
        later = {"facts", "read"}
        return {k: v for k, v in serialize(self).items() if v or k not in later}


class PluginRecord(_Section):
    """A method, decoder or loss of others that a run used; digest: SHA-256 of its source."""

    kind: Literal["methods", "decoders", "losses"]
    name: str
    package: str = ""  # empty for a file that was named by --plugin
    version: str = ""
    source: str  # module:attribute, or the name of the file
    digest: str

    @property
    def origin(self) -> str:
        """Where it came from, with the beginning of its digest."""
        return f"{f'{self.package} {self.version}'.strip() or self.source} ({self.digest[:12]})"


class ProtocolFacts(_Section):
    name: str
    version: int
    hash: str


class Parameters(_Section):
    """Counts. Trainable ones of method and decoder apart; shares are fractions.

    share_of_backbone: the method's over the backbone's own; share_of_total: all trainable ones
    over everything. published: the backbone and the published model's part that the decoder stands
    for, before anything was cut or added, None for a decoder of ours; share_of_published: all
    trainable ones over that, as papers on SAM print it.
    """

    method: Count
    decoder: Count
    trainable: Count
    frozen: Count
    total: Count
    share_of_backbone: Number
    share_of_total: Number
    published: Count | None = None
    share_of_published: Number | None = None


class Costs(_Section):
    """What a run cost. FLOPs are those of one image; training: forward and backward."""

    train_images_per_second: Number | None = None
    inference_images_per_second: Number | None = None
    train_seconds: Number | None = None
    peak_memory_bytes: Count | None = None
    state_bytes: Count | None = None
    forward_flops: Count | None = None
    training_flops: Count | None = None


class Training(BaseModel):
    """How training went; facts that only some runs have may be added under their own names."""

    model_config = ConfigDict(extra="allow", frozen=True)

    epochs: Count | None = None
    steps: Count | None = None
    batch: Count | None = None
    lr: Number | None = None
    best_step: Count | None = None
    best_validation: Number | None = None


class SplitFacts(_Section):
    """A set of images; `note` is what must be said beside its name, such as a local split.

    pixels: what was declared of the values of its files, by the names of an entry; left out of a
    record where nothing was.
    """

    label: str
    digest: str
    images: Count
    note: str = ""
    generated: bool = False
    pixels: dict[str, Any] = {}

    @pydantic.model_serializer(mode="wrap")
    def _without_nothing(self, serialize: pydantic.SerializerFunctionWrapHandler) -> dict[str, Any]:
        facts = serialize(self)
        return facts if self.pixels else {k: v for k, v in facts.items() if k != "pixels"}


class DataFacts(_Section):
    """The data of a run. `train` is the whole training list, before validation is carved from it
    and before limit_train: the same for every seed, so that seeds share a table.
    """

    train: SplitFacts | None = None
    validation: SplitFacts | None = None
    tests: list[SplitFacts] = []


class ImportFacts(_Section):
    """The author's checkpoint that a run was made from, in place of a training.

    dropped: what of it is of no use here: {first part of the names: how many tensors}.
    """

    file: str
    sha256: str
    layout: str
    dropped: dict[str, int] = {}


class CodeFacts(_Section):
    """Which code of method, decoder and loss computed: see `records.provenance`.

    digest: of all of it. modules: {module: digest of its syntax tree}.
    """

    digest: str
    modules: dict[str, str]


class LabelFacts(_Section):
    """The classes of a run on label maps.

    classes: their names, in the order of their numbers. ignored: {test set: the share of its pixels
    that have no class}, as far as it is known.
    """

    classes: list[str]
    ignored: dict[str, Share] = {}

    @pydantic.field_validator("classes")
    @classmethod
    def _are_names(cls, classes: list[str]) -> list[str]:
        try:
            check_classes(classes)
        except UsageError as error:
            raise ValueError(str(error)) from None
        return classes


def label_facts(
    classes: Sequence[str], counts: Mapping[str, Mapping[str, int]]
) -> LabelFacts | None:
    """Return the classes of a run and the share of its test sets' pixels without one.

    Args:
        classes: their names; None is returned where there are none.
        counts: of each test set, as its scorer gives them; of objects there are no such pixels.
    """
    if not classes:
        return None
    pixels = {
        test: (found.get("void_pixels", 0), found["pixels"])
        for test, found in counts.items()
        if "pixels" in found
    }
    ignored = {test: void / every for test, (void, every) in pixels.items()}
    return LabelFacts(classes=list(classes), ignored=ignored)


class Seal(_Section):
    """SHA-256, 64 hex digits, of what a record is made of.

    rows: of per_image.csv. curve: of curve.csv, None where there is none. record: of run.json, as
    `record_digest` has it.
    """

    rows: str
    curve: str | None = None
    record: str


class Record(_Section):
    """One finished run, evaluation or scoring. Never edited: rerun, add, mark superseded.

    scores: {test set: {metric: value in [0, 1], None where there is none}}. counts: {test set:
    {images, scored, ...}}. test_opened: how often the test images were read for this record. maps:
    the widest precision of maps that were scored from files, each in its own. imported: the
    author's checkpoint of a run that was not trained here; it has no seed. plugins: what was not
    this project's own code; no part of the fingerprint. adapter_sha256: of the adapter's file.
    adapter_digest: of its tensors, whatever the file's header says. labels: the classes of label
    maps. seal: what `store.write_record` puts there.
    """

    schema_version: Literal[1, 2] = SCHEMA_VERSION
    kind: Literal["run", "evaluation", "score"]
    status: Literal["finished"] = "finished"
    id: str
    created: str  # UTC, ISO 8601
    label: str = ""
    config: dict[str, Any] = {}
    fingerprint: str
    seed: Count | None = None
    method: MethodFacts
    decoder: DecoderFacts | None = None
    backbone: BackboneFacts | None = None
    task: str
    protocol: ProtocolFacts
    scores: dict[str, dict[str, Number | None]]
    counts: dict[str, dict[str, Count]] = {}
    parameters: Parameters | None = None
    costs: Costs = Costs()
    training: Training | None = None
    environment: Environment
    data: DataFacts = DataFacts()
    adapter_sha256: str | None = None
    test_opened: Count = 1
    notes: list[str] = []
    superseded_by: str | None = None
    maps: Precision | None = None
    imported: ImportFacts | None = None
    plugins: list[PluginRecord] = []
    adapter_digest: str | None = None
    code: CodeFacts | None = None
    labels: LabelFacts | None = None
    seal: Seal | None = None

    @property
    def rules(self) -> ScoringRules | None:
        """The protocol it was scored by; None for one that is not shipped, or another version."""
        known = PROTOCOLS.get(self.protocol.name)
        return known if known and known.hash == self.protocol.hash else None

    def row_score(self, key: str) -> "RowScore | None":
        """Return how its rows give a metric that is no mean of them, None where they do not."""
        from lpmoe_bench.metrics.row_scores import row_score

        return row_score(key, self.rules, self.labels.classes if self.labels else ())

    @pydantic.field_validator("config")
    @classmethod
    def _of_known_forms(cls, config: dict[str, Any]) -> dict[str, Any]:
        # Tables put records together by these, whatever else a newer program may have.
        train = config.get("train")
        for section in SECTIONS:
            if not isinstance(config.get(section), dict | None):
                raise ValueError(f"{section} holds no settings by name")
        size = config.get("size")
        if isinstance(size, list | tuple) and [type(side) for side in size] == [int, int]:
            size = None  # height and width
        values = [size, *((train or {}).get(name) for name in PLAIN_SETTINGS)]
        if any(isinstance(value, dict | list) for value in values):
            raise ValueError(f"size or one of train.{', train.'.join(PLAIN_SETTINGS)} is no value")
        return config

    @pydantic.model_serializer(mode="wrap")
    def _without_what_came_later(
        self, to_dict: pydantic.SerializerFunctionWrapHandler
    ) -> dict[str, Any]:
        # A record that knows nothing of a field of later has the same bytes as before there was it.
        found = to_dict(self)
        for name in LATER:
            if not getattr(self, name):
                del found[name]
        return found


def record_digest(content: Mapping[str, Any]) -> str:
    """Return the digest of a record that is its `seal.record`.

    Args:
        content: of run.json, as JSON is read. What stands in `seal.record` does not count.

    Returns:
        SHA-256, 64 hex digits, of its canonical form: JSON with sorted keys, without spaces, in
        ASCII.
    """
    seal = content.get("seal")
    if isinstance(seal, Mapping):
        content = {**content, "seal": {k: v for k, v in seal.items() if k != "record"}}
    return hashlib.sha256(_CANONICAL.encode(content).encode("ascii")).hexdigest()


# Once for all records: of thousands, making the encoder anew would take longer than their hashes.
_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), check_circular=False)


MOST_DIGITS = 20  # of a whole number; seeds of 64 bits have as many


def parse_record_text(text: str, source: Path) -> Record:
    """Check the text of a run.json; raises as `parse_record`, or ValueError where it is no JSON.

    Control characters in texts are written out; a number that no computer holds is refused.
    """
    # What other programs than this may have written takes the longer way: NaN and infinity, which
    # are no JSON and no value here, and control characters, as they are or as JSON writes them.
    plain = "NaN" not in text and "Infinity" not in text and "\\" not in text and "\x7f" not in text
    plain = plain and (text.isascii() or not CONTROLS.search(text))
    if plain and UNSEALED.search(text[:100]):  # where this program writes it
        with suppress(ValidationError):  # whose sentence is made below
            record = Record.model_validate_json(text)
            if record.schema_version == 1 and _is_sane(record):
                return _checked(record, source)
    elif plain:
        with suppress(ValueError):
            content = pydantic_core.from_json(text)
            if _is_sane(content):
                return parse_record(content, source)

    def number(digits: str) -> int | float:
        whole = digits.lstrip("-").isdigit()
        if len(digits.lstrip("-")) > MOST_DIGITS if whole else math.isinf(float(digits)):
            cut = digits if len(digits) <= MOST_DIGITS else f"{digits[:MOST_DIGITS]}..."
            raise DataError(f"{source} is no valid record: it holds {cut}, a number too large")
        return int(digits) if whole else float(digits)

    content = json.loads(text, parse_constant=lambda _: None, parse_float=number, parse_int=number)
    return parse_record(content, source, _printable)


def _is_sane(value: Any) -> bool:
    """Whether no number in it is infinite or has more than `MOST_DIGITS` digits."""
    kind = type(value)
    if kind is float:
        return not math.isinf(value)
    if kind is int:
        return abs(value) < 10**MOST_DIGITS
    if kind is dict:
        return all(map(_is_sane, value.values()))
    if kind is list:
        return all(map(_is_sane, value))
    return not isinstance(value, BaseModel) or all(map(_is_sane, vars(value).values()))


def _printable(content: Any) -> Any:
    """Return content of JSON whose texts hold no control characters."""
    if isinstance(content, str):
        return printable(content)
    if isinstance(content, list):
        return [_printable(item) for item in content]
    if isinstance(content, dict):
        return {printable(key): _printable(item) for key, item in content.items()}
    return content


def parse_record(
    content: Any, source: Path, shown: Callable[[Any], Any] = lambda content: content
) -> Record:
    """Check the content of a run.json of any known version.

    Args:
        content: as JSON is read: what its digest is made of.
        source: the file, for sentences.
        shown: what becomes of the content once its digest is made.

    Raises:
        DataError: it is no record, a score lies outside of what its metric can be, or its digest of
            itself is another's: something was changed after it was written.
    """
    version = content.get("schema_version") if isinstance(content, dict) else None
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise DataError(f"{source} is no record: it has no schema_version")
    if version > SCHEMA_VERSION:
        raise DataError(
            f"{source} has schema version {version}, this lpmoe-bench reads up to "
            f"{SCHEMA_VERSION}; install a newer lpmoe-bench"
        )
    try:
        record = Record.model_validate(shown(content))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise DataError(f"{source} is no valid record: {place}: {first['msg'].lower()}") from None
    if version > 1 and (record.seal is None or record.seal.record != record_digest(content)):
        raise DataError(
            f"{source} was changed after it was written: it is not what its own digest says; bring "
            f"the original back, or run it again"
        )
    return _checked(record, source)


def _checked(record: Record, source: Path) -> Record:
    """Return a record whose scores can be; raises DataError."""
    if record.schema_version == 1 and (record.seal or record.code or record.adapter_digest):
        raise DataError(
            f"{source} says schema version 1, which has no digests, but holds some: it was changed"
        )
    for test, scores in record.scores.items():
        for key, value in scores.items():
            if value is not None and (fault := impossible(key, value)):
                raise DataError(f"{source} is no valid record: scores.{test}: {fault}")
    return record


def impossible(key: str, value: float) -> str:
    """Say why a metric cannot have this value; empty where it can, or where nobody knows it."""
    if key not in METRICS:  # of a newer program
        return ""
    low, high = METRICS[key].limits
    if low - SLACK <= value <= high + SLACK:
        return ""
    return f"{key} is {value:g}, but lies between {low:g} and {high:g}"


METRICS = known_metrics()


def record_folder(record: Record) -> Path:
    """Return the relative folder of a record, the same under every root."""
    if record.kind == "score":
        return score_folder(record.task, record.method.name, record.fingerprint)
    backbone = record.backbone.name if record.backbone else "none"
    run = run_folder(
        record.task, record.method.name, backbone, record.fingerprint, record.seed or 0
    )
    if record.kind == "run":
        return run
    return evaluation_folder(run, record.scores, record.protocol.hash)


def run_folder(task: str, method: str, backbone: str, fingerprint: str, seed: int) -> Path:
    """Return the relative folder of a run: task/method/backbone/fingerprint12-sSEED."""
    return Path(*_safe(task, method, backbone, f"{fingerprint[:12]}-s{seed}"))


def evaluation_folder(run: Path, sets: Iterable[str], protocol_hash: str) -> Path:
    """Return the relative folder of a run's evaluation: evaluations/RUN/sets-protocol12."""
    return Path("evaluations", run, *_safe(f"{'+'.join(sorted(sets))}-{protocol_hash[:12]}"))


def score_folder(task: str, name: str, fingerprint: str) -> Path:
    """Return the relative folder of scored maps: scored/task/name/fingerprint12."""
    return Path("scored", *_safe(task, name, fingerprint[:12]))


def _safe(*parts: str) -> list[str]:
    """Make names into folder names: nothing from a record may lead out of its root."""
    # Without points in front: `..` would lead upwards, and hidden folders are found by nobody.
    return [re.sub(r"[^\w.+-]", "-", part).lstrip(".") or "none" for part in parts]
