"""ViT-CoMer: its mixture and ways in and back by hand, the authors' network, printed sizes."""

import pytest
import torch
from conftest import tiny_backbone, tiny_image
from hand_backbone import assert_values, fill, gelu
from reference_tensors import assert_reference, needs_reference
from torch import nn
from vit_adapter_state import network, under_our_names

from lpmoe_bench.model.decoders.decoder import Inputs
from lpmoe_bench.model.decoders.upernet import UperNet
from method_zoo.backbones.create import create_backbone
from method_zoo.errors import ZooError
from method_zoo.options import get_method
from method_zoo.parts.deformable import places
from method_zoo.vit_comer import GridMixture, PriorToVit, VitToPrior

GRIDS = [(2, 2), (1, 1), (1, 1)]


class Plain(nn.Module):
    """A part whose output can be told by hand: so many times its first input."""

    def __init__(self, factor: float):
        super().__init__()
        self.factor = factor

    def forward(self, x, *_):
        return self.factor * x


def test_vit_comer_by_hand():
    module = PriorToVit(1, 0.5, 0.0, heads=1, points=1, ratio=1.0)
    module.norm_query = module.norm_features = module.norm_feed = nn.Identity()
    module.attention, module.feed = Plain(2), Plain(3)
    # c = 1, 2, 3, 6 at stride 8, 4 at 16, 5 at 32; u = 2 c + 3 (2 c) = 8 c; the mean of the four is
    # 3: 0.5 * 8 (3 + 4 + 5).
    c = torch.tensor([[[1.0], [2.0], [3.0], [6.0], [4.0], [5.0]]])
    where = places(GRIDS, c)
    assert_values(module(c, where), [[(48.0,)]], 1e-5)
    back = VitToPrior(1, 0.0, True, heads=1, points=1, ratio=1.0)
    back.norm_query = back.norm_features = nn.Identity()
    back.read, back.norm_feed, back.feed = nn.Identity(), Plain(1), Plain(2)
    back.read.forward = lambda q, f, *_: q * q + f
    # The ViT's 7 joins the middle grid: 4 + 7 = 11; twice of it on top, 33; then 33 * 33 + 33.
    expected = [[(v * v + v,) for v in (3.0, 6.0, 9.0, 18.0, 33.0, 15.0)]]
    assert_values(back(c, torch.tensor([[[7.0]]]), where), expected, 1e-4)


def test_its_mixture_filters_halves_of_the_channels():
    module = GridMixture(1, 2).eval()
    fill(module.fc1.weight, [[1], [1]])
    for k, (small, large) in enumerate(zip(module.small, module.large, strict=True)):
        for conv, factor in ((small, 1.0 + k), (large, 10.0)):
            conv.weight.detach().zero_()[0, 0, conv.kernel_size[0] // 2, -1] = factor
            fill(conv.bias, [0.5])
    fill(module.fc2.weight, [[1, 100]])
    # Only the large filter's last column reaches two to the right, the small one's reaches one.
    tokens = torch.tensor([[[1.0], [2.0], [3.0], [4.0], [5.0]]])
    found = module(tokens, [(1, 3), (1, 1), (1, 1)])
    scale = (1 + 1e-5) ** -0.5  # of a norm that has seen nothing
    rows = [(2.5, 30.5), (3.5, 0.5), (0.5, 0.5), (0.5, 0.5), (0.5, 0.5)]
    twice = [[gelu(gelu(scale * v)) for v in row] for row in rows]
    assert_values(found, [[(a + 100 * b,) for a, b in twice]], 1e-3)


def test_an_odd_number_of_channels_is_refused():
    with pytest.raises(ZooError, match="makes 15 channels of 48; they must be even"):
        get_method("vit_comer")(tiny_backbone(), hidden=0.32)


def test_the_frozen_stream_stays_at_the_start():
    image = tiny_image(tiny_backbone())
    frozen = get_method("decoder_only")(tiny_backbone())(image)
    assert torch.equal(get_method("vit_comer")(tiny_backbone())(image).final, frozen.final)


# Millions with backbone, UperNet and its auxiliary head, all of which train there.
PRINTED = {
    "vit_tiny_patch16_224": (5_090_912, 38.7),
    "vit_small_patch16_224": (9_606_752, 61.4),
    "vit_base_patch16_224": (24_788_864, 144.7),
}


@pytest.mark.parametrize("name", PRINTED)
def test_count_is_the_printed_one(name):
    count, printed = PRINTED[name]
    with torch.device("meta"):
        backbone = create_backbone(name, class_token=False)
        method = get_method("vit_comer")(backbone)
        decoder = UperNet(Inputs.of(method), 150)
    trained = sum(p.numel() for p in method.trainable().values())
    assert trained == count
    trunk = method.backbone_size - 2 * backbone.dim  # its last norm, which nothing reads there
    total = trunk + trained + sum(p.numel() for p in decoder.parameters())
    assert round(total / 1e6, 1) == printed


NAMES = (
    (r"^interactions\.(\d)\.cti_tov\.", r"into_vit.\1."),
    (r"^interactions\.(\d)\.cti_toc\.", r"into_prior.\1.0."),
    (r"^interactions\.3\.extra_CTIs\.(\d)\.", lambda m: f"into_prior.3.{int(m[1]) + 1}."),
    (r"cfinter\.", "read."),
    (r"^interactions\.(\d)\.mrfp\.fc", r"mix.\1.fc"),
    (r"^interactions\.(\d)\.mrfp\.dwconv\.bn(\d)", lambda m: f"mix.{m[1]}.norms.{int(m[2]) - 1}"),
    (r"^interactions\.(\d)\.mrfp\.dwconv\.dwconv(\d)", lambda m: filters(int(m[1]), int(m[2]) - 1)),
)


def filters(stage: int, number: int) -> str:
    return f"mix.{stage}.{'large' if number % 2 else 'small'}.{number // 2}"


@needs_reference
def test_vit_comer_is_the_authors_network():
    tensors, state, backbone = network("vit_comer")
    method = get_method("vit_comer")(backbone, heads=2, ratio=1.0, width=16, hidden=1.5).eval()
    own = under_our_names(state, NAMES)
    method.load_adapter_state(method.adapter_state() | own)
    taps = {}
    method.mix[0].register_forward_hook(lambda *a: taps.update(mrfp0=a[2]))
    method.into_prior[0][0].register_forward_hook(lambda *a: taps.update(to_cnn0=a[2]))
    method.into_prior[3][1].register_forward_hook(lambda *a: taps.update(extra3_0=a[2]))
    maps = method(tensors["image"]).maps
    for name, got in taps.items():
        assert_reference(got, tensors[f"tap/{name}"])
    for k, got in enumerate(maps, start=1):
        assert_reference(got, tensors[f"out/f{k}"])
    sum(m.square().sum() for m in maps).backward()
    gradients = {k[3:]: t for k, t in tensors.items() if k.startswith("gw/")}
    for name, expected in under_our_names(gradients, NAMES).items():
        got = method.get_parameter(name).grad
        assert got is not None, name
        largest = expected.abs().max()
        assert_reference(got / largest, expected / largest)
