"""Palettes of nature: tones from dark to light, two rows that a scene mixes."""

from __future__ import annotations

import numpy as np

from lpmoe_bench.generated.textures import Array, Draw

# Tones from dark to light, RGB; each scene mixes two neighbours of one row.
PALETTES = (
    (((38, 27, 20), (96, 70, 50), (150, 120, 92), (205, 182, 152)),
     ((30, 30, 24), (84, 78, 60), (132, 126, 104), (190, 188, 168))),  # bark
    (((44, 26, 14), (122, 70, 30), (178, 118, 58), (224, 184, 122)),
     ((36, 28, 20), (98, 78, 56), (148, 128, 98), (204, 190, 160))),  # leaf litter
    (((92, 72, 50), (158, 132, 98), (196, 172, 136), (232, 216, 186)),
     ((86, 76, 66), (146, 132, 116), (188, 176, 158), (226, 218, 204))),  # sand
    (((10, 42, 50), (28, 94, 104), (84, 148, 146), (176, 208, 190)),
     ((16, 34, 60), (44, 82, 116), (100, 138, 156), (178, 200, 204))),  # water
    (((18, 30, 12), (56, 84, 30), (112, 138, 58), (188, 200, 124)),
     ((28, 30, 14), (82, 82, 36), (134, 132, 70), (198, 192, 138))),  # moss and grass
    (((40, 40, 42), (96, 96, 96), (146, 144, 138), (206, 202, 192)),
     ((44, 38, 34), (106, 96, 86), (152, 142, 128), (208, 200, 186))),  # rock and lichen
)  # fmt: skip


def coloured(tone: Array, mix: Array, palette: tuple) -> Array:
    """Tones and a mix of two colour rows, both in [0, 1], to RGB in 0 to 255: (h, w, 3)."""
    stops = np.linspace(0, 1, 4)
    one, two = (
        np.stack([np.interp(tone, stops, [c[k] for c in row]) for k in range(3)], axis=-1)
        for row in palette
    )
    return one + (two - one) * mix[..., None]


def vivid(draw: Draw, strongest: float = 0.75) -> tuple:
    """A palette of any hue, weak or strong: two rows of four tones as in PALETTES."""
    hue, strength = draw.real(0, 2 * np.pi), draw.real(0.1, strongest)
    rows = []
    for turn in (0.0, draw.real(-0.9, 0.9)):
        angle = hue + turn + np.array([0, -2, 2]) * np.pi / 3
        colour = 1 + strength * np.cos(angle)
        rows.append(tuple(tuple(level * colour) for level in (34.0, 84.0, 134.0, 190.0)))
    return tuple(rows)
