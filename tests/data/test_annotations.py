"""Outlines and runs as COCO's own tools count them."""

import json

import numpy as np
import pytest

from lpmoe_bench.data import annotations as own

# Its compiled part gives numpy arrays in a way that numpy 2 warns of.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def test_an_outline_on_whole_pixels_covers_them():
    mask = own.draw(
        own.Shape("x", (np.array([[6, 4], [30, 4], [30, 24], [6, 24]], float),)), 48, 64
    )
    rows, columns = np.nonzero(mask)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (4, 23, 6, 29)
    assert mask.sum() == 20 * 24


@pytest.mark.parametrize("kind", ["any", "whole", "tenths", "twice"])
def test_outlines_as_pycocotools_fills_them(kind):
    mask = pytest.importorskip("pycocotools.mask")
    random = np.random.default_rng(0)
    for _ in range(150):
        height, width = map(int, random.integers(1, 60, 2))
        polygon = random.uniform(-10, 70, (int(random.integers(3, 12)), 2))
        polygon = {"any": polygon, "twice": polygon, "tenths": polygon.round(1)}.get(
            kind, polygon.round()
        )
        if kind == "twice":
            polygon[1] = polygon[0]
        runs = mask.frPyObjects([polygon.ravel().tolist()], height, width)
        assert np.array_equal(
            own.draw(own.Shape("x", (polygon,)), height, width), mask.decode(runs)[..., 0]
        )


def test_runs_of_every_form_are_the_same_mask(tmp_path):
    coco = pytest.importorskip("pycocotools.mask")
    truth = np.random.default_rng(1).random((37, 23)) > 0.6
    packed = coco.encode(np.asfortranarray(truth.astype(np.uint8)))["counts"].decode()
    plain, value = [0], False
    for pixel in truth.T.ravel():
        if bool(pixel) != value:
            plain.append(0)
            value = not value
        plain[-1] += 1
    for counts in (packed, plain):
        about = {"id": 1, "file_name": "a.png", "height": 37, "width": 23}
        one = {"image_id": 1, "category_id": 3, "iscrowd": 1, "bbox": [1, 2, 3, 4],
               "segmentation": {"size": [37, 23], "counts": counts}}  # fmt: skip
        kinds = [{"id": 90, "name": "late"}, {"id": 3, "name": "early"}]
        path = tmp_path / "a.json"
        path.write_text(json.dumps({"images": [about], "annotations": [one], "categories": kinds}))
        read = own.read_coco(path)
        (shape,) = read.images["a.png"].shapes
        assert (shape.label, shape.crowd, shape.box) == ("early", True, (1, 2, 3, 4))
        assert np.array_equal(read.images["a.png"].mask(), truth)
        assert read.index == {"early": 0, "late": 1}  # ids with gaps become numbers without
