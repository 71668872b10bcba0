"""Pictures: the layout of the grid and what an overlay changes."""

import numpy as np

from lpmoe_bench.data import pictures
from lpmoe_bench.data.pictures import CELL, GAP, TITLE, grid, overlay


def test_grid_has_a_cell_for_each_picture_and_keeps_shapes():
    wide, tall = np.zeros((50, 100, 3), np.uint8), np.full((100, 50), 7, np.uint8)
    sheet = grid(
        ["a", "a title that is far too long for one cell of the sheet"], [[wide, tall]] * 3
    )
    assert sheet.shape == (TITLE + 3 * (CELL + GAP) + GAP, 2 * (CELL + GAP) + GAP, 3)
    first = sheet[TITLE : TITLE + CELL, GAP : GAP + CELL]
    assert (first[CELL // 2] == 0).all()  # the wide picture fills its width ...
    assert (first[: CELL // 4 - 1] == 255).all()  # ... and white lies above it
    second = sheet[TITLE : TITLE + CELL, 2 * GAP + CELL : 2 * (GAP + CELL)]
    assert (second[:, CELL // 2] == 7).all()


def test_overlay_tints_the_object_only():
    image, pred = np.full((40, 40, 3), 100, np.uint8), np.zeros((40, 40), np.uint8)
    pred[10:30, 10:30] = 255
    tinted = overlay(image, pred)
    assert (tinted[:5] == 100).all()
    assert tinted[20, 20, 0] > 150
    assert tinted[20, 20, 2] < 100
    assert (image == 100).all()


def test_overlay_in_bands_is_the_overlay(monkeypatch):
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (31, 17, 3)).astype(np.uint8)
    pred = random.integers(0, 256, (31, 17)).astype(np.uint8)
    whole = overlay(image, pred)
    for pixels in (1, 50, 17 * 31):
        monkeypatch.setattr(pictures, "BAND", pixels)
        assert (overlay(image, pred) == whole).all()
