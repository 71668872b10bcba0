"""What the hierarchical families share: stages of blocks whose grid halves while the width grows.

Every stage is a group: stride 4 in the first, then 8, 16 and 32. There are no prefix tokens, and no
prompts have a place. Seen from a method the blocks of all stages are numbered through; the verb
`merge` runs what stands between two stages.
"""

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ZooError
from .backbone import Backbone, Tokens, checked_sides, in_words

PATCH = 4
STAGES = 4


class Staged(Backbone):
    """A frozen hierarchical backbone. A family opens its model by `in_stages`.

    `dim` is refused: the width is that of the block, `dims[i]`.
    """

    accepts_prompts = False
    stride = PATCH

    def _measure(self) -> None:
        vit = self.vit
        bounds = [0, *accumulate(vit.depths)]
        self.depth, self.groups = bounds[-1], [range(a, b) for a, b in pairwise(bounds)]
        # An output norm is known by its width, so no two stages may have the same.
        if len(vit.depths) != STAGES or vit.widths != sorted(set(vit.widths)):
            raise ZooError(
                f"stages of {in_words(vit.depths)} blocks, {in_words(vit.widths)} wide, cannot be "
                f"opened; use a model of four stages, each wider than the one before"
            )
        stages = zip(vit.depths, vit.widths, strict=True)
        self.dims = [width for depth, width in stages for _ in range(depth)]
        self.strides = [PATCH * 2**g for g in range(STAGES)]
        if tuple(vit.patch_embed.patch_size) != (PATCH, PATCH):
            raise ZooError(
                f"patches of {in_words(vit.patch_embed.patch_size)} pixels cannot be opened in a "
                f"hierarchical backbone; use a model with patches of {PATCH}"
            )

    def patchify(self, image: Tensor) -> Tensor:
        """Embed an image: RGB in [0, 1], (B, 3, h, w), to (B, h / 4, w / 4, C)."""
        checked_sides(image)
        patches = self.vit.patch_embed.proj(self.normalise(image)).permute(0, 2, 3, 1)
        return self.vit.patch_embed.norm(patches)

    def position(self, patches: Tensor) -> Tokens:
        """Take patches, (B, H, W, C), of any grid as the tokens that enter block 0."""
        x, grid = patches.flatten(1, 2), (patches.shape[1], patches.shape[2])
        return Tokens(x, 0, grid, None, x.new_zeros((), dtype=torch.float32))

    def norm(self, t: Tokens) -> Tokens:
        """Apply the final norm to tokens of the last stage; no other stage has one."""
        return t._replace(x=self.vit.norm(t.x)) if t.x.shape[-1] == self.dims[-1] else t


def in_stages(
    vit: Any, stages: str, widths: Sequence[int], kinds: tuple[type[nn.Module], ...]
) -> nn.Module:
    """Number the blocks of all stages through, as `blocks`, and what stands between as `merges`.

    Args:
        vit: a model of timm whose stages have `blocks`, and `downsample` before them.
        stages: attribute with the stages; it is taken away.
        widths: of the stages.
        kinds: that a block may be of.

    Raises:
        ZooError: A block is of another kind.
    """
    parts: Any = list(getattr(vit, stages))
    blocks = [block for stage in parts for block in stage.blocks]
    for block in blocks:
        if type(block) not in kinds:
            raise ZooError(
                f"blocks of type {type(block).__name__} cannot be opened; use a "
                f"{type(vit).__name__} as timm defines it"
            )
    delattr(vit, stages)
    vit.blocks = nn.ModuleList(blocks)
    vit.merges = nn.ModuleList(stage.downsample for stage in parts[1:])
    vit.depths, vit.widths = [len(stage.blocks) for stage in parts], list(widths)
    vit.pos_embed = None
    return vit
