"""A backbone of width two whose every number can be followed on paper, and how tests fill it."""

import math

import torch
from torch import Tensor, nn

from method_zoo.backbones.backbone import Backbone
from method_zoo.backbones.create import create_backbone
from method_zoo.method import Features

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
