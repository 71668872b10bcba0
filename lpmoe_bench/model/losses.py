"""Segmentation losses on logits: structure loss in both variants, BCE + Dice, balanced BCE."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from lpmoe_bench.errors import UsageError

RADIUS = 15  # pixels: how far the surroundings reach on which the weight of one depends
WINDOW = 2 * RADIUS + 1

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


LOSSES: dict[str, CountedLoss] = {
    "structure": structure_loss,
    "structure_intended": structure_loss_intended,
    "bce_dice": bce_dice_loss,
    "balanced_bce": balanced_bce_loss,
}


def get_loss(name: str) -> Loss:
    """Return a loss by its name.

    Args:
        name: one of `lpmoe-bench list losses`.

    Returns:
        A function of logits (B, K, h, w) and masks in {0, 1} of that shape, -1 where a pixel is
        ignored. The logits may be several outputs of a decoder, one after the other along the
        batch: each is held against the masks, and the loss is their mean.

    Raises:
        UsageError: The name is unknown; the closest ones are named.
    """
    if name not in LOSSES:
        raise UsageError.unknown("loss", name, LOSSES)

    def loss(logits: Tensor, mask: Tensor) -> Tensor:
        counted = None
        if bool((mask < 0).any()):
            counted, mask = (mask >= 0).to(mask.dtype), mask.clamp(min=0)
        times = (len(logits) // len(mask), 1, 1, 1)
        weights = None if counted is None else counted.repeat(times)
        return LOSSES[name](logits, mask.repeat(times), weights)

    return loss
