"""Decoder and segmenter: any channels and strides, image-size logits, state round trip."""

import pytest
import torch

from lpmoe_bench.decoders import FPN, get_decoder
from lpmoe_bench.model import Segmenter
from method_zoo import ZooError, create_backbone, get_method
from method_zoo._method import Features


def tiny_segmenter(method: str = "lora", seed: int = 0) -> Segmenter:
    torch.manual_seed(seed)
    backbone = create_backbone(
        "vit_tiny_patch16_224", embed_dim=48, depth=4, num_heads=3, img_size=64
    )
    adapted = get_method(method)(backbone)
    return Segmenter(adapted, FPN(adapted.channels, adapted.strides, 1, width=16))


@pytest.mark.parametrize("strides", [[16] * 4, [4, 8, 16, 32], [8, 16], [32]])
def test_any_channels_and_strides(strides: list[int]):
    channels = [8 * (k + 1) for k in range(len(strides))]
    maps = [torch.randn(2, c, 64 // s, 96 // s) for c, s in zip(channels, strides, strict=True)]
    features = Features(maps, maps[-1], torch.zeros(()))
    for classes in (1, 3):
        logits = FPN(channels, strides, classes, width=16)(features)
        assert logits.shape == (2, classes, 16, 24)


def test_logits_have_image_size_and_every_parameter_learns():
    segmenter = tiny_segmenter()
    logits, aux = segmenter(torch.rand(2, 3, 64, 96))
    assert logits.shape == (2, 1, 64, 96)
    assert aux.shape == ()
    logits.sum().backward()
    assert all(p.grad is not None for p in segmenter.decoder.parameters())


def test_state_round_trip_is_exact():
    one, other = tiny_segmenter(seed=1), tiny_segmenter(seed=1)
    for parameter in one.parameters():
        if parameter.requires_grad:
            parameter.data.normal_()
    other.load_state(one.state())
    image = torch.rand(1, 3, 64, 64)
    assert torch.equal(one.eval()(image)[0], other.eval()(image)[0])


def test_foreign_states_are_refused():
    segmenter = tiny_segmenter()
    with pytest.raises(ZooError, match="neither a method nor a decoder"):
        segmenter.load_state({"weights": torch.zeros(1)})
    with pytest.raises(ZooError, match="adapter state is not of LoRA"):
        segmenter.load_state(tiny_segmenter("vpt").state())
    wrong = {k: v for k, v in segmenter.state().items() if k != "decoder.logits.bias"}
    with pytest.raises(ZooError, match="decoder"):
        segmenter.load_state(wrong)


def test_wrong_options_are_sentences():
    with pytest.raises(ZooError, match="did you mean 'fpn'"):
        get_decoder("fpm")
    with pytest.raises(ZooError, match="multiple of 8"):
        FPN([8], [16], 1, width=20)
