"""The mixture of four heterogeneous convolution experts of Controllable-LPMoE, gated per image.

M(u) = sum over e of g_e expert_e(u), g = softmax(W mean(u) + b). Each expert: z = unit(u),
a3 = K3(z), a5 = K5(z + a3), a7 = K7(z + a5), out = unit([a3, a5, a7, z]); the experts differ in K.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ._lpmoe_wavelet import WaveletConv

KERNELS = (3, 5, 7)


class Unit(nn.Module):
    """A convolution, BatchNorm and ReLU; `norms` copies of the norm serve different scales."""

    def __init__(self, conv: nn.Module, channels: int, norms: int = 1):
        super().__init__()
        self.conv = conv
        self.norms = nn.ModuleList(nn.BatchNorm2d(channels) for _ in range(norms))

    def forward(self, x: Tensor, scale: int = 0) -> Tensor:
        return self.norms[scale % len(self.norms)](self.conv(x)).relu_()


class Chain(nn.ModuleList):
    """Units run one after the other."""

    def forward(self, x: Tensor, scale: int = 0) -> Tensor:
        for unit in self:
            x = unit(x, scale)
        return x


Branch = Callable[[int, int, int], nn.Module]


def depthwise(channels: int, kernel: int, norms: int) -> nn.Module:
    """Expert 0: one kernel a channel."""
    conv = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=channels)
    return Unit(conv, channels, norms)


def atrous(channels: int, kernel: int, norms: int) -> nn.Module:
    """Expert 1: 3 x 3 kernels whose taps lie `kernel` pixels apart."""
    conv = nn.Conv2d(channels, channels, 3, padding=kernel, dilation=kernel)
    return Unit(conv, channels, norms)


def asymmetric(channels: int, kernel: int, norms: int) -> nn.Module:
    """Expert 2: a row kernel, then a column kernel."""
    row = nn.Conv2d(channels, channels, (1, kernel), padding=(0, kernel // 2))
    column = nn.Conv2d(channels, channels, (kernel, 1), padding=(kernel // 2, 0))
    return Chain([Unit(row, channels, norms), Unit(column, channels, norms)])


def wavelet(channels: int, kernel: int, norms: int) -> nn.Module:
    """Expert 3: kernels on the image and on its Haar bands."""
    return Unit(WaveletConv(channels, kernel), channels, norms)


class Expert(nn.Module):
    """The skeleton all four experts share, around branches of one kind."""

    def __init__(self, branch: Branch, width: int, norms: int):
        super().__init__()
        inner = width // 4
        self.enter = Unit(nn.Conv2d(width, inner, 1), inner, norms)
        self.branches = nn.ModuleList(branch(inner, kernel, norms) for kernel in KERNELS)
        self.leave = Unit(nn.Conv2d(4 * inner, width, 1), width, norms)

    def forward(self, u: Tensor, scale: int = 0) -> Tensor:
        z = self.enter(u, scale)
        outputs: list[Tensor] = []
        for branch in self.branches:
            outputs.append(branch(z + outputs[-1] if outputs else z, scale))
        return self.leave(torch.cat([*outputs, z], dim=1), scale)


class Mixture(nn.Module):
    """All four experts, always evaluated, weighted by one gate per image and scale.

    There is no top-k, noise, temperature or balance loss (spec, section 1). norms: 1 for BatchNorm
    shared by the scales as the authors have it, or one copy per scale.
    """

    def __init__(self, width: int, norms: int):
        super().__init__()
        kinds = (depthwise, atrous, asymmetric, wavelet)
        self.experts = nn.ModuleList(Expert(kind, width, norms) for kind in kinds)
        self.gate = nn.Linear(width, len(kinds))

    def weigh(self, u: Tensor) -> Tensor:
        """Return the weight of each expert for each image, (B, 4)."""
        return self.gate(u.mean((2, 3))).softmax(-1)

    def forward(self, u: Tensor, scale: int = 0) -> Tensor:
        weights = self.weigh(u)[:, :, None, None, None].unbind(1)
        total = None
        for weight, expert in zip(weights, self.experts, strict=True):
            part = weight * expert(u, scale)
            total = part if total is None else total + part
        assert total is not None
        return total
