"""The page of parameter budgets: the counted tables as Markdown or JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from lpmoe_bench.errors import UsageError

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
