"""Matching loss: queries are matched to the masks of an image, and trained on what they got.

Cheng et al., CVPR 2022, arXiv 2112.01527, section 3.2, in the form of DETR (arXiv 2005.12872): the
assignment of least cost gives each true mask a query of its own; the others learn to say "nothing".
Masks are compared at random points alone.

The sums are divided by how many masks a batch holds, as in the paper, so micro-batches and devices
change the loss a little: it depends on the batch.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from lpmoe_bench.data.label_rules import VOID
from lpmoe_bench.data.targets import Target
from method_zoo.parts.deformable import full_precision, precise

NOTHING = 0.1  # weight of "nothing" in the cross-entropy
OVERSAMPLED, UNCERTAIN = 3, 0.75  # of the points: drawn at first; share that is most uncertain
LARGEST = torch.finfo(torch.float32).max


class TrueMasks(NamedTuple):
    """What one image holds.

    Attributes:
        masks: (N, h, w), bool, at any size.
        classes: (N,), int64, from 0.
        counted: (h, w), bool: where pixels are labelled; None where all of them are.
    """

    masks: Tensor
    classes: Tensor
    counted: Tensor | None = None


class PartWeights(NamedTuple):
    """How much the cross-entropy of the classes, that of the masks, and Dice weigh."""

    label: float = 2
    mask: float = 5
    dice: float = 5


PAPER = PartWeights()


def truth_of_labels(labels: Tensor) -> list[TrueMasks]:
    """Return a mask for each class that an image holds, for label maps (B, h, w) with VOID."""
    found = []
    for label in labels:
        held = label.unique()
        counted = label != VOID
        held = held[held != VOID]
        whole = bool(counted.all())
        found.append(TrueMasks(label == held[:, None, None], held, None if whole else counted))
    return found


def truth_of_targets(targets: Sequence[Target]) -> list[TrueMasks]:
    """Return the objects of each image, and of panoptic targets each class of stuff.

    Crowds, what lies beside a padded image and void pixels are nobody's: no mask is compared there.
    Departs from Mask2Former's released code, to which crowds of instances are background.
    """
    found = []
    for target in targets:
        own = target.trained()
        assert own.masks is not None, "targets of objects with masks"
        masks, classes = own.masks, own.classes
        assert target.masks is not None
        void = target.masks[target.crowd].any(0)
        if target.inner is not None:
            void[target.inner[0] :] = True
            void[:, target.inner[1] :] = True
        if target.labels is not None:
            void |= (target.labels == VOID) & ~target.masks.any(0)
            stuff = target.labels.unique()
            stuff = stuff[stuff != VOID]
            masks = torch.cat([masks, target.labels == stuff[:, None, None]])
            classes = torch.cat([classes, stuff])
        found.append(TrueMasks(masks, classes, ~void if bool(void.any()) else None))
    return found


def matching_loss(
    labels: Tensor,
    masks: Tensor,
    truth: Sequence[TrueMasks],
    points: int = 12_544,
    weights: PartWeights = PAPER,
    cost: PartWeights = PAPER,
) -> Tensor:
    """Return the loss of queries, a scalar in single precision.

    Random points are drawn from torch's own generator. They lie on labelled pixels: Departs from
    the paper, whose data have a label everywhere and whose code takes the rest as background.

    Args:
        labels: logits of the classes and of "nothing", the last, (D * B, Q, K + 1): of D outputs of
            a model, one after the other along the batch. Each is matched by itself, and the losses
            are added up.
        masks: logits of the masks, (D * B, Q, H, W).
        truth: of the B images. An image without a labelled pixel is left out; one of which all
            pixels are labelled and which holds no mask teaches every query to say "nothing".
        points: at which masks are compared.
        weights: of the three parts of the loss.
        cost: the same in the assignment.
    """
    total = torch.zeros((), device=masks.device)
    with full_precision(masks):
        for label, mask in zip(labels.split(len(truth)), masks.split(len(truth)), strict=True):
            total = total + _loss(precise(label), precise(mask), truth, points, weights, cost)
    return total


def _loss(
    labels: Tensor,
    masks: Tensor,
    truth: Sequence[TrueMasks],
    points: int,
    weights: PartWeights,
    cost: PartWeights,
) -> Tensor:
    nothing = labels.shape[-1] - 1
    target = torch.full_like(labels[..., 0], nothing, dtype=torch.int64)  # (B, Q)
    taught = torch.ones_like(labels[..., 0])
    parts = []  # of the masks that were matched
    for index, true in enumerate(truth):
        if true.counted is not None and not true.counted.any():
            taught[index] = 0
        query, mask = assign(labels[index], masks[index], true, points, cost)
        target[index, query] = true.classes[mask]
        parts.append((masks[index, query], true.masks[mask], true.counted))
    # Most queries find nothing: at full weight they would drown those that find something.
    taught = taught * torch.where(target == nothing, NOTHING, 1.0)
    surprise = F.cross_entropy(labels.transpose(1, 2), target, reduction="none")
    taught_over = mean_over_processes(taught.sum(), masks, least=NOTHING)
    loss = weights.label * (surprise * taught).sum() / taught_over
    entropy, dice = _mask_losses(parts, points)
    count = mean_over_processes(sum(len(true.classes) for true in truth), masks)
    return loss + (weights.mask * entropy + weights.dice * dice) / count


def mean_over_processes(count: int | Tensor, like: Tensor, least: float = 1) -> Tensor:
    """Return the mean of a count over the processes that train together, or `least` if it is less.

    A loss whose sum is divided by it has the gradient of one process with all of their images.
    like: a tensor of the device.
    """
    own = count.detach().clone() if isinstance(count, Tensor) else float(count)
    total = torch.as_tensor(own, device=like.device)
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(total)
        total = total / torch.distributed.get_world_size()
    return total.clamp(min=least)


@torch.no_grad()
def assign(
    labels: Tensor, masks: Tensor, true: TrueMasks, points: int = 12_544, cost: PartWeights = PAPER
) -> tuple[Tensor, Tensor]:
    """Return the queries and the masks that belong together, both (min(Q, N),).

    Args:
        labels: (Q, K + 1), logits.
        masks: (Q, H, W), logits.
        true: the masks of the image.
        points: at which masks are compared.
        cost: weights of the three parts of the cost.
    """
    where = _places(1, points, true.counted, masks)
    x, y = _read(masks, where), _read_truth(true.masks, true.counted, where)  # (Q, P), (N, P)
    # softplus(-x) = -log sigmoid(x) where the truth is 1, softplus(x) where it is 0: two products
    # give the cross-entropy of every query with every mask, (Q, N).
    entropy = (F.softplus(-x) @ y.T + F.softplus(x) @ (1 - y).T) / points
    pred = x.sigmoid()
    dice = 1 - (2 * pred @ y.T + 1) / (pred.sum(1)[:, None] + y.sum(1) + 1)
    # The probability and not its logarithm, as in DETR: so it is of the size of the other costs.
    total = cost.mask * entropy - cost.label * labels.softmax(-1)[:, true.classes]
    # The assignment refuses NaN and infinity; whether training has diverged is seen in the loss.
    total = torch.nan_to_num(total + cost.dice * dice, nan=LARGEST, posinf=LARGEST, neginf=LARGEST)
    query, mask = linear_sum_assignment(total.cpu().numpy())
    return torch.as_tensor(query, device=x.device), torch.as_tensor(mask, device=x.device)


Part = tuple[Tensor, Tensor, Tensor | None]


def _mask_losses(parts: Sequence[Part], points: int) -> tuple[Tensor, Tensor]:
    """Return cross-entropy and Dice of pairs of masks, each the sum over the pairs.

    parts: of each image the logits (M, H, W), the masks (M, h, w), and where they are labelled.
    """
    logits = [logits for logits, _, _ in parts]
    if not sum(map(len, logits)):
        # A zero that hangs on the logits: without a matched mask the loss still needs a graph.
        none = sum((one.sum() for one in logits), torch.zeros((), device=logits[0].device))
        return none, none
    with torch.no_grad():
        where = _uncertain(parts, points)
        given = zip(parts, where, strict=True)
        true = torch.cat([_read_truth(mask, counted, at) for (_, mask, counted), at in given])
    x = torch.cat([_read(one, at) for one, at in zip(logits, where, strict=True)])
    entropy = F.binary_cross_entropy_with_logits(x, true, reduction="none").mean(1)
    pred = x.sigmoid()
    dice = 1 - (2 * (pred * true).sum(1) + 1) / (pred.sum(1) + true.sum(1) + 1)
    return entropy.sum(), dice.sum()


def _uncertain(parts: Sequence[Part], points: int) -> list[Tensor]:
    """Return points for each pair of masks, (M, P, 2) an image: three quarters of them where the
    logit is next to zero among three times as many, the rest anywhere."""
    # As in PointRend (Kirillov et al., CVPR 2020): most masks are certain but for their edges.
    few = int(UNCERTAIN * points)
    many = [_places(len(x), points * OVERSAMPLED, counted, x) for x, _, counted in parts]
    rest = [_places(len(x), points - few, counted, x) for x, _, counted in parts]
    found = []
    for (x, _, _), at, more in zip(parts, many, rest, strict=True):
        nearest = (-_read(x, at).abs()).topk(few, dim=1).indices
        at = at.gather(1, nearest[..., None].expand(-1, -1, 2))
        found.append(torch.cat([at, more], dim=1))
    return found


def _places(count: int, points: int, counted: Tensor | None, like: Tensor) -> Tensor:
    """Draw points (x, y) within 0 and 1, (count, points, 2), none of them on a void pixel."""
    places = torch.rand(count, points, 2, dtype=like.dtype, device=like.device)
    if counted is None or not counted.any():
        return places
    labelled = counted.nonzero()  # (n, 2): row, column
    chosen = labelled[torch.randint(len(labelled), (count, points), device=like.device)]
    size = torch.tensor([counted.shape[1], counted.shape[0]], device=like.device)
    return (chosen.flip(-1) + places) / size  # anywhere on the pixel


def _read_truth(masks: Tensor, counted: Tensor | None, where: Tensor) -> Tensor:
    """Read masks bilinearly; beside void pixels from those that are labelled alone."""
    read = _read(masks.to(where.dtype), where)
    if counted is None:
        return read
    labelled = counted.to(where.dtype).expand(len(where), -1, -1)
    return read / _read(labelled, where).clamp(min=1e-6)


def _read(maps: Tensor, where: Tensor) -> Tensor:
    """Read maps (N, H, W) at points (N, P, 2), or at the same points (1, P, 2), (N, P)."""
    if len(maps) == 0:
        return maps.new_zeros(0, where.shape[1])
    if len(where) == 1:  # the maps as channels, for the points are the same
        maps = maps[None]
    else:
        maps = maps[:, None]
    # grid_sample counts from -1 to 1 and wants two axes of points: (N, P, 1, 2).
    grid = 2 * where[:, :, None] - 1
    return F.grid_sample(maps, grid, align_corners=False)[..., 0].flatten(0, 1)
