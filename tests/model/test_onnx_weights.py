"""Conversion: every tensor of the ONNX graph arrives under its timm name, or a sentence."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_weights import DEPTH, GRID, WIDTH, drop, tiny_onnx, tiny_tensors

from lpmoe_bench.errors import DataError
from lpmoe_bench.model.weights import default_backbone
from lpmoe_bench.model.weights.default_backbone import dinov2_state
from method_zoo.backbones.create import create_backbone


def test_conversion_gives_every_tensor_under_its_timm_name():
    state = tiny_tensors()
    converted = dinov2_state(tiny_onnx(state).graph)
    assert converted.keys() == state.keys()
    for name, tensor in state.items():
        np.testing.assert_array_equal(converted[name], tensor, err_msg=name)
    tensors = {name: torch.from_numpy(t.copy()) for name, t in converted.items()}
    size = {"embed_dim": WIDTH, "depth": DEPTH, "num_heads": 2, "img_size": GRID * 14}
    backbone = create_backbone(default_backbone.TIMM_NAME, tensors, False, **size)
    assert torch.equal(backbone.vit.blocks[2].attn.qkv.bias, tensors["blocks.2.attn.qkv.bias"])


@pytest.mark.parametrize(
    ("gone", "sentence"),
    [
        ("onnx::Reshape_9", "no position table in two parts"),
        ("onnx::MatMul_0", "no encoder.layer.0.attention.attention.key.weight"),
        ("backbone.encoder.layer.1.attention.attention.value.bias", "attention.value"),
        ("onnx::MatMul_7", "no weight for blocks.0.attn.proj.bias"),
    ],
)
def test_incomplete_graph_is_refused(gone, sentence):
    with pytest.raises(DataError, match=sentence):
        dinov2_state(drop(tiny_onnx(tiny_tensors()), gone).graph)
