"""Which model a file of weights holds, and its tensors under the names that timm has.

A model is found by the weight of its patch embedding, which every vision transformer has: what
stands before that name is the prefix under which the model lies in the file. Names of Hugging Face
and Facebook then become timm's, and what a backbone has no part for is left out by name. All that
is stripped, left out or resized is told.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import timm
import torch
from torch import Tensor

from lpmoe_bench.errors import DataError
from lpmoe_bench.model.weights.checkpoint import Checkpoint
from method_zoo.backbones.sam import META_SAM
from method_zoo.backbones.uniperceiver import NAME as UNI_PERCEIVER

# The patch embedding under the names of different authors; the first that fits counts.
PATCHES = "patch_embed.proj.weight"
ANCHORS = {
    f"visual_embed.{PATCHES}": "uni_perceiver",
    "embeddings.patch_embeddings.projection.weight": "hugging_face",
    "embeddings.patch_embeddings.weight": "hugging_face_dinov3",
    "patch_embed.projection.weight": "hugging_face_sam",
    PATCHES: "native",
}
# What a model is called, and what its images are normalised by where all files of it agree.
TITLES = {
    "vit": "a plain ViT",
    "dino": "DINO",
    "deit": "DeiT with a distillation token",
    "mae": "MAE with its decoder",
    "dinov2": "DINOv2",
    "dinov3": "DINOv3",
    "sam": "the image encoder of SAM",
    "beit": "BEiT",
    "eva": "EVA",
    "uni_perceiver": "Uni-Perceiver",
}
IMAGENET = ("dino", "deit", "mae", "dinov2", "sam", "uni_perceiver")
# What a model has behind or beside its tokens, and a backbone has no part for.
EXTRA = re.compile(
    r"(heads?|head_dist|fc_norm|attn_pool|pre_logits|fc|lm_head|pooler|(\w+_)?classifier|"
    r"(dino|ibot)_(head|loss)|projectors?|predictor|local_cls_norm|"
    r"decoder(_\w+)?|mask_token|rope_embed|"
    r"mask_decoder|prompt_encoder|prompt_generator|pe_layer|no_mask_embed|"
    r"shared_image_embedding|pixel_(mean|std)|token_embed)(\.|$)"
)
BUFFERS = (".bias_mask", ".num_batches_tracked", ".position_ids")
# Models of other kinds by a name that only they have.
FOREIGN = {
    r"(^|\.)layers\.0\.blocks\.0\.attn\.relative_position_bias_table$": "a Swin Transformer",
    r"(^|\.)trunk\.(pos_embed_window|blocks\.0\.)": "the Hiera of SAM 2",
    r"(^|\.)visual\.(conv1\.weight|class_embedding)$": "CLIP under OpenAI's names",
    r"(^|\.)vision_model\.embeddings\.": "CLIP or SigLIP in the layout of Hugging Face",
    r"(^|\.)encoder\.layer\.0\.(lambda_1|attention\.attention\.relative_position_bias\.)": (
        "BEiT in the layout of Hugging Face (timm has the same weights under beit_* names)"
    ),
    r"(^|\.)(downsample_layers\.0\.0|stages\.0\.blocks\.0\.conv_dw)\.": "a ConvNeXt",
    r"(^|\.)layer1\.0\.conv1\.weight$": "a ResNet",
    r"(^|\.)(patch_embed1\.proj|patch_embeddings\.0\.proj)\.": "a pyramid of PVT or SegFormer",
    r"(^|\.)layers\.0\.(ln1\.|attn\.attn\.in_proj_weight)": "a ViT under the names of mmpretrain",
    r"(^|\.)lora_(A|a)\.": "a LoRA adapter, without the backbone that it adapts",
    r"(^|\.)mask_decoder\.": "a decoder of SAM without its image encoder",
}
SIZES = {
    (192, 12): "tiny",
    (384, 12): "small",
    (768, 12): "base",
    (1024, 24): "large",
    (1280, 32): "huge",
    (1536, 40): "giant",
    (4096, 40): "7b",
}


@dataclass(frozen=True)
class FoundModel:
    """A model in a file.

    Attributes:
        tensors: under the names of timm, for SAM of Meta; heads and decoders are left out.
        kind: of TITLES.
        of: whose layout it was, in words; empty for the names that timm has too.
        said: what was stripped, left out and changed.
    """

    tensors: dict[str, Tensor]
    kind: str
    of: str
    said: tuple[str, ...]

    @property
    def width(self) -> int:
        return self.tensors[PATCHES].shape[0]

    @property
    def patch(self) -> int:
        return self.tensors[PATCHES].shape[-1]

    @property
    def depth(self) -> int:
        """Return the number of blocks."""
        numbers = (re.match(r"blocks\.(\d+)\.", name) for name in self.tensors)
        return 1 + max((int(m[1]) for m in numbers if m), default=-1)

    @property
    def title(self) -> str:
        """Say what it is: kind, layout, width, depth and patch."""
        of = f" in the layout of {self.of}" if self.of else ""
        blocks = f"{self.depth} block" + ("s" if self.depth != 1 else "")
        return f"{TITLES[self.kind]}{of}, {self.width} wide with {blocks}, patches of {self.patch}"

    @property
    def fits(self) -> str:
        """Return the backbone that it is made for, empty where none is known."""
        registers = self.tensors.get("register_tokens", self.tensors.get("reg_token"))
        gated = any(".mlp.w1." in n or ".mlp.fc1_g." in n for n in self.tensors)
        return backbone_for(
            self.kind,
            self.width,
            self.depth,
            self.patch,
            registers.shape[1] if registers is not None else 0,
            gated,
        )


def backbone_for(
    kind: str, width: int, depth: int, patch: int, registers: int = 0, gated: bool = False
) -> str:
    """Return the name of a backbone of TITLES' kinds by its sizes, empty where there is none.

    `registers` counts its register tokens; gated: its MLPs have a gate, as those of DINOv3's
    "plus" models.
    """
    size = SIZES.get((width, depth), "")
    if kind == "sam":
        return next((name for name, sizes in META_SAM.items() if sizes[:2] == (width, depth)), "")
    if kind == "uni_perceiver":
        return UNI_PERCEIVER
    plus = "_plus" if gated and size != "7b" else ""
    name = {
        "dinov2": f"vit_{size}_patch{patch}{f'_reg{registers}' if registers else ''}_dinov2",
        "dinov3": f"vit_{size}{plus}_patch{patch}_dinov3",
        "deit": f"deit_{size}_distilled_patch{patch}_224",
        "beit": f"beit_{size}_patch{patch}_224",
    }.get(kind, f"vit_{size}_patch{patch}_224")
    tag = {"mae": ".mae", "dino": ".dino"}.get(kind, "")
    if not timm.is_model(name):
        return ""
    return name + tag if tag and timm.list_models(name + tag, pretrained=True) else name


# From a file to a model.


def find_model(checkpoint: Checkpoint) -> FoundModel | None:
    """Find the vision transformer in a checkpoint; None where there is none of a known layout.

    Raises DataError for a file that holds several.
    """
    tensors = checkpoint.tensors
    if foreign(tensors):
        return None
    anchors = {
        name.removesuffix(anchor): layout
        for name in tensors
        for anchor, layout in [_anchor(name)]
        if anchor
    }
    if not anchors:
        return None
    prefix = _choose(anchors)
    layout, said = anchors[prefix], list(checkpoint.said)
    if rest := [other for other in anchors if other != prefix]:
        others = ", ".join(f"'{one}'" for one in rest)
        said.append(f"'{prefix}' was taken, of the models {others} beside it nothing")
    elif prefix:
        said.append(f"prefix '{prefix}' stripped")
    part = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
    outside = [n for n in tensors if not n.startswith((prefix, *rest))]
    told = "Hugging Face" if layout.startswith("hugging_face") else ""
    rename = {"uni_perceiver": _uni_perceiver, "native": _native}.get(layout, _hugging_face)
    part = rename(part)
    if PATCHES not in part or part[PATCHES].ndim not in (2, 4):
        return None
    kind = _kind(part, outside, layout)
    if kind == "vit" and "register_tokens" in part:
        kind = "dinov2"
    part, gone = _without_extra(part)
    # Nothing goes without a word: a user should see that a head or a second model was in the file.
    if left := [*outside, *gone]:
        said.append(f"left out {_counted(left)}")
    if kind in ("dinov2", "dinov3", "deit", "sam") and not told and _is_facebook(part, gone):
        told = "Facebook"
    return FoundModel(part, kind, told, tuple(said))


def foreign(names: Iterable[str]) -> str:
    """Say which known model that is no backbone here has such names, empty where none has."""
    names = list(names)
    for pattern, what in FOREIGN.items():
        if any(re.search(pattern, name) for name in names):
            if what.startswith("a decoder of SAM") and any(_anchor(name)[0] for name in names):
                continue
            return what
    return ""


def _anchor(name: str) -> tuple[str, str]:
    for anchor, layout in ANCHORS.items():
        if name == anchor or name.endswith("." + anchor):
            return anchor, layout
    return "", ""


def _choose(prefixes: Iterable[str]) -> str:
    """Return the prefix of the model that is evaluated: an average or a teacher before others."""

    def rank(prefix: str) -> int:
        words = set(re.split(r"[._]", prefix.lower()))
        if words & {"ema", "teacher"} or "target_encoder" in prefix:
            return 0
        return 2 if words & {"student", "momentum", "predictor", "online"} else 1

    ranked = sorted(prefixes, key=rank)
    if len(ranked) > 1 and rank(ranked[0]) == rank(ranked[1]):
        names = " and ".join(f"'{prefix}'" for prefix in ranked[:2])
        raise DataError(f"it holds several models, {names}; save one of them to a file of its own")
    return ranked[0]


def _kind(part: Mapping[str, Tensor], outside: Iterable[str], layout: str) -> str:
    heads = [n for n in (*part, *outside) if re.search(r"(^|\.)head\.(mlp\.\d|last_layer)", n)]
    has = part.__contains__
    if layout == "uni_perceiver":
        return "uni_perceiver"
    if has("neck.0.weight") or has("blocks.0.attn.rel_pos_h"):
        return "sam"
    if any(name.endswith("relative_position_bias_table") for name in part):
        return "beit"
    if layout == "hugging_face_dinov3" or has("storage_tokens"):
        return "dinov3"
    # timm's DINOv2 with registers has both; DINOv3 has rotary positions and no table.
    if has("reg_token") and not has("pos_embed"):
        return "dinov3"
    if has("dist_token"):
        return "deit"
    # From here on names are shared by several models, so the surest sign is asked for first.
    decoders = [n for n in (*part, *outside) if re.match(r"(.*\.)?decoder_(embed|pred)\.", n)]
    if decoders:
        return "mae"
    if has("blocks.0.attn.q_proj.weight") or has("blocks.0.attn.q_bias"):
        return "eva"
    if has("blocks.0.ls1.gamma") and (has("mask_token") or part[PATCHES].shape[-1] == 14):
        return "dinov2"
    return "dino" if heads else "vit"


def _is_facebook(part: Mapping[str, Tensor], gone: Iterable[str]) -> bool:
    known = {"register_tokens", "storage_tokens", "mask_token"}
    return bool(known & {*part, *gone}) or any(".mlp.lin1." in name for name in part)


def _without_extra(part: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Leave out what a backbone has no part for; returns the rest and the names that went."""
    part = dict(part)
    # Models that pool by the mean keep their final norm behind the pooling.
    for leaf in ("weight", "bias"):
        if f"fc_norm.{leaf}" in part and f"norm.{leaf}" not in part:
            part[f"norm.{leaf}"] = part.pop(f"fc_norm.{leaf}")
    gone = [name for name in part if EXTRA.match(name) or name.endswith(BUFFERS)]
    return {name: t for name, t in part.items() if name not in set(gone)}, gone


def _counted(names: Iterable[str]) -> str:
    """Return the first parts of names and how many tensors each has."""
    counts = Counter(re.match(r"[^.]*", name)[0] for name in names)  # type: ignore[index]
    shown = [f"{name} ({count})" for name, count in counts.most_common(5)]
    more = len(counts) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


# Names of other authors to those of timm; SAM's stay those of Meta.


def with_names(part: Mapping[str, Tensor], rules: Mapping[str, str]) -> dict[str, Tensor]:
    """Return tensors under the names that regular expressions, one after the other, make."""
    found = {}
    for name, tensor in part.items():
        for pattern, new in rules.items():
            name = re.sub(pattern, new, name)
        found[name] = tensor
    return found


NATIVE = {
    r"^blocks\.\d+\.(\d+)\.": r"blocks.\1.",  # DINOv2 in chunks of blocks, for its training
    r"\.mlp\.w12\.": ".mlp.fc1.",
}


def _native(part: Mapping[str, Tensor]) -> dict[str, Tensor]:
    packed = any(".mlp.w12." in name for name in part)
    return with_names(part, NATIVE | ({r"\.mlp\.w3\.": ".mlp.fc2."} if packed else {}))


HUGGING_FACE = {
    r"^embeddings\.cls_token$": "cls_token",
    r"^embeddings\.distillation_token$": "dist_token",
    r"^embeddings\.register_tokens$": "register_tokens",
    r"^embeddings\.mask_token$": "mask_token",
    r"^embeddings\.position_embeddings$": "pos_embed",
    r"^embeddings\.patch_embeddings\.(projection\.)?": "patch_embed.proj.",
    r"^patch_embed\.projection\.": "patch_embed.proj.",  # SAM
    r"^(?:encoder\.layers?|model\.layers?|layers?)\.(\d+)\.": r"blocks.\1.",
    r"\.attention\.attention\.(query|key|value)\.": r".attn.\1.",
    r"\.attention\.(q|k|v)_proj\.": r".attn.\1.",
    r"\.attention\.(output\.dense|o_proj)\.": ".attn.proj.",
    r"\.intermediate\.dense\.": ".mlp.fc1.",
    r"^(blocks\.\d+)\.output\.dense\.": r"\1.mlp.fc2.",
    r"\.layernorm_before\.": ".norm1.",
    r"\.layernorm_after\.": ".norm2.",
    r"^(blocks\.\d+)\.layer_norm(\d)\.": r"\1.norm\2.",
    r"\.layer_scale(\d)\.lambda1$": r".ls\1.gamma",
    r"\.mlp\.weights_in\.": ".mlp.fc1.",
    r"\.mlp\.weights_out\.": ".mlp.fc2.",
    r"\.mlp\.down_proj\.": ".mlp.fc2.",
    r"^neck\.conv1\.": "neck.0.",
    r"^neck\.layer_norm1\.": "neck.1.",
    r"^neck\.conv2\.": "neck.2.",
    r"^neck\.layer_norm2\.": "neck.3.",
    r"^layernorm\.": "norm.",
}


def _hugging_face(part: Mapping[str, Tensor]) -> dict[str, Tensor]:
    gated = any(".mlp.gate_proj." in name for name in part)
    up = ".mlp.fc1_x." if gated else ".mlp.fc1."
    gates = {r"\.mlp\.gate_proj\.": ".mlp.fc1_g.", r"\.mlp\.up_proj\.": up}
    found = with_names(part, HUGGING_FACE | gates)
    if "storage_tokens" not in found and "pos_embed" not in found and "register_tokens" in found:
        found["storage_tokens"] = found.pop("register_tokens")  # DINOv3, under Facebook's name
    return _stacked(found)


def _stacked(part: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Stack queries, keys and values, which Hugging Face has apart; keys may have no bias."""
    found = {
        n: t for n, t in part.items() if not re.search(r"\.attn\.(q|k|v|query|key|value)\.", n)
    }
    for name, query in part.items():
        match = re.fullmatch(r"(blocks\.\d+\.attn)\.(q|query)\.(weight|bias)", name)
        if match is None:
            continue
        place, leaf = match[1], match[3]
        words = ("k", "v") if match[2] == "q" else ("key", "value")
        key, value = (part.get(f"{place}.{word}.{leaf}") for word in words)
        if value is None or (key is None and leaf == "weight"):
            raise DataError(f"{place} has queries and no keys or values; the file is not whole")
        key = torch.zeros_like(query) if key is None else key
        found[f"{place}.qkv.{leaf}"] = torch.cat([query, key, value])
    return found


UNI = {
    r"^visual_embed\.patch_embed\.proj\.": "patch_embed.proj.",
    r"^visual_embed\.embeddings_norm\.": "norm_pre.",
    r"^(?:encoder\.)?layers\.(\d+)\.": r"blocks.\1.",
    r"\.self_attn\.in_proj[._]": ".attn.qkv.",
    r"\.self_attn\.out_proj\.": ".attn.proj.",
    r"\.linear(\d)\.": r".mlp.fc\1.",
    r"\.gamma_(\d)$": r".ls\1.gamma",
}


def _uni_perceiver(part: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Fold what is the same for every patch into the position table, and rename."""
    found = with_names(part, UNI)
    embed = "visual_embed.patch_embed."
    table, moments = (
        found.pop(f"{embed}{k}_pos_embed.weight", None) for k in ("spatial", "temporal")
    )
    bias = found.pop("patch_embed.proj.bias", None)
    if table is None or moments is None or bias is None:
        raise DataError("it holds Uni-Perceiver without its position tables; use the file whole")
    # In double precision: three numbers are added where the model adds them one after the other.
    joined = table.double() + moments[0].double() + bias.double()
    found["pos_embed"] = joined.float()[None]
    return found
