"""Whole runs on hierarchical backbones, with random weights: slow, for timm has no tiny ones."""

import pytest
import torch
from tiny_runs import arguments, assert_same_result, call, only_run

from lpmoe_bench.model.segmenter import load_trained
from lpmoe_bench.records.store import read_record

pytestmark = pytest.mark.slow
SHORT = ["--set", "train.epochs=1"]


def test_adaroute_on_swin_is_trained_evaluated_and_loaded(data, tmp_path):
    backbone = ["--backbone", "swin_tiny_patch4_window7_224", "--method", "adaroute"]
    decoder = ["--decoder", "upernet", "--set", "decoder.width=32"]
    done = call(arguments(data, tmp_path, *backbone, *SHORT, *decoder))
    assert done.code == 0, done.stderr
    record = read_record(only_run(tmp_path))
    assert record.backbone.name == "swin_tiny_patch4_window7_224"
    segmenter, _ = load_trained(only_run(tmp_path), tmp_path, offline=True)
    assert segmenter.method.strides == [4, 8, 16, 32]
    assert segmenter(torch.zeros(1, 3, 64, 64)).shape == (1, 1, 64, 64)


def test_features_of_stages_are_kept_as_they_are_computed(data, tmp_path, monkeypatch):
    monkeypatch.setenv("LPMOE_BENCH_CACHE", str(tmp_path / "cache"))
    backbone = ["--backbone", "convnext_tiny", "--method", "decoder_only"]
    runs = []
    for mode in ("memory", "disk"):
        keep = ["--set", f"runtime.cache_features={mode}"]
        done = call(arguments(data, tmp_path / mode, *backbone, *SHORT, *keep))
        assert done.code == 0, done.stderr
        runs.append(only_run(tmp_path / mode))
    assert_same_result(*runs)
    assert list((tmp_path / "cache" / "features").rglob("*.safetensors"))
