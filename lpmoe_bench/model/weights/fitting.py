"""A model found in a file into the names and shapes of a backbone, or a sentence why not."""

import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from math import isqrt
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import resample_abs_pos_embed_nhwc
from timm.models import model_entrypoint
from torch import Tensor, nn

from lpmoe_bench.errors import DataError
from lpmoe_bench.model.weights.checkpoint import Checkpoint
from lpmoe_bench.model.weights.layouts import PATCHES, FoundModel, foreign, with_names
from method_zoo import Backbone, ZooError
from method_zoo.backbones.create import OTHERS
from method_zoo.backbones.staged import Staged
from method_zoo.backbones.uniperceiver import NAME as UNI_PERCEIVER

# Parts behind or beside the tokens, which a backbone has none of.
CLASS_ROWS = 3  # of BEiT's relative positions: class to patch, patch to class, class to class
HEADS = ("head.", "head_dist.", "fc_norm.", "attn_pool.")


@dataclass(frozen=True)
class Taken:
    """The tensors of a backbone, and what was resized to make them so."""

    state: dict[str, Tensor]
    said: tuple[str, ...]


def table_side(found: FoundModel, backbone: Backbone) -> int | None:
    """Return the side of the file's position table in patches, None where there is none.

    None, too, for a table that is no square.
    """
    table = found.tensors.get("pos_embed")
    if table is None or backbone.vit.pos_embed is None or table.ndim != backbone.vit.pos_embed.ndim:
        return None
    if table.ndim == 4:
        side = table.shape[1]
        return side if side and side == table.shape[2] else None
    vit = backbone.vit
    prefix = (
        0 if vit.no_embed_class or "register_tokens" in found.tensors else vit.num_prefix_tokens
    )
    # Facebook's table has a row for the class token and none for registers.
    prefix = 1 if "register_tokens" in found.tensors else prefix
    side = isqrt(max(table.shape[1] - prefix, 0))
    return side if side and side**2 == table.shape[1] - prefix else None


def state_for(
    found: FoundModel | None, checkpoint: Checkpoint, backbone: Backbone, name: str
) -> Taken:
    """Return a model's tensors under the names and in the shapes of a backbone.

    Args:
        found: what `find_model` returned.
        checkpoint: of which it was made; timm's own filter reads what is of no known layout.
        backbone: what is to be filled; nothing is written.
        name: of the backbone.

    Returns:
        The tensors, and what was resized.

    Raises:
        DataError: They are of another model; the sentence says which one, and what it fits.
    """
    said: list[str] = []
    if isinstance(backbone, Staged):
        state = _staged_state(found, checkpoint, backbone, name, said)
    elif found is None:
        if what := foreign(checkpoint.tensors):
            raise DataError(f"it holds {what}, not {name}")
        if name in OTHERS:
            raise DataError(f"it holds no image encoder that {name} could be")
        state = timm_state(dict(checkpoint.tensors), backbone.vit, name)
    elif isinstance(backbone.vit.pos_embed, Tensor) and backbone.vit.pos_embed.ndim == 4:
        state = _sam_state(found, backbone, name, said)
    else:
        state = _plain_state(found, backbone, name, said)
    try:
        # On shapes alone, before any tensor is copied: a refusal leaves nothing half filled.
        backbone.check(state)
    except ZooError as error:
        raise DataError(f"{error}{_instead(found, name)}") from None
    return Taken(state, tuple(said))


def _instead(found: FoundModel | None, name: str) -> str:
    """Say what a file that does not fit holds, and what it is made for."""
    if found is None:
        return ""
    fits = found.fits
    other = fits and fits.partition(".")[0] != name.partition(".")[0]
    return f"; it holds {found.title}" + (f": say --backbone {fits}" if other else "")


def _sam_state(
    found: FoundModel, backbone: Backbone, name: str, said: list[str]
) -> dict[str, Tensor]:
    own = backbone.state()
    if found.kind != "sam":
        raise DataError(f"it is no SAM, which {name} is{_instead(found, name)}")
    old, new = ("lin", "fc") if "blocks.0.mlp.fc1.weight" in own else ("fc", "lin")
    state = {n.replace(f".mlp.{old}", f".mlp.{new}"): t for n, t in found.tensors.items()}
    resized = []
    for key, table in list(state.items()):
        target = own.get(key)
        if target is None or target.shape == table.shape or target.shape[-1] != table.shape[-1]:
            continue
        if not table.numel():  # nothing to resize: its shape is refused with the others
            continue
        if key == "pos_embed" and table.ndim == 4:
            grid = list(target.shape[1:3])
            state[key] = resample_abs_pos_embed_nhwc(
                table.float(), grid, antialias=backbone.pos_antialias
            )
            resized.append(key)
        elif key.endswith(("rel_pos_h", "rel_pos_w")):
            # As the model itself does it for a grid that the table was not made for.
            longer = F.interpolate(table.float().T[None], size=target.shape[0], mode="linear")
            state[key] = longer[0].T
            resized.append(key)
    if resized:
        said.append(f"resized {len(resized)} position tables, such as {resized[0]}")
    return state


def _plain_state(
    found: FoundModel, backbone: Backbone, name: str, said: list[str]
) -> dict[str, Tensor]:
    own, state = backbone.state(), dict(found.tensors)
    if found.kind in ("sam", "uni_perceiver") and found.fits != name:
        raise DataError(f"it is no {name}{_instead(found, name)}")
    if "register_tokens" in state and "reg_token" in own:
        # timm's table leaves class token and registers out: the class token has its place added.
        state["reg_token"] = state.pop("register_tokens")
        state["cls_token"] = state["cls_token"] + state["pos_embed"][:, :1]
        state["pos_embed"] = state["pos_embed"][:, 1:]
    if found.kind == "dinov3":
        state = _dinov3_state(state, own)
    names = {r"\.gamma_(\d)$": r".ls\1.gamma"} if "blocks.0.ls1.gamma" in own else {}
    state = with_names(state, names)
    before = {k: t.shape for k, t in state.items()}
    if name != UNI_PERCEIVER:
        state = timm_state(state, backbone.vit, name)
    for key, shape in before.items():
        # timm's filter resizes without a word; what it has done is found by the shapes.
        if key in (PATCHES, "pos_embed") and key in state and state[key].shape != shape:
            shapes = [" x ".join(map(str, one)) for one in (shape, state[key].shape)]
            said.append(f"resized {key} from {shapes[0]} to {shapes[1]}")
    return state


STEMS = ("patch_embed.proj.weight", "stem.0.weight", "downsample_layers.0.0.weight")


def _staged_state(
    found: FoundModel | None, checkpoint: Checkpoint, backbone: Backbone, name: str, said: list[str]
) -> dict[str, Tensor]:
    """Return a hierarchical model's tensors, in timm's names or in those of its authors."""
    if found is not None and found.depth and "pos_embed_window" not in found.tensors:
        raise DataError(f"it has no stages, which {name} has{_instead(found, name)}")
    tensors = checkpoint.tensors
    starts = {n.removesuffix(stem) for n in tensors for stem in STEMS if n.endswith(stem)}
    if not starts and (what := foreign(tensors)):
        raise DataError(f"it holds {what}, not {name}")
    if len(starts) > 1:
        names = " and ".join(f"'{start}'" for start in sorted(starts))
        raise DataError(f"it holds several models, {names}; save one of them to a file of its own")
    prefix = next(iter(starts), "")
    if prefix:
        said.append(f"prefix '{prefix}' stripped")
    part = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
    if left := len(tensors) - len(part):
        said.append(f"left out {left} tensors outside of it")
    state = timm_state(part, outside(backbone), name)
    own = backbone.state()
    if resized := [n for n in state.keys() & own.keys() & part.keys()
                   if state[n].shape != part[n].shape and TABLE in n]:  # fmt: skip
        said.append(f"resized {len(resized)} tables of places, such as {min(resized)}")
    return state


TABLE = "relative_position_bias_table"


def outside(backbone: Backbone) -> nn.Module:
    """Return what timm's filters read: the model, or the stages of one under their own names."""
    return _Outside(backbone) if isinstance(backbone, Staged) else backbone.vit


class _Outside(nn.Module):
    """A hierarchical backbone as timm's filters read one: its parts under their outside names."""

    def __init__(self, backbone: Backbone):
        super().__init__()
        self.backbone = backbone
        self.patch_embed = backbone.vit.patch_embed

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        return self.backbone.state()

    def get_submodule(self, target: str) -> nn.Module:
        return self.backbone.vit.get_submodule(self.backbone.opened_name(f"{target}.{TABLE}"))


def _dinov3_state(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give DINOv3 the names of timm's class: registers, LayerScale, gates, biases without keys."""
    rules = {r"^storage_tokens$": "reg_token", r"\.ls(\d)\.gamma$": r".gamma_\1"}
    rules |= {r"\.mlp\.w1\.": ".mlp.fc1_g.", r"\.mlp\.w2\.": ".mlp.fc1_x."}
    rules |= {r"\.mlp\.w3\.": ".mlp.fc2."}
    found = {}
    for name, tensor in with_names(state, rules).items():
        if not name.endswith("attn.qkv.bias"):
            found[name] = tensor
            continue
        query, key, value = tensor.chunk(3)
        place = name.removesuffix("qkv.bias")
        if f"{place}q_bias" in own:
            found |= {f"{place}q_bias": query, f"{place}v_bias": value}
        elif bool(query.any()) or bool(value.any()):  # keys have none: its authors mask it
            found[name] = torch.cat([query, torch.zeros_like(key), value])
    return found


def timm_state(state: dict[str, Tensor], vit: nn.Module, timm_name: str) -> dict[str, Tensor]:
    """Return a checkpoint under the names of `vit`, through timm's own filter, without heads.

    Raises DataError where timm cannot read it.
    """
    module: Any = sys.modules[model_entrypoint(timm_name.partition(".")[0]).__module__]
    try:
        with warnings.catch_warnings():  # torch's about how timm resizes the tables of BEiT
            for message in (r"torch\.searchsorted", "Using a non-tuple sequence"):
                warnings.filterwarnings("ignore", message, UserWarning)
            state = module.checkpoint_filter_fn(state, vit)
    except Exception as error:  # a foreign file fails inside timm in any way it likes
        if odd := _odd_table(state, vit):
            raise DataError(odd) from None
        raise DataError(f"timm cannot read these weights as {timm_name} ({error!r})") from error
    own = vit.state_dict().keys()
    # Models that pool by the mean keep their final norm behind the pooling.
    for leaf in ("weight", "bias"):
        if f"norm.{leaf}" in own and f"norm.{leaf}" not in state and f"fc_norm.{leaf}" in state:
            state[f"norm.{leaf}"] = state[f"fc_norm.{leaf}"]
    return {name: t for name, t in state.items() if name in own or not name.startswith(HEADS)}


def _odd_table(state: Mapping[str, Tensor], vit: nn.Module) -> str:
    """Say which position table could not be resized, and why; empty where none is the reason."""
    own = getattr(vit, "pos_embed", None)
    table = state.get("pos_embed")
    if table is not None and isinstance(own, Tensor) and table.shape != own.shape:
        shape = " x ".join(map(str, table.shape)) or "a scalar"
        if table.ndim != own.ndim or table.shape[-1] != own.shape[-1]:
            here = " x ".join(map(str, own.shape))
            return f"its position table is {shape}; this backbone has {here}"
        prefix = (
            0 if getattr(vit, "no_embed_class", False) else getattr(vit, "num_prefix_tokens", 1)
        )
        count = table.shape[1] - prefix
        if count < 1 or isqrt(count) ** 2 != count:
            return (
                f"its position table is {shape}: without {prefix} prefix tokens that leaves "
                f"{count} places, which are no square grid"
            )
    for name, bias in state.items():
        if not name.endswith("relative_position_bias_table"):
            continue
        count = len(bias) - CLASS_ROWS
        side = isqrt(max(count, 0))
        if bias.ndim != 2 or not side % 2 or side**2 != count:
            return (
                f"its table '{name}' has {len(bias)} rows; a square window of k x k patches has "
                f"(2 k - 1) squared and {CLASS_ROWS} for the class token"
            )
    return ""


def check_numbers(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    """Refuse weights that are no numbers to compute with.

    Args:
        state: what is to be loaded.
        own: the backbone's own tensors; whole numbers are right where these have them.

    Raises:
        DataError: A tensor holds whole numbers, NaN or infinity; it is named.
    """
    for name, tensor in state.items():
        wanted = own.get(name)
        if wanted is not None and not wanted.is_floating_point():
            continue
        if tensor.dtype not in (torch.float32, torch.float16, torch.bfloat16, torch.float64):
            kind = str(tensor.dtype).removeprefix("torch.")
            raise DataError(
                f"'{name}' holds {kind}; quantised weights and others than floating-point numbers "
                f"are not read"
            )
        if not bool(torch.isfinite(tensor).all()):
            bad = "NaN" if bool(torch.isnan(tensor).any()) else "infinity"
            raise DataError(f"'{name}' holds {bad}, so its training diverged or it is damaged")
