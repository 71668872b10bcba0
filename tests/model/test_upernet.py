"""UperNet: its printed counts, transformers' numbers, its auxiliary head; and the pyramid."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lpmoe_bench.errors import UsageError
from lpmoe_bench.model.decoders.decoder import Inputs
from lpmoe_bench.model.decoders.pyramid import SimplePyramid
from lpmoe_bench.model.decoders.upernet import UperNet
from lpmoe_bench.model.losses import get_loss
from method_zoo.method import Features

STRIDES = [4, 8, 16, 32]
CHANNELS = [8, 16, 24, 40]


def upernet(classes: int = 3, seed: int = 0, **options) -> UperNet:
    torch.manual_seed(seed)
    return UperNet(Inputs(CHANNELS, STRIDES, 40), classes, **({"width": 32} | options))


def maps(images: int = 2, size: tuple[int, int] = (64, 96)) -> Features:
    generator = torch.Generator().manual_seed(1)
    found = [
        torch.randn(images, c, size[0] // s, size[1] // s, generator=generator)
        for c, s in zip(CHANNELS, STRIDES, strict=True)
    ]
    return Features(found, found[-1], torch.zeros(()))


def size(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


@pytest.mark.parametrize(
    ("channels", "count"),
    [
        ([192] * 4, 28_095_788),
        ([384] * 4, 30_111_020),
        ([768] * 4, 34_141_484),
        ([1024] * 4, 36_828_460),
        ([128, 256, 512, 1024], 34_534_700),
        ([192, 384, 768, 1536], 38_761_772),
    ],
)
def test_counts_of_150_classes(channels: list[int], count: int):
    with torch.device("meta"):
        assert size(UperNet(Inputs(channels, STRIDES, 0), 150)) == count
        # A norm has as many parameters, whatever it normalises over.
        assert size(UperNet(Inputs(channels, STRIDES, 0), 150, norm="group")) == count


def test_it_is_transformers_head_and_auxiliary_head():
    pytest.importorskip("transformers")
    from transformers.models.upernet.modeling_upernet import UperNetFCNHead, UperNetHead

    config = SimpleNamespace(
        pool_scales=(1, 2, 3, 6),
        hidden_size=32,
        num_labels=3,
        auxiliary_in_channels=None,
        auxiliary_channels=256,
        auxiliary_num_convs=1,
        auxiliary_concat_input=False,
    )
    torch.manual_seed(2)
    theirs, beside = UperNetHead(config, CHANNELS), UperNetFCNHead(config, CHANNELS)
    ours, given = upernet(), maps()
    parts = {
        "pooled": nn.ModuleList(block.layers[1] for block in theirs.psp_modules.blocks),
        "bottleneck": theirs.bottleneck,
        "lateral": theirs.lateral_convs,
        "smooth": theirs.fpn_convs,
        "fuse": theirs.fpn_bottleneck,
        "logits": theirs.classifier,
        "auxiliary": beside,
    }
    with torch.no_grad():
        for name, part in parts.items():
            own = list(getattr(ours, name).parameters())
            assert len(own) == len(list(part.parameters()))
            for one, other in zip(own, part.parameters(), strict=True):
                one.copy_(other)
    for training in (True, False):  # in training norms look at the batch
        for model in (ours, theirs, beside):
            model.train(training)
        ours.logits[0].eval(), ours.auxiliary[1][0].eval()  # theirs drops nothing
        both = ours.predict(given, (64, 96))
        expected = [theirs(given.maps), beside(given.maps)][: len(both) // 2]
        expected = [F.interpolate(one, (64, 96), mode="bilinear") for one in expected]
        torch.testing.assert_close(both, torch.cat(expected), atol=1e-5, rtol=1e-5)


def test_the_auxiliary_loss_weighs_four_tenths():
    head, given = upernet(norm="group"), maps()
    head.train_with("ce_dice", "semantic")
    target = torch.randint(3, (2, 64, 96), generator=torch.Generator().manual_seed(0))
    torch.manual_seed(3)
    loss = head.loss(given, target, (64, 96))
    torch.manual_seed(3)
    main, auxiliary = head.predict(given, (64, 96)).split(2)
    alone = get_loss("ce_dice", "semantic")
    torch.testing.assert_close(loss, alone(main, target) + 0.4 * alone(auxiliary, target))
    head.eval()  # the auxiliary head is silent
    main = head.predict(given, (64, 96))
    torch.testing.assert_close(head.loss(given, target, (64, 96)), alone(main, target))


def test_batch_norm_looks_at_the_batch_and_group_norm_does_not():
    given, other = maps(), maps()
    other.maps[3][1] += 3
    for norm, alike in (("batch", False), ("group", True)):
        head = upernet(norm=norm)
        head.logits[0].eval()
        found = [head(one)[0] for one in (given, other)]
        assert torch.equal(*found) == alike
    assert UperNet.depends_on_batch("ce_dice", {"norm": "batch"}) == "normalises over the batch"
    assert UperNet.depends_on_batch("ce_dice", {}) == "normalises over the batch"
    assert UperNet.depends_on_batch("ce_dice", {"norm": "group"}) == ""


def test_wrong_options_are_one_sentence():
    with pytest.raises(UsageError, match="width is 48; it must be a multiple of 32"):
        upernet(width=48)
    with pytest.raises(UsageError, match="norm is 'layer'; allowed are batch and group"):
        upernet(norm="layer")


# The pyramid that several decoders read.


def test_native_strides_pass_as_they_are_and_draw_nothing():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    pyramid = SimplePyramid(Inputs(CHANNELS, STRIDES, 0), 16, "mine")
    assert torch.equal(torch.get_rng_state(), before)
    assert pyramid.channels == CHANNELS
    assert not pyramid.state_dict()
    given = maps().maps
    assert all(one is other for one, other in zip(pyramid(given), given, strict=True))


def test_a_plain_vit_gets_four_strides_with_its_counts():
    width, dim = 16, 24
    torch.manual_seed(0)
    pyramid = SimplePyramid(Inputs([dim] * 4, [16] * 4, 0), width, "mine")
    norm = 2 * width
    lateral = 4 * (dim * width + norm)
    up = 2 * (4 * width * width + width + norm)
    assert size(pyramid) == lateral + up + 4 * (9 * width * width + norm)
    given = [torch.randn(2, dim, 4, 6, requires_grad=True) for _ in range(4)]
    found = pyramid(given)
    assert [tuple(m.shape) for m in found] == [
        (2, width, 16, 24),
        (2, width, 8, 12),
        (2, width, 4, 6),
        (2, width, 2, 3),
    ]
    torch.stack([m.square().mean() for m in found]).sum().backward()
    assert all(isinstance(m.grad, Tensor) and m.grad.any() for m in given)
    wide = pyramid([torch.randn(1, dim, 2, 8) for _ in range(4)])
    assert [tuple(m.shape[-2:]) for m in wide] == [(8, 32), (4, 16), (2, 8), (1, 4)]


def test_other_strides_are_refused():
    with pytest.raises(UsageError, match=r"decoder mine reads .* gives 8, 16, 16, 16; use another"):
        SimplePyramid(Inputs([8] * 4, [8, 16, 16, 16], 0), 16, "mine")
