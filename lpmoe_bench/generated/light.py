"""Light and lens: relief, thrown shadows, vignette, blur, grain and the rounding to 8 bits."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from lpmoe_bench.generated.textures import Array, Draw, noise


def soft(field: Array, radius: float) -> Array:
    """A field (h, w) or an image (h, w, 3) out of focus by a radius in pixels."""
    sigma = (radius, radius, 0) if field.ndim == 3 else radius
    return ndimage.gaussian_filter(field, sigma, truncate=3.0)


def dome(mask: Array, reach: float) -> Array:
    """Height of a rounded body over its area: 0 outside, 1 from `reach` pixels inside on."""
    depth = np.asarray(ndimage.distance_transform_edt(mask > 0.5))
    rise = np.clip(depth / reach, 0, 1)
    return soft(np.sqrt(rise * (2 - rise)), 0.1 * reach)


def relief(height: Array, angle: float) -> Array:
    """How much a surface faces a light that comes from an angle: -1 to 1; heights in pixels."""
    down, right = np.gradient(height)
    return np.tanh(-(down * np.sin(angle) + right * np.cos(angle)))


def thrown(mask: Array, angle: float, distance: float, blur: float) -> Array:
    """Where an object's shadow falls, 0 to 1, when the light comes from an angle."""
    step = -distance * np.array([np.sin(angle), np.cos(angle)])
    fallen = ndimage.shift(np.asarray(mask, float), step, order=1)
    return np.clip(soft(fallen, blur), 0, 1) * (1 - mask)


def vignette(shape: tuple[int, int], strength: float, reach: float = 1.0) -> Array:
    """Brightness that falls to the corners: 1 in the middle, 1 - strength at radius `reach`,
    in half diagonals."""
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float64)
    y, x = y - (shape[0] - 1) / 2, x - (shape[1] - 1) / 2
    radius = np.hypot(x, y) / (np.hypot(*shape) / 2 * reach)
    return 1 - strength * np.minimum(radius, 1.6) ** 2.5


def blend(image: Array, colour: Array | tuple, alpha: Array) -> Array:
    """An image with a colour, or another image, laid over it where alpha (h, w) is 1."""
    return image + (np.asarray(colour, float) - image) * alpha[..., None]


def photograph(draw: Draw, image: Array, grain: float = 2.5, blur: float = 0.6) -> Array:
    """RGB in 0 to 255 as the camera stores it: slight blur, grain, 8 bits last."""
    image = soft(image, blur) + grain * noise(draw, image.shape[:2], 2.5)[..., None]
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)
