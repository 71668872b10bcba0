"""VFM-Adapter: its equations by hand, counts, kernels of each image, what is shared."""

import math

import pytest
import torch
from conftest import tiny_backbone, tiny_image
from counts import vfm_adapter
from hand_backbone import on_grid, set_all
from torch.nn import functional as F

from method_zoo.backbones.create import create_backbone
from method_zoo.options import get_method
from method_zoo.parts.layers import convolve_each
from method_zoo.vfm_adapter import HyperNetwork, pooled


@pytest.mark.parametrize("inputs", [4, 1])
def test_each_image_has_its_own_kernels(inputs):
    maps, kernels = torch.rand(3, 4, 5, 7), torch.rand(3, 4, inputs, 3, 3)
    alone = [
        F.conv2d(m[None], k, padding=1, groups=4 // inputs)
        for m, k in zip(maps, kernels, strict=True)
    ]
    torch.testing.assert_close(convolve_each(maps, kernels), torch.cat(alone))


@pytest.mark.parametrize(
    ("options", "thousands"),
    [({}, 2519), ({"bottleneck": 16}, 1909), ({"inner": 64}, 2784), ({"bottleneck": 64}, 3738)],
)
def test_vfm_adapter_counts_on_the_width_of_sam_base(options, thousands):
    with torch.device("meta"):  # as wide and as deep as SAM-B's encoder
        method = get_method("vfm_adapter")(create_backbone("vit_base_patch16_224"), **options)
    count = sum(p.numel() for p in method.trainable().values())
    formula = vfm_adapter(768, 12, options.get("bottleneck", 32), options.get("inner", 8))
    assert count == formula
    assert round(count / 1e3) == thousands


def test_vfm_pools_by_hand():
    # Scores of the first query: 0 and ln 3, of the second 0 and -ln 3: 1/4, 3/4 and 3/4, 1/4.
    p = torch.tensor([[[0.0, 8.0], [math.log(3), 4.0]]])
    got = pooled(p, torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
    torch.testing.assert_close(got, torch.tensor([[math.log(3), 12.0]]))


def test_vfm_kernel_by_hand():
    net = HyperNetwork(1, 2, 1)
    set_all(net, rows__weight=[[1.0], [2.0]], rows__bias=[0.0, 1.0])
    columns = [[float(k)] for k in range(18)]
    set_all(net, columns__weight=columns, columns__bias=[0.5] * 18)
    kernel = net(torch.tensor([[2.0], [0.0]]))  # rows (2, 5) and (0, 1)
    line = torch.arange(18.0).view(2, 3, 3)
    expected = [[2 * line + 0.5, 5 * line + 0.5], [0 * line + 0.5, line + 0.5]]
    torch.testing.assert_close(kernel, torch.stack([torch.stack(e) for e in expected]))


def test_vfm_adapter_by_hand():
    method = get_method("vfm_adapter")(tiny_backbone(), bottleneck=1)
    module = method.beside_mlp[0].eval()
    kernel = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.5, 0.0], [0.0, 0.0, 0.0]])
    with torch.no_grad():
        module.down.weight.zero_()[0, 0] = 1.0
        module.up.weight.fill_(2.0)

    def q(v: float) -> float:
        return v / (1 + math.exp(-1.702 * v))

    # A prefix token 0.5; on the grid of two rows 1 above 2: half of itself and all of above.
    x = torch.zeros(1, 3, 48)
    x[0, :, 0] = torch.tensor([0.5, 1.0, 2.0])
    got = module(on_grid(x, 1, 2, 1), lambda p: kernel.view(1, 1, 1, 3, 3))
    expected = [2 * q(v) for v in (0.5 * q(0.5), 0.5 * q(1.0), 0.5 * q(2.0) + q(1.0))]
    torch.testing.assert_close(got[0], torch.tensor(expected)[:, None].expand(3, 48))


def test_vfm_adapter_shares_the_norm_with_its_branch():
    method = get_method("vfm_adapter")(tiny_backbone(), scale=0.5).eval()
    for module in (*method.beside_attention, *method.beside_mlp):
        torch.nn.init.normal_(module.up.weight)
    backbone, t = method.backbone, method.backbone.embed(tiny_image(method.backbone))

    def bypass(modules, net, z):
        p = modules[1].meta(z[:, t.prefix :])  # the class token has no say
        kernel = net(pooled(p, method.queries))
        return 0.5 * modules[1](t._replace(x=z), lambda p: kernel)

    with torch.no_grad():
        beside = bypass(method.beside_attention, method.attention_kernels, backbone.norm1(1, t))
        u = t.add(backbone.attention(1, t))
        u = u._replace(x=u.x + beside)
        beside = bypass(method.beside_mlp, method.mlp_kernels, backbone.norm2(1, u))
        expected = u.x + backbone.mlp(1, u).x + beside
        torch.testing.assert_close(method.block(1, t).x, expected)


def test_vfm_adapter_saves_what_is_shared_once():
    saved = list(get_method("vfm_adapter")(tiny_backbone()).adapter_state())
    assert [name for name in saved if "queries" in name] == ["queries"]
    assert len([name for name in saved if name.endswith("rows.weight")]) == 2


def test_vfm_kernels_are_of_their_image():
    method = get_method("vfm_adapter")(tiny_backbone())
    a, b = tiny_image(method.backbone)
    z = method.backbone.embed(torch.stack([a, b, a]))
    p = method.beside_mlp[0].meta(z.patches)
    kernels = method.mlp_kernels(method._embedding(p))
    torch.testing.assert_close(kernels[0], kernels[2])
    assert (kernels[0] - kernels[1]).abs().max() > 1e-4


def test_vfm_pools_can_be_averaged():
    p = torch.rand(2, 6, 64)
    total, mean = (
        get_method("vfm_adapter")(tiny_backbone(), pool=pool) for pool in ("sum", "mean")
    )
    mean.load_adapter_state(total.adapter_state())
    torch.testing.assert_close(total._embedding(p), 8 * mean._embedding(p))
    plain = get_method("vfm_adapter")(tiny_backbone(), queries=0)
    torch.testing.assert_close(plain._embedding(p), p.mean(1))
