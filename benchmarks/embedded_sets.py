"""IoU of a colour threshold, of a centred ellipse and of a trained lora on every embedded set.

Threshold and ellipse are the best there are for the very test scenes, masks known. The lora trains
through the code of `lpmoe-bench run --method lora --task T --embedded`; finished runs are kept.

    python benchmarks/embedded_sets.py [--tasks cod,road] [--size 256] [--epochs 3] [--limit 160]
        [--runs DIR] [--no-train] [--sheet docs/embedded.png] [--json]
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rich.console import Console
from rich.table import Table

from lpmoe_bench.console import Terminal
from lpmoe_bench.data.scenes.generate import COUNTS, SETS
from lpmoe_bench.files import write_atomically

# The tests of the drawn sets measure the same two priors.
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
from scene_priors import best_centred_ellipse, best_colour_threshold

ENOUGH = 0.2  # IoU by which the lora must be better than both
CELL = 116  # pixels, of a picture on the sheet
STEP = 6  # grey levels, to which the sheet is rounded to stay small


def priors(task: str, size: int) -> dict[str, float]:
    """Scores of both priors on the test scenes, drawn at a size that is enough for them."""
    drawn = SETS[f"generated_{task}"]
    pairs = [drawn.scene(index, "test", size=size) for index in range(COUNTS["test"])]
    images, masks = zip(*pairs, strict=True)
    return {
        "threshold": best_colour_threshold(images, masks),
        "ellipse": best_centred_ellipse(masks),
    }


def trained(task: str, args: argparse.Namespace) -> dict[str, Any]:
    """The mean IoU on the test scenes of a lora trained on the others."""
    from lightning_fabric import Fabric

    from lpmoe_bench.config.settings import parse_sets
    from lpmoe_bench.inference.predictor import new_predictor
    from lpmoe_bench.model.segmenter import load_trained
    from lpmoe_bench.training.plan import make_plan
    from lpmoe_bench.training.request import RunRequest
    from lpmoe_bench.training.run import execute

    flags = {"method": "lora", "task": task, "size": args.size}
    sets = parse_sets([f"train.epochs={args.epochs}", f"train.limit_train={args.limit}"])
    request = RunRequest(flags, sets, embedded=True, runs=args.runs)
    terminal = Terminal()
    plan = make_plan(request, terminal)
    execute(plan, terminal, False)
    segmenter, config = load_trained(plan.folder, request.cache)
    fabric = Fabric(accelerator=config.runtime.device, devices=1)
    predictor = new_predictor(config, segmenter.to(fabric.device), fabric)
    found = predictor.predictions(plan.tests[0].pairs)
    maps = [(pred > 127, truth.mask > 0) for _, pred, truth in found]
    overlaps = [(pred & mask).sum() / (pred | mask).sum() for pred, mask in maps]
    return {"lora": float(np.mean(overlaps)), "run": plan.id}  # not every protocol has an IoU


def sheet(path: Path, scenes: int = 2) -> None:
    """Write a picture: a column for each task, scenes over their masks."""
    columns = []
    for drawn in SETS.values():
        cells = [np.full((20, CELL, 3), 255, np.uint8)]
        cv2.putText(cells[0], drawn.task, (4, 15), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0))
        for index in range(scenes):
            for pixels in drawn.scene(index, "test", shape=(2 * CELL, 2 * CELL)):
                small = cv2.resize(pixels, (CELL, CELL), interpolation=cv2.INTER_AREA)
                cells.append(small if small.ndim == 3 else np.dstack([small] * 3))
        columns.append(cv2.copyMakeBorder(np.vstack(cells), 0, 0, 2, 2, 0, value=(255,) * 3))
    picture = np.hstack(columns)[..., ::-1]
    rounded = np.clip(np.rint(picture / STEP) * STEP, 0, 255).astype(np.uint8)
    flags = [cv2.IMWRITE_PNG_COMPRESSION, 9]
    write_atomically(path, cv2.imencode(".png", rounded, flags)[1].tobytes())


def table(rows: list[dict[str, Any]]) -> Table:
    out = Table(title="Mean IoU on the 64 test scenes of each embedded set")
    for name in ("task", "colour threshold", "centred ellipse", "lora", "lora is better by"):
        out.add_column(name, justify="left" if name == "task" else "right")
    for row in rows:
        cells = [f"{row[k]:.3f}" if k in row else "-" for k in ("threshold", "ellipse", "lora")]
        gap = f"{row['gap']:.3f}{'' if row['gap'] >= ENOUGH else ' (!)'}" if "gap" in row else "-"
        out.add_row(row["task"], *cells, gap)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tasks", default=",".join(each.task for each in SETS.values()))
    parser.add_argument("--size", type=int, default=256, help="image side for the lora")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--limit", type=int, default=160, help="training scenes at most")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--no-train", action="store_true", help="the two priors only")
    parser.add_argument("--sheet", type=Path, help="write a picture of all sets, nothing else")
    parser.add_argument("--json", action="store_true", help="machine output on stdout")
    args = parser.parse_args()
    if args.sheet:
        sheet(args.sheet)
        return
    rows = []
    for task in args.tasks.split(","):
        row: dict[str, Any] = {"task": task} | priors(task, 128)
        if not args.no_train:
            row |= trained(task, args)
            row["gap"] = row["lora"] - max(row["threshold"], row["ellipse"])
        rows.append(row)
    if args.json:
        facts = {"size": args.size, "epochs": args.epochs, "limit": args.limit}
        print(json.dumps(facts | {"rows": rows}, indent=1))
    else:
        Console().print(table(rows))


if __name__ == "__main__":
    main()
