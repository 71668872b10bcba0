"""Weights from outside: tensors come back, code never runs, damage is one sentence."""

import collections
import os
import pickle
import zipfile

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from lpmoe_bench.errors import DataError, UsageError
from lpmoe_bench.model.weights.checkpoint import read_checkpoint

STATE = {"mask_decoder.iou_token.weight": torch.arange(6.0).view(1, 6), "b": torch.ones(2)}


def refused(path) -> str:
    """The sentence a file is refused with."""
    with pytest.raises(DataError) as caught:
        read_checkpoint(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("kind", ["pth", "pt", "old pth", "parameters", "safetensors"])
def test_tensors_come_back(tmp_path, kind: str):
    path = tmp_path / f"sam.{kind.split()[-1].replace('parameters', 'pth')}"
    if kind == "safetensors":
        save_file(STATE, path)
    elif kind == "parameters":
        torch.save({name: nn.Parameter(t) for name, t in STATE.items()}, path)
    else:  # Meta's files are ordered dicts; those before torch 1.6 are no zip archives
        zipped = kind != "old pth"
        state = collections.OrderedDict(STATE)
        torch.save(state, path, _use_new_zipfile_serialization=zipped)
    found = read_checkpoint(path)
    assert found.keys() == STATE.keys()
    assert all(torch.equal(found[name], STATE[name]) for name in STATE)
    assert not any(t.requires_grad for t in found.values())


class Hostile:
    """Runs a command when a trusting reader unpickles it."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


@pytest.mark.parametrize("kind", ["plain pickle", "old", "zip", "named by a tensor"])
def test_code_in_a_checkpoint_never_runs(tmp_path, kind: str, monkeypatch):
    # The switch by which torch can be talked into trusting a file must not reach here.
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    path, mark = tmp_path / "sam.pth", tmp_path / "ran"
    content = STATE | {"x": Hostile(mark)}
    if kind == "plain pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=kind != "old")
    assert "could be code" in refused(path)
    assert not mark.exists()
    pickle.loads(pickle.dumps(Hostile(mark)))
    assert mark.exists(), "the hostile file is harmless, so this test shows nothing"


def test_damage_is_one_sentence(tmp_path):
    path = tmp_path / "sam.pth"
    torch.save(STATE, path)
    whole = path.read_bytes()
    for part in (b"", whole[:1], whole[:100], whole[: len(whole) // 2], whole[:-30], b"nonsense"):
        path.write_bytes(part)
        assert "fetch it again" in refused(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("other.txt", "a zip of something else")
    assert "fetch it again" in refused(path)
    cut = tmp_path / "sam.safetensors"
    save_file(STATE, cut)
    cut.write_bytes(cut.read_bytes()[:-4])
    assert "safetensors" in refused(cut)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ([torch.zeros(1)], "no tensors by name"),
        ({}, "no tensors by name"),
        ({"model": STATE}, "no tensor but dict under 'model'"),
        (STATE | {"epoch": 3}, "no tensor but int under 'epoch'"),
        ({3: torch.zeros(1)}, "which is no text"),
        ({"a": torch.eye(3).to_sparse()}, "no plain dense tensor under 'a'"),
        ({"a": torch.zeros(2, device="meta")}, "no plain dense tensor under 'a'"),
    ],
)
def test_what_is_no_state_dict_is_refused(tmp_path, content, sentence: str):
    path = tmp_path / "sam.pth"
    torch.save(content, path)
    assert sentence in refused(path)


def test_wrong_paths_are_sentences(tmp_path):
    assert "there is no weights file" in refused(tmp_path / "none.pth")
    with pytest.raises(UsageError, match=r"use a \.safetensors or a \.pth file"):
        read_checkpoint(tmp_path / "weights.zip")
