"""The plots of the report: fronts, curves and sizes by hand, and files that are alike each time."""

from __future__ import annotations

import hashlib
import itertools
import re
import shutil
import subprocess
import xml.dom.minidom

import cv2
import numpy as np
import pandas as pd
import pytest
from report_records import HOSTILE, IMAGES, stored
from sample_records import record

from lpmoe_bench.errors import DataError, UsageError
from lpmoe_bench.records.store import FoundRecords, find_records
from lpmoe_bench.report import pareto, plots
from lpmoe_bench.report.contents import Selection, gather_contents
from lpmoe_bench.report.images import by_size, most_disputed, read_table_scores
from lpmoe_bench.report.training import draw_training, mean_of_seeds, read_training, seed_curve


def tables(root, **choice):
    return gather_contents(find_records([root]), Selection(**choice)).tables


def plane_of(table, cost):
    return pareto.pareto_plane(table, pareto.find_cost(cost))


def costed(root, name, score, parameters, speed):
    """A record of one score, one count of parameters and one speed."""
    counts = {"method": parameters, "decoder": 0, "frozen": 1, "total": 1, "trainable": parameters}
    shares = {"share_of_backbone": 0.0, "share_of_total": 0.0}
    return stored(
        root,
        scores={"s_measure": score, "mae": 1 - score},
        parameters=counts | shares,
        costs={"inference_images_per_second": speed},
        method={"name": name, "title": name},
        fingerprint=hashlib.sha256(name.encode()).hexdigest(),
    )


@pytest.fixture
def five(tmp_path):
    for name, *facts in (
        ("a", 0.5, 10, 9.0),
        ("b", 0.7, 100, 8.0),
        ("c", 0.6, 200, 8.5),  # beaten by b where parameters count, on the front of speed
        ("d", 0.7, 100, 1.0),  # a tie with b in parameters: neither beats the other
        ("e", 0.9, 1000, None),
    ):
        costed(tmp_path, name, *facts)
    return tables(tmp_path)[0]


def contents_of(table):
    records = [one for row in table.rows for one in row.stored]
    return gather_contents(FoundRecords(records, []), Selection())


def test_the_front_by_hand(five):
    made = plane_of(five, "parameters")
    assert {point.row.label for point in made.front} == {"a", "b", "d", "e"}
    assert made.points[0].x == pytest.approx(10 / 1e6)
    speed = plane_of(five, "images_per_second")
    assert [point.row.label for point in speed.front] == ["b", "c", "a"]
    assert speed.absent == ["e"]


def test_the_front_of_a_score_that_falls(tmp_path, five):
    falling = tables(tmp_path, metric="mae")[0]
    made = plane_of(falling, "parameters")
    assert {point.row.label for point in made.front} == {"a", "b", "d", "e"}


def test_the_front_is_what_no_row_beats(tmp_path):
    rng = np.random.default_rng(3)
    for number in range(30):
        score, cost = rng.integers(50, 60) / 100, int(rng.integers(1, 8))
        costed(tmp_path, f"m{number}", float(score), cost, 1.0)
    made = plane_of(tables(tmp_path)[0], "parameters")
    for point in made.points:
        beaten = any(
            p.x <= point.x and p.y >= point.y and (p.x, p.y) != (point.x, point.y)
            for p in made.points
        )
        assert point.on_front != beaten


def test_rows_that_lack_images_are_never_on_the_front(tmp_path):
    counts = {"CAMO": {"images": 10, "expected": 12}}
    stored(tmp_path, "lora", shift=0.2, counts=counts)
    stored(tmp_path, "vpt")
    made = plane_of(tables(tmp_path)[0], "parameters")
    assert [point.row.label for point in made.front] == ["VPT"]


def test_seeds_are_a_mean_and_a_spread(tmp_path):
    for seed, value in enumerate((0.6, 0.7, 0.8)):
        stored(tmp_path, "lora", seed, scores={"s_measure": value})
    (point,) = plane_of(tables(tmp_path)[0], "train_images_per_second").points
    assert (point.x, point.y, point.sd) == pytest.approx((11.0, 0.7, 0.1))


def test_plots_as_files_are_the_same_each_time(tmp_path, five):
    contents = contents_of(five)
    for name in ("p.svg", "p.pdf", "p.png"):
        assert pareto.write_pareto(contents, "parameters", tmp_path / name) == []
        first = (tmp_path / name).read_bytes()
        pareto.write_pareto(contents, "parameters", tmp_path / name)
        assert (tmp_path / name).read_bytes() == first
    xml.dom.minidom.parse(str(tmp_path / "p.svg"))
    assert min(cv2.imread(str(tmp_path / "p.png")).shape[:2]) > 900  # 300 dots an inch
    assert (tmp_path / "p.pdf").read_bytes().startswith(b"%PDF")
    speed = pareto.write_pareto(contents, "images_per_second", tmp_path / "s.png")
    assert speed == ["no images_per_second for e"]


def test_what_cannot_be_plotted_is_said(tmp_path, five):
    contents = contents_of(five)
    for cost, name, words in (
        ("memry", "p.svg", "did you mean 'memory'"),
        ("memory", "p.gif", "ends with none of .svg, .pdf, .png, .pgf"),
    ):
        with pytest.raises(UsageError, match=words):
            pareto.write_pareto(contents, cost, tmp_path / name)
    with pytest.raises(DataError, match="no record of CAMO has both"):
        pareto.write_pareto(contents, "memory", tmp_path / "m.svg")


def test_one_plot_shows_one_table(tmp_path):
    stored(tmp_path, "lora")
    stored(tmp_path, "vpt", train={"limit_train": 9})
    contents = gather_contents(find_records([tmp_path]), Selection())
    with pytest.raises(UsageError, match="make 2 tables"):
        pareto.write_pareto(contents, "parameters", tmp_path / "p.svg")


def test_without_the_packages_it_is_one_sentence(monkeypatch):
    monkeypatch.setattr(plots, "find_spec", lambda name: None if name == "adjustText" else name)
    with pytest.raises(UsageError, match=r"adjustText; install them with: pip install .*\[plot\]"):
        plots.need_plots()


@pytest.mark.latex
@pytest.mark.skipif(not shutil.which("pdflatex"), reason="no pdflatex here")
def test_pgf_goes_into_latex(tmp_path, five):
    if subprocess.run(["kpsewhich", "pgf.sty"], capture_output=True).returncode:
        pytest.skip("no package pgf of LaTeX here")
    stored(tmp_path / "odd", "lora", method={"name": "a_b", "title": "A_b & 5 % {x}"})
    stored(tmp_path / "odd", "vpt")
    contents = gather_contents(find_records([tmp_path / "odd"]), Selection())
    pareto.write_pareto(contents, "parameters", tmp_path / "p.pgf")
    text = "\\documentclass{article}\\usepackage{pgf}\\begin{document}\\input{p.pgf}\\end{document}"
    (tmp_path / "t.tex").write_text(text)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True)
    assert done.returncode == 0, done.stdout.decode(errors="replace")[-1500:]


def test_names_lie_over_no_other_name_and_no_point(tmp_path):
    rng = np.random.default_rng(0)
    for number in range(40):
        score, cost = float(rng.uniform(0.5, 0.7)), int(rng.integers(9, 99))
        costed(tmp_path, f"method {number:02}", score, cost, 1.0)
    plane = plane_of(tables(tmp_path)[0], "parameters")
    with plots.plot_style():
        plot = pareto.draw_pareto(plane)
        axes = plot.figure.axes[0]
        names = [t for t in axes.texts if str(t.get_gid()).endswith("name") and t.get_visible()]
        boxes = [text.get_window_extent() for text in names]
    assert len(boxes) + len(plot.unnamed) == 40
    assert len(boxes) > 5
    places = axes.transData.transform([(point.x, point.y) for point in plane.points])
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
    assert not any(box.contains(*place) for box in boxes for place in places)
    assert all(box.x0 >= axes.bbox.x0 - 1 and box.x1 <= axes.bbox.x1 + 1 for box in boxes)


def test_a_cost_of_nothing_has_its_place_on_an_axis_over_powers(tmp_path):
    for name, count in (("none", 0), ("few", 20_000), ("many", 3_000_000)):
        costed(tmp_path, name, 0.6, count, 1.0)
    with plots.plot_style():
        axes = pareto.draw_pareto(plane_of(tables(tmp_path)[0], "method_parameters")).figure.axes[0]
    at = axes.transData.transform([(x, 0.6) for x in (0, 0.02, 0.2, 2.0)])[:, 0]
    assert axes.bbox.x0 < at[0] < at[1] - 20
    assert at[2] - at[1] == pytest.approx(at[3] - at[2])
    shown = [text.get_text() for text in (*axes.texts, *axes.get_xticklabels())]
    assert {"0", "0.1", "1", "//"} <= set(shown)


def test_plots_of_the_page_hold_no_style_and_no_id_twice(tmp_path):
    for seed in range(2):
        stored(tmp_path, "lora", seed, method={"name": "x", "title": plots.clean(HOSTILE)})
        stored(tmp_path, "vpt", seed)
    (table,) = tables(tmp_path)
    (lesson,) = read_training([table])
    with plots.plot_style():
        made = [plots.to_svg(pareto.draw_pareto(plane_of(table, "parameters")), "a")]
        again = [plots.to_svg(pareto.draw_pareto(plane_of(table, "parameters")), "a")]
        drawn, rows = draw_training(lesson, "validation", "S")
        made += plots.to_svgs(drawn, len(rows), "b")
    assert made[0] == again[0]
    assert len(made) == 3
    ids = [found for text in made for found in re.findall(r' id="([^"]*)"', text)]
    assert len(ids) == len(set(ids))
    for text in made:
        parsed = xml.dom.minidom.parseString(text)  # well formed, whatever a name holds
        used = set(re.findall(r'(?:href="|url\()#([^")]*)', text))
        assert used <= set(re.findall(r' id="([^"]*)"', text))
        assert "style" not in text
        assert not parsed.getElementsByTagName("script")
    titles = xml.dom.minidom.parseString(made[0]).getElementsByTagName("title")
    assert any("VPT: S 0." in node.firstChild.data for node in titles)
    names = {re.search(r'data-name="(.*?)"', text)[1] for text in made[1:]}
    assert len(names) == 2  # each small plot is of one method


def test_long_curves_keep_their_means_and_seeds_meet_at_common_steps():
    rows = [{"step": float(s), "loss": float(s % 2), "validation": None} for s in range(1, 1001)]
    short = seed_curve(rows, "loss")
    assert len(short) <= 120
    assert short.index[-1] == 1000
    assert short.iloc[0] == pytest.approx(5 / 9)  # of steps 1 to 9, not of one of them
    assert short.mean() == pytest.approx(0.5, abs=0.01)
    assert len(seed_curve(rows, "validation")) == 0
    seeds = [pd.Series({1: 2.0, 2: 4.0}), pd.Series({2: 6.0, 3: 0.0})]
    assert mean_of_seeds(seeds).to_dict() == {2: 5.0}


def test_a_run_of_two_test_sets_trains_once(tmp_path):
    one = record("lora")
    both = {"CAMO": one.scores["CAMO"], "other": one.scores["CAMO"]}
    made = stored(tmp_path, "lora")
    run = made.record.model_copy(update={"scores": both})
    (made.folder / "run.json").write_text(run.model_dump_json())
    read = tables(tmp_path)
    assert len(read) == 2
    (lesson,) = read_training(read)
    assert len(lesson.tables) == 2
    ((_, (loss,)),), ((_, (validation,)),) = lesson.curves.values()
    assert [len(loss), len(validation)] == [20, 4]


def test_sizes_by_hand(tmp_path):
    stored(tmp_path, "lora")
    (table,) = tables(tmp_path)
    scores = read_table_scores(table)
    sizes = by_size(scores)
    shares = [0.004 * 1.6**n for n in range(IMAGES)]
    inside = [sum(low < s <= high for s in shares) for low, high in ((0, 0.01), (0.05, 0.1))]
    assert sizes.images["to 1 %"] == inside[0] == 2
    assert sizes.images["5-10 %"] == inside[1] == 1
    assert sizes.images.sum() == IMAGES
    assert list(sizes.counts[0]) == list(sizes.images)
    assert sizes.means.loc["to 1 %", 0] == pytest.approx(scores.means[0].iloc[:2].mean())


def test_the_most_disputed_images_by_hand(tmp_path):
    for name, values in (("lora", (0.9, 0.5, 0.2)), ("vpt", (0.1, 0.4, 0.7))):
        one = stored(tmp_path, name)
        lines = [f"CAMO,i{n},{value}" for n, value in enumerate(values)]
        (one.folder / "per_image.csv").write_text("\n".join(["dataset,image,s_measure", *lines]))
    (table,) = tables(tmp_path)
    scores = read_table_scores(table)
    found = most_disputed(scores, 2)
    spreads = (found.max(axis=1) - found.min(axis=1)).round(6)
    assert spreads.to_dict() == {"i0": 0.8, "i2": 0.5}
    assert scores.rows[found.loc["i2"].idxmax()].label == "VPT"


@pytest.mark.parametrize("key", ["trainable_parameters", "method_parameters"])
def test_axes_that_are_used_again_keep_nothing_of_the_plot_before(tmp_path, five, key):
    costed(tmp_path / "other", "none", 0.2, 0, 40.0)
    costed(tmp_path / "other", "most", 0.3, 9_000_000, 50.0)
    plane, (other,) = plane_of(five, key), tables(tmp_path / "other")
    with plots.plot_style():
        first = plots.to_svg(pareto.draw_pareto(plane), "a")
        for cost in ("method_parameters", "images_per_second"):
            plots.to_svg(pareto.draw_pareto(plane_of(other, cost)), "a")
        assert plots.to_svg(pareto.draw_pareto(plane), "a") == first
