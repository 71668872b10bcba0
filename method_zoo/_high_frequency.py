"""The high frequencies of an image: what is left of it without the centre of its spectrum."""

import torch
from torch import Tensor


def high_frequencies(image: Tensor, share: float = 0.25) -> Tensor:
    """Return |inverse FFT| of the image (B, 3, h, w) without its lowest frequencies.

    Taken out is the central square, of half side sqrt(h w share) / 2, of the shifted spectrum.
    """
    height, width = image.shape[-2:]
    half = int((height * width * share) ** 0.5 // 2)
    rows = _outside(height, half, image)
    columns = _outside(width, half, image)
    keep = torch.maximum(rows[:, None], columns)
    spectrum = torch.fft.fftshift(torch.fft.fft2(image, norm="forward"), dim=(-2, -1))
    spectrum = torch.fft.ifftshift(spectrum * keep, dim=(-2, -1))
    return torch.fft.ifft2(spectrum, norm="forward").real.abs()


def _outside(size: int, half: int, like: Tensor) -> Tensor:
    """Return one where an index is outside the central band of a side, else zero."""
    distance = torch.arange(size, device=like.device) - size // 2
    return ((distance < -half) | (distance >= half)).to(like.dtype)
