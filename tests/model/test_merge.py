"""Merging: a file that a run reads again, proven equal, or no file and a sentence."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from conftest import FAMILIES, tiny_backbone, tiny_image
from safetensors import safe_open
from tiny_runs import BACKBONE, arguments, call, draw_data, only_run

from lpmoe_bench.environment import default_cache
from lpmoe_bench.errors import BenchError, UsageError
from lpmoe_bench.model import merge
from lpmoe_bench.model.segmenter import load_trained
from lpmoe_bench.records.store import read_record
from method_zoo.backbones.create import create_backbone
from method_zoo.options import get_method, list_methods

MERGEABLE = [name for name in list_methods() if get_method(name).mergeable]
QUICK = ("--set", "train.epochs=1", "--set", "train.limit_train=8", "--set", "train.batch=4")


def silent(done: int, total: int) -> None:
    pass


def trained_run(root: Path, method: str, *more: str) -> Path:
    done = call(arguments(draw_data(root), root / "runs", *QUICK, *more, "--method", method))
    assert done.code == 0, done.stderr
    return only_run(root / "runs")


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """SSF: it changes every kind of layer, the patch embedding included."""
    return trained_run(tmp_path_factory.mktemp("merge"), "ssf")


@pytest.fixture(scope="module")
def merged(run, tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("merged") / "plain.safetensors"
    done = call(["merge", str(run), "-o", str(file)])
    assert done.code == 0, done.stderr
    assert done.stdout.splitlines()[0] == str(file)
    assert "max |difference|" in done.stdout
    assert "the decoder is not part of the file" in done.stderr
    assert f"--backbone {BACKBONE} --weights {file}" in done.stderr
    return file


def test_the_file_is_the_plain_model_and_names_its_run(run, merged):
    record, plain = read_record(run), create_backbone(BACKBONE).vit.state_dict()
    with safe_open(merged, framework="pt") as file:
        about = json.loads(file.metadata()["lpmoe_bench"])
        shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    assert shapes == {name: list(tensor.shape) for name, tensor in plain.items()}
    assert about["run"] == record.id
    assert about["backbone"] == BACKBONE
    assert about["adapter_sha256"] == record.adapter_sha256
    assert list(merged.parent.iterdir()) == [merged], "nothing else is left there"


def test_a_run_on_the_file_has_the_features_of_the_method(run, merged, tmp_path):
    plain = trained_run(tmp_path, "decoder_only", "--weights", str(merged))
    methods = [load_trained(folder, default_cache())[0].method for folder in (run, plain)]
    image = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        one, other = (method(image) for method in methods)
    for a, b in zip([*one.maps, one.final], [*other.maps, other.final], strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_what_is_there_is_overwritten_by_force_alone(run, merged, tmp_path):
    file = tmp_path / "a.safetensors"
    file.write_bytes(b"mine")
    done = call(["merge", str(run), "-o", str(file)])
    assert done.code == 2
    assert "is there already; name another file, or overwrite with --force" in done.stderr
    assert file.read_bytes() == b"mine"
    done = call(["merge", str(run), "-o", str(file), "--force", "--json"])
    made = json.loads(done.stdout)
    assert made["proof"]["images"] == 4
    assert made["proof"]["largest"] < made["limit"] == 1e-5
    assert file.read_bytes() == merged.read_bytes(), "the same run gives the same bytes"


def test_no_file_is_left_where_the_proof_does_not_hold(run, tmp_path, monkeypatch):
    file = tmp_path / "a.safetensors"
    file.write_bytes(b"mine")
    monkeypatch.setattr(merge, "LIMIT", 1e-12)
    with pytest.raises(BenchError, match=r"differ by .*must be below.*no file was written"):
        merge.merge_run(run, file, default_cache(), True, True, silent)
    assert file.read_bytes() == b"mine"
    assert list(tmp_path.iterdir()) == [file]


def test_an_output_is_a_safetensors_file(tmp_path):
    for name in ("a.pth", "a"):
        with pytest.raises(UsageError, match=r"merged weights are a \.safetensors file"):
            merge.check_output(tmp_path / name, force=False)
    (tmp_path / "folder.safetensors").mkdir()
    with pytest.raises(UsageError, match="name one"):
        merge.check_output(tmp_path / "folder.safetensors", force=True)


def test_a_run_names_its_own_backbone(run, tmp_path):
    file = tmp_path / "a.safetensors"
    done = call(["merge", str(run), "-o", str(file), "--backbone", BACKBONE])
    assert done.code == 2
    assert "leave --backbone and --weights out" in done.stderr


def test_a_published_record_has_no_weights_to_merge(run, tmp_path):
    shutil.copytree(run, tmp_path / "record", ignore=shutil.ignore_patterns("*.safetensors"))
    done = call(["merge", str(tmp_path / "record"), "-o", str(tmp_path / "a.safetensors")])
    assert done.code == 3
    assert "published records carry no weights" in done.stderr


@pytest.mark.parametrize("name", sorted(set(list_methods()) - set(MERGEABLE)))
def test_the_others_are_refused_with_their_own_reason(name):
    method = get_method(name)
    assert "unmergeable" in vars(method), f"{name} does not say why it cannot be merged"
    with pytest.raises(UsageError) as caught:
        merge.check_mergeable(method)
    assert str(caught.value) == f"{method.title} cannot be merged: {method.unmergeable}"


@pytest.mark.parametrize(
    "family",
    [pytest.param(f, marks=[pytest.mark.slow] if n else []) for n, f in enumerate(FAMILIES)],
)
@pytest.mark.parametrize("name", MERGEABLE)
def test_single_precision_weights_stand_for_the_method(name, family):
    """Through `state` and `load`, as through a file."""
    torch.manual_seed(0)
    method, image = get_method(name)(tiny_backbone(family)), tiny_image(tiny_backbone(family))
    with torch.no_grad():
        for parameter in method.trainable().values():
            parameter.add_(0.02 * torch.randn_like(parameter))
    expected = merge.features(method, [image], lambda: None)
    state = {
        n: t.float() if t.is_floating_point() else t for n, t in method.merge().state().items()
    }
    plain = tiny_backbone(family)
    plain.load(state)
    proof = merge.prove(
        expected, merge.features(get_method("decoder_only")(plain), [image], lambda: None)
    )
    assert proof.holds, proof


def test_a_wrong_fold_is_seen():
    torch.manual_seed(0)
    method, image = get_method("lora")(tiny_backbone()), tiny_image(tiny_backbone())
    expected = merge.features(method, [image], lambda: None)
    merged = method.merge()
    merged.vit.blocks[3].mlp.fc2.bias[0] += 1e-4
    got = merge.features(get_method("decoder_only")(merged), [image], lambda: None)
    proof = merge.prove(expected, got)
    assert proof.largest > 1e-5
    assert not proof.holds


def test_the_proof_by_hand():
    single, double = [[torch.tensor([1.0, 2.0])]], [[torch.tensor([1.5, 2.0])]]
    merged = [[torch.tensor([1.0, -1.0])]], [[torch.tensor([1.5, 2.25])]]
    assert merge.prove([single, double], list(merged)) == merge.Proof(1, 0.25, 3.0, 0.5)


def test_what_is_not_a_number_proves_nothing():
    good, broken = [[torch.ones(2)]], [[torch.tensor([1.0, torch.nan])]]
    assert merge.prove([good, good], [good, good]) == merge.Proof(1, 0.0, 0.0, 0.0)
    assert merge.prove([good, good], [good, good]).holds
    assert not merge.prove([good, good], [good, broken]).holds
    assert not merge.prove([good, good], [broken, good]).holds


def test_proof_images_are_the_same_every_time():
    one, other = merge.proof_images((64, 64)), merge.proof_images((64, 64))
    assert [tuple(image.shape) for image in one] == [(1, 3, 64, 64)] * 4
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert all(0 <= image.min() < image.max() <= 1 for image in one)
