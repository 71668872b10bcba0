"""Copies of the sound methods, each of which breaks one promise of the contract."""

from types import SimpleNamespace

import torch
import torch.nn.functional as F
from sound_methods import Adapter, Scaled
from torch import Tensor, nn

from method_zoo.backbones.backbone import Backbone, Tokens
from method_zoo.method import Features, Method

# Promises about options and outputs.


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


# Promises about training, state and merging.


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
