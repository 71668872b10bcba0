"""Scale and colour of training images: by hand, with the mask, from the item's own draws."""

import numpy as np
import pytest
import torch
from tiny_runs import draw_pairs

from lpmoe_bench.config.settings import build_config
from lpmoe_bench.data.loader import PairDataset, distort, rescale
from lpmoe_bench.data.pairs import Pair
from lpmoe_bench.errors import UsageError

MIDDLE = 0.5


def square() -> tuple[torch.Tensor, torch.Tensor]:
    """A white square on black in the upper left quarter, 8 x 8, and its mask."""
    mask = torch.zeros(1, 8, 8)
    mask[:, :4, :4] = 1
    return mask.expand(3, -1, -1).clone(), mask


def test_a_larger_image_is_cropped():
    image, mask = rescale(*square(), (2.0, 2.0), iter([0.0, 0.0, 0.0]))
    assert (mask == 1).all()  # twice as large, the square fills the upper left crop
    torch.testing.assert_close(image[:, :6, :6], torch.ones(3, 6, 6))
    _, mask = rescale(*square(), (2.0, 2.0), iter([0.0, 0.999, 0.999]))
    assert not mask.any()


def test_a_smaller_image_lies_on_its_mean_colour():
    image, mask = rescale(*square(), (0.5, 0.5), iter([0.0, 0.0, 0.999]))
    assert mask.sum() == 4
    assert mask[0, :2, 4:6].all()  # at the top right
    assert torch.equal(image[:, 4:], torch.full((3, 4, 8), 0.25))


def test_the_factor_is_drawn_between_the_limits():
    _, mask = rescale(*square(), (0.5, 1.5), iter([MIDDLE, 0.0, 0.0]))
    assert torch.equal(mask, square()[1])


def distorted(image: torch.Tensor, *pairs: tuple[float, float], first: float) -> torch.Tensor:
    return distort(image, iter([draw for pair in pairs for draw in pair] + [first]))


OFF = (0.9, MIDDLE)


def test_brightness_and_contrast_by_hand():
    image = torch.full((3, 2, 2), 0.4)
    brighter = distorted(image, (0.0, 1.0), OFF, OFF, OFF, first=0.0)
    torch.testing.assert_close(brighter, image + 32 / 255)
    stronger = distorted(image, OFF, (0.0, 1.0), OFF, OFF, first=0.0)
    torch.testing.assert_close(stronger, image * 1.5)
    assert torch.equal(distorted(image, OFF, OFF, OFF, OFF, first=0.9), image)


def test_colours_by_hand():
    image = torch.tensor([0.8, 0.4, 0.4])[:, None, None]  # value 0.8, saturation 0.5, hue 0
    grey = distorted(image, OFF, OFF, (0.0, 0.0), OFF, first=0.0)  # saturation 0.25
    torch.testing.assert_close(grey.flatten(), torch.tensor([0.8, 0.6, 0.6]))
    turned = distorted(image, OFF, OFF, OFF, (0.0, 1.0), first=0.0)  # by 36 degrees of 60 to yellow
    torch.testing.assert_close(turned.flatten(), torch.tensor([0.8, 0.64, 0.4]))


def test_contrast_before_or_after_the_colours():
    image = torch.tensor([0.8, 0.4, 0.4])[:, None, None]
    both = (OFF, (0.0, 1.0), (0.0, 0.0), OFF)
    before = distorted(image, *both, first=0.0)  # 1.2 is cut to 1: (1, 0.6, 0.6), saturation 0.2
    torch.testing.assert_close(before.flatten(), torch.tensor([1.0, 0.8, 0.8]))
    after = distorted(image, *both, first=0.9)  # (0.8, 0.6, 0.6) times 1.5
    torch.testing.assert_close(after.flatten(), torch.tensor([1.0, 0.9, 0.9]))


@pytest.fixture
def pairs(tmp_path):
    draw_pairs(tmp_path, 2, seed=0)
    return [
        Pair(f"{k:03}", tmp_path / "images" / f"{k:03}.png", tmp_path / "masks" / f"{k:03}.png")
        for k in range(2)
    ]


def test_items_depend_on_seed_epoch_and_index_alone(pairs):
    varied = PairDataset(pairs, 32, 0, True, (0.5, 2.0), True)
    image, mask = varied[3, 1]
    torch.manual_seed(7)
    np.random.seed(7)
    again, truth = PairDataset(pairs, 32, 0, True, (0.5, 2.0), True)[3, 1]
    assert torch.equal(image, again)
    assert torch.equal(mask, truth)
    assert image.shape == (3, 32, 32)
    assert image.dtype == torch.float32
    assert 0 <= image.min() <= image.max() <= 1
    assert set(mask.unique().tolist()) <= {0.0, 1.0}
    others = [varied[4, 1], varied[3, 0], PairDataset(pairs, 32, 1, True, (0.5, 2.0), True)[3, 1]]
    assert not any(torch.equal(image, other) for other, _ in others)


def test_without_them_items_are_as_before(pairs):
    for key in ((0, 0), (1, 1)):
        plain, same = PairDataset(pairs, 32, 0, True)[key], PairDataset(pairs, 32, 0, True)[key]
        identity = PairDataset(pairs, 32, 0, True, (1.0, 1.0))[key]
        assert torch.equal(plain[0], same[0])
        torch.testing.assert_close(plain[0], identity[0])  # mirrored in the same cases
        assert torch.equal(plain[1], identity[1])


@pytest.mark.parametrize("scale", [[2.0, 0.5], [0.0, 1.0]])
def test_wrong_factors_are_one_sentence(scale):
    with pytest.raises(UsageError, match=r"train.scale is .*two positive factors") as caught:
        build_config({"train": {"scale": scale}})
    assert "\n" not in str(caught.value)
