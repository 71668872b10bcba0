"""Weights."""

import collections
import errno
import hashlib
import json
import pickle
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import tiny_backbone
from huggingface_hub.errors import EntryNotFoundError
from safetensors.torch import load_file, save_file
from tiny_weights import DEPTH, GRID, TIMM, WIDTH, Hostile, drop, save_tiny, tiny_onnx, tiny_tensors
from torch import nn

from lpmoe_bench.config.backbones import ALIASES, known_as
from lpmoe_bench.config.settings import RunConfig
from lpmoe_bench.environment import default_cache
from lpmoe_bench.errors import DataError, ResourceError, UsageError
from lpmoe_bench.model.weights import default_backbone, fitting
from lpmoe_bench.model.weights import hub as hub_module
from lpmoe_bench.model.weights.checkpoint import Checkpoint, read_checkpoint
from lpmoe_bench.model.weights.default_backbone import dinov2_state
from lpmoe_bench.model.weights.fitting import state_for, table_side, timm_state
from lpmoe_bench.model.weights.layouts import find_model
from lpmoe_bench.model.weights.resolve import load_backbone, resolve_weights
from method_zoo.backbones.create import check_backbone_name, create_backbone
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
        (
            {"pos_embed": torch.zeros(1, 198, 192)},
            "",
            "that leaves 197 places, which are no square",
        ),
        ({"pos_embed": torch.zeros(1, 1, 192)}, "", "that leaves 0 places, which are no square"),
        ({"pos_embed": torch.zeros(197, 192)}, "", "is 197 x 192; this backbone has 1 x 197 x 192"),
        ({"visual.class_embedding": torch.zeros(2)}, "", "CLIP under OpenAI's names"),
    ],
)
def test_foreign_local_file(tmp_path, extra, gone, sentence):
    path = save_tiny(tmp_path / "w.safetensors", extra, gone)
    with pytest.raises(DataError, match=sentence) as caught:
        load_backbone(resolve_weights(TIMM, str(path), tmp_path))
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("rows", [0, 1, 3, 100])
def test_a_table_of_relative_positions_of_no_square_window_is_named(rows):
    state = {"blocks.0.attn.relative_position_bias_table": torch.zeros(rows, 3)}
    with pytest.raises(
        DataError, match=rf"relative_position_bias_table' has {rows} rows; a square"
    ):
        timm_state(state, tiny_backbone("beit").vit, "beit_base_patch16_224")


def test_an_empty_position_table_of_sam_is_a_table_of_another_shape():
    backbone = tiny_backbone("sam")
    checkpoint = Checkpoint(backbone.state() | {"pos_embed": torch.zeros(1, 0, 0, 48)})
    found = find_model(checkpoint)
    assert found is not None
    assert table_side(found, backbone) is None
    with pytest.raises(DataError, match=r"1 of another shape \['pos_embed'\]"):
        state_for(found, checkpoint, backbone, "samvit_base_patch16")


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "older"])
def test_a_checkpoint_that_is_cut_off_is_told_in_words_of_ours(tmp_path, zipped):
    path = tmp_path / "w.pth"
    torch.save({"a": torch.zeros(99)}, path, _use_new_zipfile_serialization=zipped)
    data = path.read_bytes()
    for size in (10, 100, 300, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:size])
        with pytest.raises(DataError) as caught:
            read_checkpoint(path)
        zip_ = f"a zip archive that is cut off after {size} bytes"
        why = zip_ if zipped else "cut off, or its pickle holds less than it says"
        assert str(caught.value) == f"{path} is damaged: {why}; fetch it again"


@pytest.mark.parametrize("name", ["w.npz", "w.h5", "w.onnx", "w.msgpack", "w"])
def test_other_kinds_of_files_are_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"anything")
    with pytest.raises(UsageError, match=r"no file of weights that is read here.*\.ckpt"):
        resolve_weights(TIMM, str(tmp_path / name), tmp_path)
    with pytest.raises(UsageError, match="a folder; name the file"):
        resolve_weights(TIMM, str(tmp_path), tmp_path)


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
    with pytest.raises(DataError, match="not a readable safetensors file"):
        load_backbone(weights)
    path.unlink()
    with pytest.raises(DataError, match="there is no weights file"):
        load_backbone(weights)


@pytest.mark.parametrize(
    ("name", "antialias"),
    [
        ("vit_small_patch14_dinov2.lvd142m", False),
        ("vit_small_patch14_reg4_dinov2.lvd142m", True),
        ("vit_base_patch16_224", True),
        ("uni_perceiver_large", False),
    ],
)
def test_position_tables_are_resized_as_their_authors_do(tmp_path, name, antialias):
    assert resolve_weights(name, "random", tmp_path).pos_antialias is antialias


def test_cache_folder_comes_from_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("LPMOE_BENCH_CACHE", str(tmp_path))
    assert default_cache() == tmp_path
    monkeypatch.delenv("LPMOE_BENCH_CACHE")
    assert default_cache() == Path.home() / ".cache" / "lpmoe-bench"


# Weights from outside: tensors come back, code never runs, damage is one sentence.


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
        ({"model": {"lr": 3}}, "no tensors by name"),
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
    with pytest.raises(UsageError, match=r"\.safetensors, \.pth, \.pt, \.bin or \.ckpt"):
        read_checkpoint(tmp_path / "weights.zip")


# Conversion: every tensor of the ONNX graph arrives under its timm name, or a sentence.


def test_conversion_gives_every_tensor_under_its_timm_name():
    state = tiny_tensors()
    converted = dinov2_state(tiny_onnx(state).graph)
    assert converted.keys() == state.keys()
    for name, tensor in state.items():
        np.testing.assert_array_equal(converted[name], tensor, err_msg=name)
    tensors = {name: torch.from_numpy(t.copy()) for name, t in converted.items()}
    size = {"embed_dim": WIDTH, "depth": DEPTH, "num_heads": 2, "img_size": GRID * 14}
    backbone = create_backbone(default_backbone.TIMM_NAME, tensors, False, **size)
    assert torch.equal(backbone.vit.blocks[2].attn.qkv.bias, tensors["blocks.2.attn.qkv.bias"])


@pytest.mark.parametrize(
    ("gone", "sentence"),
    [
        ("onnx::Reshape_9", "no position table in two parts"),
        ("onnx::MatMul_0", "no encoder.layer.0.attention.attention.key.weight"),
        ("backbone.encoder.layer.1.attention.attention.value.bias", "attention.value"),
        ("onnx::MatMul_7", "no weight for blocks.0.attn.proj.bias"),
    ],
)
def test_incomplete_graph_is_refused(gone, sentence):
    with pytest.raises(DataError, match=sentence):
        dinov2_state(drop(tiny_onnx(tiny_tensors()), gone).graph)


# Weights of the Hugging Face hub, with the hub's functions replaced: no network.


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The hub's functions, replaced: `fetch` answers, `cached` is what lies on the disk."""

    class Hub:
        cached: Path | None = None
        asked: list[str] = []
        files: dict[str, dict] = {}
        weights = "model.safetensors"

        @staticmethod
        def fetch() -> Path:
            raise AssertionError("the hub must not be asked")

    def download(repository, filename, revision=None):
        Hub.asked.append(repository)
        if filename in Hub.files:
            path = tmp_path / "c0ffee" / filename
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps(Hub.files[filename]))
            return str(path)
        if filename != Hub.weights:
            raise EntryNotFoundError(filename)
        return str(Hub.fetch())

    import huggingface_hub

    monkeypatch.setattr(hub_module, "_answer", lambda endpoint: None)
    Hub.asked = []
    found = lambda *args, **kwargs: str(Hub.cached) if Hub.cached else None  # noqa: E731
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", found)
    return Hub


def test_pretrained_weights_come_from_the_repository_timm_names(hub, tmp_path):
    with pytest.raises(DataError, match=r"--weights file.safetensors or --weights random"):
        resolve_weights(TIMM, None, tmp_path, offline=True)
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


def test_a_hub_that_does_not_answer_is_told_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(hub_module, "REACH_SECONDS", 0.01)
    silence = threading.Event()
    monkeypatch.setattr(hub_module, "_answer", lambda endpoint: silence.wait(60))
    with pytest.raises(DataError, match=r"cannot be reached .*no answer within 0.01 s.*--weights"):
        resolve_weights(TIMM, None, tmp_path)
    silence.set()

    def refuse(endpoint):
        raise ConnectionError("[Errno -2] Name or service not known\nmore")

    monkeypatch.setattr(hub_module, "_answer", refuse)
    with pytest.raises(DataError, match=r"\(\[Errno -2\] Name or service not known\)"):
        resolve_weights(TIMM, None, tmp_path)


def test_the_limit_for_an_answer_is_short():
    assert hub_module.REACH_SECONDS <= 12


OF_TIMM = {
    "architecture": TIMM,
    "model_args": {"img_size": 224},
    "pretrained_cfg": {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "license": "mit"},
}


def test_a_repository_says_which_model_it_is_and_its_facts(hub, tmp_path):
    hub.files = {"config.json": OF_TIMM}
    hub.fetch = lambda: save_tiny(tmp_path / "c0ffee" / "model.safetensors")
    weights = resolve_weights("hf-hub:some/vit", None, tmp_path)
    assert (weights.backbone, weights.timm_name, weights.licence) == (
        "hf-hub:some/vit",
        TIMM,
        "mit",
    )
    assert weights.source == "hf:some/vit@c0ffee/model.safetensors"
    assert weights.differing.mean == (0.1, 0.2, 0.3)
    assert weights.differing.std == (0.4, 0.5, 0.6)
    assert bool((load_backbone(weights).vit.cls_token == 0.25).all())
    random = resolve_weights("hf-hub:some/vit", "random:1", tmp_path)
    assert random.timm_name == TIMM


def test_an_older_repository_has_a_pickle(hub, tmp_path):
    hub.files = {"config.json": OF_TIMM | {"pretrained_cfg": {}}}
    hub.weights = "pytorch_model.bin"
    state = load_file(save_tiny(tmp_path / "w.safetensors"))

    def fetch():
        torch.save(state, tmp_path / "c0ffee" / "pytorch_model.bin")
        return tmp_path / "c0ffee" / "pytorch_model.bin"

    hub.fetch = fetch
    weights = resolve_weights("hf-hub:some/vit@v1", None, tmp_path)
    assert weights.source == "hf:some/vit@c0ffee/pytorch_model.bin"
    assert bool((load_backbone(weights).vit.cls_token == 0.25).all())


@pytest.mark.parametrize(
    ("config", "name"),
    [
        ({"model_type": "dinov2", "patch_size": 14}, "vit_small_patch14_dinov2"),
        (
            {"model_type": "dinov2_with_registers", "patch_size": 14, "num_register_tokens": 4},
            "vit_small_patch14_reg4_dinov2",
        ),
        ({"model_type": "dinov3_vit", "patch_size": 16}, "vit_small_patch16_dinov3"),
        (
            {"model_type": "dinov3_vit", "patch_size": 16, "use_gated_mlp": True},
            "vit_small_plus_patch16_dinov3",
        ),
        ({"model_type": "vit", "patch_size": 16}, "vit_small_patch16_224"),
        ({"model_type": "vit", "patch_size": 8}, "vit_small_patch8_224"),
        ({"model_type": "deit", "patch_size": 16}, "deit_small_distilled_patch16_224"),
        (
            {
                "model_type": "sam",
                "vision_config": {
                    "model_type": "sam_vision_model",
                    "hidden_size": 768,
                    "num_hidden_layers": 12,
                },
            },
            "sam_vit_b",
        ),
    ],
)
def test_configurations_of_transformers_lead_to_a_backbone(hub, config, name):
    hub.files = {"config.json": {"hidden_size": 384, "num_hidden_layers": 12} | config}
    hub.files["preprocessor_config.json"] = {"image_mean": [0.5, 0.5, 0.5], "image_std": "none"}
    found = hub_module.describe_repository("hf-hub:some/model", offline=False)
    assert (found.timm_name, found.mean, found.std) == (name, (0.5, 0.5, 0.5), None)


@pytest.mark.parametrize(
    ("name", "config", "sentence"),
    [
        ("hf-hub:vit", {}, r"hf-hub:owner/name"),
        ("hf-hub:a/b/c", {}, r"hf-hub:owner/name"),
        ("hf-hub:a/b", {"model_type": "swin"}, "a/b is swin"),
        ("hf-hub:a/b", {"model_type": "vit", "hidden_size": 7, "num_hidden_layers": 1}, "is vit"),
        ("hf-hub:a/b", {"architecture": "no_such_model"}, "no_such_model of timm and is none"),
        ("hf-hub:a/b", {"architecture": TIMM, "model_args": {"depth": 3}}, "has depth=3"),
    ],
)
def test_repositories_that_are_none_are_refused(hub, name, config, sentence):
    hub.files = {"config.json": config}
    with pytest.raises(UsageError, match=sentence):
        hub_module.describe_repository(name, offline=False)
    with pytest.raises((UsageError, DataError), match=r"--offline is set|owner/name"):
        hub_module.describe_repository(name, offline=True)


@pytest.mark.parametrize("name", ["someone/model", "folder/weights.pth"])
def test_a_bare_repository_is_told_how_to_write_it(tmp_path, name):
    with pytest.raises(
        UsageError, match=rf"write hf-hub:owner/name, for a file .*--weights {name}"
    ):
        resolve_weights(name, None, tmp_path)


def test_a_name_of_another_library_that_is_nearly_right(tmp_path):
    with pytest.raises(UsageError, match="did you mean facebook/dinov2-small"):
        resolve_weights("facebook/dinov2-smal", None, tmp_path)
    with pytest.raises(ZooError, match="closest: dinov2_vits14"):
        resolve_weights("dinov2_vits15", None, tmp_path)


def test_names_of_other_libraries_are_names_of_backbones():
    for name in {*ALIASES.values()}:
        check_backbone_name(name)
    assert known_as("dinov2_vits14") == "vit_small_patch14_dinov2.lvd142m"
    assert known_as("facebook/dinov2-with-registers-large") == (
        "vit_large_patch14_reg4_dinov2.lvd142m"
    )
    assert known_as("dinov3_vitl16") == "vit_large_patch16_dinov3.lvd1689m"
    assert known_as("facebook/sam-vit-base") == "samvit_base_patch16.sa1b"
    assert known_as("vit_b") == "sam_vit_b"
    assert known_as("timm/vit_base_patch16_224.mae") == "vit_base_patch16_224.mae"
    assert known_as("hf_hub:a/b") == "hf-hub:a/b"
    assert known_as(TIMM) == TIMM
    assert RunConfig(backbone="dino_vitb8").backbone == "vit_base_patch8_224.dino"


def test_nothing_is_fetched_for_a_model_that_cannot_be_opened(hub, tmp_path):
    for name in ("resnet18", "vit_small_r26_s32_224", "vgg11"):
        with pytest.raises(ZooError, match="vit_"):
            resolve_weights(name, None, tmp_path)
    with pytest.raises(UsageError, match=r"no pretrained weights on the hub.*--weights random"):
        resolve_weights("vit_huge_patch14_gap_224.in1k_ijepa", None, tmp_path)


def test_hub_weights_of_every_named_head_are_dropped():
    vit = create_backbone(TIMM).vit
    state = vit.state_dict()
    heads = {f"{head}weight": torch.zeros(1) for head in fitting.HEADS}
    assert fitting.timm_state(state | heads, vit, TIMM).keys() == state.keys()


@pytest.mark.parametrize("name", ["../x", "a b/c", "-a/b", "a--b/c", "a/b.git", "a", "a/b/c"])
def test_a_name_that_no_repository_has_is_refused_before_the_hub_is_asked(name):
    with pytest.raises(UsageError, match=r"a repository of the hub is hf-hub:owner/name"):
        hub_module.describe_repository(f"hf-hub:{name}", offline=False)
