"""What a record says: the fields of run.json, schema version 1."""

import json
import math
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import pydantic
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lpmoe_bench.console import CONTROLS, printable
from lpmoe_bench.environment import Environment
from lpmoe_bench.errors import DataError

SCHEMA_VERSION = 1
TODAYS = rf'"schema_version":\s*{SCHEMA_VERSION}\s*[,}}]'  # true and 1.0 are no version
# {version: what turns its content into that of the next version}; old records load for ever.
UPGRADES: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}


Precision = Literal["uint8", "uint16", "float"]


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

    method: int
    decoder: int
    trainable: int
    frozen: int
    total: int
    share_of_backbone: float
    share_of_total: float
    published: int | None = None
    share_of_published: float | None = None


class Costs(_Section):
    """What a run cost. FLOPs are those of one image; training: forward and backward."""

    train_images_per_second: float | None = None
    inference_images_per_second: float | None = None
    train_seconds: float | None = None
    peak_memory_bytes: int | None = None
    state_bytes: int | None = None
    forward_flops: int | None = None
    training_flops: int | None = None


class Training(BaseModel):
    """How training went; facts that only some runs have may be added under their own names."""

    model_config = ConfigDict(extra="allow", frozen=True)

    epochs: int | None = None
    steps: int | None = None
    batch: int | None = None
    lr: float | None = None
    best_step: int | None = None
    best_validation: float | None = None


class SplitFacts(_Section):
    """A set of images; `note` is what must be said beside its name, such as a local split.

    pixels: what was declared of the values of its files, by the names of an entry; left out of a
    record where nothing was.
    """

    label: str
    digest: str
    images: int
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


class Record(_Section):
    """One finished run, evaluation or scoring. Never edited: rerun, add, mark superseded.

    scores: {test set: {metric: value in [0, 1], None where there is none}}. counts: {test set:
    {images, scored, ...}}. test_opened: how often the test images were read for this record. maps:
    the widest precision of maps that were scored from files, each in its own. imported: the
    author's checkpoint of a run that was not trained here; it has no seed. plugins: what was not
    this project's own code; no part of the fingerprint.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    kind: Literal["run", "evaluation", "score"]
    status: Literal["finished"] = "finished"
    id: str
    created: str  # UTC, ISO 8601
    label: str = ""
    config: dict[str, Any] = {}
    fingerprint: str
    seed: int | None = None
    method: MethodFacts
    decoder: DecoderFacts | None = None
    backbone: BackboneFacts | None = None
    task: str
    protocol: ProtocolFacts
    scores: dict[str, dict[str, float | None]]
    counts: dict[str, dict[str, int]] = {}
    parameters: Parameters | None = None
    costs: Costs = Costs()
    training: Training | None = None
    environment: Environment
    data: DataFacts = DataFacts()
    adapter_sha256: str | None = None
    test_opened: int = Field(1, ge=0)
    notes: list[str] = []
    superseded_by: str | None = None
    maps: Precision | None = None
    imported: ImportFacts | None = None
    plugins: list[PluginRecord] = []

    @pydantic.model_serializer(mode="wrap")
    def _without_what_came_later(
        self, to_dict: pydantic.SerializerFunctionWrapHandler
    ) -> dict[str, Any]:
        # A record that knows nothing of a field of later has the same bytes as before there was it.
        found = to_dict(self)
        for later in ("maps", "imported", "plugins"):
            if not found[later]:
                del found[later]
        return found


MOST_DIGITS = 20  # of a whole number; seeds of 64 bits have as many


def parse_record_text(text: str, source: Path) -> Record:
    """Check the text of a run.json; raises as `parse_record`, or ValueError where it is no JSON.

    Control characters in texts are written out; a number that no computer holds is refused.
    """
    # What other programs than this may have written takes the longer way: NaN and infinity, which
    # are no JSON and no value here, and control characters, as they are or as JSON writes them.
    plain = "NaN" not in text and "Infinity" not in text and "\\" not in text and "\x7f" not in text
    plain = plain and (text.isascii() or not CONTROLS.search(text))
    if not UPGRADES and plain and re.search(TODAYS, text):
        with suppress(ValidationError):  # whose sentence is made below
            record = Record.model_validate_json(text)
            if _is_sane(record):
                return record

    def number(digits: str) -> int | float:
        whole = digits.lstrip("-").isdigit()
        if len(digits.lstrip("-")) > MOST_DIGITS if whole else math.isinf(float(digits)):
            cut = digits if len(digits) <= MOST_DIGITS else f"{digits[:MOST_DIGITS]}..."
            raise DataError(f"{source} is no valid record: it holds {cut}, a number too large")
        return int(digits) if whole else float(digits)

    content = json.loads(text, parse_constant=lambda _: None, parse_float=number, parse_int=number)
    return parse_record(_printable(content), source)


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


def parse_record(content: Any, source: Path) -> Record:
    """Check the content of a run.json of any known version; raises DataError in one sentence."""
    version = content.get("schema_version") if isinstance(content, dict) else None
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise DataError(f"{source} is no record: it has no schema_version")
    if version > SCHEMA_VERSION:
        raise DataError(
            f"{source} has schema version {version}, this lpmoe-bench reads up to "
            f"{SCHEMA_VERSION}; install a newer lpmoe-bench"
        )
    for step in range(version, SCHEMA_VERSION):
        content = UPGRADES[step](content)
    try:
        return Record.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise DataError(f"{source} is no valid record: {place}: {first['msg'].lower()}") from None


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
