"""Losses by name, and those of masks: structure loss in both variants, BCE + Dice, balanced BCE,
focal, Lovász hinge, Tversky. Those of label maps stand in `label_losses`."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lpmoe_bench.config.settings import LOSSES as FACTS
from lpmoe_bench.config.settings import MATCHING, check_loss, other_kind
from lpmoe_bench.errors import UsageError
from lpmoe_bench.model.label_losses import (
    FOCUS,
    LABEL_LOSSES,
    VOID,
    WEIGHTED,
    lovasz_extension,
    tversky,
)
from method_zoo.plugins import find_plugin, load_plugin

RADIUS = 15  # pixels: how far the surroundings reach on which the weight of one depends
WINDOW = 2 * RADIUS + 1
FOCAL_ALPHA = 0.25  # how much the object weighs in the focal loss, against .75

Loss = Callable[[Tensor, Tensor], Tensor]
# The third one: 0 where a pixel counts for nothing, else 1; None where all of them count.
CountedLoss = Callable[[Tensor, Tensor, Tensor | None], Tensor]


def structure_loss(logits: Tensor, mask: Tensor, counted: Tensor | None = None) -> Tensor:
    """Weighted IoU plus binary cross-entropy, as PraNet's released code computes it.

    logits, mask: (B, K, h, w), mask in {0, 1}; counted: 0 where a pixel is ignored, else 1, None
    where none is; returns a scalar. Fan et al., MICCAI 2020, arXiv 2006.11392. There the weight map
    is asked for, but a legacy argument averages the cross-entropy before it is weighted, so the
    weights cancel; the field trains with this.
    """
    return (_bce(logits, mask, counted) + _weighted_iou(logits, mask, counted)).mean()


def structure_loss_intended(logits: Tensor, mask: Tensor, counted: Tensor | None = None) -> Tensor:
    """Return the structure loss as its paper states it: the cross-entropy is weighted too."""
    weight = _boundary_weight(mask, counted)
    bce = F.binary_cross_entropy_with_logits(logits, mask, reduction="none")
    bce = (weight * bce).sum((2, 3)) / _at_least_one(weight.sum((2, 3)), counted)
    return (bce + _weighted_iou(logits, mask, counted)).mean()


def _bce(logits: Tensor, mask: Tensor, counted: Tensor | None) -> Tensor:
    """Mean cross-entropy over the pixels that count: a scalar, or with some ignored (B, K)."""
    if counted is None:
        return F.binary_cross_entropy_with_logits(logits, mask)
    # The mean of each image and not of the batch, so that micro-batches do not change the loss.
    each = F.binary_cross_entropy_with_logits(logits, mask, reduction="none") * counted
    return each.sum((2, 3)) / _at_least_one(counted.sum((2, 3)), counted)


def _at_least_one(total: Tensor, counted: Tensor | None) -> Tensor:
    """Keep the loss of an image that is ignored throughout from being 0 / 0."""
    return total if counted is None else total.clamp(min=1)


def _weighted_iou(logits: Tensor, mask: Tensor, counted: Tensor | None) -> Tensor:  # (B, K)
    weight, pred = _boundary_weight(mask, counted), torch.sigmoid(logits)
    # The 1 above and below keeps an empty mask that is predicted empty at a loss of 0.
    intersection = (pred * mask * weight).sum((2, 3))
    union = ((pred + mask) * weight).sum((2, 3))
    return 1 - (intersection + 1) / (union - intersection + 1)


def _boundary_weight(mask: Tensor, counted: Tensor | None) -> Tensor:
    """Weight pixels by how much their 31 x 31 surroundings differ from them, 1 to 6; ignored ones,
    which are background to their neighbours, weigh nothing."""
    weight = 1 + 5 * (_window_mean(mask) - mask).abs()
    return weight if counted is None else weight * counted


def _window_mean(mask: Tensor) -> Tensor:
    """Return the mean of a window around each pixel, zeros outside, (B, K, h, w).

    By running sums, of rows and then of columns, at a cost that does not grow with the window. Sums
    of 0 and 1 are exact: this is `avg_pool2d(mask, 31, stride=1, padding=15)` to the bit.
    """
    # The sum of a window is the running sum at its end less the one before its start: one zero
    # more in front gives the first window something to subtract.
    for axis, pad in ((-1, (RADIUS + 1, RADIUS)), (-2, (0, 0, RADIUS + 1, RADIUS))):
        sums = F.pad(mask, pad).cumsum(axis)
        size = sums.shape[axis] - WINDOW
        mask = sums.narrow(axis, WINDOW, size) - sums.narrow(axis, 0, size)
    return mask / WINDOW**2


def bce_dice_loss(logits: Tensor, mask: Tensor, counted: Tensor | None = None) -> Tensor:
    """Binary cross-entropy plus soft Dice loss of each image, both with weight 1.

    logits, mask: (B, K, h, w), mask in {0, 1}; counted: as for structure_loss; returns a scalar.
    Dice after Milletari et al., 3DV 2016, arXiv 1606.04797, with first powers and 1 added above and
    below, so that an empty mask that is predicted empty costs nothing.
    """
    pred = torch.sigmoid(logits)
    pred = pred if counted is None else pred * counted
    overlap, total = (pred * mask).sum((2, 3)), (pred + mask).sum((2, 3))
    dice = 1 - (2 * overlap + 1) / (total + 1)
    return _bce(logits, mask, counted).mean() + dice.mean()


def balanced_bce_loss(logits: Tensor, mask: Tensor, counted: Tensor | None = None) -> Tensor:
    """Binary cross-entropy in which object and background of an image weigh the same.

    logits, mask: (B, K, h, w), mask in {0, 1}; counted: as for structure_loss; returns a scalar.
    Each pixel weighs as the share of the other class, as in HED (Xie and Tu, ICCV 2015, arXiv
    1504.06375, equation 2) and in the code of EVP and SAM-Adapter for shadows. An image without
    object costs nothing, as there.
    Departs from that code: shares are counted in each image, not over the batch, so that neither
    micro-batches nor devices change the loss; Conv-LoRA trains with one image a device.
    """
    each = F.binary_cross_entropy_with_logits(logits, mask, reduction="none")
    if counted is None:
        share = mask.mean((2, 3), keepdim=True)
        return ((mask * (1 - share) + (1 - mask) * share) * each).mean()
    total = _at_least_one(counted.sum((2, 3), keepdim=True), counted)
    share = mask.sum((2, 3), keepdim=True) / total
    weight = (mask * (1 - share) + (1 - mask) * share) * counted
    return ((weight * each).sum((2, 3), keepdim=True) / total).mean()


def focal_loss(logits: Tensor, mask: Tensor, counted: Tensor | None = None) -> Tensor:
    """Cross-entropy times (1 - p) ** 2, p the share given to the truth, mean over the pixels.

    logits, mask: (B, K, h, w), mask in {0, 1}; counted: as for structure_loss; returns a scalar.
    Lin et al., ICCV 2017, arXiv 1708.02002, equation 5 with their best gamma 2 and alpha 1/4, by
    which the object weighs 1/4 and the background 3/4.
    """
    each = F.binary_cross_entropy_with_logits(logits, mask, reduction="none")
    alpha = mask * FOCAL_ALPHA + (1 - mask) * (1 - FOCAL_ALPHA)
    # each is -log p, so exp(-each) is p, the share given to the truth.
    each = alpha * (1 - torch.exp(-each)) ** FOCUS * each
    if counted is None:
        return each.mean()
    total = _at_least_one(counted.sum((2, 3)), counted)
    return ((each * counted).sum((2, 3)) / total).mean()


def lovasz_hinge_loss(logits: Tensor, mask: Tensor, counted: Tensor | None = None) -> Tensor:
    """Lovász extension of 1 - IoU at the hinge errors 1 - (2 y - 1) logit, mean over the images.

    logits, mask: (B, K, h, w), mask in {0, 1}; counted: as for structure_loss; returns a scalar.
    Berman et al., CVPR 2018, arXiv 1705.08790, equation 8, image by image.
    """
    errors = 1 - logits * (2 * mask - 1)
    # An ignored pixel comes last, where it moves no other one's weight and costs nothing itself.
    errors = errors if counted is None else torch.where(counted > 0, errors, -1)
    true = mask if counted is None else mask * counted
    return lovasz_extension(errors.flatten(2), true.flatten(2)).mean()


def tversky_loss(logits: Tensor, mask: Tensor, counted: Tensor | None = None) -> Tensor:
    """One less the Tversky index TP / (TP + .3 FP + .7 FN) of the object, mean over the images.

    logits, mask: (B, K, h, w), mask in {0, 1}; counted: as for structure_loss; returns a scalar.
    Salehi et al., MLMI 2017, arXiv 1706.05721, with their best weights and 1 added above and below.
    """
    pred = torch.sigmoid(logits)
    pred = pred if counted is None else pred * counted
    hits = (pred * mask).sum((2, 3))
    return tversky(hits, pred.sum((2, 3)) - hits, mask.sum((2, 3)) - hits).mean()


LOSSES: dict[str, CountedLoss] = {
    "structure": structure_loss,
    "structure_intended": structure_loss_intended,
    "bce_dice": bce_dice_loss,
    "balanced_bce": balanced_bce_loss,
    "focal": focal_loss,
    "lovasz": lovasz_hinge_loss,
    "tversky": tversky_loss,
}


def get_loss(name: str, kind: str = "binary", class_weights: Sequence[float] | None = None) -> Loss:
    """Return a loss by its name.

    Args:
        name: one of `lpmoe-bench list losses`.
        kind: of the task.
        class_weights: how much each class weighs, where the loss has such weights.

    Returns:
        A function of logits (B, K, h, w) and targets. Of a binary task these are masks in {0, 1} of
        that shape, -1 where a pixel is ignored; of a semantic one labels (B, h, w), VOID where it
        is. The logits may be several outputs of a decoder, one after the other along the batch:
        each is held against the targets, and the loss is their mean.

    Raises:
        UsageError: The name is unknown, and the closest ones are named; the loss is for other kinds
            of task, knows no class weights, or is computed by decoders themselves.
    """
    check_loss(name, kind)
    if name == MATCHING:
        raise UsageError(
            f"loss {MATCHING} needs a decoder with queries, such as mask2former; use that one, or "
            f"another loss such as ce_dice"
        )
    if class_weights is not None and name not in WEIGHTED:
        raise UsageError(
            f"train.class_weights are not for loss {name}; use one of {', '.join(WEIGHTED)}, or "
            f"leave them out"
        )
    plugin, own = find_plugin("losses", name, FACTS), _KINDS[kind]
    formula = load_plugin(plugin) if plugin else own.formulas[name]
    if plugin:
        _check_plugin(name, formula, kind)
    return own.finish(formula, class_weights)


def may_ignore(mask: Tensor) -> bool:
    """Say whether pixels of a mask may be ignored.

    A GPU is not asked, for the program would wait till it has done all before, nor may compiled
    code ask: there the formula that weighs pixels stands for both, and is equal but for rounding.
    """
    return mask.is_cuda or torch.compiler.is_compiling() or bool((mask < 0).any())


def _of_masks(formula: CountedLoss, class_weights: Sequence[float] | None) -> Loss:
    def loss(logits: Tensor, mask: Tensor) -> Tensor:
        counted = None
        if may_ignore(mask):
            counted, mask = (mask >= 0).to(mask.dtype), mask.clamp(min=0)
        # D outputs of B images stand as D * B: each output is held against the same masks.
        times = (len(logits) // len(mask), 1, 1, 1)
        weights = None if counted is None else counted.repeat(times)
        return formula(logits, mask.repeat(times), weights)

    return loss


def _of_labels(formula: Callable[..., Tensor], class_weights: Sequence[float] | None) -> Loss:
    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        labels = labels.repeat(len(logits) // len(labels), 1, 1)
        if class_weights is None:
            return formula(logits, labels, None)
        if len(class_weights) != logits.shape[1]:
            raise UsageError(
                f"train.class_weights has {len(class_weights)} numbers, but there are "
                f"{logits.shape[1]} classes; give one for each, in their order"
            )
        return formula(logits, labels, logits.new_tensor(class_weights))

    return loss


class _OfKind(NamedTuple):
    """The losses of a kind of task; what makes one of a formula; what a plug-in is tried with."""

    formulas: Mapping[str, Any]
    finish: Callable[[Any, Sequence[float] | None], Loss]
    samples: Callable[[], list[tuple[Any, ...]]]


def _mask_samples() -> list[tuple[Any, ...]]:
    logits, mask = torch.zeros(2, 1, 8, 8, requires_grad=True), torch.zeros(2, 1, 8, 8)
    mask[..., :4] = 1
    return [(logits, mask, None), (logits, mask, torch.ones_like(mask))]


def _label_samples() -> list[tuple[Any, ...]]:
    logits = torch.zeros(2, 3, 8, 8, requires_grad=True)
    labels = torch.zeros(2, 8, 8, dtype=torch.int64)
    labels[..., :4], labels[..., 7] = 2, VOID
    return [(logits, labels, None)]


_KINDS = {
    "binary": _OfKind(LOSSES, _of_masks, _mask_samples),
    "semantic": _OfKind(LABEL_LOSSES, _of_labels, _label_samples),
}


def _check_plugin(name: str, formula: Any, kind: str) -> None:
    """Refuse a loss of others of another kind, that gives no scalar, or none with a gradient.

    It serves the kinds that its attribute `kinds` names, binary ones where it has none.
    """
    kinds = getattr(formula, "kinds", ("binary",))
    if kind not in kinds:
        raise other_kind(name, kinds, kind)
    for logits, *given in _KINDS[kind].samples():
        value = formula(logits, *given)
        if not isinstance(value, Tensor) or value.shape != () or not value.requires_grad:
            what = f"{tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise UsageError(
                f"loss {name} gives {what} for logits {tuple(logits.shape)}; it must give a "
                f"scalar, shape (), that depends on the logits"
            )
