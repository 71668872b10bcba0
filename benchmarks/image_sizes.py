"""CPU time of one thread and peak memory of reading an image and its mask to the training size.

Pairs of a JPEG and a PNG mask of 0.1, 1.3, 12 and 100 megapixels, drawn here, are read and squashed
to one size by the loader (`PairDataset`, version 2 of the preprocessing, and version 1, which
resized floats), by Pillow (decode, `Image.resize` bilinear, to a tensor) and by torchvision
(`decode_image`, `resize` with antialias, to float). The last two check nothing: neither headers nor
truncation, values or sizes. The alternatives take turns and medians of the ratios of a turn count.
Peak memory is that of a fresh process that reads one pair, less that of one that reads a tiny one
(Linux tells it).

    python benchmarks/image_sizes.py [--json] [--rounds 9] [--size 256]
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

SIZES = {"0.1": (368, 272), "1.3": (1280, 1024), "12": (4000, 3000), "100": (11584, 8688)}
REPEATS = {"0.1": 40, "1.3": 8, "12": 1, "100": 1}  # reads in one turn
ONE = "--one"


def draw(folder: Path, width: int, height: int) -> tuple[Path, Path]:
    """Write a photograph-like image (smooth colours and noise) and the mask of one ellipse."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
    picture = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    tile = rng.integers(0, 13, (512, 512, 3), dtype=np.uint8)
    for top in range(0, height, 512):
        for left in range(0, width, 512):
            part = picture[top : top + 512, left : left + 512]
            cv2.add(part, tile[: part.shape[0], : part.shape[1]], part)
    mask = np.zeros((height, width), np.uint8)
    axes = (width // 4, height // 5)
    cv2.ellipse(mask, (width // 2, height // 2), axes, 20, 0, 360, 255, -1)
    image, truth = folder / f"{width}.jpg", folder / f"{width}.png"
    cv2.imwrite(str(image), picture, [cv2.IMWRITE_JPEG_QUALITY, 90])
    cv2.imwrite(str(truth), mask)
    return image, truth


def ours(image: Path, mask: Path, size: int, version: int) -> Callable[[], object]:
    from lpmoe_bench.data.loader import PairDataset
    from lpmoe_bench.data.pairs import Pair

    dataset = PairDataset([Pair("pair", image, mask)], (size, size), 0, flip=True, version=version)
    return lambda: dataset[0, 0]


def pillow(image: Path, mask: Path, size: int) -> Callable[[], object]:
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = None  # these files are known

    def read() -> object:
        with Image.open(image) as file:
            small = file.convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
        with Image.open(mask) as file:
            truth = file.resize((size, size), Image.Resampling.NEAREST)
        pixels = torch.from_numpy(np.asarray(small).copy()).permute(2, 0, 1)
        return pixels.float() / 255, torch.from_numpy(np.asarray(truth) > 127).float()[None]

    return read


def torchvision(image: Path, mask: Path, size: int) -> Callable[[], object]:
    from torchvision.io import ImageReadMode, decode_image
    from torchvision.transforms.v2.functional import InterpolationMode, resize

    def read() -> object:
        pixels = resize(decode_image(str(image), ImageReadMode.RGB), [size, size], antialias=True)
        truth = decode_image(str(mask), ImageReadMode.GRAY)
        truth = resize(truth, [size, size], interpolation=InterpolationMode.NEAREST_EXACT)
        return pixels.float() / 255, (truth > 127).float()

    return read


READERS: dict[str, Callable[[Path, Path, int], Callable[[], object]]] = {
    "loader": lambda image, mask, size: ours(image, mask, size, 2),
    "version 1": lambda image, mask, size: ours(image, mask, size, 1),
    "Pillow": pillow,
    "torchvision": torchvision,
}


def seconds(work: Callable[[], object], repeats: int) -> float:
    start = time.process_time()
    for _ in range(repeats):
        work()
    return (time.process_time() - start) / repeats


def peak(name: str, image: Path, mask: Path, size: int) -> float:
    """Return MiB that reading one pair takes beyond what a small one takes."""
    small = draw(image.parent, 64, 48)
    both = []
    for pair in ((image, mask), small):
        command = [sys.executable, __file__, ONE, name, *map(str, pair), str(size)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        both.append(float(done.stdout))
    return both[0] - both[1]


def one(name: str, image: str, mask: str, size: str) -> None:
    """Read one pair and print the process' peak memory in MiB."""
    torch.set_num_threads(1)
    READERS[name](Path(image), Path(mask), int(size))()
    # Not getrusage: what it tells of a fresh process includes what its parent held.
    status = Path("/proc/self/status").read_text()
    print(int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 2**10)  # pyright: ignore


def measure(size: int, rounds: int) -> dict[str, dict[str, dict[str, float]]]:
    """Return size -> reader -> ms, ratio of its time to the loader's, and peak MiB."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    found: dict[str, dict[str, dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for label in track(SIZES, "measuring", console=Console(stderr=True)):
            image, mask = draw(Path(folder), *SIZES[label])
            works = {name: reader(image, mask, size) for name, reader in READERS.items()}
            turns = max(3, rounds // 3) if label in ("12", "100") else rounds
            times = [
                {name: seconds(work, REPEATS[label]) for name, work in works.items()}
                for _ in range(turns + 1)
            ][1:]  # memory is allocated in the first
            found[label] = {
                name: {
                    "ms": 1e3 * statistics.median(turn[name] for turn in times),
                    "ratio": statistics.median(turn[name] / turn["loader"] for turn in times),
                    "MiB": peak(name, image, mask, size),
                }
                for name in READERS
            }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--size", type=int, default=256)
    options = parser.parse_args()
    found = measure(options.size, options.rounds)
    if options.json:
        print(json.dumps(found))
        return
    table = Table(title=f"an image and its mask to {options.size} px, one thread")
    for column in ("megapixels", "reader", "ms", "items/s", "of the loader's time", "peak MiB"):
        table.add_column(column, justify="left" if column == "reader" else "right")
    for label, readers in found.items():
        for name, row in readers.items():
            table.add_row(
                label,
                name,
                f"{row['ms']:.1f}",
                f"{1e3 / row['ms']:.1f}",
                f"{row['ratio']:.2f}",
                f"{row['MiB']:.0f}",
            )
    Console().print(table)


if __name__ == "__main__":
    one(*sys.argv[2:]) if sys.argv[1:2] == [ONE] else main()
