"""Decoders by hand: the 64-wide Mask2Former, its count and its parts; the linear one."""

import math

import pytest
import torch
from conftest import tiny_backbone

from lpmoe_bench.errors import UsageError
from lpmoe_bench.model.decoders.decoder import Inputs
from lpmoe_bench.model.decoders.linear import Linear
from lpmoe_bench.model.decoders.mask2former import (
    DeformableLayer,
    Mask2Former,
    closed,
    sine_position,
)
from lpmoe_bench.model.decoders.names import build_decoder, get_decoder
from lpmoe_bench.model.losses import get_loss
from lpmoe_bench.model.matching import matching_loss, truth_of_labels
from method_zoo.errors import ZooError
from method_zoo.method import Features
from method_zoo.options import get_method
from method_zoo.parts.deformable import places

STRIDES = [4, 8, 16, 32]


def mask2former(dim: int, classes: int = 1, **options: int) -> Mask2Former:
    torch.manual_seed(0)
    return Mask2Former(Inputs([dim // 4] * 4, STRIDES, dim), classes, **options).eval()


def size(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("dim", [192, 384, 1024])
def test_count_is_that_of_the_paper(dim: int):
    with torch.device("meta"):
        decoder = mask2former(dim)
    assert all(p.requires_grad for p in decoder.parameters())
    assert size(decoder) == 1_328_131 + 64 * dim
    assert size(decoder.queries) == 923_779


def test_count_of_its_options():
    with torch.device("meta"):
        more = mask2former(192, classes=4, queries=20, layers=3)
    # Four classes instead of object and background, 80 queries of two vectors less, six layers.
    layer = 2 * (4 * 64**2 + 4 * 64) + (2 * 64 * 512 + 512 + 64) + 3 * 2 * 64
    assert size(more.queries) == 923_779 + 2 * 65 - 80 * 2 * 64 - 6 * layer


def test_logit_is_the_share_of_the_object():
    decoder = mask2former(64, queries=2)
    # Labels (background, object, nothing) and constant masks of two queries.
    labels = torch.tensor([[[math.log(0.6), math.log(0.3), math.log(0.1)], [0.0, 0.0, 0.0]]])
    masks = torch.tensor([0.0, math.log(3)]).view(1, 2, 1, 1).expand(1, 2, 8, 8)
    decoder.queries.forward = lambda *_: (labels, masks)
    maps = [torch.zeros(1, 16, 64 // s, 64 // s) for s in STRIDES]
    logits = decoder(Features(maps, maps[0], torch.zeros(())))
    background = 0.6 * 0.5 + 0.75 / 3
    thing = 0.3 * 0.5 + 0.75 / 3
    expected = torch.full((1, 1, 8, 8), math.log(thing / background))
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(
        logits.sigmoid(), torch.full_like(logits, thing / (thing + background)), atol=1e-5, rtol=0
    )


def test_in_training_every_layer_is_supervised():
    decoder = mask2former(64, classes=2, queries=5, layers=3)
    maps = [torch.randn(2, 16, 64 // s, 64 // s) for s in STRIDES]
    features = Features(maps, maps[0], torch.zeros(()))
    last, each = decoder(features), decoder.train()(features)
    assert each.shape == (4 * 2, 2, 16, 16)
    torch.testing.assert_close(each[-2:], last)
    assert not torch.allclose(each[:2], last, atol=1e-3)
    masks = torch.rand(2, 2, 16, 16).round()
    loss = get_loss("bce_dice")
    alone = [loss(part, masks) for part in each.split(2)]
    torch.testing.assert_close(loss(each, masks), torch.stack(alone).mean())


def test_on_a_plain_vit_it_makes_its_own_pyramid():
    torch.manual_seed(0)
    decoder = Mask2Former(Inputs([48] * 4, [16] * 4, 48), 1, queries=5, layers=2).eval()
    maps = [torch.randn(2, 48, 4, 6) for _ in range(4)]
    assert decoder(Features(maps, maps[0], torch.zeros(()))).shape == (2, 1, 16, 24)
    with torch.device("meta"):  # all else is as if the method had given maps of this width
        native = mask2former(256, queries=5, layers=2)
    assert size(decoder) == size(decoder.pyramid) + size(native)


def test_several_classes_are_matched_in_every_layer():
    decoder = mask2former(64, classes=2, queries=5, layers=3, points=200).train()
    maps = [torch.randn(2, 16, 64 // s, 64 // s) for s in STRIDES]
    features = Features(maps, maps[0], torch.zeros(()))
    target = torch.zeros(2, 64, 64, dtype=torch.int64)
    target[0, :30] = 1
    decoder.train_with("matching", "semantic")
    torch.manual_seed(3)
    loss = decoder.loss(features, target, (64, 64))
    labels, masks = decoder.queries_of(features)
    assert len(labels) == (1 + 3) * 2  # the start and every layer
    torch.manual_seed(3)
    truth = truth_of_labels(target)
    each = [
        matching_loss(label, mask, truth, 200)
        for label, mask in zip(labels.split(2), masks.split(2), strict=True)
    ]
    torch.testing.assert_close(loss, torch.stack(each).sum())
    # With another loss the logits of each are trained, and the loss is their mean.
    decoder.train_with("ce_dice", "semantic")
    mean = get_loss("ce_dice", "semantic")(decoder.predict(features, (64, 64)), target)
    torch.testing.assert_close(decoder.loss(features, target, (64, 64)), mean)
    with pytest.raises(UsageError, match="class_weights are not for loss matching"):
        decoder.train_with("matching", "semantic", [1, 2])
    with pytest.raises(UsageError, match="is for semantic, instance and panoptic tasks, but this"):
        decoder.train_with("matching", "binary")
    with pytest.raises(UsageError, match="matching tells classes apart, but this task has one"):
        mask2former(64, classes=1).train_with("matching", "semantic")


def test_queries_look_only_where_their_mask_was():
    masks = torch.tensor([[[[1.0, -1.0], [2.0, -3.0]], [[-1.0, -1.0], [-2.0, -0.1]]]])
    blocked = closed(masks.requires_grad_(), (2, 2))
    # The second query has no place left and may look everywhere.
    assert blocked.tolist() == [[[False, True, False, True], [False] * 4]]
    assert not blocked.requires_grad
    coarse = closed(torch.tensor([[[[3.0, 3.0, -1.0, -1.0]] * 2, [[1.0] * 4] * 2]]), (1, 2))
    assert coarse.tolist() == [[[False, True], [False, False]]]


def test_blocked_places_have_no_influence():
    decoder = mask2former(64, layers=1)
    levels = [torch.randn(1, 64, n, n) for n in (2, 4, 8)]
    feature = torch.randn(1, 64, 16, 16)
    masks = decoder.queries._masks(decoder.queries.query.weight[None], feature)
    blocked = closed(masks, (2, 2))[0]
    alone = int(blocked.sum(1).argmax())  # a query that may not look everywhere
    assert blocked[alone].any()
    place = int(blocked[alone].nonzero()[0])
    changed = levels[0].clone()
    changed.view(1, 64, 4)[:, :, place] += 5
    layer = decoder.queries.layers[0]
    x = decoder.queries.query.weight[None]
    read = [
        layer.cross(x, m, m, None, False, closed(masks, (2, 2)).repeat_interleave(8, 0))[0][0]
        for m in (v.flatten(2).transpose(1, 2) for v in (levels[0], changed))
    ]
    assert torch.equal(read[0][alone], read[1][alone])
    free = int((~blocked[:, place]).nonzero()[0])
    assert not torch.equal(read[0][free], read[1][free])


def test_sine_position_by_hand():
    got = sine_position((2, 4), 8, torch.zeros(()))
    assert got.shape == (8, 2, 4)
    # Two frequencies an axis: 1 and 1 / 100. Rows end at 2 pi, columns a quarter of a turn apart.
    row, column = math.pi, 1.5 * math.pi  # the first of two rows, the third of four columns
    angles = [row, row, row / 100, row / 100, column, column, column / 100, column / 100]
    expected = [math.cos(a) if k % 2 else math.sin(a) for k, a in enumerate(angles)]
    torch.testing.assert_close(got[:, 0, 2], torch.tensor(expected), atol=1e-5, rtol=0)


def test_deformable_attention_starts_as_the_mean_of_a_star():
    layer = DeformableLayer(64)
    grids = [(1, 1), (2, 2), (9, 9)]
    where = places(grids, torch.zeros(()))
    x = torch.zeros(1, 86, 64)
    x[:, 5:] = torch.arange(81.0)[:, None] / 81  # a ramp over the finest level alone
    for linear in (layer.value, layer.output):
        torch.nn.init.eye_(linear.weight)
    middle = 5 + 40
    read = layer._attention(x, x, where)[0, middle]
    # Head 0 looks right, four steps of one cell each; the ramp rises by one a cell. Of three
    # levels one is not zero.
    expected = sum(40 + k for k in range(1, 5)) / 81 / 4 / 3
    torch.testing.assert_close(read[:8], torch.full((8,), expected), atol=1e-6, rtol=0)
    # Head 2 looks down, where the ramp rises by nine.
    down = sum(40 + 9 * k for k in range(1, 5)) / 81 / 4 / 3
    torch.testing.assert_close(read[16:24], torch.full((8,), down), atol=1e-6, rtol=0)


def test_other_pyramids_and_options_are_refused():
    with pytest.raises(UsageError, match=r"gives 8, 16, 32, 64; use another decoder such as fpn"):
        Mask2Former(Inputs([48] * 4, [8, 16, 32, 64], 48), 1)
    with pytest.raises(UsageError, match="option points of decoder Mask2Former is for tasks of"):
        mask2former(64, points=99).train_with("structure")
    with pytest.raises(UsageError, match="multiple of 32"):
        mask2former(64, width=48)
    with pytest.raises(UsageError, match="queries is 0"):
        mask2former(64, queries=0)
    with pytest.raises(ZooError, match="did you mean 'mask2former'"):
        get_decoder("maskformer")


def test_linear_by_hand():
    decoder = Linear(Inputs([2], [16], 2), classes=2)
    with torch.no_grad():
        decoder.logits.weight.copy_(torch.tensor([[1.0, 2.0], [0.0, -1.0]]).view(2, 2, 1, 1))
        decoder.logits.bias.copy_(torch.tensor([0.5, 0.0]))
    final = torch.tensor([[[[1.0, 3.0]], [[2.0, -1.0]]]])
    logits = decoder(Features([], final, torch.zeros(())))
    assert logits.tolist() == [[[[5.5, 1.5]], [[-2.0, 1.0]]]]


def test_queries_of_the_method_take_the_place_of_its_own():
    torch.manual_seed(0)
    inputs = Inputs([48] * 4, [16] * 4, 48, queries=(5, 64))
    decoder = Mask2Former(inputs, 1, queries=5, layers=2).eval()
    own = Mask2Former(inputs._replace(queries=None), 1, queries=5, layers=2)
    assert size(decoder) == size(own) - 2 * 5 * 64 + 64**2 + 64
    maps, given = [torch.randn(2, 48, 4, 6) for _ in range(4)], torch.randn(5, 64)
    features = Features(maps, maps[0], torch.zeros(()), given)
    # They are the places, and what starts is a layer's: as learned ones of these numbers.
    state = {k: v for k, v in decoder.state_dict().items() if not k.startswith("queries.query.")}
    state["queries.query.weight"] = decoder.queries.query(given)
    own.load_state_dict(state | {"queries.query_position.weight": given})
    assert torch.equal(decoder(features), own.eval()(features))


def test_another_number_or_width_of_queries_is_refused():
    inputs = Inputs([48] * 4, [16] * 4, 48, queries=(5, 64))
    with pytest.raises(UsageError, match=r"gives 5 queries of width 64, but .* 100 of width 64"):
        Mask2Former(inputs, 1)


def test_a_decoder_without_queries_refuses_a_method_that_gives_them():
    method = get_method("rein")(tiny_backbone(), queries=64)
    with pytest.raises(ZooError, match="Rein gives queries, which decoder fpn does not take"):
        build_decoder("fpn", method, 1)
    build_decoder("mask2former", method, 1)
