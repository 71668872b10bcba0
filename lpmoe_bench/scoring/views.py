"""What maps look like beside their scores: the worst images, the curves, a second opinion."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import import_module
from io import BytesIO
from math import fsum, isnan, nan
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from lpmoe_bench.console import Terminal
from lpmoe_bench.data.images import CELL, GAP, INK, TITLE, grid, in_cell
from lpmoe_bench.data.label_rules import class_colours
from lpmoe_bench.data.labels import legend
from lpmoe_bench.errors import UsageError
from lpmoe_bench.files import write_atomically
from lpmoe_bench.metrics.engine import Curves
from lpmoe_bench.metrics.extra import known_metrics
from lpmoe_bench.metrics.facts import OF_COUNTS, Metric, get_metric
from lpmoe_bench.metrics.formulas import Counts
from lpmoe_bench.metrics.protocols import Protocol, ScoringRules
from lpmoe_bench.metrics.row_scores import RowScore, row_score
from lpmoe_bench.records.store import ROWS, read_rows, rows_to_csv
from lpmoe_bench.scoring.matching import telling_folders
from lpmoe_bench.scoring.plan import MapFolder, ScorePlan
from lpmoe_bench.scoring.robustness import Verification, verify_confusions, verify_scores
from lpmoe_bench.scoring.scoring import ScoreOutcome
from lpmoe_bench.scoring.work import MaskJob

# A sheet of pictures: image, mask, map and error of some images, each with its score.

CAPTION = 18  # pixels below each row


class Views(NamedTuple):
    """What the sheet shows of an image, uint8: map, mask and errors (h, w) or RGB (h, w, 3); the
    image RGB or None."""

    pred: np.ndarray
    mask: np.ndarray
    errors: np.ndarray
    image: np.ndarray | None = None


def sheet(
    labels: Sequence[str], views: Iterable[Views], title: str, columns: Sequence[str]
) -> np.ndarray:
    """Lay out a row of pictures for each label, which stands below it; RGB uint8 (h, w, 3).

    columns: titles of mask, map and errors. The column of images is there where any image is. At
    least one label.
    """
    rows, with_image, blank = [], False, np.full((1, 1), 255, np.uint8)
    for one in views:
        with_image = with_image or one.image is not None
        image = blank if one.image is None else one.image
        # Shrunk at once: the sheet of a hundred photographs holds a hundred cells, not photographs.
        pictures = (image, one.mask, one.pred, one.errors)
        rows.append([in_cell(picture) for picture in pictures])
    titles = ["image"] * with_image + [*columns]
    strips = [_strip(title, len(titles))] if title else []
    for index, (label, row) in enumerate(zip(labels, rows, strict=True)):
        part = grid(titles, [row if with_image else row[1:]])
        strips.append(part if index == 0 else part[TITLE:])
        strips.append(_strip(label, len(titles)))
    return np.concatenate(strips)


def _strip(text: str, columns: int) -> np.ndarray:
    """Return a line of text as wide as the sheet; a name too long is cut in its middle."""
    strip = np.full((CAPTION, columns * (CELL + GAP) + GAP, 3), 255, np.uint8)
    font, scale = cv2.FONT_HERSHEY_SIMPLEX, 0.42
    text = text.encode("ascii", "replace").decode()  # the font has no other letters
    cut, keep = text, len(text)
    while cv2.getTextSize(cut, font, scale, 1)[0][0] > strip.shape[1] - 12:
        keep -= 1
        head = max(1, keep // 2 - 2)
        cut = f"{text[:head]}...{text[len(text) - max(1, keep - head - 3) :]}"
    cv2.putText(strip, cut, (GAP, CAPTION - 5), font, scale, INK, 1, cv2.LINE_AA)
    return strip


# The images that a method segments worst, as a list or as a sheet of pictures.


class Worst(NamedTuple):
    """One of the worst images: its name, and its value of the metric with the key `metric`."""

    image: str
    metric: str
    value: float


def worst_images(
    rows: Sequence[Mapping[str, Any]],
    protocol: ScoringRules,
    count: int,
    metric: str | None = None,
    classes: Sequence[str] = (),
) -> list[Worst]:
    """Return the worst `count` images, worst first, of `ScoreResult.rows` (or of read_rows).

    By `metric`, a column of the rows; by default the protocol's primary one or, where only the
    data set has it, the same of each image's counts, or of its confusion of `classes`. Images
    without a value are left out; ties are in the order of names. Raises UsageError for a count
    below 1 or a metric that images do not have.
    """
    if count < 1:
        raise UsageError(f"the worst {count} images are none; ask for 1 or more")
    facts = image_metric(metric or protocol.primary)
    values = [(image_value(row, facts.key), row["image"]) for row in rows]
    if classes and (of_rows := row_score(facts.key, protocol, classes)):
        values = list(zip(_of_each(of_rows, rows), [row["image"] for row in rows], strict=True))
    known = [(value, image) for value, image in values if value is not None]
    if not known:
        raise UsageError(f"no image has a value of {facts.key}; choose another metric")
    sign = 1 if facts.higher_is_better else -1
    known.sort(key=lambda item: (sign * item[0], item[1]))
    return [Worst(image, facts.key, value) for value, image in known[:count]]


def _of_each(score: RowScore, rows: Sequence[Mapping[str, Any]]) -> list[float | None]:
    """Return the score of each row by itself, None where it has none."""
    counted, parts = score.read([[row[column] for row in rows] for column in score.columns])
    found: list[float | None] = [None] * len(rows)
    for place, value in zip(np.flatnonzero(counted), score.of_each(parts).tolist(), strict=True):
        found[place] = None if isnan(value) else value
    return found


def write_worst(
    worst: Sequence[Worst],
    load: Callable[[str], Views],
    path: Path,
    title: str = "",
    columns: Sequence[str] = MaskJob.titles,
    classes: Mapping[str, tuple[int, int, int]] | None = None,
) -> Path:
    """Write a PNG of image (where there is one), mask, map and error of each, worst first.

    `load` returns an image's views by its name, all of one size; one image is held at a time.
    columns: titles of mask, map and error. classes: their colours, for a legend. Returns the path.
    """
    labels = [f"{i}. {one.image}   {one.metric} {one.value:.4g}" for i, one in enumerate(worst, 1)]
    pixels = sheet(labels, (load(one.image) for one in worst), title, columns)
    if classes:
        told = legend([*classes], [*classes.values()], pixels.shape[1])
        pixels = np.concatenate([pixels, told])
    write_atomically(path, cv2.imencode(".png", pixels[..., ::-1])[1].tobytes())
    return path


def image_metric(key: str) -> Metric:
    """Return the metric that images have for one of a data set; raises UsageError for none."""
    key = key.removesuffix("_dataset")
    if key in ("miss", "false_alarm"):  # which images have by their counts alone
        return get_metric(f"{key}_dataset")
    return known_metrics().get(key) or get_metric(key)


def image_value(row: Mapping[str, Any], key: str) -> float | None:
    """Return a row's value, or that of its counts where it has those only."""
    if row.get(key) is not None:
        return float(row[key])
    of_counts = OF_COUNTS.get(key if key.endswith("_dataset") else f"{key}_dataset")
    if of_counts is None or any(row.get(name) is None for name in Counts._fields):
        return None
    return float(of_counts(Counts(*(int(row[name]) for name in Counts._fields))))


# PR, F and E curves of several methods on one data set, as plots.

# Okabe and Ito's colours without yellow, which is faint on white; then again with other dashes.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
DASHES = ("-", "--", "-.", ":")
INSTALL = "pip install 'lpmoe-bench[plot]'"


def need_matplotlib() -> None:
    """Raise UsageError, with the line that installs it, where matplotlib is missing."""
    try:
        import_module("matplotlib.figure")
    except ImportError:
        raise UsageError(f"plots need matplotlib; install it with: {INSTALL}") from None


def write_curves(
    curves: Mapping[str, Curves],
    protocol: Protocol,
    folder: Path,
    dataset: str = "",
    formats: tuple[str, ...] = ("png", "svg"),
) -> list[Path]:
    """Plot the curves of methods and return the files: pr, f and e, each in every format.

    `curves` maps a method's name to its `ScoreResult.curves`, which a `Scorer(protocol,
    curves=True)` keeps. Files are `curve_pr.png`, `curve_f.png`, ... in `folder`. Raises UsageError
    with the line that installs it where matplotlib is missing.
    """
    need_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    assert curves, "at least one method"
    files = []
    for kind in ("pr", "f", "e"):
        for form in formats:
            # A figure for each file: the layout of one that was drawn before is another.
            figure = Figure(figsize=(5.6, 4.2), dpi=160, layout="constrained")
            FigureCanvasAgg(figure)  # drawn without a display, and without pyplot's global state
            _draw(figure, kind, curves, protocol, dataset)
            files.append(folder / f"curve_{kind}.{form}")
            write_atomically(files[-1], _rendered(figure, form))
    return files


def _draw(
    figure: Any, kind: str, curves: Mapping[str, Curves], protocol: Protocol, dataset: str
) -> None:
    axes = figure.add_subplot()
    floor = 1.0
    for index, (name, curve) in enumerate(curves.items()):
        xs, ys = {
            "pr": (curve.recall, curve.precision),
            "f": (curve.thresholds, curve.f),
            "e": (curve.thresholds, curve.e),
        }[kind]
        colour = COLOURS[index % len(COLOURS)]
        dashes = DASHES[index // len(COLOURS) % len(DASHES)]
        axes.plot(xs, ys, label=_plain(name), color=colour, linestyle=dashes, linewidth=1.8)
        floor = min(floor, *ys)
    beta = f"$\\beta^2 = {protocol.f_beta2:g}$"
    across, up = {
        "pr": ("recall", "precision"),
        "f": ("threshold", f"F-measure, {beta}"),
        "e": ("threshold", "E-measure"),
    }[kind]
    axes.set_xlabel(across)
    axes.set_ylabel(f"{up}  (protocol {protocol.name} v{protocol.version})")
    axes.set_xlim(0, 1)
    axes.set_ylim(max(0.0, floor - 0.03), 1.02)
    axes.set_title(_plain(dataset), fontsize=10)
    axes.grid(True, color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, framealpha=0.9, ncols=1 + (len(curves) > 8))


def _plain(text: str) -> str:
    """Return text that matplotlib shows as it is: no formula, and no label that it would hide."""
    text = text.replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


def _rendered(figure: Any, form: str) -> bytes:
    """Return the picture's bytes, the same for the same curves: without date, with fixed names."""
    from matplotlib import rc_context

    data = BytesIO()
    metadata = {"Date": None} if form == "svg" else {}
    with rc_context({"svg.hashsalt": "curves", "svg.fonttype": "none"}):
        figure.savefig(data, format=form, metadata=metadata)
    return data.getvalue()


# Means of sub-folders, such as the videos of a set, and their mean.

GROUPS = "groups.csv"


class FolderMeans(NamedTuple):
    """Means of one test set by sub-folder.

    means: {folder: {metric: the mean over its images, None where none has a value}}. images: how
    many of each folder count. mean: {metric: the mean of these means}.
    """

    means: dict[str, dict[str, float | None]]
    images: dict[str, int]
    mean: dict[str, float | None]


def folder_means(
    rows: Sequence[Mapping[str, Any]],
    metrics: Sequence[str],
    protocol: ScoringRules | None = None,
    classes: Sequence[str] = (),
) -> FolderMeans:
    """Average rows of images, `ScoreResult.rows`, by the folder that tells them apart.

    Each folder weighs the same in the mean, however many images it has. A maximum over thresholds
    is taken at the one threshold that is best for the whole set. Of label maps of `classes` the
    score of a folder is that of the pixels of all its images. Metrics that only a whole data set
    has are left out otherwise.
    """
    keys = [key for key in metrics if any(row.get(key) is not None for row in rows)]
    scores = {key: row_score(key, protocol, classes) for key in metrics} if classes else {}
    scores = {key: score for key, score in scores.items() if score}
    keys += [key for key in scores if key not in keys]
    folders = {
        name: folder for name, (folder, _) in telling_folders(r["image"] for r in rows).items()
    }
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(folders[row["image"]], []).append(row)

    def mean(values: Iterable[float | None]) -> float | None:
        there = [value for value in values if value is not None]
        return fsum(there) / len(there) if there else None

    def of_folder(key: str, of: Sequence[Mapping[str, Any]]) -> float | None:
        if (score := scores.get(key)) is None:
            return mean(row[key] for row in of)
        parts = score.read([[row[column] for row in of] for column in score.columns]).of_image
        value = score.of_all(parts) if len(parts) else nan
        return None if isnan(value) else value

    telling = {column for score in scores.values() for column in score.columns} or keys
    means = {f: {k: of_folder(k, of) for k in keys} for f, of in sorted(groups.items())}
    images = {
        f: sum(any(row[key] not in (None, "") for key in telling) for row in groups[f])
        for f in means
    }
    whole = {key: mean(values[key] for values in means.values()) for key in keys}
    return FolderMeans(means, images, whole)


def write_folder_means(found: FolderMeans, path: Path) -> Path:
    """Write a CSV with a line a folder, the mean of all in the last one; return its path."""
    rows = [{"folder": f, "images": found.images[f], **of} for f, of in found.means.items()]
    last = {"folder": "mean of folders", "images": sum(found.images.values()), **found.mean}
    write_atomically(path, rows_to_csv([*rows, last]))
    return path


# What can be made of maps besides scores: worst images, curves, a second opinion.


def rows_of(place: Path, test: str) -> list[dict[str, Any]]:
    """Return the rows that a record has of one test set."""
    return [row for row in read_rows(place / ROWS) if row["dataset"] == test]


def make_worst(
    plan: ScorePlan, place: Path, folder: MapFolder, test: str, count: int
) -> tuple[list[Worst], Path]:
    """Return the worst images of a method, and the sheet of pictures written beside its record."""
    classes, rules = plan.classes, plan.rules_of(test)
    worst = worst_images(rows_of(place, test), plan.protocol, count, classes=classes)
    load = plan.load(folder, test)

    def views(name: str) -> Views:
        pred, truth = load(name)
        shown, seen, errors = plan.job.shown(pred, truth, rules)
        image = plan.load_image(test, name)
        same = image is not None and image.shape[:2] == truth.shape
        return Views(seen, shown, errors, image if same else None)

    sheet = place / f"worst-{test.replace('/', '-')}.png"
    labels = rules.labels
    colours = dict(zip(classes, class_colours(labels), strict=True)) if labels else None
    title = f"{folder.title}, {test}"
    return worst, write_worst(worst, views, sheet, title, plan.job.titles, colours)


def make_verification(
    plan: ScorePlan, place: Path, folder: MapFolder, test: str, count: int, terminal: Terminal
) -> Verification:
    """Score some images of a method again by PySODMetrics, or count their classes again."""
    # PySODMetrics knows no pixels that count for nothing.
    rows = [row for row in rows_of(place, test) if "ignored_pixels" not in str(row["flags"])]
    with terminal.bar(f"verifying {folder.title}", count) as bar:
        load = plan.load(folder, test)
        if plan.classes:
            return verify_confusions(rows, load, count, on_progress=bar.update)
        return verify_scores(rows, load, plan.protocol, count, on_progress=bar.update)


def make_curves(plan: ScorePlan, outcome: ScoreOutcome, folder: Path) -> list[Path]:
    """Write the curves of all methods, for several test sets in a folder for each."""
    files: list[Path] = []
    for test, methods in outcome.results.items():
        place = folder / test.replace("/", "-") if len(outcome.results) > 1 else folder
        firsts = {title: results[0] for title, results in methods.items()}
        curves = {title: r.curves for title, r in firsts.items() if r is not None and r.curves}
        files += write_curves(curves, plan.protocol, place, test)
        files.append(place / "curves.csv")
        write_atomically(files[-1], rows_to_csv(curve_rows(curves)))
    return files


def curve_rows(curves: Mapping[str, Curves]) -> list[dict[str, Any]]:
    """Return a row for each method and threshold, with the numbers that the plots show."""
    return [
        {"method": method, "threshold": level, "precision": p, "recall": r, "f": f, "e": e}
        for method, of in curves.items()
        for level, p, r, f, e in zip(of.thresholds, *of, strict=True)
    ]


def verification_sentences(title: str, test: str, found: Verification) -> Sequence[str]:
    """Say what a verification found."""
    metric = max(found.differences, key=lambda key: found.differences[key], default="nothing")
    said = [
        f"{title}, {test}: {len(found.images)} images {found.how}; largest difference "
        f"{found.largest:.1e} ({metric})"
    ]
    if found.skipped:
        reasons = (f"{key}: {why}" for key, why in found.skipped.items())
        said.append(f"not compared: {'; '.join(reasons)}")
    return said
