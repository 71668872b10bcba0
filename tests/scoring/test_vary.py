"""`--vary`: every way to a score once, and each place where the order of methods turns."""

import json

import numpy as np
import pytest
from drawn_maps import Notes, draw_folders, draw_map, out, save, score_folders

from lpmoe_bench.metrics.protocols import MAP_PROTOCOLS, get_protocol
from lpmoe_bench.scoring import scoring
from lpmoe_bench.scoring.plan import ScoreRequest, plan_scores
from lpmoe_bench.scoring.robustness import compare_variants, turn_sentences, variants_of
from lpmoe_bench.scoring.work import Variant

COD = get_protocol("cod")


def square(side: int) -> np.ndarray:
    mask = np.zeros((60, 60), np.uint8)
    mask[2 : 2 + side, 2 : 2 + side] = 255
    return mask


@pytest.fixture
def two_methods(tmp_path):
    """Small finds the three small objects, Large the one large object."""
    for index, side in enumerate((6, 6, 6, 50)):
        mask, half = square(side), square(side // 2)
        small, large = (mask, half) if side == 6 else (half, mask)
        save(tmp_path / "masks" / f"p{index}.png", mask)
        save(tmp_path / "Small" / f"p{index}.png", small // 2)  # not a full range
        save(tmp_path / "Large" / f"p{index}.png", large // 2 + 10)
    return tmp_path


def vary(root, *methods, protocol="cod"):
    variants = variants_of(get_protocol(protocol))
    places = {"gt": root / "masks", "runs": root / "runs"}
    folders = [root / name for name in methods]
    request = ScoreRequest(folders, protocol=protocol, jobs=1, again=True, **places)
    outcome = scoring.score_folders(plan_scores(request, Notes()), request, Notes(), variants)
    (results,) = outcome.results.values()
    return compare_variants([Variant(get_protocol(protocol)), *variants], results)


def test_the_order_turns_from_images_to_the_data_set(two_methods):
    lines = {(line.metric, line.protocols[0]): line for line in vary(two_methods, "Small", "Large")}
    per_image, whole = lines["dice", "cod"], lines["dice_dataset", "pooled"]
    assert per_image.values["Small"] > per_image.values["Large"]
    assert whole.values["Small"] < whole.values["Large"]
    assert (per_image.turns, whole.turns) == ((), (("Small", "Large"),))
    sentences = turn_sentences(list(lines.values()))
    assert any(
        s.startswith("Small is ahead of Large by Dice@.5 of cod,") and "Dice/set of pooled" in s
        for s in sentences
    )


def test_each_rule_is_an_axis(two_methods):
    """Unstretched maps below half have no object; with empty masks the mean changes."""
    save(two_methods / "masks" / "p9.png", np.zeros((60, 60), np.uint8))
    for name in ("Small", "Large"):
        save(two_methods / name / "p9.png", draw_map(0, shape=(60, 60)))
        save(two_methods / name / "p3.png", draw_map(0, shape=(30, 30)) // 2)
    lines = vary(two_methods, "Small", "Large")
    ways = {way for line in lines for way in line.protocols}
    assert {"cod (not stretched)", "cod (with empty masks)"} <= ways
    assert {"cod (resized bicubic)", "cod (resized nearest)"} <= ways
    assert ways >= MAP_PROTOCOLS.keys()
    dice = [line for line in lines if line.metric == "dice"]
    unstretched = next(line for line in dice if "cod (not stretched)" in line.protocols)
    assert unstretched.values["Small"] == 0


def test_ways_with_the_same_values_share_a_line(tmp_path):
    lines = vary(draw_folders(tmp_path, 3), "A", "B")
    keys = [(line.metric, *line.values.values()) for line in lines]
    assert len(keys) == len(set(keys))
    mae = next(line for line in lines if line.metric == "mae")
    assert {"cod", "sod", "glass"} <= set(mae.protocols)  # the maps span the full range
    assert not any("(" in w for line in lines for w in line.protocols if "cod" in line.protocols)
    families = [line.family for line in lines]
    assert families == sorted(families, key=families.index)


def test_lower_is_better_turns_too(two_methods):
    lines = vary(two_methods, "Small", "Large", protocol="shadow_per_image")
    ber = {line.protocols[0]: line for line in lines if line.metric in ("ber", "ber_dataset")}
    first = ber["shadow_per_image"]
    for way, line in ber.items():
        ahead = min(line.values, key=line.values.get)
        tied = len(set(line.values.values())) == 1 or len(set(first.values.values())) == 1
        turned = ahead != min(first.values, key=first.values.get) and not tied
        assert bool(line.turns) == turned, way
    leader = min(first.values, key=first.values.get)
    turns = {pair for line in ber.values() for pair in line.turns}
    assert turns == {(leader, next(name for name in first.values if name != leader))}


def test_the_command_shows_all_and_writes_one_record(two_methods):
    shown = out(two_methods, "--vary", "--protocol", "cod", folders=("Small", "Large"))
    assert shown.exit_code == 0, shown.output
    assert "Small is ahead of Large by" in shown.stdout
    assert "Large > Small" in shown.stdout
    found = json.loads(
        out(two_methods, "--vary", "--protocol", "cod", "--json", folders=("Small", "Large")).stdout
    )
    ((test, varied),) = found["vary"].items()
    assert test == f"{two_methods.name}/masks"
    assert varied["turns"]
    assert {"metric", "protocols", "values", "turns"} == varied["lines"][0].keys()
    assert len(list(two_methods.rglob("run.json"))) == 2
    assert [list(record["scores"]) for record in found["records"]] == [[test], [test]]


def test_one_method_has_no_order(two_methods):
    shown = out(two_methods, "--vary", "--protocol", "cod", folders=("Small",))
    assert "every protocol" in shown.stdout
    assert "order of these methods" not in shown.stdout
    outcome, _, _ = score_folders(two_methods, "Small")
    assert outcome.fresh == [False]
