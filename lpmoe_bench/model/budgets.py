"""Trainable parameters of our methods, counted from models, beside the figures others print."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
import yaml

from lpmoe_bench.errors import UsageError
from lpmoe_bench.model.decoders.names import build_decoder
from lpmoe_bench.model.segmenter import CLASSES, blueprint_backbone
from method_zoo.adaroute import SIZES, Center, DynamicAdapter
from method_zoo.backbones.backbone import Backbone
from method_zoo.options import get_method


def budgets() -> dict[str, Any]:
    """Return {tables: tables with a printed column, grid: methods x backbones}.

    Every row of results/published/budgets.yaml gains `ours`, the parameters that train, and where a
    figure is printed `difference`, in millions with a sign.
    """
    content = yaml.safe_load(_published().read_text(encoding="utf-8"))
    tables = [table | {"rows": [*_rows(table)]} for table in content["tables"]]
    return {"tables": tables, "grid": _grid(content["grid"])}


def _published() -> Path:
    package = Path(__file__).parents[1]
    packaged = package / "published/budgets.yaml"  # in an installed wheel
    return packaged if packaged.exists() else package.parent / "results/published/budgets.yaml"


def _rows(table: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for row in table["rows"]:
        merged = {key: table[key] for key in ("backbone", "decoder") if key in table} | row
        ours = count_trainable(merged)
        share = 100 * ours / table["share_of"] if "share_of" in table else None
        found = merged | {"ours": ours, "share_percent": share, "difference": None}
        if "printed" in row:
            found["difference"] = _difference(ours, row["printed"])
        yield found


def _difference(ours: int, printed: str) -> str:
    """Return ours in millions, rounded as the source rounds, less what it prints, with a sign."""
    places = len(printed.partition(".")[2])
    difference = round(ours / 1e6, places) - float(printed)
    return f"{difference:+.{places}f}" if abs(difference) > 1e-9 else "0"


def count_trainable(row: Mapping[str, Any]) -> int:
    """Count what trains in the model of a row; its decoder too where the row names one."""
    if "stages" in row:
        return _adaroute_in_stages(**row["stages"])
    frozen = copy.deepcopy(_backbone(row["backbone"]))
    with torch.device("meta"):
        method = get_method(row["method"])(frozen, **row.get("options", {}))
        parts: list[torch.nn.Module] = [method]
        if "decoder" in row:
            parts.append(build_decoder(row["decoder"], method, CLASSES))
    return sum(p.numel() for part in parts for p in part.parameters() if p.requires_grad)


@cache
def _backbone(name: str) -> Backbone:
    return blueprint_backbone(name)


def _adaroute_in_stages(widths: list[int], depths: list[int], a_block: int) -> int:
    """Count AdaRoute's modules, centers and output norms on a backbone of several stages."""
    total = 0
    for width, depth in zip(widths, depths, strict=True):
        with torch.device("meta"):
            module = DynamicAdapter(width, 128, depth, len(SIZES), 16, 1.0)
            center = Center(width, 128, depth, SIZES)
        own, shared = (sum(p.numel() for p in part.parameters()) for part in (module, center))
        total += a_block * depth * own + shared + 2 * width
    return total


def _grid(grid: Mapping[str, Any]) -> dict[str, Any]:
    rows = []
    for row in grid["rows"]:
        counts = {
            label: count_trainable(row | {"backbone": name})
            for label, name in grid["backbones"].items()
        }
        rows.append(row | {"ours": counts})
    printed = []
    for figure in grid["printed"]:
        ours = next(row for row in rows if row["method"] == figure["method"])["ours"]
        difference = _difference(ours[figure["backbone"]], figure["millions"])
        printed.append(figure | {"difference": difference})
    return {"backbones": grid["backbones"], "rows": rows, "printed": printed}


# The page of parameter budgets: the counted tables as Markdown or JSON.


FORMATS = ("markdown", "json")
HEAD = """# Parameter budgets

Written by `lpmoe-bench profile --budget-table -o docs/budgets.md`. Ours are counted from the built
models, without weights; printed figures come from `results/published/budgets.yaml` with their
sources. The difference is ours, rounded as the source rounds, less the printed figure.
"""


def check_format(format: str) -> None:
    """Raise UsageError for a format that the page does not have."""
    if format not in FORMATS:
        raise UsageError(f"format is '{format}'; the budget table is {' or '.join(FORMATS)}")


def budget_page(budgets: Mapping[str, Any], format: str) -> str:
    """Return all tables, as lpmoe_bench.budgets counts them, as text."""
    if format == "json":
        return json.dumps(budgets, indent=2) + "\n"
    return "\n".join([HEAD, *map(_table_text, budgets["tables"]), _grid_text(budgets["grid"])])


def _table_text(table: Mapping[str, Any]) -> str:
    share = any(row["share_percent"] is not None for row in table["rows"])
    head = ["method", "setting", "ours", "ours (M)", "printed (M)", "difference"]
    lines = [head + ["share (%)"] * share + ["note"]]
    lines += [_line(row, share) for row in table["rows"]]
    facts = f"Printed by: {table['source']} ({table['level']})."
    return f"## {table['title']}\n\n{table['about']}\n{facts}\n\n{_markdown(lines, 2)}"


def _line(row: Mapping[str, Any], share: bool) -> list[str]:
    cells = [row["method"], row["setting"], f"{row['ours']:,}", f"{row['ours'] / 1e6:.3f}"]
    cells += [row.get("printed", "-"), row["difference"] or "-"]
    if share:
        text = f"{row['share_percent']:.3f}"
        cells.append(
            text + (f" (printed {row['printed_share']})" if "printed_share" in row else "")
        )
    return [*cells, row.get("note", "")]


def _grid_text(grid: Mapping[str, Any]) -> str:
    labels = list(grid["backbones"])
    lines = [["method", "setting", *labels]]
    for row in grid["rows"]:
        counts = [f"{row['ours'][label]:,}" for label in labels]
        lines.append([row["method"], row["setting"], *counts])
    about = "Encoder alone, without a decoder: " + ", ".join(
        f"{label} is {name}" for label, name in grid["backbones"].items()
    )
    figures = "\n".join(
        f"{f['method']} on {f['backbone']} is printed as {f['millions']} M by {f['source']} "
        f"({f['level']}); difference {f['difference']}."
        for f in grid["printed"]
    )
    return f"## Methods on the encoders of the literature\n\n{about}.\n{figures}\n\n" + _markdown(
        lines, 2
    )


def _markdown(lines: list[list[str]], left: int) -> str:
    """Return a table; the first `left` columns are text, the rest numbers up to a note."""
    rule = ["---" if i < left or name == "note" else "---:" for i, name in enumerate(lines[0])]
    rows = [lines[0], rule, *lines[1:]]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in rows) + "\n"
