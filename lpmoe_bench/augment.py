"""Training images varied at random: resized and cropped, and distorted in brightness and colour."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

Draws = Iterator[float]  # each in [0, 1)
BRIGHTNESS = 32 / 255
CONTRAST = SATURATION = (0.5, 1.5)
HUE_DEGREES = 36.0


def rescale(
    image: Tensor, mask: Tensor, scale: tuple[float, float], draws: Draws
) -> tuple[Tensor, Tensor]:
    """Resize by a factor between two and cut a square of the old size out of it.

    image: (3, s, s) in [0, 1]; mask: (1, s, s). What a smaller image leaves free is of its mean
    colour and no object. Takes three draws.
    """
    size = image.shape[-1]
    side = max(1, round(size * _between(scale, next(draws))))
    large = F.interpolate(image[None], (side, side), mode="bilinear", antialias=True)[0]
    truth = F.interpolate(mask[None], (side, side), mode="nearest-exact")[0]
    top, left = (int(next(draws) * (abs(side - size) + 1)) for _ in range(2))
    if side >= size:
        cut = (..., slice(top, top + size), slice(left, left + size))
        return large[cut].clamp(0, 1), truth[cut]
    place = (..., slice(top, top + side), slice(left, left + side))
    whole, blank = image.mean((1, 2), keepdim=True).repeat(1, size, size), torch.zeros_like(mask)
    whole[place], blank[place] = large.clamp(0, 1), truth
    return whole, blank


def distort(image: Tensor, draws: Draws) -> Tensor:
    """Change brightness, contrast, saturation and hue, each in half of the cases.

    image: (3, h, w) in [0, 1]. The ranges are those of mmsegmentation's photometric distortion, as
    is that contrast changes before or after the colours. Takes nine draws.
    """
    change = [(next(draws) < 0.5, next(draws)) for _ in range(4)]
    contrast_first = next(draws) < 0.5
    (bright, amount), contrast, saturation, hue = change
    pixels = image + bright * BRIGHTNESS * (2 * amount - 1)
    if contrast_first:
        pixels = _contrast(pixels, *contrast)
    if saturation[0] or hue[0]:
        pixels = _colours(pixels.clamp(0, 1), saturation, hue)
    if not contrast_first:
        pixels = _contrast(pixels, *contrast)
    return pixels.clamp(0, 1)


def _contrast(pixels: Tensor, used: bool, amount: float) -> Tensor:
    return pixels * _between(CONTRAST, amount) if used else pixels


def _colours(pixels: Tensor, saturation: tuple[bool, float], hue: tuple[bool, float]) -> Tensor:
    """Scale the saturation and turn the hue of pixels in [0, 1]."""
    rgb = np.ascontiguousarray(pixels.permute(1, 2, 0).numpy())
    hsv = cv2.cvtColor(rgb, cv2.COLOR_RGB2HSV)  # 0 to 360 degrees, 0 to 1, 0 to 1
    if saturation[0]:
        hsv[..., 1] = np.clip(hsv[..., 1] * _between(SATURATION, saturation[1]), 0, 1)
    if hue[0]:
        hsv[..., 0] = (hsv[..., 0] + HUE_DEGREES * (2 * hue[1] - 1)) % 360
    return torch.from_numpy(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)).permute(2, 0, 1)


def _between(limits: tuple[float, float], share: float) -> float:
    low, high = limits
    return low + (high - low) * share
