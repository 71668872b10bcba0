"""A folder of drawn scenes: it appears under its name only when it is complete.

A kill leaves nothing that is used, and two processes do not disturb each other.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2

from lpmoe_bench.errors import ResourceError
from lpmoe_bench.files import write_failure
from lpmoe_bench.generated.embedded_set import EmbeddedSet

Report = Callable[[int, int], None]
DAY_SECONDS = 86400


def draw_folder(
    folder: Path,
    drawn: EmbeddedSet,
    counts: Mapping[str, int],
    report: Report | None = None,
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
    drafts = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        for left in folder.parent.glob(f".{folder.name}.*"):  # by a kill: nobody draws for a day
            if time.time() - left.stat().st_mtime > DAY_SECONDS:
                shutil.rmtree(left, ignore_errors=True)
        drafts = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        drafts.chmod(0o755)
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
    report: Report,
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
