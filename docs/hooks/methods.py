"""A page a method, the list of all and the budgets, from the code and from the published figures.

What a method's page says stands in its own file: the equation in the module's docstring, the
meaning of its options in the class's. Published rows are read from `results/published/`.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import yaml
from reference import ROOT, code, shown, table, write

PUBLISHED = ROOT / "results" / "published"
COUNTED_ON = {"ViT-S": "vit_small_patch16_224", "ViT-B": "vit_base_patch16_224"}
COUNTS = {"method": "the method alone", "with_decoder": "all that trains", "total": "the model"}


def on_config(config: Any) -> Any:
    """Put an entry for each method behind those that mkdocs.yml lists under Methods."""
    for entry in config.nav:
        if "Methods" in entry:
            entry["Methods"] += [{title(name): f"methods/{name}.md"} for name in methods()]
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the pages of the methods to those that lie in docs/."""
    from mkdocs.structure.files import File

    for name in methods():
        files.append(File.generated(config, f"methods/{name}.md", content=method_page(name)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Write what a page asks for in the place where it asks."""
    return write(markdown, WRITERS)


@cache
def methods() -> list[str]:
    from method_zoo.options import zoo_methods

    return zoo_methods()


def title(name: str) -> str:
    import method_zoo

    return method_zoo.get_method(name).title


@cache
def counted() -> Mapping[str, Any]:
    from lpmoe_bench.model.costs import budgets

    return budgets()


@cache
def count(name: str, backbone: str) -> int:
    from lpmoe_bench.model.costs import count_trainable

    return count_trainable({"method": name, "backbone": backbone})


def backbones(name: str) -> dict[str, str]:
    """The backbones that a method is counted on, by label: its own where it takes no ViT."""
    import method_zoo

    own = list(method_zoo.get_method(name).made_for.values())
    return {backbone: backbone for backbone in own} or COUNTED_ON


# What a method does to a backbone, in the order of the list.
STEPS = (
    "leaves it alone",
    "trains weights of it",
    "changes layers",
    "works between or within blocks",
    "runs beside it",
)


@cache
def step(name: str) -> str:
    """What a method does to its backbone, told from its class and from what it has built."""
    import torch

    import method_zoo
    from method_zoo.backbones.linear import Wrapped

    cls = method_zoo.get_method(name)
    own = {part for part in ("block", "prefix", "forward") if part in vars(cls)}
    if own:
        return STEPS[3 if "block" in own else 4]
    with torch.device("meta"):
        method = cls(method_zoo.create_backbone(next(iter(backbones(name).values()))))
    if any(isinstance(module, Wrapped) for module in method.modules()):
        return STEPS[2]
    return STEPS[1 if method.trainable() else 0]


def method_list() -> str:
    import method_zoo

    rows = []
    for name in sorted(methods(), key=lambda name: (STEPS.index(step(name)), name)):
        cls = method_zoo.get_method(name)
        counts = [f"{count(name, backbone):,}" for backbone in backbones(name).values()]
        if cls.made_for:
            counts = [f"{counts[0]} on {next(iter(cls.made_for.values()))}", ""]
        rows.append([step(name), f"[{name}]({name}.md)", cls.title, cls.paper, *counts,
                     "yes" if cls.mergeable else "no"])  # fmt: skip
    head = ("the backbone: it", "method", "title", "paper", *COUNTED_ON, "can be merged")
    return table(head, rows)


def method_page(name: str) -> str:
    import method_zoo

    cls = method_zoo.get_method(name)
    first, _, equation = (inspect.getdoc(inspect.getmodule(cls)) or "").partition("\n")
    counted_on = backbones(name).items()
    counts = ", ".join(f"{count(name, backbone):,} on {label}" for label, backbone in counted_on)
    own = "".join(f" --backbone {backbone}" for backbone in [*cls.made_for.values()][:1])
    preset = ", ".join(f"`train.{key}={value:g}`" for key, value in cls.preset.items())
    merged = "yes" if cls.mergeable else f"no: {cls.unmergeable}"
    facts = [
        ("name", code(name)),
        ("run it", code(f"lpmoe-bench run --method {name} --task cod{own}")),
        ("parameters that train", f"{counts} (default options, no decoder)"),
        ("preset", f"{preset}; not searched for"),
        ("decoder by default", code(cls.decoder)),
        ("starts as the frozen model", "yes" if cls.identity_at_init else "no"),
        ("can be merged into the backbone", merged),
    ]
    parts = [
        f"# {cls.title}\n\n{first}\n\n## Equation\n\n```text\n{equation.strip()}\n```\n",
        f"## How faithful it is\n\n{cls.fidelity[:1].upper()}{cls.fidelity[1:]}.\n",
        f"## Facts\n\n{table(('fact', ''), facts)}",
        f"## Options\n\n{options(cls)}",
        f"## Parameters beside printed ones\n\n{budget_rows(name)}",
        f"## Published rows\n\n{published(name)}",
    ]
    return "\n".join(parts)


def options(cls: type) -> str:
    """The options of a class; their meanings are those of its docstring, `name: meaning.`"""
    from method_zoo.options import signature_options

    known = signature_options(cls)
    if not known:
        return "None.\n"
    own = " ".join(str(vars(cls).get("__doc__") or "").split())
    pieces = re.split(rf"\b({'|'.join(known)}): ", own)
    said = dict(zip(pieces[1::2], pieces[2::2], strict=True))
    rows = [
        [code(option), shown(default), said.get(option, "see the equation").strip()]
        for option, default in known.items()
    ]
    lead = f"{pieces[0].strip()}\n\n" if pieces[0].strip() else ""
    return lead + table(("option", "default", "meaning"), rows)


def budget_rows(name: str) -> str:
    rows = []
    for one in counted()["tables"]:
        for row in one["rows"]:
            if row["method"] == name:
                printed = row.get("printed", "-")
                rows.append([one["title"], row["setting"], f"{row['ours']:,}", printed,
                             row["difference"] or "-", row.get("note", "")])  # fmt: skip
    if not rows:
        return "No source that we know prints a count of it that can be set beside ours.\n"
    head = ("table", "setting", "ours", "printed (M)", "difference (M)", "note")
    return table(head, rows) + "\nSources are named in [Parameter budgets](budgets.md).\n"


def budget_tables() -> str:
    from lpmoe_bench.model.costs import budget_page

    page = budget_page(counted(), "markdown")
    return page[page.index("\n## ") :]  # its head stands in the page itself


@cache
def figures() -> tuple[Mapping[str, Any], list[Mapping[str, Any]]]:
    """The test sets by their short name, and the tables that others published."""
    files = [path for path in sorted(PUBLISHED.glob("*.yaml")) if path.name != "budgets.yaml"]
    contents = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in files]
    sets = {k: v for content in contents for k, v in content.get("sets", {}).items()}
    return sets, [one for content in contents for one in content.get("tables", [])]


def published(name: str) -> str:
    sets, tables = figures()
    text = ""
    for one in tables:
        rows = [row for row in one["rows"] if row.get("method") == name]
        columns = [c for c in one["columns"] if any(c in row["values"] for row in rows)]
        if not columns:
            continue
        parts = [(sets[c.partition(".")[0]], one["metrics"][c.partition(".")[2]]) for c in columns]
        labels = [f"{images['title']} {metric['label']}" for images, metric in parts]
        lines = [[printed_name(row, one), *(figure(one, row, c) for c in columns)] for row in rows]
        backbone = f", {one['backbone']}" if one.get("backbone") else ""
        text += (
            f"**{one['title']}**{backbone}. {one['source']} ({one['level']}). "
            f"Conditions: {one['protocol']}.\n\n"
            f"{table(['', *labels], lines)}\n"
        )
    return text or "None that we know.\n"


def printed_name(row: Mapping[str, Any], of: Mapping[str, Any]) -> str:
    words = [row["title"], row.get("backbone", "")]
    if "parameters_millions" in row:
        words.append(
            f"{row['parameters_millions']} M ({COUNTS.get(of.get('parameters'), 'as printed')})"
        )
    return ", ".join(filter(None, words))


def figure(of: Mapping[str, Any], row: Mapping[str, Any], column: str) -> str:
    """A figure as its source prints it, with ± where it has one and a star where it is in doubt."""
    if column not in row["values"]:
        return ""
    metric = of["metrics"][column.partition(".")[2]]
    times = 100 if metric["unit"] == "percent" else 1
    text = f"{times * row['values'][column]:.{metric['decimals']}f}"
    if column in row.get("pm", {}):
        text += f" ± {times * row['pm'][column]:.{metric.get('pm_decimals', 0)}f}"
    return text + ("\\*" if column in row.get("flags", {}) else "")


WRITERS: dict[str, Callable[[], str]] = {"methods": method_list, "budgets": budget_tables}
