"""Weights and data that are kept for further plans, and found again where a file has changed."""

import cv2
import numpy as np
import pytest
from tiny_runs import BACKBONE, draw_data

from lpmoe_bench.console import Terminal
from lpmoe_bench.data import splits
from lpmoe_bench.data.pairs import find_pairs
from lpmoe_bench.data.tasks import Folders
from lpmoe_bench.training import plan
from lpmoe_bench.training.request import RunRequest


def test_data_are_listed_once_until_a_file_changes(tmp_path, monkeypatch):
    monkeypatch.setattr(plan, "_prepared", {})
    data, quiet = draw_data(tmp_path / "data"), Terminal(quiet=True)
    own = Folders(*(data / p / k for p in ("train", "test") for k in ("images", "masks")))
    flags = {"method": "lora", "backbone": BACKBONE, "weights": "random:3"}
    request = RunRequest(flags, folders=own, cache=tmp_path / "cache", runs=tmp_path / "runs")
    planned = plan.prepare_run(request, quiet).fingerprint
    find = plan._sources
    monkeypatch.setattr(plan, "_sources", lambda *given: pytest.fail("it was listed again"))
    assert plan.make_plan(request, quiet).fingerprint == planned
    found = []
    monkeypatch.setattr(plan, "_sources", lambda *given: found.append(find(*given)) or found[-1])
    cv2.imwrite(str(data / "train/masks/003.png"), np.full((60, 80), 255, np.uint8))
    assert plan.make_plan(request, quiet).fingerprint != planned
    assert len(found) == 1


def test_a_long_list_is_looked_at_in_part(tmp_path, monkeypatch):
    monkeypatch.setattr(splits, "MOST_STAMPED", 2)
    data = draw_data(tmp_path / "data")
    pairs = find_pairs(data / "train/images", data / "train/masks")
    stamps = splits.Stamps(pairs)
    assert stamps.hold()
    # A file that came is told by its folder, all files written in place by any two of them.
    (data / "train/masks/new.png").touch()
    assert not stamps.hold()
    stamps = splits.Stamps(pairs)
    for pair in pairs:
        pair.mask.write_bytes(pair.mask.read_bytes() + b"more")
    assert not stamps.hold()


def test_a_division_is_found_once(tmp_path, monkeypatch):
    monkeypatch.setattr(plan, "_prepared", {})
    data, quiet = draw_data(tmp_path / "data"), Terminal(quiet=True)
    own = Folders(*(data / p / k for p in ("train", "test") for k in ("images", "masks")))
    flags = {"method": "lora", "backbone": BACKBONE, "weights": "random:3"}

    def planned(seed):
        request = RunRequest(flags | {"seed": seed}, folders=own, cache=tmp_path / "cache")
        return plan.prepare_run(request, quiet)

    before = {seed: planned(seed) for seed in range(plan.MOST_DIVIDED + 1)}
    divide = plan.make_split
    monkeypatch.setattr(plan, "make_split", lambda *given: pytest.fail("it was divided again"))
    again = planned(1)
    assert again.train_pairs is before[1].train_pairs
    assert again.validation is before[1].validation
    assert before[1].train_pairs != before[2].train_pairs
    divided = []
    monkeypatch.setattr(plan, "make_split", lambda *given: divided.append(1) or divide(*given))
    assert planned(0).train_pairs == before[0].train_pairs  # the oldest of too many
    assert divided == [1]
