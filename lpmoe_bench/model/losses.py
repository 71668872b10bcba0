"""Segmentation losses on logits: structure loss in both variants, BCE + Dice, balanced BCE."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from lpmoe_bench.errors import UsageError

Loss = Callable[[Tensor, Tensor], Tensor]


def structure_loss(logits: Tensor, mask: Tensor) -> Tensor:
    """Weighted IoU plus binary cross-entropy, as PraNet's released code computes it.

    logits, mask: (B, K, h, w), mask in {0, 1}; returns a scalar. Fan et al., MICCAI 2020,
    arXiv 2006.11392. There the weight map is asked for, but a legacy argument averages the
    cross-entropy before it is weighted, so the weights cancel; the field trains with this.
    """
    return (F.binary_cross_entropy_with_logits(logits, mask) + _weighted_iou(logits, mask)).mean()


def structure_loss_intended(logits: Tensor, mask: Tensor) -> Tensor:
    """Return the structure loss as its paper states it: the cross-entropy is weighted too."""
    weight = _boundary_weight(mask)
    bce = F.binary_cross_entropy_with_logits(logits, mask, reduction="none")
    bce = (weight * bce).sum((2, 3)) / weight.sum((2, 3))
    return (bce + _weighted_iou(logits, mask)).mean()


def _weighted_iou(logits: Tensor, mask: Tensor) -> Tensor:  # (B, K)
    weight, pred = _boundary_weight(mask), torch.sigmoid(logits)
    # The 1 above and below keeps an empty mask that is predicted empty at a loss of 0.
    intersection = (pred * mask * weight).sum((2, 3))
    union = ((pred + mask) * weight).sum((2, 3))
    return 1 - (intersection + 1) / (union - intersection + 1)


def _boundary_weight(mask: Tensor) -> Tensor:
    """Weight pixels by how much their 31 x 31 surroundings differ from them, 1 to 6."""
    return 1 + 5 * (F.avg_pool2d(mask, 31, stride=1, padding=15) - mask).abs()


def bce_dice_loss(logits: Tensor, mask: Tensor) -> Tensor:
    """Binary cross-entropy plus soft Dice loss of each image, both with weight 1.

    logits, mask: (B, K, h, w), mask in {0, 1}; returns a scalar. Dice after Milletari et al., 3DV
    2016, arXiv 1606.04797, with first powers and 1 added above and below, so that an empty mask
    that is predicted empty costs nothing.
    """
    pred = torch.sigmoid(logits)
    overlap, total = (pred * mask).sum((2, 3)), (pred + mask).sum((2, 3))
    dice = 1 - (2 * overlap + 1) / (total + 1)
    return F.binary_cross_entropy_with_logits(logits, mask) + dice.mean()


def balanced_bce_loss(logits: Tensor, mask: Tensor) -> Tensor:
    """Binary cross-entropy in which object and background of an image weigh the same.

    logits, mask: (B, K, h, w), mask in {0, 1}; returns a scalar. Each pixel weighs as the share of
    the other class, as in HED (Xie and Tu, ICCV 2015, arXiv 1504.06375, equation 2) and in the code
    of EVP and SAM-Adapter for shadows. An image without object costs nothing, as there.
    Departs from that code: shares are counted in each image, not over the batch, so that neither
    micro-batches nor devices change the loss; Conv-LoRA trains with one image a device.
    """
    share = mask.mean((2, 3), keepdim=True)
    weight = mask * (1 - share) + (1 - mask) * share
    return (weight * F.binary_cross_entropy_with_logits(logits, mask, reduction="none")).mean()


LOSSES: dict[str, Loss] = {
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
        A function of logits (B, K, h, w) and masks in {0, 1} of that shape. The logits may be
        several outputs of a decoder, one after the other along the batch: each is held against
        the masks, and the loss is their mean.

    Raises:
        UsageError: The name is unknown; the closest ones are named.
    """
    if name not in LOSSES:
        raise UsageError.unknown("loss", name, LOSSES)

    def loss(logits: Tensor, mask: Tensor) -> Tensor:
        return LOSSES[name](logits, mask.repeat(len(logits) // len(mask), 1, 1, 1))

    return loss
