"""The module of AdaRoute: a bottleneck and a cascade of filters whose weights a router mixes."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ._adaroute_center import Center, Router, Uniform
from ._per_image import convolve_each
from ._tokens import Tokens


class DynamicAdapter(nn.Module):
    """What belongs to one place in the network; the center's experts are handed in."""

    def __init__(self, dim: int, width: int, experts: int, sizes: int, router: int, start: float):
        super().__init__()
        self.norm, self.gain = nn.LayerNorm(dim), nn.Parameter(torch.full((dim,), 1e-5))
        kinds = 2 + sizes
        # Over a single expert a softmax is always one, and so is one over a single filter size.
        routed = router > 0 and experts > 1
        self.gates = Router(dim, router, kinds, experts) if routed else Uniform(kinds, experts)
        self.before, self.after = (_filter(dim) if sizes else None for _ in range(2))
        self.mix = nn.Linear(width, sizes) if sizes > 1 else None
        more = max(sizes - 1, 0)
        self.keep, self.carry = (
            nn.ParameterList(torch.ones(()) for _ in range(more)) for _ in "ab"
        )
        self.inner = nn.Linear(width, width)
        self.scale, self.shift = nn.Parameter(torch.full((dim,), start)), _zeros(dim)
        self.skip_scale, self.skip_shift = nn.Parameter(torch.ones(dim)), _zeros(dim)
        for layer in (self.mix, self.inner):
            if layer is not None:
                nn.init.zeros_(layer.bias)

    def forward(self, t: Tokens, center: Center) -> Tokens:
        """Tokens of any prefix and grid, to tokens; the prefix stays as it is."""
        x = t.patches
        u = _add_filtered(self.before, x + self.gain * self.norm(x), t.grid)
        down, up, *filters = center(self.gates(u))
        z = u @ down.mT  # (B, N, r)
        # Without filters the authors' code adds z to itself, which is kept.
        z = z + (self._cascade(z.mT.unflatten(2, t.grid), filters) if filters else z)
        z = F.gelu(z + self.inner(z))
        o = _add_filtered(self.after, z @ up.mT, t.grid)
        skip = self.skip_scale * x + self.skip_shift
        return t.with_patches(self.scale * o + self.shift + skip)

    def _cascade(self, z: Tensor, filters: list[Tensor]) -> Tensor:
        """Filter the map, (B, r, H, W), at growing sizes and mix the results: (B, N, r)."""
        found = [convolve_each(z, filters[0])]
        for a, b, kernel in zip(self.keep, self.carry, filters[1:], strict=True):
            found.append(convolve_each(a * z + b * found[-1], kernel))
        maps = torch.stack(found, dim=1).flatten(3)  # (B, K, r, N)
        if self.mix is None:
            return maps[:, 0].mT
        share = self.mix(maps.sum(1).mT).softmax(-1)  # (B, N, K)
        return (maps * share.mT[:, :, None]).sum(1).mT


def _filter(dim: int) -> nn.Conv2d:
    conv = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)
    return conv


def _zeros(dim: int) -> nn.Parameter:
    return nn.Parameter(torch.zeros(dim))


def _add_filtered(conv: nn.Module | None, x: Tensor, grid: tuple[int, int]) -> Tensor:
    """Add to tokens, (B, N, C), what a filter of each channel makes of them on their grid."""
    return x if conv is None else x + conv(x.mT.unflatten(2, grid)).flatten(2).mT
