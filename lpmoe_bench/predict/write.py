"""Maps and overlays of images as files; a broken image costs its own outputs alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from rich.markup import escape

from lpmoe_bench.console import Bar, Terminal
from lpmoe_bench.data.images import read_image
from lpmoe_bench.data.pictures import overlay
from lpmoe_bench.errors import DataError
from lpmoe_bench.evaluate import Predictor
from lpmoe_bench.files import write_atomically
from lpmoe_bench.predict.images import Source
from lpmoe_bench.predict.tiled import eight_bits, probability_map

JPEG_SIDE = 65500  # pixels, the most that a JPEG file holds


@dataclass(frozen=True)
class Written:
    """The two files of one image."""

    image: Path
    map: Path
    overlay: Path


def predict_images(
    predictor: Predictor,
    sources: Sequence[Source],
    output: Path,
    side: int | None,
    threshold: float | None,
    terminal: Terminal,
) -> tuple[list[Written], list[str]]:
    """Write `NAME.png`, the map at image size, and `NAME_overlay.jpg` for every image.

    side: see `probability_map`. threshold: of the probability; with it the map is 255 above and 0
    elsewhere. Returns what was written, and a sentence for each image that could not be read.
    """
    written: list[Written] = []
    failed: list[str] = []
    cut: list[str] = []
    with terminal.bar("predicting", len(sources)) as bar:
        for done, source in enumerate(sources):
            bar.update(done, len(sources))
            try:
                image = read_image(source.file)
            except DataError as error:
                failed.append(str(error))
                terminal.note(f"left out: {error}")
                continue
            if side is not None and max(image.shape[:2]) > side:
                cut.append(source.name.name)
            about = partial(_tell, bar, done, len(sources), source.name.name)
            pred = eight_bits(probability_map(predictor, image, side, about))
            written.append(_write(source, output, image, _binary(pred, threshold)))
        bar.update(len(sources), len(sources))
    if cut:
        terminal.note(
            f"{len(cut)} of {len(sources)} images were seen in windows of {side} pixels (such as "
            f"{cut[0]}), which find small objects and break large ones; --tile never sees an image "
            f"as a whole"
        )
    return written, failed


def _tell(bar: Bar, done: int, images: int, name: str, seen: int, windows: int) -> None:
    """Show how far a large image is."""
    if windows > 1:
        bar.update(done, images, escape(f"{name}, window {seen} of {windows}"))


def write_picture(path: Path, picture: np.ndarray) -> None:
    """Write a grey or RGB picture in the format of its suffix, at once or not at all."""
    pixels = picture if picture.ndim == 2 else picture[..., ::-1]
    write_atomically(path, cv2.imencode(path.suffix, pixels)[1].tobytes())


def _binary(pred: np.ndarray, threshold: float | None) -> np.ndarray:
    return pred if threshold is None else (pred > threshold * 255).astype(np.uint8) * 255


def _write(source: Source, output: Path, image: np.ndarray, pred: np.ndarray) -> Written:
    stem = output / source.name
    suffix = ".png" if max(pred.shape) > JPEG_SIDE else ".jpg"
    made = Written(
        source.file,
        stem.with_name(f"{stem.name}.png"),
        stem.with_name(f"{stem.name}_overlay{suffix}"),
    )
    write_picture(made.map, pred)
    write_picture(made.overlay, overlay(image, pred))
    return made
