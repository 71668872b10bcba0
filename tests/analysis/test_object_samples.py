"""Records of objects in comparisons: the jackknife by hand, and commands that read records."""

import json
import re

import numpy as np
import pytest
from object_records import NAMES, TEST, pairs_of, scored, store_all_objects, store_objects
from typer.testing import CliRunner

from lpmoe_bench.analysis.pairing import pair_up
from lpmoe_bench.analysis.samples import SeedRows
from lpmoe_bench.cli.app import app
from lpmoe_bench.errors import BenchError
from lpmoe_bench.metrics.objects import COCO_BOXES, COCO_MASKS, DSB2018
from lpmoe_bench.metrics.panoptic import COCO_PANOPTIC
from lpmoe_bench.records.store import image_rows, read_rows, write_record
from lpmoe_bench.records.verify import verify_record

ALL = [COCO_BOXES, COCO_MASKS, DSB2018, COCO_PANOPTIC]


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    return store_all_objects(tmp_path_factory.mktemp("runs"))


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


@pytest.mark.parametrize(
    ("protocol", "metric"),
    [
        *(
            (COCO_MASKS, key)
            for key in ("mask_ap", "box_ap50", "box_ap_large", f"box_ap/{NAMES[0]}")
        ),
        *((COCO_PANOPTIC, key) for key in ("pq", "sq_things", "rq_things", f"pq/{NAMES[1]}")),
    ],
)
def test_values_of_images_and_groups_are_a_jackknife_by_brute_force(tmp_path, protocol, metric):
    one, pairs, everything = store_objects(tmp_path, protocol=protocol), pairs_of("lora", 0), 16
    score = one.record.scores[TEST][metric]
    assert scored(protocol, pairs).scores[metric] == score
    rows = SeedRows([one], TEST)
    groups = {f"s{n // 8}_{n:03}": f"g{n // 5}" for n in range(everything)}
    for found, units in (
        (rows.samples(metric), [{n} for n in range(everything)]),
        (rows.samples(metric, groups), [set(range(n, min(n + 5, 16))) for n in range(0, 16, 5)]),
    ):
        rest = np.array(
            [scored(protocol, pairs, set(range(16)) - unit).scores[metric] for unit in units]
        )
        by_hand = len(units) * score - (len(units) - 1) * rest
        by_hand += score - by_hand.mean()  # so that the mean of the units is the score
        np.testing.assert_allclose(found.values[0], by_hand, atol=1e-11)
        assert found.mean == pytest.approx(score, abs=1e-12)
        assert np.ptp(found.values) > 0
    assert found.sizes == (5, 5, 5, 1)


def test_the_score_of_nuclei_is_a_mean_of_images(tmp_path):
    one = store_objects(tmp_path, protocol=DSB2018)
    found = SeedRows([one], TEST).samples("dsb_score")
    result = scored(DSB2018, pairs_of("lora", 0))
    assert found.values[0].tolist() == [row["dsb_score"] for row in result.rows]


@pytest.mark.parametrize("protocol", ALL, ids=lambda one: one.name)
def test_scores_are_made_again_from_rows(tmp_path, protocol):
    one = store_objects(tmp_path, protocol=protocol)
    found = verify_record(one.folder)
    scores = one.record.scores[TEST]
    assert (found.faults, found.undetermined) == ([], [])
    assert found.recomputed == len(scores) == len(protocol.metrics) + 3 * len(protocol.of_class)


def test_rows_that_are_edited_are_found(tmp_path):
    for protocol, column, metric, wrong in (
        (COCO_MASKS, "masks", "mask_ap", "0:1/1/0/0:0.5=0"),
        (COCO_PANOPTIC, "panoptic", "pq", "0t:0.0:0:7:0"),
    ):
        one = store_objects(tmp_path, protocol=protocol)
        rows = read_rows(one.folder / "per_image.csv")
        for change, words in (
            ({column: wrong}, rf"{metric} is 0.\d+, but its rows give"),
            ({column: ""}, f"counts 16 images with {metric}, but 15 rows have it"),
            ({column: "0:1:1"}, "a row of blood/test: '0:1:1' is no row of"),
        ):
            write_record(tmp_path / "edited", one.record, [rows[0] | change, *rows[1:]])
            assert re.search(words, "; ".join(verify_record(tmp_path / "edited").faults))


def test_a_row_of_thousands_of_detections_is_read(tmp_path):
    one = store_objects(tmp_path, protocol=COCO_MASKS)
    rows = read_rows(one.folder / "per_image.csv")
    many = "0:1/1/0/0:" + " ".join(f"0.{n:05}=a8b8b451594bcc90" for n in range(1, 9000))
    assert len(many) > 200_000
    # A comma in a name has the file read by the csv module.
    rows = [rows[0] | {"image": "a, b", "masks": many}, *rows[1:]]
    write_record(tmp_path / "long", one.record, rows)
    assert read_rows(tmp_path / "long" / "per_image.csv")[0]["masks"] == many
    found = image_rows(tmp_path / "long", TEST)
    assert found is not None
    assert found.texts("masks")[0] == many
    assert not any("table of numbers" in fault for fault in verify_record(tmp_path / "long").faults)


def test_methods_are_compared_over_seeds_and_images(stored):
    root = stored[0].folder.parent
    shown = json.loads(call("compare", "lora", "decoder_only", "--records", root, "--json"))
    metrics = [line["metric"] for line in shown["lines"]]
    assert metrics == ["mask_ap", "mask_ap50", "mask_ap75", "box_ap", "box_ap50", "box_ap75"]
    assert shown["lines"][0]["result"]["verdict"] == "better"
    pair = pair_up(of(stored, "lora"), of(stored, "vpt"), TEST, "mask_ap")
    assert (pair.spread.seeds, pair.spread.images) == (3, 16)


def test_tables_and_reports_have_the_headline(stored, tmp_path):
    pytest.importorskip("matplotlib")
    root = stored[0].folder.parent
    shown = call("table", root)
    assert "| AP mask (%) ↑ | AP50 mask (%) ↑ | AP75 mask (%) ↑ | AP box (%) ↑ |" in shown
    shown = call("table", root, "--by-class")
    assert "| AP mask (%) ↑ | red cell ↑ | white ↑ | sky ↑ |" in shown
    assert "Under the name of a class stands its AP mask in percent." in shown
    latex = call("table", root, "-f", "latex")
    assert r"{AP$^{\mathrm{m}}$\\(\%)" in latex
    assert r"{AP$^{\mathrm{b}}_{50}$\\(\%)" in latex
    assert "APs mask" in call("table", root, "--metrics", "mask_ap_small,box_ap/white")
    call("report", root, "-o", tmp_path, "-q")
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "AP75 mask" in page


def test_the_gate_judges_them(tmp_path):
    base, worse = tmp_path / "base", tmp_path / "worse"
    for seed in range(4):
        store_objects(base, "lora", seed)
        store_objects(worse, "lora", seed, drawn="decoder_only")
    file = tmp_path / "baseline.json"
    call("check", "pin", base, "--baseline", file, "--metrics", "mask_ap,box_ap50")
    assert "gate: pass (8 pass)" in call("check", "check", base, "--baseline", file)
    assert "regressed" in call("check", "check", worse, "--baseline", file, code=10)
