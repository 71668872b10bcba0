"""What every head of label maps promises: its loss, gradients, void, batches, learning."""

import pytest
import torch
from test_decoders import features, segmenter, trained
from tiny_runs import corners
from torch import Tensor, nn
from torch.optim import AdamW

from lpmoe_bench.cli.lists import description, listing
from lpmoe_bench.config.settings import LOSSES
from lpmoe_bench.data.registry import load_registry
from lpmoe_bench.errors import UsageError
from lpmoe_bench.model.costs import count_flops
from lpmoe_bench.model.decoders.decoder import Decoder, Inputs
from lpmoe_bench.model.decoders.names import get_decoder, list_decoders
from lpmoe_bench.model.label_losses import VOID
from method_zoo.method import Features
from method_zoo.options import signature_options

HEADS = [name for name in list_decoders() if "semantic" in get_decoder(name).kinds]
every = pytest.mark.parametrize("name", HEADS)
SIZE = (64, 96)


def head(name: str, classes: int = 3, loss: str = "", seed: int = 0) -> Decoder:
    """A head that is trained with a loss, its own by default; in training mode."""
    decoder = segmenter(name, classes, seed).decoder
    decoder.train_with(loss or decoder.losses.get("semantic", "ce_dice"), "semantic")
    return decoder.train()


def labels(classes: int = 3, size: tuple[int, int] = SIZE) -> Tensor:
    generator = torch.Generator().manual_seed(4)
    coarse = torch.randint(classes, (2, 1, size[0] // 16, size[1] // 16), generator=generator)
    found = coarse.repeat_interleave(16, 2).repeat_interleave(16, 3)[:, 0]
    found[0, :5] = VOID
    return found


def loss_of(decoder: Decoder, given: Features, targets: Tensor, seed: int = 7) -> Tensor:
    torch.manual_seed(seed)  # of dropout, and of the points of the matching loss
    return decoder.loss(given, targets, targets.shape[-2:])


@every
def test_it_names_kinds_and_losses_that_exist(name: str):
    cls = get_decoder(name)
    for kind, loss in cls.losses.items():
        assert kind in cls.kinds
        assert kind in LOSSES[loss].kinds
    known = signature_options(cls)
    assert all(known[key] == value for key, value in cls.later_options.items())
    named = dict(description(name, load_registry()))
    assert named["serves"].startswith("binary, semantic")
    assert "semantic" in dict(listing("decoders", load_registry(), None))[name]


@every
@pytest.mark.parametrize("loss", ["", "ce_dice"])
def test_everything_that_trains_gets_a_gradient(name: str, loss: str):
    if (name, loss) == ("sam", "ce_dice"):
        with pytest.raises(UsageError, match="its equal tokens stay equal"):
            head(name, loss=loss)
        return
    decoder, given = head(name, loss=loss), features(segmenter(name))
    # Half the way to another one, for what starts at zero hides the gradient of others.
    other = trained(head(name, loss=loss, seed=1))
    with torch.no_grad():
        for key, parameter in trained(decoder).items():
            parameter.add_(0.5 * other[key] + 0.01 * torch.randn_like(parameter))
    value = loss_of(decoder, given, labels())
    value.backward()
    assert value.shape == ()
    assert value.dtype is torch.float32
    assert not [k for k, p in trained(decoder).items() if p.grad is None or not p.grad.any()]
    assert not [k for k, p in decoder.named_parameters() if k not in trained(decoder) and p.grad]


@every
@pytest.mark.parametrize("what", ["void", "one class", "one pixel", "many"])
def test_strange_labels_give_a_number_and_finite_gradients(name: str, what: str):
    classes = 150 if what == "many" else 3
    decoder, given, target = head(name, classes), features(segmenter(name)), labels(classes)
    if what == "void":
        target[:] = VOID
    elif what == "one class":
        target[:] = 2
    elif what == "one pixel":
        target[:], target[1, 3, 5] = VOID, 1
    value = loss_of(decoder, given, target)
    value.backward()
    grads = [p.grad for p in trained(decoder).values() if p.grad is not None]
    assert grads
    assert all(bool(g.isfinite().all()) for g in grads)
    assert bool(value.isfinite())
    assert (value.item() == 0) == (what == "void")
    assert any(bool(g.any()) for g in grads) == (what != "void")


@every
def test_equal_draws_give_equal_losses_and_void_is_left_out(name: str):
    decoder, given = head(name), features(segmenter(name))
    found = loss_of(decoder, given, labels())
    again = loss_of(decoder, given, labels())
    assert torch.equal(found, again)
    other = labels()
    other[1, 20:30] = VOID
    assert not torch.equal(loss_of(decoder, given, other), found)


@every
def test_micro_batches_add_up_where_it_says_so(name: str):
    decoder, given = head(name), features(segmenter(name))
    if decoder.batch_statistics:
        decoder.eval()  # which leaves dropout out too
    target = labels()
    target[1] = target[1].clamp(max=1)  # not as many classes in both
    whole = loss_of(decoder, given, target)
    parts = []
    for k in range(2):
        one = given._replace(maps=[m[k : k + 1] for m in given.maps], final=given.final[k : k + 1])
        parts.append(loss_of(decoder, one, target[k : k + 1]))
    own = decoder.losses.get("semantic", "ce_dice")
    together = torch.allclose(sum(parts) / 2, whole, rtol=1e-4)
    assert together == (not decoder.depends_on_batch(own, {}) or decoder.batch_statistics)
    assert type(decoder).depends_on_batch("structure", {}) == (
        "normalises over the batch" if decoder.batch_statistics else ""
    )


@every
def test_half_precision_is_close(name: str):
    decoder, given = head(name), features(segmenter(name))
    exact = loss_of(decoder, given, labels())
    with torch.autocast("cpu", torch.bfloat16):
        value = loss_of(decoder, given, labels())
    value.backward()
    assert value.dtype is torch.float32
    assert value.item() == pytest.approx(exact.item(), rel=0.05)
    assert all(p.dtype is torch.float32 for p in decoder.parameters())


@every
def test_it_can_be_counted_without_weights(name: str):
    with torch.device("meta"):
        model = segmenter(name, 5).to("meta")
    counted = count_flops(model, (64, 96))
    assert 0 < counted.forward < counted.training


@every
def test_other_strides_are_served_or_refused(name: str):
    cls = get_decoder(name)
    torch.manual_seed(0)
    given = Features([torch.randn(1, 24, s, s) for s in (8, 4, 2, 1)], torch.randn(1, 24, 2, 2), 0)
    with torch.no_grad():
        native = cls(Inputs([24] * 4, [8, 16, 32, 64], 24), 3) if name == "fpn" else None
    if native is not None:
        assert native.eval().predict(given, (64, 64)).shape == (1, 3, 64, 64)
    elif cls.reads == "maps":
        with pytest.raises(UsageError, match="gives 8, 16, 32, 64; use another"):
            cls(Inputs([24] * 4, [8, 16, 32, 64], 24), 3)


def drawn_labels() -> tuple[Tensor, Tensor]:
    """Four images with a bright square in another corner; its class is that of its colour."""
    images, masks = corners()
    target = masks[:, 0].long()
    for k in (1, 3):
        images[k, 0] *= 0.2
        target[k] *= 2
    target[:, :2] = VOID
    return images, target


@every
def test_four_label_maps_are_learnt_by_heart(name: str):
    model, (images, target) = segmenter(name, 3), drawn_labels()
    with torch.no_grad():  # the method is left as it is: the head learns alone
        given = model.method(images)
    decoder = model.decoder.train()
    decoder.points = 256  # of the heads that have such: as many as the maps have cells
    with torch.no_grad():  # tokens that all start alike take a hundred steps to part
        for module in decoder.modules():
            if isinstance(module, nn.Embedding):
                module.weight.add_(torch.randn_like(module.weight))
    decoder.train_with(decoder.losses.get("semantic", "ce_dice"), "semantic")
    parameters = list(trained(decoder).values())
    optimizer = AdamW(parameters, lr=1e-3)
    for step in range(60):
        optimizer.zero_grad()
        loss_of(decoder, given, target, seed=step).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)  # as training does by default
        optimizer.step()
        if step % 5 == 4 and agreement(decoder, given, target) > 0.9:
            break
    assert agreement(decoder, given, target) > 0.9


@torch.no_grad()
def agreement(decoder: Decoder, given: Features, target: Tensor) -> float:
    """The share of labelled pixels whose class is found, classes weighing the same."""
    decoder.eval()
    found = decoder.predict(given, target.shape[-2:]).argmax(1)
    decoder.train()
    shares = [(found == target)[target == k].float().mean() for k in range(3)]
    return torch.stack(shares).mean().item()
