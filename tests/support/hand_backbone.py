"""A backbone of width two whose every number can be followed on paper, and how tests fill it."""

import math

import torch
from torch import Tensor, nn

from method_zoo.backbones.backbone import Backbone, Tokens
from method_zoo.backbones.create import create_backbone
from method_zoo.method import Features
from method_zoo.parts.deformable import CosineDeformableAttention

PATCH = (3.0, 1.0)  # what every patch of `grey` is after the patch embedding


def hand_backbone() -> Backbone:
    """Four blocks that do nothing, their weights being zero, on a class token (0, 0) and 2 x 2
    patches (3, 1); the final norm passes its input through."""
    size = {"embed_dim": 2, "depth": 4, "num_heads": 1, "img_size": 32}
    backbone = create_backbone("vit_tiny_patch16_224", **size)
    with torch.no_grad():
        for parameter in backbone.vit.parameters():
            parameter.zero_()
    fill(backbone.vit.patch_embed.proj.bias, PATCH)
    backbone.vit.norm = nn.Identity()
    return backbone


def grey(backbone: Backbone) -> Tensor:
    """The image that is zero once it is normalised, (1, 3, 32, 32)."""
    return backbone.mean.expand(1, 3, 32, 32).clone()


def patch_of(features: Features) -> Tensor:
    """The one value that all patches of the last map have, (C,)."""
    patches = features.final[0].flatten(1).T
    assert torch.allclose(patches, patches[:1].expand_as(patches))
    return patches[0]


def fill(tensor: Tensor, values) -> None:
    with torch.no_grad():
        tensor.copy_(torch.as_tensor(values, dtype=tensor.dtype))


def gelu(x: float) -> float:
    return x * 0.5 * (1 + math.erf(x / math.sqrt(2)))


def assert_values(got: Tensor, expected, tolerance: float = 1e-6) -> None:
    wanted = torch.tensor(expected, dtype=got.dtype)
    torch.testing.assert_close(got.detach(), wanted, atol=tolerance, rtol=tolerance)


def set_all(module: torch.nn.Module, **values: list) -> None:
    """Fill parameters by name, written with __ for the dots."""
    with torch.no_grad():
        for name, value in values.items():
            module.get_parameter(name.replace("__", ".")).copy_(torch.tensor(value))


def on_grid(x: torch.Tensor, prefix: int, height: int, width: int) -> Tokens:
    return Tokens(x, prefix, (height, width), None, torch.zeros(()))


LOG2 = math.log(2)


def hand_module(offset: float, **options) -> CosineDeformableAttention:
    """Two points: the first stays, the second moves `offset` cells right; values as given."""
    module = CosineDeformableAttention(2, heads=1, levels=1, points=2, ratio=1.0, **options)
    with torch.no_grad():
        module.offsets.bias.copy_(torch.tensor([0, 0, offset, 0]))
        module.weights.weight.copy_(torch.tensor([[LOG2, 0], [0, 0]]))
        module.value.weight.copy_(torch.eye(2))
        module.output.weight.copy_(torch.eye(2))
    return module


# One query (1, 0) on the left of two cells that hold (3, 0) and (0, 4): the cosines are 1 and 0, so
# u = (3, 0). Direct weights: softmax(log 2, 0) = (2/3, 1/3); aligned: softmax(3 log 2, 0) =
# (8/9, 1/9); their product: (16/27, 1/27).
HAND = {
    "half a cell right": (0.5, {}, (16 / 27 * 3 + 1 / 27 * 1.5, 1 / 27 * 2)),
    "half outside": (-0.5, {}, (16 / 27 * 3 + 1 / 27 * 1.5, 0)),
    "outside": (-1.0, {}, (16 / 27 * 3, 0)),
    "renormalised": (1.0, {"renormalise": True}, (16 / 17 * 3, 1 / 17 * 4)),
    "mean": (
        1.0,
        {"cosine": "mean"},  # aligned softmax(1.5 log 2, 0)
        (2 / 3 * 3 * 2**1.5 / (1 + 2**1.5), 1 / 3 * 4 / (1 + 2**1.5)),
    ),
}
