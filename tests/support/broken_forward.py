"""Copies of the sound methods that break one promise about options or outputs."""

from __future__ import annotations

from types import SimpleNamespace

import torch
import torch.nn.functional as F
from sound_methods import Adapter, Scaled
from torch import Tensor, nn

from method_zoo.backbones.backbone import Backbone
from method_zoo.method import Features


class OptionsNoFileCanHold(Adapter):
    breaks = "default_constructible"

    def __init__(self, backbone: Backbone, bottleneck: int = 4, act: type = nn.GELU):
        super().__init__(backbone, bottleneck)


class OptionsThatComeBackDifferent(Adapter):
    breaks = "default_constructible"

    def __init__(self, backbone: Backbone, blocks: tuple[int, ...] = (0, 1)):
        super().__init__(backbone)


class WrongChannels(Adapter):
    breaks = "shapes"

    def __init__(self, backbone: Backbone):
        super().__init__(backbone)
        self.channels = [backbone.dim // 2] * 4


class WrongStrides(Adapter):
    breaks = "shapes"

    def __init__(self, backbone: Backbone):
        super().__init__(backbone)
        self.strides = [4, 8, 16, 32]


class NoIdentity(Adapter):
    breaks = "identity_at_init"

    def __init__(self, backbone: Backbone):
        super().__init__(backbone)
        nn.init.ones_(self.up.bias)


class Noisy(Adapter):
    breaks = "deterministic"
    identity_at_init = False

    def update(self, x: Tensor) -> Tensor:
        return super().update(x) + 0.1 * torch.rand(())


class UnseededStart(Adapter):
    breaks = "deterministic"

    def __init__(self, backbone: Backbone):
        super().__init__(backbone)
        generator = torch.Generator()
        generator.seed()
        nn.init.normal_(self.up.bias, generator=generator)

    identity_at_init = False


class MixesNeighbours(Adapter):
    breaks = "batch_independence"

    def update(self, x: Tensor) -> Tensor:
        return super().update(x - x.mean(dim=0, keepdim=True))


class RemembersTheLastImage(Adapter):
    breaks = "no_hidden_state"

    def __init__(self, backbone: Backbone):
        super().__init__(backbone)
        self.memory = SimpleNamespace(last=0.0)

    def forward(self, image: Tensor) -> Features:
        features = super().forward(image)
        if self.training:
            return features
        last, self.memory.last = self.memory.last, features.maps[0].mean().detach()
        return features._replace(maps=[m + last for m in features.maps])


class MovesStatisticsInEval(Adapter):
    breaks = "no_hidden_state"

    def __init__(self, backbone: Backbone):
        super().__init__(backbone)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, image: Tensor) -> Features:
        if not self.training:
            self.calls += 1
        return super().forward(image)


class LeavesTheGraph(Adapter):
    breaks = "compile"

    def update(self, x: Tensor) -> Tensor:
        return super().update(x) if x.detach().mean().item() < 1e9 else x


class HalfPrecisionWeights(Scaled):
    breaks = "amp"

    def __init__(self, backbone: Backbone):
        super().__init__(backbone)
        for block in self.backbone.vit.blocks:
            factor = block.attn.proj.factor
            block.attn.proj.factor = nn.Parameter(factor.detach().half())


class PadsSilently(Adapter):
    breaks = "errors"

    def forward(self, image: Tensor) -> Features:
        height, width = image.shape[-2:]
        return super().forward(F.pad(image, (0, -width % 32, 0, -height % 32)))


class DeniesThatItNeedsPrompts(Adapter):
    breaks = "errors"
    needs_prompts = True

    def __init__(self, backbone: Backbone):
        backbone.accepts_prompts = True
        super().__init__(backbone)
