"""EVA, EVA-02, DINOv3 and other ViTs of timm's class `Eva`, opened: rotary positions, SwiGLU.

EVA-02, Fang et al., 2023, arXiv 2303.11331; DINOv3, Siméoni et al., 2025, arXiv 2508.10104.
"""

from typing import Any

import torch
from timm.layers import AttentionRope, apply_rot_embed_cat
from timm.models.eva import Eva as TimmEva
from timm.models.eva import EvaAttention, EvaBlock
from torch import Tensor, nn

from ..errors import ZooError
from .backbone import Backbone, Tokens
from .linear import open_gate, open_qkv


class Eva(Backbone):
    """Patches are rotated by their place in every attention; prefix tokens and prompts are not.

    Separate layers to queries, keys and values are one `attn.qkv` to methods, the two layers into
    a SwiGLU one `mlp.fc1`; each keeps its own weights.
    """

    def _openable(self, vit: nn.Module) -> nn.Module:
        assert isinstance(vit, TimmEva)
        if not vit.dynamic_img_size:
            raise ZooError("an Eva model must be built with dynamic_img_size=True to be opened")
        for block in vit.blocks:
            attn: Any = block.attn
            if type(block) is not EvaBlock or type(attn) not in (EvaAttention, AttentionRope):
                raise ZooError(
                    f"blocks of type {type(block).__name__} cannot be opened; use an Eva model "
                    f"that norms before its branches, such as eva02_base_patch14_224"
                )
            if getattr(attn, "num_kv_groups", 1) > 1:
                raise ZooError(
                    "queries that share keys cannot be opened; use an Eva model with as many "
                    "heads of keys as of queries, such as vit_base_patch16_dinov3"
                )
            open_qkv(attn)
            open_gate(block.mlp)
        return vit

    def position(self, patches: Tensor) -> Tokens:
        t, rope = super().position(patches), self.vit.rope
        return t if rope is None else t._replace(rope=rope.get_embed(list(t.grid)))

    def reset(self, seed: int) -> None:
        super().reset(seed)
        if not getattr(self.vit, "rope_mixed", False):
            return
        rope = self.vit.rope  # timm draws its learnt frequencies when it builds them, only then
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(seed)
            fresh = type(rope)(rope.dim, rope.depth, rope.num_heads, rope.temperature)
            rope.freqs.copy_(fresh.freqs)

    def _scaled(self, i: int, branch: int, x: Tensor) -> Tensor:
        gamma = getattr(self._block(i), f"gamma_{branch}")
        return x if gamma is None else gamma * x

    def _placed(self, i: int, x: Tensor, t: Tokens) -> Tensor:
        """Rotate the patches; sine 0 and cosine 1 for the prefix, which is to leave it as it is."""
        if t.rope is None:
            return x
        rope = t.rope[i] if self.vit.rope_mixed else t.rope  # mixed: learnt per block and head
        # Which channels turn together: those half a head apart, or neighbours.
        half = self._block(i).attn.rotate_half
        patches = apply_rot_embed_cat(x[:, :, t.prefix :], rope, half=half)
        return torch.cat([x[:, :, : t.prefix], patches], dim=2).to(x.dtype)
