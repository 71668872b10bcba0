"""Folders of masks and of maps that tests of `score` share."""

from pathlib import Path

import cv2
import numpy as np
from typer.testing import CliRunner

from lpmoe_bench.cli.app import app
from lpmoe_bench.console import Terminal
from lpmoe_bench.records.store import read_record, read_rows
from lpmoe_bench.scoring import scoring
from lpmoe_bench.scoring.plan import ScoreRequest, plan_scores

runner = CliRunner()


def save(path: Path, pixels: np.ndarray) -> Path:
    """Write pixels as they are, channels in cv2's order, in the format of the suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(path.suffix, pixels)[1].tobytes())
    return path


def draw_mask(seed: int, shape: tuple[int, int] = (24, 36)) -> np.ndarray:
    rng = np.random.default_rng(seed)
    mask = np.zeros(shape, np.uint8)
    center = int(rng.integers(10, 26)), int(rng.integers(8, 16))
    cv2.circle(mask, center, int(rng.integers(4, 8)), 255, -1)
    return mask


def draw_map(seed: int, noise: float = 60.0, shape: tuple[int, int] = (24, 36)) -> np.ndarray:
    """A soft version of the mask of that seed, from 0 to 255."""
    soft = cv2.GaussianBlur(draw_mask(seed, shape).astype(np.float64), (0, 0), 2)
    soft += np.random.default_rng(seed + 1000).uniform(0, noise, shape)
    return np.round((soft - soft.min()) / (soft.max() - soft.min()) * 255).astype(np.uint8)


def draw_folders(root: Path, count: int = 6, methods: tuple[str, ...] = ("A", "B")) -> Path:
    """Write root/masks and, for each method, root/NAME with maps that get weaker; return root."""
    for seed in range(count):
        save(root / "masks" / f"p{seed}.png", draw_mask(seed))
        for index, method in enumerate(methods):
            save(root / method / f"p{seed}.png", draw_map(seed, 60.0 + 120 * index))
    return root


class Notes(Terminal):
    """A silent terminal that remembers its notes."""

    def __init__(self):
        super().__init__(quiet=True)
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def score_folders(root: Path, *methods: str, **options):
    """Score root/NAME for each method against root/masks; return outcome, notes and the plan."""
    options = {"protocol": "cod", "runs": root / "runs", "jobs": 1, "gt": root / "masks"} | options
    options["folders"] = [root / method for method in methods or ("A",)]
    request, terminal = ScoreRequest(**options), Notes()
    plan = plan_scores(request, terminal)
    return scoring.score_folders(plan, request, terminal), [*plan.notes, *terminal.notes], plan


def stored(outcome, index: int = 0):
    """The record and the rows of one folder, read back from disk."""
    folder = outcome.records[index].folder
    return read_record(folder), read_rows(folder / "per_image.csv")


def label(root: Path) -> str:
    """The test set that root/masks is called."""
    return f"{root.name}/masks"


def out(root, *arguments, folders=("A",)):
    """Call the command on root/NAME for each folder."""
    return runner.invoke(
        app,
        [
            *("score", *(str(root / name) for name in folders), "--gt", str(root / "masks")),
            *("--runs", str(root / "runs"), "--jobs", "1", *arguments),
        ],
        env={"COLUMNS": "200", "LPMOE_BENCH_CACHE": str(root / "cache")},
    )
