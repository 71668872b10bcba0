"""CPU time of a training pair that is decoded each time, and of one that is kept resized.

A JPEG of 1280 x 1024 pixels and its PNG mask, to 256 px; twelve drawn pairs, one thread, in turns.
What stands beside the kept one is what a run does without `runtime.cache_images`, whole.

    python benchmarks/image_cache.py [--rounds 5]
"""

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median

import cv2
import numpy as np

from lpmoe_bench.data.loader import PairDataset
from lpmoe_bench.data.pairs import Pair
from lpmoe_bench.training.image_cache import ResizedPairs

PAIRS, SIDES, WIDE, HIGH = 12, (256, 256), 1280, 1024


def draw_pair(folder: Path, number: int) -> Pair:
    """Write a smooth picture and an ellipse as its mask."""
    noise = np.random.default_rng(number).integers(0, 255, (HIGH, WIDE, 3)).astype(np.uint8)
    mask = np.zeros((HIGH, WIDE), np.uint8)
    cv2.ellipse(mask, (WIDE // 2, HIGH // 2), (300, 200), 10 * number, 0, 360, 255, -1)
    files = folder / f"{number}.jpg", folder / f"{number}.png"
    cv2.imwrite(str(files[0]), cv2.GaussianBlur(noise, (9, 9), 0))
    cv2.imwrite(str(files[1]), mask)
    return Pair(str(number), *files)


def milliseconds(dataset: PairDataset) -> float:
    """Return the CPU time of a pair."""
    start = time.process_time()
    for index in range(len(dataset)):
        dataset[0, index]
    return (time.process_time() - start) * 1000 / len(dataset)


def main() -> None:
    """Print both times and the median of their ratios."""
    parser = argparse.ArgumentParser(description="Pairs decoded each time, and kept.")
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as place:
        pairs = [draw_pair(Path(place), number) for number in range(PAIRS)]
        made, kept = (PairDataset(pairs, SIDES, 0, True) for _ in range(2))
        kept.keep = ResizedPairs(Path(place) / "cache", kept)
        milliseconds(kept)  # the first epoch fills it
        turns = [(milliseconds(made), milliseconds(kept)) for _ in range(rounds)]
    ratio = median(one / other for one, other in turns)
    first, second = (median(column) for column in zip(*turns, strict=True))
    print(f"decoded {first:.2f} ms a pair, kept {second:.2f} ms: {ratio:.1f} times as fast")


if __name__ == "__main__":
    main()
