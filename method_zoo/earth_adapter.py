"""Earth-Adapter: Mixture of Frequency Adaptation. Hu et al., 2025, arXiv 2504.06220.

Behind every block, on the patches f: f <- f + s E1(f), E(f) = Up ReLU(Down f). In some blocks three
experts are mixed: f <- f + s (g0 E1(f) + g1 E2(low f) + g2 E3(high f)), g = softmax(G f) for each
token. low f keeps the middle square of the shifted Fourier transform of the grid, of half-side
int(min(H, W) rho // 2); high f is the rest. s, one number a block, starts at 0.1 and the experts at
random: it does not start at the frozen model.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .method import Backbone, Method, Tokens, ZooError, at_least, one_of
from .parts.deformable import full_precision, precise

ENDS = ("last", "first")


class EarthAdapter(Method):
    """bottleneck: channels between Down and Up. fourier: how many blocks mix three experts, 0 for
    none. at: whether these are the "last" blocks, as for remote sensing, or the "first", as for
    generalisation to other domains. cutoff: rho, the share of the frequencies that are low."""

    title = "Earth-Adapter"
    paper = "arXiv 2504.06220"
    fidelity = (
        "equal to the authors' module to 1e-5, from a specification of it; their code builds "
        "experts and routers in every block and uses those of the mixing ones alone (4,868,448 "
        "parameters on ViT-L, of which 2,861,439 idle), here only those exist that are used; any "
        "grid is taken where theirs is fixed at 32 x 32; their learned map beside the tokens, off "
        "by default, is not here"
    )
    identity_at_init = False
    needs_one_width = True
    without_gradient = {
        "experts.1.down.weight": "a grid whose sides times cutoff are below 2 has no low frequency"
    }
    unmergeable = "it bends what the blocks return, in part by the frequencies of each image"
    preset = {"lr": 1e-4}

    def __init__(
        self,
        backbone: Backbone,
        bottleneck: int = 32,
        fourier: int = 3,
        at: str = "last",
        cutoff: float = 0.2,
    ):
        super().__init__(backbone)
        at_least("bottleneck", bottleneck, 1)
        one_of("at", at, ENDS)
        if not 0 <= fourier <= backbone.depth:
            raise ZooError(f"fourier is {fourier}; a backbone of {backbone.depth} blocks takes 0 "
                           f"to {backbone.depth}")  # fmt: skip
        if not 0 < cutoff <= 1:
            raise ZooError(f"cutoff is {cutoff}; it must be above 0 and at most 1")
        first = backbone.depth - fourier if at == "last" else 0
        mixing = range(first, first + fourier)
        self.adapters = nn.ModuleList(
            FrequencyExperts(backbone.dim, bottleneck, cutoff)
            if i in mixing
            else Expert(backbone.dim, bottleneck)
            for i in range(backbone.depth)
        )
        self.scale = nn.Parameter(torch.full((backbone.depth,), 0.1))

    def block(self, i: int, t: Tokens) -> Tokens:
        t = self.backbone.block(i, t)
        return t.with_patches(t.patches + self.scale[i] * self.adapters[i](t.patches, t.grid))


class Expert(nn.Module):
    """E(f) = Up ReLU(Down f); the grid is not looked at."""

    def __init__(self, dim: int, width: int):
        super().__init__()
        self.down, self.up = nn.Linear(dim, width), nn.Linear(width, dim)

    def forward(self, f: Tensor, grid: tuple[int, int]) -> Tensor:
        """Patches (B, N, C) to their update, (B, N, C)."""
        return self.up(F.relu(self.down(f)))


class FrequencyExperts(nn.Module):
    """Three experts, for the patches, their low and their high frequencies, weighed by token."""

    def __init__(self, dim: int, width: int, cutoff: float):
        super().__init__()
        self.experts = nn.ModuleList(Expert(dim, width) for _ in range(3))
        self.router, self.cutoff = nn.Linear(dim, 3), cutoff

    def forward(self, f: Tensor, grid: tuple[int, int]) -> Tensor:
        """Patches (B, N, C) to their update, (B, N, C)."""
        bands = (f, *split_bands(f, grid, self.cutoff))
        share = self.router(f).softmax(-1).unsqueeze(2).unbind(-1)  # three of (B, N, 1)
        parts = [g * e(b, grid) for g, e, b in zip(share, self.experts, bands, strict=True)]
        return torch.stack(parts).sum(0)


def split_bands(f: Tensor, grid: tuple[int, int], cutoff: float) -> tuple[Tensor, Tensor]:
    """Return the low and the high frequencies of patches, (B, N, C) each, in float32.

    Args:
        f: the patches, (B, N, C).
        grid: H and W, N of them.
        cutoff: rho; on a small grid it may leave no low frequency at all.
    """
    half = int(min(grid) * cutoff // 2)
    rows, columns = (_low(side, half, f.device) for side in grid)
    with full_precision(f):
        maps = precise(f).unflatten(1, grid)
        spectrum = torch.fft.fft2(maps, dim=(1, 2), norm="ortho")
        kept = spectrum * (rows[:, None] & columns)[:, :, None]
        # The square has one more row and column below the middle than above: what is left of the
        # spectrum belongs to no real map, and the real part is taken, as the authors do.
        low = torch.fft.ifft2(kept, dim=(1, 2), norm="ortho").real
        return low.flatten(1, 2), (maps - low).flatten(1, 2)


def _low(side: int, half: int, device: torch.device) -> Tensor:
    """Say which frequencies of an axis lie at most `half` below or less than it above zero."""
    at = torch.arange(side, device=device)
    middle = side // 2
    return torch.fft.ifftshift((at >= middle - half) & (at < middle + half))
