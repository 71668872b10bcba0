"""Controllable-LPMoE's injector and scale enhancement worked on paper."""

import math

import torch
from hand_backbone import assert_values, fill, gelu
from test_lpmoe_attention import HAND, hand_module
from torch import nn

from method_zoo.lpmoe import Injector, Layout, ScaleEnhancement
from method_zoo.parts.deformable import places


def test_lpmoe_by_hand():
    """x <- x + gamma A(x, c), on the numbers that the attention's own example works out."""
    offset, options, attended = HAND["half a cell right"]
    injector = Injector(2, gamma=0.5, heads=1, points=2, ratio=1.0)
    injector.attention = hand_module(offset, **options)
    injector.norm_tokens = injector.norm_prior = nn.Identity()
    x, prior = torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[3.0, 0.0], [0.0, 4.0]]])
    cells = places([(1, 2)], prior)
    layout = Layout(cells._replace(points=cells.points[:1]), cells)
    # The attention gives (16/27 * 3 + 1/27 * 1.5, 1/27 * 2) = (99/54, 4/54).
    assert_values(injector(x, prior, layout), [[(1 + 99 / 108, 4 / 108)]])
    assert_values(torch.tensor(attended), (99 / 54, 4 / 54))


def test_lpmoe_scale_enhancement_by_hand():
    """Two channels on a grid of one cell."""
    module = ScaleEnhancement(2, 2)
    for parameter in module.parameters():
        fill(parameter, torch.zeros_like(parameter))
    fill(module.reduce.weight, torch.eye(2))
    fill(module.depthwise.weight[:, 0, 1, 1], [2, 2])
    fill(module.channel.weight[0, 0, 1], math.log(3) / 4)
    fill(module.gate.bias, [math.log(3), 0])
    fill(module.expand.weight, [[1, 0], [1, 1]])
    # y = (1, -1), m = (2, -2) = its mean = its maximum: pooled (4, -4); s = sigmoid(+-ln 3) =
    # (3/4, 1/4), s' = 1/2, g = (3/4, 1/4); 3/4 s + 1/4 (1 - s') = (11/16, 5/16); m (22, -10)/16.
    first, second = gelu(22 / 16), gelu(-10 / 16)
    got = module(torch.tensor([[[1.0, -1.0]]]), [(1, 1)])
    assert_values(got, [[(first, first + second)]])
