"""The real sets under LPMOE_BENCH_DATA: what a task trains and is tested on, and the digests."""

import os
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest

from lpmoe_bench.data.pairs import pair_truth
from lpmoe_bench.data.registry import load_registry
from lpmoe_bench.data.scenes import generate
from lpmoe_bench.data.scenes.generate import ensure_generated
from lpmoe_bench.data.splits import check_pairs
from lpmoe_bench.data.tasks import TaskData, open_split, resolve


def find(root: Path, cache: Path, task: str = "cod") -> TaskData:
    registry = load_registry()
    return resolve(registry.task(task), registry, root, generated_root=cache)


@pytest.fixture
def real() -> Path:
    root = os.environ.get("LPMOE_BENCH_DATA")
    if not root or not (Path(root) / "camo").is_dir():
        pytest.skip("LPMOE_BENCH_DATA names no folder with camo")
    return Path(root)


@pytest.mark.data
def test_the_real_camo(real, tmp_path):
    data = find(real, tmp_path)
    counts = {split.label: len(split.pairs) for split in (data.train, *data.tests)}
    assert counts == {"camo/train": 996, "camo/test": 248, "cod10k_mini62/all": 62}
    assert any("996 pairs counted, officially 1000" in note for note in data.notes)
    assert not {p.name for p in data.train.pairs} & {p.name for p in data.tests[0].pairs}
    for split in (data.train, *data.tests):
        assert check_pairs(split) == []
    # Published records carry these: what opens the sets must never move them.
    assert [split.digest for split in (data.train, *data.tests)] == [
        "30664b7e0a8a2cc5170157e4bd71eaba5cae3eb84c0b1cf44b807a946c18e9ff",
        "bdf05a35b126547e6e34b793b30bf88cd29916cc493b2f368d5e0ff676526168",
        "8a2bffd23143074161e3159777f60dd7b1525643c211d228b93eb2c3ab53d02e",
    ]


@pytest.mark.data
@pytest.mark.parametrize(
    ("task", "train", "tests"),
    [
        ("sod", ("ecssd/train_local700", 700), {"ecssd/test_local300": 300}),
        ("polyp", ("kvasir_seg/train", 800),
         {"kvasir_seg/test": 100, "cvc_clinicdb/test_seqdisjoint": 96}),
        ("skin", ("ham10000_small/train_local1200", 1200), {"ham10000_small/test_local300": 300}),
        ("leaf", ("coffee_leaf/train_with_symptom", 320), {"coffee_leaf/test_with_symptom": 40}),
        ("leaf_all", ("coffee_leaf/train", 400),
         {"coffee_leaf/test": 50, "coffee_leaf/test_with_symptom": 40}),
        ("road", ("epfl_roads/train_first80", 80), {"epfl_roads/test_last20": 20}),
    ],
)  # fmt: skip
def test_the_other_real_sets(real, tmp_path, task, train, tests):
    data = find(real, tmp_path, task=task)
    assert (data.train.label, len(data.train.pairs)) == train
    assert {split.label: len(split.pairs) for split in data.tests} == tests
    assert not any("counted" in note for note in data.notes)


@pytest.mark.data
def test_the_real_shadows_are_tested_on(real, tmp_path, monkeypatch):
    small = partial(ensure_generated, counts={"train": 3, "test": 2}, shape=(48, 64))
    monkeypatch.setattr(generate, "ensure_generated", small)
    data = find(real, tmp_path, task="shadow")
    assert [(s.label, len(s.pairs)) for s in data.tests][1:] == [("shadow_mini/all", 90)]
    assert data.train.label == "generated_shadow/train"


DIGESTS = {  # the first digits, as published records carry them
    "camo/train": "30664b7e0a8a2cc5",
    "camo/test": "bdf05a35b126547e",
    "cod10k_mini62/all": "8a2bffd231430741",
    "ecssd/all": "a0a8d890b1f1e982",
    "ecssd/train_local700": "967710fef22ace9e",
    "ecssd/test_local300": "2aca908e73d839dd",
    "kvasir_seg/train": "cd756c5bf4fb32fd",
    "kvasir_seg/val": "1491e5537ab6a3bd",
    "kvasir_seg/test": "07226b592bac9cfe",
    "kvasir_seg/all": "1c662949163f3771",
    "cvc_clinicdb/all": "06da2f4e9377ddcc",
    "cvc_clinicdb/train_seqdisjoint": "d94758320aeb8916",
    "cvc_clinicdb/test_seqdisjoint": "afb39b9cd62f6439",
    "ham10000_small/all": "0ea2ebf76594bb4a",
    "ham10000_small/train_local1200": "84d8efd304127d17",
    "ham10000_small/test_local300": "286ce9cf0b395315",
    "shadow_mini/all": "1649161493484ebf",
    "coffee_leaf/train": "4b7ceb559450c832",
    "coffee_leaf/val": "148bca4e1e7dce2e",
    "coffee_leaf/test": "5336cd1f6034fa0f",
    "coffee_leaf/train_with_symptom": "a39964b6d3e1fc9d",
    "coffee_leaf/val_with_symptom": "0c29d1071f70673e",
    "coffee_leaf/test_with_symptom": "59d64e85b9c59b71",
    "epfl_roads/train_first80": "8a679835659a33e1",
    "epfl_roads/test_last20": "bbb97f820d319dc6",
}


@pytest.mark.data
@pytest.mark.parametrize("label", DIGESTS)
def test_no_set_is_read_otherwise_than_before(real, label):
    """Neither its digest nor one mask: each holds 0 and 255 alone, and says so by itself."""
    registry = load_registry()
    dataset, name = registry.split(label)
    if dataset.location(real) is None:
        pytest.skip(f"{label} is not there")
    split = open_split(dataset, name, real)
    assert split is not None
    assert split.digest[:16] == DIGESTS[label]
    for pair in split.pairs[:: max(1, len(split.pairs) // 5)]:
        raw = cv2.imread(str(pair.mask), cv2.IMREAD_GRAYSCALE)
        truth = pair_truth(pair)
        assert truth.flags in ((), ("empty",))
        assert np.array_equal(truth.mask, raw)
