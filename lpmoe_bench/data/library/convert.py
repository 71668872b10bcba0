"""Objects of a data set in any form, written in COCO's: JSON a split, and panoptic maps beside it.

Images stay where they are: the JSON names them, and a set's entry or --train-images their folder.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lpmoe_bench.console import Terminal
from lpmoe_bench.data.object_writing import coco_json, panoptic_json
from lpmoe_bench.data.objects import read_objects
from lpmoe_bench.data.pairs import not_found, split_pairs
from lpmoe_bench.data.registry import Dataset
from lpmoe_bench.errors import UsageError
from lpmoe_bench.files import write_atomically


@dataclass(frozen=True)
class Converted:
    """The labels of one split that were written: their file, images and objects."""

    label: str
    file: str
    images: int
    objects: int

    @property
    def text(self) -> str:
        return f"{self.label}: {self.objects} objects of {self.images} images in {self.file}"

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def convert_set(
    dataset: Dataset, root: Path | None, output: Path, terminal: Terminal
) -> list[Converted]:
    """Write the labels of every split that is there into a new folder: SPLIT.json, and of panoptic
    labels the folder SPLIT of its maps.

    Args:
        dataset: one of objects.
        root: the folder of data sets.
        output: what is there already is refused.
        terminal: is told how far it is.

    Raises:
        UsageError: the set has no objects, or the folder exists.
        DataError: no split is there, or a label cannot be read.
    """
    if dataset.pixels.labels is None or not dataset.pixels.labels.objects:
        raise UsageError(f"{dataset.name} has no labels of objects, which COCO's form is for")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UsageError(f"{output} exists already; choose a new folder, or delete it first")
    place, found = dataset.location(root), []
    for name in dataset.split_names if place else ():
        assert place is not None
        pairs = split_pairs(dataset, place, name)
        if pairs is None:
            continue
        labels, items = pairs[0].rules.labels, []
        assert labels is not None
        with terminal.bar(f"reading {dataset.name}/{name}", len(pairs)) as bar:
            for done, pair in enumerate(pairs, 1):
                # The name with its folders: what finds the image in the folder of all of them.
                file = f"{pair.name}{pair.image.suffix}"
                items.append((file, read_objects(pair.mask, pair.rules, pair.image)))
                bar.update(done, len(pairs))
        if labels.things:
            content, maps = panoptic_json(items, labels.classes, labels.things)
            for file, data in maps.items():
                write_atomically(output / name / file, data)
        else:
            content = coco_json(items, labels.classes)
        file = output / f"{name}.json"
        write_atomically(file, json.dumps(content) + "\n")
        objects = sum(len(one.classes) for _, one in items)
        found.append(Converted(f"{dataset.name}/{name}", str(file), len(items), objects))
    if not found:
        raise not_found(dataset, root)
    return found
