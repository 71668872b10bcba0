"""RunConfig: everything a run is asked for, the role of each field, and its fingerprint."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator
from pydantic.fields import FieldInfo

from lpmoe_bench.config.backbones import known_as
from lpmoe_bench.errors import UsageError
from lpmoe_bench.yaml_files import YamlError, parse_yaml, read_yaml
from method_zoo.plugins import find_plugin, find_plugins

DEFAULT_BACKBONE = "dinov2_small_imgfocus"
LARGEST = 1 << 62  # a whole number from here on is no setting, and no tensor's side
LONGEST = 100  # letters of a wrong value that a sentence repeats
LAST = "last"  # of train.select: the state after the last step, which no score picks
SECTIONS = ("facts", "train", "runtime", "options", "decoder_options")
SET_SECTIONS = {  # of --set
    "decoder": "decoder_options",
    "facts": "facts",
    "train": "train",
    "runtime": "runtime",
}
# How images are normalised, by the name that timm has for it.
STATISTICS = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "inception": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
}


class LossFacts(NamedTuple):
    """A loss in a few words, and the kinds of task that it serves."""

    about: str
    kinds: tuple[str, ...] = ("binary",)


_EITHER = ("binary", "semantic")
MATCHING = "matching"  # the loss of decoders that have queries, which they compute themselves
OWN = "own"  # the loss that a detector is defined with, which it computes itself
# Losses by name; lpmoe_bench.model.losses has their formulas.
LOSSES = {
    "structure": LossFacts("weighted BCE + weighted IoU of PraNet, as released code computes it"),
    "structure_intended": LossFacts("the same with the pixel weights that its formula means"),
    "bce_dice": LossFacts("binary cross-entropy + Dice"),
    "balanced_bce": LossFacts("binary cross-entropy, classes weighted by their shares of pixels"),
    "focal": LossFacts("cross-entropy that looks away from what is right already", _EITHER),
    "lovasz": LossFacts(
        "IoU itself, continued convexly: hinge for masks, softmax for classes", _EITHER
    ),
    "tversky": LossFacts("overlap of regions in which what is missed weighs more", _EITHER),
    "cross_entropy": LossFacts("cross-entropy over the classes", ("semantic",)),
    "ce_dice": LossFacts("cross-entropy + Dice of the classes in the image", ("semantic",)),
    MATCHING: LossFacts(
        "each class or object has a query of its own, as in Mask2Former",
        ("semantic", "instance", "panoptic"),
    ),
    OWN: LossFacts(
        "what a detector is defined with, such as Faster R-CNN",
        ("detection", "instance", "panoptic"),
    ),
}
# Roles of a field. recipe, protocol: it changes the result or the score, so the fingerprint hashes
# it. runtime, label: it does not, so records that differ in it alone are of one kind.


_UNSAID = object()


def _field(
    default: Any,
    role: str,
    description: str,
    later: bool = False,
    absent: Any = _UNSAID,
    **limits: Any,
) -> Any:
    """Declare a setting.

    Args:
        default: what a new run has.
        role: see above.
        description: a few words.
        later: it came when records existed, which mean its default and are hashed without it.
        absent: the same where older records mean another value than the default.
        limits: as pydantic has them.
    """
    extra: dict[str, Any] = {"role": role}
    if later or absent is not _UNSAID:
        extra["absent"] = default if later else absent
    return Field(default, description=description, json_schema_extra=extra, **limits)


def known_losses() -> dict[str, str]:
    """Return what each loss is by its name, those of plug-ins last."""
    found = [one for one in find_plugins("losses", LOSSES) if not one.trouble]
    own = {name: f"{one.about} ({', '.join(one.kinds)})" for name, one in LOSSES.items()}
    return own | {one.name: f"a plug-in, of {one.origin}" for one in found}


def check_loss(name: str, kind: str = "") -> None:
    """Refuse a loss that is not known, or that serves other kinds of task.

    Args:
        name: of the loss.
        kind: of the task; empty where any will do. Of a plug-in this is not known without its
            import: `get_loss` asks it.

    Raises:
        UsageError: The loss is unknown, or of other kinds.
        ZooError: A plug-in that cannot be used.
    """
    if find_plugin("losses", name, LOSSES) is not None:
        return
    if name not in LOSSES:
        fitting = [own for own in known_losses() if own not in LOSSES or kind in LOSSES[own].kinds]
        raise UsageError.unknown("loss", name, fitting if kind else known_losses())
    if kind and kind not in LOSSES[name].kinds:
        raise other_kind(name, LOSSES[name].kinds, kind)


def other_kind(name: str, kinds: Sequence[str], kind: str) -> UsageError:
    """Return the error that a loss serves other kinds of task than this one."""
    fitting = ", ".join(own for own, facts in LOSSES.items() if kind in facts.kinds)
    *others, last = kinds
    own = f"{', '.join(others)} and {last}" if others else last
    return UsageError(
        f"loss {name} is for {own} tasks, but this task is {kind}; "
        f"use one of {fitting}, or leave train.loss out"
    )


class _Section(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False
    )


class TrainConfig(_Section):
    """How a model is trained; all of it changes the result. What `carve` does is hashed by the
    digest of the validation split that is used."""

    epochs: int = _field(4, "recipe", "passes over the training images", ge=1)
    batch: int = _field(8, "recipe", "images a step, over all devices", ge=1)
    lr: float = _field(1e-3, "recipe", "peak learning rate of the method", gt=0)
    decoder_lr: float = _field(1e-3, "recipe", "peak learning rate of the decoder", gt=0)
    weight_decay: float = _field(1e-2, "recipe", "AdamW decay of tensors of two or more axes", ge=0)
    warmup: float = _field(0.05, "recipe", "share of the steps with a rising rate", ge=0, lt=1)
    power: float = _field(1.0, "recipe", "exponent of the polynomial decay to zero", ge=0)
    clip: float | None = _field(1.0, "recipe", "largest norm of the gradient; null: any", gt=0)
    flip: bool = _field(True, "recipe", "mirror every second image, seeded")
    loss: str = _field("structure", "recipe", "loss, such as structure or bce_dice")
    select: str = _field(
        "s_measure", "recipe", "score on validation that picks the best epoch; last: no score"
    )
    validation: float = _field(
        0.1, "recipe", "share of train kept for validation; 0: none, with select=last", ge=0, lt=1
    )
    limit_train: int | None = _field(None, "recipe", "train on this many images, seeded", ge=2)
    precision: Literal["auto", "32-true", "tf32", "bf16-mixed"] = _field(
        "auto",
        "recipe",
        "auto: bf16-mixed on a GPU that has it, else 32-true; tf32: 32-true whose matrix products "
        "round their factors to 10 bits, on GPUs alone",
    )
    steps: int | None = _field(
        None, "recipe", "optimiser steps, whatever the epochs", later=True, ge=1
    )
    patience: int | None = _field(
        None, "recipe", "stop after so many epochs without a better score", later=True, ge=1
    )
    scale: tuple[float, float] | None = _field(
        None, "recipe", "resize by a factor between these and crop", later=True
    )
    photometric: bool = _field(False, "recipe", "distort brightness and colours", later=True)
    limit_validation: int | None = _field(
        None, "recipe", "validate on this many images, seeded", later=True, ge=1
    )
    class_weights: tuple[float, ...] | None = _field(
        None,
        "recipe",
        "weight of each class in cross_entropy, ce_dice and focal, in the order of the classes",
        later=True,
    )
    carve: bool = _field(
        False, "runtime", "carve validation from train also where the set has a split for it"
    )
    decode: Literal["full", "reduced"] = _field(
        "full",
        "recipe",
        "reduced: JPEGs of train at half their size or less, never below size",
        later=True,
    )

    @field_validator("scale")
    @classmethod
    def _rising(cls, scale: tuple[float, float] | None) -> tuple[float, float] | None:
        if scale is not None and not 0 < scale[0] <= scale[1]:
            raise ValueError("give two positive factors, the smaller first, such as [0.5, 2]")
        return scale

    @field_validator("class_weights")
    @classmethod
    def _positive(cls, weights: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if weights is not None and not (weights and all(weight > 0 for weight in weights)):
            raise ValueError("give a positive number for each class, such as [1, 1, 10]")
        return weights


class RuntimeConfig(_Section):
    """Where and how fast a run computes: results differ by rounding and random draws at most."""

    device: Literal["auto", "cpu", "cuda"] = _field("auto", "runtime", "device kind")
    devices: int = _field(1, "runtime", "processes, one device each", ge=1)
    workers: int | None = _field(
        None, "runtime", "loader processes; by default as cores allow", ge=0, le=256
    )
    micro_batch: int | None = _field(None, "runtime", "images at once on a device", ge=1)
    checkpointing: bool = _field(False, "runtime", "recompute blocks in the backward pass")
    recompute: Literal["interactions"] | None = _field(
        None, "runtime", "keep less of these parts of a method, such as lpmoe, going backward"
    )
    compile: Literal["default", "graphs"] | None = _field(
        None, "runtime", "train by torch.compile's code; graphs: as CUDA graphs, on GPUs alone"
    )
    save_seconds: float = _field(60, "runtime", "at most this long between saved states", ge=0)
    save_predictions: bool = _field(False, "runtime", "keep the predicted maps as 8-bit PNG")
    cache_features: Literal["memory", "disk"] | None = _field(
        None, "runtime", "compute the frozen blocks once an image and keep what they return"
    )
    cache_test: bool = _field(False, "runtime", "with cache_features=disk: test images too")
    cache_images: bool = _field(
        False, "runtime", "keep resized training images on disk; decode large ones once"
    )
    cache_gib: float | None = _field(
        None, "runtime", "room for what is kept; by default half of the free memory or disk", gt=0
    )


Channels = tuple[float, float, float]


class FactsConfig(_Section):
    """Facts of the backbone's weights. What is left out is as the file or else the name has it; a
    record holds what its name does not imply."""

    mean: Channels | None = _field(
        None, "recipe", "mean of RGB, within 0 to 1; or imagenet, inception, clip", later=True
    )
    std: Channels | None = _field(
        None, "recipe", "deviation of RGB, within 0 to 1; or one of these names", later=True
    )
    patch: int | None = _field(
        None, "recipe", "side of a patch in pixels of the model's input", later=True, ge=1, le=64
    )
    grid: int | None = _field(
        None, "recipe", "side of the position table in patches", later=True, ge=1, le=512
    )
    pos_antialias: bool | None = _field(
        None, "recipe", "resize the position table with antialias", later=True
    )

    @field_validator("mean", "std", mode="before")
    @classmethod
    def _named(cls, value: Any, info: ValidationInfo) -> Any:
        if not isinstance(value, str):
            return value
        if value not in STATISTICS:
            raise ValueError(f"give three numbers, or one of {', '.join(STATISTICS)}")
        return STATISTICS[value][info.field_name == "std"]

    @field_validator("mean", "std")
    @classmethod
    def _shares(cls, value: Channels | None, info: ValidationInfo) -> Channels | None:
        least = 0 if info.field_name == "mean" else 1e-3
        if value is not None and not all(least <= number <= 1 for number in value):
            raise ValueError(
                f"pixels are within 0 and 1 here, and so is each {info.field_name}: divide what is "
                f"meant for 0 to 255 by 255"
            )
        return value


class RunConfig(_Section):
    """One run: a method on a backbone with a decoder, for one task."""

    task: str = _field("cod", "recipe", "task of datasets.yaml")
    method: str = _field("lpmoe", "recipe", "method of the zoo")
    options: dict[str, Any] = _field({}, "recipe", "options of the method")
    backbone: str = _field(
        DEFAULT_BACKBONE, "recipe", "timm name of a backbone, or the packaged default"
    )
    weights: str | None = _field(None, "runtime", "file or random[:seed]; its digest is hashed")
    decoder: str = _field("fpn", "recipe", "decoder name")
    decoder_weights: str | None = _field(
        None, "runtime", "SAM checkpoint for the decoder; its digest is hashed"
    )
    decoder_options: dict[str, Any] = _field({}, "recipe", "options of the decoder")
    size: int | tuple[int, int] = _field(
        256, "recipe", "image side in pixels, a multiple of 32; or [height, width]"
    )
    fit: Literal["squash", "letterbox"] = _field(
        "squash",
        "recipe",
        "how an image becomes size: stretched, or shrunk as a whole and padded",
        later=True,
    )
    evaluate: Literal["whole", "windows"] = _field(
        "whole",
        "recipe",
        "images as a whole; or cut into windows of size at full resolution, which overlap",
        later=True,
    )
    kind: str = _field("binary", "recipe", "kind of task; the task has it", later=True)
    classes: tuple[str, ...] = _field(
        (), "recipe", "names of the classes, in order; the data set has them", later=True
    )
    things: tuple[str, ...] = _field(
        (), "recipe", "classes told apart by object, others are stuff; the set has them", later=True
    )
    preprocessing: Literal[1, 2] = _field(
        2, "recipe", "how images become tensors; 1: as up to version 0.2, in floats", absent=1
    )
    arithmetic: Literal[1, 2] = _field(
        2,
        "recipe",
        "order of a method's operations; old records have 1, whose results differ by rounding",
        absent=1,
    )
    seed: int = _field(0, "label", "stands beside the fingerprint", ge=0, lt=2**62)
    protocol: str = _field("cod", "protocol", "how scores are computed")
    label: str = _field("", "label", "a few words of the user's own")
    recipe: str = _field("", "label", "a paper's own settings by name; they are hashed, not it")
    facts: FactsConfig = FactsConfig()
    train: TrainConfig = TrainConfig()
    runtime: RuntimeConfig = RuntimeConfig()

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width of what the model sees, in pixels."""
        return (self.size, self.size) if isinstance(self.size, int) else self.size

    @property
    def outputs(self) -> int:
        """How many classes the model tells apart, maps of logits as a rule; one of binary masks."""
        return max(1, len(self.classes))

    @field_validator("size", mode="before")
    @classmethod
    def _read_size(cls, size: Any) -> Any:
        if isinstance(size, str):
            parts = [part.strip() for part in size.lower().split("x")]
            sides = [int(p) if p.isascii() and p.isdigit() and len(p) < 10 else p for p in parts]
        else:
            sides = list(size) if isinstance(size, list | tuple) else [size]
        if len(sides) not in (1, 2) or not all(type(s) is int and s < 10**9 for s in sides):
            raise ValueError("give a side in pixels, or height x width such as 256x320")
        # One way to write it, so that equal sizes are equal runs.
        return sides[0] if len(set(sides)) == 1 else tuple(sides)

    @field_validator("backbone")
    @classmethod
    def _ours(cls, backbone: str) -> str:
        return known_as(backbone)


def sides_text(size: int | Sequence[int]) -> str:
    """Return a size in pixels as people write it: 256, or of a height and a width 256 x 320."""
    sides = [size] if isinstance(size, int) else dict.fromkeys(size)
    return " x ".join(map(str, sides))


def build_config(*layers: Mapping[str, Any]) -> RunConfig:
    """Merge layers of settings, weakest first, and check them; raises UsageError."""
    # Sections are merged field by field, so that --set train.lr keeps the recipe's epochs.
    merged: dict[str, Any] = {}
    for layer in layers:
        _merge(merged, layer)
    _check_numbers(merged)
    try:
        config = RunConfig.model_validate(merged)
    except ValidationError as error:
        raise _explained(error) from None
    if config.arithmetic == 1:
        raise UsageError(
            "setting arithmetic is 1, which only records of older versions have, for its code is "
            "gone; leave it out: a new run has 2, whose results differ by rounding"
        )
    for side in config.sides:
        if side % 32 or side < 32:
            near = max(32, round(side / 32) * 32)
            raise UsageError(f"size is {side}; it must be a multiple of 32, such as {near}")
    return config


def _check_numbers(values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        if isinstance(value, Mapping):
            _check_numbers(value)
        elif type(value) is int and abs(value) >= LARGEST:
            raise UsageError(f"setting {name} is a number of over 18 digits; use one below 2^62")


def _merge(into: dict[str, Any], layer: Mapping[str, Any]) -> None:
    for key, value in layer.items():
        if key in SECTIONS and not isinstance(value, Mapping):
            raise UsageError(f"setting {key} is {value!r}; it holds settings of its own by name")
        if isinstance(value, Mapping) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = dict(value) if isinstance(value, Mapping) else value


def _explained(error: ValidationError) -> UsageError:
    """Return the first of the errors as a sentence; a name that is unknown with the known ones."""
    first = error.errors()[0]
    name = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        sections = {"facts": FactsConfig, "train": TrainConfig, "runtime": RuntimeConfig}
        section = sections.get(str(first["loc"][0]), RunConfig)
        prefix = name.rpartition(".")[0]
        known = [f"{prefix}.{field}".lstrip(".") for field in section.model_fields]
        return UsageError.unknown("setting", name, known)
    got = repr(first["input"])
    got = got if len(got) <= LONGEST else f"{got[:LONGEST]}..."
    text = first["msg"].removeprefix("Value error, ")
    return UsageError(f"setting {name} is {got}: {text[:1].lower()}{text[1:]}")


# What a bare name of `--set` means before it is an option of the method. A seed has its own option:
# VeRA's is of that name.
PLAIN = ("size", "fit", "evaluate", "preprocessing", "arithmetic", "protocol", "weights")
PLAIN += ("decoder_weights",)


def parse_sets(assignments: list[str]) -> dict[str, Any]:
    """Turn `--set` texts into a layer, as `nest_settings` does; values are read as YAML."""
    values = {}
    for text in assignments:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise UsageError(f"--set got '{text}'; write it as name=value, such as rank=8")
        values[name] = _read_value(name, value)
    return nest_settings(values)


def nest_settings(values: Mapping[str, Any]) -> dict[str, Any]:
    """Turn values by name into a layer of settings, with names as `--set` takes them.

    `size=128` and `protocol=sod` are settings of the run, any other bare name is an option of the
    method: `rank=8` -> options.rank. A dotted name goes to its section: `decoder.width=64` ->
    decoder_options.width, `train.lr=1e-4`, `runtime.workers=2`.

    Raises UsageError for a dotted name of no section.
    """
    layer: dict[str, Any] = {}
    for name, value in values.items():
        section, dot, rest = name.partition(".")
        if dot and section not in SET_SECTIONS:
            raise UsageError.unknown("section of --set", section, SET_SECTIONS)
        if name in PLAIN:
            layer[name] = value
        else:
            target, key = (SET_SECTIONS[section], rest) if dot else ("options", name)
            layer.setdefault(target, {})[key] = value
    return layer


def _read_value(name: str, text: str) -> Any:
    try:
        value = parse_yaml(text)
    except YamlError as error:
        raise UsageError(
            f"--set {name} got '{text[:80]}', which is no plain value: {error.why}"
        ) from None
    try:  # YAML 1.1 reads 1e-4 as a text
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def read_config_file(path: Path) -> dict[str, Any]:
    """Read a `--config` file; raises UsageError when it is missing or not a mapping."""
    try:
        layer = read_yaml(path)
    except OSError as error:
        raise UsageError(f"--config {path} could not be read ({error.strerror})") from None
    except YamlError as error:
        raise UsageError(f"--config {path} is not valid YAML: {error}") from None
    if not isinstance(layer, dict):
        raise UsageError(f"--config {path} must hold settings by name, such as 'size: 256'")
    return layer


def fields_by_role() -> dict[str, str]:
    """Return the dotted name of every field and its role."""
    return {name: str(_extra(info).get("role", "")) for name, info in setting_fields().items()}


def later_fields() -> dict[str, Any]:
    """Return, for each field that came later, the value that records without it mean."""
    extras = {name: _extra(info) for name, info in setting_fields().items()}
    return {name: extra["absent"] for name, extra in extras.items() if "absent" in extra}


def stored_config(values: Mapping[str, Any]) -> RunConfig:
    """Return the settings of a record or an adapter, whatever was not there yet when it was made.

    Raises pydantic's ValidationError for what are no settings.
    """
    found: dict[str, Any] = {}
    _merge(found, nested_fields(later_fields()))
    _merge(found, values)
    return RunConfig.model_validate(found)


def nested_fields(values: Mapping[str, Any]) -> dict[str, Any]:
    """Turn values by dotted name of a field into a layer of settings."""
    layer: dict[str, Any] = {}
    for name, value in values.items():
        section, _, leaf = name.rpartition(".")
        (layer.setdefault(section, {}) if section else layer)[leaf] = value
    return layer


def setting_fields() -> dict[str, FieldInfo]:
    """Return every field by its dotted name: description, default, limits and role."""
    sections = {
        "": RunConfig,
        "facts.": FactsConfig,
        "train.": TrainConfig,
        "runtime.": RuntimeConfig,
    }
    return {
        prefix + name: info
        for prefix, section in sections.items()
        for name, info in section.model_fields.items()
        if f"{name}." not in sections
    }


def _extra(info: FieldInfo) -> dict[str, Any]:
    return info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}


def fingerprint(config: RunConfig, digests: Mapping[str, Any]) -> str:
    """Hash what changes the result: recipe and protocol fields, digests of data and weights.

    Returns 64 hex digits. `digests` holds train, validation, test manifests, the protocol's own
    hash and the weights.
    """
    values, later = config.model_dump(), later_fields()
    chosen = {}
    for name, role in fields_by_role().items():
        section, _, leaf = name.rpartition(".")
        value = (values[section] if section else values)[leaf]
        # A field that came later is left out where it is what records without it mean: older
        # fingerprints stay what they are.
        if role in ("recipe", "protocol") and not (name in later and value == later[name]):
            chosen[name] = value
    # Sorted, so that the order in which fields are declared does not matter.
    text = json.dumps({"config": chosen, "digests": dict(digests)}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
