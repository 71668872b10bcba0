"""VPT: Visual Prompt Tuning. Jia et al., ECCV 2022, arXiv 2203.12119.

Deep: [cls, P_i, patches] -> block i, with fresh prompts P_i (p x d) replacing the last ones in
every block. Shallow: one P_0 enters at block 0 and is carried through. Prompts start uniform in
+-sqrt(6 / (3 patch^2 + d)) and carry no position; they are dropped before the decoder.
"""

import math

import torch
from torch import nn

from .method import Backbone, Method, Tokens, at_least


class VPT(Method):
    title = "VPT"
    paper = "arXiv 2203.12119"
    fidelity = (
        "the paper's equations and start, with the count of the Conv-LoRA table on SAM ViT-H; "
        "prompts are dropped before the decoder, their dropout is 0; SAM's windows get a copy each"
    )
    needs_one_width = True
    identity_at_init = False
    needs_prompts = True
    unmergeable = "its prompts are tokens of their own, which no weight can hold"
    preset = {"lr": 5e-3}

    def __init__(self, backbone: Backbone, prompts: int = 12, deep: bool = True):
        super().__init__(backbone)
        at_least("prompts", prompts, 1)
        patch = backbone.vit.patch_embed.patch_size[0]
        bound = math.sqrt(6 / (3 * patch**2 + backbone.dim))
        shape = (backbone.depth if deep else 1, prompts, backbone.dim)
        self.prompts = nn.Parameter(torch.empty(shape).uniform_(-bound, bound))
        self.deep = deep

    def block(self, i: int, t: Tokens) -> Tokens:
        count = self.prompts.shape[1]
        # Deep prompts are replaced at every block: put in before it, dropped behind it.
        if self.deep or i == 0:
            t = t.insert(self.prompts[i])
        t = self.backbone.block(i, t)
        return t.drop(count) if self.deep or i == self.backbone.depth - 1 else t
