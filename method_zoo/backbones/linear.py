"""Frozen linear layers as methods see them: one a place, wrapped by a layer that trains."""

from typing import Any

import torch
from timm.layers import SwiGLU
from torch import Tensor, nn

from ..errors import ZooError


class Wrapped(nn.Module):
    """A trainable layer around a frozen one, which it holds as `base`.

    `forward` is told how many of the tokens are prefix and the grid of the rest, so a spatial
    method can read them as a map. Whoever has an auxiliary loss overrides `forward_aux`.

    Args:
        base: the frozen layer.
    """

    base: Any  # of the kind that the method asked for: a linear layer, for SSF also a norm

    def __init__(self, base: nn.Module):
        super().__init__()
        self.base = base

    def forward(self, x: Tensor, prefix: int = 0, grid: tuple[int, int] | None = None) -> Tensor:
        raise NotImplementedError

    def forward_aux(self, x: Tensor, prefix: int, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Return the output and a scalar auxiliary loss."""
        return self(x, prefix, grid), x.new_zeros((), dtype=torch.float32)

    def fold(self) -> nn.Module:
        """Return a plain module that computes the same.

        Raises:
            ZooError: There is none, because the layer depends on its input.
        """
        raise ZooError(f"{type(self).__name__} depends on its input and cannot be folded")


# One linear layer for methods to wrap, where timm keeps several or keeps a bias in parts.
#
# EVA-02 has three layers to queries, keys and values and two into its SwiGLU; EVA and BEiT have one
# fused layer whose query and value biases lie beside it and whose keys have none. Opened, each is
# one `nn.Linear` to whoever reads it, with the parameters it had and the same last bit.


class Joined(nn.Linear):
    """Linear layers that read the same input, as one: their outputs follow one another.

    `weight` and `bias` are put together when read; they are written through `rewrite`.
    """

    def __init__(self, **parts: nn.Linear):
        nn.Module.__init__(self)  # the weights are those of the parts
        for name, part in parts.items():
            self.add_module(name, part)
        self.in_features = next(iter(parts.values())).in_features
        self.out_features = sum(part.out_features for part in parts.values())

    @property
    def parts(self) -> list[nn.Linear]:
        return [part for part in self.children() if isinstance(part, nn.Linear)]

    @property
    def weight(self) -> Tensor:  # (outputs of all parts, inputs)
        return torch.cat([part.weight for part in self.parts])

    @property
    def bias(self) -> Tensor | None:
        if all(part.bias is None for part in self.parts):
            return None
        return torch.cat(
            [p.weight.new_zeros(p.out_features) if p.bias is None else p.bias for p in self.parts]
        )

    def forward(self, input: Tensor) -> Tensor:
        return torch.cat([part(input) for part in self.parts], dim=-1)


class Qkv(nn.Linear):
    """A fused layer to queries, keys and values whose keys have no bias.

    `bias` is put together when read and written through `rewrite`, which gives the keys one.
    """

    def __init__(self, fused: nn.Linear, q_bias: nn.Parameter, v_bias: nn.Parameter):
        nn.Module.__init__(self)
        self.in_features, self.out_features = fused.in_features, fused.out_features
        self.weight, self.q_bias, self.v_bias = fused.weight, q_bias, v_bias
        self.k_bias: nn.Parameter | None
        self.register_parameter("k_bias", None)

    @property
    def bias(self) -> Tensor:
        k_bias = torch.zeros_like(self.q_bias) if self.k_bias is None else self.k_bias
        return torch.cat([self.q_bias, k_bias, self.v_bias])


def open_qkv(attn: Any) -> None:
    """Give an attention of timm one layer `qkv` that holds all its weights and biases."""
    if attn.qkv is None:
        attn.qkv = Joined(q_proj=attn.q_proj, k_proj=attn.k_proj, v_proj=attn.v_proj)
        attn.q_proj = attn.k_proj = attn.v_proj = None
    elif getattr(attn, "q_bias", None) is not None:
        attn.qkv = Qkv(attn.qkv, attn.q_bias, attn.v_bias)
        attn.q_bias = attn.k_bias = attn.v_bias = None


def open_gate(mlp: Any) -> None:
    """Give a SwiGLU one layer `fc1`, the gate first, as in timm's packed form of it."""
    if isinstance(mlp, SwiGLU):
        parts = {"fc1_g": mlp.fc1_g, "fc1_x": mlp.fc1_x}
        del mlp.fc1_g, mlp.fc1_x
        mlp.fc1 = Joined(**parts)


@torch.no_grad()
def rewrite(layer: Any, weight: Tensor | None = None, bias: Tensor | None = None) -> None:
    """Write another weight or bias into a frozen layer; one that has no bias is given one."""
    if isinstance(layer, Joined):  # each part takes its own rows
        sizes = [part.out_features for part in layer.parts]
        for k, part in enumerate(layer.parts):
            rewrite(part, *(None if t is None else t.split(sizes)[k] for t in (weight, bias)))
        return
    if weight is not None:
        layer.weight.copy_(weight)
    if bias is None:
        return
    if isinstance(layer, Qkv):
        # New parameters and no copy in place: of the keys there may be none to copy into.
        for name, part in zip(("q_bias", "k_bias", "v_bias"), bias.chunk(3), strict=True):
            setattr(layer, name, nn.Parameter(part.clone(), requires_grad=False))
    elif layer.bias is None:
        layer.bias = nn.Parameter(bias.clone(), requires_grad=False)
    else:
        layer.bias.copy_(bias)
