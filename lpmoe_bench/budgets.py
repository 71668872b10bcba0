"""Trainable parameters of our methods, counted from models, beside the figures others print."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
import yaml

from lpmoe_bench.blueprint import blueprint_backbone
from lpmoe_bench.decoders import build_decoder
from lpmoe_bench.trained__build import CLASSES
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
    here = Path(__file__)
    packaged = here.with_name("published") / "budgets.yaml"  # in an installed wheel
    return packaged if packaged.exists() else here.parents[1] / "results/published/budgets.yaml"


def _rows(table: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for row in table["rows"]:
        merged = {key: table[key] for key in ("backbone", "decoder") if key in table} | row
        ours = count(merged)
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


def count(row: Mapping[str, Any]) -> int:
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
            label: count(row | {"backbone": name}) for label, name in grid["backbones"].items()
        }
        rows.append(row | {"ours": counts})
    printed = []
    for figure in grid["printed"]:
        ours = next(row for row in rows if row["method"] == figure["method"])["ours"]
        difference = _difference(ours[figure["backbone"]], figure["millions"])
        printed.append(figure | {"difference": difference})
    return {"backbones": grid["backbones"], "rows": rows, "printed": printed}
