"""SAM-Adapter: SAM Fails to Segment Anything? Chen et al., ICCV Workshops 2023, arXiv 2304.09148.

Before block i the patches get x <- x + Up(GELU(Lin_i(e + f))): e = Lin(patch embedding), f = a
16 x 16 patch convolution of the image's high frequencies, both d / scale wide; Up is shared by all
blocks. After EVP (Liu et al., CVPR 2023, arXiv 2303.10883).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .backbones.backbone import STRIDE
from .method import Backbone, Features, Method, ZooError, at_least, one_of
from .parts.layers import start_as_timm

LAYOUTS = ("official", "grid")


class SAMAdapter(Method):
    """scale: by which the prompts' inner width is smaller than the backbone's. 16 gives the
    parameter count that the Conv-LoRA table prints; the authors' repository has 32.
    layout: how the patch embedding reaches Lin. "official" reads the memory of (H, W, C) as if it
    were (C, H W), as the authors' code does, so channels and places are mixed up; "grid" gives
    each place its own embedding, as the paper means it.

    Images more than four times as long as they are wide, or as wide as they are long, depart from
    the authors' code: see `high_frequencies`. A run squashes its images to squares."""

    title = "SAM-Adapter"
    paper = "arXiv 2304.09148"
    fidelity = (
        "the authors' prompt generator to 1e-5, by default with its mixed-up layout of the patch "
        "embedding; with the decoder that all methods share"
    )
    needs_one_width = True
    identity_at_init = False
    unmergeable = "its prompts come from the image itself, block by block"
    preset = {"lr": 1e-3}

    def __init__(self, backbone: Backbone, scale: int = 16, layout: str = "official"):
        super().__init__(backbone)
        at_least("scale", scale, 1)
        one_of("layout", layout, LAYOUTS)
        if backbone.dim % scale:
            raise ZooError(f"scale is {scale}; it must divide the width {backbone.dim}")
        self.prompts = PromptGenerator(backbone.dim, backbone.dim // scale, backbone.depth, layout)

    def forward(self, image: Tensor) -> Features:
        """Image in [0, 1], (B, 3, h, w), to features; each block reads patches plus prompts."""
        backbone, taps = self.backbone, []
        patches = backbone.patchify(image)
        hidden = self.prompts(patches, backbone.normalise(image))
        t = backbone.position(patches)
        for group in backbone.groups:
            for i in group:
                t = self.step(i, t.with_patches(t.patches + self.prompts.prompt(i, hidden)))
            taps.append(backbone.norm(t))
        return Features([tap.map() for tap in taps], backbone.neck(taps[-1]), t.aux)


class PromptGenerator(nn.Module):
    """What is added to the patches before each block, from patch embedding and image."""

    def __init__(self, dim: int, width: int, depth: int, layout: str):
        super().__init__()
        self.layout = layout
        self.embedding = nn.Linear(dim, width)
        self.frequencies = nn.Conv2d(3, width, STRIDE, stride=STRIDE)
        self.block = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.up = nn.Linear(width, dim)
        self.apply(start_as_timm)
        nn.init.normal_(self.frequencies.weight, std=math.sqrt(2 / (STRIDE**2 * width)))
        nn.init.zeros_(self.frequencies.get_parameter("bias"))

    def forward(self, patches: Tensor, image: Tensor) -> Tensor:
        """Patches (B, H, W, C) and the normalised image (B, 3, h, w) to e + f, (B, H * W, k)."""
        frequencies = self.frequencies(high_frequencies(image)).flatten(2).transpose(1, 2)
        if self.layout == "official":
            patches = patches.reshape(patches.shape[0], patches.shape[3], -1).transpose(1, 2)
        else:
            patches = patches.flatten(1, 2)
        return self.embedding(patches) + frequencies

    def prompt(self, i: int, hidden: Tensor) -> Tensor:
        """Return what block i adds to the patches, (B, H * W, C)."""
        return self.up(F.gelu(self.block[i](hidden)))


# The high frequencies of an image: what is left of it without the centre of its spectrum.


def high_frequencies(image: Tensor, share: float = 0.25) -> Tensor:
    """Return |inverse FFT| of the image (B, 3, h, w) without its lowest frequencies.

    Taken out is the central square, of half side sqrt(h w share) / 2, of the shifted spectrum.

    Departs from the authors' code where the square is larger than the short side, which at their
    share of a quarter is beyond an aspect ratio of 4: here all of that side is taken out, there a
    negative index wraps around and leaves almost all in, low frequencies too.
    """
    height, width = image.shape[-2:]
    # A square of h w share frequencies in all: at a quarter, half the side of a square image.
    half = int((height * width * share) ** 0.5 // 2)
    rows, columns = (_outside(side, half, image) for side in (height, width))
    # After the shift the lowest frequencies lie in the middle: what is outside of them is kept.
    keep = torch.maximum(rows[:, None], columns)
    spectrum = torch.fft.fftshift(torch.fft.fft2(image, norm="forward"), dim=(-2, -1))
    spectrum = torch.fft.ifftshift(spectrum * keep, dim=(-2, -1))
    return torch.fft.ifft2(spectrum, norm="forward").real.abs()


def _outside(size: int, half: int, like: Tensor) -> Tensor:
    """Return one where an index is outside the central band of a side, else zero."""
    distance = torch.arange(size, device=like.device) - size // 2
    return ((distance < -half) | (distance >= half)).to(like.dtype)
