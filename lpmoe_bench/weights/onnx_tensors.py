"""The tensors of a Dinov2 model inside an ONNX graph, under their timm names.

The exporter keeps the Hugging Face names of vectors and convolutions; it transposes the weights of
linear layers and renames them, and splits the position table in two.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lpmoe_bench.errors import DataError

if TYPE_CHECKING:
    from onnx import GraphProto

PREFIX = "backbone."
# What is left of a Hugging Face name is the timm name.
RENAMED = [
    ("embeddings.cls_token", "cls_token"),
    ("embeddings.patch_embeddings.projection.", "patch_embed.proj."),
    ("encoder.layer.", "blocks."),
    ("layernorm.", "norm."),
    ("attention.output.dense.", "attn.proj."),
    ("layer_scale1.lambda1", "ls1.gamma"),
    ("layer_scale2.lambda1", "ls2.gamma"),
]
QUERY_KEY_VALUE = [f"attention.attention.{part}." for part in ("query", "key", "value")]


def dinov2_state(graph: GraphProto) -> dict[str, np.ndarray]:
    """Return the float32 tensors of `backbone.*` by timm name; everything else is dropped.

    Raises DataError where the graph holds no such model or only a part of it.
    """
    from onnx import numpy_helper

    tensors = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    named = {n.removeprefix(PREFIX): t for n, t in tensors.items() if n.startswith(PREFIX)}
    for weight, bias in _linear_layers(graph, tensors):
        named[bias.removeprefix(PREFIX).removesuffix("bias") + "weight"] = tensors[weight].T
    named = _stack_qkv(named)
    state = {_timm_name(name): tensor for name, tensor in named.items()}
    state["pos_embed"] = _position_table(tensors)
    lone = [n for n in state if n.endswith(".bias") and n[: -len("bias")] + "weight" not in state]
    if lone:
        raise DataError(f"the ONNX graph has no weight for {lone[0]}; use the file as published")
    return {name: np.ascontiguousarray(t, dtype=np.float32) for name, t in sorted(state.items())}


def _linear_layers(graph: GraphProto, tensors: dict[str, np.ndarray]) -> list[tuple[str, str]]:
    """Return (weight, bias) of each MatMul whose product goes into the Add of a backbone bias."""
    products = {
        node.output[0]: node.input[1]
        for node in graph.node
        if node.op_type == "MatMul" and node.input[1] in tensors
    }
    pairs = []
    for node in graph.node:
        if node.op_type != "Add":
            continue
        left, right = node.input
        for product, bias in ((left, right), (right, left)):
            if product in products and bias in tensors and bias.startswith(PREFIX):
                pairs.append((products[product], bias))
    return pairs


def _stack_qkv(named: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Stack query, key and value of each block, as timm's fused layer has them."""
    stacked = {n: t for n, t in named.items() if not any(p in n for p in QUERY_KEY_VALUE)}
    query = QUERY_KEY_VALUE[0]
    for name in [n for n in named if query in n]:
        parts = [name.replace(query, part) for part in QUERY_KEY_VALUE]
        missing = [part for part in parts if part not in named]
        if missing:
            raise DataError(f"the ONNX graph has no {missing[0]}; use the file as published")
        stacked[name.replace(query, "attn.qkv.")] = np.concatenate([named[p] for p in parts])
    return stacked


def _position_table(tensors: dict[str, np.ndarray]) -> np.ndarray:
    """Join the class token's position and the grid's: (1, 1, C) and (1, N, C) -> (1, 1 + N, C)."""
    anonymous = [t for n, t in tensors.items() if n.startswith("onnx::") and t.ndim == 3]
    anonymous.sort(key=lambda t: t.shape[1])
    if len(anonymous) != 2 or anonymous[0].shape[1] != 1:
        shapes = [t.shape for t in anonymous]
        raise DataError(
            f"the ONNX graph has no position table in two parts (found {shapes}); "
            f"use the file as published"
        )
    return np.concatenate(anonymous, axis=1)


def _timm_name(name: str) -> str:
    for old, new in RENAMED:
        name = name.replace(old, new)
    return name
