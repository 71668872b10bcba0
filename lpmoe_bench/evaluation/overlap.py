"""Images of a test set that a run was trained on, told by what their files hold."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lpmoe_bench.data.pairs import shown
from lpmoe_bench.data.registry import Registry
from lpmoe_bench.data.splits import Split, image_checksums
from lpmoe_bench.data.tasks import MANIFESTS, open_split
from lpmoe_bench.errors import UsageError
from lpmoe_bench.records.model import Record


def refuse_training_set(record: Record, split: Split) -> None:
    """Raise UsageError when a split is the very one a run was trained on or selected by."""
    for facts in (record.data.train, record.data.validation):
        if facts is not None and split.digest == facts.digest:
            raise UsageError(
                f"{split.label} is {facts.label}, which this run was trained on: its scores "
                f"would say nothing about new images; name another set"
            )
    trained = record.data.train
    if trained is not None and split.label == trained.label and split.dataset != "own":
        raise UsageError(
            f"{split.label} is the set this run was trained on, in another copy: its scores would "
            f"say nothing about new images; name another set"
        )


def training_images(
    record: Record, registry: Registry, root: Path | None, cache: Path
) -> dict[str, str] | None:
    """Return {checksum: name} of the images of a run's training list, or None where they are not
    found here."""
    facts = record.data.train
    if facts is None:
        return None
    sets, names = (part.split("+") for part in facts.label.split("/", 1))
    references = [facts.label]
    if len(sets) > 1 or len(names) > 1:  # several sets as one: the task says which went together
        task = registry.tasks.get(record.task)
        listed = [*task.train, *task.stand_in.train] if task else []
        parts = [(label, *label.split("/", 1)) for label in dict.fromkeys(listed)]
        references = [label for label, one, split in parts if one in sets and split in names]
    found: dict[str, str] = {}
    for reference in references:
        name, _, part = reference.partition("/")
        dataset = registry.datasets.get(name)
        if dataset is None or part not in dataset.split_names:
            return None
        split = open_split(dataset, part, root, cache / MANIFESTS)
        if split is None:
            return None
        found |= image_checksums(split, cache / MANIFESTS)
    return found or None


def shared_images(split: Split, trained: dict[str, str], cache: Path) -> list[str]:
    """Return the names of the images of a split that are among the trained ones, sorted."""
    own = image_checksums(split, cache / MANIFESTS)
    return sorted(name for checksum, name in own.items() if checksum in trained)


def overlap_words(split: Split, shared: Sequence[str]) -> str:
    """Say how many images of a split a run was trained on, and which."""
    return (
        f"{len(shared)} of the {len(split.pairs)} images of {split.label} are in the run's "
        f"training list: {shown(shared)}"
    )
