"""Commands that say what there is to choose from: `list` and `describe`; and `publish`."""

from __future__ import annotations

import ast
import inspect
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated

import typer

import method_zoo
from lpmoe_bench.cli import options
from lpmoe_bench.errors import UsageError
from lpmoe_bench.metrics import protocols
from lpmoe_bench.metrics.extra import known_metrics
from lpmoe_bench.metrics.facts import refuse_ambiguous
from lpmoe_bench.model import decoders
from lpmoe_bench.model.decoders.names import decoder_facts, get_decoder, list_decoders, own_decoders
from method_zoo.options import signature_options, taken_names, zoo_methods
from method_zoo.plugins import SINGULAR, Plugin, find_plugin, find_plugins, read_docstring

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic.fields import FieldInfo

    from lpmoe_bench.data.registry import Registry

KINDS = {
    "methods": "what is trained beside the frozen backbone",
    "tasks": "what is segmented: training and test sets, protocol, loss",
    "datasets": "data sets by name, and where each is described",
    "backbones": "frozen models by name",
    "decoders": "from features to logits",
    "protocols": "how maps become scores",
    "metrics": "scores, with the extra ones that are off by default",
    "losses": "values of train.loss",
    "settings": "everything that --set and --config take, with defaults",
    "recipes": "the training settings of papers",
    "published": "tables of papers whose figures are kept here",
    "runs": "records found here",
    "plugins": "methods, decoders and losses of others, each imported and checked",
}
READS = {
    "maps": "the maps of the method, one after each group of blocks or its own pyramid",
    "final": "the last tokens alone, after the norm or SAM's neck",
}


def list_command(
    *,
    kind: Annotated[
        str | None, typer.Argument(help="methods, tasks, metrics, settings, ...; none: the lists.")
    ] = None,
    datasets: options.Datasets = None,
    plugin: options.Plugins = None,
    out: options.Output,
) -> None:
    """List what there is to choose from; without a kind, which lists there are."""
    options.tell_plugins(out)
    registry = options.registry(datasets)
    out.pairs(list(KINDS.items()) if kind is None else listing(kind, registry, None))


def describe_command(
    *,
    name: Annotated[str, typer.Argument(help="A method, task, data set, setting, metric, ...")],
    datasets: options.Datasets = None,
    plugin: options.Plugins = None,
    out: options.Output,
) -> None:
    """Explain a method, task, data set, backbone, decoder, protocol, metric, setting or loss."""
    out.pairs(description(name, options.registry(datasets)))


def publish_command(
    *,
    folders: Annotated[list[Path], typer.Argument(help="Records, or folders of them.")],
    results: Annotated[Path, typer.Option(help="Root of published records.")] = Path(
        "results/records"
    ),
    allow_dirty: Annotated[bool, typer.Option(help="Also records of uncommitted code.")] = False,
    out: options.Output,
) -> None:
    """Verify records and copy them, never weights or images, to the published results."""
    from lpmoe_bench.records.verify import publish_all

    made: list[str] = []
    try:
        for folder in publish_all(folders, results, allow_dirty):
            made.append(str(folder))
            # One by one: where the third is refused, the others are known to be there.
            if not out.json:
                print(made[-1])
    finally:
        if out.json:
            out.print({"published": made}, "")


# Names with one line each, and longer descriptions.


def listing(kind: str, registry: Registry, roots: list[Path] | None) -> list[tuple[str, str]]:
    """Return (name, one line) for everything of a kind; imports no torch."""
    from lpmoe_bench.config import recipes, settings
    from lpmoe_bench.records.store import find_records
    from lpmoe_bench.tables.published_figures import load_published

    # Worked out only for the kind that is asked for: some read files of records or of papers.
    made = {
        "methods": lambda: [
            *_first_lines(method_zoo, zoo_methods()),
            *_plugin_lines("methods", taken_names()),
        ],
        "tasks": lambda: [
            (t.name, f"{t.title}; protocol {t.protocol}") for t in registry.tasks.values()
        ],
        "datasets": lambda: [(d.name, d.title) for d in registry.datasets.values()],
        "protocols": lambda: [(p.name, p.title) for p in protocols.PROTOCOLS.values()],
        "backbones": lambda: list(options.BACKBONES.items()),
        "decoders": lambda: [*_decoder_lines(), *_plugin_lines("decoders", own_decoders())],
        "recipes": lambda: [(name, one.title) for name, one in recipes.load_recipes().items()],
        "published": lambda: [
            (one.name, f"{one.title} ({one.level})") for one in load_published().tables.values()
        ],
        "metrics": lambda: [(key, one.definition) for key, one in known_metrics().items()],
        "losses": lambda: list(settings.known_losses().items()),
        "settings": lambda: [
            (name, f"{info.description} (default {_value(info.default)})")
            for name, info in settings.setting_fields().items()
            if not isinstance(info.default, dict)
        ],
        "runs": lambda: [
            (str(one.folder), f"{one.record.method.title}, {one.record.created}")
            for one in find_records(roots).stored
        ],
        "plugins": _checked_plugins,
    }
    if kind not in made:
        raise UsageError.unknown("kind to list", kind, KINDS)
    return made[kind]()


def description(name: str, registry: Registry) -> list[tuple[str, str]]:
    """Return (field, text) about a method, task, data set, protocol, metric or recipe.

    Raises UsageError for an unknown name, and for a metric's name that means several.
    """
    from lpmoe_bench.config.recipes import describe_recipe, load_recipes
    from lpmoe_bench.config.settings import known_losses, setting_fields

    # A name may mean several things, such as a metric and a loss: all of them are told.
    found: list[tuple[str, str]] = []
    if (method := method_zoo.method_name(name)) in method_zoo.list_methods():
        found += _describe_method(method)
    if name in registry.tasks:
        found += _fields("task", registry.tasks[name])
    if name in registry.datasets:
        found += _fields("data set", registry.datasets[name])
    if name in protocols.PROTOCOLS:
        found += protocols.explain_protocol(protocols.PROTOCOLS[name])
    if name.lower().endswith((".yaml", ".yml")):
        from lpmoe_bench.metrics.protocol_files import open_protocol

        found += protocols.explain_protocol(open_protocol(name))
    if name in (metrics := known_metrics()):
        found += protocols.explain_metric(metrics[name])
    if name in options.BACKBONES:
        found += [("backbone", name), ("about", options.BACKBONES[name])]
        found += _describe_backbone(name)
    if name in list_decoders():
        found += _describe_decoder(name)
    if name in (recipes := load_recipes()):
        found += describe_recipe(name)
    if name in (losses := known_losses()):
        found += [("loss", name), ("about", losses[name]), ("use", f"--set train.loss={name}")]
    if name in (settings := setting_fields()):
        found += _describe_setting(name, settings[name])
    found = found or _describe_backbone(name)
    if not found:
        _refuse_broken(name)
        # Well known names that mean several metrics: to call them unknown would mislead.
        refuse_ambiguous(name)
        known = (method_zoo.list_methods(), registry.tasks, registry.datasets, protocols.PROTOCOLS)
        others = (metrics, options.BACKBONES, list_decoders(), recipes, settings, losses)
        raise UsageError.unknown("name", name, chain(*known, *others))
    return found


def _describe_setting(name: str, info: FieldInfo) -> list[tuple[str, str]]:
    extra = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
    roles = {
        "recipe": "recipe: changes the result and is part of the fingerprint",
        "protocol": "protocol: changes the score and is part of the fingerprint",
        "runtime": "runtime: where and how fast it computes; no part of the fingerprint",
        "label": "label: no part of the fingerprint",
    }
    bounds = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}
    limits = [
        f"{text} {getattr(one, key)}"
        for one in info.metadata
        for key, text in bounds.items()
        if hasattr(one, key)
    ]
    # `run` has an option of its own for each of the others.
    by_set = "." in name or name == "protocol"
    kind = getattr(info.annotation, "__name__", "") if isinstance(info.annotation, type) else ""
    return [
        ("setting", name),
        ("about", str(info.description)),
        ("type", kind or str(info.annotation).replace("typing.", "")),
        ("default", _value(info.default)),
        *([("limits", ", ".join(limits))] if limits else []),
        ("role", roles.get(str(extra.get("role")), "")),
        ("use", f"--set {name}=VALUE" if by_set else f"--{name.replace('_', '-')} VALUE"),
    ]


def _value(value: object) -> str:
    return "none" if value in (None, "") else str(value).lower()


def _docstring(package: ModuleType, name: str) -> str:
    """Read the docstring of a method's or decoder's module without importing it."""
    # Read from the file, because importing a method imports torch.
    path = Path(package.__path__[0]) / f"{name}.py"
    return ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or name


def _first_lines(package: ModuleType, names: list[str]) -> list[tuple[str, str]]:
    return [(name, _docstring(package, name).splitlines()[0]) for name in names]


def _decoder_lines() -> list[tuple[str, str]]:
    """Return our own decoders with the kinds of task that they serve."""
    lines = _first_lines(decoders, own_decoders())
    served = [", ".join(decoder_facts(name).attributes["kinds"]) for name, _ in lines]
    return [(name, f"{line} ({kinds})") for (name, line), kinds in zip(lines, served, strict=True)]


def _plugin_lines(kind: str, own: list[str]) -> list[tuple[str, str]]:
    found = [one for one in find_plugins(kind, own) if not one.trouble]
    lines = [(one, read_docstring(one).partition("\n")[0] or one.place) for one in found]
    return [(one.name, f"{line} (plug-in, of {one.origin})") for one, line in lines]


def _checked_plugins() -> list[tuple[str, str]]:
    """Return every plug-in with what it is, or why it cannot be used."""
    from lpmoe_bench.model.plugins import all_plugins, load_by_name

    rows = []
    for one in all_plugins():
        text = f"{SINGULAR[one.kind]} of {one.origin}: ready"
        try:
            if one.trouble:
                raise one.refusal(one.trouble)
            load_by_name(one.kind, one.name)
        except method_zoo.ZooError as error:
            text = str(error)
        rows.append((one.name, text))
    return rows


def _refuse_broken(name: str) -> None:
    """Raise ZooError for the name of a plug-in that cannot be used."""
    from lpmoe_bench.model.plugins import all_plugins

    for one in all_plugins():
        if one.name == name and one.trouble:
            raise one.refusal(one.trouble)


def _about(plugin: Plugin | None, package: ModuleType, name: str) -> str:
    if plugin is None:
        return _docstring(package, name)
    return f"{read_docstring(plugin) or name}\nA plug-in, of {plugin.origin}: {plugin.place}."


def _describe_method(name: str) -> list[tuple[str, str]]:
    cls = method_zoo.get_method(name)
    plugin = find_plugin("methods", name, taken_names())
    preset = ", ".join(f"train.{k}={v:g}" for k, v in cls.preset.items())
    return [
        ("method", name),
        ("about", _about(plugin, method_zoo, name)),
        ("title", cls.title),
        ("fidelity", cls.fidelity),
        ("options", _options(cls)),
        *_own_docstring(cls),
        ("preset", preset),
        ("mergeable", "yes" if cls.mergeable else f"no: {cls.unmergeable}"),
        ("starts as the frozen model", "yes" if cls.identity_at_init else "no"),
    ]


def _describe_decoder(name: str) -> list[tuple[str, str]]:
    cls = get_decoder(name)
    start = f"--decoder-weights of {cls.published}, else random" if cls.published else "random"
    losses = [f"{loss} for {kind} tasks" for kind, loss in cls.losses.items()]
    return [
        ("decoder", name),
        ("about", _about(find_plugin("decoders", name, own_decoders()), decoders, name)),
        ("title", cls.title),
        ("fidelity", cls.fidelity),
        ("serves", f"{', '.join(cls.kinds)} tasks"),
        *([("own loss", ", ".join(losses))] if losses else []),
        ("reads", READS[cls.reads]),
        ("options", _options(cls)),
        *_own_docstring(cls),
        ("starts from", start),
    ]


def _describe_backbone(name: str) -> list[tuple[str, str]]:
    """Return what is known of a backbone by its name, nothing where no backbone has it."""
    if find_spec("timm") is None:
        return []
    from lpmoe_bench.config.backbones import HUB, known_as
    from lpmoe_bench.model.segmenter import blueprint_backbone
    from lpmoe_bench.model.weights.resolve import origin, resolve_weights
    from method_zoo import ZooError

    own = known_as(name)
    try:
        weights = resolve_weights(own, "random", Path())
    except ZooError:
        return []
    except UsageError:
        if own.startswith(HUB):
            raise
        return []
    model = blueprint_backbone(own)
    blocks = f"{model.depth} blocks, {model.dim} wide, {model.heads} heads"
    timm_name = weights.timm_name
    return [
        *([] if name in options.BACKBONES else [("backbone", own)]),
        *([("model", timm_name)] if timm_name != own else []),
        ("size", f"{blocks}, {sum(p.numel() for p in model.parameters()):,} parameters"),
        ("facts", weights.facts.text),
        ("weights", origin(own)),
        ("use", f"--backbone {own}"),
    ]


def _options(cls: type) -> str:
    return ", ".join(f"{k}={v}" for k, v in signature_options(cls).items()) or "none"


def _own_docstring(cls: type) -> list[tuple[str, str]]:
    # Its own alone: a class without one would inherit that of its base, which says nothing of it.
    own = vars(cls).get("__doc__")
    return [("", inspect.cleandoc(own))] if own else []


def _fields(kind: str, item: BaseModel) -> list[tuple[str, str]]:
    """Return what an entry of the registry says, less what it leaves as by default."""
    values = item.model_dump(exclude_defaults=True, exclude={"base"})
    name = str(values.pop("name", ""))
    return [(kind, name), *((k.replace("_", " "), _plain(v)) for k, v in values.items())]


def _plain(value: object) -> str:
    if value is True:
        return "yes"
    if isinstance(value, dict):
        return "; ".join(f"{k}: {_plain(v)}" for k, v in value.items())
    if isinstance(value, list | tuple):
        inner = "; " if any(isinstance(one, dict | list | tuple) for one in value) else ", "
        return inner.join(map(_plain, value))
    return str(value)
