"""Wrapped: a trainable layer around a frozen one, which knows the grid of its tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ._errors import ZooError


class Wrapped(nn.Module):
    """A trainable layer around a frozen one, which it holds as `base`.

    `forward` is told how many of the tokens are prefix and the grid of the rest, so a spatial
    method can read them as a map. Whoever has an auxiliary loss overrides `forward_aux`.
    """

    def __init__(self, base: nn.Module):
        super().__init__()
        self.base = base

    def forward(self, x: Tensor, prefix: int = 0, grid: tuple[int, int] | None = None) -> Tensor:
        raise NotImplementedError

    def forward_aux(self, x: Tensor, prefix: int, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Return the output and a scalar auxiliary loss."""
        return self(x, prefix, grid), x.new_zeros((), dtype=torch.float32)

    def fold(self) -> nn.Module:
        """Return a plain module that computes the same; raises ZooError where there is none."""
        raise ZooError(f"{type(self).__name__} depends on its input and cannot be folded")
