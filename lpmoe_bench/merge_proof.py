"""How far the features of a merged backbone are from those of the method it was merged from."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain

import torch
import torch.nn.functional as F
from torch import Tensor

from lpmoe_bench.data.scenes.generate import SETS
from method_zoo.method import Method

LIMIT = 1e-5
NOISE = DRAWN = 2  # images of each kind
SIDE = 160  # of a drawn scene, before it is resized
DTYPES = (torch.float32, torch.float64)

Maps = list[list[Tensor]]  # of each image: all maps and the final features


@dataclass(frozen=True)
class Proof:
    """The largest differences over all maps and the final features of all images.

    largest: between the method and its merged weights in single precision, both computed in double
    precision, so that nothing but the weights can differ. single: between the two computed in
    single precision. noise: between the method in single and itself in double precision, without
    which `single` cannot be read: a deep ViT is further than 1e-5 from its own exact features.
    """

    images: int
    largest: float
    single: float
    noise: float

    @property
    def holds(self) -> bool:
        """Say whether the weights stand for the method, in either precision, as far as it goes."""
        readable = math.isfinite(self.single) and self.single < LIMIT + 10 * self.noise
        return self.largest < LIMIT and readable


def proof_images(size: int) -> list[Tensor]:
    """Return seeded noise and scenes drawn in code, each (1, 3, size, size) in [0, 1]."""
    generator = torch.Generator().manual_seed(0)
    noise = [torch.rand(1, 3, size, size, generator=generator) for _ in range(NOISE)]
    draw = SETS["generated_cod"].scene
    scenes = [draw(index, "test", shape=(SIDE, SIDE))[0] for index in range(DRAWN)]
    drawn = [torch.from_numpy(s).permute(2, 0, 1)[None] / 255 for s in scenes]
    return noise + [F.interpolate(d, (size, size), mode="bilinear", antialias=True) for d in drawn]


@torch.no_grad()
def features(method: Method, images: list[Tensor], step: Callable[[], None]) -> list[Maps]:
    """Return the features in single, then in double precision, in which `method` then stays."""
    found: list[Maps] = []
    for dtype in DTYPES:
        method.eval().to(dtype)
        found.append([])
        for image in images:
            maps, final, _ = method(image.to(dtype))
            found[-1].append([*maps, final])
            step()
    return found


def compare(expected: list[Maps], got: list[Maps]) -> Proof:
    """Compare what `features` returned for a method and for its merged backbone."""
    single, double = expected
    images = len(single)
    return Proof(
        images, _largest(double, got[1]), _largest(single, got[0]), _largest(single, double)
    )


def _largest(one: Maps, other: Maps) -> float:
    """Return max |difference| over all maps; what is not a number stays so."""
    pairs = zip(chain(*one), chain(*other), strict=True)
    return torch.stack([(a.double() - b.double()).abs().max() for a, b in pairs]).max().item()
