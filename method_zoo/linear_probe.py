"""Linear probe: the backbone stays as it is and one linear layer on its last patch tokens learns.

y = frozen(x), logits = W norm(y) + b. What the features say without any further computation; all
blocks can be computed once and cached.
"""

from .method import Backbone, Method


class LinearProbe(Method):
    title = "Linear probe"
    fidelity = (
        "a baseline without a paper: its decoder is one 1 x 1 convolution, without batch norm"
    )
    mergeable = True
    decoder = "linear"
    preset = {"lr": 1e-3}

    def __init__(self, backbone: Backbone):
        super().__init__(backbone)
        self.frozen_blocks = backbone.depth
