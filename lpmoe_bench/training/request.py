"""What a user asked for, merged and checked as far as settings alone can tell; imports no torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from lpmoe_bench.config.kinds import get_kind
from lpmoe_bench.config.recipes import recipe_layers
from lpmoe_bench.config.settings import LAST, RunConfig, build_config, check_loss
from lpmoe_bench.data.registry import Registry, Task, load_registry
from lpmoe_bench.data.tasks import Folders
from lpmoe_bench.environment import default_cache
from lpmoe_bench.errors import UsageError
from lpmoe_bench.metrics.facts import get_metric
from lpmoe_bench.metrics.protocols import get_protocol
from lpmoe_bench.model.decoders.names import decoder_facts
from method_zoo.options import check_values, method_facts, method_name
from method_zoo.source import SourceFacts

Facts = Mapping[str, Any]  # class attributes of a method: title, preset, decoder, ...


@dataclass(frozen=True)
class RunRequest:
    """What a user asked for, as it came from flags, `--set` and `--config`.

    `expect`: the fingerprint that was planned before; any other is refused. `extra_notes` are
    sentences for the record.
    """

    flags: Mapping[str, Any]
    sets: Mapping[str, Any] = field(default_factory=dict)
    file: Mapping[str, Any] = field(default_factory=dict)
    data_root: Path | None = None
    folders: Folders | None = None
    embedded: bool = False
    datasets: Sequence[Path] | None = None
    runs: Path = Path("runs")
    cache: Path = field(default_factory=default_cache)
    offline: bool = False
    expect: str = ""
    extra_notes: tuple[str, ...] = ()


class Asked(NamedTuple):
    """A request by layers of settings, weakest first; task, method and recipe are the strongest."""

    task: Task
    method: str
    recipe: str
    task_layer: dict[str, Any]
    layers: tuple[Mapping[str, Any], ...]


def layers_of(request: RunRequest, registry: Registry) -> Asked:
    """Return the layers of a request; raises UsageError for an unknown task or recipe."""
    asked = (request.file, request.sets, request.flags)
    # A recipe is weaker than all that is said, but it may itself choose the method.
    recipe = _pick("recipe", asked)
    task = registry.task(_pick("task", asked))
    layers = (*recipe_layers(recipe, task.name, asked), *asked)
    return Asked(task, _pick("method", layers), recipe, settings_of(task), layers)


def settings_of(task: Task) -> dict[str, Any]:
    """Return the settings that a task brings along."""
    # Its own loss and selection are the weakest of all, its recipe wins over them.
    train = {"loss": task.loss, "select": task.select} | task.recipe.get("train", {})
    return {"kind": task.kind, "protocol": task.protocol} | task.recipe | {"train": train}


def refuse_early(request: RunRequest) -> RunConfig:
    """Return the settings of a request, or raise what settings alone can refuse.

    Our own method and decoder are read from their source, so that a misspelt name is told at once:
    to import torch takes seconds. `complete_config` does the same with the classes themselves.

    Raises:
        UsageError: an unknown task, recipe, setting, loss or protocol, or a value out of range.
        ZooError: an unknown method, decoder or option of theirs.
    """
    asked = layers_of(request, load_registry(request.datasets))
    options, facts = method_facts(asked.method)
    config = merged_config(asked, facts)
    return check_settings(config, facts, options, decoder_facts(config.decoder))


def merged_config(asked: Asked, method: Facts) -> RunConfig:
    """Return the settings of all layers: of the task, the method, the decoder, then what was asked.

    Raises UsageError for a setting that is unknown or out of range, ZooError for a decoder.
    """
    preset = preset_layer(method)
    # A method prefers a decoder of maps; where the kind of task has heads of its own, one of these.
    usual = get_kind(asked.task.kind).decoder
    if usual:
        preset["decoder"] = asked.task.recipe.get("decoder", usual)
    decoder = _pick("decoder", (preset, *asked.layers))
    # A decoder that matches queries to objects is trained so unless something else is asked for.
    facts = decoder_facts(decoder)
    own = facts.attributes.get("losses", {}).get(asked.task.kind)
    of_decoder: dict[str, Any] = {"train": {"loss": own}} if own else {}
    # How many detections of an image count is the protocol's: a head that gives fewer loses some.
    most = getattr(get_protocol(_pick("protocol", (asked.task_layer, *asked.layers))), "most", 0)
    if most and "detections" in facts.options:
        of_decoder["decoder_options"] = {"detections": most}
    config = build_config(asked.task_layer, preset, of_decoder, *asked.layers)
    if config.kind != asked.task.kind:
        raise UsageError(
            f"kind is {config.kind}, but task {asked.task.name} is {asked.task.kind}; leave "
            f"kind out: the task has it"
        )
    return config


def preset_layer(method: Facts) -> dict[str, Any]:
    """Return the settings that a method prefers: its decoder, its rates."""
    return {"decoder": method["decoder"], "train": dict(method["preset"])}


def check_settings(
    config: RunConfig, method: Facts, options: Mapping[str, Any], decoder: SourceFacts
) -> RunConfig:
    """Fill the options of method and decoder in, and refuse what does not go together.

    options: of the method, with their defaults. Raises UsageError and ZooError.
    """
    check_loss(config.train.loss, config.kind)
    _check_kind(config, decoder)
    _check_selection(config)
    _check_maps(config)
    _check_features(config)
    found = check_values(dict(options), method["title"], config.options)
    # An option that came later is not hashed at the value that older records mean.
    own = _without(found, method["later_options"])
    of_decoder = check_values(
        dict(decoder.options),
        f"decoder {decoder.attributes.get('title', config.decoder)}",
        config.decoder_options,
    )
    of_decoder = _without(of_decoder, decoder.attributes.get("later_options", {}))
    name = method_name(config.method)
    return config.model_copy(update={"method": name, "options": own, "decoder_options": of_decoder})


def _without(options: Mapping[str, Any], later: Mapping[str, Any]) -> dict[str, Any]:
    """Return options less those that came later and have the value that older records mean."""
    return {k: v for k, v in options.items() if k not in later or later[k] != v}


def _check_kind(config: RunConfig, decoder: SourceFacts) -> None:
    """Refuse a decoder or a protocol of another kind of task; raises UsageError."""
    serves = decoder.attributes.get("kinds", ())
    if config.kind not in serves:
        raise UsageError(
            f"decoder {config.decoder} serves {' and '.join(serves)} tasks, and task {config.task} "
            f"is {config.kind}; choose another, see lpmoe-bench list decoders"
        )
    rules = get_protocol(config.protocol)
    if rules.kind != config.kind:
        raise UsageError(
            f"protocol {rules.name} scores {rules.kind} tasks, and task {config.task} is "
            f"{config.kind}; choose another, such as {get_kind(config.kind).protocol}"
        )


def _check_selection(config: RunConfig) -> None:
    """Refuse a validation that nothing looks at, or none where a score is to pick."""
    train = config.train
    if train.select != LAST:
        metric, rules = get_metric(train.select), get_protocol(config.protocol)
        # Of a binary task any metric of an image does, whatever the protocol prints.
        if not metric.per_image and not get_kind(config.kind).classed:
            raise UsageError(
                f"train.select is {train.select}, which only a whole data set has; "
                f"choose one that an image has, such as {rules.primary}"
            )
        if get_kind(config.kind).classed and not rules.has_metric(train.select):
            known = [*rules.metrics, *rules.class_keys(["NAME"])]  # NAME: of a class
            raise UsageError(
                f"train.select is {train.select}, which protocol {rules.name} does not have; "
                f"choose one of {', '.join(known)}, or last"
            )
    if train.select == LAST and train.validation:
        raise UsageError(
            f"train.select is last, which looks at no validation, but train.validation is "
            f"{train.validation:g}; say train.validation=0 to train on all images"
        )
    if train.select != LAST and not train.validation:
        raise UsageError(
            f"train.validation is 0, so that {train.select} has nothing to pick the best epoch by; "
            f"say train.select=last to keep the last state"
        )
    if train.select == LAST and (train.patience or train.limit_validation):
        raise UsageError(
            "train.patience and train.limit_validation are about validation, of which "
            "train.select=last has none; leave them out"
        )


def _check_maps(config: RunConfig) -> None:
    """Refuse what takes a value for each pixel where a kind has none; raises UsageError."""
    if config.runtime.cache_images and not get_kind(config.kind).blends:
        raise UsageError(
            f"runtime.cache_images keeps images with a target of one value a pixel, and those of "
            f"{config.kind} tasks are objects; leave it out"
        )
    if config.evaluate == "windows" and not get_kind(config.kind).blends:
        raise UsageError(
            f"evaluate is windows, whose predictions are blended pixel by pixel, and those of "
            f"{config.kind} tasks are not; leave it out"
        )


def _check_features(config: RunConfig) -> None:
    """Refuse a feature cache where it would not serve; raises UsageError."""
    runtime, train = config.runtime, config.train
    if runtime.cache_test and runtime.cache_features != "disk":
        raise UsageError("runtime.cache_test needs runtime.cache_features=disk: a run tests once")
    if runtime.cache_features and (train.scale or train.photometric):
        raise UsageError(
            "runtime.cache_features keeps each image as it is and mirrored, but train.scale and "
            "train.photometric make every view of it new; leave one or the other out"
        )
    if runtime.cache_features and config.evaluate != "whole":
        raise UsageError(
            "runtime.cache_features keeps whole images, but evaluate=windows sees parts of them; "
            "leave one or the other out"
        )
    if runtime.cache_features and train.decode != "full":
        raise UsageError(
            "runtime.cache_features decodes each image once, in full; leave train.decode out"
        )
    if runtime.cache_features and runtime.cache_images:
        raise UsageError(
            "runtime.cache_images keeps images, and runtime.cache_features what stands in their "
            "place; leave one or the other out"
        )
    if runtime.cache_features == "memory" and runtime.devices > 1:
        raise UsageError(
            f"runtime.cache_features is memory, of which {runtime.devices} processes would each "
            f"need all; use disk, which they share"
        )


def _pick(name: str, layers: tuple[Mapping[str, Any], ...]) -> str:
    """Return the strongest value of a setting that decides other defaults."""
    default = RunConfig.model_fields[name].default
    return next((str(layer[name]) for layer in reversed(layers) if name in layer), default)
