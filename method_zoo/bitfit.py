"""BitFit: Simple Parameter-efficient Fine-tuning. Ben Zaken et al., ACL 2022, arXiv 2106.10199.

y = f(x; W, b), W frozen and every bias b trained: of patch embedding, attention, MLP and norms.
Relative position tables are weights, not biases, and stay frozen.
"""

from .method import Backbone, Method


class BitFit(Method):
    title = "BitFit"
    paper = "arXiv 2106.10199"
    fidelity = (
        "the paper's rule on every bias, the patch embedding's included, which gives the count of "
        "the Conv-LoRA table on SAM ViT-H; the paper itself is about language models"
    )
    mergeable = True
    preset = {"lr": 5e-3}

    def __init__(self, backbone: Backbone):
        super().__init__(backbone)
        self.unfreeze(lambda name: name.endswith("bias"))
