"""Full fine-tuning: every weight of the backbone is trained.

y = f(x; theta), theta started at the pretrained weights. The reference the literature compares
parameter-efficient methods with; it needs a learning rate about ten times smaller.
"""

from .method import Backbone, Method


class Full(Method):
    title = "Full fine-tuning"
    fidelity = (
        "a baseline without a paper: every parameter of the backbone trains; without the drop path "
        "and layer decay of fine-tuning recipes"
    )
    mergeable = True
    preset = {"lr": 5e-5}

    def __init__(self, backbone: Backbone):
        super().__init__(backbone)
        self.unfreeze(lambda name: True)
