"""Frozen weights that are rounded once give the very numbers that autocast rounds anew."""

import copy

import pytest
import torch
import torch.nn.functional as F
from conftest import tiny_backbone
from tiny_runs import corners

from lpmoe_bench.model.decoders.names import build_decoder
from lpmoe_bench.model.segmenter import Segmenter, keep_frozen_rounded
from method_zoo.contract.families import FAMILIES, family_for
from method_zoo.options import get_method, list_methods


def segmenter_of(method: str, family: str | None = None) -> Segmenter:
    cls = get_method(method)
    torch.manual_seed(0)
    adapted = cls(tiny_backbone(family or family_for(cls)))
    decoder = build_decoder("fpn", adapted, 1, {"width": 8})
    decoder.train_with("structure")
    for parameter in adapted.parameters():  # away from a start at which a method does nothing
        if parameter.requires_grad:
            parameter.data.add_(0.01 * torch.randn_like(parameter))
    return Segmenter(adapted, decoder)


def step(segmenter: Segmenter) -> tuple[torch.Tensor, ...]:
    """Loss, gradients and a prediction under autocast."""
    # 64 x 96, the one size that the tiny BEiT takes
    images, masks = (F.pad(t, (0, 32)) for t in corners())
    torch.manual_seed(1)
    with torch.autocast("cpu", torch.bfloat16):
        loss = segmenter.train()(images, masks)
    loss.backward()
    gradients = [p.grad for p in segmenter.parameters() if p.grad is not None]
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        return loss, segmenter.eval()(images), *gradients


CASES = [(method, None) for method in list_methods()]
CASES += [("decoder_only", family) for family in FAMILIES]


@pytest.mark.parametrize(("method", "family"), CASES)
def test_no_bit_of_a_step_changes(method: str, family: str | None):
    first = segmenter_of(method, family)
    other = copy.deepcopy(first)
    state = {name: tensor.clone() for name, tensor in first.state().items()}
    keep_frozen_rounded(other, "bf16-mixed")
    assert all(torch.equal(tensor, state[name]) for name, tensor in other.state().items())
    for one, rounded in zip(step(first), step(other), strict=True):
        assert torch.equal(one, rounded)


def test_what_is_frozen_takes_half_the_memory_and_nothing_else_is_rounded():
    segmenter = segmenter_of("lora")
    before = {name: p.dtype for name, p in segmenter.named_parameters()}
    keep_frozen_rounded(segmenter, "32-true")
    assert {name: p.dtype for name, p in segmenter.named_parameters()} == before
    keep_frozen_rounded(segmenter, "bf16-mixed")
    rounded = {n for n, p in segmenter.named_parameters() if p.dtype is torch.bfloat16}
    assert any("mlp.fc1.weight" in name for name in rounded)
    assert not any("qkv" in name or "norm" in name or "decoder" in name for name in rounded)
    trained = {n for n, p in segmenter.named_parameters() if p.requires_grad}
    assert not rounded & trained
