"""Tiny weight files: a safetensors file, and an ONNX graph built like the published one."""

import os
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from method_zoo.backbones.create import create_backbone

WIDTH, DEPTH, GRID = 8, 4, 3
PARTS = ("query", "key", "value")
TIMM = "vit_tiny_patch16_224"


def tiny_tensors() -> dict[str, np.ndarray]:
    """The tensors of a tiny timm DINOv2 model, every value different."""
    shapes = {
        "cls_token": (1, 1, WIDTH),
        "pos_embed": (1, 1 + GRID**2, WIDTH),
        "patch_embed.proj.weight": (WIDTH, 3, 14, 14),
        "patch_embed.proj.bias": (WIDTH,),
        "norm.weight": (WIDTH,),
        "norm.bias": (WIDTH,),
    }
    for i in range(DEPTH):
        shapes |= {
            f"blocks.{i}.norm{k}.{leaf}": (WIDTH,) for k in (1, 2) for leaf in ("weight", "bias")
        }
        shapes |= {f"blocks.{i}.ls{k}.gamma": (WIDTH,) for k in (1, 2)}
        for name, (out, into) in {
            "attn.qkv": (3 * WIDTH, WIDTH),
            "attn.proj": (WIDTH, WIDTH),
            "mlp.fc1": (4 * WIDTH, WIDTH),
            "mlp.fc2": (WIDTH, 4 * WIDTH),
        }.items():
            shapes |= {f"blocks.{i}.{name}.weight": (out, into), f"blocks.{i}.{name}.bias": (out,)}
    random = np.random.default_rng(0)
    return {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def tiny_onnx(state: dict[str, np.ndarray]):
    """Write the tensors as the exporter does: names of Hugging Face, linear weights anonymous."""
    from onnx import helper, numpy_helper

    tensors, nodes = {"decoder.conv.bias": np.ones(4, np.float32)}, []

    def linear(name: str, weight: np.ndarray, bias: np.ndarray) -> None:
        anonymous, product = f"onnx::MatMul_{len(nodes)}", f"/{name}/product"
        tensors[anonymous], tensors[f"backbone.{name}.bias"] = weight.T, bias
        nodes.append(helper.make_node("MatMul", [f"/{name}/input", anonymous], [product]))
        terms = [f"backbone.{name}.bias", product]
        # The exporter puts the bias first; a reader must not depend on it.
        nodes.append(
            helper.make_node("Add", terms[:: 1 if len(nodes) % 4 == 1 else -1], [f"/{name}/sum"])
        )

    tensors["backbone.embeddings.cls_token"] = state["cls_token"]
    tensors["onnx::Concat_7"] = state["pos_embed"][:, :1]
    tensors["onnx::Reshape_9"] = state["pos_embed"][:, 1:]
    for leaf in ("weight", "bias"):
        patch = f"backbone.embeddings.patch_embeddings.projection.{leaf}"
        tensors[patch] = state[f"patch_embed.proj.{leaf}"]
        tensors[f"backbone.layernorm.{leaf}"] = state[f"norm.{leaf}"]
    for i in range(DEPTH):
        old, new = f"encoder.layer.{i}", f"blocks.{i}"
        for k in (1, 2):
            tensors[f"backbone.{old}.layer_scale{k}.lambda1"] = state[f"{new}.ls{k}.gamma"]
            for leaf in ("weight", "bias"):
                tensors[f"backbone.{old}.norm{k}.{leaf}"] = state[f"{new}.norm{k}.{leaf}"]
        weights = np.split(state[f"{new}.attn.qkv.weight"], 3)
        biases = np.split(state[f"{new}.attn.qkv.bias"], 3)
        for k in (1, 2, 0):  # the exporter's order: key, value, query
            linear(f"{old}.attention.attention.{PARTS[k]}", weights[k], biases[k])
        # A product of two activations, which has no weight.
        nodes.append(helper.make_node("MatMul", ["/queries", "/keys"], [f"/{i}/scores"]))
        for name, there in (
            ("attention.output.dense", "attn.proj"),
            ("mlp.fc1", "mlp.fc1"),
            ("mlp.fc2", "mlp.fc2"),
        ):
            bias = state[f"{new}.{there}.bias"]
            linear(f"{old}.{name}", state[f"{new}.{there}.weight"], bias)
    stored = [numpy_helper.from_array(np.ascontiguousarray(t), n) for n, t in tensors.items()]
    return helper.make_model(helper.make_graph(nodes, "tiny", [], [], stored))


def drop(model, name: str):
    """Take one tensor out of the graph."""
    kept = [t for t in model.graph.initializer if t.name != name]
    assert len(kept) == len(model.graph.initializer) - 1
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    return model


def save_tiny(path: Path, extra: dict[str, torch.Tensor] | None = None, gone: str = "") -> Path:
    state = create_backbone(TIMM).vit.state_dict()
    state = {n: torch.full_like(t, 0.25) for n, t in state.items() if not n.startswith(gone or "-")}
    save_file(state | (extra or {}), path)
    return path


class Hostile:
    """Runs a command when a trusting reader unpickles it."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)
