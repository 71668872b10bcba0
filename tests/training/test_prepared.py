"""Weights and data that are kept for further plans, and found again where a file has changed."""

import cv2
import numpy as np
import pytest
from tiny_runs import draw_data

from lpmoe_bench.console import Terminal
from lpmoe_bench.data.tasks import Folders
from lpmoe_bench.training import plan
from lpmoe_bench.training.request import RunRequest


def test_data_are_listed_once_until_a_file_changes(tmp_path, monkeypatch):
    monkeypatch.setattr(plan, "_prepared", {})
    data, quiet = draw_data(tmp_path / "data"), Terminal(quiet=True)
    own = Folders(*(data / p / k for p in ("train", "test") for k in ("images", "masks")))
    flags = {"method": "lora", "backbone": "vit_tiny_patch16_224", "weights": "random:3"}
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
