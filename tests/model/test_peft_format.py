"""LoRA in the format of Hugging Face peft: both read each other's files, with equal outputs."""

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
from lpmoe_bench.model.merge import CONFIG, TENSORS, read_peft, write_peft
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
        ("late_lora", {"rank": 1, "blocks": 3}),
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


@pytest.mark.parametrize(
    ("title", "targets"),
    [("LoRA", ["qkv"]), ("Late LoRA", ["blocks.2.attn.qkv", "blocks.3.attn.qkv"])],
)
def test_we_read_what_peft_writes(peft, backbone, tmp_path, title, targets):
    config = peft.LoraConfig(
        r=2, lora_alpha=5, target_modules=targets, init_lora_weights=False, lora_dropout=0.1
    )
    model = peft.get_peft_model(timm_model(backbone), config).eval()
    model.save_pretrained(str(tmp_path))
    expected = native_tokens(model, backbone)
    method = read_peft(tmp_path, backbone).eval()
    assert method.title == title
    torch.testing.assert_close(tokens(method), expected)


@pytest.mark.parametrize(
    ("name", "options"), [("lora", {"rank": 2}), ("late_lora", {"blocks": 1, "alpha": 0.3})]
)
def test_what_we_write_we_read(backbone, tmp_path, name, options):
    method = trained(name, backbone, **options)
    expected = tokens(method)
    write_peft(method, tmp_path, TIMM)
    torch.manual_seed(0)
    again = read_peft(tmp_path, create_backbone(TIMM, **SIZE)).eval()
    assert type(again) is type(method)
    assert torch.equal(tokens(again), expected)


@pytest.mark.parametrize("name", ["dora", "conv_lora", "vpt"])
def test_another_method_is_refused(backbone, tmp_path, name):
    with pytest.raises(UsageError, match="no plain LoRA; peft's format can hold lora, late_lora"):
        write_peft(get_method(name)(backbone), tmp_path, TIMM)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("family", ["eva02", "eva02_fused", "beit"])
def test_a_model_that_would_pass_the_adapter_by_is_refused(tmp_path, family):
    with pytest.raises(UsageError, match="peft's adapter would do nothing there"):
        write_peft(get_method("lora")(tiny_backbone(family)), tmp_path, family)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"use_dora": True}, "use_dora True, which is another method than plain LoRA"),
        ({"use_rslora": True}, "use_rslora True"),
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
        ("blocks.0.attn.qkv", "blocks.0.mlp.fc1", r"holds .*mlp\.fc1.* only a LoRA on blocks"),
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
