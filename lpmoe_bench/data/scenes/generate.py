"""The embedded sets by name, and folders of scenes drawn for whoever wants to see them.

A seed gives the same pixels on every machine: random numbers are raw PCG64 words, every step after
them is continuous or in integers, and the rounding to 8 bits comes last.
"""

import errno
import json
import os
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from lpmoe_bench.console import OnProgress
from lpmoe_bench.data.labels import VOID, class_colours, palette_png
from lpmoe_bench.data.object_writing import coco_json, panoptic_json
from lpmoe_bench.data.objects import Objects, box_of_runs
from lpmoe_bench.data.pixels import UNDECLARED, PixelRules, pixel_rules
from lpmoe_bench.data.scenes import (
    cod,
    glass,
    leaf,
    objects,
    polyp,
    road,
    semantic,
    shadow,
    skin,
    sod,
)  # fmt: skip
from lpmoe_bench.data.scenes.drawing import Shape
from lpmoe_bench.data.scenes.embedded import UNTOLD, EmbeddedSet
from lpmoe_bench.errors import DataError, ResourceError, UsageError
from lpmoe_bench.files import sha256_file, sync_folder, write_failure
from lpmoe_bench.metrics.runs import areas_of, runs_of_pixels

COUNTS = {"train": 160, "test": 64}
TASKS = (cod, sod, polyp, skin, shadow, glass, leaf, road, semantic, objects)
SETS = {each.SET.name: each.SET for each in TASKS}


def ensure_generated(
    name: str,
    root: Path,
    report: OnProgress | None = None,
    *,
    counts: Mapping[str, int] | None = None,
    shape: Shape | None = None,
    seed: int = 0,
) -> Path:
    """Return the folder of an embedded set under root, drawing it first where it is not there.

    `report` is told (scenes drawn, all scenes). Raises UsageError for an unknown set, ResourceError
    when it cannot be written, and DataError where a scene was changed after it was drawn.
    """
    if name not in SETS:
        raise UsageError.unknown("embedded set", name, SETS)
    counts = dict(counts or COUNTS)
    # Whatever decides the pixels is part of the name: a folder that is there is never drawn again.
    sides = "" if shape is None else f"-{shape[0]}x{shape[1]}"
    amounts = "" if counts == COUNTS else "-" + "-".join(f"{k}{n}" for k, n in counts.items())
    folder = root / f"{name}-{SETS[name].version}-s{seed}{sides}{amounts}"
    return draw_folder(folder, SETS[name], counts, report, shape=shape, seed=seed)


def generated_labels(folder: Path, split: str, formats: Sequence[str]) -> tuple[str, list[Path]]:
    """Return the format of a drawn set of objects that a kind of task reads, and the files of a
    split's labels; empty where the folder holds masks.

    formats: that are read, of COCO's objects and panoptic labels.
    """
    files = {
        "coco": [folder / f"{INSTANCES}_{split}.json"],
        "coco_panoptic": [folder / f"{PANOPTIC}_{split}.json", folder / PANOPTIC],
    }
    there = (form for form in files if form in formats and files[form][0].is_file())
    form = next(there, "")
    return form, files.get(form, [])


def generated_classes(name: str, formats: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the classes of an embedded set that a kind of task reads, and which are things.

    formats: that are read. COCO's file of objects lists the things alone.
    """
    drawn = SETS[name]
    if drawn.things and "coco" in formats:
        return drawn.things, ()
    return drawn.classes, drawn.things


def generated_rules(folder: Path) -> PixelRules:
    """Return what the masks of a drawn folder mean: their classes where it lists some."""
    if not (folder / CLASS_LIST).is_file():
        return UNDECLARED
    return pixel_rules({"labels": {"format": "index", "classes": CLASS_LIST}}, folder)


TEST_PART = 2 / 7  # as in the embedded sets: 64 of 224
SIZES = (32, 4096)


def generate_folder(
    task: str,
    output: Path,
    count: int = 224,
    size: int = 352,
    seed: int = 0,
    empty: float = 0.0,
    report: OnProgress | None = None,
) -> Path:
    """Draw `count` scenes of a task into the new folder `output` and return it.

    Layout: images/, masks/, train.txt, test.txt (two of seven scenes), SOURCE.txt and SHA256SUMS,
    as `sha256sum -c` reads it. `size` is the
    longer side in pixels; `empty` the part of the scenes without any object, for tasks that know
    such images; `report` is told (scenes drawn, all scenes). A scene depends on task, seed, split,
    index and size alone. Raises UsageError for what cannot be drawn or a folder that exists.
    """
    sets = {each.task: each for each in SETS.values()}
    if task not in sets:
        raise UsageError.unknown("task with drawn scenes", task, sets)
    if count < 2:
        raise UsageError(f"--count is {count}; it must be at least 2: one to train, one to test")
    if not SIZES[0] <= size <= SIZES[1]:
        raise UsageError(f"--size is {size}; choose {SIZES[0]} to {SIZES[1]} pixels")
    if seed < 0:
        raise UsageError(f"--seed is {seed}; it must be at least 0")
    if not 0 <= empty <= 1:
        raise UsageError(f"--empty is {empty}; it is a part of all scenes, 0 to 1")
    able = [name for name, each in sets.items() if each.draw_empty]
    if empty and task not in able:
        raise UsageError(
            f"--empty is {empty}, but every image of {task} has an object; drop it, or choose "
            f"{', '.join(able)}"
        )
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UsageError(f"{output} exists already; choose a new folder, or delete it first")
    if output.is_dir():
        output.rmdir()  # empty; the finished folder takes its name
    tests = max(1, round(count * TEST_PART))
    counts = {"train": count - tests, "test": tests}
    return draw_folder(output, sets[task], counts, report, seed=seed, size=size, empty=empty)


# A folder of drawn scenes: a kill leaves nothing that is used, and two processes do not disturb
# each other.

DAY_SECONDS = 86400
CHECKSUMS = "SHA256SUMS"  # as `sha256sum -c` reads it
CLASS_LIST = "classes.txt"  # of a set of label maps, a name a line
INSTANCES, PANOPTIC = "instances", "panoptic"  # how files of objects begin, and their folder


def draw_folder(
    folder: Path, drawn: EmbeddedSet, counts: dict[str, int], report: OnProgress | None, **how: Any
) -> Path:
    """Return a folder of scenes, drawing it first where it is not there.

    Layout: images/, masks/, one list a split, SOURCE.txt, SHA256SUMS, and classes.txt beside label
    maps, which have palettes. how: the seed, and what else
    a scene may be given: shape, size, empty. `report` is told (scenes drawn, all scenes). Raises
    ResourceError when it cannot be written, DataError for scenes that were changed.
    """
    if folder.is_dir():
        _check_drawn(folder)
        return folder
    # Drawn beside its place and renamed when it is complete: who finds the folder may use it.
    drafts = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        for left in folder.parent.glob(f".{folder.name}.*"):  # by a kill: nobody draws for a day
            if time.time() - left.stat().st_mtime > DAY_SECONDS:
                shutil.rmtree(left, ignore_errors=True)
        drafts = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        drafts.chmod(0o755)  # mkdtemp lets nobody else read
        _write(drafts, drawn, counts, report or (lambda done, total: None), how)
        os.rename(drafts, folder)
        sync_folder(folder.parent)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST) and folder.is_dir():
            return folder  # another process was faster
        raise ResourceError(write_failure(folder, error)) from error
    finally:
        if drafts is not None:
            shutil.rmtree(drafts, ignore_errors=True)
    return folder


def _check_drawn(folder: Path) -> None:
    """Hold scenes against their checksums; folders of earlier versions have none.

    A scene that was changed would be other data, and its run another run, without a word.
    """
    try:
        lines = (folder / CHECKSUMS).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return
    for expected, _, name in (line.partition("  ") for line in lines):
        try:
            same = sha256_file(folder / name) == expected
        except OSError:
            same = False
        if not same:
            raise DataError(
                f"{folder / name} is missing, or not as it was drawn: delete {folder} and run the "
                f"same command again, which draws it anew"
            )


def _write(
    folder: Path, drawn: EmbeddedSet, counts: dict[str, int], report: OnProgress, how: dict
) -> None:
    """Draw all scenes of all splits into a folder, several at a time."""
    (folder / "images").mkdir()
    if not drawn.things:
        (folder / "masks").mkdir()
    colours = class_colours(len(drawn.classes))
    found: dict[tuple[str, int], Objects] = {}

    def one(job: tuple[str, int]) -> None:
        split, index = job
        image, mask = drawn.scene(index, split, **how)
        (folder / "images" / f"{split}_{index:04d}.png").write_bytes(_png(image[..., ::-1]))
        if drawn.things:
            found[job] = _objects_of(mask, drawn)
            return
        data = palette_png(mask, colours) if colours else _png(mask)
        (folder / "masks" / f"{split}_{index:04d}.png").write_bytes(data)

    jobs = [(split, index) for split, count in counts.items() for index in range(count)]
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        for done, _ in enumerate(pool.map(one, jobs), start=1):
            report(done, len(jobs))
    for split, count in counts.items():
        names = "".join(f"{split}_{index:04d}\n" for index in range(count))
        (folder / f"{split}.txt").write_text(names, encoding="utf-8")
        items = [(f"{split}_{index:04d}.png", found[split, index]) for index in range(count)
                 if drawn.things]  # fmt: skip
        if items:
            _write_objects(folder, split, items, drawn)
    kinds = [kind for kind in ("images", "masks", PANOPTIC) if (folder / kind).is_dir()]
    files = sorted(path for kind in kinds for path in (folder / kind).iterdir())
    files += sorted(folder.glob("*.json"))
    if drawn.classes and not drawn.things:
        listed = folder / CLASS_LIST
        listed.write_text("".join(f"{name}\n" for name in drawn.classes), encoding="utf-8")
        files.append(listed)
    sums = "".join(f"{sha256_file(path)}  {path.relative_to(folder)}\n" for path in files)
    (folder / CHECKSUMS).write_text(sums, encoding="utf-8")
    (folder / "SOURCE.txt").write_text(
        f"{drawn.about}\nDrawn by lpmoe-bench, generator {drawn.version}, seed {how['seed']}; no "
        "photograph.\nNo rights of others are touched: use them under Apache-2.0, as the program "
        "itself.\n",
        encoding="utf-8",
    )


def _objects_of(segments: np.ndarray, drawn: EmbeddedSet) -> Objects:
    """Return the objects of a scene's segments, in the order in which they were painted."""
    thing = np.array([name in drawn.things for name in drawn.classes])
    owners = segments // 1000
    told = (segments != UNTOLD) & ~thing[np.maximum(owners, 0)]
    labels = np.where(told, owners, VOID).astype(np.uint8)
    values = [value for value in np.unique(segments).tolist() if value != UNTOLD]
    values = sorted((v for v in values if thing[v // 1000]), key=lambda value: value % 1000)
    masks = [runs_of_pixels(segments == value) for value in values]
    height, width = segments.shape
    boxes = [box_of_runs(runs, height) for runs in masks]
    return Objects(
        (height, width),
        np.array(boxes, np.float64).reshape(-1, 4),
        np.array([value // 1000 for value in values], np.int64),
        np.zeros(len(values), bool),
        areas_of(masks),
        masks,
        labels,
    )


def _write_objects(
    folder: Path, split: str, items: list[tuple[str, Objects]], drawn: EmbeddedSet
) -> None:
    """Write the labels of a split in COCO's two forms: things alone, and all segments."""
    place = {drawn.classes.index(name): k for k, name in enumerate(drawn.things)}
    alone = [
        (name, replace(one, classes=np.array([place[k] for k in one.classes.tolist()], np.int64)))
        for name, one in items
    ]
    content = coco_json(alone, drawn.things)
    (folder / f"{INSTANCES}_{split}.json").write_text(json.dumps(content), encoding="utf-8")
    content, maps = panoptic_json(items, drawn.classes, drawn.things)
    (folder / f"{PANOPTIC}_{split}.json").write_text(json.dumps(content), encoding="utf-8")
    (folder / PANOPTIC).mkdir(exist_ok=True)
    for name, data in maps.items():
        (folder / PANOPTIC / name).write_bytes(data)


def _png(pixels: np.ndarray) -> bytes:
    return cv2.imencode(".png", pixels)[1].tobytes()
