"""ConvNeXt v1 and v2 opened into verbs: blocks of one residual branch, without attention.

ConvNeXt, Liu et al., CVPR 2022, arXiv 2201.03545; v2 with global response norm, Woo et al., CVPR
2023, arXiv 2301.00808; the model is timm's class `ConvNeXt`.
"""

from typing import Any, NoReturn

import torch
from timm.layers import LayerNorm2d, Mlp
from timm.layers.grn import GlobalResponseNorm
from timm.models.convnext import ConvNeXt as TimmConvNeXt
from timm.models.convnext import ConvNeXtBlock
from torch import Tensor, nn

from ..errors import ZooError
from .backbone import Tokens
from .staged import PATCH, Staged, in_stages

LAYER_SCALE = 1e-6  # where training from scratch starts it


class ConvNeXt(Staged):
    """A block is x + g W2 GELU(W1 LN(D x)), D a depthwise convolution of 7 x 7 on the grid.

    In place of `attention` and `mlp` there is `update`, the one branch. v2 has no scale g, and a
    norm over the grid behind the GELU. The final norm is that of timm's head.
    """

    has_attention = False

    def _openable(self, vit: nn.Module) -> nn.Module:
        assert type(vit) is TimmConvNeXt
        parts: Any = vit
        if len(parts.stem) != 2:
            raise ZooError(
                "a ConvNeXt whose stem overlaps cannot be opened; use one with a stem of patches, "
                "such as convnext_tiny"
            )
        blocks = [block for stage in parts.stages for block in stage.blocks]
        if any(block.use_conv_mlp or block.conv_dw.dilation != (1, 1) for block in blocks):
            raise ZooError(
                "a ConvNeXt with convolutions as its MLP, or dilated ones, cannot be opened; use "
                "one as its authors define it, such as convnext_tiny or convnextv2_tiny"
            )
        for stage in parts.stages[1:]:
            norm, conv = stage.downsample
            stage.downsample = Merge(norm, conv)
        final = parts.head.norm if isinstance(parts.norm_pre, nn.Identity) else parts.norm_pre
        parts.patch_embed = Stem(
            parts.stem[0], parts.stem[1], parts.pretrained_cfg["input_size"][-1]
        )
        parts.norm = _by_channel_last(final)
        del parts.stem, parts.head, parts.norm_pre
        widths = [stage.blocks[0].conv_dw.out_channels for stage in parts.stages]
        return in_stages(parts, "stages", widths, (ConvNeXtBlock,))

    def norm1(self, i: int, t: Tokens) -> Tensor:
        _no_branches()

    def norm2(self, i: int, t: Tokens) -> Tensor:
        _no_branches()

    def attention(self, i: int, t: Tokens, normed: Tensor | None = None) -> Tokens:
        """Raise ZooError: a block has one branch, see `update`."""
        _no_branches()

    def mlp(self, i: int, t: Tokens, normed: Tensor | None = None) -> Tokens:
        """Raise ZooError: a block has one branch, see `update`."""
        _no_branches()

    def update(self, i: int, t: Tokens) -> Tokens:
        """Return the residual update of block i: convolution, norm, MLP, scale."""
        block = self._block(i)
        # The filter reads channels first, norm and MLP channels last: (B, C, H, W) to (B, N, C).
        x = block.norm(block.conv_dw(t.map()).permute(0, 2, 3, 1)).flatten(1, 2).contiguous()
        x, aux = self._feed_forward(block.mlp, x, t)
        x = x if block.gamma is None else x * block.gamma
        return t._replace(x=x, aux=torch.zeros_like(t.aux) + aux)

    def _feed_forward(self, mlp: Any, x: Tensor, t: Tokens) -> tuple[Tensor, Tensor | float]:
        if type(mlp) is Mlp:
            return super()._feed_forward(mlp, x, t)
        x, aux1 = self.linear(mlp.fc1, x, t.prefix, t.grid)
        # The response of a channel is its length over the whole grid.
        x = mlp.grn(mlp.act(x).unflatten(1, t.grid)).flatten(1, 2)
        x, aux2 = self.linear(mlp.fc2, x, t.prefix, t.grid)
        return x, aux1 + aux2

    def block(self, i: int, t: Tokens) -> Tokens:
        """Run block i as it is: its one branch, added to the residual stream."""
        return t.add(self.update(i, t))

    def merge(self, g: int, t: Tokens) -> Tokens:
        """Norm and convolve 2 x 2 places into one before stage g."""
        part = self.vit.merges[g - 1]
        x = part.norm(t.x).transpose(1, 2).unflatten(2, t.grid)
        x = part.conv(x).permute(0, 2, 3, 1)
        return t._replace(x=x.flatten(1, 2).contiguous(), grid=(x.shape[1], x.shape[2]))

    def reset(self, seed: int) -> None:
        """Re-initialise every weight as timm does for training from scratch."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for module in self.vit.modules():
                if isinstance(module, nn.Conv2d | nn.Linear):
                    nn.init.trunc_normal_(module.weight, std=0.02)
                    if module.bias is not None:
                        nn.init.zeros_(module.bias)
                elif isinstance(module, nn.LayerNorm):
                    module.reset_parameters()
                elif isinstance(module, GlobalResponseNorm):
                    nn.init.zeros_(module.weight)
                    nn.init.zeros_(module.bias)
                elif isinstance(module, ConvNeXtBlock) and module.gamma is not None:
                    nn.init.constant_(module.gamma, LAYER_SCALE)


class Stem(nn.Module):
    """The patch embedding under the names that other families have."""

    def __init__(self, proj: Any, norm: nn.Module, side: int):
        super().__init__()
        self.proj, self.norm = proj, _by_channel_last(norm)
        self.patch_size: tuple[int, int] = tuple(proj.kernel_size)
        self.grid_size = (side // PATCH, side // PATCH)


class Merge(nn.Module):
    """What stands between two stages: a norm of each place, a convolution of 2 x 2."""

    def __init__(self, norm: nn.Module, conv: nn.Module):
        super().__init__()
        self.norm, self.conv = _by_channel_last(norm), conv


def _by_channel_last(norm: Any) -> nn.Module:
    """Return a norm of maps as one of tokens, with the same parameters."""
    if not isinstance(norm, LayerNorm2d):
        return norm
    same = nn.LayerNorm(list(norm.normalized_shape), norm.eps)
    same.weight, same.bias = norm.weight, norm.bias
    return same


def _no_branches() -> NoReturn:
    raise ZooError(
        "a block of ConvNeXt has neither attention nor an MLP of its own, but one branch; use "
        "update or block"
    )
