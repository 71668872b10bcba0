"""The embedded sets by name, and folders of scenes drawn for whoever wants to see them.

A seed gives the same pixels on every machine: random numbers are raw PCG64 words, every step after
them is continuous or in integers, and the rounding to 8 bits comes last.
"""

from collections.abc import Mapping
from pathlib import Path

from lpmoe_bench.data.scenes import cod, glass, leaf, polyp, road, shadow, skin, sod
from lpmoe_bench.data.scenes.drawing import Shape
from lpmoe_bench.data.scenes.embedded import OnProgress, draw_folder
from lpmoe_bench.errors import UsageError

COUNTS = {"train": 160, "test": 64}
TASKS = (cod, sod, polyp, skin, shadow, glass, leaf, road)
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

    `report` is told (scenes drawn, all scenes). Raises UsageError for an unknown set and
    ResourceError when it cannot be written.
    """
    if name not in SETS:
        raise UsageError.unknown("embedded set", name, SETS)
    counts = dict(counts or COUNTS)
    # Whatever decides the pixels is part of the name: a folder that is there is never drawn again.
    sides = "" if shape is None else f"-{shape[0]}x{shape[1]}"
    amounts = "" if counts == COUNTS else "-" + "-".join(f"{k}{n}" for k, n in counts.items())
    folder = root / f"{name}-{SETS[name].version}-s{seed}{sides}{amounts}"
    return draw_folder(folder, SETS[name], counts, report, shape=shape, seed=seed)


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

    Layout: images/, masks/, train.txt, test.txt (two of seven scenes), SOURCE.txt. `size` is the
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
