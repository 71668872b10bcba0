"""A plain timm vision transformer opened into verbs: patchify, position, attention, mlp, norm.

Bit-equal to the native forward of the model it opens; a method writes its own loop over blocks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from timm.layers import Attention, GluMlp, Mlp, PatchEmbed, SwiGLU, resample_abs_pos_embed
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from ..errors import ZooError
from .linear import Joined, Qkv, Wrapped

# Tokens: the state between two blocks, prefix tokens and the patch grid.


class Tokens(NamedTuple):
    """The state between two blocks; a pytree, so checkpointing and compilation see through it.

    Attributes:
        x: (B, prefix + H*W, C), prefix tokens first, then the grid row by row.
        prefix: how many tokens stand before the grid: class and register tokens, and prompts.
        grid: H and W.
        rope: rotations of the patches, where the backbone has such.
        aux: scalar auxiliary loss gathered so far.
    """

    x: Tensor
    prefix: int
    grid: tuple[int, int]
    rope: Tensor | None
    aux: Tensor

    @property
    def patches(self) -> Tensor:  # (B, H*W, C)
        return self.x[:, self.prefix :]

    def map(self) -> Tensor:
        """Return the patch tokens as a map, (B, C, H, W)."""
        return self.patches.transpose(1, 2).unflatten(2, self.grid)

    def with_patches(self, patches: Tensor) -> Tokens:
        """Replace the patch tokens, (B, H*W, C), and keep the prefix."""
        return self._replace(x=torch.cat([self.x[:, : self.prefix], patches], dim=1))

    def insert(self, prompts: Tensor) -> Tokens:
        """Put prompts, (p, C) or (B, p, C), between the prefix and the patches."""
        prompts = prompts.expand(self.x.shape[0], -1, -1).to(self.x.dtype)
        x = torch.cat([self.x[:, : self.prefix], prompts, self.patches], dim=1)
        return self._replace(x=x, prefix=self.prefix + prompts.shape[1])

    def drop(self, count: int) -> Tokens:
        """Take the last `count` prefix tokens away: the inverse of insert."""
        keep = self.prefix - count
        x = torch.cat([self.x[:, :keep], self.patches], dim=1)
        return self._replace(x=x, prefix=keep)

    def add(self, update: Tokens) -> Tokens:
        """Add a residual update and its auxiliary loss."""
        return self._replace(x=self.x + update.x, aux=self.aux + update.aux)


# Weights into an opened model, under the names that they have outside.


def check_native_state(
    vit: nn.Module, native: Mapping[str, str], state: Mapping[str, Tensor]
) -> set[str]:
    """Check that a state fits; `native` gives the outside name of each tensor of `vit`.

    Returns the opened names of biases that the model has none of, which a merged backbone may have.
    Raises ZooError naming what does not fit.
    """
    state = _opened_names(native, state)
    own = vit.state_dict()
    modules = dict(vit.named_modules())
    new = {n for n in state.keys() - own.keys() if _could_be_bias(modules, n, state[n])}
    missing = sorted(native[n] for n in own.keys() - state.keys())
    surplus = sorted(state.keys() - own.keys() - new)
    shapes = sorted(native[n] for n in own.keys() & state.keys() if own[n].shape != state[n].shape)
    if missing or surplus or shapes:
        raise ZooError(
            f"these weights do not fit the backbone: {len(missing)} tensors missing "
            f"{missing[:3]}, {len(surplus)} unknown {surplus[:3]}, "
            f"{len(shapes)} of another shape {shapes[:3]}"
        )
    return new


def load_native_state(
    vit: nn.Module, native: Mapping[str, str], state: Mapping[str, Tensor]
) -> None:
    """Load strictly, after `check_native_state`; a layer is given the bias that it has none of."""
    new, state = check_native_state(vit, native, state), _opened_names(native, state)
    modules = dict(vit.named_modules())
    for name in new:
        parent, _, leaf = name.rpartition(".")
        like = modules[parent].get_parameter("weight")
        bias = nn.Parameter(like.new_empty(state[name].shape), requires_grad=False)
        setattr(modules[parent], leaf, bias)
    vit.load_state_dict(state, strict=True)


def _opened_names(native: Mapping[str, str], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    opened = {outside: name for name, outside in native.items()}
    return {opened.get(name, name): tensor for name, tensor in state.items()}


def _could_be_bias(modules: Mapping[str, nn.Module], name: str, tensor: Tensor) -> bool:
    """Say whether a tensor is a bias for a linear layer that could have one and has none."""
    parent, _, leaf = name.rpartition(".")
    layer = modules.get(parent)
    if not isinstance(layer, nn.Linear) or isinstance(layer, Joined) or not leaf.endswith("bias"):
        return False
    # Of a Qkv only the keys' bias can be missing: a third of the outputs.
    width = layer.out_features // 3 if isinstance(layer, Qkv) else layer.out_features
    return getattr(layer, leaf, tensor) is None and tensor.shape == (width,)


STRIDE = 16
SIDE_MULTIPLE = 32


class Backbone(nn.Module):
    """A frozen plain ViT. Every plain backbone has stride 16 seen from the image.

    A model with patch 14 resizes its input to 14/16, so methods and decoders never see the patch
    size. `groups` are four ranges of blocks, the one notion of stage. `dims` has the width of the
    tokens that leave each block, `strides` the stride of those that leave each group: here they
    are all the same, in a hierarchical family they grow from group to group.

    Args:
        vit: a model of timm. It is frozen and set to eval mode.
        pos_antialias: whether its position table is resized with antialias.

    Raises:
        ZooError: The model has parts that this family does not compute.
    """

    accepts_prompts = True
    has_attention = True  # whether `attention` and `mlp` are the two branches of a block
    fixed_grid: tuple[int, int] | None = None
    stride = STRIDE  # of the tokens that enter block 0
    depth: int
    heads: int
    groups: list[range]
    dims: list[int]  # of each block
    strides: list[int]  # of each group
    mean: Tensor
    std: Tensor

    def __init__(self, vit: nn.Module, pos_antialias: bool = True):
        super().__init__()
        # By identity: to open a model gives its parts other names, and files of weights have the
        # outside ones.
        names = {id(t): name for name, t in vit.state_dict(keep_vars=True).items()}
        self.vit: Any = self._openable(vit).requires_grad_(False).eval()
        opened = self.vit.state_dict(keep_vars=True).items()
        self._native = {name: names[id(t)] for name, t in opened}  # what it is called outside
        self.pos_antialias = pos_antialias
        self._measure()
        cfg: Any = vit.pretrained_cfg
        # Not persistent: they are the model's, and no part of what is trained and saved.
        self.register_buffer("mean", torch.tensor(cfg["mean"]).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(cfg["std"]).view(3, 1, 1), persistent=False)

    def _openable(self, vit: nn.Module) -> nn.Module:
        """Return the model if this family computes all of it; raises ZooError otherwise."""
        return _plain(vit)

    def _measure(self) -> None:
        """Set depth, heads, groups, dims and strides."""
        self.depth = len(self.vit.blocks)
        self.heads = self._block(0).attn.num_heads
        # Where four does not divide the depth, groups differ by one block.
        bounds = [round(self.depth * k / 4) for k in range(5)]
        self.groups = [range(a, b) for a, b in pairwise(bounds)]
        self.dims = [self.vit.embed_dim] * self.depth
        self.strides = [STRIDE] * len(self.groups)

    @property
    def widths(self) -> list[int]:
        """Return the different widths of the blocks, narrow to wide."""
        return sorted(set(self.dims))

    @property
    def dim(self) -> int:
        """Return the one width of all blocks.

        Raises:
            ZooError: The stages differ in width; `dims` has that of each block.
        """
        if len(self.widths) > 1:
            raise ZooError(
                f"the stages of this backbone are {in_words(self.widths)} wide, so it has no one "
                f"width; read dims[i], the width of block i"
            )
        return self.dims[0]

    def train(self, mode: bool = True) -> Backbone:
        """Keep the frozen model in eval mode; what a method wrapped around it follows `mode`."""
        super().train(False)
        for wrapped in [m for m in self.modules() if isinstance(m, Wrapped)]:
            wrapped.training = mode
            for name, child in wrapped.named_children():
                if name != "base":
                    child.train(mode)
        return self

    def normalise_by(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Take other statistics of the pixels, in RGB within 0 to 1, than the model's own."""
        for buffer, values in ((self.mean, mean), (self.std, std)):
            buffer.copy_(
                torch.tensor(values, dtype=buffer.dtype, device=buffer.device)[:, None, None]
            )

    def normalise(self, image: Tensor) -> Tensor:
        """Bring float RGB in [0, 1], (B, 3, h, w), to the statistics of this model."""
        return (image - self.mean) / self.std

    def patchify(self, image: Tensor) -> Tensor:
        """Embed an image, without position.

        Args:
            image: RGB in [0, 1], (B, 3, h, w).

        Returns:
            The patches, (B, H, W, C).

        Raises:
            ZooError: A side is no multiple of 32.
        """
        height, width = checked_sides(image)
        patch = self.vit.patch_embed.patch_size[0]
        image = self.normalise(image)
        if patch != STRIDE:
            # 16 pixels become 14, so that the grid is that of a model with patches of 16.
            size = (height // STRIDE * patch, width // STRIDE * patch)
            image = F.interpolate(image, size, mode="bilinear", antialias=True)
        patches = self.vit.patch_embed.proj(image).permute(0, 2, 3, 1)
        return self.vit.patch_embed.norm(patches)

    def position(self, patches: Tensor) -> Tokens:
        """Add position, class and register tokens, then the pre-norm: (B, H, W, C) -> Tokens."""
        vit, batch, grid = self.vit, patches.shape[0], (patches.shape[1], patches.shape[2])
        x = patches.flatten(1, 2)
        prefix = [t.expand(batch, -1, -1) for t in (vit.cls_token, vit.reg_token) if t is not None]
        table = self._position_table(grid)
        # timm's no_embed_class: the table has rows for patches alone, so it is added before the
        # prefix comes in front. Otherwise it has rows for the prefix as well.
        if vit.no_embed_class and table is not None:
            x = x + table
        if prefix:
            x = torch.cat([*prefix, x], dim=1)
        if not vit.no_embed_class and table is not None:
            x = x + table
        aux = x.new_zeros((), dtype=torch.float32)
        return Tokens(vit.norm_pre(x), vit.num_prefix_tokens, grid, None, aux)

    def _position_table(self, grid: tuple[int, int]) -> Tensor | None:
        vit = self.vit
        if vit.pos_embed is None or grid == tuple(vit.patch_embed.grid_size):
            return vit.pos_embed
        return resample_abs_pos_embed(
            vit.pos_embed,
            new_size=list(grid),
            old_size=list(vit.patch_embed.grid_size),
            num_prefix_tokens=0 if vit.no_embed_class else vit.num_prefix_tokens,
            antialias=self.pos_antialias,
        )

    def embed(self, image: Tensor) -> Tokens:
        """Image in [0, 1] to the tokens that enter block 0."""
        return self.position(self.patchify(image))

    def linear(
        self, module: nn.Module, x: Tensor, prefix: int, grid: tuple[int, int]
    ) -> tuple[Tensor, Tensor | float]:
        """Call a wrapped layer with prefix and grid, a plain one plainly; returns (output, aux)."""
        if isinstance(module, Wrapped):
            return module.forward_aux(x, prefix, grid)
        return module(x), 0.0

    def _block(self, i: int) -> Any:
        return self.vit.blocks[i]

    def norm1(self, i: int, t: Tokens) -> Tensor:
        """Return what the attention branch of block i reads, (B, N, C)."""
        return self._block(i).norm1(t.x)

    def norm2(self, i: int, t: Tokens) -> Tensor:
        """Return what the MLP branch of block i reads, (B, N, C)."""
        return self._block(i).norm2(t.x)

    def attention(self, i: int, t: Tokens, normed: Tensor | None = None) -> Tokens:
        """Return the residual update of the attention branch: norm, branch, LayerScale."""
        x = self.norm1(i, t) if normed is None else normed
        x, aux = self._self_attention(i, x, t)
        # aux is this branch's loss alone: add() sums it with what the tokens have so far.
        return t._replace(x=self._scaled(i, 1, x), aux=torch.zeros_like(t.aux) + aux)

    def mlp(self, i: int, t: Tokens, normed: Tensor | None = None) -> Tokens:
        """Return the residual update of the MLP branch: norm, branch, LayerScale."""
        x = self.norm2(i, t) if normed is None else normed
        x, aux = self._feed_forward(self._block(i).mlp, x, t)
        return t._replace(x=self._scaled(i, 2, x), aux=torch.zeros_like(t.aux) + aux)

    def _scaled(self, i: int, branch: int, x: Tensor) -> Tensor:
        """Apply the LayerScale of branch 1, attention, or 2, MLP, of block i."""
        return getattr(self._block(i), f"ls{branch}")(x)

    def _feed_forward(self, mlp: Any, x: Tensor, t: Tokens) -> tuple[Tensor, Tensor | float]:
        # An MLP of a type that is not known runs by its own code.
        if type(mlp) not in (Mlp, GluMlp, SwiGLU):
            return mlp(x), 0.0
        x, aux1 = self.linear(mlp.fc1, x, t.prefix, t.grid)
        x = mlp.norm(_activated(mlp, x))
        x, aux2 = self.linear(mlp.fc2, x, t.prefix, t.grid)
        return x, aux1 + aux2

    def _self_attention(self, i: int, x: Tensor, t: Tokens) -> tuple[Tensor, Tensor | float]:
        attn = self._block(i).attn
        batch, count, _ = x.shape
        gate = attn.gate(x).sigmoid() if attn.gate is not None else None
        qkv, aux1 = self.linear(attn.qkv, x, t.prefix, t.grid)
        # (B, N, 3 * heads * width) to (3, B, heads, N,
        # width): three tensors as attention wants them.
        qkv = qkv.reshape(batch, count, 3, attn.num_heads, attn.head_dim).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        q, k = (self._placed(i, x, t) for x in (attn.q_norm(q), attn.k_norm(k)))
        x = F.scaled_dot_product_attention(q, k, v)
        x = attn.norm(x.transpose(1, 2).reshape(batch, count, -1))
        x = x if gate is None else x * gate
        x, aux2 = self.linear(attn.proj, x, t.prefix, t.grid)
        return x, aux1 + aux2

    def _placed(self, i: int, x: Tensor, t: Tokens) -> Tensor:
        """Give queries or keys, (B, heads, N, head width), their place; here they have it."""
        return x

    def merge(self, g: int, t: Tokens) -> Tokens:
        """Run what stands before group g, above 0: nothing where all blocks have one grid."""
        return t

    def shortcut(self, i: int, t: Tokens) -> Tokens:
        """Return what the attention's update of block i is added to: mostly the tokens as they are.

        A block that pools its queries pools these too.
        """
        return t

    def block(self, i: int, t: Tokens) -> Tokens:
        """Run block i as it is: attention, then MLP, each added to the residual stream."""
        t = t.add(self.attention(i, t))
        return t.add(self.mlp(i, t))

    def norm(self, t: Tokens) -> Tokens:
        """Apply the final norm to all tokens; of stages it is the norm of theirs, if any."""
        return t._replace(x=self.vit.norm(t.x))

    def neck(self, t: Tokens) -> Tensor:
        """Return the map a decoder of the backbone's own family reads, (B, C, H, W)."""
        return t.map()

    @property
    def neck_channels(self) -> int:
        """Return the channels of what `neck` gives."""
        return self.dims[-1]

    def state(self) -> dict[str, Tensor]:
        """Return the weights under the names they have outside, for a file that `load` reads."""
        tensors: dict[str, Tensor] = self.vit.state_dict()
        return {self._native.get(name, name): tensor for name, tensor in tensors.items()}

    def opened_name(self, name: str) -> str:
        """Return the module of `vit` that holds the tensor of an outside name."""
        opened = next(inside for inside, outside in self._native.items() if outside == name)
        return opened.rpartition(".")[0]

    def check(self, state: Mapping[str, Tensor]) -> None:
        """Raise ZooError where `load` would refuse a state; nothing is loaded."""
        check_native_state(self.vit, self._native, state)

    def load(self, state: dict[str, Tensor]) -> None:
        """Load a state dict strictly.

        Args:
            state: of the model's own library, or what `state` returned. A merged backbone has
                biases where the model has none; a layer is given one for it.

        Raises:
            ZooError: Tensors are missing, unknown or of another shape; some are named.
        """
        load_native_state(self.vit, self._native, state)

    def reset(self, seed: int) -> None:
        """Re-initialise every weight as timm does for training from scratch."""
        # The caller's generator goes on as if nothing had been drawn.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.vit.init_weights()
        for module in self.vit.modules():
            if isinstance(module, Qkv):  # which timm takes for a layer with a bias of its own
                nn.init.zeros_(module.q_bias)
                nn.init.zeros_(module.v_bias)


def checked_sides(image: Tensor) -> tuple[int, int]:
    """Return height and width of an image; raises ZooError for one that is no multiple of 32."""
    height, width = image.shape[-2:]
    if height % SIDE_MULTIPLE or width % SIDE_MULTIPLE:
        raise ZooError(
            f"image is {height} x {width}; both sides must be multiples of {SIDE_MULTIPLE}: "
            f"resize it first"
        )
    return height, width


def in_words(numbers: Sequence[int]) -> str:
    """Say several numbers: "96, 192 and 384"."""
    *first, last = map(str, numbers)
    return f"{', '.join(first)} and {last}" if first else last


def _activated(mlp: Any, x: Tensor) -> Tensor:
    """Apply the non-linearity of an MLP, or its gate: one half of the channels by the other."""
    if type(mlp) is Mlp:
        return mlp.act(x)
    first, second = x.chunk(2, dim=-1)
    return first * mlp.act(second) if getattr(mlp, "gate_last", False) else mlp.act(first) * second


def _plain(vit: nn.Module) -> VisionTransformer:
    # A subclass may add tokens of its own, which this class would leave out.
    if type(vit) is not VisionTransformer or not isinstance(vit.patch_embed, PatchEmbed):
        raise ZooError(
            f"{type(vit).__name__} is not a plain timm VisionTransformer; "
            f"use a vit_*, deit_*, DINO, EVA, BEiT, SAM, swin_*, convnext_* or sam2_hiera_* "
            f"model of timm"
        )
    check_plain_blocks(vit)
    return vit


def check_plain_blocks(vit: Any) -> None:
    """Raise ZooError for a model whose blocks are not those of a plain vision transformer."""
    for block in vit.blocks:
        if type(block) is not Block or type(block.attn) is not Attention:
            kind = type(block).__name__
            raise ZooError(f"blocks of type {kind} cannot be opened; use a plain vit_* model")
