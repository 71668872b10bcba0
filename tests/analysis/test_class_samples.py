"""Semantic records in comparisons: the jackknife by hand, and every command that reads records."""

import json
import re

import numpy as np
import pytest
from class_records import NAMES, TEST, draw_map, draw_truth, store_all, store_classes
from typer.testing import CliRunner

from lpmoe_bench.analysis.pairing import pair_up
from lpmoe_bench.analysis.samples import SeedRows
from lpmoe_bench.cli.app import app
from lpmoe_bench.errors import BenchError, DataError
from lpmoe_bench.metrics.classes import CLASSES, TRANS10K, ClassScorer
from lpmoe_bench.records.model import Record
from lpmoe_bench.records.store import read_rows, write_record
from lpmoe_bench.records.verify import verify_record


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    return store_all(tmp_path_factory.mktemp("runs"))


def call(*arguments, code=0):
    """Run a command; return what it prints, or the error that it ends with."""
    done = CliRunner().invoke(app, [*map(str, arguments)])
    if isinstance(done.exception, BenchError):
        assert done.exception.exit_code == code, done.exception
        return str(done.exception)
    assert done.exit_code == code, done.output
    return done.stdout


def of(stored, name):
    return [one for one in stored if one.record.method.name == name]


def brute_force(kept, metric, seed=0):
    """The score of lora's maps of some images alone."""
    scorer = ClassScorer(CLASSES, NAMES)
    for number, truth in enumerate(draw_truth()):
        if number in kept:
            scorer.add(str(number), draw_map(truth, 0.85, len(NAMES), 5, 1, seed, number), truth)
    return scorer.result().scores[metric]


@pytest.mark.parametrize("metric", ["mean_iou", "pixel_acc", "fw_iou", "iou/sign pole", "acc/car"])
def test_values_of_images_and_groups_are_a_jackknife_by_brute_force(stored, metric):
    everything = set(range(24))
    rows = SeedRows(of(stored, "lora")[:1], TEST)
    score = rows.stored[0].record.scores[TEST][metric]
    assert brute_force(everything, metric) == score
    groups = {f"s{n // 12}_{n:03}": f"g{n // 5}" for n in range(24)}
    for found, units in (
        (rows.samples(metric), [{n} for n in range(24)]),
        (rows.samples(metric, groups), [set(range(n, min(n + 5, 24))) for n in range(0, 24, 5)]),
    ):
        rest = np.array([brute_force(everything - unit, metric) for unit in units])
        by_hand = len(units) * score - (len(units) - 1) * rest
        by_hand += score - by_hand.mean()  # so that the mean of the units is the score
        np.testing.assert_allclose(found.values[0], by_hand, atol=1e-12)
        assert found.mean == pytest.approx(score, abs=1e-12)
    assert found.groups == [f"g{n}" for n in range(5)]
    assert found.sizes == (5, 5, 5, 5, 4)


def test_a_class_of_one_unit_varies_over_seeds_alone(tmp_path):
    # Four images: the rare class is in the first and the last.
    both = [store_classes(tmp_path, name, images=4) for name in ("lora", "vpt")]
    rows = SeedRows(both[:1], TEST)
    assert len(rows.samples("iou/sign pole").images) == 4
    groups = {f"s0_{n:03}": "a" if n in (0, 3) else str(n) for n in range(4)}
    alone = rows.samples("iou/sign pole", groups)
    assert (alone.images, alone.values.shape) == ([], (1, 1))
    assert rows.samples("iou/car", groups).values.shape == (1, 3)
    assert len(rows.samples("mean_iou", groups).images) == 4


def test_rows_that_contradict_their_record_are_refused(stored, tmp_path):
    one = of(stored, "lora")[0]
    rows = read_rows(one.folder / "per_image.csv")
    for text, words in (
        ("0:0:500", "contradicts itself: mean_iou on streets/test is 0.69"),
        ("0:9:5", "no table of numbers .a confusion has labels beyond its 4 classes"),
        ("x", "no table of numbers .'x' is no confusion"),
    ):
        wrong = [rows[0] | {"confusion": text}, *rows[1:]]
        write_record(tmp_path / "wrong", one.record, wrong)
        with pytest.raises(DataError, match=words):
            SeedRows([one._replace(folder=tmp_path / "wrong")], TEST).samples("mean_iou")


def test_scores_are_made_again_from_rows(stored, tmp_path):
    for one in stored:
        found = verify_record(one.folder)
        assert (found.faults, found.recomputed, found.undetermined) == ([], 12, [])
    rows = read_rows(stored[0].folder / "per_image.csv")
    for change, words in (
        ({"confusion": "0:0:500"}, r"mean_iou is 0.5\d+, but its rows give"),
        ({"confusion": ""}, "counts 24 images with mean_iou, but 23 rows have it"),
        ({"confusion": "7:0:1"}, "a row of streets/test: a confusion has labels beyond its 4"),
    ):
        write_record(tmp_path / "edited", stored[0].record, [rows[0] | change, *rows[1:]])
        assert re.search(words, "; ".join(verify_record(tmp_path / "edited").faults))
    # Without names of classes, or by rules of another version, nobody can say what rows give.
    protocol = stored[0].record.protocol.model_copy(update={"hash": "00" * 32})
    for update in ({"labels": None}, {"protocol": protocol}):
        write_record(tmp_path / "other", stored[0].record.model_copy(update=update), rows)
        found = verify_record(tmp_path / "other")
        assert (found.faults, found.recomputed, len(found.undetermined)) == ([], 0, 12)


def test_a_class_that_is_nowhere_is_verified_too(tmp_path):
    for protocol in (CLASSES, TRANS10K):
        one = store_classes(tmp_path, protocol=protocol, nowhere=("moon",), images=2)
        assert (one.record.scores[TEST]["iou/moon"] == 0.0) == (protocol is TRANS10K)
        found = verify_record(one.folder)
        assert (found.faults, found.undetermined) == ([], [])
        assert found.recomputed == len(one.record.scores[TEST])


def test_classes_are_a_fact_of_a_record_that_others_go_without(stored):
    content = stored[0].record.model_dump()
    assert content["labels"] == {"classes": list(NAMES), "ignored": {}}
    without = stored[0].record.model_copy(update={"labels": None}).model_dump()
    assert "labels" not in without
    for names in (["a", "a"], [], [""]):
        with pytest.raises(ValueError, match=r"labels.classes"):
            Record.model_validate(content | {"labels": {"classes": names}})


def test_methods_are_compared_over_seeds_and_images(stored):
    root = stored[0].folder.parent
    shown = json.loads(call("compare", "lora", "decoder_only", "--records", root, "--json"))
    assert [line["metric"] for line in shown["lines"]] == ["mean_iou", "mean_acc", "pixel_acc"]
    assert {line["result"]["verdict"] for line in shown["lines"]} == {"better"}
    shown = call("compare", "lora", "vpt", "--records", root, "--metrics", "iou/sign pole,mean_iou")
    assert "IoU sign pole" in shown
    assert "inconclusive" in shown
    pair = pair_up(of(stored, "lora"), of(stored, "vpt"), TEST, "mean_iou")
    assert (pair.spread.seeds, pair.spread.images) == (3, 24)


def test_tables_have_the_headline_and_a_column_a_class(stored, tmp_path):
    root = stored[0].folder.parent
    shown = call("table", root)
    assert "| mIoU (%) ↑ | mAcc (%) ↑ | aAcc (%) ↑ |" in shown
    assert "| **69.41 ± 0.97** | **89.10 ± 1.44** | **89.16 ± 0.58** |" in shown
    shown = call("table", root, "--by-class", "--against", "lora")
    assert "| mIoU (%) ↑ | vs LoRA | sky ↑ | road ↑ | car ↑ | sign pole ↑ |" in shown
    assert "| **83.01 ± 0.79** | **82.52 ± 1.04** |" in shown
    assert "worse (-14.66)" in shown
    assert "Under the name of a class stands its IoU in percent." in shown
    shown = call("table", root, "--metrics", "iou/car,acc/car", "-f", "latex")
    assert "& IoU car (\\%) $\\uparrow$ & Acc car (\\%) $\\uparrow$ " in shown
    assert "choose the scores; give one" in call(
        *("table", root, "--by-class", "--metrics", "mean_iou"), code=2
    )
    assert "unknown metric of streets/test 'iou/cart'; did you mean 'iou/car'" in call(
        *("table", root, "--metrics", "iou/cart"), code=2
    )


def test_tables_of_two_kinds_stand_apart(stored, tmp_path):
    from report_records import stored as binary

    store_classes(tmp_path, "lora")
    binary(tmp_path, "lora")
    for more in ((), ("--group", "all")):
        shown = call("table", tmp_path, *more, "--by-class")
        assert {"| sky ↑ |", "| S ↑ |"} <= {f"| {x.strip()} |" for x in shown.split("|")}
    assert "**streets: streets/test**" in shown


def test_the_gate_judges_them(stored, tmp_path):
    base = tmp_path / "base"
    for seed in range(4):
        store_classes(base, "lora", seed)
    file = tmp_path / "baseline.json"
    call("check", "pin", base, "--baseline", file, "--metrics", "mean_iou,iou/car")
    pins = json.loads(file.read_text())["cells"][0]["metrics"]
    assert pins.keys() == {"mean_iou", "iou/car"}
    assert pins["iou/car"]["rest_variance"] > 0
    shown = call("check", "check", base, "--baseline", file)
    assert "gate: pass (8 pass)" in shown
    assert "IoU car" in shown
    worse = tmp_path / "worse"
    for seed in range(4):  # maps of another method under its name
        store_classes(worse, "lora", seed, drawn="decoder_only")
    shown = call("check", "check", worse, "--baseline", file, code=10)
    assert "regressed" in shown
    assert "mIoU" in call("check", "explain", base, "--baseline", file, "--metric", "mean_iou")


def test_the_report_has_a_table_of_classes_and_their_confusion(stored, tmp_path):
    pytest.importorskip("matplotlib")
    root = stored[0].folder.parent
    call("report", root, "-o", tmp_path, "-q")
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "<h3>Classes</h3>" in page
    assert "Score against the size" not in page
    assert "IoU of each class in percent, mean over seeds" in page
    assert ">sign pole</text>" in page
    assert "LoRA, the best row, 3 seeds" in page
    assert "of single images" in page
    assert "acc/sky" not in page  # of 150 classes nobody reads both
    call("report", root, "--confusion", tmp_path / "alone.png")
    assert (tmp_path / "alone.png").read_bytes().startswith(b"\x89PNG")
    assert "ends with none of" in call("report", root, "--confusion", tmp_path / "x.txt", code=2)
