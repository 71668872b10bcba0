"""ViT-Split: its heads by hand, its convolution beside torchvision's, and the printed sizes."""

import pytest
import torch
from conftest import tiny_backbone, tiny_image
from hand_backbone import assert_values, fill, gelu, grey, hand_backbone, patch_of
from torchvision.ops import deform_conv2d

from method_zoo.backbones.create import create_backbone
from method_zoo.contract.observe import perturb, plain_outputs
from method_zoo.errors import ZooError
from method_zoo.options import get_method
from method_zoo.vit_split import OffsetConv


def pass_through(head) -> None:
    """Let a head sum its inputs, two channels each, and read every place itself."""
    fill(
        head.squeeze.weight, torch.eye(2).repeat(1, head.squeeze.in_channels // 2)[..., None, None]
    )
    fill(head.squeeze.bias, [0, 0])
    fill(head.convolve.offsets.weight, torch.zeros(18, 2, 3, 3))
    fill(head.convolve.offsets.bias, torch.zeros(18))
    fill(head.convolve.weight, torch.zeros(2, 2, 3, 3))
    fill(head.convolve.weight[:, :, 1, 1], torch.eye(2))


def test_vit_split_by_hand():
    method = get_method("vit_split")(hand_backbone(), taps=2, copies=1)
    pass_through(method.prior)
    pass_through(method.fuse)
    fill(method.task[0].mlp.fc2.bias, [-2, 1])
    # The blocks do nothing: both taps are (3, 1), and the copy makes (1, 2) of it.
    prior = [gelu(gelu(6)), gelu(gelu(2))]
    expected = [gelu(gelu(prior[0] + 1)), gelu(gelu(prior[1] + 2))]
    assert_values(patch_of(method(grey(method.backbone))), expected, 1e-5)


def test_an_offset_leads_a_tap_elsewhere():
    conv = OffsetConv(1)
    fill(conv.offsets.weight, torch.zeros(18, 1, 3, 3))
    fill(conv.offsets.bias, [0] * 8 + [0.0, 1.5] + [0] * 8)  # the middle tap, to the right
    fill(conv.weight, [[[[0, 0, 0], [0, 2, 0], [0, 0, 0]]]])
    x = torch.tensor([[[[1.0, 2.0, 4.0, 8.0]]]])
    # Between the first and the second to the right; beyond the edge all is zero.
    assert_values(conv(x), [[[[6.0, 12.0, 8.0, 0.0]]]], 1e-5)


def test_the_convolution_is_that_of_torchvision():
    torch.manual_seed(0)
    conv, x = OffsetConv(6), torch.randn(2, 6, 5, 7, requires_grad=True)
    fill(conv.offsets.bias, torch.randn(18))
    expected = deform_conv2d(x, conv.offsets(x), conv.weight, padding=1)
    got = conv(x)
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)
    weigh = torch.randn_like(got)
    inputs = (x, conv.weight, conv.offsets.weight)
    found, wanted = (torch.autograd.grad((y * weigh).sum(), inputs) for y in (got, expected))
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("depth", "taps", "expected"), [(12, 4, [2, 5, 8, 11]), (24, 8, [2, 5, 8, 11, 14, 17, 20, 23])]
)
def test_blocks_that_the_prior_reads(depth, taps, expected):
    size = {"embed_dim": 6, "depth": depth, "num_heads": 1, "img_size": 32}
    method = get_method("vit_split")(create_backbone("vit_tiny_patch16_224", **size), taps=taps)
    assert method.read == expected


def decoder(d: int, classes: int = 150) -> int:
    """The authors': two transposed convolutions and norms, a norm, a layer; and a norm that is
    never used."""
    return 2 * (4 * d**2 + 3 * d) + 2 * d + d * classes + classes + 2 * d


@pytest.mark.parametrize(
    ("name", "options", "count"),
    [
        ("vit_small_patch14_dinov2", {}, 10_231_098),
        ("vit_large_patch14_dinov2", {"taps": 8, "copies": 4}, 88_639_674),
    ],
)
def test_count_with_the_authors_decoder_is_the_printed_one(name, options, count):
    with torch.device("meta"):
        method = get_method("vit_split")(create_backbone(name), **options)
    trained = sum(p.numel() for p in method.trainable().values())
    assert trained + decoder(method.backbone.dim) == count


@pytest.mark.parametrize("family", ["registers", "beit", "eva02", "sam"])
def test_the_copies_start_as_the_blocks_that_they_copy(family):
    method = get_method("vit_split")(tiny_backbone(family))
    backbone, image = method.backbone, tiny_image(method.backbone)
    with torch.no_grad():
        t = method.prefix(image).tokens
        for i in range(method.first, backbone.depth):
            t = method._copied(i, t)
        assert torch.equal(backbone.norm(t).map(), plain_outputs(tiny_backbone(family), image)[3])


def test_no_gradient_enters_the_backbone_and_all_is_computed_once():
    method, image = get_method("vit_split")(tiny_backbone()), tiny_image(tiny_backbone())
    prefix = method.prefix(image)
    assert not any(t.x.requires_grad for t in (prefix.tokens, *prefix.taps))
    assert torch.equal(perturb(method).finish(prefix).final, method(image).final)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"copies": 5}, "copies is 5; a backbone of 4 blocks takes 1 to 4"),
        ({"start": 4}, "start is 4; it must be 0 to 3"),
        ({"taps": 1}, "taps is 1; it must be at least 2"),
    ],
)
def test_a_wrong_option_is_one_sentence(options, sentence):
    with pytest.raises(ZooError, match=sentence):
        get_method("vit_split")(tiny_backbone(), **options)
