"""Tokens: the state between two blocks, prefix tokens and the patch grid."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Tokens(NamedTuple):
    """The state between two blocks; a pytree, so checkpointing and compilation see through it.

    x: (B, prefix + H*W, C), prefix tokens first, then the grid row by row.
    aux: scalar auxiliary loss gathered so far.
    """

    x: Tensor
    prefix: int
    grid: tuple[int, int]
    rope: Tensor | None
    aux: Tensor

    @property
    def patches(self) -> Tensor:  # (B, H*W, C)
        return self.x[:, self.prefix :]

    def map(self) -> Tensor:
        """Return the patch tokens as a map, (B, C, H, W)."""
        return self.patches.transpose(1, 2).unflatten(2, self.grid)

    def with_patches(self, patches: Tensor) -> Tokens:
        """Replace the patch tokens, (B, H*W, C), and keep the prefix."""
        return self._replace(x=torch.cat([self.x[:, : self.prefix], patches], dim=1))

    def insert(self, prompts: Tensor) -> Tokens:
        """Put prompts, (p, C) or (B, p, C), between the prefix and the patches."""
        prompts = prompts.expand(self.x.shape[0], -1, -1).to(self.x.dtype)
        x = torch.cat([self.x[:, : self.prefix], prompts, self.patches], dim=1)
        return self._replace(x=x, prefix=self.prefix + prompts.shape[1])

    def drop(self, count: int) -> Tokens:
        """Take the last `count` prefix tokens away: the inverse of insert."""
        keep = self.prefix - count
        x = torch.cat([self.x[:, :keep], self.patches], dim=1)
        return self._replace(x=x, prefix=keep)

    def add(self, update: Tokens) -> Tokens:
        """Add a residual update and its auxiliary loss."""
        return self._replace(x=self.x + update.x, aux=self.aux + update.aux)
