"""Sealed records of detection, instance and panoptic runs, drawn in code."""

from pathlib import Path

import numpy as np
from drawn_objects import Truth, draw_images
from sample_records import record

from lpmoe_bench.metrics.objects import COCO_MASKS, ObjectProtocol, ObjectScorer
from lpmoe_bench.metrics.panoptic import Panoptic, PanopticProtocol, PanopticScorer
from lpmoe_bench.records.model import SCHEMA_VERSION, LabelFacts
from lpmoe_bench.records.store import StoredRecord, find_records, write_record

NAMES = ("red cell", "white", "sky")
IMAGES = 16
TEST = "blood/test"
FALSE = {"decoder_only": 14, "lora": 2, "vpt": 3}  # false alarms of a method, at most, an image


def pairs_of(name: str, seed: int, images: int = IMAGES):
    """What a method of that seed finds in the images that all methods see."""
    found = draw_images(11, images, len(NAMES), size=128, crowds=0.1)
    rng, more = np.random.default_rng([seed, *name.encode()]), FALSE[name]
    pairs = []
    for pred, truth in found:
        extra = rng.integers(0, more + 1) if len(pred.scores) else 0
        boxes = rng.integers(0, 90, (extra, 2))
        boxes = np.concatenate([boxes, boxes + rng.integers(4, 30, (extra, 2))], 1).astype(float)
        masks = np.zeros((extra, *truth.shape), bool)
        for mask, (left, top, right, bottom) in zip(masks, boxes.astype(int), strict=True):
            mask[top:bottom, left:right] = True
        pred = pred._replace(
            boxes=np.concatenate([pred.boxes, boxes]),
            classes=np.concatenate([pred.classes, rng.integers(0, 3, extra)]),
            scores=np.concatenate([pred.scores, rng.random(extra)]),
            masks=[*pred.masks, *masks],
        )
        pairs.append((pred, truth))
    return pairs


def segments_of(pairs) -> list[tuple[Panoptic, Truth]]:
    """The same as panoptic maps: masks on top of each other, the last class is stuff."""
    found = []
    for pred, truth in pairs:
        true, kinds = _painted(truth.masks, truth.classes, truth.shape)
        labels = np.full(truth.shape, 255, np.uint8)
        labels[np.isin(true, [n for n, c in enumerate(kinds, 1) if c == 2])] = 2
        things = [n for n, c in enumerate(kinds, 1) if c != 2]
        masks = [true == number for number in things]
        own = truth._replace(
            classes=np.array([kinds[n - 1] for n in things], int),
            **{"crowd": np.zeros(len(things), bool), "masks": masks, "labels": labels},
        )
        segments, called = _painted(pred.masks, pred.classes, truth.shape)
        found.append((Panoptic(segments, np.array(called, int)), own))
    return found


def _painted(masks, classes, shape):
    painted = np.zeros(shape, int)
    for number, mask in enumerate(masks, 1):
        painted[mask] = number
    here = [int(number) for number in np.unique(painted) if number]
    again = np.zeros(shape, int)
    for place, number in enumerate(here, 1):
        again[painted == number] = place
    return again, [int(classes[number - 1]) for number in here]


def scored(protocol: ObjectProtocol | PanopticProtocol, pairs, kept=None):
    """The result of pairs, or of those whose numbers are kept."""
    if isinstance(protocol, PanopticProtocol):
        scorer, pairs = PanopticScorer(protocol, NAMES, NAMES[:2]), segments_of(pairs)
    else:
        scorer = ObjectScorer(protocol, NAMES)
    for number, (pred, truth) in enumerate(pairs):
        if kept is None or number in kept:
            scorer.add(f"s{number // 8}_{number:03}", pred, truth, TEST)  # type: ignore[arg-type]
    return scorer.result()


def store_objects(root: Path, name="lora", seed=0, protocol=COCO_MASKS, drawn="") -> StoredRecord:
    """Write the sealed record of a drawn method and seed; `drawn` gives it what another found."""
    result = scored(protocol, pairs_of(drawn or name, seed))
    made = record(
        name,
        seed,
        schema_version=SCHEMA_VERSION,
        task="blood",
        train={"loss": "own", "epochs": 3, "batch": 8, "lr": 1e-3, "select": "last"},
        protocol={"name": protocol.name, "version": protocol.version, "hash": protocol.hash},
        counts={TEST: result.counts},
        data={
            "train": {"label": "blood/train", "digest": "11" * 32, "images": 100},
            "tests": [{"label": TEST, "digest": "22" * 32, "images": IMAGES}],
        },
    )
    made = made.model_copy(
        update={"scores": {TEST: result.scores}, "labels": LabelFacts(classes=[*NAMES])}
    )
    folder = root / f"{name}-{protocol.name}-{seed}"
    return StoredRecord(folder, write_record(folder, made, result.rows))


def store_all_objects(root: Path, protocol=COCO_MASKS, seeds: int = 3) -> list[StoredRecord]:
    """Write records of every drawn method and seed, and read them again."""
    for name in FALSE:
        for seed in range(seeds):
            store_objects(root, name, seed, protocol)
    return find_records([root]).stored
