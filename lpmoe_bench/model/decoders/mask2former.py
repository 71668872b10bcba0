"""Mask2Former: queries with a label and a mask each, 64 wide as in Controllable-LPMoE.

Cheng et al., CVPR 2022, arXiv 2112.01527. With labels p, a softmax over the classes and
"nothing", and masks m, a sigmoid, the score of a class is S_c = sum over queries q of
p(q, c) m(q). Tasks of several classes are trained by matching queries to classes, tasks of objects
by matching them to objects, and to the classes of stuff in panoptic ones, as in the paper.

The pixel decoder turns four maps into three refined ones and a mask feature at stride 4, with the
multi-scale deformable attention of Deformable DETR, arXiv 2010.04159.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lpmoe_bench.errors import UsageError
from lpmoe_bench.model.decoders.decoder import Inputs
from lpmoe_bench.model.decoders.matched import SMALLEST, MatchedDecoder, query_scores
from lpmoe_bench.model.decoders.pyramid import SimplePyramid
from method_zoo.method import Features
from method_zoo.parts import deformable
from method_zoo.parts.deformable import TokenPlaces, full_precision, precise

MOST_LAYERS = 100


class Mask2Former(MatchedDecoder):
    """Reads maps at strides 4, 8, 16 and 32, which lpmoe has, or makes them of a plain ViT's;
    logits come at stride 4.

    width: a multiple of 32. queries: how many. layers: of the queries, which read one level each.
    points: at which the matching loss compares masks. pixel_layers: of the pixel decoder, 6 in the
    paper. detections: of instances, most of an image, as the protocol counts.
    Where there is one class, its background is a second one, as in the paper, and the logit is
    log(S_object / S_background); its sigmoid is the object's share of both. Else log S_c. With
    objects of one class the background is there too, and no query is matched to it. Queries that
    the method gives, of this width, take the place of the learned ones: they are the places, and
    what a layer makes of them is what starts.
    In training there are outputs of the start and of every layer, all supervised alike as in the
    paper. Departs from the paper where there is one class: each logit is trained with the task's
    own loss; and all parameters share one rate.
    """

    title = "Mask2Former"
    reads = "maps"
    paper = "arXiv 2112.01527"
    fidelity = (
        "written from a specification of Controllable-LPMoE's code, with its parameter count; the "
        "ten outputs are supervised as there, of masks with the task's loss and without matching, "
        "of classes and objects by matching as in the paper; a plain ViT's maps pass the simple "
        "pyramid"
    )
    takes_queries = True
    kinds = ("binary", "semantic", "instance", "panoptic")
    losses = {"semantic": "matching", "instance": "matching", "panoptic": "matching"}
    later_options = {"points": 12_544, "pixel_layers": 6, "detections": 100}

    def __init__(
        self,
        inputs: Inputs,
        classes: int,
        width: int = 64,
        queries: int = 100,
        layers: int = 9,
        points: int = 12_544,
        pixel_layers: int = 6,
        detections: int = 100,
    ):
        super().__init__()
        if width < GROUPS or width % GROUPS:
            raise UsageError(f"decoder width is {width}; it must be a multiple of {GROUPS}")
        if min(queries, points) < 1 or not 1 <= layers <= MOST_LAYERS:
            raise UsageError(
                f"queries is {queries}, points {points} and layers {layers}; the first two must be "
                f"1 or more, layers 1 to {MOST_LAYERS}"
            )
        if not 1 <= pixel_layers <= MOST_LAYERS or detections < 1:
            raise UsageError(
                f"pixel_layers is {pixel_layers} and detections {detections}; the first must be 1 "
                f"to {MOST_LAYERS}, the other 1 or more"
            )
        if inputs.queries and (queries, width) != inputs.queries:
            raise UsageError(
                f"the method gives {inputs.queries[0]} queries of width {inputs.queries[1]}, but "
                f"this decoder has {queries} of width {width}; set both alike"
            )
        self.classes, self.points, self.detections = classes, points, detections
        self.pyramid = SimplePyramid(inputs, width, "mask2former")
        self.pixels = PixelDecoder(self.pyramid.channels, width, pixel_layers)
        own = None if inputs.queries else queries
        self.queries = QueryDecoder(width, own, layers, labels=max(classes, 2) + 1)

    def train_with(
        self, loss: str, kind: str = "binary", class_weights: Sequence[float] | None = None
    ) -> None:
        super().train_with(loss, kind, class_weights)
        if self.reading is None:
            self.refuse_for_one(self.classes, points=self.points)
        ranked = self.reading is not None and self.reading.ranked
        if self.detections != self.later_options["detections"] and not ranked:
            raise UsageError(
                f"option detections of decoder {self.title} is for instance tasks, but this one is "
                f"{kind}; leave it out"
            )

    def queries_of(self, features: Features) -> tuple[Tensor, Tensor]:
        return self.queries(*self.pixels(self.pyramid(features.maps)), features.queries)

    def forward(self, features: Features) -> Tensor:
        # One class: the log odds of object against background, whose sigmoid is the object's share.
        logs = torch.log(query_scores(*self.queries_of(features)) + SMALLEST)
        return logs[:, 1:] - logs[:, :1] if self.classes == 1 else logs


GROUPS = 32  # of all group norms
LEVELS, HEADS, POINTS = 3, 8, 4


class PixelDecoder(nn.Module):
    """Tokens of strides 32, 16 and 8 read one another; the map of stride 4 is added after them."""

    def __init__(self, channels: list[int], width: int, layers: int = 6):
        super().__init__()
        norm = lambda: nn.GroupNorm(GROUPS, width)  # noqa: E731
        self.inputs = nn.ModuleList(
            nn.Sequential(nn.Conv2d(c, width, 1), norm()) for c in reversed(channels[1:])
        )
        self.level = nn.Parameter(torch.randn(LEVELS, width))
        self.layers = nn.ModuleList(DeformableLayer(width) for _ in range(layers))
        self.lateral = nn.Sequential(nn.Conv2d(channels[0], width, 1, bias=False), norm())
        self.smooth = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False), norm(), nn.ReLU()
        )
        self.mask = nn.Conv2d(width, width, 1)
        for conv in [m for m in self.modules() if isinstance(m, nn.Conv2d)]:
            nn.init.xavier_uniform_(conv.weight)
            if conv.bias is not None:
                nn.init.zeros_(conv.bias)

    def forward(self, maps: list[Tensor]) -> tuple[list[Tensor], Tensor]:
        """maps: (B, C_k, H_k, W_k), strides 4 to 32.

        Returns the maps of strides 32, 16 and 8 and the mask feature of stride 4, of equal width.
        """
        finest, *coarser = maps
        levels = [into(m) for into, m in zip(self.inputs, reversed(coarser), strict=True)]
        grids = [(m.shape[-2], m.shape[-1]) for m in levels]
        where = deformable.places(grids, finest)
        # Place in the grid plus a learnt vector for the level, (T, C): equal for all images.
        position = torch.cat(
            [
                sine_position(grid, m.shape[1], m).flatten(1).t() + own
                for grid, m, own in zip(grids, levels, self.level, strict=True)
            ]
        )
        x = torch.cat([m.flatten(2).transpose(1, 2) for m in levels], dim=1)  # (B, T, C)
        for layer in self.layers:
            x = layer(x, position, where)
        parts = x.transpose(1, 2).split([h * w for h, w in grids], dim=2)
        levels = [p.unflatten(2, grid) for p, grid in zip(parts, grids, strict=True)]
        y = self.lateral(finest)
        # levels[-1] is that of stride 8: levels go from coarse to fine, as the queries read them.
        y = y + F.interpolate(levels[-1], y.shape[-2:], mode="bilinear", align_corners=False)
        return levels, self.mask(self.smooth(y))


class DeformableLayer(nn.Module):
    """x <- LN(x + A(x + position, x)); x <- LN(x + FFN(x)), hidden width four times as large."""

    def __init__(self, width: int):
        super().__init__()
        count = HEADS * LEVELS * POINTS
        self.offsets = nn.Linear(width, 2 * count)
        self.weights = nn.Linear(width, count)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.ReLU(), nn.Linear(4 * width, width)
        )
        deformable.start_on_star(self, HEADS, LEVELS, POINTS)

    def forward(self, x: Tensor, position: Tensor, where: TokenPlaces) -> Tensor:
        """x: (B, T, C), all tokens. position: (T, C)."""
        x = self.norm1(x + self._attention(x + position, x, where))
        return self.norm2(x + self.mlp(x))

    def _attention(self, query: Tensor, x: Tensor, where: TokenPlaces) -> Tensor:
        value = self.value(x).unflatten(2, (HEADS, -1))
        offsets = self.offsets(query).unflatten(2, (HEADS, LEVELS, POINTS, 2))
        weights = self.weights(query).unflatten(2, (HEADS, LEVELS * POINTS))
        weights = precise(weights).softmax(-1).unflatten(3, (LEVELS, POINTS))
        with full_precision(x):
            # Offsets count in cells of their level.
            points = where.points[:, None, None, None] + precise(offsets) * where.cells[:, None]
            read = deformable.sample(precise(value), where.grids, points, weights)
        return self.output(read)


# Transformer decoder of Mask2Former: queries that look where their own last mask was.
#
# Cheng et al., CVPR 2022, arXiv 2112.01527, section 3.2: masked cross-attention, self-attention,
# MLP.

HIDDEN = 8  # of the MLPs, times the width


class QueryDecoder(nn.Module):
    """Each layer reads one level, in turn from coarse to fine.

    queries: how many it learns; None where it is given them.
    """

    def __init__(self, width: int, queries: int | None, layers: int, labels: int):
        super().__init__()
        self.query: nn.Embedding | nn.Linear
        if queries is None:  # as Rein has it: what starts is made of the places
            self.query, self.query_position = nn.Linear(width, width), None
        else:
            self.query = nn.Embedding(queries, width)
            self.query_position = nn.Embedding(queries, width)
        self.level = nn.Embedding(LEVELS, width)
        self.layers = nn.ModuleList(QueryLayer(width) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.label = nn.Linear(width, labels)
        self.mask = nn.Sequential(
            *(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()),
            nn.Linear(width, width),
        )

    def forward(
        self, levels: list[Tensor], feature: Tensor, given: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """levels: (B, C, H, W), strides 32, 16, 8. feature: (B, C, H, W), stride 4. given: the
        queries, (Q, C), where it has none of its own.

        Returns the scores of the labels, (B, Q, labels), and of the masks, (B, Q, H, W): in eval
        mode of the last layer, in training of the start and of every layer, one after the other
        along the batch, so that each can be supervised.
        """
        batch = feature.shape[0]
        memory = [
            (m + own[:, None, None]).flatten(2).transpose(1, 2)  # (B, T, C)
            for m, own in zip(levels, self.level.weight, strict=True)
        ]
        grids = [(m.shape[-2], m.shape[-1]) for m in levels]
        position = [sine_position(g, feature.shape[1], feature).flatten(1).t() for g in grids]
        if self.query_position is None:
            assert given is not None
            start, place = self.query(given), given
        else:
            start, place = self.query.weight, self.query_position.weight
        x = start.expand(batch, -1, -1)
        outputs, masks = [x], [self._masks(x, feature)]
        for index, layer in enumerate(self.layers):
            k = index % LEVELS
            # Strides 32, 16, 8 in turn; each layer looks only where the mask of the one before is.
            x = layer(x, place, memory[k], position[k], closed(masks[-1], grids[k]))
            outputs.append(x)
            masks.append(self._masks(x, feature))
        # In training all of them are supervised, so each layer learns to be the last one.
        if not self.training:
            outputs, masks = outputs[-1:], masks[-1:]
        return self.label(self.norm(torch.cat(outputs))), torch.cat(masks)

    def _masks(self, x: Tensor, feature: Tensor) -> Tensor:
        return torch.einsum("bqc,bchw->bqhw", self.mask(self.norm(x)), feature)


class QueryLayer(nn.Module):
    """Post-norm: masked cross-attention, self-attention, MLP."""

    def __init__(self, width: int):
        super().__init__()
        self.cross = nn.MultiheadAttention(width, HEADS, batch_first=True)
        self.own = nn.MultiheadAttention(width, HEADS, batch_first=True)
        hidden = HIDDEN * width
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, width))
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.xavier_normal_(parameter)

    def forward(
        self, x: Tensor, place: Tensor, memory: Tensor, position: Tensor, blocked: Tensor
    ) -> Tensor:
        """x: (B, Q, C). memory: (B, T, C). blocked: (B, Q, T), where not to look."""
        mask = blocked.repeat_interleave(HEADS, dim=0)  # the heads of an image follow one another
        read, _ = self.cross(x + place, memory + position, memory, None, False, mask)
        x = self.norm1(x + read)
        read, _ = self.own(x + place, x + place, x, None, False)
        x = self.norm2(x + read)
        return self.norm3(x + self.mlp(x))


def closed(masks: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return where each query must not look, (B, Q, H * W): where its mask is below one half.

    A query whose mask is below everywhere may look everywhere. No gradient.
    """
    masks = F.interpolate(masks.detach(), grid, mode="bilinear", align_corners=False).flatten(2)
    blocked = masks < 0  # the sigmoid is below one half
    return blocked & ~blocked.all(-1, keepdim=True)


# Sine positions of a grid: half of the channels for the row, half for the column.
#
# As in DETR (Carion et al., ECCV 2020, arXiv 2005.12872), normalised to a full turn over the image.

TEMPERATURE = 10_000


def sine_position(grid: tuple[int, int], channels: int, like: Tensor) -> Tensor:
    """Return (channels, H, W) in float32, on the device of `like`; channels divide by four.

    Rows and columns count from 1 and end at 2 pi. Of each pair of channels the first is a sine, the
    second a cosine of the same frequency.
    """
    pair = torch.arange(channels // 4, device=like.device, dtype=torch.float32)
    # DETR's 10,000^(2 i / d), where d = C / 2 are the channels of one axis.
    wavelength = TEMPERATURE ** (4 * pair / channels)  # (C / 4,)
    axes = []
    for side in grid:
        turn = torch.arange(1, side + 1, device=like.device) * (2 * math.pi / side)
        angle = turn[:, None] / wavelength  # (side, C / 4)
        axes.append(torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1).t())
    rows, columns = axes  # (C / 2, H), (C / 2, W)
    height, width = grid
    rows = rows[:, :, None].expand(-1, -1, width)
    columns = columns[:, None, :].expand(-1, height, -1)
    return torch.cat([rows, columns])
