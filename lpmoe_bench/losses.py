"""Segmentation losses on logits: the structure loss in both variants."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from lpmoe_bench.errors import UsageError
from method_zoo._errors import unknown

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
    intersection = (pred * mask * weight).sum((2, 3))
    union = ((pred + mask) * weight).sum((2, 3))
    return 1 - (intersection + 1) / (union - intersection + 1)


def _boundary_weight(mask: Tensor) -> Tensor:
    """Weight pixels by how much their 31 x 31 surroundings differ from them, 1 to 6."""
    return 1 + 5 * (F.avg_pool2d(mask, 31, stride=1, padding=15) - mask).abs()


LOSSES: dict[str, Loss] = {
    "structure": structure_loss,
    "structure_intended": structure_loss_intended,
}


def get_loss(name: str) -> Loss:
    """Return the loss of that name; raises UsageError for an unknown one."""
    if name not in LOSSES:
        raise UsageError(unknown("loss", name, LOSSES))
    return LOSSES[name]
