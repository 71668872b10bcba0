"""Copies of the sound methods that break one promise about training, state or merging."""

from __future__ import annotations

from types import SimpleNamespace

import torch
import torch.nn.functional as F
from sound_methods import Adapter, Scaled
from torch import Tensor, nn

from method_zoo.backbones.backbone import Backbone, Tokens
from method_zoo.method import Features, Method


class ThawsWhileTraining(Adapter):
    breaks = "frozen_stays_frozen"

    def forward(self, image: Tensor) -> Features:
        if torch.is_grad_enabled():
            self.backbone.vit.norm.requires_grad_(True)
        return super().forward(image)


class WritesToTheFrozen(Adapter):
    breaks = "frozen_stays_frozen"

    def forward(self, image: Tensor) -> Features:
        features = super().forward(image)
        if self.training and torch.is_grad_enabled():
            self.backbone.vit.cls_token.data.add_(1)
        return features


class AdaptsItsFrozenBlocks(Adapter):
    """The adapter of every block is shared, so that it gets a gradient all the same."""

    breaks = "frozen_blocks"

    def __init__(self, backbone: Backbone):
        super().__init__(backbone)
        self.frozen_blocks = 2


class DrawsItsPrefix(Adapter):
    """Random, but not trained: a cache would mix the draws of seeds."""

    breaks = "frozen_blocks"
    identity_at_init = False

    def __init__(self, backbone: Backbone):
        super().__init__(backbone)
        self.frozen_blocks = 2
        self.register_buffer("shift", torch.randn(backbone.dim))

    def block(self, i: int, t: Tokens) -> Tokens:
        if i >= self.frozen_blocks:
            return super().block(i, t)
        t = self.backbone.block(i, t)
        return t._replace(x=t.x + self.shift)


class GoesPastItsPrefix(Adapter):
    breaks = "frozen_blocks"
    identity_at_init = False

    def __init__(self, backbone: Backbone):
        super().__init__(backbone)
        self.frozen_blocks = 2

    def block(self, i: int, t: Tokens) -> Tokens:
        if i >= self.frozen_blocks:
            return super().block(i, t)
        return self.backbone.block(i, t)

    def forward(self, image: Tensor) -> Features:
        return super().forward(image.flip(1))


class TwoZeroFactors(Adapter):
    breaks = "gradient_reaches_all"

    def __init__(self, backbone: Backbone):
        super().__init__(backbone)
        nn.init.zeros_(self.down.weight)
        nn.init.zeros_(self.down.bias)


class NeverUsed(Adapter):
    breaks = "gradient_reaches_all"

    def update(self, x: Tensor) -> Tensor:
        x = self.norm(x.flatten(0, 1)).view_as(x)
        return F.linear(F.gelu(self.down(x)), self.up.weight, self.up.bias.detach())


class ExcusesWhatDoesNotExist(Adapter):
    breaks = "gradient_reaches_all"
    without_gradient = {"gate": "the authors do not train it"}


class MoreThanTheFormula(Adapter):
    breaks = "count"

    def __init__(self, backbone: Backbone):
        super().__init__(backbone)
        self.bias = nn.Parameter(torch.zeros(1))

    def update(self, x: Tensor) -> Tensor:
        return super().update(x) + self.bias


class ForgetsABuffer(Adapter):
    breaks = "state_round_trip"

    def __init__(self, backbone: Backbone):
        super().__init__(backbone)
        self.norm.register_buffer("running_mean", torch.zeros(backbone.dim), persistent=False)


class SavesTheFrozen(Adapter):
    breaks = "state_round_trip"

    def adapter_state(self) -> dict[str, Tensor]:
        return {name: tensor.detach() for name, tensor in self.state_dict().items()}


class LoadsAnything(Adapter):
    breaks = "state_round_trip"

    def load_adapter_state(self, state: dict[str, Tensor]) -> None:
        own = self.adapter_state()
        for name in own.keys() & state.keys():
            if own[name].shape == state[name].shape:
                own[name].copy_(state[name])


class ForgetsStep(Adapter):
    breaks = "checkpointing"

    def forward(self, image: Tensor) -> Features:
        t, taps = self.backbone.embed(image), []
        for group in self.backbone.groups:
            for i in group:
                t = self.block(i, t)
            taps.append(self.backbone.norm(t))
        return Features([tap.map() for tap in taps], self.backbone.neck(taps[-1]), t.aux)


class StashesBetweenBlocks(Adapter):
    """What block i leaves for block i + 1 is another when block i + 1 is computed again."""

    breaks = "checkpointing"

    def __init__(self, backbone: Backbone):
        super().__init__(backbone)
        self.memory = SimpleNamespace(last=None)

    def block(self, i: int, t: Tokens) -> Tokens:
        last = self.memory.last if i > 0 else torch.zeros_like(t.x)
        self.memory.last = t.x.detach()
        return super().block(i, t._replace(x=t.x + self.update(last)))


class FoldsTwice(Scaled):
    breaks = "merge_equivalence"

    def merge(self) -> Backbone:
        with torch.no_grad():
            for block in self.backbone.vit.blocks:
                block.attn.proj.base.weight *= block.attn.proj.factor[:, None]
        return super().merge()


class MergesThoughItCannot(Adapter):
    breaks = "merge_equivalence"

    def merge(self) -> Backbone:
        return self.backbone


class LeavesTheWrapping(Scaled):
    breaks = "merge_equivalence"

    def merge(self) -> Backbone:
        return self.backbone


class TrainsTheFrozenMode(Adapter):
    breaks = "train_eval"

    def train(self, mode: bool = True) -> Method:
        super().train(mode)
        self.backbone.vit.train(mode)
        return self


class StaysInEval(Adapter):
    breaks = "train_eval"

    def train(self, mode: bool = True) -> Method:
        super().train(mode)
        self.down.eval()
        return self
