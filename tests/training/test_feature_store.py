"""Parts of the feature cache: packing on every family, checked files, the key, the forecast."""

import dataclasses
import pickle
import shutil
import sys
from pathlib import Path

import pytest
import torch
from conftest import tiny_backbone, tiny_image
from safetensors.torch import save_file

from lpmoe_bench.config.settings import FactsConfig, build_config
from lpmoe_bench.errors import DataError
from lpmoe_bench.model.decoders.names import build_decoder
from lpmoe_bench.model.segmenter import Segmenter
from lpmoe_bench.model.weights.resolve import WeightFacts, Weights, load_backbone
from lpmoe_bench.training.feature_files import FeatureFolder, View, feature_key
from lpmoe_bench.training.features import FromPrefix, pack
from method_zoo.options import get_method

ONE, OTHER = View("1" * 64, False), View("2" * 64, True)
SHAPE = (2, 5, 3)


@pytest.mark.parametrize("name", ["decoder_only", "lst", "partial"])
def test_the_model_goes_on_from_packed_prefixes(backbone, name):
    if get_method(name).needs_one_width and len(backbone.widths) > 1:
        pytest.skip(f"{name} takes no stages")
    image = tiny_image(backbone)
    side = image.shape[-2] if backbone.fixed_grid is None else image.shape[-1]
    image = image[..., :side]
    torch.manual_seed(0)
    method = get_method(name)(backbone)
    segmenter = Segmenter(method, build_decoder("fpn", method, 1, {"width": 16})).eval()
    side = image.shape[-1]
    model = FromPrefix(segmenter, method.prefix(torch.zeros_like(image[:1])), (side, side))
    with torch.no_grad():
        packed = pack(method.prefix(image))
        features = segmenter.method.finish(method.prefix(image))
        expected = segmenter.finish(features, (side, side))
        found = model(packed)
    assert torch.equal(found, expected)
    assert len(packed) == 2


def test_a_state_that_is_met_twice_is_kept_once():
    method, image = get_method("decoder_only")(tiny_backbone()), tiny_image(tiny_backbone())
    prefix = method.prefix(image)
    assert prefix.tokens.x is prefix.taps[-1].x
    assert pack(prefix).shape == (2, 4, 1 + 4 * 6, 48)


@pytest.fixture
def folder(tmp_path) -> FeatureFolder:
    folder = FeatureFolder(tmp_path / "features", {"size": 64}, SHAPE)
    folder[ONE] = torch.rand(SHAPE)
    folder[OTHER] = torch.rand(SHAPE)
    return folder


def test_features_come_back_bit_equal(folder):
    feature = torch.randn(SHAPE, dtype=torch.float64).to(torch.bfloat16)
    folder[ONE] = feature
    assert torch.equal(folder[ONE], feature)
    assert folder[ONE].dtype is torch.bfloat16
    assert View("3" * 64, False) not in folder
    assert View(ONE.digest, True) not in folder
    with pytest.raises(DataError, match="run the same command again"):
        folder[View("3" * 64, False)]


def truncate(folder):
    path = folder.path(ONE)
    path.write_bytes(path.read_bytes()[:-4])


def flip_a_bit(folder):
    data = bytearray(folder.path(ONE).read_bytes())
    data[-3] ^= 1
    folder.path(ONE).write_bytes(data)


def pickled(folder):
    folder.path(ONE).write_bytes(pickle.dumps({"features": [0.0]}))


def of_another_view(folder):
    shutil.copy(folder.path(OTHER), folder.path(ONE))


def of_another_key(folder):
    other = FeatureFolder(folder.root, {"size": 96}, SHAPE)
    other[ONE] = torch.rand(SHAPE)
    shutil.copy(other.path(ONE), folder.path(ONE))


def of_another_shape(folder):
    other = FeatureFolder(folder.root, {"size": 64}, (2, 5, 4))
    other[ONE] = torch.rand(2, 5, 4)  # under the same key, and so in the same file


def without_a_checksum(folder):
    save_file({"features": torch.rand(SHAPE)}, folder.path(ONE))


def of_other_tensors(folder):
    save_file({"weights": torch.rand(SHAPE)}, folder.path(ONE))


@pytest.mark.parametrize(
    "damage",
    [
        *(truncate, flip_a_bit, pickled, of_another_view, of_another_key, of_another_shape),
        *(without_a_checksum, of_other_tensors, lambda folder: folder.path(ONE).unlink()),
    ],
)
def test_damaged_and_foreign_files_count_as_missing(folder, damage):
    assert ONE in folder
    damage(folder)
    assert ONE not in folder
    assert OTHER in folder
    with pytest.raises(DataError, match="damaged or removed"):
        folder[ONE]
    folder[ONE] = torch.ones(SHAPE)
    assert torch.equal(folder[ONE], torch.ones(SHAPE))


def test_used_bytes_count_every_key(folder):
    other = FeatureFolder(folder.root, {"size": 96}, SHAPE)
    other[ONE] = torch.rand(SHAPE)
    files = [other.path(ONE), folder.path(ONE), folder.path(OTHER)]
    assert folder.used_bytes() == sum(path.stat().st_size for path in files)
    assert FeatureFolder(folder.root / "none", {}, SHAPE).used_bytes() == 0


HALF = (0.5, 0.5, 0.5)
FACTS = WeightFacts(HALF, HALF, 16, 14, True)
WEIGHTS = Weights(
    "tiny", "vit_tiny_patch16_224", None, "a" * 64, "random:0", "", "", FACTS, FactsConfig(), 0
)


def with_facts(**facts) -> Weights:
    return dataclasses.replace(WEIGHTS, facts=dataclasses.replace(FACTS, **facts))


def key(name: str = "partial", weights: Weights = WEIGHTS, shape=SHAPE, config=None, **options):
    layers = {"method": name, "options": options, "runtime": {"device": "cpu"}}
    config = build_config(layers, {"train": {"precision": "32-true"}}, config or {})
    return feature_key(config, weights, get_method(name)(tiny_backbone(), **options), shape)


@pytest.mark.parametrize(
    "other",
    [
        key(blocks=2),
        key("decoder_only"),
        key(weights=dataclasses.replace(WEIGHTS, sha256="b" * 64)),
        key(weights=dataclasses.replace(WEIGHTS, timm_name="vit_small_patch16_224")),
        key(weights=with_facts(pos_antialias=False)),
        key(weights=with_facts(mean=(0.4, 0.5, 0.5))),
        key(weights=with_facts(patch=8)),
        key(shape=(3, 5, 3)),
        key(config={"size": 96}),
        key(config={"train": {"precision": "bf16-mixed"}}),
    ],
)
def test_what_changes_a_feature_changes_the_key(other):
    assert key() != other


def test_methods_that_share_the_loop_share_features():
    assert key("decoder_only") == key("linear_probe")
    assert key("partial", blocks=2) == key("late_lora", blocks=2, rank=3)
    assert key("decoder_only") == key("decoder_only", config={"seed": 3, "train": {"lr": 1.0}})
    # A walk of its own may be anything: what it taps, or does with its options.
    assert key("lst")["walk"] != key("decoder_only")["walk"]
    assert key("lst", reduction=4) != key("lst", reduction=8)


def test_other_code_or_packages_change_the_key(monkeypatch, tmp_path):
    before = key("lst")
    monkeypatch.setattr("lpmoe_bench.training.feature_files.metadata.version", lambda _: "0")
    assert key("lst") != before
    monkeypatch.undo()
    copied = tmp_path / "lst.py"
    module = sys.modules[get_method("lst").__module__]
    copied.write_text(Path(str(module.__file__)).read_text() + "\n")
    monkeypatch.setattr(module, "__file__", str(copied))
    assert key("lst")["code"] != before["code"]
    assert key("decoder_only")["code"] == key("linear_probe")["code"]


def test_other_code_that_reads_weights_changes_the_key(monkeypatch, tmp_path):
    before, module = key("decoder_only")["code"], sys.modules[load_backbone.__module__]
    shutil.copytree(Path(str(module.__file__)).parent, tmp_path / "weights")
    monkeypatch.setattr(module, "__file__", str(tmp_path / "weights/resolve.py"))
    assert key("decoder_only")["code"] == before
    with open(tmp_path / "weights/checkpoint.py", "a") as file:
        file.write("\n")
    assert key("decoder_only")["code"] != before
