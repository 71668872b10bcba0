"""Weights of the Hugging Face hub, with the hub's functions replaced: no network."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
import torch
from tiny_weights import TIMM, save_tiny

from lpmoe_bench.errors import DataError, ResourceError, UsageError
from lpmoe_bench.model.weights import hub as hub_module
from lpmoe_bench.model.weights.resolve import load_backbone, resolve_weights
from method_zoo.backbones.create import create_backbone
from method_zoo.errors import ZooError


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The hub's functions, replaced: `fetch` answers, `cached` is what lies on the disk."""

    class Hub:
        cached: Path | None = None
        asked: list[str] = []

        @staticmethod
        def fetch() -> Path:
            raise AssertionError("the hub must not be asked")

    def download(repository, filename, revision=None):
        assert filename == "model.safetensors"
        Hub.asked.append(repository)
        return str(Hub.fetch())

    import huggingface_hub

    Hub.asked = []
    found = lambda *args, **kwargs: str(Hub.cached) if Hub.cached else None  # noqa: E731
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", found)
    return Hub


def test_pretrained_weights_come_from_the_repository_timm_names(hub, tmp_path):
    folder = tmp_path / "c0ffee"
    folder.mkdir()
    hub.fetch = lambda: save_tiny(folder / "model.safetensors")
    told: list[str] = []
    weights = resolve_weights(TIMM, None, tmp_path, progress=told.append)
    repository = "timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k"
    assert hub.asked == [repository]
    assert weights.source == f"hf:{repository}@c0ffee/model.safetensors"
    assert weights.licence == "apache-2.0"
    assert len(told) == 1
    assert bool((load_backbone(weights).vit.cls_token == 0.25).all())
    hub.cached = weights.path
    assert resolve_weights(TIMM, None, tmp_path, offline=True) == weights
    assert len(hub.asked) == 1


def test_pretrained_weights_offline(hub, tmp_path):
    with pytest.raises(DataError, match=r"--weights file.safetensors or --weights random"):
        resolve_weights(TIMM, None, tmp_path, offline=True)


@pytest.mark.parametrize(
    ("failure", "error", "sentence"),
    [
        (FileNotFoundError("nothing cached"), DataError, "cannot be reached.*--weights random"),
        (PermissionError("401 gated\nmore"), DataError, r"\(401 gated\).*--weights random"),
        (OSError(errno.ENOSPC, "full"), ResourceError, "HF_HOME"),
    ],
)
def test_hub_that_fails(hub, tmp_path, failure, error, sentence):
    def fetch():
        raise failure

    hub.fetch = fetch
    with pytest.raises(error, match=sentence):
        resolve_weights(TIMM, None, tmp_path)


def test_nothing_is_fetched_for_a_model_that_cannot_be_opened(hub, tmp_path):
    for name in ("resnet18", "deit_tiny_distilled_patch16_224", "vgg11"):
        with pytest.raises(ZooError, match="vit_"):
            resolve_weights(name, None, tmp_path)


def test_model_without_weights_on_the_hub(hub, tmp_path):
    with pytest.raises(UsageError, match=r"no pretrained weights on the hub.*--weights random"):
        resolve_weights("vit_huge_patch14_gap_224.in1k_ijepa", None, tmp_path)


def test_hub_weights_of_every_named_head_are_dropped():
    vit = create_backbone(TIMM).vit
    state = vit.state_dict()
    heads = {f"{head}weight": torch.zeros(1) for head in hub_module.HEADS}
    assert hub_module.timm_state(state | heads, vit, TIMM).keys() == state.keys()
