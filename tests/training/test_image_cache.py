"""Resized pairs on disk: equal to the bit to those made anew, and never those of other files."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from tiny_runs import arguments, assert_same_result, call, draw_pairs, only_run

from lpmoe_bench.data.label_rules import label_rules
from lpmoe_bench.data.loader import PairDataset, as_floats
from lpmoe_bench.data.pairs import Pair
from lpmoe_bench.data.pixels import PixelRules
from lpmoe_bench.data.readers import LabelReader, MaskReader
from lpmoe_bench.errors import ResourceError
from lpmoe_bench.training.feature_files import FeatureFolder
from lpmoe_bench.training.image_cache import ResizedPairs

RULES = {
    "binary": PixelRules(ignore=(7,)),
    "semantic": PixelRules(labels=label_rules({"classes": ["ground", "disc"], "ignore": 7})),
}


def draw(folder: Path, kind: str, deep: bool = False) -> Pair:
    """Draw a pair with an object and ignored pixels."""
    random = np.random.default_rng(0)
    image = random.integers(0, 2**16 if deep else 256, (40, 70, 3))
    labels = np.zeros((40, 70), np.uint8)
    labels[5:25, 10:50] = 255 if kind == "binary" else 1
    labels[30:, :20] = 7
    files = folder / "image.png", folder / "mask.png"
    cv2.imwrite(str(files[0]), image.astype(np.uint16 if deep else np.uint8))
    cv2.imwrite(str(files[1]), labels)
    return Pair("image", *files, RULES[kind])


def dataset(pair: Pair, kind: str, **more) -> PairDataset:
    reader = MaskReader() if kind == "binary" else LabelReader()
    return PairDataset([pair], (32, 64), 0, True, reader=reader, **more)


@pytest.mark.parametrize("as_bytes", [False, True], ids=["floats", "bytes"])
@pytest.mark.parametrize("kind", ["binary", "semantic"])
@pytest.mark.parametrize(
    ("deep", "more"),
    [(False, {}), (True, {}), (False, {"fit": "letterbox"}), (False, {"scale": (0.5, 2.0)})],
    ids=["8 bits", "16 bits", "letterbox", "scaled"],
)
def test_what_is_kept_is_what_is_made(tmp_path, monkeypatch, kind, deep, more, as_bytes):
    made = dataset(draw(tmp_path, kind, deep), kind, **more)
    kept = dataset(made.pairs[0], kind, as_bytes=as_bytes, **more)
    kept.keep = ResizedPairs(tmp_path / "cache", kept)
    keys = [(epoch, 0) for epoch in range(4)]
    expected = [made[key] for key in keys]
    assert any(made.mirrored(key) for key in keys)
    first = kept[keys[0]]
    monkeypatch.setattr(PairDataset, "_make", lambda *given: pytest.fail("it was decoded again"))
    for (image, target), (own, its) in zip(
        expected, [first, *map(kept.__getitem__, keys[1:])], strict=True
    ):
        assert torch.equal(image, as_floats(own))
        assert (own.dtype == torch.uint8) == (as_bytes and not deep and not more)
        assert torch.equal(target, its)
        assert target.dtype == its.dtype
    if kind == "binary":
        assert {-1.0, 0.0, 1.0} <= set(expected[0][1].unique().tolist())


def test_another_file_or_form_is_made_anew(tmp_path):
    pair = draw(tmp_path, "binary")
    one = dataset(pair, "binary")
    one.keep = ResizedPairs(tmp_path / "cache", one)
    before = one[0, 0]
    pixels = cv2.imread(str(pair.mask), cv2.IMREAD_UNCHANGED)
    pixels[5:10, 10:50] = 0
    cv2.imwrite(str(pair.mask), pixels)
    assert not torch.equal(one[0, 0][1], before[1])
    other = dataset(pair, "binary", fit="letterbox")
    other.keep = ResizedPairs(tmp_path / "cache", other)
    assert not torch.equal(other[0, 0][0], one[0, 0][0])


def test_a_full_disk_costs_no_run(tmp_path, monkeypatch):
    def fail(*given):
        raise ResourceError("the disk is full")

    kept = dataset(draw(tmp_path, "binary"), "binary")
    kept.keep = ResizedPairs(tmp_path / "cache", kept)
    monkeypatch.setattr(FeatureFolder, "__setitem__", fail)
    assert torch.equal(kept[0, 0][0], dataset(kept.pairs[0], "binary")[0, 0][0])
    assert kept.keep.is_full


def test_a_run_ends_bit_equal_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("LPMOE_BENCH_CACHE", str(tmp_path / "cache"))
    data = tmp_path / "data"
    draw_pairs(data / "train", 8, seed=0)
    draw_pairs(data / "test", 2, seed=1)
    quick = ["--method", "decoder_only", "--set", "train.epochs=2"]
    runs = {}
    for name, more in {
        "made": [],
        "kept": ["--set", "runtime.cache_images=true"],
        "no room": ["--set", "runtime.cache_images=true", "--set", "runtime.cache_gib=1e-9"],
    }.items():
        done = call(arguments(data, tmp_path / name, *quick, *more))
        assert done.code == 0, done.stderr
        runs[name] = only_run(tmp_path / name)
        assert ("they are decoded in every epoch" in done.stderr) == (name == "no room")
    assert_same_result(runs["made"], runs["kept"])
    assert "runtime.cache_images" in (runs["kept"] / "run.json").read_text()
    assert len(list((tmp_path / "cache/images").rglob("*.safetensors"))) == 7  # one validates
    both = ["--set", "runtime.cache_images=true", "--set", "runtime.cache_features=disk"]
    refused = call(arguments(data, tmp_path / "runs", *quick, *both))
    assert refused.code
    assert "leave one or the other out" in refused.stderr
