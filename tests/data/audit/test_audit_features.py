"""Likeness in a backbone's features, on drawn scenes, and what is said where there is none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from audit_sets import scene
from drawn_files import write

from lpmoe_bench.data.audit.likeness import Question
from lpmoe_bench.errors import DataError
from lpmoe_bench.model import likeness
from lpmoe_bench.model.likeness import default_features, feature_likeness
from lpmoe_bench.model.weights.resolve import resolve_weights


@pytest.fixture(scope="module")
def weights():
    return resolve_weights("vit_tiny_patch16_224", "random", Path())


def test_copies_are_alike_and_other_scenes_are_not(tmp_path, weights):
    one = write(tmp_path / "a.png", scene(0))
    turned = write(tmp_path / "b.png", np.ascontiguousarray(scene(0)[:, ::-1]))
    other = write(tmp_path / "c.png", scene(1))
    told = []
    asked = [(one, one, False), (one, turned, True), (one, turned, False), (one, other, False)]
    same, mirrored, unturned, unlike = feature_likeness(
        weights, [Question(*q) for q in asked], lambda done, total: told.append((done, total))
    )
    assert same == pytest.approx(1, abs=1e-5)
    assert mirrored == pytest.approx(1, abs=1e-3)
    assert max(unturned, unlike) < mirrored
    assert told == [(k, 4) for k in range(1, 5)]


def test_an_image_that_went_missing_is_a_sentence(tmp_path, weights):
    one = write(tmp_path / "a.png", scene(0))
    with pytest.raises(DataError, match=r"b\.png does not exist"):
        feature_likeness(weights, [Question(one, tmp_path / "b.png", False)])


def test_without_torch_or_weights_the_reason_is_said(tmp_path, monkeypatch):
    found, why = default_features(tmp_path, offline=True)
    assert found is None
    assert "offline" in why
    monkeypatch.setattr(likeness, "find_spec", lambda name: None)
    assert default_features(tmp_path, offline=False) == (None, "torch is not installed")
