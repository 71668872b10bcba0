"""An author's checkpoint as a run: equal outputs, an honest record, refusals in a sentence."""

import copy
import functools
from pathlib import Path

import pytest
import torch
from conftest import SIZE, moved, tiny_backbone
from released_files import (
    adaroute_file,
    conv_lora_file,
    lpmoe_file,
    sam_adapter_file,
    shaken,
    uni_perceiver_file,
)
from segment_anything.modeling import MaskDecoder, PromptEncoder, TwoWayTransformer
from tiny_runs import Done, call, only_run

from lpmoe_bench.environment import default_cache
from lpmoe_bench.model.decoders.decoder import Inputs
from lpmoe_bench.model.decoders.mask2former import Mask2Former
from lpmoe_bench.model.decoders.sam import SamDecoder
from lpmoe_bench.model.segmenter import Segmenter, load_trained
from lpmoe_bench.model.weights import resolve
from lpmoe_bench.records.store import read_record
from method_zoo.backbones.uniperceiver import NAME as UNI_PERCEIVER
from method_zoo.options import get_method

TINY = ("--backbone", "vit_tiny_patch16_224", "--size", "64")


@pytest.fixture(autouse=True)
def tiny_models(monkeypatch):
    """SAM and a ViT of 48 channels in the place of the large ones of these names."""
    kinds = {"sam_vit_b": "sam_meta", "vit_tiny_patch16_224": "plain"}

    def build(name: str, *_, **__):
        return uni_perceiver() if name == UNI_PERCEIVER else tiny_backbone(kinds[name])

    monkeypatch.setattr(resolve.create, "create_backbone", build)


@functools.cache
def _uni_perceiver():
    return moved(UNI_PERCEIVER, **SIZE, img_size=64)


def uni_perceiver():
    return copy.deepcopy(_uni_perceiver())


def import_file(file: Path, runs: Path, method: str, *more: str) -> Done:
    return call(["import", str(file), "--method", method, "--runs", str(runs), *more])


def saved(state: dict, folder: Path) -> Path:
    torch.save(state, folder / "authors.pth")
    return folder / "authors.pth"


def assert_same(folder: Path, model: Segmenter) -> None:
    """The run in a folder gives the logits of a model."""
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        own = load_trained(folder, default_cache())[0]
        torch.testing.assert_close(own(image)[0], model.eval()(image)[0], atol=1e-5, rtol=1e-5)


@pytest.fixture(scope="module")
def lpmoe() -> tuple[Segmenter, dict[str, torch.Tensor]]:
    """A model, and its checkpoint as its authors write it; tests only read them."""
    torch.manual_seed(0)
    method = shaken(get_method("lpmoe")(tiny_backbone()))
    decoder = shaken(Mask2Former(Inputs.of(method), 1))
    return Segmenter(method, decoder), lpmoe_file(method, decoder)


@pytest.fixture(scope="module")
def whole_sam() -> dict[str, torch.Tensor]:
    """Meta's decoder and prompt encoder with random weights, under Meta's names."""
    torch.manual_seed(5)
    transformer = TwoWayTransformer(depth=2, embedding_dim=256, num_heads=8, mlp_dim=2048)
    decoder = MaskDecoder(transformer_dim=256, transformer=transformer)
    prompts = PromptEncoder(256, (4, 4), (64, 64), mask_in_chans=16)
    state = {f"prompt_encoder.{k}": v for k, v in prompts.state_dict().items()}
    return state | {f"mask_decoder.{k}": v for k, v in decoder.state_dict().items()}


def sam_model(name: str, whole: dict, **options) -> Segmenter:
    torch.manual_seed(0)
    method = shaken(get_method(name)(tiny_backbone("sam_meta"), **options))
    decoder = SamDecoder(Inputs.of(method), 1)
    decoder.load_published(whole)
    return Segmenter(method, decoder)


@pytest.fixture(scope="module")
def plain_weights(tmp_path_factory) -> str:
    from safetensors.torch import save_file

    file = tmp_path_factory.mktemp("weights") / "plain.safetensors"
    save_file(tiny_backbone().state(), file)
    return str(file)


def test_an_imported_run_is_evaluated_and_said_to_be_none_of_ours(
    tmp_path, data, plain_weights, lpmoe
):
    model, state = lpmoe
    file = saved(state, tmp_path)
    runs = tmp_path / "runs"
    done = import_file(file, runs, "lpmoe", *TINY, "--weights", plain_weights)
    assert done.code == 0, done.stderr
    folder = only_run(runs)
    assert done.stdout == f"{folder}\n"
    assert "of no use here, by name: auxiliary_head (1)" in done.stderr
    assert "its task is cod; --task names another" in done.stderr
    record = read_record(folder)
    assert record.imported
    assert record.imported.file == "authors.pth"
    assert len(record.imported.sha256) == 64
    assert record.imported.dropped == {"auxiliary_head": 1}
    assert (record.seed, record.scores, record.training, record.test_opened) == (None, {}, None, 0)
    assert "train" not in record.config
    assert record.decoder.note == ""
    assert str(tmp_path) not in (folder / "run.json").read_text()
    assert_same(folder, model)
    own = ["--test-images", str(data / "test/images"), "--test-masks", str(data / "test/masks")]
    done = call(["evaluate", str(folder), *own])
    assert done.code == 0, done.stderr
    assert "which images it was trained on is not known" in done.stderr
    evaluated = read_record(next(runs.glob("evaluations/**/run.json")).parent)
    assert evaluated.imported == record.imported
    assert evaluated.seed is None
    table = call(["table", str(runs)])
    assert table.code == 0, table.stderr
    assert "Controllable-LPMoE (imported)" in table.stdout
    assert "Imported from an author's checkpoint, not trained here: Controllable" in table.stdout
    again = import_file(file, runs, "lpmoe", *TINY, "--weights", plain_weights)
    assert "is there already; showing it" in again.stderr
    before = (folder / "run.json").read_bytes()
    done = import_file(file, runs, "lpmoe", *TINY, "--weights", plain_weights, "--force")
    assert done.code == 0
    assert (folder / "superseded-1-run.json").read_bytes() == before


def test_sam_adapters_file_is_its_own_backbone(tmp_path, whole_sam):
    model = sam_model("sam_adapter", whole_sam)
    file = saved(sam_adapter_file(model.method, whole_sam), tmp_path)
    done = import_file(
        file, tmp_path / "runs", "sam_adapter", "--backbone", "sam_vit_b", "--size", "64"
    )
    assert done.code == 0, done.stderr
    assert "4 tensors of the decoder that are never read are random" not in done.stderr
    folder = only_run(tmp_path / "runs")
    record = read_record(folder)
    assert record.backbone.weights_sha256 == record.imported.sha256
    assert_same(folder, model)


@pytest.mark.parametrize("trained_alone", [False, True])
def test_conv_lora_of_autogluon(tmp_path, whole_sam, trained_alone):
    model = sam_model("conv_lora", whole_sam, alpha=16.0)
    state = conv_lora_file(model.method, whole_sam, trained_alone)
    sam = tmp_path / "sam.pth"
    encoder = {f"image_encoder.{k}": t for k, t in tiny_backbone("sam_meta").state().items()}
    torch.save(whole_sam | encoder, sam)
    more = ["--backbone", "sam_vit_b", "--size", "64", "--weights", str(sam)]
    file = saved(state, tmp_path)
    done = import_file(file, tmp_path / "runs", "conv_lora", *more, "--set", "alpha=16")
    if trained_alone:  # what is frozen of the decoder is in SAM's own file
        assert done.code == 3
        assert "lacks 2 tensors of the decoder sam, such as prompt_encoder.no_mask" in done.stderr
        more += ["--decoder-weights", str(sam)]
        done = import_file(file, tmp_path / "runs", "conv_lora", *more, "--set", "alpha=16")
    assert done.code == 0, done.stderr
    assert "does not say alpha" not in done.stderr
    assert_same(only_run(tmp_path / "runs"), model)


def test_what_no_shape_tells_is_said(tmp_path, whole_sam):
    model = sam_model("conv_lora", whole_sam)
    sam = tmp_path / "sam.pth"
    torch.save({f"image_encoder.{k}": t for k, t in tiny_backbone("sam_meta").state().items()}, sam)
    file = saved(conv_lora_file(model.method, whole_sam, False), tmp_path)
    more = ["--backbone", "sam_vit_b", "--size", "64", "--weights", str(sam)]
    done = import_file(file, tmp_path / "runs", "conv_lora", *more)
    assert "the file does not say alpha; taken is 32 (--set alpha=...)" in done.stderr


def test_without_a_decoder_one_must_be_named_and_is_called_random(tmp_path, plain_weights):
    torch.manual_seed(0)
    method = shaken(get_method("adaroute")(tiny_backbone()))
    file, runs = saved(adaroute_file(method), tmp_path), tmp_path / "runs"
    given = [*TINY, "--weights", plain_weights]
    done = import_file(file, runs, "parax", *given)
    assert done.code == 2
    assert "has no decoder for masks, so its scores cannot be computed" in done.stderr
    done = import_file(file, runs, "parax", *given, "--decoder", "fpn")
    assert done.code == 0, done.stderr
    assert "the decoder fpn is random: no score of this run says anything" in done.stderr
    record = read_record(only_run(runs))
    assert record.method.name == "adaroute"
    assert record.decoder.note == "random decoder"
    loaded = load_trained(only_run(runs), default_cache())[0].method.adapter_state()
    assert all(torch.equal(loaded[k], t) for k, t in method.adapter_state().items())


def test_a_backbone_of_half_precision_is_the_same(tmp_path, plain_weights, lpmoe):
    frozen = {k: t.half() if ".blocks." in k else t for k, t in lpmoe[1].items()}
    file = saved(frozen, tmp_path)
    done = import_file(file, tmp_path / "runs", "lpmoe", *TINY, "--weights", plain_weights)
    assert done.code == 0, done.stderr
    assert "compared" not in done.stderr


def test_a_method_of_other_backbone_weights_is_refused(tmp_path, plain_weights, lpmoe):
    state = lpmoe[1]
    name = "backbone.blocks.1.attn.qkv.weight"
    file = saved(state | {name: state[name] + 0.01}, tmp_path)
    done = import_file(file, tmp_path / "runs", "lpmoe", *TINY, "--weights", plain_weights)
    assert done.code == 3
    assert "was trained on other weights of vit_tiny_patch16_224" in done.stderr
    assert "its own blocks.1.attn.qkv.weight differs" in done.stderr
    assert not list(tmp_path.rglob("run.json"))


@pytest.mark.parametrize("same", [True, False])
def test_controllable_lpmoe_on_its_first_backbone(tmp_path, same):
    """A checkpoint of a training, with the ViT in the layout of Uni-Perceiver's own file."""
    backbone = uni_perceiver()
    frozen, weights = uni_perceiver_file(backbone), tmp_path / "uni-perceiver.pth"
    torch.save(frozen, weights)
    torch.manual_seed(0)
    method = shaken(get_method("lpmoe")(backbone))
    decoder = shaken(Mask2Former(Inputs.of(method), 1))
    name = "layers.2.self_attn.in_proj_weight"
    state = lpmoe_file(method, decoder, frozen if same else frozen | {name: frozen[name] * 1.01})
    meta = {"mmcv_version": "1.5.0", "CLASSES": ("background", "object"), "iter": 80000}
    file = saved({"meta": meta, "state_dict": state, "optimizer": {"state": {}}}, tmp_path)
    more = ["--backbone", UNI_PERCEIVER, "--weights", str(weights), "--size", "64"]
    done = import_file(file, tmp_path / "runs", "lpmoe", *more)
    if not same:
        assert done.code == 3
        assert "its own blocks.2.attn.qkv.weight differs" in done.stderr
        return
    assert done.code == 0, done.stderr
    assert "taken from 'state_dict'" in done.stderr
    assert "could not be compared" not in done.stderr
    assert_same(only_run(tmp_path / "runs"), Segmenter(method, decoder))


def changed(name: str, tensor: torch.Tensor | None):
    def change(state: dict) -> dict:
        rest = {k: t for k, t in state.items() if not k.endswith(name)}
        full = next(k for k in state if k.endswith(name))
        return rest if tensor is None else rest | {full: tensor}

    return change


@pytest.mark.parametrize(
    ("change", "more", "code", "sentence"),
    [
        (changed("module2.3.module2_1.gamma", None), [], 3, "1 tensors missing ['inject.3.gamma']"),
        (changed("cls_embed.weight", None), [], 3, "lacks 1 tensors of the decoder mask2former"),
        (
            changed("cls_embed.weight", torch.ones(151, 64)),
            [],
            3,
            "queries.label.weight is (151, 64), which should be (3, 64)",
        ),
        (dict, ["--set", "ratio=0.25"], 3, "does not fit this backbone and these options"),
        (dict, ["--set", "train.lr=1"], 2, "an import trains nothing; leave settings of train"),
        (dict, ["--set", "rank=3"], 2, "unknown option of Controllable-LPMoE 'rank'"),
        (dict, ["--size", "65"], 2, "must be a multiple of 32"),
        (dict, ["--task", "codd"], 2, "unknown task 'codd'"),
        (dict, ["--runs", "results/records"], 2, "holds published records"),
    ],
)
def test_a_wrong_import_is_one_sentence_and_leaves_nothing(
    tmp_path, plain_weights, lpmoe, change, more, code, sentence
):
    file = saved(change(lpmoe[1]), tmp_path)
    given = [*TINY, "--weights", plain_weights, *more]
    done = import_file(file, tmp_path / "runs", "lpmoe", *given)
    assert done.code == code, done.stderr
    assert sentence in done.stderr.splitlines()[-1]
    assert not list(tmp_path.rglob("run.json"))


def test_whose_and_on_what_must_be_said(tmp_path):
    done = call(["import", str(tmp_path / "a.pth")])
    assert done.code == 2
    assert "say whose checkpoint it is and on which backbone" in done.stderr
    done = import_file(tmp_path / "a.pth", tmp_path, "lpmoe", *TINY)
    assert done.code == 3
    assert "there is no weights file" in done.stderr
