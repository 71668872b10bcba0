"""Cosine-aligned deformable attention of Controllable-LPMoE, linear in the number of tokens.

a = softmax(W q), b = softmax(W u) with u_i = sum_j cos(q_i, f_j) f_j and the same W,
out = W_o sum over levels and points of a * b * (W_v f at reference + offset(q)).
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ..errors import ZooError, at_least
from ..method import Call, call

# Multi-scale deformable sampling in plain torch: weighted bilinear reads at learnt places.
#
# The core of Deformable DETR (Zhu et al., ICLR 2021, arXiv 2010.04159, equation 3) without a
# compiled extension: out(q) = sum over levels l and points p of w(q, l, p) * value_l at location(q,
# l, p).


Grids = Sequence[tuple[int, int]]


class TokenPlaces(NamedTuple):
    """Where the tokens of one or more grids lie; x before y, each 0 to 1 over the image."""

    grids: Grids  # (height, width) of each level
    points: Tensor  # (T, 2), the centres of all cells, level after level, row by row
    cells: Tensor  # (L, 2), the size of one cell of each level


def places(grids: Grids, like: Tensor) -> TokenPlaces:
    """Return the places of grids on the device of `like`, in float32.

    Made from ranges on the device itself, without a copy between devices: once a forward pass this
    costs less than a cache would.
    """
    points, cells = [], []
    for height, width in grids:
        y = (torch.arange(height, device=like.device, dtype=torch.float32) + 0.5) / height
        x = (torch.arange(width, device=like.device, dtype=torch.float32) + 0.5) / width
        points.append(torch.stack([x.repeat(height), y.repeat_interleave(width)], dim=-1))
        cells += [x[0] * 2, y[0] * 2]  # the first centre lies half a cell from the edge
    return TokenPlaces(grids, torch.cat(points), torch.stack(cells).view(-1, 2))


def star(heads: int, levels: int, points: int) -> Tensor:
    """Return the offsets to start from, (heads * levels * points * 2,), in cells of a level.

    Each head looks another way, its points 1, 2, ... cells off; the star's tips lie on a square.
    """
    angle = torch.arange(heads, dtype=torch.float32) * (2 * math.pi / heads)
    ray = torch.stack([angle.cos(), angle.sin()], dim=-1)
    # Divided by the larger of |x| and |y|: directions of a square, each tip on a whole cell's ring.
    ray = ray / ray.abs().amax(-1, keepdim=True)
    reach = torch.arange(1, points + 1, dtype=torch.float32)
    offsets = ray[:, None, None] * reach[:, None]  # (h, 1, P, 2)
    return offsets.expand(heads, levels, points, 2).flatten()


def start_on_star(module: Any, heads: int, levels: int, points: int) -> None:
    """Start deformable attention, which has the layers `offsets`, `weights`, `value` and `output`,
    on a star of points around each reference, with equal weights."""
    with torch.no_grad():
        module.offsets.bias.copy_(star(heads, levels, points))
    for zero in (module.offsets.weight, module.weights.weight, module.weights.bias):
        nn.init.zeros_(zero)
    for linear in (module.value, module.output):
        nn.init.xavier_uniform_(linear.weight)
        nn.init.zeros_(linear.bias)


def sample(value: Tensor, grids: Grids, where: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted bilinear reads of `value`, (B, Q, h * d); outside the grid is zero.

    value: (B, T, h, d), the levels one after the other. where: (B, Q, h, L, P, 2), 0 to 1.
    weights: (B, Q, h, L, P).
    """
    # On a CPU whole rows of d numbers are read; other devices and compilers have the planes' form.
    if value.device.type == "cpu" and not torch.compiler.is_compiling():
        return _Reads.apply(value, grids, where, weights)
    return sample_planes(value, grids, where, weights)


def sample_planes(value: Tensor, grids: Grids, where: Tensor, weights: Tensor) -> Tensor:
    """Return what `sample` does, by torch's own sampling of planes."""
    heads = value.shape[2]
    # Heads go into the batch; points come before queries, so the sum over points is vectorised.
    value = value.permute(0, 2, 3, 1).flatten(0, 1)  # (B * h, d, T)
    where = (2 * where - 1).permute(3, 0, 2, 4, 1, 5).flatten(1, 2)  # (L, B * h, P, Q, 2)
    weights = weights.permute(3, 0, 2, 4, 1).flatten(1, 2).unsqueeze(2)  # (L, B * h, 1, P, Q)
    total = None
    start = 0
    for level, (height, width) in enumerate(grids):
        plane = value[:, :, start : start + height * width].unflatten(2, (height, width))
        start += height * width
        # plane: (B * h, d, H, W), where: (B * h, P, Q, 2), so read is (B * h, d, P, Q).
        read = F.grid_sample(plane, where[level], padding_mode="zeros", align_corners=False)
        part = (read * weights[level]).sum(2)  # (B * h, d, Q)
        total = part if total is None else total + part
    assert total is not None
    # (B * h, d, Q) to (B, Q, h * d), the channels of a head beside each other.
    return total.unflatten(0, (-1, heads)).permute(0, 3, 1, 2).flatten(2)


class _Reads(torch.autograd.Function):
    """Reads as sums of rows of a table, for which torch has a kernel: a bag is one query's head.

    Keeps values, places and weights alone; what is made of them is made again going backward.
    """

    @staticmethod
    def forward(ctx, value, grids, where, weights):  # type: ignore[override]
        ctx.save_for_backward(value, where, weights)
        ctx.grids = grids
        total = None
        for level, part in enumerate(_levels(value, grids)):
            corners = _Corners.of(where, weights, level, grids[level])
            table = _framed(part)
            for rows, share in corners:
                # rows, share: (B * Q * h, P). A bag sums the
                # P rows of one head of one query, (d,) each.
                read = F.embedding_bag(rows, table, mode="sum", per_sample_weights=share)
                total = read if total is None else total.add_(read)
        assert total is not None
        return total.view(*where.shape[:2], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):  # type: ignore[override]
        value, where, weights = ctx.saved_tensors
        gradient = gradient.reshape(-1, value.shape[3])  # (B * Q * h, d)
        of_value, of_where, of_weights = (
            torch.empty_like(t, memory_format=torch.contiguous_format)
            for t in (value, where, weights)
        )
        levels = zip(_levels(value, ctx.grids), _levels(of_value, ctx.grids), strict=True)
        for level, (part, of_part) in enumerate(levels):
            corners = _Corners.of(where, weights, level, ctx.grids[level])
            products = _products(corners, _framed(part), gradient)
            corners.back(products, of_where[:, :, :, level], of_weights[:, :, :, level])
            # of_part is a view of of_value, whose levels follow one another.
            of_part.copy_(_scattered(corners, gradient, part.shape))
        return of_value, None, of_where, of_weights


class _Corners:
    """The four cells around each point of one level; all tensors are (B, Q, h, P).

    The zeros of `_framed` around the grid make its edges places as any other.
    """

    def __init__(self, where: Tensor, weights: Tensor, grid: tuple[int, int]):
        height, width = grid
        # Rounded as by torch's own sampling, and so the authors', which takes places from -1 to 1.
        x, y = (2 * where[..., 0] - 1).add_(1), (2 * where[..., 1] - 1).add_(1)
        x, y = x.mul_(width / 2).sub_(0.5), y.mul_(height / 2).sub_(0.5)
        self.grid, self.weights = grid, weights.contiguous()
        # A point beyond the frame reads zero wherever it moves: its place gets no gradient.
        self.reaches = (x > -1) & (x < width), (y > -1) & (y < height)
        # Beyond the frame all is zero, as it is on the frame.
        x, y = x.clamp_(-1, width), y.clamp_(-1, height)
        # The second column, left + 1, must still lie in the frame, also for a point on its edge.
        left, top = x.floor().clamp_(max=width - 1), y.floor().clamp_(max=height - 1)
        self.right, self.lower = x.sub_(left), y.sub_(top)  # shares of the second column and row
        # What is no number stays none in the shares, and so in the sum; as a row it may be any.
        cell = (top + 1).mul_(width + 2).add_(left + 1).nan_to_num_(0)
        batch, _, heads, _ = cell.shape
        # Row of the table: ((image * (H + 2) + top + 1) * (W + 2) + left + 1) * heads + head. The
        # cell is worked out in float, which is exact below 2^24 cells.
        of_head = torch.arange(batch * heads, dtype=torch.int32).view(batch, 1, heads, 1)
        of_head = of_head % heads + of_head // heads * (heads * (height + 2) * (width + 2))
        self.first = cell.int().mul_(heads).add_(of_head)
        step = (width + 2) * heads
        # From the first corner to the one right of it, below it, and below right.
        self.steps = [0, heads, step, step + heads]

    @classmethod
    def of(cls, where: Tensor, weights: Tensor, level: int, grid: tuple[int, int]) -> "_Corners":
        return cls(where[:, :, :, level], weights[:, :, :, level], grid)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the rows and the shares of each corner, (B * Q * h, P): two above, two below."""
        for step, share in zip(self.steps, self.shares(), strict=True):
            yield (self.first + step).view(-1, share.shape[-1]), share.view(-1, share.shape[-1])

    def shares(self) -> list[Tensor]:
        """Return what each corner counts, weights included."""
        # w (1 - v) (1 - u), w (1 - v) u, w v (1 - u) and w v u, by differences: three products.
        below = self.weights * self.lower
        above = self.weights - below
        low_right, high_right = below * self.right, above * self.right
        return [above - high_right, high_right, below - low_right, low_right]

    def back(self, products: list[Tensor], of_where: Tensor, of_weights: Tensor) -> None:
        """Write the gradients of places and weights, given those of the shares."""
        height, width = self.grid
        a, b, c, d = products
        # a to d: how much the loss changes with each corner's share. The weight has the bilinear
        # mean of them as its gradient, the place the differences across and down.
        above = torch.lerp(a, b, self.right)
        below = torch.lerp(c, d, self.right)
        torch.lerp(above, below, self.lower, out=of_weights)
        across = torch.lerp(b.sub_(a), d.sub_(c), self.lower)
        in_x, in_y = self.reaches
        # Times width and height: places count 0 to 1 over the image, differences are by cell.
        of_where[..., 0] = across.mul_(self.weights).mul_(in_x).mul_(width)
        of_where[..., 1] = below.sub_(above).mul_(self.weights).mul_(in_y).mul_(height)


def _levels(value: Tensor, grids: Grids) -> list[Tensor]:
    """Split (B, T, h, d) into the maps of the levels, (B, H, W, h, d)."""
    parts = value.split([height * width for height, width in grids], dim=1)
    return [part.unflatten(1, grid) for part, grid in zip(parts, grids, strict=True)]


def _framed(part: Tensor) -> Tensor:
    """Return the table of rows: a map with a frame of zeros, (B * cells * h, d)."""
    return F.pad(part.flatten(3), (0, 0, 1, 1, 1, 1)).view(-1, part.shape[4])


def _products(corners: _Corners, table: Tensor, gradient: Tensor) -> list[Tensor]:
    """Return the products of the rows that are read with the gradients of their bags."""
    found = []
    with torch.enable_grad():
        for rows, share in corners:
            share = share.detach().requires_grad_()
            out = F.embedding_bag(rows, table, mode="sum", per_sample_weights=share)
            product = torch.autograd.grad(out, share, gradient)[0]
            found.append(product.view_as(corners.first))
    return found


def _scattered(corners: _Corners, gradient: Tensor, shape: torch.Size) -> Tensor:
    """Return the gradient of a map: the transposed sum, its points sorted by their first cell."""
    batch, high, wide, heads, width = shape
    frame = (batch, high + 2, wide + 2, heads, width)
    # The other way round a bag is a cell, and sums what all points that read it send back. Points
    # are sorted by cell, so the order of adding is fixed.
    first, order = corners.first.flatten().sort(stable=True)
    ends = torch.bincount(first, minlength=math.prod(frame[:-1])).cumsum(0)
    # Where the points of each cell begin in that order; cells that nobody read have empty bags.
    offsets = F.pad(ends[:-1], (1, 0)).int()
    # The P points of one head of one query share a row of the gradient.
    reader = order.div(corners.first.shape[3], rounding_mode="floor").int()
    total = None
    for corner, share in enumerate(corners.shares()):
        share = share.flatten()[order]
        table = F.embedding_bag(reader, gradient, offsets, mode="sum", per_sample_weights=share)
        # What the first corners gave belongs to the cell a step down or across.
        down, across = corner // 2, corner % 2
        part = table.view(frame)[:, 1 - down :, 1 - across :][:, :high, :wide]
        total = part.contiguous() if total is None else total.add_(part)
    assert total is not None
    return total


def precise(x: Tensor) -> Tensor:
    """Bring half-precision numbers to float32 and leave others as they are."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def full_precision(x: Tensor) -> torch.autocast:
    """Return the context in which autocast leaves the numbers on the device of x as they are."""
    # The meta device, where only shapes are counted, knows no autocast: it stands for the CPU.
    return torch.autocast("cpu" if x.is_meta else x.device.type, enabled=False)


NORM_EPS = 1e-8


class CosineDeformableAttention(nn.Module):
    """Queries read features around their reference points (spec of arXiv 2510.21114, section 2.3).

    ratio: width of the values as a share of dim. cosine: "sum" as the authors do, or "mean", which
    does not grow with the number of tokens. renormalise: let the weights of a head sum to one;
    the authors' product of two softmaxes sums to less.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        levels: int,
        points: int = 4,
        ratio: float = 0.5,
        cosine: str = "sum",
        renormalise: bool = False,
    ):
        super().__init__()
        inner = value_width(dim, heads, points, ratio)
        if cosine not in ("sum", "mean"):
            raise ZooError(f"cosine is {cosine!r}; allowed are 'sum' (as in the paper) and 'mean'")
        self.shape = (heads, levels, points)
        self.mean = cosine == "mean"
        self.renormalise = renormalise
        count = heads * levels * points
        self.offsets = nn.Linear(dim, count * 2)
        self.weights = nn.Linear(dim, count)
        self.value = nn.Linear(dim, inner)
        self.output = nn.Linear(inner, dim)
        self.reset()

    def reset(self) -> None:
        """Start on a star of points around each reference, with equal weights."""
        start_on_star(self, *self.shape)

    def forward(
        self,
        query: Tensor,
        features: Tensor,
        points: Tensor,
        source: TokenPlaces,
        remake: Call = call,
    ) -> Tensor:
        """Return the update of the queries, (B, Q, C).

        query: (B, Q, C), at the points (Q, 2). features: (B, T, C), at the places `source`.
        """
        heads = self.shape[0]
        if self._fuses(query, features):
            offsets, direct, aligned, value = _Projections.apply(
                *(query, features, self.offsets.weight, self.offsets.bias),
                *(self.weights.weight, self.weights.bias, self.value.weight, self.value.bias),
                features.shape[1] if self.mean else 1,
            )
        else:
            value, offsets, direct = self.value(features), self.offsets(query), None
        value, offsets = value.unflatten(2, (heads, -1)), offsets.unflatten(2, (*self.shape, 2))
        # The authors force their sampling to float32; the cosine sum over all tokens needs it too.
        with full_precision(query):
            # Offsets count in cells of their level.
            where = points[:, None, None, None] + precise(offsets) * source.cells[:, None]
            if direct is None:
                weights = self.mixed_weights(query, features)
            else:
                weights = self._mix(direct, aligned)
            read = remake(sample, precise(value), source.grids, where, weights)
        return self.output(read)

    def _fuses(self, query: Tensor, features: Tensor) -> bool:
        """Say whether all projections can be one operation: a CPU without autocast."""
        return (
            query.device.type == "cpu"
            and query.dtype == features.dtype == self.value.weight.dtype
            and not torch.is_autocast_enabled("cpu")
            and not torch.compiler.is_compiling()
        )

    def mixed_weights(self, query: Tensor, features: Tensor) -> Tensor:
        """Return the product of direct and cosine-aligned weights, (B, Q, h, L, P), in float32."""
        query, features = precise(query), precise(features)
        aligned = aligned_logits(query, features, self.weights.weight)
        if self.mean:
            aligned = aligned / features.shape[1]
        # b = softmax(W u): the layer of a, bias included, reads u_i in the place of q_i.
        return self._mix(self.weights(query), aligned + self.weights.bias)

    def _mix(self, direct: Tensor, aligned: Tensor) -> Tensor:
        """Return the weights of two tensors of logits, (B, Q, h * L * P) each."""
        # Read as columns: over a last axis of so few numbers softmax takes seven times as long.
        pair = (x.unflatten(2, (self.shape[0], -1)) for x in (direct, aligned))
        first, second = (x.flatten(0, 2).t() for x in pair)
        if self.renormalise:  # the product of two softmaxes, scaled to sum 1, is one softmax
            mixed = (first + second).softmax(0)
        else:
            mixed = first.softmax(0) * second.softmax(0)
        return mixed.t().reshape(*direct.shape[:2], *self.shape)


class _Projections(torch.autograd.Function):
    """All that the attention makes of queries q and features f before it reads.

    Returns offsets W_o q + b_o, direct logits W q + b, aligned logits W u + b and values W_v f +
    b_v, with u as in `aligned_logits`. Going backward the products of matrices that make one
    gradient are added up where they are made.
    """

    @staticmethod
    def forward(ctx, query, features, *rest):  # type: ignore[override]
        offsets, offsets_bias, weight, bias, value, value_bias, count = rest
        # One product for what reads the queries, instead of two.
        both = F.linear(query, torch.cat([offsets, weight]), torch.cat([offsets_bias, bias]))
        of_offsets, direct = both.split([len(offsets), len(weight)], dim=2)
        lengths = [torch.linalg.vector_norm(x, dim=-1, keepdim=True) for x in (query, features)]
        query_norm, feature_norm = (length + NORM_EPS for length in lengths)
        projected = F.linear(features, weight)
        # sum_j f_j (W f_j) / |f_j| first, then times q / |q|: no table of queries by features.
        summary = features.transpose(1, 2) @ (projected / feature_norm)  # (B, C, K)
        aligned = (query @ summary).div_(query_norm * count)
        values = F.linear(features, value, value_bias)
        ctx.save_for_backward(
            *(query, features, offsets, weight, value), *(projected, summary, aligned, *lengths)
        )
        ctx.count = count
        return of_offsets, direct, aligned + bias, values

    @staticmethod
    @once_differentiable
    def backward(ctx, *gradients):  # type: ignore[override]
        query, features, offsets, weight, value, *made, query_length, feature_length = (
            ctx.saved_tensors
        )
        projected, summary, aligned = made
        of_offsets, of_direct, of_aligned, of_value = gradients
        query_norm, feature_norm = query_length + NORM_EPS, feature_length + NORM_EPS
        both = torch.cat([of_offsets, of_direct], dim=2)
        flat = both.flatten(0, 1)
        divided = of_aligned / (query_norm * ctx.count)
        # Through the norm of q, then through what q multiplies.
        of_query = query * _through_norm((of_aligned * aligned).sum(-1, True), query_length)
        # In place: offsets and direct logits, then the aligned ones; no sum of three tensors.
        of_query.view(-1, query.shape[2]).addmm_(flat, torch.cat([offsets, weight]))
        of_query.baddbmm_(divided, summary.transpose(1, 2))
        of_weights = flat.t() @ query.reshape(-1, query.shape[2])
        of_summary = query.transpose(1, 2) @ divided
        unit = projected / feature_norm
        # unit = W f / |f|: its gradient goes on to W f, divided by |f|, and to |f| itself.
        of_unit = features @ of_summary
        of_features = features * _through_norm((of_unit * unit).sum(-1, True), feature_length)
        of_features.baddbmm_(unit, of_summary.transpose(1, 2))
        joined = torch.cat([of_unit.div_(feature_norm), of_value], dim=2).flatten(0, 1)
        of_features.view(-1, features.shape[2]).addmm_(joined, torch.cat([weight, value]))
        of_both = joined.t() @ features.reshape(-1, features.shape[2])
        of_weight, of_value_weight = of_both.split([len(weight), len(value)])
        of_offset_weight, of_direct_weight = of_weights.split([len(offsets), len(weight)])
        of_offset_bias, of_bias = flat.sum(0).split([len(offsets), len(weight)])
        # The bias of the weights is used twice, in the direct and in the aligned logits.
        of_bias = of_bias + of_aligned.sum((0, 1))
        of_weight = of_weight + of_direct_weight
        return (
            *(of_query, of_features, of_offset_weight, of_offset_bias, of_weight, of_bias),
            *(of_value_weight, of_value.sum((0, 1)), None),
        )


def _through_norm(product: Tensor, length: Tensor) -> Tensor:
    """Return the factor of x in its gradient through 1 / (|x| + eps); none where x is zero."""
    return -(product / (length * (length + NORM_EPS))).masked_fill_(length == 0, 0)


def aligned_logits(query: Tensor, features: Tensor, weight: Tensor) -> Tensor:
    """Return W u for u_i = sum_j cos(q_i, f_j) f_j, without the matrix of all cosines: (B, Q, K).

    W (S f) = q^ (f^T ((f W^T) / |f|)) / |q| is the same product in another bracketing: its cost is
    linear in the tokens. query: (B, Q, C). features: (B, T, C). weight: (K, C).
    """
    query_norm = torch.linalg.vector_norm(query, dim=-1, keepdim=True) + NORM_EPS
    feature_norm = torch.linalg.vector_norm(features, dim=-1, keepdim=True) + NORM_EPS
    summary = features.transpose(1, 2) @ ((features @ weight.t()) / feature_norm)  # (B, C, K)
    return (query @ summary) / query_norm


def value_width(dim: int, heads: int, points: int, ratio: float) -> int:
    """Return the width of the values; raises ZooError where heads, points or ratio do not fit."""
    at_least("points", points, 1)
    if not 0 < ratio <= 1:
        raise ZooError(f"ratio is {ratio}; it must be above 0 and at most 1")
    inner = int(dim * ratio)
    if heads < 1 or dim % heads or inner % heads:
        raise ZooError(
            f"heads is {heads}; it must divide the backbone's width {dim} and the width of the "
            f"values {inner}: set heads to a divisor of both"
        )
    return inner
