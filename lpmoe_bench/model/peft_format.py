"""A plain LoRA in the format of Hugging Face peft: adapter_model.safetensors, adapter_config.json.

Written and read without peft itself. peft's layer is W x + b + (lora_alpha / r) B A x, as ours; a
`PeftModel` around the timm model of the same name and weights gives equal outputs.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from lpmoe_bench.errors import DataError, UsageError
from lpmoe_bench.files import write_atomically
from lpmoe_bench.model.trained import load_trained
from lpmoe_bench.model.weights.default_backbone import NAME as NAME_OF_DEFAULT
from lpmoe_bench.model.weights.default_backbone import TIMM_NAME
from method_zoo.backbones.backbone import Backbone
from method_zoo.lora import LoRALinear, QueryValueLinear
from method_zoo.method import Method
from method_zoo.options import get_method

CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"
NAME = "base_model.model.blocks.{}.attn.qkv.lora_{}.weight"
PATTERN = re.compile(re.escape(NAME).replace(r"\{\}", "{}").format(r"(\d+)", "([AB])"))
# What a config may say, of all that would make it another equation than the one above.
PLAIN = {
    "peft_type": ("LORA",),
    "bias": ("none", None),
    "init_lora_weights": (True, False, None, "gaussian", "orthogonal", "eva"),
}
ABSENT = (
    *("use_dora", "use_rslora", "fan_in_fan_out", "lora_bias", "rank_pattern", "alpha_pattern"),
    *("modules_to_save", "layer_replication", "target_parameters", "trainable_token_indices"),
)


def export_run(run: Path, folder: Path, cache: Path, offline: bool, force: bool) -> str:
    """Write the LoRA of a finished run into a folder; returns timm's name of its backbone.

    Raises UsageError where an adapter is there already (unless `force`), as `write_peft`, and
    DataError for a run without its files.
    """
    if (folder / CONFIG).exists() and not force:
        raise UsageError(f"{folder} holds an adapter already; name another, or use --force")
    segmenter, config = load_trained(run, cache, offline)
    backbone = TIMM_NAME if config.backbone == NAME_OF_DEFAULT else config.backbone
    write_peft(segmenter.method, folder, backbone)
    return backbone


def write_peft(method: Method, folder: Path, base: str) -> None:
    """Write a LoRA for a `PeftModel` around the timm model `base`, without its decoder.

    Raises UsageError for another method, and for a model without a fused qkv layer that it calls:
    timm's EVA-02 has three, its BEiT reads the weight and would pass the adapter by.
    """
    layers = _layers(method)
    parts = [_factors(layer) for layer in layers.values()]
    state = {
        NAME.format(i, letter): factor.contiguous()
        for i, (a, b, _) in zip(layers, parts, strict=True)
        for letter, factor in (("A", a), ("B", b))
    }
    a, _, scale = parts[0]
    rank = a.shape[0]
    alpha = scale * rank
    config = {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": base,
        "r": rank,
        "lora_alpha": int(alpha) if alpha == int(alpha) else alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": [f"blocks.{i}.attn.qkv" for i in layers],
        "inference_mode": True,
    }
    write_atomically(folder / TENSORS, save(state, metadata={"format": "pt"}))
    write_atomically(folder / CONFIG, json.dumps(config, indent=2) + "\n")


def read_peft(folder: Path, backbone: Backbone) -> Method:
    """Return our `lora`, or `late_lora` where only the last blocks are adapted, with its weights.

    Raises DataError for files that are missing or damaged, UsageError for an adapter that is no
    plain LoRA of the fused qkv layers, ZooError for one of another width.
    """
    config = read_config(folder)
    try:
        state = load_file(folder / TENSORS)
    except (SafetensorError, OSError) as error:
        raise DataError(f"{folder / TENSORS} cannot be read ({error})") from None
    factors = {_place(name): tensor.float() for name, tensor in state.items()}
    blocks = sorted({block for block, _ in factors})
    options: dict[str, Any] = {"rank": config["r"], "alpha": float(config["lora_alpha"])}
    if blocks != list(range(backbone.depth - len(blocks), backbone.depth)) or not blocks:
        raise UsageError(
            f"{folder} adapts blocks {blocks} of a backbone that has {backbone.depth}; "
            f"all of them or the last ones can be read: is it of another backbone?"
        )
    late = len(blocks) < backbone.depth
    name = "late_lora" if late else "lora"
    method = get_method(name)(backbone, **options | ({"blocks": len(blocks)} if late else {}))  # type: ignore[call-arg]
    leaves = {"A": "a", "B": "b"}
    method.load_adapter_state(
        {f"backbone.vit.blocks.{i}.attn.qkv.{leaves[k]}": t for (i, k), t in factors.items()}
    )
    return method


def read_config(folder: Path) -> dict[str, Any]:
    """Return the adapter_config.json of a plain LoRA; raises DataError or UsageError."""
    path = folder / CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        rank, alpha = config["r"], config["lora_alpha"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it gives no r and lora_alpha"
        raise DataError(f"{path} is no configuration of a LoRA: {reason}") from None
    if type(rank) is not int or isinstance(alpha, bool) or not isinstance(alpha, int | float):
        raise DataError(f"{path} has r {rank!r} and lora_alpha {alpha!r}; both must be numbers")
    for key, allowed in PLAIN.items():
        if config.get(key, allowed[0]) not in allowed:
            raise UsageError(_unlike(path, key, config[key]))
    for key in ABSENT:
        if config.get(key):
            raise UsageError(_unlike(path, key, config[key]))
    return config


def _unlike(path: Path, key: str, value: object) -> str:
    return f"{path} has {key} {value!r}, which is another method than plain LoRA; it cannot be read"


def _place(name: str) -> tuple[int, str]:
    match = PATTERN.fullmatch(name)
    if match is None:
        raise UsageError(f"the adapter holds {name}; only a LoRA on blocks.*.attn.qkv can be read")
    return int(match[1]), match[2]


def _layers(method: Method) -> dict[int, LoRALinear | QueryValueLinear]:
    """Return the adapted layers by the number of their block."""
    kinds = (LoRALinear, QueryValueLinear)
    blocks = method.backbone.vit.blocks
    layers = {i: b.attn.qkv for i, b in enumerate(blocks) if type(b.attn.qkv) in kinds}
    if not layers:
        raise UsageError(f"{method.title} is no plain LoRA; peft's format can hold lora, late_lora")
    if any(type(layer.base) is not nn.Linear for layer in layers.values()):
        raise UsageError(
            "this backbone's own model keeps queries, keys and values in parts, or their biases "
            "apart, so peft's adapter would do nothing there; merge the run instead"
        )
    return layers


def _factors(layer: LoRALinear | QueryValueLinear) -> tuple[Tensor, Tensor, float]:
    """Return A (r, inputs), B (outputs, r) and the scale; two updates are one of twice the rank."""
    if isinstance(layer, LoRALinear):
        return layer.a.detach(), layer.b.detach(), layer.scale
    query, value = layer.b.detach()
    zeros = torch.zeros_like(query)
    b = torch.cat([torch.cat(rows, 1) for rows in ((query, zeros), (zeros, zeros), (zeros, value))])
    return layer.a.detach(), b, layer.scale
