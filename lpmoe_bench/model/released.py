"""Checkpoints as the authors of a method publish them: their names, and what is ours of them.

Controllable-LPMoE (mmsegmentation), SAM-Adapter (a whole SAM), Conv-LoRA (AutoGluon, on Hugging
Face's SAM) and AdaRoute, later ParaX (their plain ViT). Names are mapped by what they begin with;
the tests hold the same maps against the authors' own modules. What a checkpoint holds beside the
method and its decoder is named, what is missing is refused.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lpmoe_bench.errors import DataError, UsageError
from lpmoe_bench.model.weights.checkpoint import open_checkpoint
from lpmoe_bench.model.weights.fitting import check_numbers

State = dict[str, Tensor]
Names = dict[str, str | None]  # {beginning of their name: of ours; None: of no use here}
LEAVES = ("weight", "bias")


@dataclass(frozen=True)
class Released:
    """What an author's checkpoint holds, under our names.

    layout: in words. size: image side of the authors' configuration, in pixels. options: of the
    method, as shapes tell them. unknown: options that no shape tells, which are at their default.
    method: its adapter state. decoder: the name of the decoder that goes with it, empty where the
    file has none of ours, with its options and tensors. backbone: tensors of the frozen model under
    its own names; whole: the file can serve as the backbone's weights. dropped: {what of the file
    is of no use here: how many tensors}. said: how the model was found in the file.
    """

    layout: str
    size: int
    options: dict[str, Any]
    method: State
    decoder: str = ""
    decoder_options: dict[str, Any] = field(default_factory=dict)
    decoder_state: State = field(default_factory=dict)
    backbone: State = field(default_factory=dict)
    whole: bool = False
    unknown: tuple[str, ...] = ()
    dropped: dict[str, int] = field(default_factory=dict)
    said: tuple[str, ...] = ()


def read_released(file: Path, method: str) -> Released:
    """Read an author's checkpoint of a method; nothing in it is executed.

    Raises UsageError for a method whose authors' layout is not known, DataError for a file that is
    damaged, of another layout, or has a number that is none.
    """
    if method not in LAYOUTS:
        raise UsageError(
            f"checkpoints of {method} cannot be imported; known are the layouts of "
            f"{', '.join(sorted(LAYOUTS))}"
        )
    layout = LAYOUTS[method]
    checkpoint = open_checkpoint(file)
    state = _rooted(checkpoint.tensors, layout, file)
    try:
        found = layout.read(state)
    except (ArithmeticError, IndexError, RuntimeError, ValueError) as error:  # foreign shapes
        reason = str(error).partition("\n")[0]
        raise DataError(
            f"{file} has tensors of shapes that no {layout.title} has ({reason})"
        ) from None
    for state in (found.method, found.decoder_state):
        whole = {name: t for name, t in state.items() if name.endswith("num_batches_tracked")}
        try:
            check_numbers(state, whole)
        except DataError as error:
            raise DataError(f"{file} cannot be used: our {error}") from None
    return replace(found, said=checkpoint.said)


def rename(state: Mapping[str, Tensor], names: Names) -> tuple[State, State]:
    """Return the tensors under our names, and those of which no name is known, under theirs.

    The longest beginning that fits wins; what maps to None is left out of both.
    """
    ours: State = {}
    left: State = {}
    beginnings = sorted(names, key=len, reverse=True)
    for name, tensor in state.items():
        begin = next((b for b in beginnings if name.startswith(b)), None)
        if begin is None:
            left[name] = tensor
        elif (new := names[begin]) is not None:
            ours[new + name[len(begin) :]] = tensor
    return ours, left


@dataclass(frozen=True)
class _Layout:
    """anchor: the end of a name that every such file has once, read from `root` on."""

    title: str
    anchor: re.Pattern[str]
    read: Callable[[State], Released]
    root: str = ""


def _rooted(state: Mapping[str, Tensor], layout: _Layout, file: Path) -> State:
    """Return the tensors without what stands before the author's own names, such as `module.`.

    Raises DataError where the layout is not found, or more than once.
    """
    found = [(name, match) for name in state if (match := layout.anchor.search(name))]
    roots = {name[: match.start()] for name, match in found}
    if not roots:
        some = ", ".join(sorted(state)[:3])
        raise DataError(
            f"{file} is no {layout.title}: no name in it ends in "
            f"{layout.anchor.pattern.replace(chr(92), '').rstrip('$')}; it holds {len(state)} "
            f"tensors such as {some}"
        )
    if len(roots) > 1:
        raise DataError(
            f"{file} holds several models, under {', '.join(sorted(map(repr, roots)))}; "
            f"keep one of them in the file"
        )
    (root,) = roots
    root = root.removesuffix(layout.root)
    return {name.removeprefix(root): tensor for name, tensor in state.items()}


def _counted(left: Mapping[str, Tensor]) -> dict[str, int]:
    """Return how many tensors of a file's rest there are by the first part of their name."""
    counts: dict[str, int] = {}
    for name in left:
        part = name.split(".")[0]
        counts[part] = counts.get(part, 0) + 1
    return dict(sorted(counts.items()))


def _numbered(state: Mapping[str, Tensor], pattern: str) -> int:
    """Return how many different numbers follow a name."""
    # Not the largest and one more: a file may claim any number.
    return len({m[1] for name in state if (m := re.match(pattern, name))})


def _split(state: State, *parts: str) -> tuple[State, ...]:
    """Return the tensors under each part, without it, and then those under none."""
    found = [{k.removeprefix(p): t for k, t in state.items() if k.startswith(p)} for p in parts]
    rest = {k: t for k, t in state.items() if not k.startswith(parts)}
    return (*found, rest)


def _shape(state: Mapping[str, Tensor], name: str) -> torch.Size:
    """Return the shape of a tensor that must be there; raises DataError."""
    if name not in state:
        raise DataError(f"this checkpoint has no {name}, so it is not whole")
    return state[name].shape


# Controllable-LPMoE: `backbone.` has the adapter and the frozen ViT, `decode_head.` Mask2Former.

# Their names of the branches of each expert, in the order of the gate.
EXPERTS = {"dconv": "DConv", "atconv": "ATConv", "asconv": "ASConv", "wtconv": "WTConv"}
POINTS = 4  # of every configuration; shapes tell heads times points alone

ATTENTION: Names = {
    "sampling_offsets.": "offsets.",
    "attention_weights.": "weights.",
    "value_proj.": "value.",
    "output_proj.": "output.",
}
ENHANCEMENT: Names = {
    "dwconv.dwconv.": "depthwise.",
    "dwconv.moe_attention.Gating.fc.": "gate.",
    "dwconv.moe_attention.ca.conv.": "channel.",
    "dwconv.moe_attention.ra.conv.": "reverse.",
    "fc1.": "reduce.",
    "fc2.": "expand.",
}


def below(theirs: str, ours: str, names: Names) -> Names:
    """Return names one step further down: each with something in front."""
    return {theirs + k: None if v is None else ours + v for k, v in names.items()}


def _unit(theirs: str, ours: str) -> Names:
    """A convolution (or what stands for it) and its BatchNorm."""
    return {f"{theirs}.0.": f"{ours}.conv.", f"{theirs}.1.": f"{ours}.norms.0."}


def expert_names(kind: str) -> Names:
    """Return the names of one of the EXPERTS of the prior extractor."""
    names = _unit("Conv_1", "enter") | _unit("reduce", "leave")
    for index, kernel in enumerate((3, 5, 7)):
        theirs, ours = f"{EXPERTS[kind]}_{kernel}", f"branches.{index}"
        if kind == "asconv":
            names |= _unit(f"ASConv_1_{kernel}", f"{ours}.0")
            names |= _unit(f"ASConv_{kernel}_1", f"{ours}.1")
            continue
        names |= _unit(theirs, ours)
        if kind == "wtconv":
            wavelet: Names = {
                "base_conv.": "base.",
                "base_scale.weight": "base_scale",
                "wavelet_convs.0.": "bands.",
                "wavelet_scale.0.weight": "bands_scale",
                "wt_filter": None,  # constants in our code
                "iwt_filter": None,
            }
            names |= below(f"{theirs}.0.", f"{ours}.conv.", wavelet)
    return names


def mixture_names() -> Names:
    """Return the names of the mixture of experts."""
    names: Names = {"gating_network.fc.": "gate."}
    for index, (kind, letter) in enumerate(zip(EXPERTS, "abcd", strict=True)):
        names |= below(f"expert_{letter}.", f"experts.{index}.", expert_names(kind))
    return names


def prior_names() -> Names:
    """Return the names of the local-prior extractor."""
    names = _unit("stem", "stem") | {"fc1.": "project."}
    for index in range(3):
        names |= _unit(f"conv{index + 2}", f"downs.{index}")
    return names | below("MoEConv.", "mixture.", mixture_names())


def lpmoe_names(stages: int = 4) -> Names:
    """Return the names of the whole adapter."""
    injector: Names = {"query_norm.": "norm_tokens.", "feat_norm.": "norm_prior.", "gamma": "gamma"}
    extractor: Names = {
        "query_norm.": "norm_prior.",
        "feat_norm.": "norm_tokens.",
        "ffn_norm.": "norm_enhance.",
    }
    attention = below("attn.", "attention.", ATTENTION)
    extractor |= attention | below("ffn.", "enhance.", ENHANCEMENT)
    names: Names = {"level_embed": "level", "up.": "pyramid.up.", "reduce.": "pyramid.reduce."}
    names |= {f"norm{k + 1}.": f"pyramid.norms.{k}." for k in range(4)}
    names |= below("module1.", "prior.", prior_names())
    for i in range(stages):
        names |= below(f"module2.{i}.module2_1.", f"inject.{i}.", injector | attention)
        names |= below(f"module2.{i}.module2_2.", f"extract.{i}.0.", extractor)
    for j in range(2):
        further = f"module2.{stages - 1}.extra_extractors.{j}."
        names |= below(further, f"extract.{stages - 1}.{j + 1}.", extractor)
    return names


def mask2former_names(pixel_layers: int, query_layers: int) -> Names:
    """Return the names of mmdetection's Mask2Former head."""
    mlp: Names = {"ffns.0.layers.0.0.": "mlp.0.", "ffns.0.layers.1.": "mlp.2."}
    pixel = below("attentions.0.", "", ATTENTION) | mlp
    query: Names = {"attentions.0.attn.": "cross.", "attentions.1.attn.": "own."} | mlp
    pixel |= {f"norms.{k}.": f"norm{k + 1}." for k in range(2)}
    query |= {f"norms.{k}.": f"norm{k + 1}." for k in range(3)}
    names: Names = {
        "pixel_decoder.level_encoding.weight": "pixels.level",
        "pixel_decoder.mask_feature.": "pixels.mask.",
        "query_feat.": "queries.query.",
        "query_embed.": "queries.query_position.",
        "level_embed.": "queries.level.",
        "transformer_decoder.post_norm.": "queries.norm.",
        "cls_embed.": "queries.label.",
        "mask_embed.": "queries.mask.",
    }
    convolution: Names = {"conv.": "0.", "gn.": "1."}
    for k in range(3):
        names |= below(f"pixel_decoder.input_convs.{k}.", f"pixels.inputs.{k}.", convolution)
    names |= below("pixel_decoder.lateral_convs.0.", "pixels.lateral.", convolution)
    names |= below("pixel_decoder.output_convs.0.", "pixels.smooth.", convolution)
    for i in range(pixel_layers):
        names |= below(f"pixel_decoder.encoder.layers.{i}.", f"pixels.layers.{i}.", pixel)
    for i in range(query_layers):
        names |= below(f"transformer_decoder.layers.{i}.", f"queries.layers.{i}.", query)
    return names


def _read_lpmoe(state: State) -> Released:
    if "backbone.level_embed" not in state:  # of the adapter alone
        state = {f"backbone.{k}": t for k, t in state.items()}
    inside, head, rest = _split(state, "backbone.", "decode_head.")
    own, frozen = rename(inside, lpmoe_names())
    dim = _shape(own, "level")[1]
    attention = "inject.0.attention."
    options = {
        # Outputs of the offsets are heads x 3 levels x points x 2 axes.
        "heads": _shape(own, f"{attention}offsets.bias")[0] // (3 * POINTS * 2),
        "points": POINTS,
        "ratio": _shape(own, f"{attention}value.weight")[0] / dim,
        "width": _shape(own, "prior.stem.conv.weight")[0],
    }
    layers = _numbered(head, r"transformer_decoder\.layers\.(\d+)\.")
    decoder, unread = rename(head, mask2former_names(6, layers))
    options_of_decoder = {}
    if decoder:
        queries, width = _shape(decoder, "queries.query.weight")
        options_of_decoder = {"width": width, "queries": queries, "layers": layers}
    return Released(
        LAYOUTS["lpmoe"].title,
        size=512,
        options=options,
        method=own,
        decoder="mask2former" if decoder else "",
        decoder_options=options_of_decoder,
        decoder_state=decoder,
        backbone=frozen,
        dropped=_counted(rest | {f"decode_head.{k}": t for k, t in unread.items()}),
    )


# SAM-Adapter: a whole SAM, `image_encoder.prompt_generator.` in its encoder, no prompt encoder.

PROMPTS, MASKS = "prompt_encoder.", "mask_decoder."


def prompt_generator_names(depth: int) -> Names:
    """Return the names of SAM-Adapter's prompt generator."""
    names: Names = {"embedding_generator.": "embedding.", "prompt_generator.proj.": "frequencies."}
    return (
        names
        | {"shared_mlp.": "up."}
        | {f"lightweight_mlp_{i}.0.": f"block.{i}." for i in range(depth)}
    )


def _read_sam_adapter(state: State) -> Released:
    prompts, encoder, rest = _split(state, "image_encoder.prompt_generator.", "image_encoder.")
    encoder = {k: t for k, t in encoder.items() if not k.startswith("prompt_generator.")}
    names = prompt_generator_names(_numbered(prompts, r"lightweight_mlp_(\d+)\."))
    own, unread = rename(prompts, below("", "prompts.", names))
    dim, width = _shape(own, "prompts.up.weight")
    # They stand outside of a prompt encoder, which has them in Meta's own file.
    moved: Names = {MASKS: MASKS, "pe_layer.": f"{PROMPTS}pe_layer."}
    moved |= {"no_mask_embed.": f"{PROMPTS}no_mask_embed."}
    decoder, rest = rename(rest, moved)
    return Released(
        LAYOUTS["sam_adapter"].title,
        size=1024,
        options={"scale": dim // width, "layout": "official"},
        method=own,
        decoder="sam" if decoder else "",
        decoder_state=decoder,
        backbone=encoder,
        whole=True,
        dropped=_counted(rest | unread),
    )


# Conv-LoRA in AutoGluon: Hugging Face's SAM, of which the trained part alone may be saved.


def conv_lora_names(experts: int) -> Names:
    """Return the names of AutoGluon's Conv-LoRA layer, without the frozen one in it."""
    names: Names = {
        "lora_A": "a",
        "lora_B": "b",
        "lora_moe_gating.w_gate": "gate.weight",
        "lora_moe_gating.w_noise": "gate.noise",
        "lora_moe_gating.mean": None,  # 0 and 1, of the normal distribution
        "lora_moe_gating.std": None,
    }
    return names | {f"lora_moe_experts.{e}.0.": f"experts.{e}.conv." for e in range(experts)}


def sam_decoder_names() -> Names:
    """Return Hugging Face's names of SAM's mask decoder as Meta's."""
    names: Names = {k: k for k in ("iou_token.", "mask_tokens.")}
    names |= {"transformer.": "transformer."}
    names |= {"transformer.layer_norm_final_attn.": "transformer.norm_final_attn."}
    for i in range(2):
        layer = f"transformer.layers.{i}."
        names |= {f"{layer}layer_norm{k}.": f"{layer}norm{k}." for k in range(1, 5)}
    names |= {"upscale_conv1.": "output_upscaling.0.", "upscale_conv2.": "output_upscaling.3."}
    names |= {"upscale_layer_norm.": "output_upscaling.1."}
    for part in ("iou_prediction_head.", *(f"output_hypernetworks_mlps.{k}." for k in range(4))):
        names |= {f"{part}proj_in.": f"{part}layers.0.", f"{part}proj_out.": f"{part}layers.2."}
        names |= {f"{part}layers.0.": f"{part}layers.1."}
    return names


def sam_encoder_names(depth: int) -> Names:
    """Return Hugging Face's names of SAM's image encoder as Meta's."""
    names: Names = {"pos_embed": "pos_embed", "patch_embed.projection.": "patch_embed.proj."}
    for theirs, ours in zip(
        ("conv1", "layer_norm1", "conv2", "layer_norm2"), range(4), strict=True
    ):
        names |= {f"neck.{theirs}.": f"neck.{ours}."}
    for i in range(depth):
        block: Names = {"layer_norm1.": "norm1.", "layer_norm2.": "norm2."}
        block |= {"attn.": "attn.", "mlp.": "mlp."}
        names |= below(f"layers.{i}.", f"blocks.{i}.", block)
    return names


def _read_conv_lora(state: State) -> Released:
    encoder, masks, prompts, rest = _split(state, "vision_encoder.", MASKS, PROMPTS)
    depth = _numbered(encoder, r"layers\.(\d+)\.attn\.qkv\.lora_A$")
    experts = _numbered(encoder, r"layers\.0\.attn\.qkv\.lora_moe_experts\.(\d+)\.")
    names: Names = {}
    for i in range(depth):
        here, there = f"layers.{i}.attn.qkv.", f"backbone.vit.blocks.{i}.attn.qkv."
        names |= below(here, there, conv_lora_names(experts))
    own, frozen = rename(encoder, names)
    if depth and not experts:
        raise DataError("this checkpoint has LoRA alone, without the experts of Conv-LoRA")
    if "output_classifier_mlps.weight" in masks:
        raise DataError(
            "this checkpoint is AutoGluon's of several classes, whose decoder has class labels; "
            "only that of one class can be imported"
        )
    decoder, unread = rename(masks, below("", MASKS, sam_decoder_names()))
    placed: Names = {"no_mask_embed.": f"{PROMPTS}no_mask_embed."}
    matrix = f"{PROMPTS}pe_layer.positional_encoding_gaussian_matrix"
    placed |= {"shared_embedding.positional_embedding": matrix}
    of_prompts, unused = rename(prompts, placed)
    of_image, rest = rename(rest, {"shared_image_embedding.positional_embedding": matrix})
    blocks, unnamed = rename(frozen, sam_encoder_names(depth))
    rest |= {f"{MASKS}{k}": t for k, t in unread.items()}
    rest |= {f"{PROMPTS}{k}": t for k, t in unused.items()}
    return Released(
        LAYOUTS["conv_lora"].title,
        size=1024,
        options={"rank": _shape(own, "backbone.vit.blocks.0.attn.qkv.a")[0], "experts": experts},
        method=own,
        decoder="sam" if decoder else "",
        decoder_state=decoder | of_prompts | of_image,
        backbone=blocks,
        unknown=("alpha",),
        dropped=_counted(rest | {f"vision_encoder.{k}": t for k, t in unnamed.items()}),
    )


# AdaRoute (ParaX) on the authors' plain ViT, which classifies: there is no decoder for masks.

SIZES = (3, 5, 7)


def adaroute_module_names() -> Names:
    """Return the names of one module; the scalars of its cascade are one tensor there."""
    names: Names = {
        "norm.": "norm.",
        "norm_gamma": "gain",
        "router.0.": "gates.down.",
        "router.2.": "gates.out.",
        "dwconv1.": "before.",
        "dwconv2.": "after.",
        "attn.0.": "mix.",
        "proj.": "inner.",
        "layer_scale": "scale",
        "layer_bias": "shift",
        "res_scale": "skip_scale",
        "res_bias": "skip_shift",
        "conv_res_scale": "cascade",
    }
    return names


def center_names() -> Names:
    """Return the names of a center's experts."""
    names: Names = {"projA_params": "experts.0", "projB_params": "experts.1"}
    return names | {f"conv{k}x{k}_params": f"experts.{2 + i}" for i, k in enumerate(SIZES)}


def cascade_scalars(state: Mapping[str, Tensor]) -> State:
    """Return tensors with the scalars a_k, b_k of each cascade apart, as ours are."""
    found: State = {}
    for name, tensor in state.items():
        place, _, leaf = name.rpartition(".")
        if leaf != "cascade":
            found[name] = tensor
            continue
        for k, (keep, carry) in enumerate(tensor.unflatten(0, (-1, 2))):
            found |= {
                f"{place}.keep.{k}".lstrip("."): keep,
                f"{place}.carry.{k}".lstrip("."): carry,
            }
    return found


def _read_adaroute(state: State) -> Released:
    stages = _numbered(state, r"peft_params\.(\d+)\.")
    if stages:
        raise DataError(
            f"this checkpoint has AdaRoute on a backbone of {stages} stages, Swin or ConvNeXt, as "
            f"the authors' files for detection and segmentation have; only that on their plain ViT "
            f"can be imported"
        )
    depth = _numbered(state, r"blocks\.(\d+)\.adapter\.")
    names = below("peft_params.", "centers.0.", center_names())
    for i in range(depth):
        names |= below(f"blocks.{i}.adapter.", f"after_mlp.{i}.", adaroute_module_names())
    # Learnt temperatures would be another router; the buffer of those that were not is zero.
    heat = {n: t for n, t in state.items() if n.endswith(".adapter.logit_scale")}
    if hot := [n for n, t in heat.items() if bool(t.any())]:
        raise DataError(f"this checkpoint has learnt temperatures, which ours does not: {hot[0]}")
    own, rest = rename({n: t for n, t in state.items() if n not in heat}, names)
    own = cascade_scalars(own)
    experts, width, _ = _shape(own, "centers.0.experts.0")
    kernels = sum(f"centers.0.experts.{2 + k}" in own for k in range(len(SIZES)))
    if kernels < 2:  # a softmax over one size is one: that layer is never read
        own = {n: t for n, t in own.items() if ".mix." not in n}
    options = {
        "bottleneck": width,
        "experts": experts,
        "kernels": kernels,
        "router": _shape(own, "after_mlp.0.gates.down.weight")[0],
        "residual_scale": "after_mlp.0.skip_scale" in own,
    }
    frozen, rest = _vit_names(rest, depth)
    return Released(
        LAYOUTS["adaroute"].title,
        size=224,
        options=options,
        method=own,
        backbone=frozen,
        dropped=_counted(rest),
    )


def _vit_names(state: State, depth: int) -> tuple[State, State]:
    """Return the frozen ViT under timm's names, its three projections stacked, and the rest."""
    keep = ("cls_token", "pos_embed", "patch_embed.", "norm.")
    names: Names = {name: name for name in keep}
    for i in range(depth):
        block = f"blocks.{i}."
        names |= {f"{block}{k}": f"{block}{k}" for k in ("norm1.", "norm2.", "attn.")}
        names |= {f"{block}{k}": f"{block}mlp.{k}" for k in ("fc1.", "fc2.")}
    found, rest = rename(state, names)
    for i in range(depth):
        for leaf in LEAVES:
            parts = [found.pop(f"blocks.{i}.attn.{k}_proj.{leaf}", None) for k in "qkv"]
            if all(part is not None for part in parts):
                found[f"blocks.{i}.attn.qkv.{leaf}"] = torch.cat(parts)  # type: ignore[arg-type]
    return found, rest


LAYOUTS = {
    "lpmoe": _Layout(
        "checkpoint of Controllable-LPMoE",
        re.compile(r"module1\.stem\.0\.weight$"),
        _read_lpmoe,
        "backbone.",
    ),
    "sam_adapter": _Layout(
        "checkpoint of SAM-Adapter",
        re.compile(r"image_encoder\.prompt_generator\.shared_mlp\.weight$"),
        _read_sam_adapter,
    ),
    "conv_lora": _Layout(
        "checkpoint of AutoGluon's Conv-LoRA",
        re.compile(r"vision_encoder\.layers\.0\.attn\.qkv\.lora_A$"),
        _read_conv_lora,
    ),
    "adaroute": _Layout(
        "checkpoint of AdaRoute (ParaX)",
        re.compile(r"peft_params\.(\d+\.)?projA_params$"),
        _read_adaroute,
    ),
}
