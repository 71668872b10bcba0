"""Sealed records of semantic runs: label maps drawn in code, of several methods and seeds."""

from pathlib import Path

import numpy as np
from sample_records import record

from lpmoe_bench.metrics.classes import CLASSES, VOID, ClassProtocol, ClassScorer
from lpmoe_bench.records.model import SCHEMA_VERSION, LabelFacts
from lpmoe_bench.records.store import StoredRecord, find_records, write_record

NAMES = ("sky", "road", "car", "sign pole")
IMAGES = 24
TEST = "streets/test"
SHARES = {"decoder_only": 0.7, "lora": 0.85, "vpt": 0.84}  # of pixels that a method gets right


def draw_truth(images: int = IMAGES, classes: int = len(NAMES), size=(12, 16)) -> list[np.ndarray]:
    """Label maps with void borders; the last class is rare: in every third image alone."""
    found = []
    for number in range(images):
        rng = np.random.default_rng([3, number])
        labels = np.sort(rng.integers(0, classes - 1, size), axis=0).astype(np.uint8)
        labels[:, 0] = VOID
        if number % 3 == 0:
            labels[4:7, 5:8] = classes - 1
        found.append(labels)
    return found


def draw_map(truth: np.ndarray, share: float, classes: int, *key: int) -> np.ndarray:
    """The map of a method that gets a share of pixels right, another in each image and seed."""
    rng = np.random.default_rng(key)
    right = rng.random(truth.shape) < np.clip(share + rng.normal(0, 0.06), 0, 1)
    wrong = rng.integers(0, classes, truth.shape).astype(np.uint8)
    return np.where(right & (truth != VOID), truth, wrong)


def scored(
    name="lora", seed=0, protocol: ClassProtocol = CLASSES, names=NAMES, images=IMAGES, nowhere=()
):
    """The result of a drawn method's maps of one seed; `nowhere`: classes that none of them has."""
    scorer = ClassScorer(protocol, (*names, *nowhere))
    for number, truth in enumerate(draw_truth(images, len(names))):
        method = sorted(SHARES).index(name)
        pred = draw_map(
            truth, SHARES[name] + 0.01 * (seed % 3), len(names), 5, method, seed, number
        )
        scorer.add(f"s{number // 12}_{number:03}", pred, truth, TEST)
    return scorer.result()


def store_classes(
    root: Path,
    name="lora",
    seed=0,
    protocol=CLASSES,
    names=NAMES,
    images=IMAGES,
    nowhere=(),
    drawn="",
    **changes,
) -> StoredRecord:
    """Write the sealed record of a drawn method and seed; `drawn` gives it another one's maps."""
    result = scored(drawn or name, seed, protocol, names, images, nowhere)
    train = {"loss": "ce_dice", "epochs": 3, "batch": 8, "lr": 1e-3, "select": "last"}
    made = record(
        name,
        seed,
        **{
            "schema_version": SCHEMA_VERSION,
            "task": "streets",
            "train": train,
            "protocol": {
                **{"name": protocol.name, "version": protocol.version, "hash": protocol.hash}
            },
            "scores": result.scores,
            "counts": {TEST: result.counts},
            "data": {
                "train": {"label": "streets/train", "digest": "11" * 32, "images": 100},
                "tests": [{"label": TEST, "digest": "22" * 32, "images": images}],
            },
        }
        | changes,
    )
    made = made.model_copy(
        update={"scores": {TEST: result.scores}, "labels": LabelFacts(classes=[*names, *nowhere])}
    )
    folder = root / f"{name}-{protocol.name}-{seed}"
    return StoredRecord(folder, write_record(folder, made, result.rows))


def store_all(root: Path, seeds: int = 3, **options) -> list[StoredRecord]:
    """Write records of every drawn method and seed, and read them again."""
    for name in SHARES:
        for seed in range(seeds):
            store_classes(root, name, seed, **options)
    return find_records([root]).stored
