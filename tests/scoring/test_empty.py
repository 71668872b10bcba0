"""Images without an object: every convention by name, and false alarms on them as a column."""

import json

import numpy as np
import pytest
from drawn_maps import out, save, score_folders, stored

from lpmoe_bench.errors import DataError
from lpmoe_bench.metrics.engine import score_pair
from lpmoe_bench.metrics.protocols import get_protocol
from lpmoe_bench.metrics.scorer import Scorer
from lpmoe_bench.tables.formats import format_table
from lpmoe_bench.tables.table import build_table

NOTHING = np.zeros((16, 16), np.uint8)
OBJECT = NOTHING.copy()
OBJECT[4:10, 3:12] = 255


def under(policy, pred, mask, metrics=("iou", "dice", "recall", "precision_like")):
    from dataclasses import replace

    protocol = replace(get_protocol("skin_isic2017"), name="own", empty_masks=policy)
    return score_pair(pred, mask, protocol).values


@pytest.mark.parametrize(
    ("policy", "right", "alarm"), [("score", 0, 0), ("zero", 0, 0), ("one", 1, 0)]
)
def test_what_an_empty_mask_counts(policy, right, alarm):
    for key in ("iou", "dice", "recall"):
        assert under(policy, NOTHING, NOTHING)[key] == right
        assert under(policy, OBJECT, NOTHING)[key] == alarm
    # What is defined without an object stays as it is, and so does an image with one.
    assert under(policy, OBJECT, NOTHING)["specificity"] == 1 - 54 / 256
    assert under(policy, OBJECT, OBJECT)["iou"] == 1


def test_thresholds_of_an_empty_map_each_count_for_themselves():
    """A map of half throughout: at thresholds above it nothing is called, below all of it."""
    from dataclasses import replace

    protocol = replace(get_protocol("polyp_pranet"), empty_masks="one", normalisation="none")
    grey = np.full((16, 16), 51, np.uint8)
    values = score_pair(grey, NOTHING, protocol).values
    assert values["dice_mean256"] == values["f_mean"] == 204 / 256
    assert values["dice_max"].sum() == 204
    assert values["weighted_f"] == values["dice"] == 1
    assert values["s_measure"] == pytest.approx(0.8)
    ber = replace(get_protocol("shadow_per_image"), empty_masks="one")
    assert score_pair(NOTHING, NOTHING, ber).values["ber"] == 0
    assert score_pair(OBJECT, NOTHING, ber).values["ber"] == 0.5 + 0.5 * 54 / 256


@pytest.fixture
def mixed(tmp_path):
    """Calm calls nothing on empty masks and misses objects; Eager the other way round."""
    masks = (OBJECT, OBJECT, NOTHING, NOTHING, NOTHING)
    part = OBJECT.copy()
    part[4:7] = 0
    for index, mask in enumerate(masks):
        save(tmp_path / "masks" / f"p{index}.png", mask)
        save(tmp_path / "Calm" / f"p{index}.png", part if mask.any() else mask)
        save(tmp_path / "Eager" / f"p{index}.png", OBJECT if index < 4 else NOTHING)
    return tmp_path


def test_each_convention_side_by_side_and_where_the_ranking_turns(mixed):
    asked = ("--vary", "--protocol", "cod", "--json")
    ((varied),) = json.loads(out(mixed, *asked, folders=("Calm", "Eager")).stdout)["vary"].values()
    lines = {(one["metric"], one["convention"]): one["values"] for one in varied["empty_masks"]}
    assert lines["iou", "without empty masks"] == {"Calm": 0.5, "Eager": 1}
    assert lines["iou", "with empty masks"] == {"Calm": 0.2, "Eager": 0.4}
    assert lines["iou", "empty masks count 0"] == {"Calm": 0.2, "Eager": 0.4}
    kind = "empty masks count 1 where the map is empty"
    assert lines["iou", kind] == pytest.approx({"Calm": 0.8, "Eager": 0.6})
    turns = [s for s in varied["empty_turns"] if s.startswith("the ranking by IoU@.5 turns")]
    assert len(turns) == 1
    assert f"Calm > Eager {kind}" in turns[0]
    assert "Eager > Calm with empty masks, without empty masks, empty masks count 0" in turns[0]
    shown = out(mixed, "--vary", "--protocol", "cod", folders=("Calm", "Eager")).stdout
    assert "empty masks by each convention" in shown
    assert "the ranking by IoU@.5 turns" in shown


def test_false_alarms_are_a_column(mixed):
    outcome, _, _ = score_folders(mixed, "Calm", "Eager")
    records = [stored(outcome, index)[0] for index in (0, 1)]
    counts = [next(iter(record.counts.values())) for record in records]
    assert [one["empty_false_alarms"] for one in counts] == [0, 2]
    assert [one["empty_masks"] for one in counts] == [3, 3]
    table = build_table(records, metrics=["iou", "empty_false_alarms"])
    text = format_table(table, "csv")
    assert "empty_false_alarms" in text
    shown = out(mixed, "--protocol", "cod", folders=("Calm", "Eager")).stdout
    assert "False alarms on empty masks" in shown
    assert "0.667" in shown


def test_without_empty_masks_nothing_is_said_of_them(tmp_path):
    save(tmp_path / "masks" / "p0.png", OBJECT)
    save(tmp_path / "A" / "p0.png", OBJECT // 2)
    record, _ = stored(score_folders(tmp_path)[0])
    assert "empty_false_alarms" not in next(iter(record.counts.values()))
    shown = out(tmp_path, "--vary", "--protocol", "cod").stdout
    assert "convention" not in shown
    assert "False alarms on" not in shown


def test_what_is_verified_leaves_conventions_out(mixed):
    (mixed / "own.yaml").write_text("base: conv_lora\nempty_masks: one\n")
    options = ("--protocol", str(mixed / "own.yaml"), "--verify", "5", "--json")
    (found,) = json.loads(out(mixed, *options, folders=("Calm",)).stdout)["verify"]
    assert found["images"] == ["p0", "p1"]
    assert found["largest"] < 1e-12


def test_a_mean_over_nothing_is_one_sentence():
    scorer = Scorer(get_protocol("cod"))
    scorer.add("a", OBJECT, NOTHING)
    with pytest.raises(DataError, match="all 1 masks are empty"):
        scorer.result()
