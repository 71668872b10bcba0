"""Maps of 16 bits and of floats: scored as PySODMetrics scores the same array, and said so."""

import json

import cv2
import numpy as np
import py_sod_metrics as sod
import pytest
from drawn_maps import draw_folders, draw_map, draw_mask, label, out, save, score_folders, stored

import lpmoe_bench
from lpmoe_bench.errors import UsageError
from lpmoe_bench.records.store import read_record, write_record

pytestmark = pytest.mark.filterwarnings("ignore:This class will be removed")


def by_reference(pairs):
    """What PySODMetrics says of arrays as they are, averaged over the pairs."""
    meters = {
        "s_measure": sod.Smeasure(),
        "weighted_f": sod.WeightedFmeasure(),
        "mae": sod.MAE(),
        "e": sod.Emeasure(),
        "f": sod.Fmeasure(),
    }
    for pred, mask in pairs:
        for meter in meters.values():
            meter.step(pred, mask)
    e, f = meters["e"].get_results()["em"], meters["f"].get_results()["fm"]
    return {
        "s_measure": meters["s_measure"].get_results()["sm"],
        "weighted_f": meters["weighted_f"].get_results()["wfm"],
        "mae": meters["mae"].get_results()["mae"],
        "e_max": e["curve"].max(),
        "e_mean": e["curve"].mean(),
        "e_adaptive": e["adp"],
        "f_max": f["curve"].max(),
        "f_mean": f["curve"].mean(),
        "f_adaptive": f["adp"],
    }


def fine_map(seed):
    """A map of 16 bits that reaches 1020, many of whose values lie on levels once stretched."""
    return draw_map(seed).astype(np.uint16) * 4


KINDS = {
    "16 bits": (".png", fine_map, "uint16"),
    "16 bits, TIFF": (".tif", lambda seed: fine_map(seed) + np.uint16(seed), "uint16"),
    "floats, TIFF": (".tif", lambda seed: draw_map(seed) / 300, "float"),
    "floats, array": (".npy", lambda seed: np.sqrt(draw_map(seed) / 255), "float"),
    "levels as floats": (".npy", lambda seed: draw_map(seed) / 255, "float"),
    "8 bits, array": (".npy", draw_map, "uint8"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_scored_as_the_reference_scores_the_array(tmp_path, kind):
    suffix, draw, precision = KINDS[kind]
    pairs = [(draw(seed), draw_mask(seed)) for seed in range(3)]
    for seed, (pred, mask) in enumerate(pairs):
        save(tmp_path / "masks" / f"p{seed}.png", mask)
        path = tmp_path / "A" / f"p{seed}{suffix}"
        if suffix == ".npy":
            path.parent.mkdir(exist_ok=True)
            np.save(path, pred)
        else:
            save(path, pred)
    outcome, _, plan = score_folders(tmp_path)
    record, _ = stored(outcome)
    expected = by_reference(pairs)
    found = record.scores[label(tmp_path)]
    assert {key: found[key] for key in expected} == pytest.approx(expected, abs=1e-9)
    assert record.maps == precision
    load = plan.load(plan.folders[0], label(tmp_path))
    assert load("p0")[0].dtype == pairs[0][0].dtype


def test_rounding_to_8_bits_would_be_another_number(tmp_path):
    """The values of 1020 are those of 255: what is lost when they are rounded first is seen."""
    score = lpmoe_bench.score(fine_map(0), draw_mask(0))
    assert score == pytest.approx(lpmoe_bench.score(draw_map(0), draw_mask(0)), abs=2e-2)
    rounded = (fine_map(0) / 65535 * 255 + 0.5).astype(np.uint8)
    assert abs(score["weighted_f"] - lpmoe_bench.score(rounded, draw_mask(0))["weighted_f"]) > 0.01


def test_verify_starts_from_the_file(tmp_path, monkeypatch):
    draw_folders(tmp_path, 2, ("A",))
    for seed in range(2):
        save(tmp_path / "A" / f"p{seed}.png", fine_map(seed))
    shown = json.loads(out(tmp_path, "--protocol", "cod", "--verify", "2", "--json").stdout)
    assert shown["verify"][0]["largest"] < 1e-9
    # A file that is another one than when it was scored is found out.
    save(tmp_path / "A" / "p0.png", fine_map(5))
    from lpmoe_bench.scoring.robustness import verify_scores
    from lpmoe_bench.scoring.views import rows_of

    _, _, plan = score_folders(tmp_path)
    save(tmp_path / "A" / "p0.png", fine_map(0))
    rows = rows_of(plan.places[0], label(tmp_path))
    load = plan.load(plan.folders[0], label(tmp_path))
    assert verify_scores(rows, load, plan.protocol, 2).largest > 0.01


def test_the_python_function_takes_arrays_in_their_precision(tmp_path):
    mask, soft = draw_mask(0), np.sqrt(draw_map(0) / 255)
    np.save(tmp_path / "a.npy", soft)
    save(tmp_path / "m.png", mask)
    given = lpmoe_bench.score(soft, mask)
    assert given == lpmoe_bench.score(tmp_path / "a.npy", tmp_path / "m.png")
    expected = by_reference([(soft, mask)])
    assert {key: given[key] for key in expected} == pytest.approx(expected, abs=1e-9)
    with pytest.raises(UsageError, match="may mean 8 or 16 bits"):
        lpmoe_bench.score(draw_map(0).astype(np.uint16), mask)


def test_a_resized_map_keeps_its_precision(tmp_path):
    save(tmp_path / "masks" / "p0.png", draw_mask(0))
    small = cv2.resize(draw_map(0), (18, 12)).astype(np.uint16) * 200
    save(tmp_path / "A" / "p0.png", small)
    outcome, _, _ = score_folders(tmp_path)
    wide = cv2.resize(small / 65535, (36, 24), interpolation=cv2.INTER_LINEAR)
    expected = by_reference([(wide, draw_mask(0))])
    found = stored(outcome)[0].scores[label(tmp_path)]
    assert {key: found[key] for key in expected} == pytest.approx(expected, abs=1e-9)


def test_precision_is_in_the_record_and_its_absence_stays_absent(tmp_path):
    draw_folders(tmp_path, 2)
    outcome, _, _ = score_folders(tmp_path)
    record, rows = stored(outcome)
    assert record.maps == "uint8"
    old = record.model_copy(update={"maps": None})
    written = write_record(tmp_path / "old", old, rows)
    assert "maps" not in json.loads((tmp_path / "old" / "run.json").read_text())
    assert read_record(tmp_path / "old") == written


def test_a_record_of_rounded_maps_is_not_taken_for_theirs(tmp_path):
    draw_folders(tmp_path, 2, ("A",))
    save(tmp_path / "A" / "p0.png", fine_map(0))
    outcome, _, plan = score_folders(tmp_path)
    record, rows = stored(outcome)
    assert score_folders(tmp_path)[0].fresh == [False]
    write_record(plan.places[0], record.model_copy(update={"maps": None}), rows)
    again, _, _ = score_folders(tmp_path)
    assert again.fresh == [True]
    assert (plan.places[0] / "superseded-1-run.json").exists()
