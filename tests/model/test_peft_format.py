"""The format of Hugging Face peft: both read each other's files, with equal outputs."""

import json
import warnings

import pytest
import timm
import torch
from conftest import tiny_backbone
from safetensors.torch import load_file, save_file
from tiny_runs import arguments, call, draw_data, only_run

from lpmoe_bench.environment import default_cache
from lpmoe_bench.errors import DataError, UsageError
from lpmoe_bench.model.peft_format import CONFIG, TENSORS, read_peft, write_peft
from lpmoe_bench.model.segmenter import load_trained
from method_zoo.backbones.create import create_backbone
from method_zoo.errors import ZooError
from method_zoo.options import get_method

TIMM, SIZE = "vit_tiny_patch16_224", {"embed_dim": 24, "depth": 4, "num_heads": 3, "img_size": 32}


@pytest.fixture(scope="module")
def peft():
    """peft itself, which brings libraries that warn while they are imported."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("peft")


@pytest.fixture
def backbone():
    torch.manual_seed(0)
    return create_backbone(TIMM, **SIZE)


def timm_model(backbone) -> torch.nn.Module:
    """The same model as timm itself builds it, with the same weights."""
    model = timm.create_model(TIMM, num_classes=0, global_pool="", **SIZE).eval()
    model.load_state_dict(backbone.vit.state_dict())
    return model


def trained(name: str, backbone, **options):
    torch.manual_seed(1)
    method = get_method(name)(backbone, **options).eval()
    with torch.no_grad():
        for parameter in method.trainable().values():
            parameter.normal_(std=0.2)
    return method


def tokens(method) -> torch.Tensor:
    """The final features as timm returns them, without the class token: (1, 4, C)."""
    with torch.no_grad():
        return method(image(method.backbone)).final.flatten(2).mT


def image(backbone) -> torch.Tensor:
    return torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(2))


def native_tokens(model, backbone) -> torch.Tensor:
    with torch.no_grad():
        return model(backbone.normalise(image(backbone)))[:, 1:]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("lora", {"rank": 2, "alpha": 3.0}),
        ("lora", {"rank": 3, "alpha": 2.5, "targets": "qv"}),
        ("lora", {"rank": 4, "alpha": 3.0, "rslora": True}),
        ("lora", {"rank": 3, "targets": "qv", "rslora": True}),
        ("late_lora", {"rank": 1, "blocks": 3}),
        ("dora", {"rank": 2, "alpha": 5.0}),
        ("vera", {"rank": 6, "seed": 3}),
    ],
)
def test_peft_reads_what_we_write(peft, backbone, tmp_path, name, options):
    model = timm_model(backbone)
    frozen = native_tokens(model, backbone)
    method = trained(name, backbone, **options)
    write_peft(method, tmp_path, TIMM)
    adapted = peft.PeftModel.from_pretrained(model, str(tmp_path)).eval()
    torch.testing.assert_close(native_tokens(adapted, backbone), tokens(method))
    assert not torch.allclose(frozen, tokens(method), atol=1e-2)


LAST = ["blocks.2.attn.qkv", "blocks.3.attn.qkv"]


@pytest.mark.parametrize(
    ("title", "kind", "said"),
    [
        ("LoRA", "Lora", {"lora_alpha": 5}),
        ("LoRA", "Lora", {"lora_alpha": 5, "use_rslora": True}),
        ("Late LoRA", "Lora", {"lora_alpha": 5, "target_modules": LAST}),
        ("Late LoRA", "Lora", {"lora_alpha": 5, "target_modules": LAST, "use_rslora": True}),
        ("DoRA", "Lora", {"lora_alpha": 5, "use_dora": True}),
        ("DoRA", "Lora", {"lora_alpha": 5, "use_dora": True, "use_rslora": True}),
        ("VeRA", "Vera", {"projection_prng_key": 5}),
        ("VeRA", "Vera", {"projection_prng_key": 5, "save_projection": False}),
    ],
)
@pytest.mark.filterwarnings("ignore:Specified to not save vera_A")
def test_we_read_what_peft_writes(peft, backbone, tmp_path, title, kind, said):
    options = {"init_lora_weights": False, "lora_dropout": 0.1} if kind == "Lora" else {}
    config = getattr(peft, f"{kind}Config")(r=4, **{"target_modules": ["qkv"]} | options | said)
    model = peft.get_peft_model(timm_model(backbone), config).eval()
    torch.manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "vera_lambda" in name or "magnitude" in name:
                parameter.add_(torch.randn_like(parameter) * 0.2)
    model.save_pretrained(str(tmp_path))
    expected = native_tokens(model, backbone)
    assert not torch.allclose(expected, native_tokens(timm_model(backbone), backbone), atol=1e-2)
    method = read_peft(tmp_path, backbone).eval()
    assert method.title == title
    torch.testing.assert_close(tokens(method), expected)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("lora", {"rank": 2}),
        ("lora", {"rank": 2, "rslora": True}),
        ("late_lora", {"blocks": 1, "alpha": 0.3}),
        ("dora", {"alpha": 0.3}),
        ("vera", {"rank": 5}),
    ],
)
def test_what_we_write_we_read(backbone, tmp_path, name, options):
    method = trained(name, backbone, **options)
    expected = tokens(method)
    write_peft(method, tmp_path, TIMM)
    torch.manual_seed(0)
    again = read_peft(tmp_path, create_backbone(TIMM, **SIZE)).eval()
    assert type(again) is type(method)
    assert torch.equal(tokens(again), expected)


@pytest.mark.parametrize("name", ["adaptformer", "conv_lora", "vpt"])
def test_another_method_is_refused(backbone, tmp_path, name):
    with pytest.raises(
        UsageError, match=r"cannot hold .*; it can hold lora, late_lora, dora, vera"
    ):
        write_peft(get_method(name)(backbone), tmp_path, TIMM)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("family", ["eva02", "eva02_fused", "beit"])
def test_a_model_that_would_pass_the_adapter_by_is_refused(tmp_path, family):
    with pytest.raises(UsageError, match="peft's adapter would do nothing there"):
        write_peft(get_method("lora")(tiny_backbone(family)), tmp_path, family)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"lora_bias": True}, "lora_bias True, which is another method than those of ours"),
        ({"rank_pattern": {"blocks.0": 4}}, "rank_pattern"),
        ({"peft_type": "IA3"}, "peft_type 'IA3'"),
        ({"bias": "all"}, "bias 'all'"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights 'pissa'"),
    ],
)
def test_a_config_of_another_equation_is_refused(backbone, tmp_path, change, sentence):
    write_peft(get_method("lora")(backbone), tmp_path, TIMM)
    config = json.loads((tmp_path / CONFIG).read_text())
    (tmp_path / CONFIG).write_text(json.dumps(config | change))
    with pytest.raises(UsageError, match=sentence):
        read_peft(tmp_path, backbone)


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        (
            "blocks.0.attn.qkv",
            "blocks.0.mlp.fc1",
            r"holds .*mlp\.fc1.* only LoRA, DoRA and VeRA on blocks",
        ),
        ("blocks.0.", "blocks.7.", r"adapts blocks \[1, 2, 3, 7\] of a backbone that has 4"),
    ],
)
def test_an_adapter_of_other_layers_is_refused(backbone, tmp_path, old, new, sentence):
    write_peft(get_method("lora")(backbone), tmp_path, TIMM)
    state = load_file(tmp_path / TENSORS)
    save_file({name.replace(old, new): t for name, t in state.items()}, tmp_path / TENSORS)
    with pytest.raises(UsageError, match=sentence):
        read_peft(tmp_path, backbone)


def test_files_of_another_width_and_damaged_ones_are_a_sentence(backbone, tmp_path):
    with pytest.raises(DataError, match="is no configuration of a LoRA"):
        read_peft(tmp_path, backbone)
    write_peft(get_method("lora")(backbone), tmp_path, TIMM)
    with pytest.raises(ZooError, match=r"is \(8, 24\), LoRA with these options needs \(8, 48\)"):
        read_peft(tmp_path, create_backbone(TIMM, **SIZE | {"embed_dim": 48}))
    (tmp_path / TENSORS).write_bytes(b"\x08\0\0\0\0\0\0\0not json")
    with pytest.raises(DataError, match="cannot be read"):
        read_peft(tmp_path, backbone)
    config = json.loads((tmp_path / CONFIG).read_text())
    (tmp_path / CONFIG).write_text(json.dumps(config | {"r": "8"}))
    with pytest.raises(DataError, match=r"r '8'.*must be numbers"):
        read_peft(tmp_path, backbone)


def test_random_matrices_of_another_seed_are_refused(backbone, tmp_path):
    write_peft(get_method("vera")(backbone, rank=2), tmp_path, TIMM)
    config = json.loads((tmp_path / CONFIG).read_text())
    (tmp_path / CONFIG).write_text(json.dumps(config | {"projection_prng_key": 1}))
    torch.manual_seed(0)
    with pytest.raises(UsageError, match=r"not what its projection_prng_key 1 draws"):
        read_peft(tmp_path, create_backbone(TIMM, **SIZE))
    (tmp_path / CONFIG).write_text(json.dumps(config | {"projection_prng_key": "1"}))
    with pytest.raises(DataError, match=r"projection_prng_key '1'; both must be numbers"):
        read_peft(tmp_path, backbone)


def test_dora_of_the_last_blocks_alone_is_refused(backbone, tmp_path):
    write_peft(get_method("dora")(backbone), tmp_path, TIMM)
    state = load_file(tmp_path / TENSORS)
    save_file({k: t for k, t in state.items() if "blocks.0." not in k}, tmp_path / TENSORS)
    with pytest.raises(UsageError, match="has dora in 3 of 4 blocks; only plain LoRA can be read"):
        read_peft(tmp_path, backbone)


def test_a_run_is_exported_and_merged_from_the_command_line(tmp_path):
    quick = ("--set", "train.epochs=1", "--set", "train.limit_train=8", "--set", "rank=2")
    done = call(arguments(draw_data(tmp_path), tmp_path / "runs", *quick))
    assert done.code == 0, done.stderr
    run, adapter = only_run(tmp_path / "runs"), tmp_path / "adapter"
    assert call(["export", str(run), "-o", str(adapter)]).stdout == f"{adapter}\n"
    again = call(["export", str(run), "-o", str(adapter)])
    assert again.code == 2
    assert "use --force" in again.stderr
    file = tmp_path / "plain.safetensors"
    done = call(["merge", str(adapter), "-o", str(file), "--weights", "random:3"])
    assert done.code == 0, done.stderr
    expected = load_trained(run, default_cache())[0].method.merge().state()
    got = load_file(file)
    assert got.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(got[name], tensor, atol=1e-6, rtol=1e-6)


def test_a_model_in_stages_is_refused(tmp_path):
    method = get_method("lora")(tiny_backbone("swin"))
    with pytest.raises(UsageError, match="blocks in stages; merge the run instead"):
        write_peft(method, tmp_path, "swin_tiny_patch4_window7_224")
    with pytest.raises(UsageError, match="blocks in stages"):
        read_peft(tmp_path, tiny_backbone("swin"))
