"""Decoder only: the backbone stays as it is and the decoder alone is trained.

y = frozen(x). The floor every method has to beat; all blocks can be computed once and cached.
"""

from .method import Backbone, Method


class DecoderOnly(Method):
    title = "Decoder only"
    fidelity = "a baseline without a paper: nothing in the backbone is trained"
    mergeable = True
    preset = {"lr": 1e-3}

    def __init__(self, backbone: Backbone):
        super().__init__(backbone)
        self.frozen_blocks = backbone.depth
