"""Layers that several methods share, and those that a paper's model is made of."""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.grad import conv2d_weight

from ..errors import ZooError


def zeroed(layer: nn.Linear) -> nn.Linear:
    """Set weight and bias of a layer to zero, so that what ends in it starts without effect."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def start_as_timm(module: nn.Module) -> None:
    """Draw a linear layer as timm draws those of a ViT, for `Module.apply`; others stay."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)


def quick_gelu(x: Tensor) -> Tensor:
    """Return x sigmoid(1.702 x), which is near GELU."""
    return x * torch.sigmoid(1.702 * x)


class Bottleneck(nn.Module):
    """Up(dropout(act(Down(x)))). Up starts at zero, Down Kaiming-uniform: of two factors that both
    start at zero neither would ever move."""

    def __init__(self, dim: int, width: int, act: Callable[[Tensor], Tensor], dropout: float = 0.0):
        super().__init__()
        self.down, self.up = nn.Linear(dim, width), nn.Linear(width, dim)
        self.act, self.dropout = act, nn.Dropout(dropout)
        # a = sqrt(5) is how PyTorch starts a linear layer: uniform within 1 / sqrt(inputs).
        nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
        nn.init.zeros_(self.down.bias)
        zeroed(self.up)

    def forward(self, x: Tensor) -> Tensor:
        return self.up(self.dropout(self.act(self.down(x))))


def scaled_norm(norm: nn.LayerNorm, x: Tensor, gain: Tensor) -> Tensor:
    """Return gain * norm(x), the gain multiplied into the norm's own scale and shift."""
    return F.layer_norm(x, norm.normalized_shape, norm.weight * gain, norm.bias * gain, norm.eps)


def add_filtered(maps: Tensor, kernel: Tensor, bias: Tensor, share: Tensor | None = None) -> Tensor:
    """Return p z + K z + c of maps z, (B, C, H, W), with p as part of the kernel.

    Args:
        maps: z.
        kernel: K, (C, 1, k, k), k odd: one filter a channel.
        bias: c, (C,).
        share: p, (C,); without it one.
    """
    side, groups = kernel.shape[-1] // 2, len(kernel)
    if maps.is_meta or torch.is_autocast_enabled(maps.device.type):
        # In half precision a small K would be lost beside p, in the middle of the kernel.
        kept = maps if share is None else maps * share[:, None, None]
        return kept + F.conv2d(maps, kernel, bias, padding=side, groups=groups)
    share = kernel.new_ones(1) if share is None else share
    # p z is a filter too: p in the middle and zeros around.
    kernel = kernel + F.pad(share.view(-1, 1, 1, 1), [side] * 4)
    return F.conv2d(maps, kernel, bias, padding=side, groups=groups)


def convolve_each(maps: Tensor, kernels: Tensor) -> Tensor:
    """Maps (B, C, H, W) and kernels (B, O, I, k, k), k odd, to (B, O, H, W).

    I = C is a dense kernel, I = 1 one filter a channel. The sides are padded with zeros.
    """
    batch, channels, height, width = maps.shape
    if kernels.shape[2] == 1 and maps.device.type == "cpu":
        # Channels last, which CPUs filter several times as fast, above all backward.
        joined = maps.permute(2, 3, 0, 1).reshape(1, height, width, -1).permute(0, 3, 1, 2)
        side = kernels.shape[-1] // 2
        joined = F.conv2d(joined, kernels.flatten(0, 1), padding=side, groups=batch * channels)
        return joined[0].unflatten(0, (batch, -1))
    # Images become channels of one image: a grouped convolution then gives each its own kernels.
    joined = F.conv2d(
        maps.flatten(0, 1)[None],
        kernels.flatten(0, 1),
        padding=kernels.shape[-1] // 2,
        groups=batch * channels // kernels.shape[2],
    )
    return joined[0].unflatten(0, (batch, -1))


# One-level Haar wavelet convolution: depthwise kernels on four half-resolution bands.
#
# out = base(x) + H^-1(k * H(x)) with the orthonormal 2 x 2 Haar transform H (WTConv, Finder et al.,
# ECCV 2024, arXiv 2407.05848, with one level).


class WaveletConv(nn.Module):
    """Depthwise convolution of an image and of its Haar bands; both carry a learnt scale."""

    def __init__(self, channels: int, kernel: int):
        super().__init__()
        pad, bands = kernel // 2, 4 * channels
        self.base = nn.Conv2d(channels, channels, kernel, padding=pad, groups=channels)
        self.base_scale = nn.Parameter(torch.ones(1, channels, 1, 1))
        self.bands = nn.Conv2d(bands, bands, kernel, padding=pad, groups=bands, bias=False)
        self.bands_scale = nn.Parameter(torch.full((1, bands, 1, 1), 0.1))

    def forward(self, x: Tensor) -> Tensor:  # (B, C, H, W), odd sides too
        height, width = x.shape[-2:]
        bands = haar(F.pad(x, (0, width % 2, 0, height % 2)))
        detail = inverse_haar(_scaled(self.bands, self.bands_scale, bands))
        return _scaled(self.base, self.base_scale, x) + detail[..., :height, :width]


def haar(x: Tensor) -> Tensor:
    """Return the bands of an even-sized map: (B, C, H, W) -> (B, 4 C, H / 2, W / 2).

    Channel c becomes 4 c to 4 c + 3: average, vertical, horizontal and diagonal difference.
    """
    return _butterfly(F.pixel_unshuffle(x, 2))


def inverse_haar(bands: Tensor) -> Tensor:
    """Undo `haar`: the transform is its own inverse."""
    return F.pixel_shuffle(_butterfly(bands), 2)


def _butterfly(x: Tensor) -> Tensor:
    """Apply the symmetric orthonormal 4 x 4 Haar matrix to each group of four channels."""
    # The pixels a b over c d of each 2 x 2 block. Sums and differences are shared by the bands:
    # eight additions instead of twelve.
    a, b, c, d = (x * 0.5).unflatten(1, (-1, 4)).unbind(2)
    top, bottom, left, right = a + b, c + d, a - b, c - d
    mixed = torch.stack([top + bottom, top - bottom, left + right, left - right], dim=2)
    return mixed.flatten(1, 2)


def _scaled(conv: nn.Conv2d, scale: Tensor, x: Tensor) -> Tensor:
    """Run conv(x) * scale with the scale multiplied into the small kernel instead of the map."""
    weight = conv.weight * scale.view(-1, 1, 1, 1)
    bias = None if conv.bias is None else conv.bias * scale.flatten()
    return convolve_channels(x, weight, bias)


LARGE_MAP = 2**18  # numbers from which on the gradient of a kernel is worth several calls


def convolve_channels(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Run one odd square kernel a channel, (C, 1, k, k), on maps (B, C, H, W); zeros around."""
    large = weight.shape[2] > 3 and x.numel() >= LARGE_MAP
    if large and x.device.type == "cpu" and _is_plain(x, weight):
        return _Depthwise.apply(x, weight, bias)
    return F.conv2d(x, weight, bias, padding=weight.shape[2] // 2, groups=len(weight))


def _is_plain(x: Tensor, weight: Tensor) -> bool:
    same = x.dtype == weight.dtype and not torch.is_autocast_enabled("cpu")
    return same and not torch.compiler.is_compiling()


class _Depthwise(torch.autograd.Function):
    """The gradient of a large kernel, 3 x 3 of its taps at a time: for those oneDNN has a kernel
    that takes a thirtieth of the time of all taps of 7 x 7."""

    @staticmethod
    def forward(ctx, x, weight, bias):  # type: ignore[override]
        ctx.save_for_backward(x, weight)
        ctx.has_bias = bias is not None
        return F.conv2d(x, weight, bias, padding=weight.shape[2] // 2, groups=len(weight))

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):  # type: ignore[override]
        x, weight = ctx.saved_tensors
        channels, size = len(weight), weight.shape[2]
        pad, (height, width) = size // 2, x.shape[2:]
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        of_x = F.conv2d(gradient, weight.flip(2, 3), padding=pad, groups=channels)
        framed = F.pad(x, (pad, pad, pad, pad))
        # Starts that cover all taps, the last of which may overlap: 0, 3, 4 of seven.
        starts = sorted({*range(0, size - 2, 3), size - 3})
        of_weight = torch.empty_like(weight)
        for row in starts:
            for column in starts:
                # Tap (row, column) sees the frame moved by as
                # much; a block of 3 x 3 taps needs 2 more a side.
                part = framed[:, :, row : row + height + 2, column : column + width + 2]
                part = part.contiguous(memory_format=torch.channels_last)
                block = conv2d_weight(part, (channels, 1, 3, 3), gradient, groups=channels)
                of_weight[:, :, row : row + 3, column : column + 3] = block
        of_bias = gradient.permute(0, 2, 3, 1).flatten(0, 2).sum(0) if ctx.has_bias else None
        return of_x, of_weight, of_bias


# The mixture of four heterogeneous convolution experts of Controllable-LPMoE, gated per image.
#
# M(u) = sum over e of g_e expert_e(u), g = softmax(W mean(u) + b). Each expert: z = unit(u), a3 =
# K3(z), a5 = K5(z + a3), a7 = K7(z + a5), out = unit([a3, a5, a7, z]); the experts differ in K.

KERNELS = (3, 5, 7)


class Unit(nn.Module):
    """A convolution, BatchNorm and ReLU; `norms` copies of the norm serve different scales."""

    def __init__(self, conv: nn.Module, channels: int, norms: int = 1):
        super().__init__()
        self.conv = conv
        self.norms = nn.ModuleList(nn.BatchNorm2d(channels) for _ in range(norms))

    def forward(self, x: Tensor, scale: int = 0) -> Tensor:
        return self.norms[scale % len(self.norms)](convolve(self.conv, x)).relu_()


def convolve(conv: Any, x: Tensor) -> Tensor:
    """Run a convolution on a channels-last map in the form that is fastest for its kernel."""
    if isinstance(conv, nn.Conv2d) and conv.kernel_size == (1, 1):
        y = F.linear(x.permute(0, 2, 3, 1), conv.weight.flatten(1), conv.bias)
        return y.permute(0, 3, 1, 2)
    if isinstance(conv, nn.Conv2d) and conv.groups > 1:
        return convolve_channels(x, conv.weight, conv.bias)
    return conv(x)


class Chain(nn.ModuleList):
    """Units run one after the other."""

    def forward(self, x: Tensor, scale: int = 0) -> Tensor:
        for unit in self:
            x = unit(x, scale)
        return x


Branch = Callable[[int, int, int], nn.Module]


def depthwise(channels: int, kernel: int, norms: int) -> nn.Module:
    """Expert 0: one kernel a channel."""
    conv = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=channels)
    return Unit(conv, channels, norms)


def atrous(channels: int, kernel: int, norms: int) -> nn.Module:
    """Expert 1: 3 x 3 kernels whose taps lie `kernel` pixels apart."""
    conv = nn.Conv2d(channels, channels, 3, padding=kernel, dilation=kernel)
    return Unit(conv, channels, norms)


def asymmetric(channels: int, kernel: int, norms: int) -> nn.Module:
    """Expert 2: a row kernel, then a column kernel."""
    row = nn.Conv2d(channels, channels, (1, kernel), padding=(0, kernel // 2))
    column = nn.Conv2d(channels, channels, (kernel, 1), padding=(kernel // 2, 0))
    return Chain([Unit(row, channels, norms), Unit(column, channels, norms)])


def wavelet(channels: int, kernel: int, norms: int) -> nn.Module:
    """Expert 3: kernels on the image and on its Haar bands."""
    return Unit(WaveletConv(channels, kernel), channels, norms)


class PriorExpert(nn.Module):
    """The skeleton all four experts share, around branches of one kind."""

    def __init__(self, branch: Branch, width: int, norms: int):
        super().__init__()
        inner = width // 4
        self.enter = Unit(nn.Conv2d(width, inner, 1), inner, norms)
        self.branches = nn.ModuleList(branch(inner, kernel, norms) for kernel in KERNELS)
        self.leave = Unit(nn.Conv2d(4 * inner, width, 1), width, norms)

    def forward(self, u: Tensor, scale: int = 0) -> Tensor:
        z = self.enter(u, scale)
        # a3 = K3(z), a5 = K5(z + a3), a7 = K7(z + a5):
        # each kernel reads the result of the one before.
        outputs: list[Tensor] = []
        for branch in self.branches:
            outputs.append(branch(z + outputs[-1] if outputs else z, scale))
        return self.leave(torch.cat([*outputs, z], dim=1), scale)


class Mixture(nn.Module):
    """All four experts, always evaluated, weighted by one gate per image and scale.

    There is no top-k, noise, temperature or balance loss (spec, section 1). norms: 1 for BatchNorm
    shared by the scales as the authors have it, or one copy per scale.
    """

    def __init__(self, width: int, norms: int):
        super().__init__()
        kinds = (depthwise, atrous, asymmetric, wavelet)
        self.experts = nn.ModuleList(PriorExpert(kind, width, norms) for kind in kinds)
        self.gate = nn.Linear(width, len(kinds))

    def weigh(self, u: Tensor) -> Tensor:
        """Return the weight of each expert for each image, (B, 4)."""
        # As rows: the gradient of a mean over maps would come back channels first.
        return self.gate(u.permute(0, 2, 3, 1).flatten(1, 2).mean(1)).softmax(-1)

    def forward(self, u: Tensor, scale: int = 0) -> Tensor:
        return _Weighted.apply(self.weigh(u), *(expert(u, scale) for expert in self.experts))


class _Weighted(torch.autograd.Function):
    """The sum of maps (B, C, H, W), each by a weight of each image, (B, number of maps).

    By itself the product keeps every map twice and makes a map for the gradient of each number.
    """

    @staticmethod
    def forward(ctx, weights, *maps):  # type: ignore[override]
        ctx.save_for_backward(weights, *maps)
        # (B, maps) to one factor (B, 1, 1, 1) for each map.
        first, *rest = weights.to(maps[0].dtype)[:, :, None, None, None].unbind(1)
        total = maps[0] * first
        for weight, other in zip(rest, maps[1:], strict=True):
            total.addcmul_(other, weight)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):  # type: ignore[override]
        weights, *maps = ctx.saved_tensors
        own = weights.to(gradient.dtype)[:, :, None, None, None].unbind(1)
        row = _in_a_row(gradient)[:, None]
        # Sum over all places and channels of gradient times map: one number an image and map.
        products = [(row @ _in_a_row(m)[..., None]).flatten() for m in maps]
        of_weights = torch.stack(products, dim=1).to(weights.dtype)
        return of_weights, *(gradient * weight for weight in own)


def _in_a_row(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1).flatten(1)  # (B, H * W * C), a view of a channels-last map


# The dynamic mixed local-prior extractor of Controllable-LPMoE: an image to four prior maps.
#
# u_1 = pool(unit(image)), u_k = unit(u'_{k-1}) with stride 2; u'_k = u_k + M(u_k); p_k = W u'_k.
# The mixture M and the projection W are the same for all four scales.

SCALES = 4


class PriorExtractor(nn.Module):
    """A small convolutional network beside the backbone (spec, section 1).

    width: its channels at every scale. norm: "shared" BatchNorm in the mixture, as the authors have
    it, or "per_scale": a copy of each BatchNorm for each scale, the other weights shared.
    """

    def __init__(self, dim: int, width: int = 64, norm: str = "shared"):
        super().__init__()
        if width < 4 or width % 4:
            raise ZooError(f"width is {width}; it must be a positive multiple of 4")
        if norm not in ("shared", "per_scale"):
            raise ZooError(f"norm is {norm!r}; allowed are 'shared' (as in the paper), 'per_scale'")
        self.stem = Unit(nn.Conv2d(3, width, 3, stride=2, padding=1), width)
        self.downs = nn.ModuleList(
            Unit(nn.Conv2d(width, width, 3, stride=2, padding=1), width) for _ in range(SCALES - 1)
        )
        self.mixture = Mixture(width, SCALES if norm == "per_scale" else 1)
        self.project = nn.Conv2d(width, dim, 1)

    def forward(self, image: Tensor, projected: bool = True) -> list[Tensor]:
        """Normalised image, (B, 3, h, w), to maps (B, C, ., .) at strides 4, 8, 16, 32.

        projected: False leaves the maps at the extractor's own width, for who projects them.
        """
        # Channels last throughout: the maps become tokens, and meet tokens, without a copy.
        image = image.contiguous(memory_format=torch.channels_last)
        u = F.max_pool2d(self.stem(image), 3, stride=2, padding=1)
        maps = []
        for scale in range(SCALES):
            if scale > 0:
                u = self.downs[scale - 1](u)
            u = u + self.mixture(u, scale)
            maps.append(u)
        if not projected:
            return maps
        return [as_tokens(u, self.project).mT.unflatten(2, u.shape[-2:]) for u in maps]


def as_tokens(u: Tensor, project: nn.Conv2d) -> Tensor:
    """Run a 1 x 1 convolution on a map (B, C, H, W), channels first, to tokens (B, H * W, D)."""
    # Few channels become many: it is the small map that is transposed.
    return F.linear(u.flatten(2).transpose(1, 2), project.weight.flatten(1), project.bias)
