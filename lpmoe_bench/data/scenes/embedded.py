"""A folder of drawn scenes: it appears under its name only when it is complete.

A kill leaves nothing that is used, and two processes do not disturb each other.
"""

import errno
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2

from lpmoe_bench.console import OnProgress
from lpmoe_bench.data.scenes.drawing import Array, Draw, Shape
from lpmoe_bench.errors import ResourceError, UsageError
from lpmoe_bench.files import write_failure

# EmbeddedSet: what makes a set of drawn scenes, and the one way to draw a scene of it.

LONGER_SIDE = 352  # pixels, of a scene whose size nobody chose
SPLIT_KEYS = {"train": 0, "test": 1}
ATTEMPTS = 20
HEALTHY_KEY = 1 << 20  # apart from every attempt's number


@dataclass(frozen=True)
class EmbeddedSet:
    """One task's generator. A task's file defines SET, one of these.

    task: its name. key: a number of its own in the seed of every scene. version: part of the
    folder's name, raised when a change moves a pixel. about: one sentence for people. shapes: the
    sizes (h, w) that a scene may have, longer side 352. shares: allowed part of the image that is
    object. draw(draw, shape) returns an image uint8 (h, w, 3) in RGB and a mask bool (h, w);
    draw_empty the same without any object, where the task knows such images.
    """

    task: str
    key: int
    version: str
    about: str
    shapes: tuple[Shape, ...]
    shares: tuple[float, float]
    draw: Callable[[Draw, Shape], tuple[Array, Array]]
    draw_empty: Callable[[Draw, Shape], tuple[Array, Array]] | None = None

    @property
    def name(self) -> str:
        return f"generated_{self.task}"

    def scene(
        self,
        index: int,
        split: str = "train",
        seed: int = 0,
        shape: Shape | None = None,
        size: int = LONGER_SIDE,
        empty: float = 0.0,
    ) -> tuple[Array, Array]:
        """Draw one scene: image uint8 (h, w, 3) in RGB and mask uint8 (h, w) of 0 and 255.

        Without a shape (h, w), the sides vary and the longer one is `size` pixels. `empty` is the
        part of all scenes that shows no object; the other scenes do not change with it. Raises
        UsageError for an unknown split, or `empty` where every image of the task has an object.
        """
        if split not in SPLIT_KEYS:
            raise UsageError.unknown("split", split, SPLIT_KEYS)
        key = (self.key, seed, SPLIT_KEYS[split], index)
        if empty and self.draw_empty is None:
            raise UsageError(f"every image of task {self.task} has an object; drop the empty masks")
        # Drawn from a key of its own, so that scenes do not change with the share of empty ones.
        bare = self.draw_empty if Draw(*key, HEALTHY_KEY).real(0, 1) < empty else None
        for attempt in range(ATTEMPTS):  # the first nearly always lies within the shares
            draw = Draw(*key, *([attempt] if attempt else []))
            sides = shape
            if sides is None:
                height, width = draw.pick(self.shapes)
                sides = (round(height * size / LONGER_SIDE), round(width * size / LONGER_SIDE))
            image, mask = (bare or self.draw)(draw, sides)
            if bare or self.shares[0] <= mask.mean() <= self.shares[1]:
                return image, mask.astype("uint8") * 255
        raise AssertionError(f"{key}: no mask within {self.shares} at {sides}")


DAY_SECONDS = 86400


def draw_folder(
    folder: Path,
    drawn: EmbeddedSet,
    counts: Mapping[str, int],
    report: OnProgress | None = None,
    *,
    seed: int = 0,
    **options: Any,
) -> Path:
    """Return a folder of scenes, drawing it first where it is not there.

    Layout: images/, masks/, one list a split, SOURCE.txt. `options` are those of a scene: shape,
    size, empty. `report` is told (scenes drawn, all scenes). Raises ResourceError when it cannot
    be written.
    """
    if folder.is_dir():
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
        _write(drafts, drawn, counts, report or (lambda done, total: None), seed, options)
        os.rename(drafts, folder)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST) and folder.is_dir():
            return folder  # another process was faster
        raise ResourceError(write_failure(folder, error)) from error
    finally:
        if drafts is not None:
            shutil.rmtree(drafts, ignore_errors=True)
    return folder


def _write(
    folder: Path,
    drawn: EmbeddedSet,
    counts: Mapping[str, int],
    report: OnProgress,
    seed: int,
    options: Mapping[str, Any],
) -> None:
    """Draw all scenes of all splits into a folder, several at a time."""
    (folder / "images").mkdir()
    (folder / "masks").mkdir()

    def one(job: tuple[str, int]) -> None:
        split, index = job
        image, mask = drawn.scene(index, split, seed, **options)
        for kind, pixels in (("images", image[..., ::-1]), ("masks", mask)):
            data = cv2.imencode(".png", pixels)[1].tobytes()
            (folder / kind / f"{split}_{index:04d}.png").write_bytes(data)

    jobs = [(split, index) for split, count in counts.items() for index in range(count)]
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        for done, _ in enumerate(pool.map(one, jobs), start=1):
            report(done, len(jobs))
    for split, count in counts.items():
        names = "".join(f"{split}_{index:04d}\n" for index in range(count))
        (folder / f"{split}.txt").write_text(names, encoding="utf-8")
    (folder / "SOURCE.txt").write_text(
        f"{drawn.about}\nDrawn by lpmoe-bench, generator {drawn.version}, seed {seed}; no "
        "photograph.\nNo rights of others are touched: use them under Apache-2.0, as the program "
        "itself.\n",
        encoding="utf-8",
    )
