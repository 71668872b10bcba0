"""The gate on records: which verdict, which cell is meant, what never passes."""

import json

import numpy as np
import pytest
from gate_records import cells, draw, store

from lpmoe_bench.errors import DataError, NotComparableError, UsageError
from lpmoe_bench.gate.baseline import Policy
from lpmoe_bench.gate.judge import judge_cells
from lpmoe_bench.gate.pin import pin_cells

POLICY = Policy(speed_tolerance=1)
METRICS = ["s_measure", "mae"]


def pinned(root, policy=POLICY, seeds=range(5), **changes):
    for seed in seeds:
        store(root / "base", seed, **changes)
    return pin_cells(cells(root / "base"), policy, "first pin", METRICS)


def judged(baseline, root, policy=None):
    outcome = judge_cells(baseline, cells(root), policy or baseline.policy)
    return outcome, {line.name: line for line in outcome.lines}


def test_an_identical_rerun_passes_in_every_number(tmp_path):
    baseline = pinned(tmp_path)
    outcome, lines = judged(baseline, tmp_path / "base")
    assert {line.verdict for line in outcome.lines} == {"pass"}
    assert outcome.exit_code(strict=True) == 0
    assert lines["s_measure"].reason == "the same to the last bit"
    # Parameters of five kinds, and two scores; the records tell no FLOPs.
    assert len(outcome.lines) == 7


def test_an_identical_rerun_of_one_pinned_seed_passes_whatever_its_luck(tmp_path):
    baseline = pinned(tmp_path, Policy(speed_tolerance=1, cap=1e-9))
    worst = min(range(5), key=lambda seed: draw(seed).mean())
    store(tmp_path / "new", worst)
    outcome, _ = judged(baseline, tmp_path / "new")
    assert outcome.verdict == "pass"
    single = pin_cells(cells(tmp_path / "new"), POLICY, "one", METRICS)  # one seed, no spread
    assert judge_cells(single, cells(tmp_path / "new"), POLICY).verdict == "pass"


def test_other_seeds_of_the_same_cell_pass(tmp_path):
    baseline = pinned(tmp_path)
    for seed in (10, 11):
        store(tmp_path / "new", seed)
    assert judged(baseline, tmp_path / "new")[0].verdict == "pass"


@pytest.mark.parametrize(
    ("shift", "verdict", "code"), [(-0.08, "regressed", 10), (0.08, "improved", 0)]
)
def test_a_shift_of_all_images_is_found_in_both_directions(tmp_path, shift, verdict, code):
    baseline = pinned(tmp_path)
    for seed in range(3):
        store(tmp_path / "new", seed, values=draw(seed, shift=shift))
    outcome, lines = judged(baseline, tmp_path / "new")
    assert lines["s_measure"].verdict == lines["mae"].verdict == verdict
    assert outcome.exit_code(strict=False) == code
    limit = lines["mae"].judgement.limit
    assert limit > lines["mae"].baseline
    assert lines["s_measure"].judgement.limit < lines["s_measure"].baseline


def test_a_pinned_seed_that_moves_within_the_limit_is_told(tmp_path):
    baseline = pinned(tmp_path)
    store(tmp_path / "new", 3, values=draw(3, shift=0.004))
    outcome, _ = judged(baseline, tmp_path / "new")
    assert outcome.verdict == "pass"
    assert "of seed 3 is 0.0040 from its pinned value" in outcome.notes[0]
    store(tmp_path / "same", 3, values=draw(3, shift=1e-6))
    assert not judged(baseline, tmp_path / "same")[0].notes


def test_a_doubt_fails_only_where_it_is_asked_to(tmp_path):
    baseline = pinned(tmp_path, seeds=[0])
    store(tmp_path / "new", 1)
    outcome, lines = judged(baseline, tmp_path / "new")
    assert lines["mae"].verdict == "inconclusive"
    assert "pin 5 seeds" in lines["mae"].reason
    assert (outcome.exit_code(strict=False), outcome.exit_code(strict=True)) == (0, 11)


def test_other_settings_are_not_comparable_and_named(tmp_path):
    baseline = pinned(tmp_path)
    other = {"name": "cod", "version": 2, "hash": "ee" * 32}
    cases = {
        "protocol hash cdcdcdcdcdcd against eeeeeeeeeeee": {"protocol": other},
        "epochs 3 against 1": {"train": {"epochs": 1}, "fingerprint": "e" * 64},
        "setting train.lr 0.001 against 0.1": {"train": {"lr": 0.1}, "fingerprint": "e" * 64},
        "options.rank nothing against 4": {
            "method": {"name": "lora", "title": "LoRA", "options": {"rank": 4}}
        },
        "fingerprint": {"fingerprint": "f" * 64},
    }
    for number, (words, changes) in enumerate(cases.items()):
        store(tmp_path / str(number), 0, **changes)
        outcome, lines = judged(baseline, tmp_path / str(number))
        assert lines["cell"].verdict == "not comparable"
        assert words in lines["cell"].reason
        assert outcome.exit_code(strict=False) == 5


def test_a_missing_cell_and_one_that_is_new(tmp_path):
    baseline = pinned(tmp_path)
    store(tmp_path / "new", 0, "vpt")
    outcome, lines = judged(baseline, tmp_path / "new")
    assert "no candidate record" in lines["cell"].reason
    assert outcome.exit_code(strict=False) == 5
    assert any("vpt" in note and "not judged" in note for note in outcome.notes)


def test_several_candidates_of_other_settings_are_not_guessed_between(tmp_path):
    baseline = pinned(tmp_path)
    for letter in "ef":
        store(tmp_path / "new", 0, fingerprint=letter * 64)
    outcome, lines = judged(baseline, tmp_path / "new")
    assert "2 candidates have other settings" in lines["cell"].reason
    assert outcome.verdict == "not comparable"


def test_the_pinned_setting_is_found_among_others(tmp_path):
    baseline = pinned(tmp_path)
    store(tmp_path / "new", 0)
    store(tmp_path / "new", 0, fingerprint="e" * 64)
    outcome, _ = judged(baseline, tmp_path / "new")
    assert outcome.verdict == "pass"
    assert len(outcome.notes) == 1


def test_fewer_images_or_others_never_pass(tmp_path):
    baseline = pinned(tmp_path)
    store(tmp_path / "few", 0, values=draw(0)[:39])
    outcome, lines = judged(baseline, tmp_path / "few")
    assert lines["images"].reason.endswith("scored 39 images, the baseline 40")
    assert outcome.exit_code(strict=False) == 5
    other = store(tmp_path / "other", 0)
    rows = other.folder / "per_image.csv"
    rows.write_text(rows.read_text().replace("i003", "i999"))
    outcome, lines = judged(baseline, tmp_path / "other")
    assert "not those of the baseline" in lines["mae"].reason
    assert outcome.exit_code(strict=False) == 5


def test_a_score_that_is_missing_never_passes(tmp_path):
    baseline = pinned(tmp_path)
    same = float(draw(0).mean())
    for number, scores in enumerate(({"s_measure": same}, {"s_measure": same, "mae": None})):
        store(tmp_path / str(number), 0, scores=scores)
        outcome, lines = judged(baseline, tmp_path / str(number))
        assert lines["mae"].verdict == "not comparable"
        assert outcome.exit_code(strict=False) == 5
    low = draw(0) - 0.5
    store(tmp_path / "worse", 0, values=low, scores={"s_measure": float(low.mean())})
    # A regression weighs more.
    assert judged(baseline, tmp_path / "worse")[0].exit_code(strict=False) == 10


def test_counts_are_exact(tmp_path):
    baseline = pinned(tmp_path, costs={"forward_flops": 1000})
    for name, flops, verdict in (("a", 999, "regressed"), ("b", None, "not comparable")):
        store(tmp_path / name, 0, costs={"forward_flops": flops})
        _, lines = judged(baseline, tmp_path / name)
        assert lines["forward FLOPs"].verdict == verdict
    assert "999 against 1,000" not in lines["forward FLOPs"].reason
    changed = json.loads(store(tmp_path / "c", 0).record.model_dump_json())["parameters"]
    store(tmp_path / "d", 0, costs={"forward_flops": 1000}, parameters=changed | {"decoder": 5})
    assert judged(baseline, tmp_path / "d")[1]["parameters decoder"].verdict == "regressed"


def test_speed_is_a_ratio_on_the_same_hardware_alone(tmp_path):
    policy = Policy(speed_tolerance=0.3)
    baseline = pinned(tmp_path, policy, costs={"train_images_per_second": 10.0})
    for name, speed, verdict in (("a", 6.9, "regressed"), ("b", 7.1, "pass")):
        store(tmp_path / name, 0, costs={"train_images_per_second": speed})
        assert judged(baseline, tmp_path / name)[1]["training images/s"].verdict == verdict
    record = store(tmp_path / "c", 0).record.environment.model_dump() | {"cpu": "Other CPU"}
    store(tmp_path / "d", 0, costs={"train_images_per_second": 1.0}, environment=record)
    outcome, lines = judged(baseline, tmp_path / "d")
    assert "training images/s" not in lines
    assert outcome.verdict == "pass"
    assert "speed was not judged" in outcome.notes[0]
    outcome, lines = judged(baseline, tmp_path / "a", Policy(speed_tolerance=1))
    assert "training images/s" not in lines
    assert not outcome.notes


def test_one_seed_twice_with_other_scores_is_refused(tmp_path):
    store(tmp_path / "a", 0)
    store(tmp_path / "b", 0)
    assert len(cells(tmp_path)) == 1  # a copy is one record
    store(tmp_path / "b", 0, values=draw(0, shift=0.1))
    with pytest.raises(UsageError, match=r"seed 0 of .* is there twice with different scores"):
        cells(tmp_path)


def test_no_candidate_is_not_comparable(tmp_path):
    with pytest.raises(NotComparableError, match="no record is found under"):
        cells(tmp_path)
    store(tmp_path, 0, superseded_by="another")
    with pytest.raises(NotComparableError, match="no record is found under"):
        cells(tmp_path)


def test_maps_of_no_known_seed_are_draws_of_one_cell(tmp_path):
    """Somebody's own project: `score` on a folder of maps, one a training."""
    facts = {"kind": "score", "backbone": None, "decoder": None, "config": {}, "parameters": None}
    facts["data"] = {"tests": [{"label": "CAMO", "digest": "22", "images": 40}]}
    for number in range(3):
        made = store(tmp_path, number, fingerprint=f"{number}" * 64, **facts)
        content = made.record.model_dump() | {"seed": None}  # nobody knows it
        (made.folder / "run.json").write_text(json.dumps(content))
    (cell,) = cells(tmp_path)
    assert cell.seeds == ("0" * 12, "1" * 12, "2" * 12)
    baseline = pin_cells([cell], POLICY, "first", METRICS)
    assert baseline.cells[0].name == "cod/lora on CAMO by cod"
    assert judge_cells(baseline, [cell], POLICY).verdict == "pass"


def test_pins_say_what_a_cell_lacks(tmp_path):
    store(tmp_path, 0)
    with pytest.raises(UsageError, match="did you mean 'mae'"):
        pin_cells(cells(tmp_path), POLICY, "x", ["maee"])
    with pytest.raises(UsageError, match="means different things"):
        pin_cells(cells(tmp_path), POLICY, "x", ["mDice"])
    (cell,) = pin_cells(cells(tmp_path), POLICY, "x").cells
    assert list(cell.metrics) == METRICS  # of the headline
    store(tmp_path, 1, values=draw(1)[:30])
    with pytest.raises(DataError, match="scored 30, 40 images"):
        pin_cells(cells(tmp_path), POLICY, "x")


def test_the_rows_of_a_pin_are_nested_in_its_seeds(tmp_path):
    baseline = pinned(tmp_path)
    rows = np.array([draw(seed) for seed in range(5)])
    rest = rows - rows.mean(1, keepdims=True) - rows.mean(0) + rows.mean()
    metric = baseline.cells[0].metrics["s_measure"]
    assert metric.rest_variance == pytest.approx((rest**2).sum() / (4 * 39))
    assert metric.sd == pytest.approx(rows.mean(1).std(ddof=1))
