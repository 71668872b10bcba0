"""Windows and their blend: sums of one, no seams, the whole image's own map where one is enough."""

import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from lpmoe_bench.config.kinds import get_kind
from lpmoe_bench.data.loader import image_tensor
from lpmoe_bench.errors import UsageError
from lpmoe_bench.inference.predictor import Predictor, ProbabilityModel
from lpmoe_bench.inference.windows import response_map, window_of, windows


class Model(Predictor):
    """A predictor whose responses are a function of the fitted image; notes its batches."""

    def __init__(self, function, size=32, batch=3, fit="squash"):
        super().__init__(None, None, (size, size), batch, fit=fit)  # type: ignore[arg-type]
        self.function, self.batches = function, []

    def responses(self, images: torch.Tensor) -> torch.Tensor:
        self.batches.append(len(images))
        return self.function(images)


def grey(images: torch.Tensor) -> torch.Tensor:
    return images.mean(dim=1, keepdim=True)


@pytest.mark.parametrize("length", [1, 2, 63, 64, 65, 66, 100, 112, 113, 500, 5000])
def test_weights_sum_to_one_and_windows_reach_both_ends(length):
    total, covered = np.zeros(length), np.zeros(length, int)
    found = windows(length, 64)
    for start, weights in found:
        assert len(weights) == min(length, 64)
        assert (weights > 0).all()
        total[start : start + len(weights)] += weights
        covered[start : start + len(weights)] += 1
    assert total == pytest.approx(1, abs=1e-6)
    assert covered.min() >= 1
    starts = [window.start for window in found]
    assert starts == sorted(set(starts))
    assert all(b - a <= 48 for a, b in pairwise(starts))  # a quarter shared
    assert len(found) == (1 if length <= 64 else -(-(length - 64) // 48) + 1)


def test_weights_change_smoothly_from_pixel_to_pixel():
    for start, weights in windows(1000, 64):
        padded = np.concatenate([[0.0] if start else [], weights])
        assert np.abs(np.diff(padded)).max() < 0.12


def test_the_side_that_is_seen_at_once():
    assert window_of("never", (256, 320)) is None
    assert window_of("auto", (256, 320)) == (512, 640)
    assert window_of("always", (256, 320)) == (256, 320)
    assert window_of("768", (256, 320)) == (768, 768)
    for wrong in ("sometimes", "31", "-64", "1e3", "", "٣٢٠"):
        with pytest.raises(UsageError, match="auto, never, always or a number"):
            window_of(wrong, (256, 256))


@pytest.mark.parametrize("shape", [(1, 1), (64, 64), (65, 64), (40, 500), (333, 129), (1, 300)])
def test_a_constant_has_no_seams(shape):
    image = np.zeros((*shape, 3), np.uint8)
    model = Model(lambda images: torch.full((len(images), 1, 32, 32), 0.7))
    assert response_map(model, image, (64, 64)) == pytest.approx(0.7, abs=1e-6)


def test_a_smooth_predictor_is_the_same_in_windows_as_whole():
    rows, columns = np.mgrid[0:333, 0:401]
    image = np.stack([rows * 0.5, columns * 0.5, rows * 0 + 90], axis=2).astype(np.uint8)
    whole, tiled = (response_map(Model(grey), image, w)[0] for w in (None, (64, 64)))
    # A squashed image has no pixels at its rims: there a half of a cell is held, not drawn on.
    inside = (slice(8, -8), slice(8, -8))
    assert np.abs(whole[inside] - tiled[inside]).max() < 2 / 255
    assert np.abs(np.diff(tiled, axis=1)).max() < 3 / 255  # nowhere a step
    assert np.abs(np.diff(tiled, axis=0)).max() < 3 / 255


def test_an_image_within_the_side_is_seen_as_scores_see_it_bit_for_bit():
    image = np.random.default_rng(0).integers(0, 256, (57, 64, 3)).astype(np.uint8)
    squashed = grey(image_tensor(image, (32, 32))[None])
    expected = F.interpolate(squashed, (57, 64), mode="bilinear", align_corners=False)[0].numpy()
    for window in (None, (64, 64), (100, 80)):
        assert np.array_equal(response_map(Model(grey), image, window), expected)


def test_windows_differ_from_the_whole_where_objects_are_small():
    image = np.zeros((320, 320, 3), np.uint8)
    image[100:104, 100:104] = 255
    whole, tiled = (response_map(Model(grey), image, w)[0] for w in (None, (32, 32)))
    assert tiled[102, 102] > 0.9  # at native size the model sees the square as it is
    assert whole[102, 102] < 0.3


class Grey(torch.nn.Module):
    """A segmenter of two classes, by how bright a pixel and its neighbours are."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        light = F.avg_pool2d(grey(images), 3, 1, 1)
        return torch.cat([light, light**2], dim=1)


@pytest.mark.parametrize("window", [None, (32, 32), (48, 64)])
def test_the_module_sees_what_scores_see_and_passes_gradients(window):
    image = np.random.default_rng(0).integers(0, 256, (57, 90, 3)).astype(np.uint8)
    given = torch.from_numpy(image.transpose(2, 0, 1).copy())[None].float() / 255
    given.requires_grad_()
    outputs = get_kind("semantic").outputs
    found = ProbabilityModel(Grey(), (32, 32), outputs, "squash", window)(given)
    expected = response_map(Model(Grey()), image, window)
    # An 8-bit image is rounded where it is resized.
    assert found[0].detach().numpy() == pytest.approx(expected, abs=0.004)
    if window == (32, 32):
        assert found[0].detach().numpy() == pytest.approx(expected, abs=1e-6)
    found.sum().backward()
    assert given.grad is not None
    assert (given.grad != 0).all()


def test_batches_are_bounded_and_every_class_is_blended():
    image = np.full((200, 300, 3), 51, np.uint8)
    model = Model(lambda images: torch.cat([grey(images), 1 - grey(images)], dim=1))
    seen = []
    both = response_map(model, image, (64, 64), lambda done, total: seen.append((done, total)))
    assert both.shape == (2, 200, 300)
    assert both[0] == pytest.approx(0.2, abs=1e-5)
    assert both[1] == pytest.approx(0.8, abs=1e-5)
    assert max(model.batches) == 3
    assert sum(model.batches) == 4 * 6
    assert seen[-1] == (24, 24)
    assert [done for done, _ in seen] == list(range(3, 25, 3))


def test_memory_is_four_bytes_a_pixel_and_a_batch():
    image = np.zeros((1500, 2000, 3), np.uint8)
    model = Model(grey)
    tracemalloc.start()
    try:
        found = response_map(model, image, (256, 256))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < found.nbytes + 3e6  # numpy's part: a few windows of 256 x 256
