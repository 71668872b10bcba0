"""LST: Ladder Side-Tuning. Sung et al., NeurIPS 2022, arXiv 2206.06522.

s_0 = Down_0(h_0); s_i = Block_i(mu_i s_{i-1} + (1 - mu_i) Down_i(h_i)), mu_i = sigmoid(a_i / 0.1);
y = h + Up(LN(s)). h_i: what the frozen block i returns; Block_i: a ViT block of width d / r that
trains beside it, with its own heads. No gradient enters the backbone, whose outputs never change.
"""

import torch
from timm.layers import Mlp
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from .method import Backbone, Features, Method, Prefix, ZooError, at_least
from .parts.layers import start_as_timm, zeroed

TEMPERATURE = 0.1


class LST(Method):
    """reduction: r, by which the side blocks are narrower than the backbone."""

    title = "LST"
    paper = "arXiv 2206.06522"
    fidelity = (
        "the paper's ladder at every block; the side blocks start at random, not from pruned "
        "weights, and Up at zero; each of the four maps is h + Up(LN(s)) with the same Up, where "
        "the authors weigh the two by one more gate"
    )
    needs_one_width = True
    unmergeable = "a side network runs beside the backbone, which it leaves as it is"
    preset = {"lr": 1e-3}

    def __init__(self, backbone: Backbone, reduction: int = 8):
        super().__init__(backbone)
        at_least("reduction", reduction, 1)
        dim, width = backbone.dim, backbone.dim // reduction
        if dim % reduction or width % backbone.heads:
            raise ZooError(
                f"reduction is {reduction}; it must divide the width {dim} and leave a multiple "
                f"of the {backbone.heads} heads"
            )
        count = backbone.depth
        self.down = nn.ModuleList(nn.Linear(dim, width) for _ in range(count + 1))
        self.side = nn.ModuleList(
            Block(width, backbone.heads, qkv_bias=True, mlp_layer=Mlp) for _ in range(count)
        )
        self.gate = nn.Parameter(torch.zeros(count))
        self.norm, self.up = nn.LayerNorm(width), nn.Linear(width, dim)
        self.side.apply(start_as_timm)
        zeroed(self.up)
        self.frozen_blocks = backbone.depth

    def prefix(self, image: Tensor) -> Prefix:
        """Embed the image in [0, 1] and run the backbone; the taps are what its blocks return."""
        # The whole backbone is frozen and read from aside: it never needs a backward pass.
        with torch.no_grad():
            start, taps = self.backbone.embed(image), []
            t = start
            for i in range(self.backbone.depth):
                t = self.backbone.block(i, t)
                taps.append(t)
        return Prefix(start, taps)

    def finish(self, prefix: Prefix) -> Features:
        s, maps = self.down[0](prefix.tokens.x), []
        ends = {group[-1] for group in self.backbone.groups}
        final = prefix.tokens
        for i, t in enumerate(prefix.taps):
            # The taps are constants: gradients run down the ladder s alone.
            s = self.recomputed(self._rung, i, s, t.x)
            if i in ends:
                final = self.backbone.norm(t._replace(x=t.x + self.up(self.norm(s))))
                maps.append(final.map())
        return Features(maps, self.backbone.neck(final), final.aux)

    def _rung(self, i: int, s: Tensor, h: Tensor) -> Tensor:
        """Return s_i = Block_i(mu_i s + (1 - mu_i) Down_i(h))."""
        # The temperature lets the gate, which starts at mu = 1/2, move ten times as fast.
        mu = torch.sigmoid(self.gate[i] / TEMPERATURE)
        return self.side[i](mu * s + (1 - mu) * self.down[i + 1](h))
