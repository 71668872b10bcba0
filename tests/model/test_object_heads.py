"""What every head of objects promises: its loss, gradients, strange images, batches, learning."""

import copy
import warnings

import pytest
import torch
from conftest import shake, tiny_backbone
from drawn_targets import CHANNELS, SIDE, STRIDES, drawn_targets, shown, target_of, truth_of
from torch import Tensor, nn
from torch.optim import AdamW

from lpmoe_bench.cli.lists import description, listing
from lpmoe_bench.config.settings import LOSSES
from lpmoe_bench.data.registry import load_registry
from lpmoe_bench.data.targets import Found, Segmented, Target
from lpmoe_bench.errors import UsageError
from lpmoe_bench.inference.objects import settle_objects, settle_panoptic
from lpmoe_bench.metrics.objects import COCO_BOXES, COCO_MASKS, ObjectScorer
from lpmoe_bench.metrics.panoptic import COCO_PANOPTIC, PanopticScorer
from lpmoe_bench.model import matching
from lpmoe_bench.model.costs import count_flops
from lpmoe_bench.model.decoders.decoder import Head, Inputs
from lpmoe_bench.model.decoders.names import build_decoder, get_decoder, list_decoders
from lpmoe_bench.model.segmenter import Segmenter
from method_zoo.errors import ZooError
from method_zoo.method import Features
from method_zoo.options import get_method, signature_options

KINDS = ("detection", "instance", "panoptic")
HEADS = [(name, k) for name in list_decoders() for k in get_decoder(name).kinds if k in KINDS]
every = pytest.mark.parametrize(("name", "kind"), HEADS)
SMALL = {"hidden": 32, "regions": 32, "anchor": 4}  # of the heads that have such options
SMALL |= {"queries": 12, "layers": 3, "pixel_layers": 1, "points": 256}


def head(name: str, kind: str, classes: int = 4, seed: int = 0, **options) -> Head:
    """A small head on strides 4 to 32 that is trained with its own loss; in training mode."""
    cls = get_decoder(name)
    known = signature_options(cls)
    torch.manual_seed(seed)
    given = {k: v for k, v in SMALL.items() if k in known} | {"width": 32} | options
    built = cls(Inputs([CHANNELS] * 4, list(STRIDES), CHANNELS), classes, **given)  # type: ignore[call-arg]
    built.train_with(built.losses[kind], kind)
    return built.train()


def drawn(kind: str, images: int = 2, side: int = SIDE) -> list[Target]:
    return drawn_targets(images, side, stuff=kind == "panoptic")


def loss_of(built: Head, given: Features, targets: list[Target], seed: int = 7) -> Tensor:
    torch.manual_seed(seed)  # of what is sampled
    return built.loss(given, targets, targets[0].size)


def tensors_of(found: Found | Segmented) -> dict[str, Tensor]:
    return {k: v for k, v in found._asdict().items() if isinstance(v, Tensor)}


def part_of(given: Features, k: int) -> Features:
    maps = [m[k : k + 1] for m in given.maps]
    return given._replace(maps=maps, final=given.final[k : k + 1])


def teach(built: Head, given: Features, targets: list[Target], steps: int, lr=2e-3) -> list[float]:
    optimizer = AdamW(built.parameters(), lr=lr)
    losses = []
    for step in range(steps):
        optimizer.zero_grad()
        loss = loss_of(built, given, targets, seed=step)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(built.parameters(), 10.0)
        optimizer.step()
        losses.append(loss.item())
    return losses


@every
def test_it_describes_itself(name: str, kind: str):
    cls = get_decoder(name)
    named = dict(description(name, load_registry()))
    assert (named["title"], named["fidelity"]) == (cls.title, cls.fidelity)
    assert kind in named["serves"]
    assert kind in dict(listing("decoders", load_registry(), None))[name]
    assert kind in LOSSES[cls.losses[kind]].kinds
    known = signature_options(cls)
    assert all(known[key] == value for key, value in cls.later_options.items())


@every
def test_the_loss_falls_and_everything_that_trains_gets_a_gradient(name: str, kind: str):
    targets = drawn(kind)
    built, given = head(name, kind), shown(targets)
    losses = teach(built, given, targets, 6)
    assert losses[-1] < 0.9 * losses[0]
    value = loss_of(built, given, targets)
    value.backward()
    assert (value.shape, value.dtype) == ((), torch.float32)
    assert not [k for k, p in built.named_parameters() if p.grad is None or not p.grad.any()]


@every
def test_gradients_reach_every_tensor_of_a_method_with_a_pyramid(name: str, kind: str):
    torch.manual_seed(0)
    method = get_method("lpmoe")(tiny_backbone())
    shake(method)  # what starts at zero hides others
    built = build_decoder(name, method, 4, {"width": 32} | small(name))
    built.train_with(built.losses[kind], kind)
    model = Segmenter(method, built)
    method.eval()  # stochastic depth may drop the one path to a tensor
    model(torch.rand(2, 3, SIDE, SIDE), drawn(kind)).backward()
    assert not [k for k, p in method.trainable().items() if p.grad is None or not p.grad.any()]


def small(name: str) -> dict[str, int]:
    return {k: v for k, v in SMALL.items() if k in signature_options(get_decoder(name))}


@every
@pytest.mark.parametrize("what", ["empty", "crowds", "pixel", "no width", "one empty", "400"])
def test_strange_images_give_a_number_and_finite_gradients(name: str, kind: str, what: str):
    targets = drawn(kind)
    given = shown(targets)
    none = torch.zeros(2, dtype=torch.bool)
    if what == "empty":
        targets = [target.only(none) for target in targets]
    elif what == "crowds":
        targets = [target._replace(crowd=~none) for target in targets]
    elif what == "pixel":
        mask = torch.zeros(1, SIDE, SIDE, dtype=torch.bool)
        mask[0, 9, 9] = True
        targets = [target_of(mask, [1]), targets[1]]
    elif what == "no width":
        boxes = targets[0].boxes.clone()
        boxes[0, 2] = boxes[0, 0]
        targets = [targets[0]._replace(boxes=boxes), targets[1]]
    elif what == "one empty":
        targets = [targets[0], targets[1].only(none)]
    else:
        cells = torch.zeros(400, SIDE, SIDE, dtype=torch.bool)
        for k in range(400):
            top, left = 3 * (k // 20), 3 * (k % 20)
            cells[k, top : top + 3, left : left + 3] = True
        targets = [target_of(cells, [k % 2 for k in range(400)]), targets[1]]
    targets[0] = targets[0]._replace(labels=drawn(kind)[0].labels)
    built = head(name, kind)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        value = loss_of(built, given, targets)
    assert bool(said) == (what == "400" and "queries" in signature_options(type(built)))
    assert all("holds more objects" in str(one.message) for one in said)
    value.backward()
    assert bool(value.isfinite())
    grads = [p.grad for p in built.parameters()]
    assert all(g is not None and bool(g.isfinite().all()) for g in grads)
    built.eval()
    with torch.no_grad():
        found = built.predict(given, (SIDE, SIDE))
    assert all(bool(t.isfinite().all()) for one in found for t in tensors_of(one).values())


@every
def test_equal_draws_give_equal_losses(name: str, kind: str):
    targets = drawn(kind)
    given = shown(targets)
    one, other = head(name, kind), head(name, kind)
    assert torch.equal(loss_of(one, given, targets), loss_of(other, given, targets))
    assert not torch.equal(loss_of(one, given, targets), loss_of(one, given, targets[::-1]))
    # What it was trained with leaves no trace beside the weights: a resumed run goes on alike.
    loss_of(one, shown(drawn(kind, side=96)), drawn(kind, side=96))
    assert torch.equal(loss_of(one, given, targets), loss_of(other, given, targets))


@every
def test_a_batch_is_kept_whole_and_says_why(name: str, kind: str):
    targets = drawn(kind)
    targets[1] = targets[1].only(torch.tensor([True, False]))
    built, given = head(name, kind), shown(targets)
    assert built.depends_on_batch(built.losses[kind], {}).startswith("divides by how many")
    examined = built.examine(given, targets, (SIDE, SIDE))
    assert len(examined.losses) == len(examined.outputs) == 2
    assert all(one.shape == () for one in examined.losses)


@every
def test_processes_add_up_to_the_whole_batch(name: str, kind: str, monkeypatch):
    targets = drawn(kind)
    targets[1] = targets[1].only(torch.tensor([True, False]))  # not as many in both
    built, given = head(name, kind), shown(targets)
    sample_everything(built, monkeypatch)
    whole = loss_of(built, given, targets)
    seen: list[list[Tensor]] = []
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda own: seen[-1].append(own.clone()))
    for k in range(2):
        seen.append([])
        loss_of(built, part_of(given, k), targets[k : k + 1])
    parts = []
    for k in range(2):
        sums = (one + other for one, other in zip(*seen, strict=True))
        monkeypatch.setattr(
            torch.distributed, "all_reduce", lambda own, it=sums: own.copy_(next(it))
        )
        parts.append(loss_of(built, part_of(given, k), targets[k : k + 1]))
    torch.testing.assert_close(sum(parts) / 2, whole, rtol=1e-4, atol=1e-4)


def sample_everything(built: Head, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave nothing to chance: all anchors and regions, and the same points everywhere."""
    for module in built.modules():
        if (sampler := getattr(module, "fg_bg_sampler", None)) is not None:
            sampler.batch_size_per_image, sampler.positive_fraction = 10_000, 0.5

    def places(count: int, points: int, counted: Tensor | None, like: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(points)
        return torch.rand(1, points, 2, generator=generator).expand(count, -1, -1)

    monkeypatch.setattr(matching, "_places", places)


@every
def test_half_precision_is_close(name: str, kind: str):
    targets = drawn(kind)
    built, given = head(name, kind), shown(targets)
    teach(built, given, targets, 3)
    exact = loss_of(built, given, targets)
    with torch.autocast("cpu", torch.bfloat16):
        value = loss_of(built, given, targets)
        built.eval()
        with torch.no_grad():
            found = built.predict(given, (SIDE, SIDE))
    value.backward()
    assert value.dtype is torch.float32
    assert value.item() == pytest.approx(exact.item(), rel=0.1)
    assert all(p.dtype is torch.float32 for p in built.parameters())
    for key, tensor in tensors_of(found[0]).items():
        assert tensor.dtype is (torch.int64 if key == "classes" else torch.float32), key


class Plain(nn.Module):
    """In the place of a method: four maps of stride 16."""

    def forward(self, image: Tensor) -> Features:
        h, w = image.shape[-2:]
        maps = [image.new_zeros(1, CHANNELS, h // 16, w // 16) for _ in range(4)]
        return Features(maps, maps[-1], image.new_zeros(()))


@every
def test_it_can_be_counted_without_weights(name: str, kind: str):
    with torch.device("meta"):
        built = get_decoder(name)(Inputs([CHANNELS] * 4, [16] * 4, CHANNELS), 5, **small(name))
        built.train_with(built.losses[kind], kind)
        model = Segmenter(Plain(), built)
    counted = count_flops(model, (64, 96))
    assert 2 * counted.forward < counted.training < 3 * counted.forward


@every
def test_other_strides_are_refused(name: str, kind: str):
    with pytest.raises(UsageError, match="gives 8, 16, 32, 64; use another"):
        get_decoder(name)(Inputs([24] * 4, [8, 16, 32, 64], 24), 3)  # type: ignore[call-arg]


@every
def test_other_losses_and_weights_of_classes_are_refused(name: str, kind: str):
    built = head(name, kind)
    with pytest.raises(UsageError, match="loss cross_entropy is for semantic tasks"):
        built.train_with("cross_entropy", kind)
    with pytest.raises(UsageError, match="class_weights are not for loss"):
        built.train_with(built.losses[kind], kind, [1.0, 2.0])


@every
def test_a_prediction_depends_on_its_own_image_and_the_state_alone(name: str, kind: str):
    targets = drawn(kind)
    built, given = head(name, kind), shown(targets)
    teach(built, given, targets, 4)
    other = head(name, kind, seed=3)
    other.load_state_dict(copy.deepcopy(built.state_dict()))
    built.eval(), other.eval()
    with torch.no_grad():
        both, again = built.predict(given, (SIDE, SIDE)), other.predict(given, (SIDE, SIDE))
        alone = [built.predict(part_of(given, k), (SIDE, SIDE))[0] for k in range(2)]
    for one, same, single in zip(both, again, alone, strict=True):
        for key, tensor in tensors_of(one).items():
            assert torch.equal(tensor, tensors_of(same)[key]), key
        torch.testing.assert_close(single.scores, one.scores, atol=1e-4, rtol=1e-3)
        if isinstance(one, Found):
            assert one.scores.tolist() == sorted(one.scores.tolist(), reverse=True)


BY_HEART = {
    "detection": {"box_ap50": 0.99},
    "instance": {"box_ap50": 0.99, "mask_ap50": 0.99, "mask_ap": 0.7},
    "panoptic": {"pq": 0.85},
}


def scored(built: Head, given: Features, targets: list[Target], kind: str) -> dict:
    """Scores of what is found, of images twice as high and three times as wide as the canvas."""
    built.eval()
    with torch.no_grad():
        found = built.predict(given, targets[0].size)
    if kind == "panoptic":
        scorer = PanopticScorer(COCO_PANOPTIC, list("abcd"), ["a", "b"])
    else:
        scorer = ObjectScorer(COCO_BOXES if kind == "detection" else COCO_MASKS, list("abcd"))
    for number, (one, target) in enumerate(zip(found, targets, strict=True)):
        large = target_of(
            target.masks.repeat_interleave(2, 1).repeat_interleave(3, 2), target.classes.tolist()
        )
        sizes = target.size, target.size, large.size
        if target.labels is not None:
            wide = target.labels.repeat_interleave(2, 0).repeat_interleave(3, 1)
            large = large._replace(labels=wide)
            pred = settle_panoptic(one, *sizes, [True, True, False, False])
        else:
            pred = settle_objects(one, *sizes, 100)
        scorer.add(f"i{number}", pred, truth_of(large), "drawn")
    built.train()
    return scorer.result().scores


def marks_of(name: str) -> list[pytest.MarkDecorator]:
    long = "regions" in signature_options(get_decoder(name))  # these heads take ten seconds
    return [pytest.mark.slow] if long else []


BY_HEAD = [pytest.param(name, kind, marks=marks_of(name)) for name, kind in HEADS]


@pytest.mark.parametrize(("name", "kind"), BY_HEAD)
def test_four_images_are_learnt_by_heart(name: str, kind: str):
    targets = drawn(kind, 4)
    built, given = head(name, kind), shown(targets)
    for _ in range(20):
        teach(built, given, targets, 15, lr=6e-3)
        scores = scored(built, given, targets, kind)
        if all(scores[key] > least for key, least in BY_HEART[kind].items()):
            break
    assert all(scores[key] > least for key, least in BY_HEART[kind].items()), scores


@every
def test_options_that_are_none_are_refused(name: str, kind: str):
    for option in ("width", "detections"):
        with pytest.raises((UsageError, ZooError), match=rf"{option} (is )?0"):
            head(name, kind, **{option: 0})
