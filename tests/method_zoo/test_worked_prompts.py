"""Methods that add tokens or prompts to the stream: VPT and SAM-Adapter worked on paper."""

import pytest
import torch
from hand_backbone import assert_values, fill, gelu, grey, hand_backbone, patch_of
from torch import nn

from method_zoo.options import get_method


@pytest.mark.parametrize(
    ("deep", "expected"),
    [
        # Block 1, with its own prompt (3, 2/3): the sum is (3 + 24 + 3, 2/3 + 20/3 + 2/3) =
        # (30, 8), the mean (5, 4/3).
        (True, (6 + 5, 5 / 3 + 4 / 3)),
        # Block 1, with the prompt of block 0, now (9, 2/3): (36, 8), the mean (6, 4/3).
        (False, (6 + 6, 5 / 3 + 4 / 3)),
    ],
)
def test_vpt_by_hand(deep, expected):
    """Blocks 0 and 1 add the mean of all tokens to each: equal scores, values as they are.

    Block 0: class token (0, 0), prompt (6, 0), four patches (3, 1): the sum is (18, 4), the mean
    (3, 2/3). Class token (3, 2/3), prompt (9, 2/3), patches (6, 5/3).
    """
    backbone = hand_backbone()
    for block in backbone.vit.blocks[:2]:
        block.norm1 = nn.Identity()
        fill(block.attn.qkv.weight[4:], torch.eye(2))
        fill(block.attn.proj.weight, torch.eye(2))
    method = get_method("vpt")(backbone, prompts=1, deep=deep)
    fill(method.prompts[0], [(6, 0)])
    if deep:
        fill(method.prompts[1:], [[(3, 2 / 3)], [(9, 9)], [(9, 9)]])  # the others meet no one
    assert_values(patch_of(method(grey(backbone))), expected)


def test_sam_adapter_by_hand():
    backbone = hand_backbone()
    method = get_method("sam_adapter")(backbone, scale=2, layout="grid")
    generator = method.prompts
    fill(generator.embedding.weight, [[1, -1]])
    fill(generator.frequencies.bias, [1])
    fill(generator.up.weight, [[1], [2]])
    fill(generator.up.bias, [0, 1])
    for layer, weight in zip(generator.block, (1 / 3, -1 / 3, 0, 0), strict=True):
        fill(layer.weight, [[weight]])
    # e = 3 - 1 = 2; a grey image has no high frequencies: f = 1; e + f = 3. The blocks read 1, -1,
    # 0, 0 of it: before each (GELU, 2 GELU + 1) is added, with GELU(1) + GELU(-1) = 0.6826894.
    assert gelu(1) + gelu(-1) == pytest.approx(0.6826894)
    expected = (3 + 0.6826894, 1 + 2 * 0.6826894 + 4)
    assert_values(patch_of(method(grey(backbone))), expected)
