"""From scratch: the same backbone with fresh weights, all of them trained.

y = f(x; theta), theta drawn as timm draws it. It shows what pretraining is worth: a floor, for
which no learning rate is searched; below some thousand images it is expected to collapse.
"""

import torch

from .method import Backbone, Method


class Scratch(Method):
    title = "Trained from scratch"
    fidelity = "a baseline without a paper: timm's initialisation, position table trained"
    identity_at_init = False
    mergeable = True
    preset = {"lr": 2e-4}

    def __init__(self, backbone: Backbone):
        super().__init__(backbone)
        # Drawn, so that the run's seed decides; on the CPU, even for a model without storage.
        backbone.reset(int(torch.randint(2**31, (1,), device="cpu")))
        self.unfreeze(lambda name: True)
