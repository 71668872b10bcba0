"""Worked examples: every method on a backbone of width two, followed on paper."""

import ast
import math
from functools import cache
from pathlib import Path

import pytest
import torch
from hand_backbone import (
    HAND,
    PATCH,
    assert_values,
    fill,
    gelu,
    grey,
    hand_backbone,
    hand_module,
    patch_of,
)
from torch import nn, tensor

from method_zoo.lpmoe import Injector, Layout, ScaleEnhancement
from method_zoo.options import get_method, list_methods
from method_zoo.parts.deformable import places


@cache
def worked_examples() -> set[str]:
    """The names of the tests that end in `_by_hand`, and the cases that one of them has."""
    found: set[str] = set()
    for path in Path(__file__).parent.glob("test_*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and node.name.endswith("_by_hand"):
                found.add(node.name.removeprefix("test_").removesuffix("_by_hand"))
    return found | set(CASES)


@pytest.mark.parametrize("method", list_methods())
def test_a_method_has_an_example_worked_by_hand(method):
    sentence = f"add test_{method}_by_hand: its equation on numbers worked on paper"
    assert method in worked_examples(), sentence


# Adapter behind a branch and AdaptFormer beside one: a whole block worked on paper.


@pytest.fixture
def backbone():
    """Block 2 adds (1, 2) behind its attention and (0, -1) behind its MLP."""
    made = hand_backbone()
    fill(made.vit.blocks[2].attn.proj.bias, (1, 2))
    fill(made.vit.blocks[2].mlp.fc2.bias, (0, -1))
    return made


def test_adapter_by_hand(backbone):
    method = get_method("adapter")(backbone, bottleneck=1)
    first, second = method.after_attention[2], method.after_mlp[2]
    fill(first.down.weight, [[1, 0]])
    fill(first.up.weight, [[2], [0]])
    fill(first.up.bias, [0, 1])
    fill(second.down.weight, [[0, 1]])
    fill(second.up.weight, [[10], [0]])
    # o = (1, 2): Down 1, Up (2 GELU(1), 1); u = (3, 1) + o + that.
    # o = (0, -1): Down -1, Up (10 GELU(-1), 0).
    expected = (3 + 1 + 2 * 0.8413447 + 10 * -0.1586553, 1 + 2 + 1 - 1)
    assert gelu(1) == pytest.approx(0.8413447)
    assert_values(patch_of(method(grey(backbone))), expected)


def test_adaptformer_by_hand(backbone):
    method = get_method("adaptformer")(backbone, bottleneck=2).eval()
    fill(method.adapters[2].down.weight, [[1, -1], [-1, 1]])
    fill(method.adapters[2].down.bias, [0.5, 0])
    fill(method.adapters[2].up.weight, [[2, 9], [-4, 9]])
    fill(method.adapters[2].up.bias, [0, 1])
    # u = (3, 1) + (1, 2) = (4, 3); Down (1.5, -1), of which ReLU leaves (1.5, 0);
    # Up (3, -6 + 1); y = u + (0, -1) + 0.1 (3, -5).
    assert_values(patch_of(method(grey(backbone))), (4 + 0.3, 3 - 1 - 0.5))


# LoRA on the fused layer, and on queries and values alone, worked on paper.


# W x = x to the queries, nothing to the keys, x to the values: (1, 2, 0, 0, 1, 2) for x = (1, 2).
W = [[1, 0], [0, 1], [0, 0], [0, 0], [1, 0], [0, 1]]
X = tensor([1.0, 2.0])


def layer(**options):
    method = get_method("lora")(hand_backbone(), **options)
    found = method.backbone.vit.blocks[3].attn.qkv
    fill(found.base.weight, W)
    return found


def assert_output(found, expected: list[float]) -> None:
    assert_values(found(X), expected)
    assert_values(found.fold()(X), expected)


def test_lora_by_hand():
    found = layer(rank=2, alpha=6.0)
    fill(found.a, [[2, 1], [0, 1]])
    fill(found.b, [[1, 0], [0, 1], [0, 0], [-1, 0], [2, 0], [0, 0]])
    # A x = (4, 2); B A x = (4, 2, 0, -4, 8, 0), times alpha / rank = 3.
    assert_output(found, [1 + 12, 2 + 6, 0, 0 - 12, 1 + 24, 2])


def test_lora_on_queries_and_values_by_hand():
    found = layer(rank=1, alpha=3.0, targets="qv")
    fill(found.a, [[2, 1], [1, -1]])
    fill(found.b, [[[1], [0]], [[0], [3]]])
    # Queries: A x = 4, B A x = (4, 0). Values: A x = -1, B A x = (0, -3). Times 3.
    assert_output(found, [1 + 12, 2, 0, 0, 1, 2 - 9])


# Methods that add tokens or prompts to the stream: VPT and SAM-Adapter worked on paper.


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


# Methods without modules of their own: one step of gradient descent worked on paper.
#
# The patch (3, 1) is (m + c, m - c) with c = 1. The final norm has weight (1, 1), bias (0, 0) and
# an epsilon of 3: y = (g_0 c, -g_1 c) / sqrt(c^2 + 3) + b = (1/2, -1/2). With the loss y_0:
#   dL/db_0 = 1;  dL/dg_0 = 1/2;  dy_0/dc = 3 / (c^2 + 3)^(3/2) = 3/8;
# so whatever is added to every patch gets dL/dx = (3/8 / 2, -3/8 / 2) = (3/16, -3/16), and a step
# of length s takes 3/16 s off c for each such bias: the patch embedding's, and in each of the four
# blocks those of proj and fc2. A position, added to one patch of four, gets a quarter of it. Behind
# weights of zero nothing else in the backbone gets any gradient.


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


# Controllable-LPMoE's injector and scale enhancement worked on paper.


def test_lpmoe_by_hand():
    """x <- x + gamma A(x, c), on the numbers that the attention's own example works out."""
    offset, options, attended = HAND["half a cell right"]
    injector = Injector(2, gamma=0.5, eps=1e-5, heads=1, points=2, ratio=1.0)
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
