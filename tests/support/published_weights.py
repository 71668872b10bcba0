"""A tiny model's weights as different authors publish theirs: names, nesting, what lies beside."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

State = dict[str, Tensor]
SIZE = {"embed_dim": 32, "depth": 2, "num_heads": 2}
SAM = SIZE | {"img_size": 64, "window_size": 3, "global_attn_indexes": (1,)}


def under(prefix: str, state: Mapping[str, Tensor]) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


def named(state: Mapping[str, Tensor], rules: Mapping[str, str]) -> State:
    found = {}
    for name, tensor in state.items():
        for pattern, new in rules.items():
            name = re.sub(pattern, new, name)
        found[name] = tensor
    return found


def apart(state: Mapping[str, Tensor], words: tuple[str, str, str], keys: bool = True) -> State:
    """Queries, keys and values of each block under names of their own; keys without a bias."""
    found = {}
    for name, tensor in state.items():
        if ".attn.qkv." not in name:
            found[name] = tensor
            continue
        for word, part in zip(words, tensor.chunk(3), strict=True):
            if keys or word != words[1] or name.endswith("weight"):
                found[name.replace("qkv", word)] = part.clone()
    return found


EMBEDDINGS = {
    r"^cls_token$": "embeddings.cls_token",
    r"^dist_token$": "embeddings.distillation_token",
    r"^register_tokens$": "embeddings.register_tokens",
    r"^pos_embed$": "embeddings.position_embeddings",
    r"^patch_embed\.proj\.": "embeddings.patch_embeddings.projection.",
    r"\.ls(\d)\.gamma": r".layer_scale\1.lambda1",
}
OLD = {  # of transformers up to version 4
    r"^blocks\.(\d+)\.": r"encoder.layer.\1.",
    r"\.attn\.(query|key|value)\.": r".attention.attention.\1.",
    r"\.attn\.proj\.": ".attention.output.dense.",
}
NEW = {r"\.attn\.(q|k|v)\.": r".attention.\1_proj.", r"\.attn\.proj\.": ".attention.o_proj."}
VIT = {
    r"^norm\.": "layernorm.",
    r"\.norm1\.": ".layernorm_before.",
    r"\.norm2\.": ".layernorm_after.",
}


def hf_vit(state: State, old: bool = True) -> State:
    """ViT, DeiT and MAE; in version 5 of transformers the blocks have other names."""
    if old:
        dense = {r"\.mlp\.fc1\.": ".intermediate.dense.", r"\.mlp\.fc2\.": ".output.dense."}
        return named(apart(state, ("query", "key", "value")), VIT | EMBEDDINGS | OLD | dense)
    blocks = {r"^blocks\.(\d+)\.": r"layers.\1."}
    return named(apart(state, ("q", "k", "v")), VIT | EMBEDDINGS | blocks | NEW)


def hf_dinov2(state: State, old: bool = True) -> State:
    rules = EMBEDDINGS | {r"^norm\.": "layernorm."}
    mask = {"embeddings.mask_token": torch.zeros(1, 32)}
    if old:
        return named(apart(state, ("query", "key", "value")), rules | OLD) | mask
    blocks = {r"^blocks\.(\d+)\.": r"encoder.layer.\1."}
    return named(apart(state, ("q", "k", "v")), rules | blocks | NEW) | mask


def dinov2_of_facebook(state: State) -> State:
    """With registers the class token's place is in the table, which timm adds to the token."""
    found = dict(state)
    if "reg_token" in found:
        found["register_tokens"] = found.pop("reg_token")
        place = torch.full((1, 1, 32), 0.25)
        found["cls_token"] = found["cls_token"] - place
        found["pos_embed"] = torch.cat([place, found["pos_embed"]], dim=1)
    return found | {"mask_token": torch.zeros(1, 32)}


def dinov3_of_facebook(state: State, bias: float = 0.5) -> State:
    rules = {r"^reg_token$": "storage_tokens", r"\.gamma_(\d)$": r".ls\1.gamma"}
    found = named({n: t for n, t in state.items() if not n.endswith(("q_bias", "v_bias"))}, rules)
    for i in range(2):
        found[f"blocks.{i}.attn.qkv.bias"] = torch.full((96,), bias)
        found[f"blocks.{i}.attn.qkv.bias_mask"] = torch.full((96,), float("nan"))
    return found | {"mask_token": torch.zeros(1, 1, 32), "rope_embed.periods": torch.ones(4)}


def hf_dinov3(state: State, bias: float = 0.5, model: bool = True) -> State:
    found = dinov3_of_facebook(state, bias)
    found = {n: t for n, t in found.items() if "bias_mask" not in n and "periods" not in n}
    rules = (
        EMBEDDINGS
        | NEW
        | {
            r"^storage_tokens$": "embeddings.register_tokens",
            r"^mask_token$": "embeddings.mask_token",
            r"^blocks\.": "model.layer." if model else "layer.",
            r"embeddings\.projection": "embeddings",
            r"\.mlp\.fc1\.": ".mlp.up_proj.",
            r"\.mlp\.fc2\.": ".mlp.down_proj.",
        }
    )
    return named(apart(found, ("q", "k", "v"), keys=False), rules)


def with_dinov3_bias(state: State, bias: float = 0.5) -> State:
    """What a backbone has of it: queries and values have a bias, keys have none."""
    parts = torch.cat([torch.full((32,), bias), torch.zeros(32), torch.full((32,), bias)])
    if "blocks.0.attn.q_bias" in state:
        biases = [n for n in state if n.endswith(("q_bias", "v_bias"))]
        return state | {name: torch.full((32,), bias) for name in biases}
    return state | {f"blocks.{i}.attn.qkv.bias": parts for i in range(2)}


def hf_sam(state: State) -> State:
    rules = {
        r"^patch_embed\.proj\.": "patch_embed.projection.",
        r"^blocks\.(\d+)\.norm(\d)\.": r"layers.\1.layer_norm\2.",
        r"^blocks\.": "layers.",
        r"^neck\.0\.": "neck.conv1.",
        r"^neck\.1\.": "neck.layer_norm1.",
        r"^neck\.2\.": "neck.conv2.",
        r"^neck\.3\.": "neck.layer_norm2.",
    }
    beside = {"mask_decoder.iou_token.weight": torch.zeros(1, 256)}
    beside |= {"shared_image_embedding.positional_embedding": torch.zeros(2, 128)}
    return under("vision_encoder.", named(state, rules)) | beside


def sam_whole(state: State) -> State:
    """A file of Meta's: the encoder beside decoder and prompts."""
    beside = {"mask_decoder.iou_token.weight": torch.zeros(1, 256)}
    beside |= {"prompt_encoder.no_mask_embed.weight": torch.zeros(1, 256)}
    return under("image_encoder.", state) | beside


def sam_adapter(state: State) -> State:
    """A file of SAM-Adapter's training."""
    own = {
        "prompt_generator.shared_mlp.weight": torch.ones(32, 1),
        "prompt_generator.prompt_generator.proj.weight": torch.ones(1, 3, 16, 16),
    }
    beside = {"mask_decoder.iou_token.weight": torch.zeros(1, 256)}
    beside |= {"pe_layer.positional_encoding_gaussian_matrix": torch.zeros(2, 128)}
    return under("image_encoder.", state | own) | beside | {"no_mask_embed.weight": torch.zeros(1)}


def fc_of_timm(state: State) -> State:
    return named(state, {r"\.mlp\.lin": ".mlp.fc"})


def uni_perceiver(state: State) -> State:
    """Position table, temporal embedding and bias of the patches apart, as in its authors' file."""
    rules = {
        r"^patch_embed\.proj\.": "visual_embed.patch_embed.proj.",
        r"^norm_pre\.": "visual_embed.embeddings_norm.",
        r"^blocks\.": "layers.",
        r"\.attn\.qkv\.": ".self_attn.in_proj.",
        r"\.attn\.proj\.": ".self_attn.out_proj.",
        r"\.mlp\.fc(\d)\.": r".linear\1.",
        r"\.ls(\d)\.gamma": r".gamma_\1",
    }
    found = named({n: t for n, t in state.items() if n != "pos_embed"}, rules)
    moments = torch.arange(8.0)[:, None].expand(8, 32) * 0.5 + 0.25
    embed = "visual_embed.patch_embed."
    table = state["pos_embed"][0] - moments[0] - 0.5
    return found | {
        f"{embed}proj.bias": torch.full((32,), 0.5),
        f"{embed}spatial_pos_embed.weight": table,
        f"{embed}temporal_pos_embed.weight": moments.clone(),
        "token_embed.weight": torch.zeros(5, 32),
    }


def mae_with_decoder(state: State) -> State:
    return state | {
        "mask_token": torch.zeros(1, 1, 16),
        "decoder_pos_embed": torch.zeros(1, 17, 16),
        "decoder_embed.weight": torch.zeros(16, 32),
        "decoder_blocks.0.norm1.weight": torch.zeros(16),
        "decoder_norm.weight": torch.zeros(16),
        "decoder_pred.weight": torch.zeros(768, 16),
    }
