"""Losses of label maps: cross-entropy, with Dice, focal, Lovász-Softmax, Tversky.

All take logits (B, K, h, w) and labels (B, h, w), a class index or VOID where a pixel counts for
nothing, and give a scalar. Each is the mean of its images, and an image's the mean over its own
labelled pixels or its own classes, so that micro-batches and devices do not change the loss.
Departs from what is common, a mean over all labelled pixels of the batch: where images have as many
of them it is the same. An image without a label costs 0.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from lpmoe_bench.data.label_rules import VOID

FOCUS = 2.0  # gamma of the focal loss
MISSED, SPURIOUS = 0.7, 0.3  # beta and alpha of the Tversky index

# The third one: how much each class weighs, (K,), None where all weigh 1.
LabelLoss = Callable[[Tensor, Tensor, Tensor | None], Tensor]


def cross_entropy_loss(logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean of -w_c log p_c over the labelled pixels, c the pixel's class and p the softmax.

    The sum is divided by the number of pixels and not by the sum of their weights, as torch does:
    in an image of one class the weight would have no effect at all.
    """
    return _pixel_mean(_weighted(_surprise(logits, labels), labels, weights), labels)


def ce_dice_loss(logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """Cross-entropy plus soft Dice loss of the classes that an image holds, both with weight 1.

    Dice after Milletari et al., 3DV 2016, arXiv 1606.04797, with first powers and 1 added above and
    below, the mean over classes. Those that an image lacks are left to the cross-entropy: their
    Dice would be near 1 whatever is predicted. Class weights act on the cross-entropy alone.
    """
    hits, pred, true = _regions(logits, labels)
    dice = 1 - (2 * hits + 1) / (pred + true + 1)
    return cross_entropy_loss(logits, labels, weights) + _class_mean(dice, true > 0)


def class_focal_loss(logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """Cross-entropy times (1 - p_c) ** 2, mean over the labelled pixels.

    Lin et al., ICCV 2017, arXiv 1708.02002, equation 4 with gamma 2. Class weights stand in the
    place of its alpha.
    """
    surprise = _surprise(logits, labels)
    each = (1 - torch.exp(-surprise)) ** FOCUS * surprise
    return _pixel_mean(_weighted(each, labels, weights), labels)


def lovasz_softmax_loss(logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """Lovász extension of 1 - IoU at the errors of the softmax, mean over an image's classes.

    Berman et al., CVPR 2018, arXiv 1705.08790, equation 11, image by image and over the classes
    that it holds.
    """
    pred, costs = logits.softmax(1).flatten(2), []
    for share, label in zip(pred, labels.flatten(1), strict=True):
        held = label.unique()
        held = held[held != VOID]
        true = label == held[:, None]  # (C, P)
        errors = (true.to(share.dtype) - share[held]).abs()
        # A void pixel has no error: it comes last, where it moves no other one's weight.
        errors = torch.where(label != VOID, errors, 0)
        costs.append(lovasz_extension(errors, true).sum() / max(1, len(held)))
    return torch.stack(costs).mean()


def class_tversky_loss(logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """One less the Tversky index TP / (TP + .3 FP + .7 FN), mean over an image's classes.

    Salehi et al., MLMI 2017, arXiv 1706.05721, with their best weights, 1 added above and below,
    and as in `ce_dice` the classes that an image holds.
    """
    hits, pred, true = _regions(logits, labels)
    return _class_mean(tversky(hits, pred - hits, true - hits), true > 0)


def tversky(hits: Tensor, spurious: Tensor, missed: Tensor) -> Tensor:
    """Return one less the Tversky index of true positives, false positives and misses."""
    return 1 - (hits + 1) / (hits + SPURIOUS * spurious + MISSED * missed + 1)


def lovasz_extension(errors: Tensor, true: Tensor) -> Tensor:
    """Return the Lovász extension of the Jaccard loss at errors of pixels, (...) for (..., P).

    Berman et al., section 2.2: the errors in falling order, each times how much the Jaccard loss
    grows when its pixel is the next to be wrong. Errors below 0 cost nothing.
    """
    errors, order = errors.sort(dim=-1, descending=True)
    hot = true.to(errors.dtype).gather(-1, order)
    total = hot.sum(-1, keepdim=True)
    kept = total - hot.cumsum(-1)  # of the object, when so many pixels are wrong
    # After k errors the intersection has lost the object pixels among them, and the union has
    # gained the background pixels among them.
    jaccard = 1 - kept / (total + (1 - hot).cumsum(-1))
    steps = torch.diff(jaccard, dim=-1, prepend=torch.zeros_like(total))
    return (errors.relu() * steps).sum(-1)


def _surprise(logits: Tensor, labels: Tensor) -> Tensor:
    """Return -log p of each pixel's class, 0 where it is void, (B, h, w)."""
    return F.cross_entropy(logits, labels, reduction="none", ignore_index=VOID)


def _weighted(each: Tensor, labels: Tensor, weights: Tensor | None) -> Tensor:
    if weights is None:
        return each
    return each * weights[labels.clamp(max=len(weights) - 1)]  # a void pixel costs 0 already


def _pixel_mean(each: Tensor, labels: Tensor) -> Tensor:
    labelled = (labels != VOID).sum((1, 2))
    return (each.sum((1, 2)) / labelled.clamp(min=1)).mean()


def _class_mean(cost: Tensor, held: Tensor) -> Tensor:
    """Return the mean over images of the mean over the classes that each holds; both (B, K)."""
    return ((cost * held).sum(1) / held.sum(1).clamp(min=1)).mean()


def _regions(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return by class the predicted share of its own pixels, of all, and its pixels, (B, K)."""
    pred = logits.softmax(1) * (labels != VOID)[:, None]
    # (B, K, h, w): where each class is the truth; a void pixel is of no class.
    hot = labels[:, None] == torch.arange(pred.shape[1], device=labels.device)[:, None, None]
    return (pred * hot).sum((2, 3)), pred.sum((2, 3)), hot.sum((2, 3)).to(pred.dtype)


LABEL_LOSSES: dict[str, LabelLoss] = {
    "cross_entropy": cross_entropy_loss,
    "ce_dice": ce_dice_loss,
    "focal": class_focal_loss,
    "lovasz": lovasz_softmax_loss,
    "tversky": class_tversky_loss,
}
WEIGHTED = ("cross_entropy", "ce_dice", "focal")  # of these the ones that know class weights
