"""Objects for heads to learn: drawn targets, features that show them, their truth for scorers."""

from collections.abc import Sequence

import numpy as np
import torch
from drawn_objects import Truth
from torch import Tensor

from lpmoe_bench.data.label_rules import VOID
from lpmoe_bench.data.targets import Target
from method_zoo.method import Features

SIDE, CHANNELS = 64, 16
STRIDES = (4, 8, 16, 32)


def target_of(masks: Tensor, classes: Sequence[int], crowd: Sequence[bool] = ()) -> Target:
    """The target of masks (N, h, w); a mask without a pixel gets a box without width."""
    boxes = torch.zeros(len(masks), 4)
    for k, mask in enumerate(masks):
        if mask.any():
            rows, columns = mask.any(1).nonzero(), mask.any(0).nonzero()
            boxes[k] = torch.tensor(
                [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], dtype=torch.float
            )
    crowds = torch.tensor(list(crowd) or [False] * len(masks), dtype=torch.bool)
    kinds = torch.tensor(list(classes), dtype=torch.int64)
    return Target((masks.shape[1], masks.shape[2]), boxes, kinds, crowds, masks)


def drawn_targets(images: int = 4, side: int = SIDE, stuff: bool = False) -> list[Target]:
    """Images with two objects of classes 0 and 1, in other places in each; boxes with a corner cut.

    stuff: the rest is of class 2 above the middle and of class 3 below it, less a void border.
    """
    rng = np.random.default_rng(5)
    targets = []
    for _ in range(images):
        masks = torch.zeros(2, side, side, dtype=torch.bool)
        for k, (own, left) in enumerate(zip(masks, (2, side // 2 + 2), strict=True)):
            wide, high = rng.integers(side // 4, side // 2 - 6, 2)
            top, left = rng.integers(2, side - high), left + rng.integers(0, 4)
            own[top : top + high, left : left + wide] = True
            corner = (slice(top, top + high // 3), slice(left, left + wide // 3))
            own[corner] = k == 1
        target = target_of(masks, [0, 1])
        if stuff:
            labels = torch.full((side, side), 2)
            labels[side // 2 :] = 3
            labels[masks.any(0)] = labels[:, :2] = VOID
            target = target._replace(labels=labels)
        targets.append(target)
    return targets


def shown(targets: Sequence[Target], plain: bool = False) -> Features:
    """Features that hold noise, and in some channels what is there, faint enough to be learnt.

    plain: four maps of stride 16, as of a plain ViT, else of strides 4, 8, 16 and 32.
    """
    generator = torch.Generator().manual_seed(3)
    h, w = targets[0].size
    maps = []
    for stride in (16,) * 4 if plain else STRIDES:
        size = (h // stride, w // stride)
        maps.append(torch.randn(len(targets), CHANNELS, *size, generator=generator))
        for own, target in zip(maps[-1], targets, strict=True):
            assert target.masks is not None
            seen = torch.nn.functional.adaptive_avg_pool2d(target.masks.float(), size)
            for k, mask in zip(target.classes.tolist(), seen, strict=True):
                own[k] += 3 * mask
    final = torch.randn(len(targets), CHANNELS, h // 16, w // 16, generator=generator)
    return Features(maps, final, torch.zeros(()))


def truth_of(target: Target) -> Truth:
    """The same as scorers take it."""
    masks = None if target.masks is None else [m.numpy() for m in target.masks]
    sides = target.boxes[:, 2:] - target.boxes[:, :2]
    areas = sides.prod(1).double().numpy() if masks is None else np.array([m.sum() for m in masks])
    labels = None if target.labels is None else target.labels.numpy().astype(np.uint8)
    return Truth(
        target.boxes.double().numpy(),
        target.classes.numpy(),
        target.crowd.numpy(),
        areas.astype(float),
        masks,
        target.size,
        labels,
    )
