"""What the page shows of objects: curves, scores by size, quality of classes."""

import re
from html import unescape

import numpy as np
import pytest
from object_records import NAMES, TEST, pairs_of, scored, store_all_objects, store_objects
from report_records import report, stored

from lpmoe_bench.metrics import hits
from lpmoe_bench.metrics.objects import COCO_MASKS, DSB2018
from lpmoe_bench.metrics.panoptic import COCO_PANOPTIC
from lpmoe_bench.records.store import find_records
from lpmoe_bench.report import plots, precision
from lpmoe_bench.report.contents import Selection, gather_contents


@pytest.fixture(scope="module")
def masks(tmp_path_factory):
    root = tmp_path_factory.mktemp("masks")
    store_all_objects(root, COCO_MASKS, seeds=2)
    return root


@pytest.fixture(scope="module")
def segments(tmp_path_factory):
    root = tmp_path_factory.mktemp("segments")
    store_all_objects(root, COCO_PANOPTIC, seeds=2)
    return root


def table_of(root):
    (table,) = gather_contents(find_records([root]), Selection()).tables
    return table


def texts(plot: plots.Plot) -> list[str]:
    from matplotlib.text import Text

    return [one.get_text() for one in plot.figure.findobj(Text) if one.get_text()]


def test_curves_are_those_of_the_scorer_and_average_to_the_score(masks):
    table = table_of(masks)
    found, missing = precision.found_rows(table, "masks")
    assert not missing
    of = {one.row.label: one for one in found}
    scores = [scored(COCO_MASKS, pairs_of("lora", seed)).scores for seed in range(2)]
    for iou, key in ((0, "mask_ap50"), (5, "mask_ap75")):
        curve = of["LoRA"].curve(len(NAMES), iou)
        assert curve.shape == (101,)
        assert (np.diff(curve) <= 1e-12).all()
        wanted = np.mean([one[key] for one in scores])
        assert curve.mean() == pytest.approx(wanted, abs=1e-12)


def test_a_plot_has_a_line_for_each_row_and_its_score_in_words(masks):
    table = table_of(masks)
    found, _ = precision.found_rows(table, "boxes")
    with plots.plot_style():
        plot = precision.draw_curves(table, "boxes", found)
    lines = [line for axes in plot.figure.axes for line in axes.get_lines()]
    assert len(lines) == 2 * len(table.rows)
    words = dict(plot.marks.values())
    cells = {row.label: row.row.cells for row in table.rows}
    place = [column.key for column in table.group.columns].index("box_ap50")
    for name, text in words.items():
        label = text.partition(":")[0]
        assert name.startswith(label)
        assert f"AP at an overlap of .50 {100 * cells[label][place].mean:.1f}" in text


def test_sizes_have_their_objects_and_words_where_there_are_none(tmp_path, masks):
    table = table_of(masks)
    found, _ = precision.found_rows(table, "masks")
    counts = hits.count_objects(found[0].seeds[0])
    with plots.plot_style():
        plot = precision.draw_object_sizes(table, "masks", found)
        said = texts(plot)
    assert counts.min() > 0
    for size, count in zip(precision.SIZES, counts[1:], strict=True):
        assert f"{size}\n{count} objects" in said
    assert not any("no object" in text for text in said)
    # The same rows, as if no object were large.
    for one in found:
        for seed in one.seeds:
            for image in seed:
                for positives in image.positives.values():
                    positives[3] = 0
    with plots.plot_style():
        said = texts(precision.draw_object_sizes(table, "masks", found))
    assert "no object\nof this size" in said
    assert "large\n0 objects" in said


def test_quality_of_each_class_is_that_of_the_records(segments):
    table = table_of(segments)
    row = table.ranked()[0]
    found = precision.read_quality(row, table.test)
    for place, name in enumerate(NAMES):
        wanted = np.mean([one.record.scores[TEST][f"pq/{name}"] for one in row.stored])
        assert found.ratios["pq"][place] == pytest.approx(wanted, abs=1e-12)
    assert (found.ratios["sq"] >= found.ratios["pq"]).all()
    with plots.plot_style():
        said = texts(precision.draw_quality(found, table.test))
    assert [f"{n} ({s})" in said for n, s in zip(NAMES, found.segments, strict=True)] == [True] * 3


def test_a_class_that_is_nowhere_is_told_and_not_drawn(segments):
    found = precision.read_quality(table_of(segments).ranked()[0], TEST)
    for values in found.ratios.values():
        values[2] = np.nan
    with plots.plot_style():
        said = texts(precision.draw_quality(found, TEST))
    assert not any(text.startswith(NAMES[2]) for text in said)


def parts(page: str) -> list[str]:
    return re.findall("<h3>(.*?)</h3>", page)


def test_the_page_shows_panels_for_objects_and_none_for_masks(tmp_path, masks, segments):
    page = report(masks, tmp_path / "masks", "--no-images")
    assert "Precision against recall" in parts(page)
    assert "Average precision by the size of objects" in parts(page)
    assert "Score against the size of the object" not in parts(page)
    assert page.count("<figcaption>Of masks") == page.count("<figcaption>Of boxes") == 2
    assert "AP mask of each class in percent, mean over seeds." in unescape(page)
    quality = report(segments, tmp_path / "segments", "--no-images")
    assert "Panoptic quality of each class" in parts(quality)
    assert "Precision against recall" not in parts(quality)
    stored(tmp_path / "runs")
    assert "Score against the size of the object" in parts(
        report(tmp_path / "runs", tmp_path / "binary", "--no-images")
    )


def test_a_record_without_rows_is_told(tmp_path):
    one = store_objects(tmp_path, "lora")
    store_objects(tmp_path, "vpt")
    table = table_of(tmp_path)
    (one.folder / "per_image.csv").unlink()
    found, missing = precision.found_rows(table, "boxes")
    assert [row.row.label for row in found] == ["VPT"]
    assert missing == [f"LoRA: {one.folder} has no rows of single images"]
    with plots.plot_style():
        curves, sizes = precision.object_panels(table)
    assert curves.lines == sizes.lines == [f"Left out: {missing[0]}."]
    assert len(curves.figures) == len(sizes.figures) == 2


def test_the_score_of_nuclei_is_of_single_images_and_has_no_panel(tmp_path):
    store_objects(tmp_path, "lora", protocol=DSB2018)
    assert precision.object_panels(table_of(tmp_path)) == []


def test_classes_by_the_dozen_stand_in_two_columns(segments):
    row = table_of(segments).ranked()[0]
    ratio = np.linspace(1, 0, 60)
    ratios = dict.fromkeys(("pq", "sq", "rq"), ratio)
    names = [f"class {k}" for k in range(60)]
    found = precision.ClassQuality(row, names, np.arange(60), ratios)
    with plots.plot_style():
        plot = precision.draw_quality(found, TEST)
    assert len(plot.figure.axes) == 2
    assert "class 59 (59)" in texts(plot)
