"""Small image and mask files that tests of data share."""

from pathlib import Path

import cv2
import numpy as np

from lpmoe_bench.data.pairs import Pair, find_pairs


def noise_image(shape=(30, 40, 3), seed=0):
    """A blurred random image, uint8 RGB (h, w, 3)."""
    pixels = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    return cv2.GaussianBlur(pixels, (0, 0), 3)


def square_mask(shape=(30, 40)):
    """A rectangle left of the middle, uint8 of 0 and 255 (h, w)."""
    mask = np.zeros(shape, np.uint8)
    mask[5:20, 8:25] = 255
    return mask


def write(path: Path, pixels) -> Path:
    """Write pixels with RGB or RGBA channels, or one, in the format of the suffix."""
    if pixels.ndim == 3:
        pixels = pixels[..., [2, 1, 0, 3][: pixels.shape[2]]]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(path.suffix, pixels)[1].tobytes())
    return path


def make_pairs(folder: Path, count=6) -> list[Pair]:
    """Write p0, p1, ... with one mask for all."""
    for index in range(count):
        write(folder / "images" / f"p{index}.png", noise_image(seed=index))
        write(folder / "masks" / f"p{index}.png", square_mask())
    return find_pairs(folder / "images", folder / "masks")


def fill(folder: Path, *lists: tuple[str, list[str]]) -> Path:
    """Write a data set in the standard layout with its lists; pixels depend on the name alone."""
    for name, stems in lists:
        for stem in stems:
            level = sum(stem.encode()) % 200
            write(folder / "images" / f"{stem}.jpg", np.full((20, 30, 3), level, np.uint8))
            mask = np.zeros((20, 30), np.uint8)
            mask[4:9, 5 : 6 + level % 20] = 255
            write(folder / "masks" / f"{stem}.png", mask)
        (folder / name).write_text("\n".join(stems) + "\n")
    return folder


def saved(path, image, **settings):
    """Write with Pillow, which knows more kinds of files than OpenCV writes."""
    image.save(path, **settings)
    return path
