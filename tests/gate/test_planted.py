"""The gate catches faults that are planted: in maps scored by the engine, in real trainings."""

import dataclasses
from pathlib import Path
from unittest import mock

import cv2
import numpy as np
import pytest
from sample_records import record

from lpmoe_bench.gate.baseline import Policy, read_baseline
from lpmoe_bench.gate.judge import judge_cells
from lpmoe_bench.gate.pin import gather_cells, pin_cells
from lpmoe_bench.metrics.protocols import get_protocol
from lpmoe_bench.metrics.scorer import Scorer
from lpmoe_bench.records.store import find_records, write_record

ROOT = Path(__file__).parents[2]
POLICY = Policy(speed_tolerance=1)
HEADLINE = ("s_measure", "e_mean", "weighted_f", "mae")


def draw_mask(index, shape=(48, 72)):
    rng = np.random.default_rng([1, index])
    mask = np.zeros(shape, np.uint8)
    center = int(rng.integers(20, 52)), int(rng.integers(16, 32))
    axes = int(rng.integers(8, 16)), int(rng.integers(6, 12))
    cv2.ellipse(mask, center, axes, float(rng.integers(0, 180)), 0, 360, 255, -1)
    return mask


def draw_logits(index, seed):
    """What a fair model of that seed might predict: the blurred mask, off by a bias and noise."""
    own = np.random.default_rng([2, seed])
    bias, gain = own.normal(0, 0.15), own.normal(1, 0.04)
    rng = np.random.default_rng([3, seed, index])
    soft = cv2.GaussianBlur(draw_mask(index).astype(np.float64) / 255, (0, 0), 3) * 8 - 4
    grain = cv2.GaussianBlur(rng.normal(0, 8, soft.shape), (0, 0), 2)
    return gain * soft + bias + rng.normal(0, 0.4) + grain


def as_map(logits):
    return np.round(255 / (1 + np.exp(-logits))).astype(np.uint8)


FAULTS = {
    "a scaled logit": lambda logits: as_map(0.3 * logits),
    "a shifted mask": lambda logits: np.roll(as_map(logits), (3, 3), (0, 1)),
    # Stretching that runs over the 8 bits of a map.
    "a broken normalisation": lambda logits: (2 * as_map(logits).astype(int)).astype(np.uint8),
    "an inverted map": lambda logits: 255 - as_map(logits),
}


def write(root, seed, make=as_map, images=24):
    """Score the maps of one seed by the engine, and write the record."""
    scorer = Scorer(get_protocol("cod"))
    for index in range(images):
        scorer.add(f"i{index:02}", make(draw_logits(index, seed)), draw_mask(index), "CAMO")
    result = scorer.result()
    made = record(seed=seed, scores=result.scores, counts={"CAMO": result.counts})
    write_record(root / str(seed), made, result.rows)


def cells(root):
    return gather_cells(find_records([root]), str(root))


@pytest.fixture(scope="module")
def baseline(tmp_path_factory):
    root = tmp_path_factory.mktemp("base")
    for seed in range(5):
        write(root, seed)
    return pin_cells(cells(root), POLICY, "first pin", HEADLINE)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_the_maps_is_caught(baseline, tmp_path, fault):
    for seed in (0, 1):
        write(tmp_path, seed, FAULTS[fault])
    outcome = judge_cells(baseline, cells(tmp_path), POLICY)
    assert outcome.verdict == "regressed"
    assert outcome.exit_code(strict=False) == 10


def test_new_seeds_without_a_fault_do_not_regress(baseline, tmp_path):
    for seed in (10, 11, 12):
        write(tmp_path, seed)
    assert judge_cells(baseline, cells(tmp_path), POLICY).exit_code(strict=False) == 0


def test_a_training_that_is_shorter_on_purpose_is_another_cell(baseline, tmp_path):
    write(tmp_path, 0)
    folder = tmp_path / "0"
    made = find_records([folder]).records[0]
    config = made.config | {"train": made.config["train"] | {"epochs": 1}}
    changed = made.model_copy(update={"config": config, "fingerprint": "9" * 64})
    (folder / "run.json").write_text(changed.model_dump_json())
    outcome = judge_cells(baseline, cells(tmp_path), POLICY)
    assert outcome.exit_code(strict=False) == 5
    assert "epochs 3 against 1" in outcome.lines[0].reason


def shorter(real, steps):
    """Training as a fault in the loop would cut it short: the recipe still promises all steps."""

    def train(run):
        recipe = run.config.train.model_copy(update={"steps": steps})
        return real(
            dataclasses.replace(run, config=run.config.model_copy(update={"train": recipe}))
        )

    return train


def smoke(runs, seed=0):
    from tiny_runs import call

    config = str(ROOT / ".ci" / "gate.yaml")
    more = ("--embedded", "--seed", str(seed), "--runs", str(runs), "--quiet")
    done = call(["run", "--config", config, *more])
    assert done.code == 0, done.stderr
    return judge_cells(pinned(), cells(runs), pinned().policy)


def pinned():
    return read_baseline(ROOT / "results" / "baseline.json")


def test_the_pinned_smoke_cell_is_that_of_its_settings():
    import yaml

    settings = yaml.safe_load((ROOT / ".ci" / "gate.yaml").read_text())
    (cell,) = pinned().cells
    for name in ("method", "task", "size"):
        assert cell.identity[name] == settings[name]
    assert cell.identity["steps"] == settings["train"]["steps"]
    assert len(cell.seeds) >= 5


@pytest.mark.slow
def test_the_smoke_cell_passes(tmp_path):
    assert smoke(tmp_path).exit_code(strict=False) == 0


@pytest.mark.slow
def test_the_smoke_cell_catches_a_broken_normalisation(tmp_path):
    from method_zoo.backbones.backbone import Backbone

    # Scaled to [0, 1] twice: an error that trains without a word.
    with mock.patch.object(Backbone, "normalise", lambda self, image: image / 255):
        assert smoke(tmp_path).exit_code(strict=False) == 10


@pytest.mark.slow
def test_the_smoke_cell_catches_a_shorter_schedule(tmp_path):
    from lpmoe_bench.training import loop
    from lpmoe_bench.training import run as run_module

    with mock.patch.object(run_module, "train", shorter(loop.train, 20)):
        assert smoke(tmp_path).exit_code(strict=False) == 10
