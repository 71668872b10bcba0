"""Losses of label maps and the new ones of masks: by hand, against others' code, and in traps."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

from lpmoe_bench.config.settings import LOSSES, build_config
from lpmoe_bench.errors import UsageError
from lpmoe_bench.model.label_losses import LABEL_LOSSES, VOID, WEIGHTED, lovasz_extension
from lpmoe_bench.model.losses import get_loss
from method_zoo.errors import ZooError

every = pytest.mark.parametrize("name", LABEL_LOSSES)


def drawn(images: int = 2, classes: int = 4, size: tuple[int, int] = (7, 12), seed: int = 0):
    """Logits and labels without a void pixel."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(images, classes, *size, generator=generator)
    return logits, torch.randint(classes, (images, *size), generator=generator)


def semantic(name: str, weights: list[float] | None = None):
    return get_loss(name, "semantic", weights)


# Formulas.


def test_cross_entropy_is_torchs_where_each_image_is_labelled_throughout():
    logits, labels = drawn()
    torch.testing.assert_close(
        semantic("cross_entropy")(logits, labels), F.cross_entropy(logits, labels)
    )
    labels[0, :3], labels[1, 5:] = VOID, VOID
    each = [
        F.cross_entropy(logits[k : k + 1], labels[k : k + 1], ignore_index=VOID) for k in (0, 1)
    ]
    torch.testing.assert_close(semantic("cross_entropy")(logits, labels), sum(each) / 2)


def test_class_weights_multiply_and_are_not_divided_by():
    # Two pixels of classes 0 and 1 at logits 0: ln 2 each, the second one three times as heavy.
    logits, labels = torch.zeros(1, 2, 1, 2), torch.tensor([[[0, 1]]])
    loss = semantic("cross_entropy", [1, 3])
    assert loss(logits, labels).item() == pytest.approx(2 * math.log(2))
    # A void pixel weighs nothing, whatever the weight of the last class.
    labels[0, 0, 1] = VOID
    assert loss(logits, labels).item() == pytest.approx(math.log(2))
    logits, labels = drawn()
    for name in WEIGHTED:
        one = semantic(name)(logits, labels)
        torch.testing.assert_close(semantic(name, [1.0] * 4)(logits, labels), one)
        assert semantic(name, [1, 1, 1, 9])(logits, labels) > one


def test_ce_dice_by_hand():
    # Three pixels, two of class 0 and one of class 2, logits 0 for three classes: p is 1/3 each.
    logits, labels = torch.zeros(1, 3, 1, 3), torch.tensor([[[0, 0, 2]]])
    first = 1 - (2 * (2 / 3) + 1) / (1 + 2 + 1)
    third = 1 - (2 * (1 / 3) + 1) / (1 + 1 + 1)  # class 1 is not in the image
    expected = math.log(3) + (first + third) / 2
    assert semantic("ce_dice")(logits, labels).item() == pytest.approx(expected, abs=1e-6)


def test_focal_by_hand_and_as_torchvision_has_it():
    logits = torch.tensor([0.0, math.log(3)]).view(1, 2, 1, 1)
    for label, p in ((0, 0.25), (1, 0.75)):
        expected = (1 - p) ** 2 * -math.log(p)
        value = semantic("focal")(logits, torch.tensor([[[label]]]))
        assert value.item() == pytest.approx(expected, abs=1e-6)
    logits, labels = drawn(classes=1)
    mask = (labels + torch.arange(12) % 2).float()[:, None]
    theirs = sigmoid_focal_loss(logits, mask, alpha=0.25, gamma=2, reduction="mean")
    torch.testing.assert_close(get_loss("focal")(logits, mask), theirs)


def jaccard(wrong: list[int], true: list[int]) -> float:
    """1 - IoU when the pixels of `wrong` are misjudged, as Berman et al., equation 5."""
    union = sum(true) + sum(1 for k in wrong if not true[k])
    return len(wrong) / union if union else 0.0


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_the_lovasz_extension_is_the_sum_over_thresholds(data):
    # Definition 1 of the paper: errors in falling order, each times the growth of the set function.
    size = data.draw(st.integers(1, 6))
    true = data.draw(st.lists(st.integers(0, 1), min_size=size, max_size=size))
    floats = st.floats(0, 2, allow_nan=False, width=32)
    errors = data.draw(st.lists(floats, min_size=size, max_size=size))
    order = sorted(range(size), key=lambda k: -errors[k])
    expected = sum(
        errors[k] * (jaccard(order[: i + 1], true) - jaccard(order[:i], true))
        for i, k in enumerate(order)
    )
    got = lovasz_extension(torch.tensor(errors), torch.tensor(true))
    assert got.item() == pytest.approx(expected, abs=1e-5)


def test_lovasz_at_the_corners_is_one_less_iou():
    # Certain predictions: the extension equals the set function.
    labels, said = torch.tensor([[[0, 0, 1, 1]]]), torch.tensor([0, 1, 1, 1])
    logits = 100 * F.one_hot(said, 2).T[None, :, None].float()
    expected = ((1 - 1 / 2) + (1 - 2 / 3)) / 2
    assert semantic("lovasz")(logits, labels).item() == pytest.approx(expected, abs=1e-6)
    # The hinge of a margin of 1 is 0 where it is right and 2 where it is wrong.
    hinge = get_loss("lovasz")((2 * said - 1).float().view(1, 1, 1, 4), labels[None].float())
    assert hinge.item() == pytest.approx(2 * (1 - 2 / 3), abs=1e-6)


def test_tversky_by_hand():
    # Object pixels 2 of 4, all logits 0: TP 1, FP 1, FN 1.
    expected = 1 - (1 + 1) / (1 + 0.3 * 1 + 0.7 * 1 + 1)
    mask = torch.tensor([[[[1.0, 1.0], [0.0, 0.0]]]])
    got = get_loss("tversky")(torch.zeros(1, 1, 2, 2), mask)
    assert got.item() == pytest.approx(expected, abs=1e-6)
    got = semantic("tversky")(torch.zeros(1, 2, 2, 2), mask[0].long())
    assert got.item() == pytest.approx(expected, abs=1e-6)  # both classes are alike
    # What is missed costs more than what is too much.
    much, little = torch.full_like(mask, 9.0), torch.full_like(mask, -9.0)
    assert get_loss("tversky")(little, mask) > get_loss("tversky")(much, mask) + 0.1


# What holds for all of them.


@every
def test_void_pixels_have_no_influence_and_micro_batches_add_up(name):
    logits, labels = drawn(images=3)
    labels[0, 2:4], labels[1, :, 3] = VOID, VOID
    labels[2] = VOID  # an image without a label costs nothing, and divides all the same
    void = (labels == VOID)[:, None]
    loss = semantic(name)
    assert torch.equal(loss(logits, labels), loss(torch.where(void, logits + 9, logits), labels))
    single = [loss(logits[k : k + 1], labels[k : k + 1]) for k in range(3)]
    torch.testing.assert_close(sum(single) / 3, loss(logits, labels))
    assert single[2].item() == 0


@every
@pytest.mark.parametrize("what", ["void", "one class", "one pixel", "two"])
def test_gradients_are_finite_and_where_they_belong(name, what):
    logits, labels = drawn(classes=150 if what == "two" else 4)
    if what == "void":
        labels[:] = VOID
    elif what == "one class":
        labels[:] = 3
    elif what == "one pixel":
        labels[:], labels[0, 0, 0] = VOID, 1
    logits.requires_grad_()
    loss = semantic(name)(logits, labels)
    loss.backward()
    assert loss.isfinite()
    assert logits.grad is not None
    assert bool(logits.grad.isfinite().all())
    assert bool(logits.grad.any()) == (what != "void")
    if name in WEIGHTED and what != "void":
        seen = logits.grad.abs().sum(1) > 0
        assert torch.equal(seen, labels != VOID)


@every
def test_a_step_against_the_gradient_lowers_it(name):
    logits, labels = drawn(seed=3)
    logits.requires_grad_()
    loss = semantic(name)(logits, labels)
    (grad,) = torch.autograd.grad(loss, logits)
    assert semantic(name)(logits - 0.5 * grad, labels) < loss
    perfect = 60 * F.one_hot(labels, 4).movedim(3, 1).float()
    assert semantic(name)(perfect, labels).item() < 1e-6


@every
def test_outputs_along_the_batch_are_averaged(name):
    logits, labels = drawn()
    more = torch.cat([logits, logits.flip(1)])
    expected = (semantic(name)(logits, labels) + semantic(name)(logits.flip(1), labels)) / 2
    torch.testing.assert_close(semantic(name)(more, labels), expected)


@every
def test_half_precision_around_it_changes_nothing(name):
    logits, labels = drawn()
    with torch.autocast("cpu", torch.bfloat16):
        value = semantic(name)(logits, labels)
    assert value.dtype is torch.float32
    torch.testing.assert_close(value, semantic(name)(logits, labels))


# Names, kinds and weights.


def test_each_loss_serves_the_kinds_that_it_names():
    for (name, facts), kind in itertools.product(LOSSES.items(), ("binary", "semantic")):
        if name == "matching":
            with pytest.raises(UsageError, match=r"needs a decoder with queries|is for semantic"):
                get_loss(name, kind)
        elif kind in facts.kinds:
            assert callable(get_loss(name, kind))
        else:
            with pytest.raises(UsageError, match=rf"is for .* tasks, but this task is {kind}; use"):
                get_loss(name, kind)


def test_weights_are_refused_where_they_would_do_nothing():
    with pytest.raises(UsageError, match="not for loss lovasz; use one of cross_entropy"):
        get_loss("lovasz", "semantic", [1, 2])
    with pytest.raises(UsageError, match="has 2 numbers, but there are 4 classes"):
        semantic("ce_dice", [1, 2])(*drawn())
    for wrong in ([], [1, 0], [1, -2]):
        with pytest.raises(UsageError, match=r"train\.class_weights .* positive number"):
            build_config({"train": {"class_weights": wrong}})
    assert build_config({"train": {"class_weights": [1, 2]}}).train.class_weights == (1, 2)


def test_a_loss_of_others_serves_label_maps_where_it_says_so(tmp_path, monkeypatch):
    path = tmp_path / "mine.py"
    path.write_text(
        "def entropy(logits, labels, weights=None):\n"
        "    shares = logits.softmax(1)\n"
        "    return ((labels != 255) * (1 - shares.amax(1))).mean()\n\n"
        "entropy.kinds = ('semantic',)\n\n"
        "def masks(logits, mask, counted=None):\n"
        "    return logits.mean()\n\n"
        "def bad(logits, labels, weights=None):\n"
        "    return logits\n\n"
        "bad.kinds = ('semantic',)\n\n"
        "LOSSES = {'entropy': entropy, 'masks': masks, 'bad': bad}\n"
    )
    monkeypatch.setenv("LPMOE_BENCH_PLUGINS", str(path))
    logits, labels = drawn()
    expected = (1 - logits.softmax(1).amax(1)).mean()
    torch.testing.assert_close(semantic("entropy")(logits, labels), expected)
    assert isinstance(get_loss("masks")(logits[:, :1], torch.ones(2, 1, 7, 12)), Tensor)
    with pytest.raises(UsageError, match="is for semantic tasks, but this task is binary"):
        get_loss("entropy")
    with pytest.raises(UsageError, match="is for binary tasks, but this task is semantic"):
        semantic("masks")
    with pytest.raises(UsageError, match="it must give a scalar"):
        semantic("bad")
    with pytest.raises((UsageError, ZooError), match="unknown loss"):
        semantic("entropi")
