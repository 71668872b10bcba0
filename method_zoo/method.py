"""Method: what every fine-tuning method shares: the default loop, wrap, unfreeze, state, merge."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .backbones.backbone import Backbone, Tokens, in_words
from .backbones.linear import Wrapped, rewrite
from .errors import WrongOutputError, ZooError, at_least, one_of, rate

# All that a method is written with, so that it needs one import beside torch.
__all__ = ["Backbone", "Features", "Method", "Prefix", "Tokens", "Wrapped", "ZooError"]
__all__ += ["at_least", "first_of_last", "in_block", "one_of", "rate", "rewrite"]


def first_of_last(backbone: Backbone, blocks: int) -> int:
    """Return the index of the first of the last `blocks` blocks; raises ZooError out of range."""
    if not 1 <= blocks <= backbone.depth:
        raise ZooError(f"blocks is {blocks}; it must be 1 to {backbone.depth} with this backbone")
    return backbone.depth - blocks


def in_block(name: str, first: int) -> bool:
    """Say whether a dotted name lies in block `first` or a later one."""
    parts = name.split(".")
    return parts[0] == "blocks" and len(parts) > 1 and int(parts[1]) >= first


class Features(NamedTuple):
    """What a method hands to the decoder.

    Attributes:
        maps: one map after each group of blocks, (B, C_k, H_k, W_k), shallow to deep.
        final: neck(norm(last tokens)), (B, C, H, W).
        aux: scalar, added to the loss with weight 1.
        queries: what a decoder of queries starts from, (m, Q), the same for every image; None of
            most methods, and for decoders that have their own.
    """

    maps: list[Tensor]
    final: Tensor
    aux: Tensor
    queries: Tensor | None = None


class Prefix(NamedTuple):
    """The part of the forward pass that never changes.

    Attributes:
        tokens: what the last frozen block returned.
        taps: the tokens at the ends of the groups that it covers.
    """

    tokens: Tokens
    taps: list[Tokens]


# What methods of others give, checked where code of ours takes it: there a wrong shape would fail
# far from the fault, or not at all.


def is_of_others(cls: type) -> bool:
    """Whether a class is neither of this package nor of the benchmark's."""
    return cls.__module__.partition(".")[0] not in (__package__, "lpmoe_bench")


def check_tokens(owner: type, i: int, t: object, batch: int, channels: int) -> None:
    """Raise WrongOutputError where block i of a method's class returned no tokens that add up.

    Args:
        owner: the class.
        i: index of the block.
        t: what the block returned.
        batch: how many images entered it.
        channels: width of the block.
    """
    if not isinstance(t, Tokens):
        raise WrongOutputError(owner, f"returns {_kind(t)} from block {i}; it must be Tokens")
    height, width = t.grid
    expected = (batch, t.prefix + height * width, channels)
    if not isinstance(t.x, Tensor) or tuple(t.x.shape) != expected:
        raise WrongOutputError(
            owner,
            f"returns {_kind(t.x)} as the tokens of block {i}; prefix {t.prefix} and grid "
            f"{height} x {width} make them {expected}",
        )


def check_features(method: Method, features: object, shape: Sequence[int]) -> None:
    """Raise WrongOutputError where a method gave no features of the shapes that it says.

    Args:
        method: built, with its channels and strides.
        features: what its forward pass returned.
        shape: height and width of the image in pixels.
    """
    owner, (height, width) = type(method), shape
    check_features_kind(owner, features)
    assert isinstance(features, Features)
    batch, stride = len(features.final), method.backbone.strides[-1]
    wanted = list(zip(method.channels, method.strides, strict=True))
    expected = [(batch, c, height // s, width // s) for c, s in wanted]
    if (got := [tuple(m.shape) for m in features.maps]) != expected:
        raise WrongOutputError(owner, f"gives maps {got}; its channels and strides say {expected}")
    final = (batch, method.backbone.neck_channels, height // stride, width // stride)
    if tuple(features.final.shape) != final:
        raise WrongOutputError(
            owner, f"gives a final map {tuple(features.final.shape)}; it must be {final}"
        )


def check_features_kind(owner: type, features: object) -> None:
    """Raise WrongOutputError where these are no Features of tensors."""
    if not isinstance(features, Features):
        raise WrongOutputError(
            owner, f"returns {_kind(features)}; it must return Features(maps, final, aux)"
        )
    maps = features.maps
    if not isinstance(maps, list) or not all(isinstance(m, Tensor) and m.ndim == 4 for m in maps):
        raise WrongOutputError(
            owner, f"gives maps that are {_kind(maps)}; they must be a list of (B, C, H, W)"
        )
    for name, dims, words in (("final", 4, "(B, C, H, W)"), ("aux", 0, "a scalar")):
        value = getattr(features, name)
        if not isinstance(value, Tensor) or value.ndim != dims:
            raise WrongOutputError(owner, f"gives {_kind(value)} as {name}; it must be {words}")


def _kind(value: object) -> str:
    if isinstance(value, Tensor):
        return f"a tensor {tuple(value.shape)}"
    if isinstance(value, list | tuple):
        return f"{type(value).__name__} of {len(value)} ({', '.join(map(_kind, value[:4]))})"
    return type(value).__name__


class Method(nn.Module):
    """One way to adapt a frozen backbone. Subclasses take keyword options with paper defaults.

    The smallest of three rungs is enough for most: wrap or unfreeze in `__init__`; override
    `block`; override `forward`. What is registered after `super().__init__`, or unfrozen, trains.

    Args:
        backbone: what `create_backbone` made. It is changed in place: build one for each method.

    Raises:
        ZooError: The method and the backbone, or the options, do not go together.
    """

    title: ClassVar[str]
    paper: ClassVar[str] = ""
    fidelity: ClassVar[str] = "faithful to the paper's equations"
    identity_at_init: ClassVar[bool] = True
    needs_prompts: ClassVar[bool] = False
    needs_one_width: ClassVar[bool] = False  # has modules of one width, or a loop without `merge`
    needs_attention: ClassVar[bool] = False  # works at the attention or MLP branch of a block
    # Classes of the only backbones that it takes, with a name of such; empty where it takes any.
    made_for: ClassVar[dict[str, str]] = {}
    mergeable: ClassVar[bool] = False
    unmergeable: ClassVar[str] = "it depends on its input"  # why, where it is not mergeable
    find_unused_parameters: ClassVar[bool] = False
    batch_statistics: ClassVar[bool] = False  # its BatchNorm sees how a batch is divided
    recomputable: ClassVar[tuple[str, ...]] = ()  # what `recompute` may name
    decoder: ClassVar[str] = "fpn"
    preset: ClassVar[dict[str, float]] = {"lr": 1e-3}
    # Options that came when records existed, with the value that those records mean.
    later_options: ClassVar[dict[str, object]] = {}
    # Trainable tensors that may stay without gradient: {fragment of the name: the reason}.
    without_gradient: ClassVar[dict[str, str]] = {}

    def __init__(self, backbone: Backbone):
        super().__init__()
        if self.needs_prompts and not backbone.accepts_prompts:
            raise ZooError(f"{self.title} inserts prompts, which this backbone does not accept")
        if self.made_for and type(backbone).__name__ not in self.made_for:
            raise ZooError(
                f"{self.title} goes on {' or '.join(self.made_for)} alone, and this backbone is of "
                f"another kind; use one such as {' or '.join(self.made_for.values())}"
            )
        if self.needs_attention and not backbone.has_attention:
            raise ZooError(
                f"{self.title} works at the attention of a block, which this backbone has none of; "
                f"use a vision transformer or Swin"
            )
        if self.needs_one_width and len(backbone.widths) > 1:
            raise ZooError(
                f"{self.title} has modules of one width for all blocks, and the stages of this "
                f"backbone are {in_words(backbone.widths)} wide; use a plain vision transformer "
                f"such as vit_small_patch16_224"
            )
        self.backbone = backbone
        self.checkpointing = False
        self.recompute: str | None = None  # one of `recomputable`, where less than all is wanted
        self.frozen_blocks = 0  # leading blocks whose outputs never change
        self.channels = [backbone.dims[max(0, group.stop - 1)] for group in backbone.groups]
        self.strides = list(backbone.strides)
        self.query_shape: tuple[int, int] | None = None  # (m, Q) of `Features.queries`, if any
        self.backbone_size = sum(p.numel() for p in backbone.parameters())
        # What the backbone came with: of that, only what trains belongs into the adapter file.
        self._original = {name for name, _ in _tensors(self)}
        self._merged = False
        self._checked = is_of_others(type(self))

    # The loop -------------------------------------------------------------------------------

    def block(self, i: int, t: Tokens) -> Tokens:
        """Run one block; rung 2 overrides it.

        Args:
            i: index of the block.
            t: the tokens that enter it.

        Returns:
            The tokens that leave it.
        """
        return self.backbone.block(i, t)

    def step(self, i: int, t: Tokens) -> Tokens:
        """Run `block`, recomputed in the backward pass when checkpointing is on."""
        return self.recomputed(self.block, i, t)

    def recomputed(self, part: Callable[..., Any], *inputs: Any) -> Any:
        """Call a part of the network; with checkpointing on it keeps its inputs alone and is
        called once more in the backward pass."""
        if self.checkpointing and torch.is_grad_enabled():
            return checkpoint(part, *inputs, use_reentrant=False)
        return part(*inputs)

    def prefix(self, image: Tensor) -> Prefix:
        """Embed an image and run the frozen blocks, without gradient where they are frozen.

        Args:
            image: RGB in [0, 1], (B, 3, h, w).

        Returns:
            What `finish` goes on with. It may be kept over epochs.
        """
        # With nothing frozen even the patch embedding may train, so gradients have to reach it.
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen_blocks):
            return self._walk(Prefix(self.backbone.embed(image), []), range(self.frozen_blocks))

    def finish(self, prefix: Prefix) -> Features:
        """Run the remaining blocks.

        Args:
            prefix: what `prefix` returned.

        Returns:
            One normed map after each group of blocks, and the final one.
        """
        rest = range(self.frozen_blocks, self.backbone.depth)
        tokens, taps = self._walk(prefix, rest)
        normed = [self.backbone.norm(t) for t in taps]
        return Features([t.map() for t in normed], self.backbone.neck(normed[-1]), tokens.aux)

    def forward(self, image: Tensor) -> Features:
        """Turn an image into features; rung 3 overrides it.

        Args:
            image: RGB in [0, 1], (B, 3, h, w); both sides are multiples of 32.

        Returns:
            What a decoder reads.
        """
        return self.finish(self.prefix(image))

    def _walk(self, start: Prefix, blocks: range) -> Prefix:
        t, taps = start.tokens, list(start.taps)
        groups, strides = self.backbone.groups, self.backbone.strides
        # Behind the last block of each group its tokens are kept as a tap.
        ends = {group[-1] for group in groups}
        # Where a stage begins; groups of one stride have nothing between them.
        begins = {groups[g][0]: g for g in range(1, len(groups)) if strides[g] != strides[g - 1]}
        for i in blocks:
            if i in begins:
                t = self.recomputed(self.backbone.merge, begins[i], t)
            batch = len(t.x)
            t = self.step(i, t)
            if self._checked:
                check_tokens(type(self), i, t, batch, self.backbone.dims[i])
            if i in ends:
                taps.append(t)
        return Prefix(t, taps)

    # What trains ----------------------------------------------------------------------------

    def wrap(self, match: Callable[[str], bool], wrapper: Callable[[Any], Wrapped]) -> None:
        """Replace backbone modules by trainable layers around them.

        Args:
            match: whether the module of a dotted name is replaced.
            wrapper: makes the layer from the module.

        Raises:
            ZooError: No module matches.
        """
        names = [name for name, _ in self.backbone.vit.named_modules() if name and match(name)]
        if not names:
            raise ZooError(f"{self.title} found no layer to adapt in this backbone")
        for name in names:  # listed before: a wrapped layer would be found again as its own base
            parent_name, _, leaf = name.rpartition(".")
            parent = self.backbone.vit.get_submodule(parent_name)
            setattr(parent, leaf, wrapper(getattr(parent, leaf)))

    def unfreeze(self, match: Callable[[str], bool]) -> None:
        """Train backbone parameters.

        Args:
            match: whether the parameter of a dotted name trains.

        Raises:
            ZooError: No parameter matches.
        """
        found = [p for name, p in self.backbone.vit.named_parameters() if match(name)]
        if not found:
            raise ZooError(f"{self.title} found no parameter to train in this backbone")
        for parameter in found:
            parameter.requires_grad_(True)

    def trainable(self) -> dict[str, nn.Parameter]:
        """Return the parameters that train, by name."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}

    # State ----------------------------------------------------------------------------------

    def adapter_state(self) -> dict[str, Tensor]:
        """Return every tensor that is not pristine: trained, or added by the method."""
        return {name: t.detach() for name, t in _tensors(self) if not self._pristine(name, t)}

    def load_adapter_state(self, state: dict[str, Tensor]) -> None:
        """Copy a saved adapter state in.

        Args:
            state: what `adapter_state` returned, of the same method with the same options.

        Raises:
            ZooError: Tensors are missing, unknown or of another shape; some are named.
        """
        own = self.adapter_state()
        missing, surplus = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
        if missing or surplus:
            raise ZooError(
                f"this adapter state is not of {self.title} with these options: "
                f"{len(missing)} tensors missing {missing[:3]}, "
                f"{len(surplus)} unknown {surplus[:3]}"
            )
        for name, tensor in own.items():
            if tensor.shape != state[name].shape:
                raise ZooError(
                    f"adapter tensor {name} is {tuple(state[name].shape)}, "
                    f"{self.title} with these options needs {tuple(tensor.shape)}"
                )
        for name, tensor in own.items():  # only now that all fit, so a refusal changes nothing
            tensor.copy_(state[name])

    def _pristine(self, name: str, tensor: Tensor) -> bool:
        # Under the name it had before it became the base of a wrapped layer.
        name = ".".join(part for part in name.split(".") if part != "base")
        return name in self._original and not tensor.requires_grad

    def merge(self) -> Backbone:
        """Fold the adaptation into the backbone.

        Returns:
            The backbone, frozen, which then gives the same features by itself.

        Raises:
            ZooError: The method cannot be merged, or was merged already.
        """
        if not self.mergeable:
            raise ZooError(f"{self.title} cannot be merged: {self.unmergeable}")
        if self._merged:
            raise ZooError(f"{self.title} is merged already; build a fresh method to merge again")
        for name, module in list(self.backbone.vit.named_modules()):
            # list() above: modules are replaced while the tree is walked.
            if isinstance(module, Wrapped):
                parent_name, _, leaf = name.rpartition(".")
                setattr(self.backbone.vit.get_submodule(parent_name), leaf, module.fold())
        self._merged = True
        return self.backbone.requires_grad_(False)


def _tensors(module: nn.Module) -> list[tuple[str, Tensor]]:
    """Return the parameters and the persistent buffers by name, a shared one only once."""
    found: dict[int, tuple[str, Tensor]] = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        # A tensor that several layers share has several names; the first is the one that is saved.
        found.setdefault(id(tensor), (name, tensor))
    return list(found.values())


# Intermediate tensors that are made again in the backward pass instead of being kept.
#
# Checkpointing runs a whole part again, its products of matrices included. Here what costs one pass
# over a tensor, such as a norm, is left out of the graph by itself: its inputs are there anyway.

Call = Callable[..., Tensor]  # of a part and its inputs


def call(part: Callable[..., Tensor], *inputs: Any) -> Tensor:
    """Call a part and keep what it returns, as autograd does."""
    return part(*inputs)


class Remaking:
    """Calls parts whose outputs are not kept for the backward pass.

    Within `during`, use it as a function: `y = remaking(part, x)` is `part(x)`. An operation that
    would keep y keeps how it was made. Parts must be deterministic and move no statistics.
    """

    def __init__(self) -> None:
        # Outputs stay alive until the end of `during`: no other tensor can have their address.
        self._made: dict[int, tuple[Tensor, Callable[[], Tensor]]] = {}

    def __call__(self, part: Callable[..., Tensor], *inputs: Any) -> Tensor:
        out = part(*inputs)
        if not out.requires_grad:
            return out
        kept = [x.detach() if isinstance(x, Tensor) else x for x in inputs]
        device = out.device.type
        # The backward pass runs outside of autocast, so how it stands now is kept.
        enabled, dtype = torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)

        def again() -> Tensor:
            with torch.no_grad(), torch.autocast(device, dtype, enabled=enabled):
                return part(*kept)

        self._made[out.data_ptr()] = out.detach(), again
        return out

    def during(self, part: Callable[..., Tensor], *inputs: Any) -> Tensor:
        """Call `part(*inputs, self)` and return what it returns."""
        try:
            with torch.autograd.graph.saved_tensors_hooks(self._pack, _unpack):
                return part(*inputs, self)
        finally:
            self._made.clear()

    def _pack(self, tensor: Tensor) -> Tensor | Callable[[], Tensor]:
        out, again = self._made.get(tensor.data_ptr(), (None, None))
        if out is None or again is None or not _same(out, tensor):
            return tensor
        shape = tensor.shape  # a linear layer keeps its input as a matrix
        return lambda: again().view(shape)


def _same(one: Tensor, other: Tensor) -> bool:
    """Say whether both are all of the same memory, each in the order of its axes."""
    alike = (one.numel(), one.dtype) == (other.numel(), other.dtype)
    return alike and one.is_contiguous() and other.is_contiguous()


def _unpack(kept: Tensor | Callable[[], Tensor]) -> Tensor:
    return kept if isinstance(kept, Tensor) else kept()
