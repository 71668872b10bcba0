"""Files changed at random: read, or refused in a sentence that names them; never a traceback."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from drawn_files import noise_image, square_mask
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from lpmoe_bench.data.images import read_image, read_pixels, read_truth
from lpmoe_bench.data.pixels import UNDECLARED, pixel_rules
from lpmoe_bench.errors import DataError

COUNT = int(os.environ.get("LPMOE_BENCH_EXAMPLES", "25"))
SUFFIXES = (".jpg", ".png", ".tif", ".bmp", ".webp")
RULES = [
    UNDECLARED,
    *map(
        pixel_rules,
        (
            {"object": "nonzero", "ignore": 7},
            {"object": 3, "exif": "both"},
            {"bands": [3, 2, 1]},
            {"range": [0, 4095], "resize_masks": True},
            {"object": "alpha"},
            {"object": "#ff0000"},
        ),
    ),
]
slow = settings(
    max_examples=COUNT, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def files() -> list[bytes]:
    deep = noise_image((24, 32)).astype(np.uint16) * 200
    arrays = [noise_image((24, 32, 3)), square_mask((24, 32)), deep, noise_image((24, 32, 4))]
    found = []
    for suffix in SUFFIXES:
        for pixels in arrays:
            if suffix in (".png", ".tif") or (
                pixels.dtype == np.uint8 and pixels.shape[2:] != (4,)
            ):
                found.append(cv2.imencode(suffix, pixels)[1].tobytes())
    return found


FILES = files()


def tried(read, *given, **how):
    """What a reader returns, or the sentence of its refusal; anything else it raises is a fault."""
    try:
        return read(*given, **how)
    except DataError as error:
        return str(error)


@slow
@given(
    st.sampled_from(FILES),
    st.lists(st.tuples(st.integers(0, 2**20), st.integers(0, 255)), max_size=6),
    st.floats(0.2, 1),
    st.sampled_from(RULES),
)
@example(b"II*\0" + b"\xff" * 40, [], 1.0, UNDECLARED)
@example(b"RIFF\0\0\0\0WEBP" + bytes(40), [], 1.0, UNDECLARED)
def test_changed_bytes(tmp_path, data, changes, share, rules):
    changed = bytearray(data[: max(1, int(len(data) * share))])
    for at, value in changes:
        changed[at % len(changed)] = value
    path = tmp_path / "a.png"
    path.write_bytes(changed)
    for read in (read_image, read_pixels):
        image = tried(read, path, rules)
        if isinstance(image, str):
            assert "a.png" in image
        else:
            assert image.shape[2:] == (3,)
            assert image.dtype == np.uint8 or (0 <= image.min() <= image.max() <= 1)
    truth = tried(read_truth, path, rules=rules, image=path)
    if isinstance(truth, str):
        assert "a.png" in truth
    else:
        assert set(np.unique(truth.mask)) <= {0, 255}
        assert truth.ignored is None or not truth.mask[truth.ignored].any()


def expected_object(values: np.ndarray) -> np.ndarray:
    """What an undeclared mask means where it means anything: 0 and 1, else above 128."""
    return values == 1 if values.max() == 1 else values > 128


@slow
@given(
    st.lists(st.integers(0, 255), min_size=2, max_size=6, unique=True),
    st.integers(1, 12),
    st.integers(0, 2**32 - 1),
)
def test_masks_of_a_few_values_are_read_as_they_look_or_refused(tmp_path, levels, block, seed):
    """Blocks of any levels: what is read has only levels that are near to black or white."""
    random = np.random.default_rng(seed)
    small = random.choice(np.array(levels, np.uint8), (6, 6))
    mask = np.kron(small, np.ones((block, block), np.uint8))
    path = Path(tmp_path) / "a.png"
    path.write_bytes(cv2.imencode(".png", mask)[1].tobytes())
    read = tried(read_truth, path)
    if isinstance(read, str):
        assert "a.png" in read
        assert "declare `object: " in read
    else:
        assert np.array_equal(read.mask > 0, expected_object(mask))
        if block >= 3:  # flat areas: no level between is taken for a soft edge
            assert not ((mask > 16) & (mask < 239)).any()
    # Declared, any mask is read, and as declared.
    value = int(mask[0, 0])
    truth = read_truth(path, rules=pixel_rules({"object": value, "ignore": (value + 1) % 256}))
    assert np.array_equal(truth.mask > 0, mask == value)
    assert np.array_equal(
        truth.ignored if truth.ignored is not None else np.zeros(mask.shape, bool),
        mask == (value + 1) % 256,
    )


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_levels_at_the_limits_of_the_rule(tmp_path, kind):
    scale = 1 if kind is np.uint8 else 257
    for level, refused in ((16, False), (17, True), (238, True), (239, False)):
        mask = np.where(square_mask() > 0, 255 * scale, level * scale).astype(kind)
        mask[0] = 0
        path = tmp_path / "a.png"
        path.write_bytes(cv2.imencode(".png", mask)[1].tobytes())
        if refused:
            with pytest.raises(DataError, match="flat areas"):
                read_truth(path)
        else:
            assert read_truth(path).flags == ("grey levels",)
