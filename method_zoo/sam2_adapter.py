"""SAM2-Adapter: Adapting Segment Anything 2. Chen et al., 2024, arXiv 2408.04579.

Before block i of SAM 2's Hiera: x <- x + Up(GELU(Lin_i(e + h))). A group of blocks whose inputs are
of one width shares Up, e = Lin(x), x what enters its first block, and h, a map of the image's high
frequencies: convolutions of 7 x 7 with stride 4, then of 3 x 3 with stride 2 from group to group,
each with a norm. The first block of a stage still belongs to the group before: it reads that width.
"""

from itertools import pairwise
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from .method import Backbone, Features, Method, at_least
from .parts.layers import start_as_timm
from .sam_adapter import high_frequencies


class SAM2Adapter(Method):
    """scale: by which the prompts' inner width, at least 2, is smaller than the blocks'."""

    title = "SAM2-Adapter"
    paper = "arXiv 2408.04579"
    fidelity = (
        "the authors' prompt generator to 1e-5, from a specification of it; one layer a block, "
        "where theirs builds one more in each stage than it has blocks (140,650 parameters on "
        "Hiera-L) and uses some; with the decoder that all methods share on one run of the "
        "backbone, where theirs runs it twice, gives the fine features of a batch's last image to "
        "all, and starts its decoder at random because of a name"
    )
    identity_at_init = False
    made_for = {"Hiera": "sam2_hiera_large"}
    unmergeable = "its prompts come from the image itself, block by block"
    preset = {"lr": 2e-4}

    def __init__(self, backbone: Backbone, scale: int = 32):
        super().__init__(backbone)
        at_least("scale", scale, 1)
        widths = [block.dim for block in backbone.vit.blocks]  # of what enters
        self.group_of = [sorted(set(widths)).index(width) for width in widths]
        counts = [self.group_of.count(k) for k in range(max(self.group_of) + 1)]
        inner = [3, *(max(2, width // scale) for width in sorted(set(widths)))]
        self.prompts = nn.ModuleList(
            GroupPrompts(channels, width, dim, count, first=not k)
            for k, ((channels, width), dim, count) in enumerate(
                zip(pairwise(inner), sorted(set(widths)), counts, strict=True)
            )
        )

    def forward(self, image: Tensor) -> Features:
        """Image in [0, 1], (B, 3, h, w), to features; each block reads tokens plus prompts."""
        backbone, taps = self.backbone, []
        maps = [high_frequencies(backbone.normalise(image))]
        groups: list[Any] = list(self.prompts)
        for prompts in groups:
            maps.append(prompts.embed(maps[-1]))
        t, hidden, group, count = backbone.embed(image), None, -1, 0
        ends = {blocks[-1] for blocks in backbone.groups}
        for i, k in enumerate(self.group_of):
            if k != group:
                # A new width: e + h is made once, of the
                # tokens that enter the group's first block.
                hidden, group, count = groups[k].hidden(t.x, maps[k + 1]), k, 0
            t = self.step(i, t._replace(x=t.x + groups[k](count, hidden)))
            count += 1
            if i in ends:
                taps.append(backbone.norm(t))
        return Features([tap.map() for tap in taps], backbone.neck(taps[-1]), t.aux)


class GroupPrompts(nn.Module):
    """What is added before each of `count` blocks that read `dim` channels.

    channels: of the map that the high frequencies of the group before are.
    """

    def __init__(self, channels: int, width: int, dim: int, count: int, first: bool):
        super().__init__()
        side, stride = (7, 4) if first else (3, 2)
        self.conv = nn.Conv2d(channels, width, side, stride, padding=side // 2)
        self.norm, self.embedding = nn.LayerNorm(width), nn.Linear(dim, width)
        self.block = nn.ModuleList(nn.Linear(width, width) for _ in range(count))
        self.up = nn.Linear(width, dim)
        self.apply(start_as_timm)
        fan_out = side**2 * width
        nn.init.normal_(self.conv.weight, std=(2 / fan_out) ** 0.5)
        nn.init.zeros_(self.conv.get_parameter("bias"))

    def embed(self, maps: Tensor) -> Tensor:
        """Maps of the group before, (B, c, H, W), to those of this one, (B, k, ., .)."""
        return self.norm(self.conv(maps).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    def hidden(self, x: Tensor, maps: Tensor) -> Tensor:
        """Tokens (B, N, C) that enter the group and its maps to e + h, (B, N, k)."""
        return self.embedding(x) + maps.flatten(2).mT

    def forward(self, k: int, hidden: Tensor) -> Tensor:
        """Return what is added before block k of the group, (B, N, C)."""
        return self.up(F.gelu(self.block[k](hidden)))
