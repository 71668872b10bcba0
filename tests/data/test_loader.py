"""Pairs to tensors: who is trained on, in which order and how turned comes from keys alone."""

from pathlib import Path

import numpy as np
import pytest
import torch
from drawn_files import make_pairs, noise_image, square_mask

from lpmoe_bench.data.loader import (
    PairDataset,
    carve_validation,
    default_workers,
    epoch_batches,
    eval_items,
    image_tensor,
    loader,
    mask_tensor,
    subset,
)
from lpmoe_bench.data.pairs import Pair
from lpmoe_bench.errors import DataError, UsageError

# --- who is trained on


def fake_pairs(count):
    return [Pair(f"n{i:03d}", Path(f"i{i}"), Path(f"m{i}")) for i in range(count)]


def test_validation_depends_on_names_and_seed_not_on_order():
    pairs = fake_pairs(50)
    train, val = carve_validation(pairs, 0.1, 0)
    assert len(val) == 5
    assert sorted(train + val, key=lambda p: p.name) == pairs
    assert carve_validation(pairs[::-1], 0.1, 0) == (train, val)
    assert carve_validation(pairs, 0.1, 1)[1] != val


@pytest.mark.parametrize(("count", "fraction", "sizes"), [(2, 0.01, (1, 1)), (3, 0.99, (1, 2))])
def test_neither_part_is_empty(count, fraction, sizes):
    train, val = carve_validation(fake_pairs(count), fraction, 0)
    assert (len(train), len(val)) == sizes


def test_bad_validation_and_subset():
    with pytest.raises(DataError, match="1 training pairs"):
        carve_validation(fake_pairs(1), 0.1, 0)
    with pytest.raises(UsageError, match=r"1\.0"):
        carve_validation(fake_pairs(9), 1.0, 0)
    with pytest.raises(UsageError, match="limit_train is 0"):
        subset(fake_pairs(9), 0, 0)


def test_subset_is_seeded_by_name():
    pairs = fake_pairs(50)
    few = subset(pairs, 10, 0)
    assert len(set(few)) == 10
    assert few == subset(pairs[::-1], 10, 0) == sorted(few, key=lambda p: p.name)
    assert few != subset(pairs, 10, 1)
    assert subset(pairs, None, 0) == subset(pairs, 99, 0) == pairs
    # Another order than that of validation: a subset is not made of what validation would take.
    assert set(subset(pairs, 5, 0)) != set(carve_validation(pairs, 0.1, 0)[1])


# --- batches


@pytest.mark.parametrize(
    ("count", "batch", "sizes"),
    [(10, 4, [4, 4, 2]), (9, 4, [4, 4]), (8, 4, [4, 4]), (3, 4, [3]), (1, 4, [1]), (0, 4, [])],
)
def test_sizes_of_batches(count, batch, sizes):
    batches = epoch_batches(count, batch, 0, 0)
    assert [len(b) for b in batches] == sizes
    keys = [key for b in batches for key in b]
    assert len(set(keys)) == len(keys) == sum(sizes)


def test_order_comes_from_seed_and_epoch():
    first = epoch_batches(40, 8, 0, 0)
    np.random.seed(1)
    torch.manual_seed(1)
    assert epoch_batches(40, 8, 0, 0) == first

    def indices(b):
        return [index for chunk in b for _, index in chunk]

    others = [epoch_batches(40, 8, 1, 0), epoch_batches(40, 8, 0, 1)]
    orders = {tuple(indices(b)) for b in (first, *others)}
    assert len(orders) == 3
    assert tuple(range(40)) not in orders
    assert {epoch for chunk in others[1] for epoch, _ in chunk} == {1}


@pytest.mark.parametrize("count", [40, 41, 42, 43, 3])
def test_processes_share_the_global_batch_evenly(count):
    alone = epoch_batches(count, 8, 0, 0)
    ranks = [epoch_batches(count, 8, 0, 0, rank, 2) for rank in range(2)]
    assert [len(b) for b in ranks[0]] == [len(b) for b in ranks[1]]
    together = [set(a) | set(b) for a, b in zip(*ranks, strict=True)]
    for whole, parts in zip(alone, together, strict=False):
        assert parts <= {*whole}
        assert len(parts) == len(whole) // 2 * 2
    assert len(together) == len([b for b in alone if len(b) >= 2])


def test_batch_that_cannot_be_divided():
    with pytest.raises(UsageError, match=r"batch is 9.*2 processes"):
        epoch_batches(40, 9, 0, 0, 0, 2)


# --- tensors


def test_tensors_have_the_promised_shape_and_range(tmp_path):
    image, mask = PairDataset(make_pairs(tmp_path), 32, 0, True)[0, 3]
    assert (image.shape, mask.shape) == ((3, 32, 32), (1, 32, 32))
    assert image.dtype == mask.dtype == torch.float32
    assert 0 <= float(image.min()) < float(image.max()) <= 1
    assert set(mask.unique().tolist()) == {0.0, 1.0}


def test_squashing_keeps_constants_and_averages_when_it_shrinks():
    for level in (51, 255):
        flat = image_tensor(np.full((50, 70, 3), level, np.uint8), 32)
        assert torch.allclose(flat, torch.full((3, 32, 32), level / 255))
        assert float(flat.max()) <= 1
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::4] = 255
    inner = image_tensor(stripes, 16)[:, :, 1:-1]
    assert float((inner - 0.25).abs().max()) < 0.1  # a quarter is light: no aliasing


def test_mirroring_before_and_after_squashing_agree():
    mask, image = square_mask((41, 53)), noise_image((41, 53, 3))
    assert torch.equal(mask_tensor(mask[:, ::-1].copy(), 32), mask_tensor(mask, 32).flip(-1))
    flipped = image_tensor(image[:, ::-1].copy(), 32)
    assert torch.allclose(flipped, image_tensor(image, 32).flip(-1), atol=1e-5)


def test_flip_depends_on_seed_epoch_and_index_only(tmp_path):
    pairs = make_pairs(tmp_path, 1) * 40
    plain = PairDataset(pairs, 32, 0, False)[0, 0]
    keys = [(epoch, index) for epoch in range(5) for index in range(40)]

    def flips(seed):
        data, result = PairDataset(pairs, 32, seed, True), []
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
    data = PairDataset(make_pairs(tmp_path, 7), 32, 3, True)
    batches = epoch_batches(7, 2, 3, 1)
    before = torch.get_rng_state()
    alone = list(loader(data, batches, 0))
    assert torch.equal(torch.get_rng_state(), before)  # the global generator is left alone
    assert len(alone) == 3
    assert alone[0][0].shape == (2, 3, 32, 32)
    for resumed, start in (
        (list(loader(data, batches, 2)), 0),
        (list(loader(data, batches[1:])), 1),
    ):
        assert len(resumed) == 3 - start
        for (image, mask), (image2, mask2) in zip(alone[start:], resumed, strict=True):
            assert torch.equal(image, image2)
            assert torch.equal(mask, mask2)


def test_a_broken_file_names_itself_in_training_and_evaluation(tmp_path):
    pairs = make_pairs(tmp_path, 3)
    pairs[1].image.write_bytes(b"")
    with pytest.raises(DataError, match=r"p1\.png is empty"):
        PairDataset(pairs, 32, 0, True)[0, 1]
    with pytest.raises(DataError, match=r"p1\.png is empty"):
        list(eval_items(pairs, 32))


def test_eval_items_keep_masks_at_their_own_size(tmp_path):
    items = list(eval_items(make_pairs(tmp_path, 2), 64))
    assert [name for name, _, _ in items] == ["p0", "p1"]
    assert items[0][1].shape == (3, 64, 64)
    assert np.array_equal(items[0][2], square_mask())


@pytest.mark.parametrize(
    ("cores", "device", "world", "workers"),
    [(1, "cpu", 1, 0), (2, "cpu", 1, 0), (4, "cpu", 1, 2), (64, "cpu", 1, 4),
     (1, "cuda", 1, 1), (2, "cuda", 1, 2), (8, "cuda", 4, 2), (64, "cuda", 2, 4)],
)  # fmt: skip
def test_workers_leave_the_cores_to_training_on_a_cpu_and_use_them_beside_a_gpu(
    monkeypatch, cores, device, world, workers
):
    monkeypatch.setattr("lpmoe_bench.data.loader.usable_cores", lambda: cores)
    assert default_workers(device, world) == workers
