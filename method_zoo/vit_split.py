"""ViT-Split: Efficient Splitting Heads. Li et al., ICCV 2025, arXiv 2506.03433.

Two heads on a backbone whose outputs never change. Prior: p = C(maps), the maps of a few blocks,
normed and concatenated. Task: copies of the last blocks, which train, read what enters those
blocks; m is their output, normed. The one map that a decoder reads is C'([p, m]). C and C': 1 x 1
convolution, GELU, 3 x 3 convolution that reads where learned offsets lead, GELU. No gradient enters
the backbone, and all that the heads read can be computed once.
"""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from .method import Backbone, Features, Method, Prefix, Tokens, ZooError, at_least, first_of_last
from .parts.deformable import full_precision, precise, sample


class ViTSplit(Method):
    """taps: how many blocks the prior head reads, at even distances from block `start` to the last;
    8 for ViT-L. copies: of how many last blocks the task head is made; 4 for ViT-L, 11 of 12 for
    detection."""

    title = "ViT-Split"
    paper = "arXiv 2506.03433"
    fidelity = (
        "from a specification of the authors' code, with the 10.2 and 88.6 million parameters that "
        "they print for their heads with a decoder; that decoder, two transposed convolutions, and "
        "their pyramid for detection are left to the decoder all methods share, their gate over "
        "all blocks is not here, and the copies train at the rate of the rest, where theirs take a "
        "tenth of it"
    )
    identity_at_init = False
    needs_one_width = True
    unmergeable = "two heads run beside the backbone, which they leave as it is"
    preset = {"lr": 3e-4}

    def __init__(self, backbone: Backbone, taps: int = 4, copies: int = 3, start: int = 2):
        super().__init__(backbone)
        at_least("taps", taps, 2)
        if not 1 <= copies <= backbone.depth:
            raise ZooError(f"copies is {copies}; a backbone of {backbone.depth} blocks takes 1 to "
                           f"{backbone.depth}")  # fmt: skip
        last = backbone.depth - 1
        if not 0 <= start <= last:
            raise ZooError(f"start is {start}; it must be 0 to {last} with this backbone")
        dim = backbone.dim
        # The first is block `start`, the last the last block.
        self.read = [start + j * (last - start) // (taps - 1) for j in range(taps)]
        self.first = first_of_last(backbone, copies)
        self.task = copy.deepcopy(nn.ModuleList(backbone.vit.blocks[self.first :]))
        self.task.requires_grad_(True)
        self._call = [_BlockCall(backbone)]  # in a list: no second place of the backbone's weights
        self.prior, self.fuse = OffsetHead(taps * dim, dim), OffsetHead(2 * dim, dim)
        self.frozen_blocks = backbone.depth
        self.channels, self.strides = [dim], [backbone.stride]

    def prefix(self, image: Tensor) -> Prefix:
        """Embed the image in [0, 1] and run the backbone: what enters the copied blocks, and the
        taps."""
        with torch.no_grad():
            t = self.backbone.embed(image)
            states = []
            for i in range(self.backbone.depth):
                states.append(t)
                t = self.backbone.block(i, t)
            states.append(t)
        return Prefix(states[self.first], [states[i + 1] for i in self.read])

    def finish(self, prefix: Prefix) -> Features:
        backbone, t = self.backbone, prefix.tokens
        prior = self.prior(torch.cat([backbone.norm(tap).map() for tap in prefix.taps], dim=1))
        for i in range(self.first, backbone.depth):
            t = self.recomputed(self._copied, i, t)
        task = backbone.norm(t).map()
        fused = self.fuse(torch.cat([prior, task], dim=1))
        final = backbone.neck(t.with_patches(fused.flatten(2).mT))
        return Features([fused], final, t.aux)

    def _copied(self, i: int, t: Tokens) -> Tokens:
        """Run block i with the weights of its copy."""
        # The backbone's own arithmetic, whatever its family: only the numbers are others.
        own = self.task[i - self.first].named_parameters()
        weights: dict[str, Tensor] = {f"backbone.vit.blocks.{i}.{name}": p for name, p in own}
        return functional_call(self._call[0], weights, (i, t))


class _BlockCall(nn.Module):
    """A block of the backbone as a forward pass."""

    def __init__(self, backbone: Backbone):
        super().__init__()
        self.backbone = backbone

    def forward(self, i: int, t: Tokens) -> Tokens:
        return self.backbone.block(i, t)


class OffsetHead(nn.Module):
    """1 x 1 convolution, GELU, 3 x 3 convolution with offsets, GELU; maps to maps of `dim`."""

    def __init__(self, channels: int, dim: int):
        super().__init__()
        self.squeeze, self.convolve = nn.Conv2d(channels, dim, 1), OffsetConv(dim)

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(self.convolve(F.gelu(self.squeeze(x))))


class OffsetConv(nn.Module):
    """A 3 x 3 convolution each of whose nine taps reads where an offset, made of x, leads it.

    Dai et al., ICCV 2017, arXiv 1703.06211. Beyond the edges all is zero; there is no bias.
    """

    def __init__(self, dim: int):
        super().__init__()
        self.offsets = nn.Conv2d(dim, 2 * 9, 3, padding=1)  # of each tap down, then right
        self.weight = nn.Parameter(torch.empty(dim, dim, 3, 3))
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, H, W)."""
        height, width = x.shape[2:]
        offsets = self.offsets(x).unflatten(1, (9, 2)).permute(0, 3, 4, 1, 2)  # (B, H, W, 9, 2)
        with full_precision(x):
            rows = torch.arange(height, device=x.device).view(-1, 1, 1)
            columns = torch.arange(width, device=x.device).view(-1, 1)
            tap = torch.arange(9, device=x.device)
            down = rows + tap // 3 - 1 + precise(offsets[..., 0])
            right = columns + tap % 3 - 1 + precise(offsets[..., 1])
            # Places from 0 to 1 over the map; every tap of every place is a query of its own.
            where = torch.stack([(right + 0.5) / width, (down + 0.5) / height], dim=-1)
            where = where.flatten(1, 3)[:, :, None, None, None]  # (B, H * W * 9, 1, 1, 1, 2)
            value = precise(x).flatten(2).mT.unsqueeze(2)
            one = torch.ones_like(where[..., 0])
            read = sample(value, [(height, width)], where, one).unflatten(1, (-1, 9)).flatten(2)
        # read: (B, N, 9 * C), tap by tap; the kernel's numbers are brought into that order.
        y = F.linear(read, self.weight.permute(0, 2, 3, 1).flatten(1))
        return y.mT.unflatten(2, (height, width))
