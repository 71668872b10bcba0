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
    panels: what the page of a report shows of a table besides, see `lpmoe_bench.report.precision`.
    formats: of the labels of its data sets, none where masks are binary. decoder: of its tasks
    where nothing else is asked for; empty for that of the method. least_classes: that a data set
    needs. blends: whether a prediction has a value for each pixel, so that those of overlapping
    windows can be blended.
    """

    name: str
    title: str
    loss: str
    select: str
    protocol: str
    reader_at: str
    outputs_at: str
    job_at: str = ""
    pictures_at: str = ""
    panels_at: str = ""
    formats: tuple[str, ...] = ()
    decoder: str = ""
    least_classes: int = 2
    blends: bool = True

    @property
    def classed(self) -> bool:
        """Whether its data sets name classes."""
        return bool(self.formats)

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
        """Return the class of jobs that score maps of a folder; raises UsageError without one."""
        if not self.job_at:
            raise UsageError(
                f"files of {self.name} predictions are not scored; score a run, see "
                f"lpmoe-bench evaluate"
            )
        return _found(self.job_at)

    @property
    def pictures(self) -> Any:
        """Return the class of pictures of a test set and its maps; UsageError where none is."""
        if not self.pictures_at:
            raise UsageError(f"predictions of {self.name} tasks are not drawn")
        return _found(self.pictures_at)

    @property
    def panels(self) -> Any:
        """Return the function from a table of a report to its panels; None where there are none."""
        return _found(self.panels_at) if self.panels_at else None


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
        formats=("index", "colour", "layers"),
    ),
    Kind(
        name="instance",
        title="a mask, a class and a score for each object",
        loss="own",
        select="mask_ap",
        protocol="coco_masks",
        reader_at="lpmoe_bench.data.object_readers:InstanceReader",
        outputs_at="lpmoe_bench.inference.object_outputs:InstanceOutputs",
        job_at="lpmoe_bench.scoring.object_jobs:ObjectJob",
        pictures_at="lpmoe_bench.report.object_pictures:InstancePictures",
        panels_at="lpmoe_bench.report.precision:object_panels",
        formats=("coco", "yolo", "instances"),
        decoder="mask_rcnn",
        least_classes=1,
        blends=False,
    ),
    Kind(
        name="detection",
        title="a box, a class and a score for each object",
        loss="own",
        select="box_ap",
        protocol="coco_boxes",
        reader_at="lpmoe_bench.data.object_readers:BoxReader",
        outputs_at="lpmoe_bench.inference.object_outputs:BoxOutputs",
        job_at="lpmoe_bench.scoring.object_jobs:ObjectJob",
        pictures_at="lpmoe_bench.report.object_pictures:ObjectPictures",
        panels_at="lpmoe_bench.report.precision:object_panels",
        formats=("coco", "voc", "yolo", "instances"),
        decoder="faster_rcnn",
        least_classes=1,
        blends=False,
    ),
    Kind(
        name="panoptic",
        title="a segment and a class for each pixel, things told apart",
        loss="matching",
        select="pq",
        protocol="coco_panoptic",
        reader_at="lpmoe_bench.data.object_readers:PanopticReader",
        outputs_at="lpmoe_bench.inference.object_outputs:PanopticOutputs",
        job_at="lpmoe_bench.scoring.object_jobs:PanopticJob",
        pictures_at="lpmoe_bench.report.object_pictures:PanopticPictures",
        panels_at="lpmoe_bench.report.precision:segment_panels",
        formats=("coco_panoptic",),
        decoder="mask2former",
        least_classes=1,
        blends=False,
    ),
)
KINDS = {kind.name: kind for kind in _ALL}


def kind_of_files(form: str = "") -> Kind:
    """Return the first kind of task whose data sets have labels of a format; of none binary."""
    return next(kind for kind in _ALL if (form in kind.formats if form else not kind.classed))


def get_kind(name: str) -> Kind:
    """Return a kind of task by its name; raises UsageError with the nearest one."""
    if name not in KINDS:
        raise UsageError.unknown("kind of task", name, KINDS)
    return KINDS[name]
