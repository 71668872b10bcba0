"""Rein: its refinement and its queries by hand, the authors' module, and the printed count."""

import math

import pytest
import torch
from conftest import tiny_backbone, tiny_image
from hand_backbone import assert_values, fill, grey, hand_backbone, patch_of
from reference_tensors import assert_reference, needs_reference, reference

from method_zoo.backbones.create import create_backbone
from method_zoo.options import get_method
from method_zoo.rein import Rein


def test_rein_by_hand():
    method = get_method("rein")(hand_backbone(), tokens=3, rank=1, queries=1)
    length = math.log(2) * math.sqrt(2) / 3
    # T = (0, 0), (ln 2 sqrt 2 / 3, 0), (0, 0) in block 1: of (3, 1) the scores are 0, ln 2, 0 and
    # the shares 1/4, 1/2, 1/4. Of the other blocks, whose tokens are all zero, a third each.
    a, b = method.factors
    fill(a, torch.zeros(4, 3, 1))
    fill(b, torch.zeros(4, 1, 2))
    fill(a[1], [[0], [length], [0]])
    fill(b[1], [[1, 0]])
    fill(method.of_tokens.weight, [[1 / length, 0], [0, 0]])
    fill(method.of_tokens.bias, [0, 8])
    fill(method.of_features.weight, torch.eye(2))
    fill(method.of_features.bias, [-3, 0])
    fill(method.scale, 0)
    assert_values(method.refine(1, torch.tensor([[[3.0, 1.0]]])), [[[3, 1]]])
    fill(method.scale, 2)
    # d = 1/2 (1, 8) + 1/4 (0, 8) = (1/2, 6); d + f - (3, 0) = (1/2, 7); (3, 1) + 2 (1/2, 7).
    assert_values(method.refine(1, torch.tensor([[[3.0, 1.0]]])), [[[4, 15]]], 1e-5)
    fill(method.scale, 0)
    assert_values(patch_of(method(grey(method.backbone))), (3, 1))
    # The queries, of LinT(T) = 3 T_0 / length - 1: of token 1 they are -1, 2, -1, -1.
    fill(method.into_queries.weight, [[3 / length, 0]])
    fill(method.into_queries.bias, [-1])
    fill(method.merge_queries.weight, [[1, 10, 100]])
    fill(method.merge_queries.bias, [0.5])
    queries = method(grey(method.backbone)).queries
    # Largest, mean, last: 2 - 10 / 4 - 100 + 1/2 of token 1, -111 + 1/2 of the others.
    assert_values(queries, [[-110.5], [-100.0], [-110.5]], 1e-4)


@pytest.mark.parametrize(
    ("name", "options", "count"),
    [
        ("vit_large_patch16_224", {}, 2_990_081),
        ("vit_base_patch16_224", {}, 1_741_569),
        ("vit_small_patch16_224", {}, 684_033),
        ("vit_large_patch16_224", {"rank": 0}, 5_016_065),
        ("vit_base_patch16_224", {"rank": 0}, 2_496_513),
        ("vit_large_patch16_224", {"queries": 0}, 2_990_081 - 459_264),
    ],
)
def test_count(name, options, count):
    with torch.device("meta"):
        method = get_method("rein")(create_backbone(name), **{"queries": 256} | options)
    assert sum(p.numel() for p in method.trainable().values()) == count


def test_a_prefix_passes_by():
    method = get_method("rein")(tiny_backbone("registers"), zero_init=False)
    fill(method.scale, 1)
    t = method.backbone.embed(tiny_image(method.backbone))
    plain, found = method.backbone.block(0, t), method.block(0, t)
    assert torch.equal(found.x[:, : t.prefix], plain.x[:, : t.prefix])
    assert not torch.allclose(found.patches, plain.patches)


def test_without_queries_none_are_made():
    method = get_method("rein")(tiny_backbone())
    assert method.query_shape is None
    assert method(tiny_image(method.backbone)).queries is None
    with_queries = get_method("rein")(tiny_backbone(), queries=32)
    assert with_queries.query_shape == (100, 32)
    assert with_queries(tiny_image(method.backbone)).queries.shape == (100, 32)


NAMES = {
    "of_tokens": "mlp_token2feat",
    "of_features": "mlp_delta_f",
    "into_queries": "transform",
    "merge_queries": "merge",
}


@needs_reference
@pytest.mark.parametrize("group", ["plain", "lora"])
def test_rein_is_the_authors_module(group):
    tensors, _ = reference("rein")
    tensors = {k.removeprefix(f"{group}/"): t for k, t in tensors.items() if k.startswith(group)}
    backbone = create_backbone("vit_tiny_patch16_224", embed_dim=48, depth=3, num_heads=3)
    method = Rein(backbone, tokens=10, rank=4 if group == "lora" else 0, queries=32)
    names = {f"{k}.{x}": f"{v}.{x}" for k, v in NAMES.items() for x in ("weight", "bias")}
    names["scale"] = "scale"
    theirs = ["_a", "_b"] if group == "lora" else [""]
    names |= {f"factors.{k}": f"learnable_tokens{x}" for k, x in enumerate(theirs)}
    for ours, name in names.items():
        fill(method.get_parameter(ours), tensors[f"state/{name}"])
    loss = torch.zeros(())
    for i in range(3):
        x, expected = tensors[f"x{i}"], tensors[f"y{i}"]
        y = torch.cat([x[:, :1], method.refine(i, x[:, 1:])], dim=1)
        assert_reference(y, expected)
        loss = loss + y.square().sum()
    queries = method.make_queries()
    assert_reference(queries, tensors["queries"])
    (loss + queries.square().sum()).backward()
    for ours, name in names.items():
        got, expected = method.get_parameter(ours).grad, tensors[f"gw/{name}"]
        assert_reference(got / expected.abs().max(), expected / expected.abs().max())
