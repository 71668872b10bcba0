"""Images of a test set: scores by row, where rows disagree, and their pictures found again."""

import base64
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pandas as pd

from lpmoe_bench.config.kinds import Kind, get_kind, kind_of_files
from lpmoe_bench.data import registry, tasks
from lpmoe_bench.data.annotations import Mask, MaskParts
from lpmoe_bench.data.pixels import pixel_rules
from lpmoe_bench.data.splits import MANIFESTS
from lpmoe_bench.data.test_sets import TestSet, find_files, folder_set
from lpmoe_bench.errors import BenchError, DataError, UsageError
from lpmoe_bench.metrics import facts as metric_facts
from lpmoe_bench.metrics import protocols
from lpmoe_bench.records import context, model
from lpmoe_bench.records.store import ROWS, StoredRecord, image_rows, recall_places
from lpmoe_bench.report import pictures, plots
from lpmoe_bench.report.contents import ReportRow, ReportTable
from lpmoe_bench.scoring import plan, views

OF_ALL = ".json"  # suffix of a file of results of all images
KEPT = "predictions"  # folder of a run that keeps its maps, one folder a test set
EDGES = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 1.0)  # of the bins: shares of the image
BINS = ("to 1 %", "1-2 %", "2-5 %", "5-10 %", "10-20 %", "20-40 %", "above 40 %")
FEW = 5  # images, below which a mean is drawn hollow
SIDE = 160  # pixels, of the longer side of a picture in the page
SWATCH = 12  # pixels of a colour in a legend
JPEG_QUALITY = 82
ALIKE = 0.02  # of a map made again on another machine
MOST_METHODS = 8  # of an image's maps
ALL = (slice(None), slice(None))

# Scores of single images.


@dataclass(frozen=True)
class TableScores:
    """Scores of the images of a test set, of the rows that have them.

    metric: may be an image's own where the table's score is of the whole set. means: over seeds,
    a line an image and a column a place in `rows`. seeds: for each row the scores of each seed.
    shares: foreground of the image. missing: a sentence for each row without such scores.
    """

    metric: metric_facts.Metric
    rows: Sequence[ReportRow]
    means: pd.DataFrame
    seeds: Sequence[pd.DataFrame]
    shares: pd.Series
    missing: Sequence[str]

    def shown(self, value: float) -> str:
        """Write a score with the metric's decimals."""
        return f"{value:.{self.metric.decimals}f}"


def read_table_scores(table: ReportTable) -> TableScores | None:
    """Read the image scores of a table's best rows; None for a score that no image has."""
    try:
        metric = views.image_metric(table.score.key)
    except BenchError:
        return None
    rows, seeds, shares, missing = [], [], [pd.Series(dtype=float)], []
    for row in table.best:
        try:
            read = [read_values(one, table.test, metric) for one in row.stored]
        except BenchError as error:
            missing.append(f"{row.label}: {error}")
            continue
        values = pd.concat([one["value"] for one in read], axis=1, ignore_index=True)
        if values.dropna().empty:
            missing.append(f"{row.label}: no image has a value of {metric.label}")
            continue
        rows.append(row)
        seeds.append(values)
        shares += [one["share"] for one in read]
    # An image counts where all seeds of a row have it.
    means = pd.DataFrame({n: one.dropna().mean(axis=1) for n, one in enumerate(seeds)})
    known = pd.Series(pd.concat(shares).dropna().groupby(level=0).last())
    return TableScores(metric, rows, means.sort_index(), seeds, known, missing)


def read_values(stored: StoredRecord, test: str, metric: metric_facts.Metric) -> pd.DataFrame:
    """Return `value` and foreground `share` of each image that a record has of a test set.

    Of a score that only a data set has, the value of the set of that image alone.
    """
    read = image_rows(stored.folder, test)
    if read is None:
        raise DataError(f"{stored.folder / ROWS} does not exist; the record has no such rows")
    rule = stored.record.row_score(metric.key)
    if rule is not None and metric.of_counts is None:
        try:
            parts = rule.read([read.texts(name) for name in rule.columns])
        except ValueError as error:
            raise DataError(f"{read.path} is no table of numbers ({error})") from None
        names = np.array(read.images, object)[parts.counted]
        return pd.DataFrame({"value": rule.of_each(parts.of_image), "share": np.nan}, index=names)
    wanted = (metric.key, *views.Counts._fields, "foreground_share")
    columns = {name: read.numbers(name) for name in wanted}
    rows = {
        image: dict(zip(columns, values, strict=True))
        for image, *values in zip(read.images, *columns.values(), strict=True)
        if image
    }
    found = {
        "value": [views.image_value(row, metric.key) for row in rows.values()],
        "share": [row["foreground_share"] for row in rows.values()],
    }
    return pd.DataFrame(found, index=list(rows), dtype=float)


def most_disputed(scores: TableScores, count: int) -> pd.DataFrame:
    """Return the means of the images of the largest spreads among those that all rows have.

    None where there are fewer than two rows.
    """
    common = scores.means.dropna() if len(scores.rows) > 1 else scores.means.iloc[:0]
    # Sorted in a stable way: of equal spreads the order of names decides, on every machine.
    spread = common.max(axis=1) - common.min(axis=1)
    return common.loc[spread.sort_values(ascending=False, kind="stable").index[:count]]


class Sizes(NamedTuple):
    """Means and counts in bins of foreground share, a line a bin and a column a row; images: how
    many of each bin any row has. Empty bins are left out."""

    means: pd.DataFrame
    counts: pd.DataFrame
    images: pd.Series


def by_size(scores: TableScores) -> Sizes:
    """Bin a table's images by foreground share; a share on an edge belongs to the bin below."""
    shares = scores.shares.reindex(scores.means.index).dropna()
    bins = pd.cut(shares, EDGES, labels=BINS, include_lowest=True)
    inside = scores.means.loc[shares.index].groupby(bins, observed=True)
    return Sizes(inside.mean(), inside.count(), inside.size())


def draw_sizes(table: ReportTable, scores: TableScores, sizes: Sizes) -> plots.Plot:
    """Draw means by bin of foreground share; the best rows in colour, as many as there are."""
    metric, bins = scores.metric, list(sizes.means.index)
    axes = plots.new_axes(7.4, 3.0, 0.45, 0.68, 1.9, 0.28)
    axes.set_title(f"{metric.label} {metric.arrow}")
    axes.set_xlabel(f"foreground share of the image, number of images (hollow: fewer than {FEW})")
    axes.set_xticks(range(len(bins)), [f"{name}\nn = {n}" for name, n in sizes.images.items()])
    plot = plots.Plot(axes.figure, f"{metric.label} on {table.test} by foreground share")
    places = {id(row): place for place, row in enumerate(scores.rows)}
    ranked = [places[id(row)] for row in table.ranked() if id(row) in places]
    for number, place in reversed([*enumerate(ranked)]):
        row, mark, coloured = scores.rows[place], f"mark-{number}-", number < len(views.COLOURS)
        found = pd.DataFrame({"mean": sizes.means[place], "n": sizes.counts[place]})
        found = found.set_axis(range(len(bins))).dropna()
        colour = views.COLOURS[number] if coloured else "#c3c9d1"
        dashes = {"linestyle": views.DASHES[number % len(views.DASHES)], "color": colour}
        shown = f" {plots.shorten(row.label, 26)}" if coloured else "_"  # "_": in no legend
        width = 1.5 if coloured else 0.8
        axes.plot(found["mean"], gid=f"{mark}line", label=shown, linewidth=width, **dashes)
        if coloured:
            fills = [colour if n >= FEW else "white" for n in found["n"]]
            dots = {"s": 15, "edgecolors": colour, "facecolors": fills, "zorder": 2.5}
            axes.scatter(found.index, found["mean"], gid=f"{mark}dots", **dots)
        each = (f"{bins[x]} {scores.shown(mean)} (n = {n})" for x, mean, n in found.itertuples())
        plot.marks[mark] = (row.name, f"{row.label}: {', '.join(each)}")
    axes.set_xlim(-0.5, len(bins) - 0.5)
    others = len(ranked) - len(views.COLOURS)
    place = {"loc": "upper left", "bbox_to_anchor": (1.0, 1.02), "alignment": "left"}
    axes.legend(**place, reverse=True, title=f"grey: {others} others" if others > 0 else None)
    return plot


# Images, masks and maps, found again.


@dataclass(frozen=True)
class SetSource:
    """Where images are looked for: the registry, the data root, the cache of drawn sets.

    maps: folders of scored maps that a user named, by method.
    """

    registry: registry.Registry
    root: Path | None
    cache: Path
    maps: Mapping[str, Path] = field(default_factory=dict)


def parse_maps(texts: Iterable[str], option: str = "--maps") -> dict[str, Path]:
    """Read NAME=FOLDER for each; raises UsageError for another form or a folder that is none."""
    found: dict[str, Path] = {}
    for text in texts:
        name, equals, folder = text.partition("=")
        if not (name and equals and folder):
            raise UsageError(
                f"{option} got '{text}'; write it as NAME=FOLDER, such as OtherNet=maps/"
            )
        if not Path(folder).is_dir() and Path(folder).suffix.lower() != OF_ALL:
            raise UsageError(
                f"{option} {name}: {folder} is no folder; name one that holds maps, or "
                f"a file of results of objects"
            )
        if name in found:
            raise UsageError(f"{option} names {name} twice; give each folder a name of its own")
        found[name] = Path(folder)
    return found


class FoundMaps(NamedTuple):
    """A record whose maps of a test set are found. place: where they are. files: by image."""

    stored: StoredRecord
    place: Path
    files: Mapping[str, Mask]


def find_maps(
    stored: Iterable[StoredRecord], test: str, names: Collection[str], given: Mapping[str, Path]
) -> FoundMaps | None:
    """Return the first of a row's records whose maps of a test set are found.

    names: of the images. given: folders of scored maps that a user named, by method.
    """
    # Folders that are named now win over maps that were kept, these over remembered folders.
    for one in stored:
        method = one.record.method
        protocol = protocols.PROTOCOLS.get(one.record.protocol.name)
        kind = get_kind(protocol.kind) if protocol else kind_of_files()
        named = given.get(method.title) or given.get(method.name)
        folders = inside(named, test) if named and one.record.kind == "score" else []
        kept = one.folder / KEPT / test.replace("/", "-")
        for folder in filter(None, [*folders, kept, recall_places(one.folder, test).maps]):
            if files := maps_in(folder, names, kind):
                return FoundMaps(one, folder, files)
    return None


def maps_in(place: Path, names: Collection[str], kind: Kind) -> dict[str, Mask]:
    """Return the maps of a folder by image; none of an empty one, or where names do not match.

    A file of results of all images, where the kind has such files, is there for each of them.
    """
    suffixes = kind.job.suffixes
    try:
        if place.is_dir():
            return {**plan.match_maps(names, find_files(place, suffixes)).files}
    except BenchError:
        return {}
    lists = place.is_file() and OF_ALL in suffixes and place.suffix.lower() == OF_ALL
    return {name: MaskParts((place,)) for name in names} if lists else {}


def inside(folder: Path, test: str) -> list[Path]:
    """Return where a user's folder may keep the maps of a test set."""
    return [folder / test.replace("/", "-"), folder / test, folder]


def find_test_set(source: SetSource, stored: Sequence[StoredRecord], test: str) -> TestSet:
    """Return images and masks of the test set of records that share it, at least one record.

    Raises DataError, in one sentence, where they are not here or are not those of the records.
    """
    # Maps of a folder have facts of masks alone, where a run has those of its images.
    first = next((one for one in stored if one.record.kind != "score"), stored[0])
    facts = context.test_facts(first.record, test)
    if facts is None:
        raise DataError(f"the records do not say what {test} is")
    try:
        found = _open(source, first.record.task, stored, facts)
    except BenchError as error:
        raise DataError(f"images of {test} could not be opened: {error}") from None
    gone = gone_places(stored, test)
    if gone and (found is None or found.split.digest != facts.digest):
        raise DataError(f"{gone}; name it with --images and --gt of `figure`, or move it back")
    if found is None:
        where = "in the data root" if source.root else "here: name the data root with --data-root"
        raise DataError(f"the images of {test} are not found {where}")
    if found.split.digest != facts.digest:
        raise DataError(
            f"the images of {test} that are found are others than those that were scored "
            f"({found.split.digest[:8]} against {facts.digest[:8]})"
        )
    return found


def gone_places(stored: Iterable[StoredRecord], test: str, maps: bool = False) -> str:
    """Say which folder of images and masks, or of maps, records remember that is gone; or ``."""
    for one in stored:
        pictures, masks, own = recall_places(one.folder, test, there=False)
        if gone := own if maps else masks or pictures:
            return f"{gone}, remembered for {test}, is not there any more"
    return ""


def _open(
    source: SetSource, task: str, stored: Sequence[StoredRecord], facts: model.SplitFacts
) -> TestSet | None:
    known, (name, _, part) = source.registry, facts.label.partition("/")
    if facts.generated:
        splits = tasks.resolve(known.task(task), known, None, None, True, source.cache).tests
        return next((TestSet.of(split) for split in splits if split.label == facts.label), None)
    if name in known.datasets:
        dataset, cache = known.dataset(name), source.cache / MANIFESTS
        split = (
            tasks.open_split(dataset, part, source.root, cache)
            if part in dataset.split_names
            else None
        )
        return TestSet.of(split) if split else None
    found = None
    remembered = (recall_places(one.folder, facts.label) for one in stored)
    for photos, masks, _ in dict.fromkeys(remembered):
        if masks is not None:  # somebody's own folders, which may hold other images by now
            found = folder_set(masks, photos, source.cache, pixel_rules(facts.pixels))
            if found.split.digest == facts.digest:
                break
    return found


# The images that methods disagree on most: as pictures where they can be had, else as a list.

KeptMaps = tuple[int, FoundMaps]  # the place of a row, and where its maps are


def dispute_facts(
    table: ReportTable, scores: TableScores | None, source: SetSource | None, count: int
) -> dict[str, Any]:
    """Return the images that rows disagree on; `grids` where image, mask and maps are found.

    without: labels of rows whose maps are not kept. reason: why there are no grids. embedded:
    whether images of a data set are in the grids. legend: of label maps and objects, a name and a
    picture for each colour. note: what is to be said of such pictures.
    """
    facts: dict[str, Any] = {"grids": [], "reason": "", "without": [], "embedded": False}
    facts |= {"legend": [], "note": ""}
    disputed = most_disputed(scores, count) if scores else pd.DataFrame()
    facts["images"] = disputed
    if scores is None or disputed.empty:
        return facts
    if source is None:
        return facts | {"reason": "Pictures were left out on request (--no-images)."}
    kept: list[KeptMaps] = []
    for place, row in enumerate(scores.rows):
        if found := find_maps(row.stored, table.test, list(disputed.index), source.maps):
            kept.append((place, found))
        else:
            facts["without"].append(row.label)
    if not kept:
        return facts
    try:
        test = find_test_set(source, table.stored, table.test)
    except BenchError as error:
        return facts | {"reason": f"No pictures: {error}."}
    rules = table.group.context
    protocol = protocols.PROTOCOLS.get(rules.protocol)
    kind = protocol.kind if protocol else kind_of_files(test.rules.form).name
    protocol = protocol if protocol and protocol.hash == rules.protocol_hash else None
    try:
        shown = pictures.pictures_of(test, kind, protocol)
    except BenchError as error:
        return facts | {"reason": f"No pictures: {error}."}
    names = [name for name in disputed.index if name in test.masks]
    try:
        kept = [(n, one._replace(files=shown.attached(one.files, one.place))) for n, one in kept]
    except BenchError as error:
        return facts | {"reason": f"No pictures: {error}."}
    seen: set[int] = set()  # of truth and maps
    grids = [_grid(scores, name, disputed.loc[name], kept, shown, seen) for name in names]
    if not shown.has_object:
        facts["note"] = shown.note
        facts["legend"] = _legend(shown.swatches(seen, ["maps", "errors"]))
    told = context.test_facts(table.stored[0].record, table.test)
    drawn = told is not None and told.generated  # scenes drawn in code are nobody's
    return facts | {"grids": grids, "embedded": bool(grids) and not drawn}


def _grid(
    scores: TableScores,
    name: str,
    values: pd.Series,
    kept: Sequence[KeptMaps],
    shown: pictures.MapPictures,
    seen: set[int],
) -> dict[str, Any]:
    """Return image, truth, and map above errors of the rows that have a map, the best first; what
    truth and maps hold joins `seen`."""
    share = f", foreground {100 * scores.shares[name]:.1f} %" if name in scores.shares else ""
    words = f"spread {scores.shown(values.max() - values.min())}{share}"
    try:
        image, truth = shown.read(name)
    except BenchError as error:
        return {"image": name, "words": words, "cells": [], "error": str(error)}
    first = [] if image is None else [("image", embedded_picture(image, f"image {name}"))]
    seen.update(shown.present(truth, ALL))
    title = shown.truth_title
    drawn = shown.shown(truth, truth)
    first += [(title, embedded_picture(drawn, f"{title} of {name}", shown.flat, True))]
    cells = [{"title": title, "pictures": [picture]} for title, picture in first]
    ranked = sorted(
        (one for one in kept if name in one[1].files),
        key=lambda one: values[one[0]],
        reverse=scores.metric.higher_is_better,
    )
    # As many as a line shows: the best, the worst and some between.
    places = np.linspace(0, len(ranked) - 1, min(len(ranked), MOST_METHODS)).round().astype(int)
    cells += [_map_cell(scores, ranked[place], truth, name, shown, seen) for place in places]
    return {"image": name, "words": words, "cells": cells, "error": ""}


def _map_cell(
    scores: TableScores,
    kept: KeptMaps,
    truth: Any,
    name: str,
    shown: pictures.MapPictures,
    seen: set[int],
) -> dict[str, Any]:
    place, (stored, _, files) = kept
    row = scores.rows[place]
    cell = {"title": row.label, "name": row.name, "pictures": []}
    try:
        pred = shown.read_map(files[name], truth, stored)
        drawn, wrong = shown.shown(pred, truth), shown.errors(pred, truth)
        told = shown.told(pred, truth)
        value = scores.seeds[place][row.stored.index(stored)].get(name)
        found = None if value is None else shown.score(scores.metric, pred, truth)
    except BenchError as error:
        return cell | {"words": str(error)}
    seen.update(shown.present(pred, ALL))
    cell["pictures"] = [
        embedded_picture(drawn, f"map of {row.label}", shown.flat, True),
        embedded_picture(wrong, f"errors of {row.label}", shown.flat, not shown.has_object),
    ]
    said = [] if value is None else [f"{shown.label(scores.metric)} {scores.shown(value)}"]
    said += [f"seed {stored.record.seed}"] if len(row.stored) > 1 else []
    said += [told] if told else []
    words = ", ".join(said)
    if (
        value is not None and found is not None and abs(found - value) > ALIKE
    ):  # such as a map made from windows
        words += f"; not the map that was scored, this one has {scores.shown(found)}"
    return cell | {"words": words}


def _legend(swatches: Mapping[str, pictures.Colour]) -> list[tuple[str, dict[str, Any]]]:
    """Return what each colour means, with a picture that is all of it."""
    flat = {
        name: np.full((SWATCH, SWATCH, 3), colour, np.uint8) for name, colour in swatches.items()
    }
    return [(name, embedded_picture(pixels, "", True)) for name, pixels in flat.items()]


def embedded_picture(
    pixels: np.ndarray, alt: str, flat: bool = False, exact: bool = False
) -> dict[str, Any]:
    """Return a small picture as data: RGB (h, w, 3) as JPEG or grey (h, w) as PNG, uint8.

    alt: what is seen, for who does not see it. flat: its colours mean something and stay as they
    are, as PNG. exact: as PNG, though shrinking may blend neighbours.
    """
    scale = SIDE / max(pixels.shape[:2])
    if scale < 1:
        size = tuple(max(1, round(side * scale)) for side in pixels.shape[1::-1])
        way = cv2.INTER_NEAREST_EXACT if flat else cv2.INTER_AREA
        pixels = cv2.resize(pixels, size, interpolation=way)
    # Maps and masks as PNG, whose edges JPEG would blur. Photographs would be several times as
    # large in it, and a page holds dozens.
    kind, quality = "png", []
    if pixels.ndim == 3:
        pixels = np.ascontiguousarray(pixels[..., ::-1])
        if not (flat or exact):
            kind, quality = "jpeg", [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    data = cv2.imencode(f".{kind}", pixels, quality)[1]
    text = base64.b64encode(data.tobytes()).decode()
    height, width = pixels.shape[:2]
    source = f"data:image/{kind};base64,{text}"
    return {"source": source, "alt": alt, "width": width, "height": height}
