"""Drawn sets that tests of the audit share, and how they are audited."""

from pathlib import Path

import cv2
import numpy as np
from drawn_files import square_mask, write

from lpmoe_bench.console import Terminal
from lpmoe_bench.data.audit.audit import audit_sets
from lpmoe_bench.data.audit.groups import Audit
from lpmoe_bench.data.registry import Dataset

QUIET = Terminal(quiet=True)


def scene(seed: int, shape=(150, 200)) -> np.ndarray:
    """A photograph-like image: blobs of several sizes and grain, uint8 RGB."""
    draw = np.random.default_rng(seed)
    pixels = np.zeros((*shape, 3), np.float32)
    for sigma, weight in ((40, 3000), (12, 800), (4, 250), (1.5, 60)):
        pixels += weight * cv2.GaussianBlur(
            draw.normal(size=(*shape, 3)).astype(np.float32), (0, 0), sigma
        )
    return np.clip(128 + pixels, 0, 255).astype(np.uint8)


def place(root: Path, name: str, stem: str, pixels: np.ndarray, suffix=".png") -> None:
    write(root / name / "images" / f"{stem}{suffix}", pixels)
    write(root / name / "masks" / f"{stem}.png", square_mask(pixels.shape[:2]))


def lists(root: Path, name: str, **splits: str) -> Dataset:
    for split, stems in splits.items():
        (root / name / f"{split}.txt").write_text("\n".join(stems.split()) + "\n")
    facts = {"name": name, "title": name, "task": "cod"}
    return Dataset.model_validate(facts | {"splits": {s: f"{s}.txt" for s in splits}})


def look(root: Path, *sets: Dataset, cache: Path | None = None) -> Audit:
    return audit_sets(sets, root, cache or root / "cache", QUIET, None, "not asked")


def found(audit: Audit) -> set[tuple[str, str, str, bool]]:
    return {(t.one, t.other, t.kind, t.mirrored) for t in audit.twins}
