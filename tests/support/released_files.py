"""Checkpoints with random weights in the layouts in which authors publish them."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from lpmoe_bench.model import released
from lpmoe_bench.model.released import Names


def shaken(module: nn.Module, seed: int = 0) -> nn.Module:
    """Move all that trains off its start, in place."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return module.eval()


def published(state: Mapping[str, Tensor], names: Names) -> dict[str, Tensor]:
    """Return tensors of ours under an author's names; each must have one."""
    back = {ours: theirs for theirs, ours in names.items() if ours is not None}
    found = {}
    for name, tensor in state.items():
        begin = max((b for b in back if name.startswith(b)), key=len)
        found[back[begin] + name[len(begin) :]] = tensor.clone()
    return found


def uni_perceiver_file(backbone: nn.Module) -> dict[str, Tensor]:
    """Uni-Perceiver: the position table in three parts, layers of torch's own names."""
    leaves = {".attn.qkv.": ".self_attn.in_proj_", ".attn.proj.": ".self_attn.out_proj."}
    leaves |= {f".mlp.fc{k}.": f".linear{k}." for k in (1, 2)}
    leaves |= {f".ls{k}.gamma": f".gamma_{k}" for k in (1, 2)}
    leaves |= {"patch_embed.": "visual_embed.patch_embed.", "blocks.": "layers."}
    leaves |= {"norm_pre.": "visual_embed.embeddings_norm."}
    found = {}
    for name, tensor in backbone.state().items():
        for ours, theirs in leaves.items():
            name = name.replace(ours, theirs)
        found[name] = tensor
    table, width = found.pop("pos_embed")[0], backbone.dim
    place = "visual_embed.patch_embed."
    found[f"{place}spatial_pos_embed.weight"] = table
    found[f"{place}temporal_pos_embed.weight"] = torch.zeros(8, width)
    return found | {f"{place}proj.bias": torch.zeros(width)}


def lpmoe_file(
    method: nn.Module, decoder: nn.Module | None, frozen: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """mmsegmentation: adapter and frozen ViT under `backbone.`, the head, and another head."""
    state = published(method.adapter_state(), released.lpmoe_names())
    wavelet = "module1.MoEConv.expert_d.WTConv_3.0.wt_filter"
    state |= frozen or method.backbone.state()
    state |= {wavelet: torch.zeros(64, 1, 2, 2)}
    found = {f"backbone.{k}": t for k, t in state.items()}
    if decoder is not None:
        head = published(decoder.state_dict(), released.mask2former_names(6, 9))
        found |= {f"decode_head.{k}": t for k, t in head.items()}
    return found | {"auxiliary_head.conv_seg.weight": torch.zeros(2, 8, 1, 1)}


def sam_adapter_file(method: nn.Module, whole: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A whole SAM, whose prompt encoder is left of: positions and the vector for no mask."""
    names = released.prompt_generator_names(method.backbone.depth)
    prompts = published(
        {k.removeprefix("prompts."): t for k, t in method.adapter_state().items()}, names
    )
    state = {f"image_encoder.prompt_generator.{k}": t for k, t in prompts.items()}
    state |= {f"image_encoder.{k}": t for k, t in method.backbone.state().items()}
    state |= {k: t for k, t in whole.items() if k.startswith("mask_decoder.")}
    state |= {
        k.removeprefix("prompt_encoder."): t
        for k, t in whole.items()
        if k.startswith(("prompt_encoder.pe_layer.", "prompt_encoder.no_mask_embed."))
    }
    return state


def conv_lora_file(
    method: nn.Module, whole: Mapping[str, Tensor], trained_alone: bool
) -> dict[str, Tensor]:
    """AutoGluon: Hugging Face's SAM with one mask token, all of it or the trained part alone."""
    depth, state = method.backbone.depth, {}
    for i in range(depth):
        layer = f"backbone.vit.blocks.{i}.attn.qkv."
        own = {
            k.removeprefix(layer): t
            for k, t in method.adapter_state().items()
            if k.startswith(layer)
        }
        own = published(own, released.conv_lora_names(8))
        state |= {f"vision_encoder.layers.{i}.attn.qkv.{k}": t for k, t in own.items()}
        mean = f"vision_encoder.layers.{i}.attn.qkv.lora_moe_gating.mean"
        state |= {mean: torch.zeros(1)}
    masks = {k.removeprefix("mask_decoder."): t for k, t in whole.items() if k.startswith("mask_")}
    masks = published(masks, released.sam_decoder_names())
    masks = {
        k: t[:1] if k == "mask_tokens.weight" else t
        for k, t in masks.items()
        if not k.startswith(tuple(f"output_hypernetworks_mlps.{n}." for n in (1, 2, 3)))
    }
    if trained_alone:
        masks = {k: t for k, t in masks.items() if not k.startswith("iou_prediction_head.")}
    else:
        own = method.adapter_state()
        encoder = {
            k.replace(".base.", "."): t
            for k, t in method.backbone.state().items()
            if f"backbone.vit.{k}" not in own
        }
        encoder = published(encoder, released.sam_encoder_names(depth))
        state |= {f"vision_encoder.{k}": t for k, t in encoder.items()}
        matrix = whole["prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"]
        state |= {"shared_image_embedding.positional_embedding": matrix}
        state |= {
            "prompt_encoder.no_mask_embed.weight": whole["prompt_encoder.no_mask_embed.weight"]
        }
        state |= {"prompt_encoder.mask_embed.conv1.bias": torch.zeros(4)}
    state |= {f"mask_decoder.{k}": t for k, t in masks.items()}
    return {f"model.model.{k}": t for k, t in state.items()}


def adaroute_file(method: nn.Module) -> dict[str, Tensor]:
    """Their plain ViT: projections apart, one tensor for the scalars, a head that classifies."""
    names = released.below("peft_params.", "centers.0.", released.center_names())
    state, cascades = {}, {}
    for name, tensor in method.adapter_state().items():
        place, _, leaf = name.rpartition(".")
        part, _, kind = place.rpartition(".")
        if kind in ("keep", "carry"):
            cascades.setdefault(part, {})[int(leaf), kind == "carry"] = tensor
        else:
            state[name] = tensor
    for part, values in cascades.items():
        state[f"{part}.cascade"] = torch.stack([values[k] for k in sorted(values)])
    for i in range(method.backbone.depth):
        names |= released.below(
            f"blocks.{i}.adapter.", f"after_mlp.{i}.", released.adaroute_module_names()
        )
    found = published(state, names)
    for i in range(method.backbone.depth):
        found[f"blocks.{i}.adapter.logit_scale"] = torch.zeros(5)
    for name, tensor in method.backbone.state().items():
        if ".attn.qkv." in name:
            for k, part in zip("qkv", tensor.chunk(3), strict=True):
                found[name.replace("qkv", f"{k}_proj")] = part.clone()
        else:
            found[name.replace(".mlp.", ".")] = tensor
    return found | {"head.weight": torch.zeros(10, method.backbone.dim)}
