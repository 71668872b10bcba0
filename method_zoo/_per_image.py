"""Convolve each image of a batch with kernels of its own, all in one grouped convolution."""

import torch.nn.functional as F
from torch import Tensor


def convolve_each(maps: Tensor, kernels: Tensor) -> Tensor:
    """Maps (B, C, H, W) and kernels (B, O, I, k, k), k odd, to (B, O, H, W).

    I = C is a dense kernel, I = 1 one filter a channel. The sides are padded with zeros.
    """
    batch, channels = maps.shape[:2]
    joined = F.conv2d(
        maps.flatten(0, 1)[None],
        kernels.flatten(0, 1),
        padding=kernels.shape[-1] // 2,
        groups=batch * channels // kernels.shape[2],
    )
    return joined[0].unflatten(0, (batch, -1))
