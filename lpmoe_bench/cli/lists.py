"""Commands that say what there is to choose from: `list` and `describe`; and `publish`."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated

import typer

from lpmoe_bench.cli import options

if TYPE_CHECKING:
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
    out: options.Output,
) -> None:
    """List what there is to choose from; without a kind, which lists there are."""
    from lpmoe_bench.data.registry import load_registry

    rows = list(KINDS.items()) if kind is None else listing(kind, load_registry(datasets), None)
    out.pairs(rows)


def describe_command(
    *,
    name: Annotated[str, typer.Argument(help="A method, task, data set, setting, metric, ...")],
    datasets: options.Datasets = None,
    out: options.Output,
) -> None:
    """Explain a method, task, data set, backbone, decoder, protocol, metric, setting or loss."""
    from lpmoe_bench.data.registry import load_registry

    out.pairs(description(name, load_registry(datasets)))


def publish_command(
    *,
    folders: Annotated[list[Path], typer.Argument(help="Run folders.")],
    results: Annotated[Path, typer.Option(help="Root of published records.")] = Path(
        "results/records"
    ),
    allow_dirty: Annotated[bool, typer.Option(help="Also records of uncommitted code.")] = False,
    out: options.Output,
) -> None:
    """Copy the records of runs, never weights or images, to the published results."""
    from lpmoe_bench.records import store

    made = []
    for folder in folders:
        made.append(str(store.publish(folder, results, allow_dirty)))
        if not out.json:
            print(made[-1])
    if out.json:
        out.print({"published": made}, "")


# Names with one line each, and longer descriptions.


def listing(kind: str, registry: Registry, roots: list[Path] | None) -> list[tuple[str, str]]:
    """Return (name, one line) for everything of a kind; imports no torch."""
    import method_zoo
    from lpmoe_bench.config.recipes import load_recipes
    from lpmoe_bench.config.settings import LOSSES
    from lpmoe_bench.errors import UsageError
    from lpmoe_bench.metrics.extra import known_metrics
    from lpmoe_bench.metrics.protocols import PROTOCOLS
    from lpmoe_bench.model import decoders
    from lpmoe_bench.model.decoders.names import list_decoders
    from lpmoe_bench.records.store import find_records
    from lpmoe_bench.tables.published_figures import load_published

    if kind == "methods":
        return _first_lines(method_zoo, method_zoo.list_methods())
    if kind == "tasks":
        return [(t.name, f"{t.title}; protocol {t.protocol}") for t in registry.tasks.values()]
    if kind == "datasets":
        return [(d.name, d.title) for d in registry.datasets.values()]
    if kind == "protocols":
        return [(p.name, p.title) for p in PROTOCOLS.values()]
    if kind == "backbones":
        return list(options.BACKBONES.items())
    if kind == "decoders":
        return _first_lines(decoders, list_decoders())
    if kind == "recipes":
        return [(name, recipe.title) for name, recipe in load_recipes().items()]
    if kind == "published":
        tables = load_published().tables.values()
        return [(table.name, f"{table.title} ({table.level})") for table in tables]
    if kind == "metrics":
        return [(key, one.definition) for key, one in known_metrics().items()]
    if kind == "losses":
        return list(LOSSES.items())
    if kind == "settings":
        return [(name, f"{text} (default {default})") for name, default, text in _settings()]
    if kind == "runs":
        found = find_records(roots)
        return [
            (str(s.folder), f"{s.record.method.title}, {s.record.created}") for s in found.stored
        ]
    raise UsageError.unknown("kind to list", kind, KINDS)


def description(name: str, registry: Registry) -> list[tuple[str, str]]:
    """Return (field, text) about a method, task, data set, protocol, metric or recipe.

    Raises UsageError for an unknown name, and for a metric's name that means several.
    """
    import method_zoo
    from lpmoe_bench.config.recipes import describe_recipe, load_recipes
    from lpmoe_bench.config.settings import LOSSES, setting_fields
    from lpmoe_bench.errors import UsageError
    from lpmoe_bench.metrics import protocols
    from lpmoe_bench.metrics.extra import known_metrics
    from lpmoe_bench.metrics.facts import refuse_ambiguous
    from lpmoe_bench.metrics.protocols import PROTOCOLS
    from lpmoe_bench.model.decoders.names import list_decoders

    found: list[tuple[str, str]] = []
    if (method := method_zoo.method_name(name)) in method_zoo.list_methods():
        found += _describe_method(method)
    if name in registry.tasks:
        found += _fields("task", registry.tasks[name])
    if name in registry.datasets:
        found += _fields("data set", registry.datasets[name])
    if name in PROTOCOLS:
        found += protocols.explain_protocol(PROTOCOLS[name])
    if name in (metrics := known_metrics()):
        found += protocols.explain_metric(metrics[name])
    if name in options.BACKBONES:
        found += [("backbone", name), ("about", options.BACKBONES[name])]
    if name in list_decoders():
        found += _describe_decoder(name)
    if name in (recipes := load_recipes()):
        found += describe_recipe(name)
    if name in LOSSES:
        found += [("loss", name), ("about", LOSSES[name]), ("use", f"--set train.loss={name}")]
    if name in (settings := setting_fields()):
        found += _describe_setting(name)
    if not found:
        refuse_ambiguous(name)
        known = (method_zoo.list_methods(), registry.tasks, registry.datasets, PROTOCOLS, metrics)
        others = (options.BACKBONES, list_decoders(), recipes, settings, LOSSES)
        raise UsageError.unknown("name", name, [one for some in (*known, *others) for one in some])
    return found


def _settings() -> list[tuple[str, str, str]]:
    """Return name, default and meaning of every setting."""
    from lpmoe_bench.config.settings import setting_fields

    return [
        (name, _value(info.default), str(info.description))
        for name, info in setting_fields().items()
        if not isinstance(info.default, dict)
    ]


def _describe_setting(name: str) -> list[tuple[str, str]]:
    from lpmoe_bench.config.settings import setting_fields

    info = setting_fields()[name]
    extra = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
    roles = {
        "recipe": "recipe: changes the result and is part of the fingerprint",
        "protocol": "protocol: changes the score and is part of the fingerprint",
        "runtime": "runtime: where and how fast it computes; no part of the fingerprint",
        "label": "label: no part of the fingerprint",
    }
    words = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}
    limits = [
        f"{text} {getattr(one, key)}"
        for one in info.metadata
        for key, text in words.items()
        if hasattr(one, key)
    ]
    kind = getattr(info.annotation, "__name__", "") if isinstance(info.annotation, type) else ""
    return [
        ("setting", name),
        ("about", str(info.description)),
        ("type", kind or str(info.annotation).replace("typing.", "")),
        ("default", _value(info.default)),
        *([("limits", ", ".join(limits))] if limits else []),
        ("role", roles.get(str(extra.get("role")), "")),
        ("use", f"--set {name}=VALUE" if "." in name else f"--{name.replace('_', '-')} VALUE"),
    ]


def _value(value: object) -> str:
    return "none" if value in (None, "") else str(value).lower()


def _docstring(package: ModuleType, name: str) -> str:
    """Read the docstring of a method's or decoder's module without importing it."""
    path = Path(package.__path__[0]) / f"{name}.py"
    return ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or name


def _first_lines(package: ModuleType, names: list[str]) -> list[tuple[str, str]]:
    return [(name, _docstring(package, name).splitlines()[0]) for name in names]


def _describe_method(name: str) -> list[tuple[str, str]]:
    import method_zoo

    lines = [("method", name), ("about", _docstring(method_zoo, name))]
    cls = method_zoo.get_method(name)
    preset = ", ".join(f"train.{k}={v:g}" for k, v in cls.preset.items())
    return [
        *lines,
        ("title", cls.title),
        ("fidelity", cls.fidelity),
        ("options", _options(cls)),
        *_own_words(cls),
        ("preset", preset),
        ("mergeable", "yes" if cls.mergeable else f"no: {cls.unmergeable}"),
        ("starts as the frozen model", "yes" if cls.identity_at_init else "no"),
    ]


def _describe_decoder(name: str) -> list[tuple[str, str]]:
    from lpmoe_bench.model import decoders
    from lpmoe_bench.model.decoders.names import get_decoder

    cls = get_decoder(name)
    return [
        ("decoder", name),
        ("about", _docstring(decoders, name)),
        ("title", cls.title),
        ("fidelity", cls.fidelity),
        ("reads", READS[cls.reads]),
        ("options", _options(cls)),
        *_own_words(cls),
        (
            "starts from",
            f"--decoder-weights of {cls.published}, else random" if cls.published else "random",
        ),
    ]


def _options(cls: type) -> str:
    from method_zoo.options import signature_options

    return ", ".join(f"{k}={v}" for k, v in signature_options(cls).items()) or "none"


def _own_words(cls: type) -> list[tuple[str, str]]:
    own = vars(cls).get("__doc__")
    return [("", inspect.cleandoc(own))] if own else []


def _fields(kind: str, item: object) -> list[tuple[str, str]]:
    values = {k: v for k, v in vars(item).items() if not k.startswith("_")}
    name = str(values.pop("name", ""))
    shown = [(k.replace("_", " "), _plain(v)) for k, v in values.items() if v not in ("", None)]
    return [(kind, name), *shown]


def _plain(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    if isinstance(value, dict):
        return ", ".join(f"{k}: {v}" for k, v in value.items())
    return str(value)
