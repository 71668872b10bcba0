"""Pairs to tensors: who is trained on, in which order, turned and coloured how: keys alone say."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from drawn_files import make_pairs, noise_image, square_mask

from lpmoe_bench.config.settings import build_config
from lpmoe_bench.data import loader as loading
from lpmoe_bench.data.pairs import Pair
from lpmoe_bench.data.pixels import Truth
from lpmoe_bench.errors import DataError, UsageError

# --- who is trained on


def fake_pairs(count):
    return [Pair(f"n{i:03d}", Path(f"i{i}"), Path(f"m{i}")) for i in range(count)]


def test_validation_depends_on_names_and_seed_not_on_order():
    pairs = fake_pairs(50)
    train, val = loading.carve_validation(pairs, 0.1, 0)
    assert len(val) == 5
    assert sorted(train + val, key=lambda p: p.name) == pairs
    assert loading.carve_validation(pairs[::-1], 0.1, 0) == (train, val)
    assert loading.carve_validation(pairs, 0.1, 1)[1] != val


@pytest.mark.parametrize(("count", "fraction", "sizes"), [(2, 0.01, (1, 1)), (3, 0.99, (1, 2))])
def test_neither_part_is_empty(count, fraction, sizes):
    train, val = loading.carve_validation(fake_pairs(count), fraction, 0)
    assert (len(train), len(val)) == sizes


def test_bad_validation_and_subset():
    with pytest.raises(DataError, match="1 training pairs"):
        loading.carve_validation(fake_pairs(1), 0.1, 0)
    with pytest.raises(UsageError, match=r"1\.0"):
        loading.carve_validation(fake_pairs(9), 1.0, 0)
    with pytest.raises(UsageError, match="limit_train is 0"):
        loading.subset(fake_pairs(9), 0, 0)


def test_subset_is_seeded_by_name():
    pairs = fake_pairs(50)
    few = loading.subset(pairs, 10, 0)
    assert len(set(few)) == 10
    assert few == loading.subset(pairs[::-1], 10, 0) == sorted(few, key=lambda p: p.name)
    assert few != loading.subset(pairs, 10, 1)
    assert loading.subset(pairs, None, 0) == loading.subset(pairs, 99, 0) == pairs
    # Another order than that of validation: a subset is not made of what validation would take.
    assert set(loading.subset(pairs, 5, 0)) != set(loading.carve_validation(pairs, 0.1, 0)[1])


# --- batches


@pytest.mark.parametrize(
    ("count", "batch", "sizes"),
    [(10, 4, [4, 4, 2]), (9, 4, [4, 4]), (8, 4, [4, 4]), (3, 4, [3]), (1, 4, [1]), (0, 4, [])],
)
def test_sizes_of_batches(count, batch, sizes):
    batches = loading.epoch_batches(count, batch, 0, 0)
    assert [len(b) for b in batches] == sizes
    keys = [key for b in batches for key in b]
    assert len(set(keys)) == len(keys) == sum(sizes)


def test_order_comes_from_seed_and_epoch():
    first = loading.epoch_batches(40, 8, 0, 0)
    np.random.seed(1)
    torch.manual_seed(1)
    assert loading.epoch_batches(40, 8, 0, 0) == first

    def indices(b):
        return [index for chunk in b for _, index in chunk]

    others = [loading.epoch_batches(40, 8, 1, 0), loading.epoch_batches(40, 8, 0, 1)]
    orders = {tuple(indices(b)) for b in (first, *others)}
    assert len(orders) == 3
    assert tuple(range(40)) not in orders
    assert {epoch for chunk in others[1] for epoch, _ in chunk} == {1}


@pytest.mark.parametrize("count", [40, 41, 42, 43, 3])
def test_processes_share_the_global_batch_evenly(count):
    alone = loading.epoch_batches(count, 8, 0, 0)
    ranks = [loading.epoch_batches(count, 8, 0, 0, rank, 2) for rank in range(2)]
    assert [len(b) for b in ranks[0]] == [len(b) for b in ranks[1]]
    together = [set(a) | set(b) for a, b in zip(*ranks, strict=True)]
    for whole, parts in zip(alone, together, strict=False):
        assert parts <= {*whole}
        assert len(parts) == len(whole) // 2 * 2
    assert len(together) == len([b for b in alone if len(b) >= 2])


def test_batch_that_cannot_be_divided():
    with pytest.raises(UsageError, match=r"batch is 9.*2 processes"):
        loading.epoch_batches(40, 9, 0, 0, 0, 2)


# --- tensors


def test_squashing_keeps_constants_and_averages_when_it_shrinks():
    for level in (51, 255):
        flat = loading.image_tensor(np.full((50, 70, 3), level, np.uint8), (32, 32))
        assert torch.allclose(flat, torch.full((3, 32, 32), level / 255))
        assert float(flat.max()) <= 1
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::4] = 255
    inner = loading.image_tensor(stripes, (16, 16))[:, :, 1:-1]
    assert float((inner - 0.25).abs().max()) < 0.1  # a quarter is light: no aliasing


def test_mirroring_before_and_after_squashing_agree():
    mask, image = square_mask((41, 53)), noise_image((41, 53, 3))
    assert torch.equal(
        loading.MASKS.target(Truth(mask[:, ::-1].copy()), (32, 32)),
        loading.MASKS.target(Truth(mask), (32, 32)).flip(-1),
    )
    for version, close in ((1, 1e-5), (2, 1.01 / 255)):
        flipped = loading.image_tensor(image[:, ::-1].copy(), (32, 32), version)
        plain = loading.image_tensor(image, (32, 32), version)
        assert torch.allclose(flipped, plain.flip(-1), atol=close)


def test_flip_depends_on_seed_epoch_and_index_only(tmp_path):
    pairs = make_pairs(tmp_path, 1) * 40
    plain = loading.PairDataset(pairs, (32, 32), 0, False)[0, 0]
    keys = [(epoch, index) for epoch in range(5) for index in range(40)]

    def flips(seed):
        data, result = loading.PairDataset(pairs, (32, 32), seed, True), []
        for key in keys:
            image, mask = data[key]
            result.append(not torch.equal(image, plain[0]))
            turned = [t.flip(-1) if result[-1] else t for t in plain]
            assert torch.equal(image, turned[0])
            assert torch.equal(mask, turned[1])
        return result

    first = flips(0)
    torch.manual_seed(9)
    assert flips(0) == first
    assert flips(1) != first
    assert 0.35 < np.mean(first) < 0.65
    assert first[:40] != first[40:80]


def test_items_do_not_depend_on_workers_and_a_resume_continues(tmp_path):
    data = loading.PairDataset(make_pairs(tmp_path, 7), (32, 32), 3, True)
    batches = loading.epoch_batches(7, 2, 3, 1)
    before = torch.get_rng_state()
    alone = list(loading.loader(data, batches, 0))
    assert torch.equal(torch.get_rng_state(), before)  # the global generator is left alone
    assert len(alone) == 3
    assert alone[0][0].shape == (2, 3, 32, 32)
    for resumed, start in (
        (list(loading.loader(data, batches, 2)), 0),
        (list(loading.loader(data, batches[1:])), 1),
    ):
        assert len(resumed) == 3 - start
        for (image, mask), (image2, mask2) in zip(alone[start:], resumed, strict=True):
            assert torch.equal(image, image2)
            assert torch.equal(mask, mask2)


def test_bytes_become_the_very_floats(tmp_path):
    every = torch.arange(256, dtype=torch.uint8)
    expected = np.arange(256, dtype=np.float32) / np.float32(255)
    assert np.array_equal(loading.as_floats(every).numpy(), expected)
    pairs = make_pairs(tmp_path, 4)
    plain, raw = (loading.PairDataset(pairs, (32, 32), 3, True, as_bytes=b) for b in (False, True))
    batches = loading.epoch_batches(4, 4, 3, 0)
    ((floats, _),), ((images, _),) = (list(loading.loader(d, batches, 0)) for d in (plain, raw))
    assert images.dtype == torch.uint8
    assert torch.equal(loading.as_floats(images), floats)
    # A file of 16 bits among them, whose values are no bytes: all of its batch are floats.
    deep = cv2.imread(str(pairs[1].image)).astype(np.uint16) * 256 + 3
    cv2.imwrite(str(pairs[1].image), deep)
    ((floats, _),), ((images, _),) = (list(loading.loader(d, batches, 0)) for d in (plain, raw))
    assert images.dtype == torch.float32
    assert torch.equal(images, floats)


def test_a_broken_file_names_itself_in_training_and_evaluation(tmp_path):
    pairs = make_pairs(tmp_path, 3)
    pairs[1].image.write_bytes(b"")
    with pytest.raises(DataError, match=r"p1\.png is empty"):
        loading.PairDataset(pairs, (32, 32), 0, True)[0, 1]
    with pytest.raises(DataError, match=r"p1\.png is empty"):
        [loading.eval_item(pair) for pair in pairs]


def test_items_to_score_keep_masks_at_their_own_size(tmp_path):
    items = [loading.eval_item(pair) for pair in make_pairs(tmp_path, 2)]
    assert [name for name, _, _ in items] == ["p0", "p1"]
    assert items[0][1].shape == (*square_mask().shape, 3)
    assert np.array_equal(items[0][2].mask, square_mask())


@pytest.mark.parametrize(
    ("cores", "device", "world", "workers"),
    [(1, "cpu", 1, 0), (2, "cpu", 1, 0), (4, "cpu", 1, 2), (64, "cpu", 1, 4),
     (1, "cuda", 1, 1), (2, "cuda", 1, 2), (8, "cuda", 4, 2), (64, "cuda", 2, 8)],
)  # fmt: skip
def test_workers_leave_the_cores_to_training_on_a_cpu_and_use_them_beside_a_gpu(
    monkeypatch, cores, device, world, workers
):
    monkeypatch.setattr("lpmoe_bench.data.loader.usable_cores", lambda: cores)
    assert loading.default_workers(device, world) == workers


# --- scale and colour

MIDDLE = 0.5


def square() -> tuple[torch.Tensor, torch.Tensor]:
    """A white square on black in the upper left quarter, 8 x 8, and its mask."""
    mask = torch.zeros(1, 8, 8)
    mask[:, :4, :4] = 1
    return mask.expand(3, -1, -1).clone(), mask


def test_a_larger_image_is_cropped():
    image, mask = loading.rescale(*square(), (2.0, 2.0), iter([0.0, 0.0, 0.0]), loading.MASKS)
    assert (mask == 1).all()  # twice as large, the square fills the upper left crop
    torch.testing.assert_close(image[:, :6, :6], torch.ones(3, 6, 6))
    _, mask = loading.rescale(*square(), (2.0, 2.0), iter([0.0, 0.999, 0.999]), loading.MASKS)
    assert not mask.any()


def test_a_smaller_image_lies_on_its_mean_colour():
    image, mask = loading.rescale(*square(), (0.5, 0.5), iter([0.0, 0.0, 0.999]), loading.MASKS)
    assert mask.sum() == 4
    assert mask[0, :2, 4:6].all()  # at the top right
    assert torch.equal(image[:, 4:], torch.full((3, 4, 8), 0.25))


def test_the_factor_is_drawn_between_the_limits():
    _, mask = loading.rescale(*square(), (0.5, 1.5), iter([MIDDLE, 0.0, 0.0]), loading.MASKS)
    assert torch.equal(mask, square()[1])


def distorted(image: torch.Tensor, *pairs: tuple[float, float], first: float) -> torch.Tensor:
    return loading.distort(image, iter([draw for pair in pairs for draw in pair] + [first]))


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


def test_varied_items_depend_on_seed_epoch_and_index_alone(tmp_path):
    pairs = make_pairs(tmp_path, 2)
    varied = loading.PairDataset(pairs, (32, 32), 0, True, (0.5, 2.0), True)
    image, mask = varied[3, 1]
    torch.manual_seed(7)
    np.random.seed(7)
    again, truth = loading.PairDataset(pairs, (32, 32), 0, True, (0.5, 2.0), True)[3, 1]
    assert torch.equal(image, again)
    assert torch.equal(mask, truth)
    assert image.shape == (3, 32, 32)
    assert image.dtype == torch.float32
    assert 0 <= image.min() <= image.max() <= 1
    assert set(mask.unique().tolist()) <= {0.0, 1.0}
    others = [
        varied[4, 1],
        varied[3, 0],
        loading.PairDataset(pairs, (32, 32), 1, True, (0.5, 2.0), True)[3, 1],
    ]
    assert not any(torch.equal(image, other) for other, _ in others)


def test_without_them_items_are_as_before(tmp_path):
    pairs = make_pairs(tmp_path, 2)
    for key in ((0, 0), (1, 1)):
        plain, same = (
            loading.PairDataset(pairs, (32, 32), 0, True)[key],
            loading.PairDataset(pairs, (32, 32), 0, True)[key],
        )
        identity = loading.PairDataset(pairs, (32, 32), 0, True, (1.0, 1.0))[key]
        assert torch.equal(plain[0], same[0])
        torch.testing.assert_close(plain[0], identity[0])  # mirrored in the same cases
        assert torch.equal(plain[1], identity[1])


@pytest.mark.parametrize("scale", [[2.0, 0.5], [0.0, 1.0]])
def test_wrong_factors_are_one_sentence(scale):
    with pytest.raises(UsageError, match=r"train.scale is .*two positive factors") as caught:
        build_config({"train": {"scale": scale}})
    assert "\n" not in str(caught.value)
