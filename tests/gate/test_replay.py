"""Replays: each seed pinned twice, candidates judged seed by seed against the noise of a rerun."""

import json
import math
import re

import numpy as np
import pytest
from gate_records import METRICS, call, cells, draw, store
from scipy import stats

from lpmoe_bench.errors import DataError, UsageError
from lpmoe_bench.gate.baseline import MetricPin, Policy, read_baseline
from lpmoe_bench.gate.judge import judge_cells
from lpmoe_bench.gate.limits import learnt, reference_of, seeds_to_settle

SEEDS = range(3)


def rerun(folder, seed, noise=0.0, run=0, shift=0.0, **changes):
    """Store a run of a seed: `noise` is the sd of what another run of it would score."""
    luck = np.random.default_rng([11, seed, run]).normal(0, noise) if noise else 0.0
    created = f"2026-01-02T03:04:{10 + run}+00:00"
    return store(folder, seed, values=draw(seed, shift=shift + luck), created=created, **changes)


def pinned(folder, noise=0.0, seeds=SEEDS, *more):
    """Pin each seed run twice, in two folders; return the file."""
    for seed in seeds:
        rerun(folder / "one", seed, noise, 0)
        rerun(folder / "two", seed, noise, 1)
    file = folder / "replay.json"
    how = ("--replay", "--baseline", file, "--metrics", ",".join(METRICS), *more)
    said = call("pin", folder / "one", folder / "two", *how)
    return file, said


def lines(file, folder, **policy):
    baseline = read_baseline(file)
    outcome = judge_cells(baseline, cells(folder), baseline.policy.changed(**policy))
    return outcome, {line.name: line for line in outcome.lines}


def test_an_exact_replay_finds_a_drop_of_a_thousandth_and_passes_without(tmp_path):
    file, said = pinned(tmp_path)
    assert "3 seeds, each run twice; drops found: S any, MAE any" in said
    assert "any drop is a regression" in said
    for seed in SEEDS:
        rerun(tmp_path / "clean", seed, run=2)
        rerun(tmp_path / "worse", seed, run=2, shift=-0.001)
        rerun(tmp_path / "better", seed, run=2, shift=0.001)
    assert "gate: pass" in call("check", tmp_path / "clean", "--baseline", file, "--strict")
    call("check", tmp_path / "worse", "--baseline", file, code=10)
    _, found = lines(file, tmp_path / "worse")
    assert found["s_measure"].judgement.drop == pytest.approx(0.001)
    assert found["mae"].verdict == "regressed"
    assert lines(file, tmp_path / "better")[0].verdict == "improved"
    said = call("explain", tmp_path / "worse", "--baseline", file)
    assert "one more run of a seed scores the same to the last bit, with 3 degrees" in said
    assert "Reruns never differed, so chance explains no drop." in said
    # The floor that a user gives holds here too, and the seeds as they are pinned say nothing.
    assert lines(file, tmp_path / "worse", floor=0.002)[0].verdict == "pass"
    assert json.loads(file.read_text())["cells"][0]["metrics"]["mae"]["sd"] > 0.001


def test_the_same_drop_hides_among_new_seeds(tmp_path):
    for seed in SEEDS:
        rerun(tmp_path / "one", seed)
        rerun(tmp_path / "worse", seed, shift=-0.001)
    call("pin", tmp_path / "one", "--baseline", tmp_path / "b.json", "--metrics", "mae")
    assert lines(tmp_path / "b.json", tmp_path / "worse")[0].verdict == "pass"


def test_a_replay_with_noise_knows_it(tmp_path):
    """Reruns that differ by an sd of .0001: .001 is found, clean reruns pass."""
    file, said = pinned(tmp_path, 0.0001)
    assert re.search(r"drops found: S 0\.000\d+, MAE", said)
    for seed in SEEDS:
        rerun(tmp_path / "clean", seed, 0.0001, run=2)
        rerun(tmp_path / "worse", seed, 0.0001, run=2, shift=-0.001)
    outcome, found = lines(file, tmp_path / "clean")
    assert outcome.verdict == "pass"
    assert not outcome.notes  # reruns that move by noise are no change
    assert not found["mae"].judgement.identical
    assert lines(file, tmp_path / "worse")[0].verdict == "regressed"


def test_the_noise_of_a_rerun_by_hand():
    # Pairs .70 .72 and .50 .50: differences .02 and 0, variance of one run (.0004 + 0) / (2 x 2),
    # sd .01, two degrees of freedom. Both seeds again: the pinned mean is of four runs, the
    # candidate's of two: t(.95, 2) = 2.920 x .01 x sqrt(1/2 + 1/4) = .02529.
    pin = MetricPin(scores=[0.70, 0.50], mean=0.60, sd=math.sqrt(0.02), reruns=[0.72, 0.50])
    reference = reference_of(pin, 10)
    assert (reference.mean, reference.sd) == (pytest.approx(0.605), pytest.approx(0.01))
    assert learnt(reference, 2, 0.05) == pytest.approx(2.91999 * 0.01 * math.sqrt(0.75), rel=1e-5)
    # With a confidence: pinned mean of 2 x 1 runs for one seed, a noncentral t of 2 degrees.
    shift = stats.norm.isf(0.05) * math.sqrt(2 / 1)
    expected = stats.nct.ppf(0.9, 2, shift) / math.sqrt(2) * 0.01
    assert learnt(reference, 1, 0.05, 0.9) == pytest.approx(expected, rel=1e-6)
    # One seed is .0358, both .0253, so two find .03; .02 needs more pinned ones.
    assert seeds_to_settle(reference, 0.03, 0.05) == (2, False)
    assert seeds_to_settle(reference, 0.02, 0.05)[1]


def test_a_part_of_the_pinned_seeds_is_judged_against_itself(tmp_path):
    file, _ = pinned(tmp_path, 0.0001)
    rerun(tmp_path / "new", 2, 0.0001, run=2)
    outcome, found = lines(file, tmp_path / "new")
    metric = read_baseline(file).cells[0].metrics["mae"]
    assert found["mae"].baseline == pytest.approx((metric.scores[2] + metric.reruns[2]) / 2)
    assert found["mae"].judgement.seeds == 1
    assert outcome.verdict == "pass"
    rerun(tmp_path / "new", 7)
    outcome, found = lines(file, tmp_path / "new")
    assert outcome.exit_code() == 5
    assert "judges seeds 0 1 2 against themselves, and the candidate has 7" in found["seeds"].reason


def test_seeds_that_were_not_run_twice_are_refused(tmp_path):
    one, two, three, file = (tmp_path / name for name in ("one", "two", "three", "b.json"))
    rerun(one, 0)
    rerun(two, 0, run=0)  # a copy in another folder is no second run
    how = ("--replay", "--baseline", file)
    said = call("pin", one, two, *how, code=UsageError.exit_code)
    assert "seed 0 of" in said
    assert "is there once" in said
    rerun(two, 0, run=1)
    rerun(three, 0, run=2)
    said = call("pin", one, two, three, *how, code=UsageError.exit_code)
    assert "is there 3 times" in said
    assert not file.exists()
    made = rerun(tmp_path / "maps", 0)
    content = made.record.model_dump() | {"seed": None}
    (made.folder / "run.json").write_text(json.dumps(content))
    said = call("pin", tmp_path / "maps", *how, code=UsageError.exit_code)
    assert "maps of no known seed" in said


def test_reruns_of_other_images_are_refused(tmp_path):
    rerun(tmp_path / "one", 0)
    made = rerun(tmp_path / "two", 0, run=1)
    rows = made.folder / "per_image.csv"
    rows.write_text(rows.read_text().replace("i003", "i999"))
    where = (tmp_path / "one", tmp_path / "two", "--baseline", tmp_path / "b.json")
    said = call("pin", *where, "--replay", code=DataError.exit_code)
    assert "or of others" in said


def test_a_replay_gives_the_same_bytes_whatever_the_folders(tmp_path):
    file, _ = pinned(tmp_path, 0.001)
    how = ("--replay", "--baseline", tmp_path / "b.json", "--metrics", ",".join(METRICS))
    call("pin", tmp_path / "two", tmp_path / "one", *how)
    assert (tmp_path / "b.json").read_bytes() == file.read_bytes()


def test_a_replay_is_updated_by_replays_alone(tmp_path):
    file, _ = pinned(tmp_path)
    for run in (2, 3):
        for seed in SEEDS:
            rerun(tmp_path / f"new{run}", seed, run=run, shift=-0.01)
    how = ("--baseline", file, "--reason", "meant")
    said = call("update", tmp_path / "new2", *how, code=UsageError.exit_code)
    assert "--replay takes each seed run twice" in said
    call("update", tmp_path / "new2", tmp_path / "new3", *how)
    assert read_baseline(file).replay
    assert "gate: pass" in call("check", tmp_path / "new2", "--baseline", file)


def test_another_machine_is_told(tmp_path):
    file, _ = pinned(tmp_path)
    where = rerun(tmp_path / "same", 0, run=2).record.environment.model_dump()
    rerun(tmp_path / "new", 0, run=2, environment=where | {"cpu": "Other CPU"})
    for folder, told in (("same", 0), ("new", 1)):
        outcome, _ = lines(file, tmp_path / folder)
        assert sum("rounded in another order" in note for note in outcome.notes) == told


def test_explain_tells_of_reruns(tmp_path):
    file, _ = pinned(tmp_path, 0.0001)
    rerun(tmp_path / "new", 1, 0.0001, run=2, shift=-0.001)
    said = call("explain", tmp_path / "new", "--baseline", file)
    for words in (
        "3 seeds, each run twice; one more run of a seed varies by an sd of",
        "with 3 degrees of freedom",
        "the mean of 1 reruns",
        "sqrt(1/1 + 1/2)",
        "Seed by seed: seed 1 -0.00",
    ):
        assert words in said


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda metrics: metrics["mae"].update(reruns=[0.1]), "1 reruns of 3 scores"),
        (lambda metrics: metrics["mae"].pop("reruns"), "mae has no reruns"),
    ],
)
def test_an_edited_replay_is_found_out(tmp_path, change, words):
    file, _ = pinned(tmp_path)
    content = json.loads(file.read_text())
    change(content["cells"][0]["metrics"])
    file.write_text(json.dumps(content))
    rerun(tmp_path / "new", 0, run=2)
    said = call("check", tmp_path / "new", "--baseline", file, code=DataError.exit_code)
    assert words in said


def test_a_moved_seed_of_an_exact_replay_is_told(tmp_path):
    """One seed up, one down by as much: no drop, and yet not neutral."""
    file, _ = pinned(tmp_path)
    rerun(tmp_path / "new", 0, run=2, shift=0.002)
    rerun(tmp_path / "new", 1, run=2, shift=-0.001)
    outcome = judge_cells(read_baseline(file), cells(tmp_path / "new"), Policy(speed_tolerance=1))
    assert outcome.verdict == "improved"
    assert any("is not neutral" in note for note in outcome.notes)
