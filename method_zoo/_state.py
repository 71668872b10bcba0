"""Weights into an opened model, under the names that they have outside."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from ._errors import ZooError
from ._joined import Joined, Qkv


def load_state(vit: nn.Module, native: Mapping[str, str], state: Mapping[str, Tensor]) -> None:
    """Load strictly; `native` gives the outside name of each tensor of `vit`.

    A merged backbone has biases where the model has none; such a layer is given one.
    Raises ZooError naming what does not fit.
    """
    opened = {outside: name for name, outside in native.items()}
    state = {opened.get(name, name): tensor for name, tensor in state.items()}
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
    for name in new:
        parent, _, leaf = name.rpartition(".")
        like = modules[parent].get_parameter("weight")
        bias = nn.Parameter(like.new_empty(state[name].shape), requires_grad=False)
        setattr(modules[parent], leaf, bias)
    vit.load_state_dict(state, strict=True)


def _could_be_bias(modules: Mapping[str, nn.Module], name: str, tensor: Tensor) -> bool:
    """Say whether a tensor is a bias for a linear layer that could have one and has none."""
    parent, _, leaf = name.rpartition(".")
    layer = modules.get(parent)
    if not isinstance(layer, nn.Linear) or isinstance(layer, Joined) or not leaf.endswith("bias"):
        return False
    width = layer.out_features // 3 if isinstance(layer, Qkv) else layer.out_features
    return getattr(layer, leaf, tensor) is None and tensor.shape == (width,)
