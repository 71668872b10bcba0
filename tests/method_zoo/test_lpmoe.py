"""Controllable-LPMoE as a whole: size, token stream, pyramid, start, options, training."""

import math

import pytest
import torch
import torch.nn.functional as F
from conftest import WHOLE, tiny_backbone, tiny_image
from opened import opened
from torch import nn

from method_zoo.backbones.create import create_backbone
from method_zoo.lpmoe import Layout, Pyramid
from method_zoo.options import get_method

LPMoE = get_method("lpmoe")


def backbone(name: str = "vit_tiny_patch16_224", **kwargs):
    torch.manual_seed(0)
    return create_backbone(name, embed_dim=32, depth=4, num_heads=4, img_size=64, **kwargs)


def images(height: int = 64, width: int = 96) -> torch.Tensor:
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(1))


def trained(method: nn.Module) -> nn.Module:
    """Move what trains off its start, where gates and weights are zero."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for p in method.trainable().values():
            p.add_(0.1 * torch.randn(p.shape, generator=generator))
    return method


@pytest.mark.parametrize(("dim", "heads"), [(1024, 16), (768, 12), (384, 6), (192, 3)])
@pytest.mark.parametrize(("depth", "ratio"), [(4, 0.5), (5, 0.25)])
def test_trainable_count_does_not_depend_on_depth(dim, heads, depth, ratio):
    with torch.device("meta"):
        method = LPMoE(
            create_backbone("vit_tiny_patch16_224", embed_dim=dim, depth=depth, num_heads=heads),
            ratio=ratio,
        )
    count = sum(p.numel() for p in method.trainable().values())
    # Spec, section 9, derived by hand from the authors' modules.
    formula = (7.25 + 20 * ratio) * dim**2 + (168.5 + 10 * ratio) * dim + 158356
    assert count == formula + 216 * heads * (dim + 1)
    if (dim, ratio) == (1024, 0.5):
        assert count == 21_966_356


@pytest.mark.parametrize("family", [*WHOLE, "bare"])
def test_token_stream_is_untouched_while_gamma_is_zero(family):
    plain = backbone(class_token=False) if family == "bare" else tiny_backbone(family)
    image, own, width = tiny_image(plain), plain.vit.num_prefix_tokens, plain.dim // 4
    expected = opened(plain, image)
    with torch.no_grad():
        method = LPMoE(plain).eval()
        features = method(image)
        assert torch.equal(features.final.flatten(2).mT, expected[:, own:])
        assert [tuple(m.shape[1:]) for m in features.maps] == [
            (width, 16 // k, 24 // k) for k in (1, 2, 4, 8)
        ]
        for inject in method.inject:
            inject.gamma.fill_(0.1)
        assert not torch.equal(method(image).final, features.final)


def test_gamma_is_the_initial_gate():
    assert all((i.gamma == 0.25).all() for i in LPMoE(backbone(), gamma=0.25).inject)


def test_pyramid_is_the_authors():
    torch.manual_seed(0)
    pyramid = Pyramid(8).train()
    p1 = torch.randn(2, 8, 16, 24)
    c2, c3, c4 = (torch.randn(2, 8, 8 // k, 12 // k) for k in (1, 2, 4))
    taps = [torch.randn(2, 8, 4, 6) for _ in range(4)]
    before = [t.clone() for t in (p1, c2, c3, c4, *taps)]
    got = pyramid(p1, [c2, c3, c4], taps)
    for kept, tensor in zip(before, (p1, c2, c3, c4, *taps), strict=True):
        assert torch.equal(kept, tensor), "an input was written to"

    def up(x, factor):
        return F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)

    sums = [
        p1 + pyramid.up(c2) + up(taps[0], 4),
        c2 + up(taps[1], 2),
        c3 + taps[2],
        c4 + up(taps[3], 0.5),
    ]
    for ours, c in zip(got, sums, strict=True):
        mean, var = c.mean((0, 2, 3), keepdim=True), c.var((0, 2, 3), correction=0, keepdim=True)
        normed = (c - mean) / (var + 1e-5).sqrt()
        expected = torch.einsum("oc,bchw->bohw", pyramid.reduce.weight[:, :, 0, 0], normed)
        torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)


def test_extractor_reads_the_normalised_image():
    method, image, seen = LPMoE(backbone()).eval(), images(), []
    method.prior.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    method(image)
    assert torch.equal(seen[0], method.backbone.normalise(image))
    assert not torch.equal(seen[0], image)


def test_last_stage_extracts_three_times_and_taps_are_raw_tokens():
    method, calls, taps = LPMoE(backbone()).eval(), [], []
    for stage, group in enumerate(method.extract):
        for extractor in group:
            extractor.register_forward_hook(lambda m, a, o, s=stage: calls.append((s, a[1])))
    method.pyramid.register_forward_hook(lambda module, args, out: taps.extend(args[2]))
    image = images()
    with torch.no_grad():
        method(image)
        t = method.backbone.embed(image)
        assert [stage for stage, _ in calls] == [0, 1, 2, 3, 3, 3]
        assert torch.equal(calls[3][1], calls[5][1])
        for i, tap in enumerate(taps):  # one block a stage here, gamma is 0
            t = method.backbone.block(i, t)
            assert torch.equal(tap, t.map())


def test_shared_norm_sees_four_scales_and_per_scale_norms_one_each():
    image = images()
    shared, separate = LPMoE(backbone()), LPMoE(backbone(), norm="per_scale")
    shared.train()(image)
    separate.train()(image)
    (norm,) = shared.prior.mixture.experts[0].enter.norms
    assert norm.num_batches_tracked == 4
    norms = separate.prior.mixture.experts[0].enter.norms
    assert [int(n.num_batches_tracked) for n in norms] == [1, 1, 1, 1]
    means = torch.stack([n.running_mean for n in norms])
    assert (torch.pdist(means) > 1e-3).all(), "the four statistics must differ"
    convs = [
        sum(p.numel() for n, p in m.prior.named_parameters() if "norms" not in n)
        for m in (shared, separate)
    ]
    assert convs[0] == convs[1], "the other weights stay shared"


def test_drop_path_skips_the_enhancement_of_some_images_in_training_only():
    torch.manual_seed(0)
    method = trained(LPMoE(backbone(), drop_path=0.5))
    extractor = method.extract[0][0]
    prior, x = torch.randn(16, 126, 32), torch.randn(16, 24, 32)
    layout = Layout.of((4, 6), x)
    with torch.no_grad():
        got = extractor.train()(prior, x, layout)
        full = extractor.eval()(prior, x, layout)
        query, features = extractor.norm_prior(prior), extractor.norm_tokens(x)
        skipped = prior + extractor.attention(query, features, layout.prior.points, layout.tokens)
    kept = 0
    for image in range(16):
        doubled = skipped[image] + 2 * (full[image] - skipped[image])  # 1 / (1 - 0.5)
        close = [torch.allclose(got[image], e, atol=1e-5) for e in (skipped[image], doubled)]
        assert close.count(True) == 1
        kept += close[1]
    assert 0 < kept < 16


def test_start_is_that_of_the_paper():
    method = LPMoE(backbone())
    attention = method.inject[0].attention
    star = attention.offsets.bias.view(4, 3, 4, 2)  # heads, levels, points, (x, y)
    for head, ray in enumerate([(1, 0), (0, 1), (-1, 0), (0, -1)]):
        for point in range(4):
            expected = torch.tensor(ray, dtype=torch.float32) * (point + 1)
            torch.testing.assert_close(
                star[head, :, point], expected.expand(3, 2), atol=1e-6, rtol=0
            )
    assert not attention.weights.weight.any()
    bound = math.sqrt(6 / (32 + 16))
    assert bound * 0.9 < attention.value.weight.abs().max() <= bound
    conv = method.prior.downs[0].conv
    assert not conv.bias.any()
    assert conv.weight.std().item() == pytest.approx(math.sqrt(2 / (9 * 64)), rel=0.02)
    assert method.prior.mixture.gate.weight.std().item() == pytest.approx(0.02, rel=0.2)
    assert not method.extract[3][2].enhance.reduce.bias.any()


@pytest.mark.parametrize("norm", ["shared", "per_scale"])
def test_every_parameter_takes_part_in_one_step(norm):
    """What distributed training without a search for unused parameters needs."""
    method = LPMoE(backbone(), norm=norm).train()
    sum(m.square().mean() for m in method(images()).maps).backward()
    assert [n for n, p in method.trainable().items() if p.grad is None] == []
    synced = nn.SyncBatchNorm.convert_sync_batchnorm(method)
    assert not any(type(m) is nn.BatchNorm2d for m in synced.modules())


def test_checkpointing_leaves_gradients_equal():
    gradients = []
    for checkpointing in (False, True):
        torch.manual_seed(3)
        method = trained(LPMoE(backbone(reg_tokens=2), drop_path=0.3)).train()
        method.checkpointing = checkpointing
        torch.manual_seed(4)
        sum(m.square().mean() for m in method(images()).maps).backward()
        gradients.append([p.grad for p in method.trainable().values()])
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(recomputed, plain, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("family", "eps"), [("beit", 1e-6), ("plain", 1e-5), ("dinov3", 1e-5)])
def test_interactions_have_the_epsilon_of_the_authors(family, eps):
    """They hand on their backbone's: BEiT's 1e-6, the plain 1e-5 of Uni-Perceiver."""
    method = LPMoE(tiny_backbone(family))
    norms = [
        m
        for part in (method.inject, method.extract)
        for m in part.modules()
        if isinstance(m, nn.LayerNorm)
    ]
    assert len(norms) == 4 * 2 + 6 * 3
    assert {norm.eps for norm in norms} == {eps}
