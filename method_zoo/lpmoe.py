"""Controllable-LPMoE. Sun et al., ICCV 2025, arXiv 2510.21114.

Local priors c, from a mixture of convolution experts that reads the image, and the tokens x of the
frozen ViT talk twice a stage: x <- x + gamma * A3(LN x, LN c), then a quarter of the frozen blocks,
then c <- c + A1(LN c, LN x), c <- c + F(LN c). A: cosine-aligned deformable attention, F: scale
enhancement. The decoder reads a pyramid of priors and raw tokens at strides 4, 8, 16, 32.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ._backbone import Backbone
from ._errors import ZooError
from ._lpmoe_attention import CosineDeformableAttention
from ._lpmoe_interaction import Extractor, Injector, Layout
from ._lpmoe_prior import PriorExtractor
from ._lpmoe_pyramid import Pyramid
from ._method import Features, Method

STRIDES = [4, 8, 16, 32]


class LPMoE(Method):
    """Options and their defaults are those of the paper's configuration with a plain ViT.

    heads: of the deformable attention; 0 takes the backbone's own number, as the paper does.
    points: reads per head and level. ratio: width of the values as a share of the backbone's.
    width: channels of the prior extractor. cosine: "sum" over tokens, or their "mean". renormalise:
    let the weights of a head sum to one. norm: BatchNorm of the mixture "shared" by its four
    scales, or "per_scale". gamma: initial gate of the injectors. drop_path: rate in the extractors;
    the paper takes the stochastic depth of its largest backbone's last block, 0.4 (0.3 for BEiT).
    """

    title = "Controllable-LPMoE"
    paper = "arXiv 2510.21114"
    fidelity = (
        "written from a specification of the authors' code; attention, experts, prior extractor "
        "and scale enhancement equal theirs to 1e-5. The frozen blocks run without stochastic "
        "depth; the decoder is the one all methods share, or mask2former as in the paper"
    )
    # Its maps are its own. What stays as it was while gamma is 0 is the token stream, and `final`.
    identity_at_init = False
    batch_statistics = True
    unmergeable = "its priors come from the image itself, beside the backbone"
    preset = {"lr": 1e-3}

    def __init__(
        self,
        backbone: Backbone,
        heads: int = 0,
        points: int = 4,
        ratio: float = 0.5,
        width: int = 64,
        cosine: str = "sum",
        renormalise: bool = False,
        norm: str = "shared",
        gamma: float = 0.0,
        drop_path: float = 0.4,
    ):
        super().__init__(backbone)
        if not 0 <= drop_path < 1:
            raise ZooError(f"drop_path is {drop_path}; it must be at least 0 and below 1")
        dim, stages = backbone.dim, len(backbone.groups)
        attention = {
            "heads": heads or backbone.heads,
            "points": points,
            "ratio": ratio,
            "cosine": cosine,
            "renormalise": renormalise,
        }
        self.prior = PriorExtractor(dim, width, norm)
        self.level = nn.Parameter(torch.empty(3, dim))
        self.inject = nn.ModuleList(Injector(dim, gamma, **attention) for _ in range(stages))
        # The last stage is followed by two more extractors, which read the same tokens.
        self.extract = nn.ModuleList(
            nn.ModuleList(Extractor(dim, drop_path, **attention) for _ in range(count))
            for count in [1] * (stages - 1) + [3]
        )
        self.pyramid = Pyramid(dim)
        self.channels = [dim // 4] * len(STRIDES)
        self.strides = list(STRIDES)
        self._initialise()

    def _initialise(self) -> None:
        nn.init.normal_(self.level)
        for part in (self.prior, self.inject, self.extract, self.pyramid.up):
            part.apply(_initialise)
        for module in self.modules():  # last: the general rule has overwritten its own
            if isinstance(module, CosineDeformableAttention):
                module.reset()

    def forward(self, image: Tensor) -> Features:
        """Image in [0, 1], (B, 3, h, w), to maps of dim / 4 channels at strides 4, 8, 16, 32."""
        t, taps = self.backbone.embed(image), []
        p1, *levels = self.prior(self.backbone.normalise(image))
        layout = Layout.of(t.grid, image)
        prior = torch.cat(
            [m.flatten(2).transpose(1, 2) + e for m, e in zip(levels, self.level, strict=True)], 1
        )
        for group, inject, extract in zip(
            self.backbone.groups, self.inject, self.extract, strict=True
        ):
            x = self._interact(inject, t.patches, prior, layout)  # prior -> ViT
            t = t.with_patches(x)
            for i in group:
                t = self.step(i, t)
            for extractor in extract:  # type: ignore[attr-defined]
                prior = self._interact(extractor, prior, t.patches, layout)  # ViT -> prior
            taps.append(t.map())
        maps = self.pyramid(p1, _as_maps(prior, layout), taps)
        return Features(maps, self.backbone.neck(self.backbone.norm(t)), t.aux)

    def _interact(self, module: nn.Module, x: Tensor, other: Tensor, layout: Layout) -> Tensor:
        """Run an interaction, recomputed in the backward pass when checkpointing is on."""
        if self.checkpointing and torch.is_grad_enabled():
            return checkpoint(module, x, other, layout, use_reentrant=False)  # type: ignore[return-value]
        return module(x, other, layout)


def _as_maps(prior: Tensor, layout: Layout) -> list[Tensor]:
    """Split the prior tokens into their three maps, (B, C, H, W) each."""
    parts = prior.split([height * width for height, width in layout.prior.grids], dim=1)
    return [
        p.transpose(1, 2).unflatten(2, grid)
        for p, grid in zip(parts, layout.prior.grids, strict=True)
    ]


def _initialise(module: nn.Module) -> None:
    """The authors' general rule; norms, 1-d convolutions and the reduction keep torch's."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        fan_out = math.prod(module.kernel_size) * module.out_channels // module.groups
        nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
        if module.bias is not None:
            nn.init.zeros_(module.bias)
