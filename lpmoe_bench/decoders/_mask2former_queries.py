"""Transformer decoder of Mask2Former: queries that look where their own last mask was.

Cheng et al., CVPR 2022, arXiv 2112.01527, section 3.2: masked cross-attention, self-attention, MLP.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lpmoe_bench.decoders._mask2former_pixels import HEADS, LEVELS
from lpmoe_bench.decoders._sine_position import sine_position

HIDDEN = 8  # of the MLPs, times the width


class QueryDecoder(nn.Module):
    """Each layer reads one level, in turn from coarse to fine."""

    def __init__(self, width: int, queries: int, layers: int, labels: int):
        super().__init__()
        self.query = nn.Embedding(queries, width)
        self.query_position = nn.Embedding(queries, width)
        self.level = nn.Embedding(LEVELS, width)
        self.layers = nn.ModuleList(QueryLayer(width) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.label = nn.Linear(width, labels)
        self.mask = nn.Sequential(
            *(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()),
            nn.Linear(width, width),
        )

    def forward(self, levels: list[Tensor], feature: Tensor) -> tuple[Tensor, Tensor]:
        """levels: (B, C, H, W), strides 32, 16, 8. feature: (B, C, H, W), stride 4.

        Returns the scores of the labels, (B, Q, labels), and of the masks, (B, Q, H, W): in eval
        mode of the last layer, in training of the start and of every layer, one after the other
        along the batch, so that each can be supervised.
        """
        batch = feature.shape[0]
        memory = [
            (m + own[:, None, None]).flatten(2).transpose(1, 2)  # (B, T, C)
            for m, own in zip(levels, self.level.weight, strict=True)
        ]
        grids = [(m.shape[-2], m.shape[-1]) for m in levels]
        position = [sine_position(g, feature.shape[1], feature).flatten(1).t() for g in grids]
        x = self.query.weight.expand(batch, -1, -1)
        place = self.query_position.weight
        outputs, masks = [x], [self._masks(x, feature)]
        for index, layer in enumerate(self.layers):
            k = index % LEVELS
            x = layer(x, place, memory[k], position[k], closed(masks[-1], grids[k]))
            outputs.append(x)
            masks.append(self._masks(x, feature))
        if not self.training:
            outputs, masks = outputs[-1:], masks[-1:]
        return self.label(self.norm(torch.cat(outputs))), torch.cat(masks)

    def _masks(self, x: Tensor, feature: Tensor) -> Tensor:
        return torch.einsum("bqc,bchw->bqhw", self.mask(self.norm(x)), feature)


class QueryLayer(nn.Module):
    """Post-norm: masked cross-attention, self-attention, MLP."""

    def __init__(self, width: int):
        super().__init__()
        self.cross = nn.MultiheadAttention(width, HEADS, batch_first=True)
        self.own = nn.MultiheadAttention(width, HEADS, batch_first=True)
        hidden = HIDDEN * width
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, width))
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.xavier_normal_(parameter)

    def forward(
        self, x: Tensor, place: Tensor, memory: Tensor, position: Tensor, blocked: Tensor
    ) -> Tensor:
        """x: (B, Q, C). memory: (B, T, C). blocked: (B, Q, T), where not to look."""
        mask = blocked.repeat_interleave(HEADS, dim=0)  # the heads of an image follow one another
        read, _ = self.cross(x + place, memory + position, memory, None, False, mask)
        x = self.norm1(x + read)
        read, _ = self.own(x + place, x + place, x, None, False)
        x = self.norm2(x + read)
        return self.norm3(x + self.mlp(x))


def closed(masks: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return where each query must not look, (B, Q, H * W): where its mask is below one half.

    A query whose mask is below everywhere may look everywhere. No gradient.
    """
    masks = F.interpolate(masks.detach(), grid, mode="bilinear", align_corners=False).flatten(2)
    blocked = masks < 0  # the sigmoid is below one half
    return blocked & ~blocked.all(-1, keepdim=True)
