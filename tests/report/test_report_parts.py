"""What the plots of the report say: fronts, labels, axes, curves, sizes, verdicts, by hand."""

from __future__ import annotations

import itertools
import xml.dom.minidom

import cv2
import numpy as np
import pytest
from report_records import IMAGES, stored
from sample_records import record

from lpmoe_bench.analysis.comparison import choose_records, compare_records
from lpmoe_bench.analysis.significance import holm
from lpmoe_bench.errors import DataError, UsageError
from lpmoe_bench.records.store import Found, find_records
from lpmoe_bench.report.contents import Selection, gather_contents
from lpmoe_bench.report.drawing import (
    HEIGHT,
    Box,
    Scale,
    linear,
    logarithmic,
    place,
    text_width,
    tick_text,
    ticks,
)
from lpmoe_bench.report.pareto import COSTS, plane, write_pareto
from lpmoe_bench.report.sizes import by_size, most_disputed, read_table_scores
from lpmoe_bench.report.training import mean_of_seeds, read_training, seed_curve
from lpmoe_bench.report.verdicts import judge_rows


def chapters(root, **choice):
    return gather_contents(find_records([root]), Selection(**choice)).chapters


def costed(root, name, score, parameters, speed):
    """A record of one score, one count of parameters and one speed."""
    counts = {"method": 0, "decoder": 0, "frozen": 1, "total": 1, "trainable": parameters}
    shares = {"share_of_backbone": 0.0, "share_of_total": 0.0}
    return stored(
        root,
        scores={"s_measure": score, "mae": 1 - score},
        parameters=counts | shares,
        costs={"inference_images_per_second": speed},
        method={"name": name, "title": name},
        fingerprint=f"{name:0<64}",
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
    return chapters(tmp_path)[0]


def test_the_front_by_hand(five):
    made = plane(five, COSTS["parameters"])
    assert {dot.entry.label for dot in made.front} == {"a", "b", "d", "e"}
    speed = plane(five, COSTS["images_per_second"])
    assert [dot.entry.label for dot in speed.front] == ["b", "c", "a"]
    assert speed.absent == ("e",)


def test_the_front_of_a_score_that_falls(tmp_path, five):
    falling = chapters(tmp_path, metric="mae")[0]
    made = plane(falling, COSTS["parameters"])
    assert {dot.entry.label for dot in made.front} == {"a", "b", "d", "e"}


def test_rows_that_lack_images_are_never_on_the_front(tmp_path):
    counts = {"CAMO": {"images": 10, "expected": 12}}
    stored(tmp_path, "lora", shift=0.2, counts=counts)
    stored(tmp_path, "vpt")
    made = plane(chapters(tmp_path)[0], COSTS["parameters"])
    assert [dot.entry.label for dot in made.front] == ["VPT"]


def test_seeds_are_a_mean_and_a_spread(tmp_path):
    for seed, value in enumerate((0.6, 0.7, 0.8)):
        stored(tmp_path, "lora", seed, scores={"s_measure": value})
    (dot,) = plane(chapters(tmp_path)[0], COSTS["train_images_per_second"]).dots
    assert (dot.x, dot.y, dot.sd) == pytest.approx((11.0, 0.7, 0.1))


def test_plots_as_files(tmp_path, five):
    material = gather_contents(Found(list(five_records(five)), []), Selection())
    assert write_pareto(material, "parameters", tmp_path / "p.svg") == []
    assert write_pareto(material, "images_per_second", tmp_path / "s.png") == [
        "no images_per_second for e"
    ]
    parsed = xml.dom.minidom.parse(str(tmp_path / "p.svg"))
    titles = {node.firstChild.data for node in parsed.getElementsByTagName("title")}
    assert any(title.startswith("e: S 0.900 (1 seed), 1k trainable") for title in titles)
    picture = cv2.imread(str(tmp_path / "s.png"))
    assert picture.shape[:2] == (800, 1120)
    for cost, name, words in (
        ("memry", "p.svg", "did you mean 'memory'"),
        ("memory", "p.gif", "png"),
    ):
        with pytest.raises(UsageError, match=words):
            write_pareto(material, cost, tmp_path / name)
    with pytest.raises(DataError, match="no record of CAMO has both"):
        write_pareto(material, "memory", tmp_path / "m.svg")


def five_records(chapter):
    return (one for entry in chapter.entries for one in entry.stored)


def test_one_plot_shows_one_table(tmp_path):
    stored(tmp_path, "lora")
    stored(tmp_path, "vpt", train={"limit_train": 9})
    material = gather_contents(find_records([tmp_path]), Selection())
    with pytest.raises(UsageError, match="make 2 tables"):
        write_pareto(material, "parameters", tmp_path / "p.svg")


def test_names_never_lie_over_each_other_or_a_point():
    rng = np.random.default_rng(0)
    area = Box(0, 0, 500, 300)
    points = [(*rng.uniform((50, 50), (450, 250)), f"method {n}") for n in range(60)]
    dots = [Box(x - 6, y - 6, x + 6, y + 6) for x, y, _ in points]
    labels = place(points, area, dots)
    boxes = []
    for (*_, name), label in zip(points, labels, strict=True):
        if label is not None:
            width = text_width(name, 11)
            left = label.x - {"start": 0, "middle": width / 2, "end": width}[label.anchor]
            boxes.append(Box(left, label.y + 2.5 - HEIGHT, left + width, label.y + 2.5))
    assert 20 < len(boxes) < 60  # a crowd: some find no place, and say so
    assert not any(a.meets(b) for a, b in itertools.combinations(boxes, 2))
    assert not any(box.meets(dot) for box in boxes for dot in dots)
    assert all(box.left >= 0 and box.right <= 500 for box in boxes)


def test_axes_by_hand():
    assert [text for _, text in ticks(Scale(0.64, 0.69, 0, 1))] == [
        *("0.64", "0.65", "0.66", "0.67", "0.68", "0.69")
    ]
    assert [text for _, text in ticks(Scale(11.7, 12.9, 0, 1))][:2] == ["11.75", "12.00"]
    scale = logarithmic([0, 1e4, 1e6], 0, 100, gap=20)
    assert [text for _, text in ticks(scale)] == ["0", "10k", "30k", "100k", "300k", "1M"]
    assert scale.at(0) < scale.start < scale.at(1e4) < scale.at(1e5) < scale.at(1e6) < 100
    assert scale.at(1e5) - scale.at(1e4) == pytest.approx(scale.at(1e6) - scale.at(1e5))
    narrow = logarithmic([299_073, 345_153], 0, 100)  # less than from 2 to 5 times a power of ten
    assert [text for _, text in ticks(narrow)] == ["250k", "300k", "350k", "400k"]
    assert [text for _, text in ticks(logarithmic([27_648], 0, 100))] == ["25k", "30k"]
    one = linear([0.5], 10, 20)  # a single value lies in the middle
    assert one.at(0.5) == pytest.approx(15)
    assert [tick_text(v) for v in (0, 0.05, 17000, 22056000, 3.2e9)] == [
        *("0", "0.05", "17k", "22.1M", "3.2G")
    ]


def test_long_curves_keep_their_means_and_seeds_meet_at_common_steps():
    rows = [{"step": float(s), "loss": float(s % 2), "validation": None} for s in range(1, 1001)]
    short = seed_curve(rows, "loss")
    assert len(short) <= 120
    assert short[-1][0] == 1000
    assert np.mean([value for _, value in short]) == pytest.approx(0.5, abs=0.01)
    assert seed_curve(rows, "validation") == []
    assert mean_of_seeds([[(1, 2.0), (2, 4.0)], [(2, 6.0), (3, 0.0)]]) == [(2, 5.0)]


def test_a_run_of_two_test_sets_trains_once(tmp_path):
    one = record("lora")
    both = {"CAMO": one.scores["CAMO"], "other": one.scores["CAMO"]}
    made = stored(tmp_path, "lora")
    run = made.record.model_copy(update={"scores": both})
    (made.folder / "run.json").write_text(run.model_dump_json())
    read = chapters(tmp_path)
    assert len(read) == 2
    (lesson,) = read_training(read)
    assert len(lesson.chapters) == 2
    assert [len(lesson.trained[0].loss[0]), len(lesson.trained[0].validation[0])] == [20, 4]


def test_sizes_by_hand(tmp_path):
    stored(tmp_path, "lora")
    (chapter,) = chapters(tmp_path)
    scores = read_table_scores(chapter)
    sizes = by_size(scores)
    shares = [0.004 * 1.6**n for n in range(IMAGES)]
    inside = [sum(low < s <= high for s in shares) for low, high in ((0, 0.01), (0.05, 0.1))]
    assert sizes.bins[0] == "to 1 %"
    assert sizes.bins[3] == "5-10 %"
    assert [sizes.counts[0], sizes.counts[3]] == inside == [2, 1]
    assert sum(sizes.counts) == IMAGES
    ((_, means, counts),) = sizes.rows
    assert counts == sizes.counts
    values = list(scores.rows[0].mean.values())
    assert means[0] == pytest.approx(np.mean(values[:2]))


def test_the_most_disputed_images_by_hand(tmp_path):
    for name, values in (("lora", (0.9, 0.5, 0.2)), ("vpt", (0.1, 0.4, 0.7))):
        one = stored(tmp_path, name)
        lines = [f"CAMO,i{n},{value}" for n, value in enumerate(values)]
        (one.folder / "per_image.csv").write_text("\n".join(["dataset,image,s_measure", *lines]))
    (chapter,) = chapters(tmp_path)
    found = most_disputed(read_table_scores(chapter), 2)
    assert [(one.image, round(one.spread, 6)) for one in found] == [("i0", 0.8), ("i2", 0.5)]
    assert [row.entry.label for row, _ in found[1].scores] == ["VPT", "LoRA"]


def test_verdicts_are_those_of_compare_with_holm_over_all_pairs(tmp_path):
    for seed in range(4):
        stored(tmp_path, "lora", seed, 0.03)
        stored(tmp_path, "vpt", seed)
        stored(tmp_path, "decoder_only", seed, 0.002)
    found = find_records([tmp_path])
    verdicts = judge_rows(chapters(tmp_path)[0])
    names = [entry.row.records[0].method.name for entry in verdicts.entries]
    assert names[0] == "lora"
    single = {}
    for (a, b), result in verdicts.pairs.items():
        own, other = (choose_records(names[place], found) for place in (a, b))
        (line,) = compare_records(own, other, ["s_measure"], 0.005).lines
        assert (result.low, result.high) == (line.result.low, line.result.high)
        single[a, b] = line.result.p
    assert [r.p for r in verdicts.pairs.values()] == holm(list(single.values()))
    assert verdicts.pairs[0, 1].verdict == "better"


def test_rows_of_one_seed_and_without_rows_are_not_judged(tmp_path):
    for seed in range(2):
        stored(tmp_path, "lora", seed)
    stored(tmp_path, "vpt", 0)
    assert judge_rows(chapters(tmp_path)[0]).pairs == {}
    stored(tmp_path, "vpt", 1)
    stored(tmp_path, "decoder_only", 7)
    verdicts = judge_rows(chapters(tmp_path)[0])
    assert set(verdicts.pairs) == {(0, 1)}
    assert "1 row of one seed or none: not compared" in verdicts.notes
