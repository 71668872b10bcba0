"""The fast forms of Controllable-LPMoE's parts against the plain ones, in float64."""

import pytest
import torch
import torch.nn.functional as F
from conftest import tiny_backbone, tiny_image
from torch import nn

from lpmoe_bench.config.settings import RunConfig
from lpmoe_bench.errors import UsageError
from lpmoe_bench.model.segmenter import blueprint
from method_zoo.lpmoe import Extractor, Layout
from method_zoo.method import Remaking
from method_zoo.options import get_method
from method_zoo.parts import deformable, layers
from method_zoo.parts.deformable import CosineDeformableAttention, places, sample, sample_planes
from method_zoo.parts.pyramid import Pyramid


def close(got, expected):
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


def leaves(*tensors):
    return [t.double().requires_grad_() for t in tensors]


def gradients(out, inputs):
    """Of a sum that weighs every number in another way."""
    outs = out if isinstance(out, list) else [out]
    generator = torch.Generator().manual_seed(5)
    weighed = [(o * torch.randn(o.shape, generator=generator).to(o)).sum() for o in outs]
    return [*outs, *torch.autograd.grad(torch.stack(weighed).sum(), inputs)]


@pytest.mark.parametrize("grids", [[(3, 5)], [(6, 10), (3, 5), (1, 2)]])
def test_reads_of_rows_are_those_of_planes(grids):
    """Outside the grid, on its edge, far away and on cells themselves too."""
    torch.manual_seed(0)
    tokens, levels = sum(h * w for h, w in grids), len(grids)
    where = torch.rand(2, 7, 3, levels, 4, 2) * 1.6 - 0.3
    where[0, 0] = 1e6
    where[0, 1] = -1e6
    value, where, weights = leaves(
        torch.randn(2, tokens, 3, 5), where, torch.rand(2, 7, 3, levels, 4)
    )
    inputs = [value, where, weights]
    ways = [gradients(way(value, grids, where, weights), inputs) for way in (sample, sample_planes)]
    close(*ways)
    assert (ways[0][2] == 0).any()
    assert (ways[0][2] != 0).any()


def test_reads_keep_values_places_and_weights_alone():
    inputs = leaves(
        torch.randn(1, 15, 2, 4), torch.rand(1, 6, 2, 1, 4, 2), torch.rand(1, 6, 2, 1, 4)
    )
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.shape), lambda t: t):
        sample(inputs[0], [(3, 5)], *inputs[1:])
    assert sorted(kept) == sorted(t.shape for t in inputs)


def test_a_place_that_is_no_number_reads_none_and_an_endless_one_zero():
    value, weights = torch.ones(1, 4, 1, 1), torch.ones(1, 2, 1, 1, 1)
    where = torch.tensor([torch.nan, torch.inf]).view(1, 2, 1, 1, 1, 1).expand(-1, -1, 1, 1, 1, 2)
    first, second = sample(value, [(2, 2)], where, weights).flatten()
    assert first.isnan()
    assert second == 0


@pytest.mark.parametrize("options", [{}, {"cosine": "mean"}, {"renormalise": True}])
def test_attention_in_one_operation_is_the_plain_one(options, monkeypatch):
    torch.manual_seed(0)
    module = CosineDeformableAttention(12, 3, 2, **options).double()
    for p in module.parameters():
        nn.init.normal_(p, std=0.1)
    query, features = leaves(torch.randn(2, 6, 12), torch.randn(2, 10, 12))
    with torch.no_grad():
        query[0, 2], features[1, 3] = 0, 0  # without a direction: a cosine of zero
    source = places([(2, 4), (1, 2)], query)
    inputs = [query, features, *module.parameters()]

    def run():
        return gradients(module(query, features, source.points[:6].double(), source), inputs)

    fast = run()
    monkeypatch.setattr(CosineDeformableAttention, "_fuses", lambda *_: False)
    monkeypatch.setattr(deformable, "sample", sample_planes)
    close(fast, run())


@pytest.mark.parametrize(("size", "batch"), [((1, 2), 3), ((3, 2), 2), ((2, 4), 1)])
def test_pyramid_in_rows_is_the_plain_one_and_moves_statistics_once(size, batch, monkeypatch):
    torch.manual_seed(0)
    height, width = (2 * side for side in size)
    pyramid, project = Pyramid(8).double().train(), nn.Conv2d(6, 8, 1).double()
    for p in pyramid.parameters():
        nn.init.normal_(p)
    u = torch.randn(batch, 6, 4 * height, 4 * width)
    priors = [torch.randn(batch, 8, 2 * height // k, 2 * width // k) + 3 for k in (1, 2, 4)]
    taps = [torch.randn(batch, 8, height, width) for _ in range(4)]
    inputs = leaves(u, *priors, *taps)
    trained = [*inputs, *pyramid.parameters(), *project.parameters()]
    before = {n: t.clone() for n, t in pyramid.state_dict().items()}

    def run():
        pyramid.load_state_dict(before)
        out = gradients(pyramid(inputs[0], inputs[1:4], inputs[4:], project), trained)
        assert all(norm.num_batches_tracked == 1 for norm in pyramid.norms)
        return [*out, *(t.clone() for t in pyramid.buffers())]

    fast = run()
    monkeypatch.setattr(Pyramid, "_takes_rows", lambda *_: False)
    close(fast, run())


@pytest.mark.parametrize("projected", [False, True])
def test_pyramid_folded_for_eval_is_the_plain_one(projected):
    torch.manual_seed(0)
    pyramid, project = Pyramid(8).double(), nn.Conv2d(6, 8, 1).double()
    for p in pyramid.parameters():
        nn.init.normal_(p)
    for norm in pyramid.norms:
        nn.init.normal_(norm.running_mean)
        nn.init.uniform_(norm.running_var, 0.5, 2)
    u, *priors = leaves(
        torch.randn(2, 6, 16, 24), *(torch.randn(2, 8, 8 // k, 12 // k) for k in (1, 2, 4))
    )
    taps = leaves(*(torch.randn(2, 8, 4, 6) for _ in range(4)))
    trained = [u, *priors, *taps, *pyramid.parameters(), *project.parameters()]
    pyramid.eval()
    p1 = project(u)
    plain = gradients(pyramid._plain(p1, priors, taps), trained)
    got = pyramid(u, priors, taps, project) if projected else pyramid(project(u), priors, taps)
    close(gradients(got, trained), plain)


@pytest.mark.parametrize("kernel", [5, 7])
def test_gradient_of_a_large_kernel_is_torchs(kernel, monkeypatch):
    torch.manual_seed(0)
    x, weight, bias = leaves(
        torch.randn(2, 3, 9, 11), torch.randn(3, 1, kernel, kernel), torch.randn(3)
    )
    inputs = [x, weight, bias]
    expected = gradients(F.conv2d(x, weight, bias, padding=kernel // 2, groups=3), inputs)
    monkeypatch.setattr(layers, "LARGE_MAP", 0)
    close(gradients(layers.convolve_channels(x, weight, bias), inputs), expected)


def test_weighted_sum_of_maps():
    torch.manual_seed(0)
    weights, *maps = leaves(torch.rand(2, 3), *(torch.randn(2, 4, 3, 5) for _ in range(3)))
    expected = sum(m * weights[:, k, None, None, None] for k, m in enumerate(maps))
    inputs = [weights, *maps]
    close(gradients(layers._Weighted.apply(weights, *maps), inputs), gradients(expected, inputs))


@pytest.mark.parametrize("autocast", [False, True])
def test_recomputed_interactions_change_no_bit(autocast):
    results = []
    for recompute in (None, "interactions"):
        torch.manual_seed(0)
        method = get_method("lpmoe")(tiny_backbone("plain"), gamma=0.1, drop_path=0.3).train()
        method.recompute = recompute
        torch.manual_seed(4)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            maps = method(tiny_image(method.backbone)).maps
        torch.stack([m.float().square().mean() for m in maps]).sum().backward()
        trained = [p.grad for p in method.trainable().values()]
        results.append([*(m.detach() for m in maps), *trained, *method.buffers()])
    for plain, remade in zip(*results, strict=True):
        assert torch.equal(plain, remade)


def test_recomputed_extractor_keeps_no_norms_no_reads_and_no_activations(monkeypatch):
    torch.manual_seed(0)
    extractor = Extractor(16, 0.0, 1e-5, heads=2)
    x, layout = torch.randn(2, 8, 16), Layout.of((2, 4), torch.empty(1))
    prior = torch.randn(2, 42, 16)
    kept: dict[bool, dict[int, torch.Tensor]] = {False: {}, True: {}}
    pack = Remaking._pack

    def keep(tensor, remade=False):  # held, so that no address is used twice
        kept[remade][tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    def counted(self, tensor):
        packed = pack(self, tensor)
        return keep(packed, True) if isinstance(packed, torch.Tensor) else packed

    monkeypatch.setattr(Remaking, "_pack", counted)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        plain = extractor(prior, x, layout)
    assert torch.equal(Remaking().during(extractor, prior, x, layout), plain)
    first, second = (
        sum(t.untyped_storage().nbytes() for t in tensors.values()) for tensors in kept.values()
    )
    # Norms of tokens and twice of priors, reads half as wide, activations a quarter as wide.
    left_out = x.numel() + 2 * prior.numel() + prior.numel() // 2 + prior.numel() // 4
    assert first - second == 4 * left_out


def test_what_a_method_does_not_have_cannot_be_recomputed():
    runtime = {"recompute": "interactions"}
    config = {"backbone": "vit_tiny_patch16_224", "size": 64, "runtime": runtime}
    assert blueprint(RunConfig(method="lpmoe", **config)).method.recompute == "interactions"
    with pytest.raises(UsageError, match=r"lora has no interactions: .*runtime\.checkpointing"):
        blueprint(RunConfig(method="lora", **config))
