"""ViT-Adapter: an interaction by hand, the authors' whole network, and the printed sizes."""

import pytest
import torch
from conftest import tiny_backbone, tiny_image
from hand_backbone import LOG2, assert_values, fill, gelu
from reference_tensors import assert_reference, needs_reference
from torch import nn
from vit_adapter_state import network, under_our_names

from lpmoe_bench.model.decoders.decoder import Inputs
from lpmoe_bench.model.decoders.upernet import UperNet
from method_zoo.backbones.create import create_backbone
from method_zoo.options import get_method
from method_zoo.parts.deformable import places
from method_zoo.parts.spatial_prior import DeformableAttention, GridFeedForward, joined
from method_zoo.vit_adapter import PriorExtraction, PriorInjector


def hand_attention() -> DeformableAttention:
    """One head whose first point stays and whose second lies half a cell right; weights 2 to 1
    where the query is (1, .)."""
    module = DeformableAttention(2, heads=1, levels=1, points=2, ratio=1.0)
    fill(module.offsets.bias, [0, 0, 0.5, 0])
    fill(module.weights.weight, [[LOG2, 0], [0, 0]])
    fill(module.value.weight, torch.eye(2))
    fill(module.output.weight, torch.eye(2))
    return module


def test_vit_adapter_by_hand():
    injector = PriorInjector(2, 0.5, heads=1, points=2, ratio=1.0)
    injector.attention = hand_attention()
    injector.norm_query = injector.norm_features = nn.Identity()
    x, c = torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[3.0, 0.0], [0.0, 4.0]]])
    there = places([(1, 2)], c)
    here = there._replace(points=there.points[:1])  # on the left of the two cells
    # 2/3 (3, 0) + 1/3 (3/2, 2) = (5/2, 2/3), half of which joins x.
    assert_values(injector(x, c, here, there), [[(1 + 5 / 4, 1 / 3)]], 1e-5)
    extractor = PriorExtraction(2, 0.0, 1, heads=1, points=2, ratio=1.0)
    extractor.attention = hand_attention()
    extractor.norm_query = extractor.norm_features = extractor.norm_feed = nn.Identity()
    extractor.feed = nn.Identity()
    extractor.feed.forward = lambda c, grids: 10 * c
    found = extractor(x, c, here, there)
    assert_values(found, [[(11 * 3.5, 11 * 2 / 3)]], 1e-4)


def test_the_feed_forward_layer_filters_each_grid():
    module = GridFeedForward(1)
    fill(module.fc1.weight, [[2]])
    fill(module.filter.weight, [[[[0, 0, 0], [0, 1, 1], [0, 0, 0]]]])  # itself and its right one
    fill(module.filter.bias, [0])
    fill(module.fc2.weight, [[3]])
    tokens = torch.tensor([[[1.0], [2.0], [5.0]]])  # a grid of 1 x 2 and one of 1 x 1
    expected = [[[3 * gelu(v)] for v in (6, 4, 10)]]
    assert_values(module(tokens, [(1, 2), (1, 1)]), expected, 1e-5)


def test_the_frozen_stream_stays_at_the_start():
    image = tiny_image(tiny_backbone())
    frozen = get_method("decoder_only")(tiny_backbone())(image)
    assert torch.equal(get_method("vit_adapter")(tiny_backbone())(image).final, frozen.final)


# Millions with backbone, UperNet and its auxiliary head, all of which train there.
PRINTED = {
    "vit_tiny_patch16_224": (2_438_192, 36),
    "vit_small_patch16_224": (5_830_160, 58),
    "vit_base_patch16_224": (13_680_608, 134),
    "vit_large_patch16_224": (23_236_800, 363),
}


@pytest.mark.parametrize("name", PRINTED)
def test_count_is_the_printed_one(name):
    count, printed = PRINTED[name]
    with torch.device("meta"):
        backbone = create_backbone(name, class_token=False)
        method = get_method("vit_adapter")(backbone)
        decoder = UperNet(Inputs.of(method), 150)
    trained = sum(p.numel() for p in method.trainable().values())
    assert trained == count
    trunk = method.backbone_size - 2 * backbone.dim  # its last norm, which nothing reads there
    total = trunk + trained + sum(p.numel() for p in decoder.parameters())
    assert round(total / 1e6) == printed


NAMES = (
    (r"^interactions\.(\d)\.injector\.", r"inject.\1."),
    (r"^interactions\.(\d)\.extractor\.", r"extract.\1.0."),
    (r"^interactions\.3\.extra_extractors\.(\d)\.", lambda m: f"extract.3.{int(m[1]) + 1}."),
)


@needs_reference
def test_vit_adapter_is_the_authors_network():
    tensors, state, backbone = network("vit_adapter")
    method = get_method("vit_adapter")(backbone, heads=3, ratio=1.0, width=16).eval()
    method.load_adapter_state(method.adapter_state() | under_our_names(state, NAMES))
    assert method.adapter_state().keys() >= under_our_names(state, NAMES).keys()
    c1, *levels = method.prior(tensors["image"])
    assert_reference(c1, tensors["spm/c1"])
    found = [joined([m]) for m in levels]
    for got, name in zip(found, ("c2", "c3", "c4"), strict=True):
        assert_reference(got, tensors[f"spm/{name}"])
    maps = method(tensors["image"]).maps
    for k, got in enumerate(maps, start=1):
        assert_reference(got, tensors[f"out/f{k}"])
    sum(m.square().sum() for m in maps).backward()
    gradients = {k[3:]: t for k, t in tensors.items() if k.startswith("gw/")}
    for name, expected in under_our_names(gradients, NAMES).items():
        got = method.get_parameter(name).grad
        assert got is not None, name
        largest = expected.abs().max()
        assert_reference(got / largest, expected / largest)
