"""Camouflage: an animal-like shape in its surroundings' tones, with another pattern or scale.

The texture's tones and colours have the distribution of the surroundings; a faint shading follows
the body. Lengths are fractions of the shorter side, so a scene looks alike at any size.
"""

import numpy as np
from scipy import ndimage

from lpmoe_bench.data.scenes import drawing as dr
from lpmoe_bench.data.scenes.drawing import Array, Draw, Shape
from lpmoe_bench.data.scenes.embedded import EmbeddedSet

SHAPES = ((264, 352), (352, 264), (352, 352), (288, 352), (352, 288), (236, 352))
SHARES = (0.022, 0.38)  # allowed part of the image that is object


def outline(draw: Draw, shape: Shape) -> Array:
    """One body, at times two, whose share of the image lies within SHARES: bool (h, w)."""
    low, high = SHARES
    for _ in range(20):
        share = low * (0.9 * high / low) ** draw.real(0.15, 1)
        mask = dr.body(draw, shape, share)
        if draw.real(0, 1) < 0.12:
            mask |= dr.body(draw, shape, 0.5 * share)
        if low <= mask.mean() <= high:
            return mask
    x, y = dr.frame(shape, 0.0)
    return np.hypot(y / shape[0] - 0.5, x / shape[1] - 0.5) < 0.2  # a disc, share 0.13


def matched(field: Array, mask: Array, reference: Array) -> Array:
    """Map a field so that its values inside the mask are distributed as the reference's outside:
    then no threshold on tones tells where the object is."""
    # Quantile by quantile: the value that a share of the own pixels lies below becomes that which
    # the same share of the reference's lies below.
    levels = np.linspace(0, 1, 129)
    own, target = np.quantile(field[mask], levels), np.quantile(reference[~mask], levels)
    return np.interp(field, own, target)


def shading(draw: Draw, mask: Array) -> Array:
    """Relative change of brightness (h, w): patchy daylight everywhere, a rounded body, and the
    narrow shadow it throws away from the light."""
    side, light = min(mask.shape), draw.real(0, 2 * np.pi)
    sky = np.array([np.sin(light), np.cos(light)])
    daylight = 0.16 * np.tanh(dr.noise(draw, mask.shape, 0.45 * side))
    dapple = -0.16 / (1 + np.exp(-8 * (dr.noise(draw, mask.shape, 0.25 * side) - 1.2)))
    depth = ndimage.distance_transform_edt(mask)
    dome = ndimage.gaussian_filter(np.sqrt(np.minimum(depth / (0.06 * side), 1)), 0.012 * side)
    down, right = np.gradient(dome)
    lit = np.tanh((down * sky[0] + right * sky[1]) * 0.06 * side)
    thrown = ndimage.shift(mask.astype(np.float64), 0.012 * side * sky, order=1)
    thrown = ndimage.gaussian_filter(thrown, 0.012 * side) * ~mask
    return daylight + dapple + 0.4 * lit * mask - 0.4 * thrown


def draw_scene(draw: Draw, shape: Shape) -> tuple[Array, Array]:
    side, mask = min(shape), outline(draw, shape)
    fine, coarse = draw.real(0.018, 0.028) * side, draw.real(0.045, 0.065) * side
    lengths = draw.pick(((fine, coarse), (coarse, fine)))
    texture, angle = draw.pick(dr.TEXTURES), draw.real(0, np.pi)
    other = draw.pick(dr.TEXTURES) if draw.real(0, 1) < 0.6 else texture
    ground = texture(draw, shape, lengths[0], angle) + 0.35 * dr.noise(draw, shape, 0.35 * side)
    animal = other(draw, shape, lengths[1], angle + draw.real(1.0, 2.1))
    animal = animal + 0.2 * dr.noise(draw, shape, 0.35 * side)
    tints = [
        dr.noise(draw, shape, 0.3 * side) + dr.noise(draw, shape, 0.08 * side) for _ in range(2)
    ]

    alpha = ndimage.gaussian_filter(mask.astype(np.float64), 0.7)
    tone = ground + (matched(animal, mask, ground) - ground) * alpha
    tint = tints[0] + (matched(tints[1], mask, tints[0]) - tints[0]) * alpha
    low, high = np.quantile(tone, [0.01, 0.99])
    tone = np.clip((tone - low) / (high - low), 0, 1)
    image = dr.coloured(tone, 0.5 + 0.5 * np.tanh(tint), draw.pick(dr.PALETTES))
    image = image * (1 + shading(draw, mask))[..., None]
    image = image + 2.5 * dr.noise(draw, shape, 2.5)[..., None]
    return np.clip(np.rint(image), 0, 255).astype(np.uint8), mask


SET = EmbeddedSet(
    task="cod",
    key=0xC0D,
    version="v1",
    about="Camouflaged scenes: an animal with the tones and colours of what surrounds it.",
    shapes=SHAPES,
    shares=SHARES,
    draw=draw_scene,
)
