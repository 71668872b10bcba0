"""LN-tune: Strong Baselines for Few-Shot Fine-tuning. Basu et al., AAAI 2024, arXiv 2304.01917.

y = (x - mean) / sd * g + b: scale g and shift b of every LayerNorm train, all else is frozen.
"""

from torch import nn

from .method import Backbone, Method


class LNTune(Method):
    title = "LN-tune"
    paper = "arXiv 2304.01917"
    fidelity = (
        "the LayerNorm tuning of the paper, the final norm included; without the scaling of "
        "attention that the paper combines it with"
    )
    mergeable = True
    preset = {"lr": 5e-3}

    def __init__(self, backbone: Backbone):
        super().__init__(backbone)
        norms = {n for n, m in backbone.vit.named_modules() if _is_layer_norm(m)}
        self.unfreeze(lambda name: name.rpartition(".")[0] in norms)


def _is_layer_norm(module: nn.Module) -> bool:
    # The two in the neck of Meta's SAM are of a class of its own.
    return isinstance(module, nn.LayerNorm) or type(module).__name__ == "LayerNorm2d"
