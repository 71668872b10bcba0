"""Sampling, cosine-aligned attention and the Haar transform, on numbers worked by hand."""

import pytest
import torch
from hand_backbone import HAND, hand_module

from method_zoo.backbones.create import create_backbone
from method_zoo.options import get_method
from method_zoo.parts import deformable
from method_zoo.parts.deformable import CosineDeformableAttention, aligned_logits, places, sample
from method_zoo.parts.layers import haar, inverse_haar


def literal(query, features, weight):
    """The authors' bracketing: the matrix of all cosines first."""
    q = query / (query.norm(dim=-1, keepdim=True) + 1e-8)
    f = features / (features.norm(dim=-1, keepdim=True) + 1e-8)
    return ((q @ f.transpose(1, 2)) @ features) @ weight.t()


def test_both_bracketings_of_the_cosine_branch_agree():
    torch.manual_seed(0)
    query, features, weight = torch.randn(2, 24, 32), torch.randn(2, 126, 32), torch.randn(12, 32)
    inputs = [t.double().requires_grad_() for t in (query, features, weight)]
    ours, theirs = aligned_logits(*inputs), literal(*inputs)
    torch.testing.assert_close(ours, theirs)
    target = torch.randn_like(ours)
    for a, b in zip(
        torch.autograd.grad((ours * target).sum(), inputs),
        torch.autograd.grad((theirs * target).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(a, b)
    single = aligned_logits(query, features, weight)
    assert (single - ours).abs().max() < 1e-5 * ours.abs().max()


@pytest.mark.parametrize("case", HAND)
def test_attention_worked_by_hand(case):
    offset, options, expected = HAND[case]
    features = torch.tensor([[[3.0, 0], [0, 4.0]]])
    source = places([(1, 2)], features)
    out = hand_module(offset, **options)(
        torch.tensor([[[1.0, 0]]]), features, source.points[:1], source
    )
    torch.testing.assert_close(out, torch.tensor([[expected]]))


def test_places_and_sampling_know_x_from_y():
    value = torch.tensor([1.0, 2, 3, 4, 5, 6]).view(1, 6, 1, 1)  # 2 rows, 3 columns
    here = places([(2, 3)], value)
    torch.testing.assert_close(here.cells, torch.tensor([[1 / 3, 1 / 2]]))
    torch.testing.assert_close(here.points[4], torch.tensor([1 / 2, 3 / 4]))
    where = here.points[None, :, None, None, None]
    read = sample(value, here.grids, where, torch.ones(1, 6, 1, 1, 1))
    torch.testing.assert_close(read.flatten(), value.flatten())


def test_levels_heads_and_points_add_up():
    torch.manual_seed(0)
    grids, heads, points = [(4, 6), (2, 3)], 2, 3
    value = torch.randn(2, 30, heads, 5)
    where, weights = torch.rand(2, 7, heads, 2, points, 2), torch.rand(2, 7, heads, 2, points)
    got = sample(value, grids, where, weights).view(2, 7, heads, 5)
    image, query, head = 1, 4, 1
    expected = torch.zeros(5)
    for level, (start, (height, width)) in enumerate(zip((0, 24), grids, strict=True)):
        plane = value[image, start : start + height * width, head].view(height, width, 5)
        for point in range(points):
            x, y = where[image, query, head, level, point] * torch.tensor([width, height]) - 0.5
            for row in range(height):
                for column in range(width):
                    share = max(0, 1 - abs(x - column)) * max(0, 1 - abs(y - row))
                    expected += (
                        weights[image, query, head, level, point] * share * plane[row, column]
                    )
    torch.testing.assert_close(got[image, query, head], expected)


@pytest.mark.parametrize("cosine", ["sum", "mean"])
def test_weights_sum_to_one_only_when_renormalised(cosine):
    torch.manual_seed(0)
    query, features = torch.randn(2, 6, 16), torch.randn(2, 24, 16)
    sums = {}
    for renormalise in (False, True):
        module = CosineDeformableAttention(16, 4, 1, cosine=cosine, renormalise=renormalise)
        torch.nn.init.normal_(module.weights.weight)
        sums[renormalise] = module.mixed_weights(query, features).sum((-1, -2))
    torch.testing.assert_close(sums[True], torch.ones(2, 6, 4))
    assert (sums[False] < 1).all()


def test_cosine_and_sampling_stay_in_float32_under_autocast(monkeypatch):
    torch.manual_seed(0)
    module = CosineDeformableAttention(16, 4, 1)
    torch.nn.init.normal_(module.weights.weight)
    query, features = torch.randn(1, 6, 16), torch.randn(1, 24, 16)
    source, seen = places([(4, 6)], query), []

    def recording(value, grids, where, weights):
        seen.append((value.dtype, where.dtype, weights))
        return sample(value, grids, where, weights)

    monkeypatch.setattr(deformable, "sample", recording)
    with torch.autocast("cpu", torch.bfloat16):
        module(query, features, source.points[:6], source)
    ((value, where, weights),) = seen
    assert (value, where, weights.dtype) == (torch.float32,) * 3
    assert torch.equal(weights, module.mixed_weights(query, features))


def test_haar_bands_worked_by_hand():
    bands = haar(torch.tensor([[[[1.0, 2], [3, 6]]], [[[0.0, 0], [0, 4]]]]))
    expected = torch.tensor([[6.0, -3, -2, 1], [2, -2, -2, 2]]).view(2, 4, 1, 1)
    torch.testing.assert_close(bands, expected)


def test_haar_is_orthonormal_and_its_own_inverse():
    torch.manual_seed(0)
    x = torch.randn(2, 3, 4, 6)
    bands = haar(x)
    assert bands.shape == (2, 12, 2, 3)
    torch.testing.assert_close(bands.square().sum(), x.square().sum())
    torch.testing.assert_close(inverse_haar(bands), x)


@pytest.mark.parametrize("autocast", [False, True])
def test_shapes_alone_are_counted_on_the_meta_device(autocast):
    with torch.device("meta"):
        backbone = create_backbone("vit_tiny_patch16_224", embed_dim=48, depth=4, num_heads=3)
        method, image = get_method("lpmoe")(backbone), torch.empty(1, 3, 64, 96)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            maps = method(image).maps
    assert [tuple(m.shape[2:]) for m in maps] == [(16, 24), (8, 12), (4, 6), (2, 3)]
