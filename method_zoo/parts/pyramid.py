"""The feature pyramid of Controllable-LPMoE: prior maps plus resized ViT maps at strides 4 to 32.

c1 = p1 + up(c2); c_k <- c_k + resize(v_k); f_k = R(BN_k(c_k)) with one shared 1 x 1 convolution R
(Sun et al., ICCV 2025, arXiv 2510.21114).

The map at stride 4 has sixteen times the places of the ViT and all of its width: nothing else of
the pyramid costs as much. So BatchNorm and R are one affine map, f = R s c + R t with s = gamma /
deviation and t = beta - mean s. In eval mode it goes before `up` and the resizing, with which it
commutes, and no map of the full width is made. In training c1 is made once, for its statistics.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from .deformable import full_precision

CHUNK = 128  # rows that are squared at a time: they stay in a core's cache


class Pyramid(nn.Module):
    """Four maps of dim / 4 channels (spec, section 4)."""

    def __init__(self, dim: int):
        super().__init__()
        self.up = nn.ConvTranspose2d(dim, dim, 2, stride=2)
        self.norms = nn.ModuleList(nn.BatchNorm2d(dim) for _ in range(4))
        self.reduce = nn.Conv2d(dim, dim // 4, 1, bias=False)

    def forward(
        self, p1: Tensor, priors: list[Tensor], taps: list[Tensor], project: nn.Conv2d | None = None
    ) -> list[Tensor]:
        """Return maps at strides 4, 8, 16, 32.

        p1: (B, C, 4H, 4W), or with `project` what this 1 x 1 convolution makes p1 of. priors:
        strides 8, 16, 32. taps: four ViT maps, (B, C, H, W).
        """
        if not self.training:
            return self._folded(p1, priors, taps, project)
        if project is not None and self._takes_rows(p1, priors):
            return self._in_rows(p1, priors, taps, project)
        return self._plain(p1 if project is None else project(p1), priors, taps)

    def _plain(self, p1: Tensor, priors: list[Tensor], taps: list[Tensor]) -> list[Tensor]:
        """Run layer after layer: norms over several devices, half precision, other devices."""
        c1 = self.up(priors[0]).add_(p1)  # before the ViT's map is added to priors[0]
        maps = []
        for c, tap, norm in zip([c1, *priors], taps, self.norms, strict=True):
            tap = _resized(tap, c)
            # c1 is the largest map by far and nobody else's: add in place, but never into bfloat16.
            c = c.add_(tap) if c is c1 and c.dtype == tap.dtype else c + tap
            maps.append(self.reduce(norm(c)))
        return maps

    def _folded(
        self, p1: Tensor, priors: list[Tensor], taps: list[Tensor], project: nn.Conv2d | None
    ) -> list[Tensor]:
        """Run norm and reduction, whose numbers stay, before all that makes maps larger."""
        with full_precision(p1):
            (own, bias), *others = (self._affine(norm) for norm in self.norms)
            # ConvTranspose2d keeps (in, out, 2, 2); R s is applied to its outputs, D to K = D / 4.
            up = torch.einsum("kd,cdyx->ckyx", own, self.up.weight)
            assert self.up.bias is not None
            bias = bias + own @ self.up.bias
            first = own
            if project is not None:
                assert project.bias is not None
                first, bias = own @ project.weight.flatten(1), bias + own @ project.bias
        # A tap that becomes smaller is resized now, one that grows
        # only behind R: either way R works on the smaller map.
        taps = [
            tap
            if tap.shape[-2:] == c.shape[-2:] or c.shape[-1] > tap.shape[-1]
            else _resized(tap, c)
            for tap, c in zip(taps, [p1, *priors], strict=True)
        ]
        f1 = _spread(up, priors[0])
        f1 = f1 + _linear(first, p1, bias) + _resized(_linear(own, taps[0]), p1)
        maps = [f1]
        for c, tap, (weight, bias) in zip(priors, taps[1:], others, strict=True):
            if tap.shape == c.shape:
                maps.append(_linear(weight, c + tap, bias))
            else:
                maps.append(_linear(weight, c, bias) + _resized(_linear(weight, tap), c))
        return maps

    def _affine(self, norm: Any) -> tuple[Tensor, Tensor]:
        """Return norm and reduction in eval mode as one matrix (K, D) and one bias (K)."""
        reduce = self.reduce.weight.flatten(1)
        scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
        return reduce * scale, reduce @ (norm.bias - norm.running_mean * scale)

    def _takes_rows(self, p1: Tensor, priors: list[Tensor]) -> bool:
        """Say whether the form in rows is right, and fast, for these inputs and norms."""
        usual = all(
            type(norm) is nn.BatchNorm2d and norm.track_running_stats and norm.momentum is not None
            for norm in self.norms
        )
        dtypes = {t.dtype for t in (p1, *priors, self.reduce.weight)}
        coarse = priors[-1]
        return (
            usual
            and p1.device.type == "cpu"
            and len(dtypes) == 1
            and not torch.is_autocast_enabled("cpu")
            and not torch.compiler.is_compiling()
            and coarse.numel() > coarse.shape[1]  # of one value BatchNorm says what is wrong
        )

    def _in_rows(
        self, u: Tensor, priors: list[Tensor], taps: list[Tensor], project: nn.Conv2d
    ) -> list[Tensor]:
        """Run the pyramid on maps seen as rows of channels."""
        reduce = self.reduce.weight.flatten(1)
        norm: Any = self.norms[0]
        f1, mean, variance = _Finest.apply(
            *(u, project.weight, project.bias, priors[0], self.up.weight, self.up.bias, taps[0]),
            *(norm.weight, norm.bias, reduce, norm.eps),
        )
        _track(norm, mean, variance, f1[:, 0].numel())
        maps = [f1]
        for c, tap, norm in zip(priors, taps[1:], list(self.norms)[1:], strict=True):
            height, width = c.shape[-2:]
            rows = (_rows(c) + _stretched(tap, height, width)).flatten(0, 1)
            f, mean, variance = _NormReduce.apply(rows, norm.weight, norm.bias, reduce, norm.eps)
            _track(norm, mean, variance, len(rows))
            maps.append(f.view(len(c), height, width, -1).permute(0, 3, 1, 2))
        return maps


def _resized(x: Tensor, like: Tensor) -> Tensor:
    """Resize a map bilinearly to the size of another one."""
    size = like.shape[-2:]
    if x.shape[-2:] == size:
        return x
    return F.interpolate(x, size, mode="bilinear", align_corners=False)


def _rows(x: Tensor) -> Tensor:
    """See a map (B, C, H, W) as rows, (B, H * W, C)."""
    return x.flatten(2).transpose(1, 2)


def _linear(weight: Tensor, x: Tensor, bias: Tensor | None = None) -> Tensor:
    """Run a 1 x 1 convolution, of weights (K, C), as a linear layer; the map is channels-last."""
    return F.linear(x.permute(0, 2, 3, 1), weight, bias).permute(0, 3, 1, 2)


def _spread(weight: Tensor, x: Tensor) -> Tensor:
    """Run the transposed convolution of 2 x 2 kernels (C, K, 2, 2), that do not overlap, as a
    linear layer and a shuffle: (B, C, H, W) to (B, K, 2H, 2W)."""
    (batch, _, height, width), out = x.shape, weight.shape[1]
    y = F.linear(x.permute(0, 2, 3, 1), weight.permute(2, 3, 1, 0).flatten(0, 2))
    y = y.view(batch, height, width, 2, 2, out).permute(0, 1, 3, 2, 4, 5)
    return y.reshape(batch, 2 * height, 2 * width, out).permute(0, 3, 1, 2)


def _weights_of_resizing(old: int, new: int, like: Tensor) -> Tensor:
    """Return the matrix (new, old) that resizes one axis linearly."""
    one = torch.eye(old, dtype=like.dtype, device=like.device)[None]
    return F.interpolate(one, new, mode="linear", align_corners=False)[0].t().contiguous()


def _stretched(x: Tensor, height: int, width: int) -> Tensor:
    """Resize a map (B, C, H, W) bilinearly, axis by axis: (B, height * width, C)."""
    if x.shape[-2:] == (height, width):
        return _rows(x)
    across = _weights_of_resizing(x.shape[3], width, x) @ x.permute(0, 2, 3, 1)  # (B, H, w, C)
    down = _weights_of_resizing(x.shape[2], height, x) @ across.flatten(2)  # (B, h, w * C)
    return down.view(x.shape[0], height * width, -1)


def _track(norm: Any, mean: Tensor, variance: Tensor, count: int) -> None:
    """Move the running statistics of a BatchNorm as its own forward pass does."""
    with torch.no_grad():
        norm.num_batches_tracked.add_(1)
        norm.running_mean.lerp_(mean, norm.momentum)
        # BatchNorm norms by the biased variance and keeps the unbiased one for eval mode.
        norm.running_var.lerp_(variance * (count / (count - 1)), norm.momentum)


def _statistics(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and biased variance of each column, (C) each, in two passes."""
    # In two passes: mean of squares less squared mean would cancel where the mean is large.
    mean = rows.mean(0)
    squares = torch.zeros_like(mean)
    for chunk in rows.split(CHUNK):
        squares += (chunk - mean).square_().sum(0)
    return mean, squares / len(rows)


class _Normed:
    """BatchNorm and reduction of rows c (M, D) to f (M, K), forward and backward by hand."""

    def __init__(self, mean: Tensor, variance: Tensor, eps: float, parameters: Any):
        self.mean, self.deviation = mean, (variance + eps).sqrt()
        self.weight, self.bias, self.reduce = parameters
        self.scale = self.weight / self.deviation
        self.shift = self.bias - mean * self.scale

    def forward(self, rows: Tensor) -> Tensor:
        return torch.addmm(self.reduce @ self.shift, rows, (self.reduce * self.scale).t())

    def backward(self, gradient: Tensor, rows: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the gradients of rows, weight, bias and reduction."""
        count, total = len(rows), gradient.sum(0)
        products = gradient.t() @ rows  # (K, D)
        of_reduce = products * self.scale + torch.outer(total, self.shift)
        of_bias = total @ self.reduce
        # sum over rows of dy c^, from the same products: sum dy c - mean sum dy, by the deviation.
        of_weight = ((products * self.reduce).sum(0) - self.mean * of_bias) / self.deviation
        # dc = s (dy - mean(dy) - c^ mean(dy c^)) with the normed c^ = (c - mean) / deviation.
        slope = -of_weight * self.scale / self.deviation / count
        start = -of_bias * self.scale / count - slope * self.mean
        of_rows = torch.addcmul(start, rows, slope).addmm_(gradient, self.reduce * self.scale)
        return of_rows, of_weight, of_bias, of_reduce


class _NormReduce(torch.autograd.Function):
    """Rows to reduced rows, batch mean and variance; keeps no normed rows."""

    @staticmethod
    def forward(ctx, rows, weight, bias, reduce, eps):  # type: ignore[override]
        mean, variance = _statistics(rows)
        ctx.save_for_backward(rows, mean, variance, weight, bias, reduce)
        ctx.eps = eps
        ctx.mark_non_differentiable(mean, variance)
        return _Normed(mean, variance, eps, (weight, bias, reduce)).forward(rows), mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient, *_):  # type: ignore[override]
        rows, mean, variance, *parameters = ctx.saved_tensors
        normed = _Normed(mean, variance, ctx.eps, parameters)
        return *normed.backward(gradient.contiguous(), rows), None


class _Finest(torch.autograd.Function):
    """Stride 4: R(BN(W u + up(c2) + resize(v1))), batch mean and variance; keeps one map, c1.

    Rows go by (row of c1 even or odd, image, row of c2, column of c1): so each product of matrices
    with a half of `up` writes its rows where they belong.
    """

    @staticmethod
    def forward(  # type: ignore[override]
        ctx, u, project, project_bias, c2, up, up_bias, tap, weight, bias, reduce, eps
    ):
        batch, _, height, width = c2.shape
        u_rows, c2_rows = _by_parity(u), _rows(c2).flatten(0, 1)
        c1 = u.new_empty(2, batch * height * width, 2 * up.shape[1])
        # A row of c2 makes two rows of c1; each half
        # holds two columns side by side, 2 * D numbers.
        both = up_bias.repeat(2) + project_bias.repeat(2)
        for half, matrix in zip(c1, _halves(up), strict=True):
            torch.addmm(both, c2_rows, matrix, out=half)
        rows = c1.view(len(u_rows), -1).addmm_(u_rows, project.flatten(1).t())
        across, down = _resizing(tap, c2)
        stretched = (across @ tap.permute(0, 2, 3, 1)).flatten(2)  # (B, H, 4W * D)
        for half, matrix in zip(c1, down, strict=True):
            half.view(batch, height, -1).baddbmm_(matrix.expand(batch, -1, -1), stretched)
        mean, variance = _statistics(rows)
        ctx.save_for_backward(
            *(u, project, c2, up, tap, rows, mean, variance, weight, bias, reduce)
        )
        ctx.eps = eps
        ctx.mark_non_differentiable(mean, variance)
        f = _Normed(mean, variance, eps, (weight, bias, reduce)).forward(rows)
        f = f.view(2, batch, height, 2 * width, -1).permute(1, 2, 0, 3, 4)
        return f.flatten(1, 2).permute(0, 3, 1, 2), mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient, *_):  # type: ignore[override]
        u, project, c2, up, tap, rows, mean, variance, *parameters = ctx.saved_tensors
        batch, _, height, width = c2.shape
        normed = _Normed(mean, variance, ctx.eps, parameters)
        of_rows, *of_norm = normed.backward(_by_parity(gradient), rows)
        of_c1 = of_rows.view(2, batch * height * width, -1)
        u_rows, c2_rows = _by_parity(u), _rows(c2).flatten(0, 1)
        of_project = of_rows.t() @ u_rows
        of_u = (of_rows @ project.flatten(1)).view(2, batch, height, 2 * width, -1)
        of_u = of_u.permute(1, 4, 2, 0, 3).reshape(u.shape)
        of_up, of_c2 = torch.empty_like(up), torch.zeros_like(c2_rows)
        for parity, (half, matrix) in enumerate(zip(of_c1, _halves(up), strict=True)):
            of_c2.addmm_(half, matrix.t())
            product = (c2_rows.t() @ half).view(len(up), 2, -1)  # (C, x, D)
            of_up[:, :, parity] = product.transpose(1, 2)
        across, down = _resizing(tap, c2)
        halves = (
            matrix.t() @ half.view(batch, height, -1)
            for half, matrix in zip(of_c1, down, strict=True)
        )
        stretched = sum(halves).view(batch, tap.shape[2], 2 * width, -1)  # type: ignore[union-attr]
        of_tap = (across.t() @ stretched).permute(0, 3, 1, 2)
        of_c2 = of_c2.view(batch, height, width, -1).permute(0, 3, 1, 2)
        # BatchNorm takes away what a bias adds: its gradient is zero, not the rounding of a sum.
        none = torch.zeros_like(mean)
        of_projection = (of_project.view_as(project), none)
        return of_u, *of_projection, of_c2, of_up, none.clone(), of_tap, *of_norm, None


def _by_parity(x: Tensor) -> Tensor:
    """Return the rows of a map (B, C, 2H, W), even rows of the map first: (2 * B * H * W, C)."""
    return x.unflatten(2, (-1, 2)).permute(3, 0, 2, 4, 1).reshape(-1, x.shape[1])


def _halves(up: Tensor) -> Tensor:
    """Return the kernels (C, D, 2, 2) as one matrix for each row of an output, (2, C, 2 * D)."""
    return up.permute(2, 0, 3, 1).flatten(2)


def _resizing(tap: Tensor, c2: Tensor) -> tuple[Tensor, Tensor]:
    """Return the matrices that resize a tap to stride 4: across (4W, W), down (2, 2H, H)."""
    across = _weights_of_resizing(tap.shape[3], 2 * c2.shape[3], tap)
    down = _weights_of_resizing(tap.shape[2], 2 * c2.shape[2], tap)
    return across, down.unflatten(0, (-1, 2)).transpose(0, 1)
