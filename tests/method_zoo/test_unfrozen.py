"""Methods that unfreeze parts of the backbone: exactly which ones, and what stays cacheable."""

import pytest
import torch
from conftest import tiny_backbone, tiny_image
from torch import nn

from method_zoo.contract.observe import perturb
from method_zoo.lora import LoRALinear
from method_zoo.options import get_method


def trained(name: str, **options) -> set[str]:
    method = get_method(name)(tiny_backbone("dinov2"), **options)
    return {n.removeprefix("backbone.vit.") for n in method.trainable()}


def every() -> set[str]:
    return {name for name, _ in tiny_backbone("dinov2").vit.named_parameters()}


def test_bitfit_trains_the_biases_alone():
    layers = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
    blocks = {f"blocks.{i}.{layer}.bias" for i in range(4) for layer in layers}
    assert trained("bitfit") == blocks | {"patch_embed.proj.bias", "norm.bias"}


def test_ln_tune_trains_every_norm():
    norms = {f"blocks.{i}.norm{k}" for i in range(4) for k in (1, 2)} | {"norm"}
    assert trained("ln_tune") == {f"{n}.{leaf}" for n in norms for leaf in ("weight", "bias")}


@pytest.mark.parametrize("blocks", [1, 3, 4])
def test_partial_trains_the_last_blocks_and_the_final_norm(blocks):
    kept = {f"blocks.{i}" for i in range(4 - blocks, 4)}
    expected = {n for n in every() if ".".join(n.split(".")[:2]) in kept or n.startswith("norm.")}
    assert trained("partial", blocks=blocks) == expected
    assert len(expected) == 2 + 14 * blocks  # with both LayerScales of a block


@pytest.mark.parametrize(("options", "adapted"), [({}, [2, 3]), ({"blocks": 1}, [3])])
def test_late_lora_adapts_the_last_blocks(options, adapted):
    method = get_method("late_lora")(tiny_backbone(), **options)
    layers = [block.attn.qkv for block in method.backbone.vit.blocks]
    assert [i for i, m in enumerate(layers) if isinstance(m, LoRALinear)] == adapted
    assert method.frozen_blocks == 4 - len(adapted)


@pytest.mark.parametrize("name", ["partial", "late_lora"])
def test_the_blocks_before_the_last_need_no_gradient(name):
    method, image = get_method(name)(tiny_backbone(), blocks=2), tiny_image(tiny_backbone())
    prefix = method.prefix(image)
    assert not prefix.tokens.x.requires_grad
    assert len(prefix.taps) == 2
    # The same after training: what was computed before it still serves.
    perturb(method)
    assert torch.equal(method.finish(prefix).final, method(image).final)
    assert torch.equal(method.prefix(image).tokens.x, prefix.tokens.x)


def test_late_lora_by_hand():
    layer = LoRALinear(nn.Linear(2, 1).requires_grad_(False), rank=1, alpha=3.0)
    with torch.no_grad():
        layer.base.weight.copy_(torch.tensor([[1.0, 1.0]]))
        layer.base.bias.fill_(0.5)
        layer.a.copy_(torch.tensor([[2.0, -1.0]]))
        layer.b.fill_(4.0)
    x = torch.tensor([1.0, 3.0])  # W x + b = 4.5, A x = -1, s B A x = 3 * 4 * -1
    assert layer(x).item() == 4.5 - 12
    assert layer.fold()(x).item() == 4.5 - 12


def test_scratch_forgets_the_pretrained_weights():
    method = get_method("scratch")(tiny_backbone())
    old = tiny_backbone().vit.state_dict()
    for name, tensor in method.backbone.vit.state_dict().items():
        assert not torch.equal(tensor, old[name]), f"{name} is as it was"
    assert len(method.trainable()) == len(old)
    assert "scratch" in method.title


def test_scratch_draws_from_the_seed_of_the_run():
    def weights(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return get_method("scratch")(tiny_backbone()).backbone.vit.blocks[0].attn.qkv.weight

    assert torch.equal(weights(0), weights(0))
    assert not torch.equal(weights(0), weights(1))
