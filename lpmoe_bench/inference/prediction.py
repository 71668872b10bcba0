"""Predictions and overlays of images as files; a broken image costs its own outputs alone."""

import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from rich.markup import escape

from lpmoe_bench.config.kinds import KINDS, Kind
from lpmoe_bench.config.settings import sides_text
from lpmoe_bench.console import Bar, Terminal
from lpmoe_bench.data.images import check_deep
from lpmoe_bench.data.loader import load_image
from lpmoe_bench.data.matching import SUFFIXES
from lpmoe_bench.data.object_drawing import LEAST_SCORE
from lpmoe_bench.data.object_files import ResultIds
from lpmoe_bench.data.pixels import UNDECLARED, PixelRules, pixel_rules
from lpmoe_bench.data.readers import Sides
from lpmoe_bench.errors import DataError, UsageError
from lpmoe_bench.files import write_atomically
from lpmoe_bench.inference.outputs import ListedImage
from lpmoe_bench.inference.predictor import Predictor
from lpmoe_bench.records.model import Record

# Which images files and folders mean, and what the outputs of each are called.


class ImageSource(NamedTuple):
    """An image file, and the relative path of its outputs, without their suffix."""

    file: Path
    name: Path


def find_images(
    places: Sequence[Path], output: Path, kind: Kind = KINDS["binary"]
) -> list[ImageSource]:
    """Return the images that files and folders mean, sorted, each once.

    Folders are searched with all that is below them, less hidden files and what lies in `output`.
    Outputs mirror the tree below the folder, or below the nearest folder that holds everything that
    is named. Where two images differ in their suffix alone it becomes part of the name. Raises
    UsageError where there are none, or where an output would overwrite one, or a file beside it.
    kind: of what is predicted.
    """
    # Not resolved: links keep the names that the user knows, and the outputs get these.
    named = [Path(os.path.abspath(place)) for place in places]
    files: set[Path] = set()
    for path in named:
        files.update(_inside(path, output) if path.is_dir() else [path])
    if not files:
        raise UsageError(
            f"no images in {', '.join(map(str, places))}; name files, or folders of "
            f"{', '.join(SUFFIXES)}"
        )
    # The nearest folder that holds everything named, itself a named one if it is alone.
    root = Path(os.path.commonpath([p if p.is_dir() else p.parent for p in named]))
    plain = {file: file.relative_to(root).with_suffix("") for file in sorted(files)}
    shared = Counter(plain.values())
    found = [
        ImageSource(file, name if shared[name] == 1 else name.with_name(file.name))
        for file, name in plain.items()
    ]
    _check_outputs(found, output, kind.outputs.suffix)
    return found


def _check_outputs(sources: list[ImageSource], output: Path, suffix: str) -> None:
    """Raise UsageError where a prediction would lie in the place of an image, of what somebody
    keeps beside it, or of another prediction."""
    # Resolved here: two ways to one file would overwrite it all the same.
    place = output.resolve()
    files = {source.file.resolve(): source.file for source in sources}
    names = Counter(source.name for source in sources)
    for source in sources:
        for ending in (".png", "_overlay.jpg", suffix):
            there = files.get(place / f"{source.name}{ending}")
            if there is not None:
                raise UsageError(f"{there} would be overwritten; choose another folder with -o")
        # Such as labels, which programs write as JSON beside the image.
        own = place / f"{source.name}{suffix}"
        if suffix not in SUFFIXES and own.parent == source.file.resolve().parent and own.exists():
            raise UsageError(f"{own} would be overwritten; choose another folder with -o")
        if f"{source.name}{suffix}" == RESULTS:
            raise UsageError(
                f"{source.file} would be predicted as {RESULTS}, which holds the results of all "
                f"images; give it another name"
            )
        if names[source.name] > 1:
            raise UsageError(f"two images would be called {source.name}; predict them one by one")


def _inside(folder: Path, output: Path) -> Iterator[Path]:
    """Yield the images in and below a folder."""
    skipped = output.resolve()
    for place, inner, names in os.walk(folder):
        here = Path(place)
        inner[:] = [n for n in inner if n[0] != "." and (here / n).resolve() != skipped]
        for name in names:
            if name[0] != "." and name.lower().endswith(SUFFIXES):
                yield here / name


def image_rules(record: Record, declared: PixelRules = UNDECLARED) -> PixelRules:
    """Return what is declared of images: by the user, else what the run was trained on had."""
    trained = record.data.train
    of_run = pixel_rules(trained.pixels) if trained else UNDECLARED
    return PixelRules(bands=declared.bands or of_run.bands, range=declared.range or of_run.range)


RESULTS = "predictions.json"  # of all images
JPEG_SIDE = 65500  # pixels, the most that a JPEG file holds


@dataclass(frozen=True)
class Written:
    """The two files of one image; map: of its prediction, whatever that is."""

    image: Path
    map: Path
    overlay: Path


def predict_images(
    predictor: Predictor,
    sources: Sequence[ImageSource],
    output: Path,
    window: Sides | None,
    threshold: float | None,
    terminal: Terminal,
    rules: PixelRules = UNDECLARED,
    ids: ResultIds | None = None,
) -> tuple[list[Written], list[str]]:
    """Write the prediction of every image at its size, `NAME.png` or of detections `NAME.json`,
    and `NAME_overlay.jpg`; of detections also `predictions.json`, COCO's results of all images.

    Args:
        predictor: the run's.
        sources: the images.
        output: the folder.
        window: see `response_map`.
        threshold: of the probability: the map is 255 above and 0 elsewhere; or of a detection's
            score: those below are left out.
        terminal: for progress and notes.
        rules: what is declared of the images' values.
        ids: of images and classes in `predictions.json`; None to count images in their order, and
            classes, from 1.

    Returns:
        What was written, and a sentence for each image that could not be read.

    Raises:
        DataError: 16-bit images of which nobody knows the range.
        UsageError: windows or a threshold for what has none.
    """
    predictor.check_window(window)
    check_deep((source.file for source in sources), rules)
    outputs, written = predictor.outputs, list[Written]()
    listed: list[str] = []  # texts, which are smaller than what they say
    unsure: list[str] = []
    failed: list[str] = []
    cut: list[str] = []
    with terminal.bar("predicting", len(sources)) as bar:
        for done, source in enumerate(sources):
            bar.update(done, len(sources))
            try:
                image = load_image(source.file, rules, predictor.version)
            except DataError as error:
                # The others of a long list are not to wait until somebody mends it.
                failed.append(str(error))
                terminal.note(f"left out: {error}")
                continue
            if window and any(a > b for a, b in zip(image.shape, window, strict=False)):
                cut.append(source.name.name)
            about = partial(_tell, bar, done, len(sources), source.name.name)
            pred = predictor.prediction(image, window, about)
            if threshold is not None:
                pred = outputs.cut(pred, threshold)
            # JPEG for the overlay, which is looked at and never scored.
            suffix = ".png" if max(image.shape) > JPEG_SIDE else ".jpg"
            stem = output / source.name
            map_file = stem.with_name(f"{stem.name}{outputs.suffix}")
            overlay_file = stem.with_name(f"{stem.name}_overlay{suffix}")
            write_atomically(map_file, outputs.encoded(pred, predictor.shown))
            seen = image if image.dtype == np.uint8 else (image * 255 + 0.5).astype(np.uint8)
            write_picture(overlay_file, outputs.drawn(seen, pred, predictor.shown, threshold))
            written.append(Written(source.file, map_file, overlay_file))
            if outputs.listed:
                own = outputs.entries(_listed(source, done, image, ids), pred, predictor.shown)
                listed += map(json.dumps, own)
                if own and threshold is None and max(one["score"] for one in own) < LEAST_SCORE:
                    unsure.append(source.name.name)
        bar.update(len(sources), len(sources))
    if outputs.listed:
        text = "[" + ",\n".join(listed) + "]\n"
        write_atomically(output / RESULTS, text.encode())
    if unsure:
        terminal.note(
            f"overlays of {len(unsure)} of {len(sources)} images (such as {unsure[0]}) show "
            f"nothing, for no score reaches {LEAST_SCORE:g}; --threshold shows lower ones"
        )
    if cut and window and window != predictor.window:
        terminal.note(
            f"{len(cut)} of {len(sources)} images were seen in windows of {sides_text(window)} "
            f"pixels (such as "
            f"{cut[0]}), which find small objects and break large ones; maps that are scored are "
            f"made as without --tile"
        )
    return written, failed


def _listed(
    source: ImageSource, place: int, image: np.ndarray, ids: ResultIds | None
) -> ListedImage:
    """Return an image as `predictions.json` names it."""
    file = (source.name.parent / source.file.name).as_posix()
    shape = (image.shape[0], image.shape[1])
    if ids is None:
        return ListedImage(file, shape, place + 1)
    return ListedImage(file, shape, ids.images[source.name.as_posix()], ids.classes)


def _tell(bar: Bar, done: int, images: int, name: str, seen: int, windows: int) -> None:
    """Show how far a large image is."""
    if windows > 1:
        bar.update(done, images, escape(f"{name}, window {seen} of {windows}"))


def write_picture(path: Path, picture: np.ndarray) -> None:
    """Write a grey or RGB picture in the format of its suffix, at once or not at all."""
    pixels = picture if picture.ndim == 2 else picture[..., ::-1]
    write_atomically(path, cv2.imencode(path.suffix, pixels)[1].tobytes())
