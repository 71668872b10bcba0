"""A trained method as plain backbone weights, or a LoRA in the format of Hugging Face peft."""

import json
import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from lpmoe_bench import __version__
from lpmoe_bench.config.settings import RunConfig, build_config
from lpmoe_bench.console import OnProgress
from lpmoe_bench.data.scenes.generate import SETS
from lpmoe_bench.errors import BenchError, DataError, UsageError
from lpmoe_bench.files import sha256_file, write_atomically
from lpmoe_bench.model.plugins import plugins_here
from lpmoe_bench.model.segmenter import build_segmenter, load_trained
from lpmoe_bench.model.weights import default_backbone
from lpmoe_bench.model.weights.resolve import resolve_weights
from lpmoe_bench.records.store import read_record
from method_zoo import Backbone, Method, ZooError, get_method
from method_zoo.lora import LoRALinear, QueryValueLinear

# A plain LoRA in the format of Hugging Face peft: adapter_model.safetensors, adapter_config.json.
#
# Written and read without peft itself. peft's layer is W x + b + (lora_alpha / r) B A x, as ours; a
# `PeftModel` around the timm model of the same name and weights gives equal outputs.

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
    is_default = config.backbone == default_backbone.NAME
    backbone = default_backbone.TIMM_NAME if is_default else config.backbone
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
    other = [k for k, allowed in PLAIN.items() if config.get(k, allowed[0]) not in allowed]
    if other := [*other, *filter(config.get, ABSENT)]:
        key = other[0]
        raise UsageError(
            f"{path} has {key} {config[key]!r}, which is another method than plain LoRA; it cannot "
            f"be read"
        )
    return config


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
    # The two B in one: rows of queries read the first half of A, rows of values the second.
    query, value = layer.b.detach()
    zeros = torch.zeros_like(query)
    b = torch.cat([torch.cat(rows, 1) for rows in ((query, zeros), (zeros, zeros), (zeros, value))])
    return layer.a.detach(), b, layer.scale


# How far the features of a merged backbone are from those of the method it was merged from.

LIMIT = 1e-5
NOISE = DRAWN = 2  # images of each kind
SIDE = 160  # of a drawn scene, before it is resized
DTYPES = (torch.float32, torch.float64)

Maps = list[list[Tensor]]  # of each image: all maps and the final features


@dataclass(frozen=True)
class Proof:
    """The largest differences over all maps and the final features of all images.

    largest: between the method and its merged weights in single precision, both computed in double
    precision, so that nothing but the weights can differ. single: between the two computed in
    single precision. noise: between the method in single and itself in double precision, without
    which `single` cannot be read: a deep ViT is further than 1e-5 from its own exact features.
    """

    images: int
    largest: float
    single: float
    noise: float

    @property
    def holds(self) -> bool:
        """Say whether the weights stand for the method, in either precision, as far as it goes."""
        readable = math.isfinite(self.single) and self.single < LIMIT + 10 * self.noise
        return self.largest < LIMIT and readable


def proof_images(size: int) -> list[Tensor]:
    """Return seeded noise and scenes drawn in code, each (1, 3, size, size) in [0, 1]."""
    generator = torch.Generator().manual_seed(0)
    noise = [torch.rand(1, 3, size, size, generator=generator) for _ in range(NOISE)]
    draw = SETS["generated_cod"].scene
    scenes = [draw(index, "test", shape=(SIDE, SIDE))[0] for index in range(DRAWN)]
    drawn = [torch.from_numpy(s).permute(2, 0, 1)[None] / 255 for s in scenes]
    return noise + [F.interpolate(d, (size, size), mode="bilinear", antialias=True) for d in drawn]


@torch.no_grad()
def features(method: Method, images: list[Tensor], step: Callable[[], None]) -> list[Maps]:
    """Return the features in single, then in double precision, in which `method` then stays."""
    found: list[Maps] = []
    for dtype in DTYPES:
        method.eval().to(dtype)
        found.append([])
        for image in images:
            maps, final, _ = method(image.to(dtype))
            found[-1].append([*maps, final])
            step()
    return found


def prove(expected: list[Maps], got: list[Maps]) -> Proof:
    """Compare what `features` returned for a method and for its merged backbone."""
    single, double = expected
    largest = (_largest(double, got[1]), _largest(single, got[0]), _largest(single, double))
    return Proof(len(single), *largest)


def _largest(one: Maps, other: Maps) -> float:
    """Return max |difference| over all maps; what is not a number stays so."""
    pairs = zip(chain(*one), chain(*other), strict=True)
    return torch.stack([(a.double() - b.double()).abs().max() for a, b in pairs]).max().item()


SUFFIX = ".safetensors"
PEFT_SIZE = 128  # pixels: an adapter has no image side of its own
ABOUT = "lpmoe_bench"  # one entry of metadata: the order of several is not kept, nor their digest


@dataclass(frozen=True)
class Merged:
    """A file of merged weights, which `--backbone` with `--weights` reads as any other."""

    file: Path
    sha256: str
    backbone: str
    method: str
    proof: Proof


def merge_run(
    run: Path, output: Path, cache: Path, offline: bool, force: bool, report: OnProgress
) -> Merged:
    """Fold a finished run's method into its backbone and write that under the model's own names.

    Raises UsageError for a method that cannot be merged, an output that is there already (unless
    `force`) or is no .safetensors; DataError for a run without its files; BenchError where the
    merged weights do not prove equal.
    """
    check_output(output, force)
    record = read_record(run)
    plugins_here(record)  # one that is missing is named, where its method would be unknown
    check_mergeable(get_method(record.method.name))
    segmenter, config = load_trained(run, cache, offline)
    backbone = record.backbone
    about = {
        "run": record.id,
        "fingerprint": record.fingerprint,
        "task": record.task,
        "method": record.method.name,
        "options": record.method.options,
        "backbone_sha256": backbone.weights_sha256 if backbone else None,
        "adapter_sha256": record.adapter_sha256,
        "licence": backbone.licence if backbone else "",
    }
    return write_merged(segmenter.method, config, output, cache, about, report)


def merge_peft(
    folder: Path,
    backbone: str | None,
    weights: str | None,
    output: Path,
    cache: Path,
    offline: bool,
    force: bool,
    report: OnProgress,
) -> Merged:
    """Do the same for a LoRA in Hugging Face peft's format, on the backbone it was trained on.

    Without `backbone` the adapter's own configuration has to name one. Raises as `merge_run` and
    `read_peft`.
    """
    check_output(output, force)
    base = backbone or read_config(folder).get("base_model_name_or_path")
    if not base:
        raise UsageError(f"{folder} does not say which backbone it adapts; give --backbone NAME")
    plain = {"backbone": base, "weights": weights, "method": "decoder_only"}
    config = build_config(plain, {"size": PEFT_SIZE})
    found = resolve_weights(base, weights, cache, offline)
    method = read_peft(folder, build_segmenter(config, found).method.backbone)
    about = {
        "method": "lora",
        "backbone_sha256": found.sha256,
        "adapter_sha256": sha256_file(folder / TENSORS),
        "licence": found.licence,
    }
    return write_merged(method, config, output, cache, about, report)


def check_output(output: Path, force: bool) -> None:
    """Raise UsageError where merged weights may not be written."""
    if output.suffix != SUFFIX or output.is_dir():
        raise UsageError(f"output is '{output}'; merged weights are a {SUFFIX} file: name one")
    if output.exists() and not force:
        raise UsageError(f"{output} is there already; name another file, or overwrite with --force")


def check_mergeable(method: type[Method]) -> None:
    """Raise UsageError with the reason for a method that no plain weights can hold."""
    if not method.mergeable:
        raise UsageError(f"{method.title} cannot be merged: {method.unmergeable}")


def write_merged(
    method: Method,
    config: RunConfig,
    output: Path,
    cache: Path,
    about: Mapping[str, object],
    report: OnProgress,
) -> Merged:
    """Merge a method, write the file, read it back and prove it; `method` is used up.

    `config` names backbone and image side, `about` goes into the file's header. Where the proof
    does not hold no file is left, and what stood at `output` stays.
    """
    images, title = proof_images(config.size), method.title
    done, total = count(1), 2 * len(DTYPES) * len(images)

    def step() -> None:
        report(next(done), total)

    expected = features(method, images, step)
    # Folded in double precision, in which the method now is: each weight is rounded once.
    state = {
        name: (tensor.float() if tensor.is_floating_point() else tensor).contiguous()
        for name, tensor in method.merge().state().items()
    }
    header = {"version": __version__, "backbone": config.backbone, **about}
    # Proven on the file as it is read back, under another name until then.
    draft = output.with_name(f".{output.stem}.unproven{SUFFIX}")
    try:
        write_atomically(draft, save(state, metadata={ABOUT: json.dumps(header)}))
        proof = prove(expected, features(_read_back(config, draft, cache, title), images, step))
        if not proof.holds:
            raise BenchError(
                f"the features of {title} and of its merged weights differ by {proof.largest:.1e}, "
                f"which must be below {LIMIT:g}; no file was written"
            )
        os.replace(draft, output)
    finally:
        draft.unlink(missing_ok=True)
    return Merged(output, sha256_file(output), config.backbone, title, proof)


def _read_back(config: RunConfig, file: Path, cache: Path, title: str) -> Method:
    """Build the plain backbone as a run on this file would."""
    name = str(file)
    changes = {"method": "decoder_only", "decoder": "fpn", "weights": name}
    plain = config.model_copy(update=changes | {"options": {}, "decoder_options": {}})
    try:
        weights = resolve_weights(plain.backbone, name, cache, offline=True)
        return build_segmenter(plain, weights).method
    except (BenchError, ZooError) as error:
        raise UsageError(
            f"{title} on {config.backbone} gives weights that this backbone has no place for, "
            f"so no file was written: {error}"
        ) from None
