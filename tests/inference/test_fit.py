"""How an image becomes the model's size and its response the image's: stretched, or letterboxed."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lpmoe_bench.config.settings import build_config, fingerprint, sides_text
from lpmoe_bench.data.loader import fitted, image_tensor
from lpmoe_bench.data.pixels import Truth
from lpmoe_bench.data.readers import LabelReader, MaskReader
from lpmoe_bench.errors import UsageError
from lpmoe_bench.inference.predictor import Predictor

sides = st.integers(1, 6).map(lambda n: 32 * n)


def test_a_letterboxed_image_keeps_its_proportions_by_hand():
    assert fitted((100, 200, 3), (64, 64), "letterbox") == (32, 64)
    assert fitted((200, 100), (64, 96), "letterbox") == (64, 32)
    assert fitted((1, 1000), (64, 64), "letterbox") == (1, 64)
    assert fitted((100, 200), (64, 96), "squash") == (64, 96)


@given(st.tuples(st.integers(1, 900), st.integers(1, 900)), st.tuples(sides, sides))
def test_a_letterbox_touches_one_side_and_never_passes_another(shape, target):
    high, wide = fitted(shape, target, "letterbox")
    assert 1 <= high <= target[0]
    assert 1 <= wide <= target[1]
    assert high == target[0] or wide == target[1]


def test_what_is_padded_has_the_mean_colour_and_counts_for_nothing():
    image = np.zeros((100, 200, 3), np.uint8)
    image[:, 100:] = 200
    tensor = image_tensor(image, (64, 64), fit="letterbox")
    assert tensor.shape == (3, 64, 64)
    assert torch.equal(tensor[:, :32], image_tensor(image, (32, 64)))
    assert torch.allclose(tensor[:, 32:], torch.tensor(100 / 255), atol=0.01)
    reader = MaskReader()
    mask = reader.padded(reader.target(Truth(image[..., 0]), (32, 64)), (64, 64))
    assert mask.shape == (1, 64, 64)
    assert (mask[:, :32, 40:] == 1).all()
    assert (mask[:, 32:] == -1).all()  # ignored
    labels = LabelReader().padded(torch.ones(32, 64, dtype=torch.int64), (64, 64))
    assert (labels[32:] == 255).all()  # void


@pytest.mark.parametrize("shape", [(90, 200), (200, 90), (64, 64)])
def test_a_response_comes_back_to_where_it_was_seen(shape):
    image = np.zeros((*shape, 3), np.uint8)
    image[: shape[0] // 2, : shape[1] // 2] = 255
    for fit in ("squash", "letterbox"):
        predictor = Predictor(None, None, (64, 64), fit=fit)  # type: ignore[arg-type]
        response = predictor.at_size(predictor.tensor(image).mean(0, keepdim=True), shape)
        assert response.shape == (1, *shape)
        inside = np.abs(response[0] - image[..., 0] / 255)
        far = np.ones(shape, bool)  # from the edges of the object, where resizing blurs
        far[shape[0] // 2 - 8 : shape[0] // 2 + 8] = False
        far[:, shape[1] // 2 - 8 : shape[1] // 2 + 8] = False
        assert inside[far].max() < 0.01


def test_labels_are_never_mixed_by_resizing():
    labels = np.random.default_rng(0).choice([0, 3, 255], (57, 91)).astype(np.uint8)
    reader = LabelReader()

    class Read:
        pass

    read = Read()
    read.labels = labels
    small = reader.target(read, (32, 64))
    assert small.dtype == torch.int64
    assert set(small.unique().tolist()) <= {0, 3, 255}
    read.labels = np.ascontiguousarray(labels[:, ::-1])
    assert torch.equal(reader.mirrored(reader.target(read, (32, 64))), small)
    larger = reader.view(small, (48, 96), (slice(8, 40), slice(0, 64)), (slice(None),) * 2)
    assert set(larger.unique().tolist()) <= {0, 3, 255}


def test_a_size_is_a_side_or_height_and_width():
    assert build_config({"size": "256x320"}).sides == (256, 320)
    assert build_config({"size": [256, 320]}).size == (256, 320)
    assert build_config({"size": [256, 256]}).size == 256  # equal runs are equal
    assert build_config({"size": "64"}).sides == (64, 64)
    assert (sides_text(256), sides_text((256, 320))) == ("256", "256 x 320")
    for wrong in ("256x", "256x320x3", "abc", 3.5, True, None, [], "9" * 400):
        with pytest.raises(UsageError, match="give a side in pixels, or height x width"):
            build_config({"size": wrong})
    with pytest.raises(UsageError, match="size is 33; it must be a multiple of 32"):
        build_config({"size": "32x33"})


def test_a_square_size_keeps_its_fingerprint_and_another_has_its_own():
    plain = fingerprint(build_config({}), {})
    assert fingerprint(build_config({"size": "256"}), {}) == plain
    others = [{"size": "256x320"}, {"size": "320x256"}, {"fit": "letterbox"}]
    others.append({"evaluate": "windows"})
    found = {fingerprint(build_config(one), {}) for one in others}
    assert len(found | {plain}) == 5
