"""Weights by name: random, local files, and what identifies them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from tiny_weights import TIMM, save_tiny

from lpmoe_bench.errors import DataError, UsageError
from lpmoe_bench.model.weights import default_backbone
from lpmoe_bench.model.weights.resolve import default_cache, load_backbone, resolve_weights
from method_zoo.errors import ZooError

DEFAULT = default_backbone.NAME


def test_random_weights_depend_on_the_seed_alone(tmp_path):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, second, other = (
        load_backbone(resolve_weights(TIMM, w, tmp_path, offline=True)).vit.patch_embed.proj.weight
        for w in ("random", "random:0", "random:1")
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert torch.equal(before, torch.get_rng_state())


def test_random_weights_are_named_by_their_string(tmp_path):
    weights = resolve_weights(DEFAULT, "random:3", tmp_path, offline=True)
    assert weights.sha256 == hashlib.sha256(b"random:3").hexdigest()
    assert (weights.path, weights.seed, weights.source) == (None, 3, "random:3")
    assert weights.timm_name == default_backbone.TIMM_NAME
    assert weights == resolve_weights(DEFAULT, "random:3", tmp_path / "elsewhere")


@pytest.mark.parametrize(
    "text", ["random:", "random:x", "random:-1", "random:1.5", f"random:{2**64}"]
)
def test_random_seed_that_is_none(tmp_path, text):
    with pytest.raises(UsageError, match="random:SEED"):
        resolve_weights(TIMM, text, tmp_path)


def test_unknown_backbone_offers_the_closest(tmp_path):
    with pytest.raises(ZooError, match=DEFAULT):
        resolve_weights("dinov2_small_imgfocu", None, tmp_path)
    with pytest.raises(ZooError, match=r"closest: vit_small_patch14_dinov2.lvd142m"):
        resolve_weights("vit_small_patch14_dinov2.lvd", None, tmp_path)


def test_local_file(tmp_path):
    path = save_tiny(tmp_path / "w.safetensors", {"head.weight": torch.zeros(9, 192)})
    weights = resolve_weights(TIMM, str(path), tmp_path, offline=True)
    assert weights.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert all(bool((p == 0.25).all()) for p in load_backbone(weights).parameters())


def test_norm_behind_the_pooling_becomes_the_norm(tmp_path):
    norm = {f"fc_norm.{leaf}": torch.full((192,), 0.5) for leaf in ("weight", "bias")}
    path = save_tiny(tmp_path / "w.safetensors", norm, gone="norm.")
    backbone = load_backbone(resolve_weights(TIMM, str(path), tmp_path))
    assert bool((backbone.vit.norm.weight == 0.5).all())
    assert bool((backbone.vit.norm.bias == 0.5).all())


@pytest.mark.parametrize(
    ("extra", "gone", "sentence"),
    [
        ({}, "blocks.3.", "12 tensors missing"),
        ({"blocks.99.norm1.weight": torch.zeros(192)}, "", "1 unknown .*blocks.99"),
        ({"norm.weight": torch.zeros(7)}, "", "1 of another shape .*norm.weight"),
        ({"encoder": torch.zeros(2)}, "", "timm cannot read"),
    ],
)
def test_foreign_local_file(tmp_path, extra, gone, sentence):
    path = save_tiny(tmp_path / "w.safetensors", extra, gone)
    with pytest.raises(DataError, match=sentence) as caught:
        load_backbone(resolve_weights(TIMM, str(path), tmp_path))
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", ["w.pth", "w.bin", "w.ckpt", "w"])
def test_formats_that_can_execute_code_are_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"anything")
    with pytest.raises(UsageError, match=r"only .safetensors"):
        resolve_weights(TIMM, str(tmp_path / name), tmp_path)


@pytest.mark.parametrize("content", [None, b"", b"\x80\x04 a pickle in disguise"])
def test_unreadable_local_file(tmp_path, content):
    path = tmp_path / "w.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=r"w\.safetensors"):
        resolve_weights(TIMM, str(path), tmp_path)


def test_local_file_that_vanishes_or_is_cut_later(tmp_path):
    path = save_tiny(tmp_path / "w.safetensors")
    weights = resolve_weights(TIMM, str(path), tmp_path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DataError, match="cannot be read"):
        load_backbone(weights)
    path.unlink()
    with pytest.raises(DataError, match="cannot be read"):
        load_backbone(weights)


@pytest.mark.parametrize(
    ("name", "antialias"),
    [
        ("vit_small_patch14_dinov2.lvd142m", False),
        ("vit_small_patch14_reg4_dinov2.lvd142m", None),
        ("vit_base_patch16_224", None),
    ],
)
def test_position_tables_are_resized_as_their_authors_do(tmp_path, name, antialias):
    assert resolve_weights(name, "random", tmp_path).pos_antialias is antialias


def test_cache_folder_comes_from_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("LPMOE_BENCH_CACHE", str(tmp_path))
    assert default_cache() == tmp_path
    monkeypatch.delenv("LPMOE_BENCH_CACHE")
    assert default_cache() == Path.home() / ".cache" / "lpmoe-bench"
