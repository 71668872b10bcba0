"""Camouflaged scenes drawn in code: the embedded set `generated_cod`.

An animal-like shape is filled with a texture whose tones and colours have the distribution of
its surroundings, but another pattern, orientation or scale; a faint shading follows its body.
A seed gives the same pixels on every machine: see textures.py, and the rounding to 8 bits comes
last. Lengths are fractions of the shorter side, so a scene looks alike at any size.
"""

import errno
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from scipy import ndimage

from lpmoe_bench.errors import ResourceError, UsageError
from lpmoe_bench.files import write_failure
from lpmoe_bench.textures import TEXTURES, Array, Draw, Shape, frame, noise
from method_zoo._errors import unknown

VERSION = "v1"  # part of the folder's name: raise it when a change moves a pixel
COUNTS = {"generated_cod": {"train": 160, "test": 64}}
Report = Callable[[int, int], None]
SPLIT_KEYS = {"train": 0, "test": 1}
SHAPES = ((264, 352), (352, 264), (352, 352), (288, 352), (352, 288), (236, 352))
SHARES = (0.022, 0.38)  # allowed part of the image that is object

# Tones from dark to light, RGB; each scene mixes two neighbours of one row.
PALETTES = (
    (((38, 27, 20), (96, 70, 50), (150, 120, 92), (205, 182, 152)),
     ((30, 30, 24), (84, 78, 60), (132, 126, 104), (190, 188, 168))),  # bark
    (((44, 26, 14), (122, 70, 30), (178, 118, 58), (224, 184, 122)),
     ((36, 28, 20), (98, 78, 56), (148, 128, 98), (204, 190, 160))),  # leaf litter
    (((92, 72, 50), (158, 132, 98), (196, 172, 136), (232, 216, 186)),
     ((86, 76, 66), (146, 132, 116), (188, 176, 158), (226, 218, 204))),  # sand
    (((10, 42, 50), (28, 94, 104), (84, 148, 146), (176, 208, 190)),
     ((16, 34, 60), (44, 82, 116), (100, 138, 156), (178, 200, 204))),  # water
    (((18, 30, 12), (56, 84, 30), (112, 138, 58), (188, 200, 124)),
     ((28, 30, 14), (82, 82, 36), (134, 132, 70), (198, 192, 138))),  # moss and grass
    (((40, 40, 42), (96, 96, 96), (146, 144, 138), (206, 202, 192)),
     ((44, 38, 34), (106, 96, 86), (152, 142, 128), (208, 200, 186))),  # rock and lichen
)  # fmt: skip


def limbs(draw: Draw, spine: Array, girth: float) -> list[tuple]:
    """Pairs of limbs along a spine, as tapered rods: (start, end, radius, radius)."""
    rods = []
    reach, count = draw.real(0.45, 0.85), draw.pick((0, 0, 1, 2, 2, 3))
    for root in spine[[4]] if count == 1 else spine[np.linspace(1, 7, count).astype(int)]:
        for flank in (-1, 1):
            splay = flank * draw.real(0.9, 2.0)
            tip = root + reach * np.array([np.cos(splay), np.sin(splay)])
            rods.append((root, tip, 0.5 * girth, 0.25 * girth))
    return rods


def body(draw: Draw, shape: Shape, share: float) -> Array:
    """An animal-like outline with a bent spine: True inside, (h, w); share is only aimed at."""
    steps, bend = np.linspace(-1, 1, 9), draw.real(-0.9, 0.9)
    spine = np.stack([steps, bend * (steps**2 - 0.4)], axis=-1)
    girth = draw.real(0.22, 0.55) * (1 - draw.real(0.3, 0.8) * np.abs(steps - draw.real(-0.4, 0.4)))
    rods = [(spine[k], spine[k + 1], girth[k], girth[k + 1]) for k in range(8)]
    rods += limbs(draw, spine, float(girth.mean()))
    area = 0.8 * sum(np.hypot(*(b - a)) * (r + s) for a, b, r, s in rods)
    scale, turn = np.sqrt(share * shape[0] * shape[1] / area), draw.real(0, 2 * np.pi)
    x, y = frame(shape, 0.0)
    x, y = (
        (x - draw.real(0.12, 0.88) * shape[1]) / scale,
        (y - draw.real(0.12, 0.88) * shape[0]) / scale,
    )
    x, y = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    heat = np.full(shape, 1e-12)
    for a, b, r, s in rods:
        step = b - a
        t = np.clip(((x - a[0]) * step[0] + (y - a[1]) * step[1]) / (step @ step), 0, 1)
        gap = np.hypot(x - a[0] - t * step[0], y - a[1] - t * step[1])
        heat += np.exp(-14 * (gap - r - t * (s - r)))  # a soft union
    level = np.log(heat) / 14 + 0.035 * noise(draw, shape, 0.55 * scale, band=0.3)
    inside = ndimage.binary_fill_holes(ndimage.gaussian_filter(level, 0.02 * scale) > 0.02)
    labels = np.zeros(shape, np.int32)
    ndimage.label(inside, output=labels)
    sizes = np.bincount(labels.ravel(), minlength=2)[1:]
    return labels == 1 + np.argmax(sizes)  # the largest piece; everything when there is none


def outline(draw: Draw, shape: Shape) -> Array:
    """One body, at times two, whose share of the image lies within SHARES: bool (h, w)."""
    low, high = SHARES
    for _ in range(20):
        share = low * (0.9 * high / low) ** draw.real(0.15, 1)
        mask = body(draw, shape, share)
        if draw.real(0, 1) < 0.12:
            mask |= body(draw, shape, 0.5 * share)
        if low <= mask.mean() <= high:
            return mask
    x, y = frame(shape, 0.0)
    return np.hypot(y / shape[0] - 0.5, x / shape[1] - 0.5) < 0.2  # a disc, share 0.13


def matched(field: Array, mask: Array, reference: Array) -> Array:
    """Map a field so that its values inside the mask are distributed as the reference's outside:
    then no threshold on tones tells where the object is."""
    levels = np.linspace(0, 1, 129)
    own, wanted = np.quantile(field[mask], levels), np.quantile(reference[~mask], levels)
    return np.interp(field, own, wanted)


def coloured(tone: Array, mix: Array, palette: tuple) -> Array:
    """Tones and a mix of two colour rows, both in [0, 1], to RGB in 0 to 255: (h, w, 3)."""
    stops = np.linspace(0, 1, 4)
    one, two = (
        np.stack([np.interp(tone, stops, [c[k] for c in row]) for k in range(3)], axis=-1)
        for row in palette
    )
    return one + (two - one) * mix[..., None]


def shading(draw: Draw, mask: Array) -> Array:
    """Relative change of brightness (h, w): patchy daylight everywhere, a rounded body, and the
    narrow shadow it throws away from the light."""
    side, light = min(mask.shape), draw.real(0, 2 * np.pi)
    sky = np.array([np.sin(light), np.cos(light)])
    daylight = 0.16 * np.tanh(noise(draw, mask.shape, 0.45 * side))
    dapple = -0.16 / (1 + np.exp(-8 * (noise(draw, mask.shape, 0.25 * side) - 1.2)))
    depth = ndimage.distance_transform_edt(mask)
    dome = ndimage.gaussian_filter(np.sqrt(np.minimum(depth / (0.06 * side), 1)), 0.012 * side)
    down, right = np.gradient(dome)
    lit = np.tanh((down * sky[0] + right * sky[1]) * 0.06 * side)
    thrown = ndimage.shift(mask.astype(np.float64), 0.012 * side * sky, order=1)
    thrown = ndimage.gaussian_filter(thrown, 0.012 * side) * ~mask
    return daylight + dapple + 0.4 * lit * mask - 0.4 * thrown


def scene(
    index: int, split: str = "train", seed: int = 0, shape: Shape | None = None
) -> tuple[Array, Array]:
    """Draw one scene: image uint8 (h, w, 3) in RGB and mask uint8 (h, w) of 0 and 255.

    Without a shape (h, w), the sides vary and the longer one is 352 pixels.
    """
    draw = Draw(0xC0D, seed, SPLIT_KEYS[split], index)
    shape = _sides(draw, shape)
    side, mask = min(shape), outline(draw, shape)
    fine, coarse = draw.real(0.018, 0.028) * side, draw.real(0.045, 0.065) * side
    lengths = draw.pick(((fine, coarse), (coarse, fine)))
    texture, angle = draw.pick(TEXTURES), draw.real(0, np.pi)
    other = draw.pick(TEXTURES) if draw.real(0, 1) < 0.6 else texture
    ground = texture(draw, shape, lengths[0], angle) + 0.35 * noise(draw, shape, 0.35 * side)
    animal = other(draw, shape, lengths[1], angle + draw.real(1.0, 2.1))
    animal = animal + 0.2 * noise(draw, shape, 0.35 * side)
    tints = [noise(draw, shape, 0.3 * side) + noise(draw, shape, 0.08 * side) for _ in range(2)]

    alpha = ndimage.gaussian_filter(mask.astype(np.float64), 0.7)
    tone = ground + (matched(animal, mask, ground) - ground) * alpha
    tint = tints[0] + (matched(tints[1], mask, tints[0]) - tints[0]) * alpha
    low, high = np.quantile(tone, [0.01, 0.99])
    tone = np.clip((tone - low) / (high - low), 0, 1)
    image = coloured(tone, 0.5 + 0.5 * np.tanh(tint), draw.pick(PALETTES))
    image = image * (1 + shading(draw, mask))[..., None] + 2.5 * noise(draw, shape, 2.5)[..., None]
    return np.clip(np.rint(image), 0, 255).astype(np.uint8), mask.astype(np.uint8) * 255


def _sides(draw: Draw, shape: Shape | None) -> Shape:
    return draw.pick(SHAPES) if shape is None else shape


def ensure_generated(
    name: str,
    root: Path,
    report: Report | None = None,
    *,
    counts: Mapping[str, int] | None = None,
    shape: Shape | None = None,
    seed: int = 0,
) -> Path:
    """Return the folder of an embedded set under root, drawing it first where it is not there.

    Layout: images/, masks/, one list a split, SOURCE.txt. The folder appears under its name only
    when it is complete, so a kill leaves nothing that is used and two processes do not disturb
    each other. `report` is told (scenes drawn, all scenes). Raises UsageError for an unknown set
    and ResourceError when it cannot be written.
    """
    if name not in COUNTS:
        raise UsageError(unknown("embedded set", name, COUNTS))
    counts = dict(counts or COUNTS[name])
    sides = "" if shape is None else f"-{shape[0]}x{shape[1]}"
    amounts = "" if counts == COUNTS[name] else "-" + "-".join(f"{k}{n}" for k, n in counts.items())
    folder = root / f"{name}-{VERSION}-s{seed}{sides}{amounts}"
    if folder.is_dir():
        return folder
    drafts = None
    try:
        root.mkdir(parents=True, exist_ok=True)
        for left in root.glob(f".{folder.name}.*"):  # by a kill: nobody draws for a day
            if time.time() - left.stat().st_mtime > 86400:
                shutil.rmtree(left, ignore_errors=True)
        drafts = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=root))
        drafts.chmod(0o755)
        _write(drafts, counts, shape, seed, report or (lambda done, total: None))
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
    folder: Path, counts: Mapping[str, int], shape: Shape | None, seed: int, report: Report
) -> None:
    """Draw all scenes of all splits into a folder, several at a time."""
    (folder / "images").mkdir()
    (folder / "masks").mkdir()

    def one(job: tuple[str, int]) -> None:
        split, index = job
        image, mask = scene(index, split, seed, shape)
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
        f"Camouflaged scenes drawn by lpmoe-bench, generator {VERSION}, seed {seed}; no photograph."
        "\nNo rights of others are touched: use them under Apache-2.0, as the program itself.\n",
        encoding="utf-8",
    )
