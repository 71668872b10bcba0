"""A frozen prefix as one tensor for each image, and the model that goes on from there."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lpmoe_bench.model.segmenter import Segmenter
from method_zoo.method import Prefix


def pack(prefix: Prefix) -> Tensor:
    """Stack the distinct states of a prefix, P of them with N tokens each: (B, P, N, C)."""
    return torch.stack(list(_distinct(prefix).values()), dim=1)


class FromPrefix(nn.Module):
    """A segmenter fed with packed prefixes, (B, P, N, C), in the place of images of a side `size`.

    example: the prefix of any such image, which has all that does not depend on the image.
    """

    def __init__(self, segmenter: Segmenter, example: Prefix, size: int):
        super().__init__()
        self.segmenter, self.size = segmenter, size
        states, names = [example.tokens, *example.taps], list(_distinct(example))
        self._places = [names.index(id(t.x)) for t in states]
        self._states = [t._replace(x=t.x.new_empty(0)) for t in states]
        self._by_channel = [t.x.mT.is_contiguous() for t in states]

    def forward(self, packed: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the segmenter returns: logits (B, K, size, size) and the aux loss."""
        parts = packed.unbind(1)
        tokens, *taps = (
            state._replace(x=_laid_out(parts[place], by_channel))
            for state, place, by_channel in zip(
                self._states, self._places, self._by_channel, strict=True
            )
        )
        features = self.segmenter.method.finish(Prefix(tokens, taps))
        return self.segmenter.decode(features, (self.size, self.size))


def _laid_out(x: Tensor, by_channel: bool) -> Tensor:
    """Lay (B, N, C) out in memory as the backbone does: what reads it rounds alike only then."""
    return x.mT.contiguous().mT if by_channel else x.contiguous()


def _distinct(prefix: Prefix) -> dict[int, Tensor]:
    """Return the token tensors by identity: the last tap often is the prefix's end itself."""
    return {id(t.x): t.x for t in (prefix.tokens, *prefix.taps)}
