"""LoRA, rsLoRA, DoRA and VeRA in the format of Hugging Face peft, written and read without peft.

A folder holds adapter_model.safetensors and adapter_config.json. The layers of peft compute what
ours compute, so a `PeftModel` around the timm model of the same name and weights gives equal
outputs. LoRA: W x + b + (lora_alpha / r) B A x; rsLoRA divides by the root of r; DoRA has the row
lengths as lora_magnitude_vector; VeRA draws its two random matrices by the same recipe.
"""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from lpmoe_bench.errors import DataError, UsageError
from lpmoe_bench.files import write_atomically
from lpmoe_bench.model.segmenter import load_trained
from lpmoe_bench.model.weights import default_backbone
from method_zoo import Backbone, Method, get_method
from method_zoo.dora import DoRALinear
from method_zoo.lora import LoRALinear, QueryValueLinear
from method_zoo.vera import VeRALinear

CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"
HOLDS = "lora, late_lora, dora, vera"
LAYER = "base_model.model.blocks.{}.attn.qkv.{}"
PATTERN = re.compile(r"base_model\.model\.blocks\.(\d+)\.attn\.qkv\.(\w+(?:\.weight)?)")
# Names behind that of the layer, and ours; peft drops `.weight` from DoRA's when it saves.
LEAVES = {
    "lora_A.weight": "a",
    "lora_B.weight": "b",
    "lora_magnitude_vector": "length",
    "vera_lambda_d": "inner",
    "vera_lambda_b": "outer",
}
PROJECTIONS = {"base_model.vera_A": "a", "base_model.vera_B": "b"}
# What a config may say, of all that would make it another equation than those above.
PLAIN = {
    "peft_type": ("LORA", "VERA"),
    "bias": ("none", None),
    "init_lora_weights": (True, False, None, "gaussian", "orthogonal", "eva"),
}
ABSENT = (
    *("fan_in_fan_out", "lora_bias", "rank_pattern", "alpha_pattern"),
    *("modules_to_save", "layer_replication", "target_parameters", "trainable_token_indices"),
)

Layer = LoRALinear | QueryValueLinear | DoRALinear | VeRALinear


def export_run(run: Path, folder: Path, cache: Path, offline: bool, force: bool) -> str:
    """Write the adapter of a finished run into a folder; returns timm's name of its backbone.

    Raises UsageError where an adapter is there already (unless `force`), as `write_peft`, and
    DataError for a run without its files.
    """
    if (folder / CONFIG).exists() and not force:
        raise UsageError(f"{folder} holds an adapter already; name another, or use --force")
    segmenter, config = load_trained(run, cache, offline)
    is_default = config.backbone == default_backbone.NAME
    backbone = default_backbone.TIMM_NAME if is_default else config.backbone
    write_peft(segmenter.method, folder, backbone)
    return backbone


def write_peft(method: Method, folder: Path, base: str) -> None:
    """Write an adapter for a `PeftModel` around the timm model `base`, without its decoder.

    Raises UsageError for a method that peft's format cannot hold, and for a model without a fused
    qkv layer that it calls: timm's EVA-02 has three, its BEiT reads the weight and would pass the
    adapter by.
    """
    layers = _layers(method)
    first = next(iter(layers.values()))
    # Cloned: one file may not hold the same memory twice, and the matrices of VeRA are shared.
    state = {
        LAYER.format(i, name): tensor.detach().clone().contiguous()
        for i, layer in layers.items()
        for name, tensor in _tensors(layer).items()
    }
    if isinstance(first, VeRALinear):
        state |= {k: getattr(first.shared, v).contiguous() for k, v in PROJECTIONS.items()}
    config = _facts(first) | {
        "task_type": None,
        "base_model_name_or_path": base,
        "bias": "none",
        "target_modules": [f"blocks.{i}.attn.qkv" for i in layers],
        "inference_mode": True,
    }
    write_atomically(folder / TENSORS, save(state, metadata={"format": "pt"}))
    write_atomically(folder / CONFIG, json.dumps(config, indent=2) + "\n")


def _layers(method: Method) -> dict[int, Layer]:
    """Return the adapted layers by the number of their block."""
    kinds = (LoRALinear, QueryValueLinear, DoRALinear, VeRALinear)
    _check_numbered(method.backbone)
    blocks = method.backbone.vit.blocks
    layers = {i: b.attn.qkv for i, b in enumerate(blocks) if type(b.attn.qkv) in kinds}
    if not layers:
        raise UsageError(f"peft's format cannot hold {method.title}; it can hold {HOLDS}")
    if any(type(layer.base) is not nn.Linear for layer in layers.values()):
        raise UsageError(
            "this backbone's own model keeps queries, keys and values in parts, or their biases "
            "apart, so peft's adapter would do nothing there; merge the run instead"
        )
    return layers


def _check_numbered(backbone: Backbone) -> None:
    """Raise UsageError for a model that has its blocks in stages, where this format names none."""
    if len(backbone.widths) > 1:
        raise UsageError(
            "adapters of peft are written and read for backbones whose blocks are numbered "
            "through, and this one has its blocks in stages; merge the run instead"
        )


def _tensors(layer: Layer) -> dict[str, Tensor]:
    """Return the trained tensors of a layer under peft's names; two updates are one of twice the
    rank."""
    if isinstance(layer, QueryValueLinear):
        # The two B in one: rows of queries read the first half of A, rows of values the second.
        query, value = layer.b.detach()
        zeros = torch.zeros_like(query)
        rows = ((query, zeros), (zeros, zeros), (zeros, value))
        return {
            "lora_A.weight": layer.a,
            "lora_B.weight": torch.cat([torch.cat(r, 1) for r in rows]),
        }
    own = dict(layer.named_parameters(recurse=False))
    return {theirs: own[ours] for theirs, ours in LEAVES.items() if ours in own}


def _facts(layer: Layer) -> dict[str, Any]:
    """Return what a config says of a kind of layer."""
    if isinstance(layer, VeRALinear):
        # With the matrices in the file, another version of torch may draw what it likes.
        seed, rank = layer.shared.seed, layer.shared.a.shape[0]
        facts = {"vera_dropout": 0.0, "projection_prng_key": seed, "save_projection": True}
        return {"peft_type": "VERA", "r": rank, "d_initial": 0.1} | facts
    rank = layer.a.shape[0]
    rooted = isinstance(layer, LoRALinear) and layer.rooted
    alpha = layer.alpha if isinstance(layer, LoRALinear) else layer.scale * rank
    return {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": int(alpha) if alpha == int(alpha) else alpha,
        "lora_dropout": 0.0,
        "use_rslora": rooted,
        "use_dora": isinstance(layer, DoRALinear),
    }


# The other way: a folder to one of our methods.


def read_peft(folder: Path, backbone: Backbone) -> Method:
    """Return the method of an adapter folder with its weights: `lora`, `dora`, `vera`, or
    `late_lora` where only the last blocks are adapted.

    Raises DataError for files that are missing or damaged, UsageError for an adapter of other
    layers or of another equation, ZooError for one of another width.
    """
    _check_numbered(backbone)
    config = read_config(folder)
    try:
        state = load_file(folder / TENSORS)
    except (SafetensorError, OSError) as error:
        raise DataError(f"{folder / TENSORS} cannot be read ({error})") from None
    drawn = {name: state.pop(name).float() for name in PROJECTIONS if name in state}
    placed = {_place(name): tensor.float() for name, tensor in state.items()}
    blocks = sorted({block for block, _ in placed})
    # All blocks, or a run of them up to the last: what `late_lora` can stand for.
    if blocks != list(range(backbone.depth - len(blocks), backbone.depth)) or not blocks:
        raise UsageError(
            f"{folder} adapts blocks {blocks} of a backbone that has {backbone.depth}; "
            f"all of them or the last ones can be read: is it of another backbone?"
        )
    name, options = _method(config)
    if len(blocks) < backbone.depth:
        if name != "lora":
            raise UsageError(
                f"{folder} has {name} in {len(blocks)} of {backbone.depth} blocks; only plain LoRA "
                f"can be read for the last blocks alone"
            )
        if options.pop("rslora", False):
            options["alpha"] *= math.sqrt(options["rank"])  # alpha / r as alpha / sqrt(r) was
        name, options["blocks"] = "late_lora", len(blocks)
    method = get_method(name)(backbone, **options)  # type: ignore[call-arg]
    method.load_adapter_state(
        {f"backbone.vit.blocks.{i}.attn.qkv.{leaf}": t for (i, leaf), t in placed.items()}
    )
    if name == "vera":
        _check_projections(drawn, next(iter(_layers(method).values())), folder)
    return method


def _method(config: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the name and the options of our method for a config."""
    if config["peft_type"] == "VERA":
        return "vera", {"rank": config["r"], "seed": config["projection_prng_key"]}
    options = {"rank": config["r"], "alpha": float(config["lora_alpha"])}
    rooted = bool(config.get("use_rslora"))
    if config.get("use_dora"):  # whose scale is a number like another
        options["alpha"] *= math.sqrt(config["r"]) if rooted else 1
        return "dora", options
    return "lora", options | ({"rslora": True} if rooted else {})


def _check_projections(drawn: Mapping[str, Tensor], layer: Layer, folder: Path) -> None:
    """Hold VeRA's matrices against those of the file; raises UsageError where they are others.

    A run keeps no matrices: it draws them from their seed.
    """
    assert isinstance(layer, VeRALinear)
    for name, tensor in drawn.items():
        own = getattr(layer.shared, PROJECTIONS[name])
        if own.shape != tensor.shape or not torch.equal(own.cpu(), tensor):
            raise UsageError(
                f"{folder} holds {name} {tuple(tensor.shape)}, which is not what its "
                f"projection_prng_key {layer.shared.seed} draws for this backbone, "
                f"{tuple(own.shape)}; such a VeRA cannot be read"
            )


def read_config(folder: Path) -> dict[str, Any]:
    """Return the adapter_config.json of an adapter that can be read; raises DataError or
    UsageError."""
    path = folder / CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        numbers = [
            "r",
            "projection_prng_key" if config.get("peft_type") == "VERA" else "lora_alpha",
        ]
        values = [config[name] for name in numbers]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it gives no r and lora_alpha"
        raise DataError(f"{path} is no configuration of a LoRA: {reason}") from None
    other = [k for k, allowed in PLAIN.items() if config.get(k, allowed[0]) not in allowed]
    if other := [*other, *filter(config.get, ABSENT)]:
        key = other[0]
        raise UsageError(
            f"{path} has {key} {config[key]!r}, which is another method than those of ours that "
            f"peft's format can hold ({HOLDS}); it cannot be read"
        )
    whole = [values[0]] if numbers[1] == "lora_alpha" else values
    if any(type(v) is not int for v in whole) or type(values[1]) not in (int, float):
        said = " and ".join(f"{k} {v!r}" for k, v in zip(numbers, values, strict=True))
        raise DataError(f"{path} has {said}; both must be numbers")
    return {"peft_type": "LORA"} | config


def _place(name: str) -> tuple[int, str]:
    match = PATTERN.fullmatch(name)
    leaf = LEAVES.get(match[2]) if match else None
    if match is None or leaf is None:
        raise UsageError(
            f"the adapter holds {name}; only LoRA, DoRA and VeRA on blocks.*.attn.qkv can be read"
        )
    return int(match[1]), leaf
