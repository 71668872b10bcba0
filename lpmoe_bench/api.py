"""The Python API: what the command line does, as functions that return objects.

`import lpmoe_bench` offers all of it and imports none of it: torch, numpy and pandas are loaded by
the function that needs them.
"""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lpmoe_bench.console import Terminal
from lpmoe_bench.environment import default_cache, is_offline
from lpmoe_bench.errors import DataError, UsageError
from lpmoe_bench.records.frame import load_records
from lpmoe_bench.records.store import FoundRecords, StoredRecord, find_records, read_record
from method_zoo.errors import ZooError

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from lpmoe_bench.analysis.comparison import Report
    from lpmoe_bench.data.pixels import PixelRules
    from lpmoe_bench.gate.baseline import Baseline
    from lpmoe_bench.gate.judge import Outcome
    from lpmoe_bench.metrics.objects import Detections
    from lpmoe_bench.metrics.panoptic import Panoptic
    from lpmoe_bench.metrics.scorer import ScoreResult

__all__ = [
    "Prediction",
    "check",
    "compare",
    "evaluate",
    "load_model",
    "load_records",
    "predict",
    "run",
    "score",
]

Run = StoredRecord | Path | str  # what `run` returned, or the folder of a finished run


def score(
    pred: np.ndarray | Path | str,
    gt: np.ndarray | Path | str,
    protocol: str = "cod",
    extra: str | Sequence[str] = (),
    images: np.ndarray | Path | str | None = None,
    pixels: Mapping[str, Any] | None = None,
    classes: Sequence[str] | Path | str | None = None,
) -> dict[str, float | None] | ScoreResult:
    """Score maps against masks, or label maps against label maps, as `lpmoe-bench score` does.

    Args:
        pred: one map, as array (h, w), uint8 on 0 to 255, uint16 on 0 to 65535 or float in [0, 1],
            each scored in its own precision; or its file; or a folder of maps.
        gt: the mask, as array (h, w), bool, uint8 on 0 to 255 or float in [0, 1]; its file; or a
            folder of masks. It is of the same kind as `pred`. Of label maps, both hold the numbers
            of classes, and `gt` 255 where a pixel has none.
        protocol: how maps become scores; `lpmoe-bench list protocols` names them. Or the path of a
            YAML file, a protocol of your own.
        extra: further metrics, such as "hd95".
        images: the RGB image (h, w, 3), its file or their folder, for metrics that look at it.
        pixels: what the values of files mean, as an entry of a data set says it, such as
            {"object": 1, "ignore": 255}, or {"labels": {"classes": [...], "first": 1}}.
        classes: names of the classes of label maps, in the order of their numbers, or a file that
            lists them; with a protocol of classes, such as "classes".

    Returns:
        For one pair its scores, {metric: value in [0, 1], None where there is none}. For folders an
        object with `scores` over the data set, `rows` (one a image) and `counts`. Nothing is
        written.

    Raises:
        UsageError: an unknown protocol or metric, or `pred` and `gt` of different kinds.
        DataError: a map or mask that cannot be read or scored, or has no partner.

    Warns:
        UserWarning: what is suspicious about the maps, such as that they look inverted.

    Example:
        >>> import numpy as np
        >>> mask = np.zeros((8, 8), bool)
        >>> mask[2:6, 2:6] = True
        >>> score(mask, mask)["mae"]
        0.0
        >>> score(mask + 0, mask + 0, "classes", classes=["ground", "leaf"])["mean_iou"]
        1.0
    """
    from lpmoe_bench.data.pixels import pixel_rules
    from lpmoe_bench.metrics.engine import prepare_mask
    from lpmoe_bench.metrics.protocol_files import open_protocol
    from lpmoe_bench.metrics.protocols import Protocol
    from lpmoe_bench.metrics.scorer import Scorer

    given = dict(pixels or {})
    if classes is not None:
        if "labels" in given:
            raise UsageError("classes are given twice, in pixels too; leave one of the two out")
        given["labels"] = {"classes": classes, "ignore": 255}
    rules, extra, declared = open_protocol(protocol), _texts(extra), pixel_rules(given, Path())
    kind, other = _kind(pred), _kind(gt)
    if kind != other:
        raise UsageError(f"pred is {kind} and gt is {other}; give two arrays, files or folders")
    if kind == "a folder":
        return _score_folder(Path(str(pred)), Path(str(gt)), protocol, extra, images, declared)
    if not isinstance(rules, Protocol):
        return _score_labels(pred, gt, kind == "a file", rules, extra, declared)
    if declared.labels:
        raise UsageError(
            f"classes are of label maps, and protocol {rules.name} scores binary maps; choose "
            f"another, such as protocol='classes'"
        )
    if kind == "a file":
        from lpmoe_bench.data.images import read_truth
        from lpmoe_bench.data.maps import inspect_map
        from lpmoe_bench.scoring.work import fit

        picture = Path(images) if isinstance(images, str | os.PathLike) else None
        truth = read_truth(Path(str(gt)), rules.mask_threshold, declared, picture)
        mask = prepare_mask(truth.mask, rules, truth.ignored)
        levels = fit(inspect_map(Path(str(pred)))[0], mask.shape)
    else:
        if declared.facts:
            raise UsageError("pixels declare values of files, but gt is an array; compare it first")
        mask, levels = _eight_bits(gt, "gt"), _own_precision(pred)
        # A mask of 0 and 1 would be scored as an almost black map, and nobody would notice.
        small = levels.dtype == "uint8" and levels.size and levels.max() == 1
        if small and rules.normalisation != "minmax":
            raise UsageError(
                f"pred holds nothing above 1 of 255, and protocol {rules.name} does not stretch "
                f"maps; give floats in [0, 1], or 255 for 1"
            )
    scorer = Scorer(rules, extra=extra)
    scorer.add("given", levels, mask, image=_image(images, declared))
    return scorer.result().scores


def _score_labels(
    pred: Any, gt: Any, files: bool, protocol: Any, extra: Sequence[str], declared: PixelRules
) -> dict[str, float | None]:
    """Score one label map, an array (h, w) of whole numbers or a file."""
    import numpy as np

    from lpmoe_bench.config.kinds import get_kind
    from lpmoe_bench.scoring import label_maps
    from lpmoe_bench.scoring.work import AS_THEY_ARE, Item, Part, Variant

    job_class = get_kind(protocol.kind).job
    job_class.check(protocol, declared, extra, AS_THEY_ARE)
    job = job_class("given", (Variant(protocol),), rules=declared)
    if files:
        part = Part.empty(job, 1)
        item = Item("given", Path(str(gt)), (Path(str(pred)),))
        job.score(item, item.maps[0], job.truth(item, part), None, part, 0)
        return part.scorers[0][0].result().scores
    if {*declared.facts["labels"]} - {"format", "classes", "ignore"}:
        raise UsageError(
            "pixels declare values of files, but gt is an array; give numbers of classes from 0"
        )
    truth, labels = np.asarray(gt), np.asarray(pred)
    label_maps.check_map_size("pred", labels.shape, truth.shape)
    (scorer,) = job.scorers()
    scorer.add("given", labels, truth, "given")
    return scorer.result().scores


def _texts(given: str | Sequence[str]) -> list[str]:
    """Return names, each once; one text is one name."""
    return [given] if isinstance(given, str) else list(dict.fromkeys(given))


def _kind(given: object) -> str:
    if isinstance(given, str | os.PathLike):
        path = Path(given)
        if not path.exists():
            raise DataError(f"{path} does not exist")
        return "a folder" if path.is_dir() else "a file"
    return "an array"


def _eight_bits(values: Any, name: str) -> np.ndarray:
    """Return an array (h, w) as uint8 on 0 to 255; raises UsageError for what could mean two
    things."""
    import numpy as np

    array = np.asarray(values)
    if array.ndim != 2 or not array.size:
        raise UsageError(f"{name} has shape {array.shape}; it must be (height, width), not empty")
    if array.dtype == np.uint8:
        return array
    if array.dtype == bool:
        return array.astype(np.uint8) * 255
    if np.issubdtype(array.dtype, np.floating):
        if not np.isfinite(array).all() or array.min() < 0 or array.max() > 1:
            raise UsageError(f"{name} holds floats outside of [0, 1]; apply a sigmoid, or divide")
        # Rounded as map files are, so that an array and its file have one score.
        return (array * 255 + 0.5).astype(np.uint8)
    raise UsageError(f"{name} is of {array.dtype}; it must be bool, uint8 or float in [0, 1]")


def _own_precision(values: Any) -> np.ndarray:
    """Return a map (h, w) as uint8, uint16 or float64; raises UsageError as `_eight_bits`."""
    import numpy as np

    array = np.asarray(values)
    if array.ndim == 2 and array.size and array.dtype == np.uint16:
        if 0 < array.max() <= 255:
            raise UsageError(
                "pred is of uint16 but holds nothing above 255, so that it may mean 8 or 16 bits; "
                "give uint8, or 65535 for 1"
            )
        return array
    levels = _eight_bits(array, "pred")
    return array.astype(np.float64) if np.issubdtype(array.dtype, np.floating) else levels


def _image(image: Any, rules: PixelRules) -> np.ndarray | None:
    if image is None or not isinstance(image, str | os.PathLike):
        return image
    from lpmoe_bench.data.images import read_image

    return read_image(Path(image), rules)


def _score_folder(
    pred: Path, gt: Path, protocol: str, extra: Sequence[str], images: Any, rules: PixelRules
) -> ScoreResult:
    from lpmoe_bench.scoring.plan import ScoreRequest, plan_scores
    from lpmoe_bench.scoring.scoring import score_set

    if images is not None and not isinstance(images, str | os.PathLike):
        raise UsageError("images is an array, but pred is a folder; name the folder of images")
    terminal = Terminal(quiet=True)
    with tempfile.TemporaryDirectory() as nowhere:  # a place for a record that is never written
        request = ScoreRequest(
            folders=[pred],
            gt=gt,
            images=Path(images) if images is not None else None,
            rules=rules,
            protocol=protocol,
            extra=extra,
            runs=Path(nowhere),
        )
        plan = plan_scores(request, terminal)
        (scored,) = score_set(plan, request, plan.sets[0], plan.folders, (), terminal)
    for note in (*plan.notes, *scored.notes):
        # Of the line that called score(), not of this one.
        warnings.warn(note, stacklevel=3)
    return scored.result


def run(
    config: Mapping[str, Any] | Path | str | None = None,
    *,
    runs: Path | str = "runs",
    data_root: Path | str | None = None,
    datasets: Path | str | Sequence[Path | str] | None = None,
    embedded: bool = False,
    folders: Sequence[Path | str] | None = None,
    pixels: Mapping[str, Any] | None = None,
    force: bool = False,
    accept: bool = False,
    offline: bool = False,
    quiet: bool = False,
    **settings: Any,
) -> StoredRecord:
    """Train and evaluate one method, or return the finished run of these very settings.

    Args:
        config: settings by name, or a YAML file of them.
        runs: folder of records.
        data_root: folder of the real sets; by default the environment's LPMOE_BENCH_DATA.
        datasets: YAML files of your own data sets; by default those of the environment's
            LPMOE_BENCH_DATASETS.
        embedded: use the set drawn in code instead of real images.
        folders: your own four folders or patterns: train images, train masks, test images, test
            masks; with two more, images and masks to validate on.
        pixels: what the values of their files mean, as an entry of a data set says it, such as
            {"object": 1, "ignore": 255}, or {"labels": {"classes": ["sky", "road"]}} of a task of
            classes.
        force: train again; the old files are kept under other names.
        accept: return a finished run also where other code of its method, decoder or loss made it.
        offline: fetch nothing.
        quiet: no progress and no notes on standard error.
        settings: as `--set` and the options of `lpmoe-bench run` name them: fields such as
            `method="lora"`, `size=256`, `train={"lr": 1e-3}`, dotted ones as
            `**{"train.lr": 1e-3}`, and any other name is an option of the method, such as `rank=8`.
            They win over `config`.

    Returns:
        The run's folder and its record.

    Raises:
        UsageError: a setting is unknown or out of range, or the finished run is of other code.
        DataError: images or weights are missing or broken.
        ResourceError: memory, disk or device do not suffice.
        DivergedError: the loss is no number any more.
    """
    from lpmoe_bench.config.settings import RunConfig, nest_settings, read_config_file
    from lpmoe_bench.data.pixels import pixel_rules
    from lpmoe_bench.data.tasks import Folders
    from lpmoe_bench.training.request import RunRequest, refuse_early

    file = read_config_file(Path(config)) if isinstance(config, str | os.PathLike) else config
    if not isinstance(file or {}, Mapping):
        raise UsageError(f"config is {config!r}; give settings by name, or a YAML file of them")
    rules = pixel_rules(pixels or {}, Path())
    if rules.facts and not folders:
        raise UsageError("pixels are declared of your own folders, but folders names none")
    if folders is not None and len(folders) not in (4, 6):
        raise UsageError(f"folders holds {len(folders)} folders; name all four, or six")
    own = None
    if folders is not None:
        train, masks, test, truths, *more = map(Path, folders)
        images, truth = more or (None, None)
        own = Folders(train, masks, test, truths, images, truth, rules=rules)
    root = data_root or os.environ.get("LPMOE_BENCH_DATA")
    # Fields of the configuration are the strongest layer; any other name is read as `--set` does.
    request = RunRequest(
        flags={k: v for k, v in settings.items() if k in RunConfig.model_fields},
        sets=nest_settings({k: v for k, v in settings.items() if k not in RunConfig.model_fields}),
        file=dict(file or {}),
        data_root=Path(root) if root else None,
        folders=own,
        embedded=embedded,
        datasets=_own_lists(datasets),
        runs=Path(runs),
        offline=is_offline(offline),
    )
    try:
        refuse_early(request)  # before torch is imported
    # The zoo is a library by itself with errors of its own; callers here meet one family.
    except ZooError as error:
        raise UsageError(str(error)) from None
    from lpmoe_bench.training.run import run_request

    return run_request(request, Terminal(quiet), force, accept)


def evaluate(
    run: Run,
    data: str | Sequence[str] = (),
    *,
    images: Path | str | None = None,
    masks: Path | str | None = None,
    name: str = "test",
    pixels: Mapping[str, Any] | None = None,
    protocol: str | None = None,
    data_root: Path | str | None = None,
    datasets: Path | str | Sequence[Path | str] | None = None,
    runs: Path | str | None = None,
    save_predictions: bool = False,
    allow_overlap: bool = False,
    force: bool = False,
    offline: bool = False,
    quiet: bool | Terminal = False,
) -> dict[str, StoredRecord]:
    """Score a trained run on other test sets and write a record for each.

    Args:
        run: what `run` returned, or the folder of a finished run.
        data: names of test sets: `data set/split`, a data set (its test splits), an embedded set.
        images: your own folder of images, with `masks`, called own/`name`.
        masks: the folder of their masks.
        name: what your own folders are called.
        pixels: what the values of their files mean, as an entry of a data set says it.
        protocol: by default the run's.
        data_root: folder of the real sets; by default the environment's LPMOE_BENCH_DATA.
        datasets: YAML files of your own data sets; by default those of the environment's
            LPMOE_BENCH_DATASETS.
        runs: folder of records; by default that of the run.
        save_predictions: keep the maps as 8-bit PNG.
        allow_overlap: also sets with images that the run was trained on, which the record tells.
        force: score again; the old files are kept.
        offline: fetch nothing.
        quiet: no progress and no notes on standard error; or the terminal that they go to.

    Returns:
        {test set: folder and record}.

    Raises:
        UsageError: an unknown set, or one that the run was trained on.
        DataError: images, masks or weights are missing or broken.
    """
    from lpmoe_bench.data.pixels import pixel_rules
    from lpmoe_bench.inference.evaluation import EvaluationRequest, evaluate_run

    root = data_root or os.environ.get("LPMOE_BENCH_DATA")
    request = EvaluationRequest(
        run=_folder(run),
        sets=(data,) if isinstance(data, str) else tuple(data),
        test_images=Path(images) if images else None,
        test_masks=Path(masks) if masks else None,
        name=name,
        rules=pixel_rules(pixels or {}, Path()),
        protocol=protocol,
        data_root=Path(root) if root else None,
        datasets=_own_lists(datasets),
        runs=Path(runs) if runs else None,
        offline=is_offline(offline),
        save_predictions=save_predictions,
        allow_overlap=allow_overlap,
        force=force,
    )
    return evaluate_run(request, quiet if isinstance(quiet, Terminal) else Terminal(quiet))


def _own_lists(datasets: Path | str | Sequence[Path | str] | None) -> list[Path]:
    """Return the user's own YAML files, those of the environment where none is given."""
    if datasets is None:
        named = os.environ.get("LPMOE_BENCH_DATASETS", "").split(os.pathsep)
        return [Path(path) for path in named if path]
    return [Path(p) for p in ([datasets] if isinstance(datasets, str | Path) else datasets)]


def _folder(run: Run) -> Path:
    return run.folder if isinstance(run, StoredRecord) else Path(run)


@dataclass(frozen=True)
class Prediction:
    """What a run predicts for one image.

    Attributes:
        image: its file, None for an array.
        probability: float32 in [0, 1], at image size: (h, w), of object; or of a task of classes
            (K, h, w), of each, which sum to one. None where objects are found.
        labels: uint8 (h, w), the class of each pixel, counted from 0; of a task of classes.
        objects: of detection and instance tasks, all that was found, best first: `boxes` (N, 4),
            x0 y0 x1 y1 in pixels, `classes` (N,), counted from 0, `scores` (N,), and `masks`, the
            run lengths of each, see `masks` here.
        segments: of panoptic tasks: `segments` (h, w), the number of each pixel's segment, 0 for
            none, and `classes` (n,) of the segments 1 to n.
        shape: (h, w) of the image.
    """

    image: Path | None
    probability: np.ndarray | None = None
    labels: np.ndarray | None = None
    objects: Detections | None = None
    segments: Panoptic | None = None
    shape: tuple[int, int] = (0, 0)

    @property
    def masks(self) -> np.ndarray | None:
        """The masks of `objects`, bool (N, h, w); None where they have none."""
        if self.objects is None or self.objects.masks is None:
            return None
        import numpy as np

        from lpmoe_bench.metrics.runs import pixels_of_runs

        found = [pixels_of_runs(runs, *self.shape) for runs in self.objects.masks]
        return np.array(found, bool).reshape(-1, *self.shape)


def predict(
    run: Run,
    images: Any,
    *,
    tile: str | int | None = None,
    offline: bool = False,
    pixels: Mapping[str, Any] | None = None,
) -> list[Prediction]:
    """Return what a trained run predicts for images of any size: probability maps, or objects.

    `lpmoe-bench predict` writes the same as files: maps rounded to 8 bits or of classes, objects as
    COCO has them.

    Args:
        run: what `run` returned, or the folder of a finished run.
        images: a file, a folder, an RGB array uint8 (h, w, 3), or a list of these.
        tile: by default as the run's maps are scored; never; auto cuts images beyond twice the
            training size into windows; always; or a number of pixels. Not of runs that find
            objects.
        offline: fetch nothing.
        pixels: bands and range of image files, by default those of the run's training images.

    Returns:
        One prediction an image, in their order; a folder's images are sorted.

    Raises:
        UsageError: no images are found, `tile` is none of these, or the run has no windows.
        DataError: the run or an image cannot be read.
    """
    import numpy as np

    from lpmoe_bench.data.images import check_deep
    from lpmoe_bench.data.loader import load_image
    from lpmoe_bench.data.pixels import pixel_rules
    from lpmoe_bench.inference.prediction import find_images, image_rules
    from lpmoe_bench.inference.predictor import load_predictor
    from lpmoe_bench.inference.windows import window_of

    several = images if isinstance(images, list | tuple) else [images]
    given: list[tuple[Path | None, Any]] = []
    for one in several:
        if isinstance(one, str | os.PathLike):
            found = find_images([Path(one)], Path(os.devnull))
            given += [(source.file, None) for source in found]
        else:
            array = np.asarray(one)
            if array.dtype != np.uint8 or array.shape[2:] != (3,) or not array.size:
                raise UsageError(
                    f"an image is {array.dtype} {array.shape}; give RGB uint8 (height, width, 3)"
                )
            given.append((None, array))
    if tile is not None:
        window_of(str(tile), (32, 32))  # a wrong word is said before anything is loaded
    rules = image_rules(read_record(_folder(run)), pixel_rules(pixels or {}, Path()))
    check_deep((file for file, _ in given if file), rules)
    predictor, config = load_predictor(_folder(run), default_cache(), is_offline(offline))
    window = predictor.window if tile is None else window_of(str(tile), config.sides)

    def predicted(file: Path | None, array: Any) -> Prediction:
        image = load_image(file, rules, predictor.version) if file else array
        told = predictor.outputs.told(predictor.response(image, window))
        return Prediction(file, **told, shape=image.shape[:2])

    return [predicted(file, array) for file, array in given]


def load_model(run: Run, offline: bool = False) -> nn.Module:
    """Return a trained run as a torch module from image to probability.

    Of runs that find objects there is none, for what they find is no tensor of one shape.

    Args:
        run: what `run` returned, or the folder of a finished run.
        offline: fetch nothing.

    Returns:
        A module in eval mode on the CPU. It takes RGB images, float (B, 3, h, w) in [0, 1], fits
        them to the training size as in training where they are of another (bilinearly with
        antialiasing, where `predict` resizes the 8-bit image), and returns probabilities
        (B, 1, h, w) at their size, or of a task of classes logits (B, K, h, w). Gradients flow
        through it. It sees images as the run is scored: as a whole, or in windows that are blended.

    Raises:
        UsageError: the run finds objects.
        DataError: the run's adapter is missing, damaged or of other weights.
    """
    from lpmoe_bench.config.kinds import get_kind
    from lpmoe_bench.inference.predictor import ProbabilityModel, scored_window
    from lpmoe_bench.model.segmenter import load_trained

    kind = get_kind(read_record(_folder(run)).config.get("kind", "binary"))
    if not kind.blends:
        raise UsageError(
            f"load_model gives maps of probabilities, and this run finds objects ({kind.name}); "
            f"use lpmoe_bench.predict"
        )
    segmenter, config = load_trained(_folder(run), default_cache(), is_offline(offline))
    outputs = kind.outputs
    window = scored_window(config)
    return ProbabilityModel(segmenter, config.sides, outputs, config.fit, window).eval()


def compare(
    a: str | Path | StoredRecord | Sequence[StoredRecord],
    b: str | Path | StoredRecord | Sequence[StoredRecord],
    *roots: str | Path,
    records: FoundRecords | None = None,
    metrics: str | Sequence[str] = (),
    margin: float | str | Sequence[str] | None = None,
    groups: str | Path | None = None,
    family: str = "set",
    looks: int = 1,
    over: str = "",
) -> Report:
    """Compare two methods, paired over seeds and images: A - B, interval, verdict.

    Args:
        a: a method or a fingerprint among the records, a folder of runs, or records.
        b: the one it is compared with.
        roots: folders of records in which names are looked up; by default `runs/`, else
            `results/records/`.
        records: what `find_records` found, in place of roots.
        metrics: by default the protocol's headline.
        margin: differences within it are equal: a number in units of the score, a share of `b`'s
            such as "5%", or "mae=5%" for one metric; by default each metric's own.
        groups: a CSV of image,group: images that vary together, such as frames of one video.
        family: what Holm's correction runs over: all methods beside `b` on one test set, or with
            "table" on all test sets. Methods count that are among the records of `roots` or
            `records`; two folders by themselves are a family of one.
        looks: how often the question is asked, with more seeds each time.
        over: "task" for one answer over all test sets as well, in `tasks`.

    Returns:
        An object with `lines`, one for each test set and metric, and `notes`.

    Raises:
        UsageError: a name is unknown or means several settings, a side has no record, or `margin`
            is not from 0 to 1.
        DataError: rows or groups cannot be read.
        NotComparableError: the records differ in more than the method.
    """
    from lpmoe_bench.analysis.comparison import choose_records, compare_records
    from lpmoe_bench.analysis.groups import GroupSource
    from lpmoe_bench.analysis.pairing import Rules
    from lpmoe_bench.metrics.facts import parse_margins

    source = GroupSource(Path(groups) if groups else None)
    rules = Rules(parse_margins(margin), source, family, looks)
    found = records
    if found is None and roots:
        found = find_records([Path(root) for root in roots])
    elif found is None and any(isinstance(s, str) and not Path(s).is_dir() for s in (a, b)):
        found = find_records()

    def chosen(side: Any) -> list[StoredRecord]:
        if isinstance(side, StoredRecord):
            return [side]
        return (
            choose_records(str(side), found) if isinstance(side, str | os.PathLike) else list(side)
        )

    sides = chosen(a), chosen(b)
    if not all(sides):
        raise UsageError("a side of compare has no record; give a method, a folder or records")
    # Twice the same metric would count twice in Holm.
    among = found.stored if found else []
    return compare_records(*sides, _texts(metrics), rules, among, over)


def check(
    candidate: str | Path | Sequence[str | Path] | None = None,
    baseline: str | Path | Baseline = "results/baseline.json",
    *,
    records: FoundRecords | None = None,
    **policy: float | None,
) -> Outcome:
    """Judge candidate records against a pinned baseline, as the gate in CI does.

    Args:
        candidate: folders of records; by default `runs/`.
        baseline: the file that `lpmoe-bench check pin` wrote, or what `read_baseline` read.
        records: what `find_records` found in these folders, in place of all that is there.
        policy: level, confidence, floor, cap or speed_tolerance in place of the baseline's own.

    Returns:
        An object with a `verdict`, its `lines` and `exit_code()`: 0 pass or improved, 10 regressed,
        5 not comparable.

    Raises:
        UsageError: a limit is out of its range.
        DataError: the baseline cannot be read.
        NotComparableError: there are no candidates.
    """
    from dataclasses import replace

    from lpmoe_bench.gate.baseline import read_baseline
    from lpmoe_bench.gate.judge import judge_cells as judge
    from lpmoe_bench.gate.pin import gather_cells
    from lpmoe_bench.records.store import default_roots

    one = isinstance(candidate, str | os.PathLike)
    roots = [Path(str(candidate))] if one else [Path(root) for root in candidate or ()]
    pinned = read_baseline(Path(baseline)) if isinstance(baseline, str | os.PathLike) else baseline
    found = find_records(roots or None) if records is None else records
    cells = gather_cells(found, ", ".join(map(str, roots or default_roots())))
    outcome = judge(pinned, cells, pinned.policy.changed(**policy))
    return replace(outcome, notes=(*found.notes, *outcome.notes))
