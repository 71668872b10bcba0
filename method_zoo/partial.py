"""Partial fine-tuning: the last k blocks. Yosinski et al., NeurIPS 2014, arXiv 1411.1792.

y = norm(block_L(... block_{L-k+1}(frozen(x)))): the last k blocks and the final norm train, what
comes before never changes and can be computed once. As "partial-k" in VPT and V-PETL-Bench.
"""

from .method import Backbone, Method, first_of_last, in_block


class Partial(Method):
    """blocks: how many blocks at the end train; 1 as in V-PETL-Bench's table."""

    title = "Partial fine-tuning"
    paper = "arXiv 1411.1792"
    fidelity = (
        "the partial-k baseline of VPT and V-PETL-Bench: every weight of the last k blocks and of "
        "the final norm trains"
    )
    mergeable = True
    preset = {"lr": 2e-4}

    def __init__(self, backbone: Backbone, blocks: int = 1):
        super().__init__(backbone)
        first = first_of_last(backbone, blocks)
        self.unfreeze(lambda name: in_block(name, first) or name.startswith("norm."))
        self.frozen_blocks = first
