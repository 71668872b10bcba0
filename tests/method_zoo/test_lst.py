"""LST: the ladder by hand, and that nothing of it touches the backbone."""

import math

import torch
from conftest import tiny_backbone, tiny_image
from torch import nn

from method_zoo.contract.observe import perturb, plain_outputs
from method_zoo.options import get_method


class Double(nn.Module):
    """A side block whose output can be told by hand."""

    def forward(self, s):
        return 2 * s


def ladder():
    """A ladder of doubling blocks whose ways down read one channel each."""
    method = get_method("lst")(tiny_backbone())
    method.side = nn.ModuleList(Double() for _ in range(4))
    for down in method.down:
        nn.init.zeros_(down.bias)
        nn.init.zeros_(down.weight)
        with torch.no_grad():
            down.weight[:, 5] = torch.arange(1.0, 7.0)
    return method


def test_lst_by_hand():
    method = ladder()
    with torch.no_grad():
        method.gate[1] = 0.1 * math.log(3)  # mu = sigmoid(log 3) = 3 / 4
        s, h = torch.full((1, 1, 6), 4.0), torch.zeros(1, 1, 48)
        h[..., 5] = 8.0
        expected = 2 * (0.75 * 4 + 0.25 * 8 * torch.arange(1.0, 7.0))
        torch.testing.assert_close(method._rung(1, s, h).flatten(), expected)


def test_the_ladder_climbs_beside_the_backbone():
    method, image = ladder(), tiny_image(tiny_backbone())
    nn.init.normal_(method.up.weight)
    backbone = method.backbone
    with torch.no_grad():
        t, maps = backbone.embed(image), []
        s = method.down[0](t.x)
        for i in range(4):
            t = backbone.block(i, t)
            s = 2 * (s + method.down[i + 1](t.x)) / 2  # mu = 1 / 2 at the start
            y = t.x + method.up(method.norm(s))
            maps.append(backbone.norm(t._replace(x=y)).map())
        features = method(image)
    for got, expected in zip([*features.maps, features.final], [*maps, maps[-1]], strict=True):
        torch.testing.assert_close(got, expected)


def test_everything_the_ladder_reads_can_be_computed_once():
    method, image = get_method("lst")(tiny_backbone()), tiny_image(tiny_backbone())
    prefix = method.prefix(image)
    assert len(prefix.taps) == method.frozen_blocks == 4
    assert not any(t.x.requires_grad for t in [prefix.tokens, *prefix.taps])
    expected = plain_outputs(tiny_backbone(), image)[:4]
    for tap, plain in zip(prefix.taps, expected, strict=True):
        assert torch.equal(method.backbone.norm(tap).map(), plain)
    perturb(method)
    assert torch.equal(method.finish(prefix).final, method(image).final)
