"""The real sets under LPMOE_BENCH_DATA: what a task trains and is tested on, and the digests."""

import os
from functools import partial
from pathlib import Path

import pytest

from lpmoe_bench.data.registry import load_registry
from lpmoe_bench.data.scenes import generate
from lpmoe_bench.data.scenes.generate import ensure_generated
from lpmoe_bench.data.splits import check_pairs
from lpmoe_bench.data.tasks import TaskData, resolve


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
