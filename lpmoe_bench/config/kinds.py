"""Kinds of task: what their labels are, what a model of them trains with, gives and is scored by.

One row a kind. What is heavy is named as "module:name" and imported when it is asked for, so that
tables and lists stay quick. To add a kind is to write what its row names, and the row.
"""

from dataclasses import dataclass
from importlib import import_module
from typing import Any

from lpmoe_bench.errors import UsageError


@dataclass(frozen=True)
class Kind:
    """What sets one kind of task apart; nothing else in the program asks for the kind's name.

    loss, select, protocol: those of a task whose entry names none. reader, outputs: see the base
    classes in `lpmoe_bench.data.readers` and `lpmoe_bench.inference.outputs`. job: a job as in
    `lpmoe_bench.scoring.work`, of anybody's maps. pictures: see `lpmoe_bench.report.pictures`.
    classed: whether its data sets name classes.
    """

    name: str
    title: str
    loss: str
    select: str
    protocol: str
    reader_at: str
    outputs_at: str
    job_at: str
    pictures_at: str
    classed: bool = True

    @property
    def reader(self) -> Any:
        """Return the reader: from a pair's label file to what a model is trained on."""
        return _found(self.reader_at)()

    @property
    def outputs(self) -> Any:
        """Return the outputs: from a model's logits to what is written and scored."""
        return _found(self.outputs_at)()

    @property
    def job(self) -> Any:
        """Return the class of jobs that score maps of a folder."""
        return _found(self.job_at)

    @property
    def pictures(self) -> Any:
        """Return the class of pictures of a test set and its maps."""
        return _found(self.pictures_at)


def _found(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)


_ALL = (
    Kind(
        name="binary",
        title="one object mask an image",
        loss="structure",
        select="s_measure",
        protocol="cod",
        reader_at="lpmoe_bench.data.readers:MaskReader",
        outputs_at="lpmoe_bench.inference.outputs:MaskOutputs",
        job_at="lpmoe_bench.scoring.work:MaskJob",
        pictures_at="lpmoe_bench.report.pictures:MaskPictures",
        classed=False,
    ),
    Kind(
        name="semantic",
        title="one class a pixel",
        loss="ce_dice",
        select="mean_iou",
        protocol="classes",
        reader_at="lpmoe_bench.data.readers:LabelReader",
        outputs_at="lpmoe_bench.inference.outputs:LabelOutputs",
        job_at="lpmoe_bench.scoring.label_maps:LabelJob",
        pictures_at="lpmoe_bench.report.pictures:LabelPictures",
    ),
)
KINDS = {kind.name: kind for kind in _ALL}


def kind_of_files(classed: bool) -> Kind:
    """Return the first kind of task whose data sets name classes, or do not."""
    return next(kind for kind in _ALL if kind.classed == classed)


def get_kind(name: str) -> Kind:
    """Return a kind of task by its name; raises UsageError with the nearest one."""
    if name not in KINDS:
        raise UsageError.unknown("kind of task", name, KINDS)
    return KINDS[name]
