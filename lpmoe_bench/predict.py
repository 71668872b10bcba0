"""Predictions of trained runs as files: maps, overlays, and methods side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from lightning.fabric import Fabric

from lpmoe_bench.config import RunConfig
from lpmoe_bench.data import image_tensor
from lpmoe_bench.errors import UsageError
from lpmoe_bench.evaluate import Predictor, to_map
from lpmoe_bench.files import write_atomically
from lpmoe_bench.images import read_image
from lpmoe_bench.model import Segmenter
from lpmoe_bench.pictures import grid, overlay
from lpmoe_bench.record import read_record
from lpmoe_bench.registry.pairs import SUFFIXES, Pair, read_pair
from lpmoe_bench.trained import load_trained

Report = Callable[[int, int], None]


def predict(
    run: Path, images: Sequence[Path], output: Path, cache: Path, offline: bool, report: Report
) -> None:
    """Write `<name>.png`, the map at image size, and `<name>_overlay.jpg` for every image.

    `images` are files or folders. Raises UsageError where there are none or two share a name, and
    DataError for an unreadable image or run.
    """
    files = _files(images)
    predictor = _predictor(*load_trained(run, cache, offline))
    for done, path in enumerate(files, start=1):
        image = read_image(path)
        pred = _predict(predictor, image)
        _write(output / f"{path.stem}.png", pred)
        _write(output / f"{path.stem}_overlay.jpg", overlay(image, pred)[..., ::-1])
        report(done, len(files))


def side_by_side(
    runs: Sequence[Path], pairs: Sequence[Pair], output: Path, cache: Path, offline: bool
) -> None:
    """Write one picture: a row for each pair, with image, mask and the map of every run."""
    rows = [list(read_pair(pair)) for pair in pairs]
    titles = ["image", "mask"]
    for run in runs:
        titles.append(read_record(run).method.title)
        predictor = _predictor(*load_trained(run, cache, offline))
        for row in rows:
            row.append(_predict(predictor, row[0]))
    _write(output, grid(titles, rows)[..., ::-1])


def _predictor(segmenter: Segmenter, config: RunConfig) -> Predictor:
    accelerator = "cuda" if torch.cuda.is_available() else "cpu"
    fabric = Fabric(accelerator=accelerator, devices=1)
    return Predictor(segmenter.to(fabric.device), fabric, config.size)


def _predict(predictor: Predictor, image: np.ndarray) -> np.ndarray:
    """Return the 8-bit map of an RGB image at its own size."""
    pred = predictor.probabilities(image_tensor(image, predictor.size)[None])
    return to_map(pred, image.shape[:2])


def _files(places: Sequence[Path]) -> list[Path]:
    files: list[Path] = []
    for place in places:
        inside = sorted(place.iterdir()) if place.is_dir() else [place]
        files += [p for p in inside if not place.is_dir() or p.suffix.lower() in SUFFIXES]
    if not files:
        raise UsageError(f"no images in {', '.join(map(str, places))}; name files or folders")
    stems = [path.stem for path in files]
    double = next((stem for stem in stems if stems.count(stem) > 1), None)
    if double is not None:
        raise UsageError(f"two images are called {double}; predict them into different folders")
    return files


def _write(path: Path, picture: np.ndarray) -> None:
    write_atomically(path, cv2.imencode(path.suffix, picture)[1].tobytes())
