"""Late LoRA: LoRA (Hu et al., ICLR 2022, arXiv 2106.09685) on the last k blocks alone.

y = W x + b + (alpha / rank) B A x on the fused qkv layers of the last k blocks. The blocks before
never change: no activation is kept for them and their output can be computed once. It is the
advice of micro-sam (Archit et al., Nature Methods 2025) where memory is short.
"""

from .lora import LoRALinear
from .method import Backbone, Method, at_least, first_of_last, in_block


class LateLoRA(Method):
    """blocks: how many blocks at the end are adapted; 0 takes half of them, as is advised."""

    title = "Late LoRA"
    paper = "arXiv 2106.09685"
    fidelity = (
        "LoRA's equation, equal to Hugging Face peft's outputs, on the fused qkv layers of the "
        "last blocks: the advice of micro-sam, no method with a paper of its own"
    )
    needs_attention = True
    mergeable = True
    preset = {"lr": 1e-3}

    def __init__(self, backbone: Backbone, rank: int = 8, alpha: float = 8.0, blocks: int = 0):
        super().__init__(backbone)
        at_least("rank", rank, 1)
        first = first_of_last(backbone, blocks or max(1, backbone.depth // 2))
        self.wrap(
            lambda name: name.endswith("attn.qkv") and in_block(name, first),
            lambda module: LoRALinear(module, rank, alpha),
        )
        self.frozen_blocks = first
