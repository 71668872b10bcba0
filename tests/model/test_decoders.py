"""What every decoder of maps promises: shapes, gradients, state, precision, learning.

None is named. Heads of objects have promises of their own, in test_object_heads.
"""

import copy

import pytest
import torch
from conftest import tiny_backbone
from tiny_runs import corners
from torch import Tensor
from torch.optim import AdamW

from lpmoe_bench.cli.lists import description, listing
from lpmoe_bench.data.registry import load_registry
from lpmoe_bench.errors import UsageError
from lpmoe_bench.model.decoders.decoder import Decoder
from lpmoe_bench.model.decoders.names import build_decoder, get_decoder, list_decoders
from lpmoe_bench.model.losses import get_loss
from lpmoe_bench.model.segmenter import Segmenter
from method_zoo.errors import ZooError
from method_zoo.method import Features
from method_zoo.options import get_method, signature_options

MAPS = [name for name in list_decoders() if "binary" in get_decoder(name).kinds]
pytestmark = pytest.mark.parametrize("name", MAPS)


RUNNING = ("running_mean", "running_var", "num_batches_tracked")  # of norms over the batch
SMALL = {"queries": 12, "layers": 3}  # of the decoders that have such options


def segmenter(name: str, classes: int = 1, seed: int = 0) -> Segmenter:
    """A decoder on a plain frozen backbone, or on lpmoe where it needs a pyramid; in eval mode."""
    known = signature_options(get_decoder(name))
    options = {k: v for k, v in SMALL.items() if k in known}
    if int(known.get("width", 0)) > 64:  # wider ones would take seconds
        options["width"] = 64
    torch.manual_seed(seed)
    method = get_method("decoder_only")(tiny_backbone())
    try:
        decoder = build_decoder(name, method, classes, options)
    except UsageError:
        method = get_method("lpmoe")(tiny_backbone())
        torch.manual_seed(seed)
        decoder = build_decoder(name, method, classes, options)
    return Segmenter(method, decoder).eval()


def image(height: int = 64, width: int = 96) -> Tensor:
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0))


def features(model: Segmenter) -> Features:
    """Features without gradient, so that a decoder is seen alone."""
    with torch.no_grad():
        return model.method(image())


def trained(decoder: Decoder) -> dict[str, Tensor]:
    return {name: p for name, p in decoder.named_parameters() if p.requires_grad}


def test_it_describes_itself(name: str):
    decoder = get_decoder(name)
    assert decoder.reads in ("maps", "final")
    assert decoder.title
    facts = description(name, load_registry())
    named = dict(facts)
    assert (named["decoder"], named["title"]) == (name, decoder.title)
    assert named["fidelity"] == decoder.fidelity
    assert {"about", "reads", "options", "starts from"} <= named.keys()
    line = dict(listing("decoders", load_registry(), None))[name]
    assert named["about"].startswith(line.rpartition(" (")[0])


@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("size", [(64, 96), (96, 32)])
def test_logits_are_as_large_as_the_image(name: str, classes: int, size: tuple[int, int]):
    with torch.no_grad():
        logits = segmenter(name, classes)(image(*size))
    assert logits.shape == (2, classes, *size)
    assert bool(logits.isfinite().all())


def test_it_reads_what_it_says_and_nothing_else(name: str):
    model = segmenter(name)
    given = features(model)
    hidden = given._replace(maps=[]) if model.decoder.reads == "final" else given._replace(final=0)
    assert torch.equal(model.decoder(hidden), model.decoder(given))
    other = Features([m.flip(2) for m in given.maps], given.final.flip(2), given.aux)
    assert not torch.equal(model.decoder(other), model.decoder(given))


@pytest.mark.parametrize("classes", [1, 3])
def test_what_trains_learns_and_what_is_frozen_stays(name: str, classes: int):
    model = segmenter(name, classes)
    decoder, given = model.decoder, features(model)
    before = {k: v.clone() for k, v in decoder.state_dict().items()}
    # Half the way to another decoder, for what starts at zero hides the gradient of others.
    other = dict(segmenter(name, classes, seed=1).decoder.named_parameters())
    with torch.no_grad():
        for key, parameter in trained(decoder).items():
            parameter.add_(0.5 * other[key] + 0.01 * torch.randn_like(parameter))
    logits = decoder.train().predict(given, (64, 96))  # in training all of its outputs speak
    (logits * torch.randn(logits.shape)).sum().backward()
    idle = [k for k, p in trained(decoder).items() if p.grad is None or not p.grad.any()]
    assert not idle
    AdamW(decoder.parameters(), lr=0.1, weight_decay=0.5).step()
    names = trained(decoder)
    for key, tensor in decoder.state_dict().items():
        if not key.endswith(RUNNING):
            assert torch.equal(tensor, before[key]) == (key not in names), key


@pytest.mark.parametrize("classes", [1, 3])
def test_a_saved_state_gives_the_same_logits(name: str, classes: int):
    # Other draws, frozen ones included: the state alone must make them equal.
    one, other = segmenter(name, classes, seed=1), segmenter(name, classes, seed=2)
    assert not torch.equal(one.decoder(features(one)), other.decoder(features(one)))
    state = {k: v.clone() for k, v in one.state().items()}
    other.load_state(state)
    assert torch.equal(one(image()), other(image()))
    cut = {k: v for k, v in state.items() if k != next(k for k in state if k.startswith("decoder"))}
    with pytest.raises(ZooError, match="same decoder options"):
        other.load_state(cut)


def test_it_starts_alike_from_a_seed_and_keeps_no_memory(name: str):
    one, other = segmenter(name), segmenter(name)
    given = features(one)
    first = one.decoder(given)
    assert torch.equal(first, other.decoder(given))
    before = {k: v.clone() for k, v in one.decoder.state_dict().items()}
    one.decoder(given._replace(maps=[m.flip(0) for m in given.maps], final=given.final.flip(0)))
    assert torch.equal(one.decoder(given), first)
    assert all(torch.equal(v, before[k]) for k, v in one.decoder.state_dict().items())


def test_a_prediction_does_not_depend_on_its_neighbours(name: str):
    model = segmenter(name)
    given = features(model)
    with torch.no_grad():
        together = model.decoder(given)
        for k in range(2):
            one = Features([m[k : k + 1] for m in given.maps], given.final[k : k + 1], given.aux)
            torch.testing.assert_close(
                model.decoder(one), together[k : k + 1], atol=1e-4, rtol=1e-4
            )


def test_half_precision_is_close_and_keeps_its_parameters(name: str):
    model = segmenter(name)
    decoder, given = model.decoder, features(model)
    exact = decoder(given)
    with torch.autocast("cpu", torch.bfloat16):
        logits = decoder(given)
    logits.float().sum().backward()
    assert bool(logits.isfinite().all())
    assert all(p.dtype is torch.float32 for p in decoder.parameters())
    grads = [p.grad for p in decoder.parameters() if p.grad is not None]
    assert all(bool(g.isfinite().all()) for g in grads)
    # Eight bits of mantissa through all layers; a place or a sum computed in them is far off.
    error = (logits - exact).square().mean().sqrt() / exact.std()
    assert error < 0.15


def test_it_can_be_counted_without_weights(name: str):
    with torch.device("meta"):
        model = segmenter(name)
        model.method.backbone.to("meta")
        method = copy.deepcopy(model.method).to("meta")
        logits = Segmenter(method, model.decoder)(image())
    assert logits.is_meta
    assert logits.shape == (2, 1, 64, 96)


def test_four_images_are_learnt_by_heart(name: str):
    model, (images, masks) = segmenter(name), corners()
    with torch.no_grad():  # the method is left as it is: the decoder learns alone
        given = model.method(images)
    model.decoder.train()
    parameters = list(trained(model.decoder).values())
    optimizer = AdamW(parameters, lr=2e-3)
    losses = []
    for _ in range(40):
        logits = torch.nn.functional.interpolate(model.decoder(given), (64, 64), mode="bilinear")
        loss = get_loss("structure")(logits, masks)
        losses.append(loss.item())
        if losses[-1] < 0.5 * losses[0]:
            break  # the rest would take time and show no more
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)  # as training does by default
        optimizer.step()
    assert min(losses) < 0.5 * losses[0]
