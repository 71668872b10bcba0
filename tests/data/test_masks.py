"""Mask files to 0 and 255: which values and colours are object, and what is refused."""

import numpy as np
import pytest
from drawn_files import square_mask, write

from lpmoe_bench.data.images import inspect_mask, read_mask
from lpmoe_bench.errors import DataError


@pytest.mark.parametrize(
    ("values", "flags"),
    [
        ((0, 255), ()),
        ((0, 1), ("values 0 and 1",)),
        ((3, 250), ("grey levels",)),
        ((0, 0), ("empty",)),
        ((120, 129), ("grey levels",)),
        ((128, 255), ("grey levels",)),
        ((0, 65535), ()),
        ((0, 40000), ("grey levels",)),
    ],
)
def test_mask_values(tmp_path, values, flags):
    object_ = square_mask() > 0
    kind = np.uint16 if max(values) > 255 else np.uint8
    path = write(tmp_path / "a.png", np.where(object_, *map(kind, values[::-1])))
    mask, found = inspect_mask(path)
    assert found == flags
    expected = np.zeros_like(object_) if "empty" in flags else object_
    assert np.array_equal(mask, expected.astype(np.uint8) * 255)


def test_16_bit_mask_with_8_bit_values(tmp_path):
    path = write(tmp_path / "a.png", square_mask().astype(np.uint16))
    assert np.array_equal(read_mask(path), square_mask())


def test_mask_of_which_nothing_would_be_left(tmp_path):
    path = write(tmp_path / "a.png", square_mask() // 2)
    with pytest.raises(DataError, match=r"a\.png holds values from 0 to 127 only"):
        read_mask(path)


def test_rgb_mask_with_alpha_and_jpeg_mask(tmp_path):
    grey = square_mask()
    rgb = np.dstack([grey] * 3)
    assert inspect_mask(write(tmp_path / "a.png", rgb))[1] == ()
    alpha = np.dstack([np.full_like(rgb, 255), grey])  # white, transparent outside
    assert np.array_equal(read_mask(write(tmp_path / "b.png", alpha)), grey)
    assert (read_mask(write(tmp_path / "c.jpg", rgb)) != grey).mean() < 0.02


def test_mask_in_two_colours_and_in_three(tmp_path):
    mask = np.zeros((30, 40, 3), np.uint8)
    mask[5:20, 8:25] = (128, 0, 0)  # the palette of VOC
    read, flags = inspect_mask(write(tmp_path / "a.png", mask))
    assert flags == ("two colours",)
    assert np.array_equal(read, square_mask())
    mask[0] = (0, 128, 0)
    with pytest.raises(DataError, match="3 colours"):
        read_mask(write(tmp_path / "b.png", mask))
