"""Methods without modules of their own: one step of gradient descent worked on paper.

The patch (3, 1) is (m + c, m - c) with c = 1. The final norm has weight (1, 1), bias (0, 0) and an
epsilon of 3: y = (g_0 c, -g_1 c) / sqrt(c^2 + 3) + b = (1/2, -1/2). With the loss y_0:
  dL/db_0 = 1;  dL/dg_0 = 1/2;  dy_0/dc = 3 / (c^2 + 3)^(3/2) = 3/8;
so whatever is added to every patch gets dL/dx = (3/8 / 2, -3/8 / 2) = (3/16, -3/16), and a step of
length s takes 3/16 s off c for each such bias: the patch embedding's, and in each of the four
blocks those of proj and fc2. A position, added to one patch of four, gets a quarter of it. Behind
weights of zero nothing else in the backbone gets any gradient.
"""

import pytest
import torch
from hand_backbone import PATCH, assert_values, fill, grey, hand_backbone, patch_of
from torch import nn

from method_zoo.options import get_method

CASES = {
    # nothing trains
    "decoder_only": ({}, 1.0, (1 / 2, -1 / 2)),
    # g_0 = 1 - 1/2, b_0 = -1, c = 1
    "ln_tune": ({}, 1.0, (1 / 2 * 1 / 2 - 1, -1 / 2)),
    # nine biases: c = 1 - 9 * 3/16 * 32/27 = -1; g_0 = 1, b_0 = -32/27
    "bitfit": ({}, 32 / 27, (-1 / 2 - 32 / 27, 1 / 2)),
    # two biases: c = 1 - 2 * 3/16 * 16/3 = -1; g_0 = 1 - 8/3, b_0 = -16/3
    "partial": ({"blocks": 1}, 16 / 3, (5 / 3 * 1 / 2 - 16 / 3, 1 / 2)),
    # nine biases and the position: c = 1 - (9 + 1/4) * 3/16 s = 1 - 111/64 s = -1 for
    # s = 128/111; g_0 = 1 - 64/111, b_0 = -128/111
    "full": ({}, 128 / 111, (-47 / 111 * 1 / 2 - 128 / 111, 1 / 2)),
}
CASES["linear_probe"] = CASES["decoder_only"]
CASES["scratch"] = CASES["full"]  # from other weights, which are then filled as for all


def after_one_step(name: str) -> torch.Tensor:
    options, length, _ = CASES[name]
    backbone = hand_backbone()
    backbone.vit.norm = nn.LayerNorm(2, eps=3.0).requires_grad_(False)
    method = get_method(name)(backbone, **options)
    for parameter in backbone.vit.parameters():  # again: one method draws its weights
        fill(parameter, torch.zeros_like(parameter))
    fill(backbone.vit.norm.weight, (1, 1))
    fill(backbone.vit.patch_embed.proj.bias, PATCH)
    image, trained = grey(backbone), list(method.trainable().values())
    assert_values(patch_of(method(image)), (1 / 2, -1 / 2))
    if trained:
        method(image).final[0, 0].mean().backward()
        torch.optim.SGD(trained, lr=length).step()
    return patch_of(method(image))


@pytest.mark.parametrize("name", CASES)
def test_by_hand(name):
    assert_values(after_one_step(name), CASES[name][2], 1e-5)
