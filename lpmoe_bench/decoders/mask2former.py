"""Mask2Former: queries with a label and a mask each, 64 wide as in Controllable-LPMoE.

Cheng et al., CVPR 2022, arXiv 2112.01527. With labels p, a softmax over the classes and "nothing",
and masks m, a sigmoid, the score of a class is S_c = sum over queries q of p(q, c) m(q).
"""

from __future__ import annotations

import torch
from torch import Tensor

from lpmoe_bench.decoders._decoder import Decoder, Inputs, full_precision
from lpmoe_bench.decoders._mask2former_pixels import GROUPS, PixelDecoder
from lpmoe_bench.decoders._mask2former_queries import QueryDecoder
from lpmoe_bench.errors import UsageError
from method_zoo.method import Features
from method_zoo.parts.deformable import precise

STRIDES = [4, 8, 16, 32]
SMALLEST = 1e-6  # added to a score before its logarithm


class Mask2Former(Decoder):
    """Reads maps at strides 4, 8, 16 and 32, which lpmoe has; logits come at stride 4.

    width: a multiple of 32. queries: how many. layers: of the queries, which read one level each.
    Where there is one class, its background is a second one, as in the paper, and the logit is
    log(S_object / S_background); its sigmoid is the object's share of both. Else log S_c.
    In training there are logits of the start and of every layer, all supervised alike as in the
    paper. Departs from the paper: each logit is trained with the task's own loss, where the paper
    matches queries to classes for cross-entropy, BCE and Dice; all parameters share one rate.
    """

    title = "Mask2Former"
    reads = "maps"
    paper = "arXiv 2112.01527"
    fidelity = (
        "written from a specification of Controllable-LPMoE's code, with its parameter count; the "
        "ten outputs are supervised as there, but with the task's loss and without matching"
    )

    def __init__(
        self, inputs: Inputs, classes: int, width: int = 64, queries: int = 100, layers: int = 9
    ):
        super().__init__()
        if inputs.strides != STRIDES:
            raise UsageError(
                f"decoder mask2former reads maps at strides {_words(STRIDES)}, but this method "
                f"gives {_words(inputs.strides)}; use lpmoe, or another decoder such as fpn"
            )
        if width < GROUPS or width % GROUPS:
            raise UsageError(f"decoder width is {width}; it must be a multiple of {GROUPS}")
        if queries < 1 or layers < 1:
            raise UsageError(f"queries is {queries} and layers {layers}; both must be 1 or more")
        self.classes = classes
        self.pixels = PixelDecoder(inputs.channels, width)
        self.queries = QueryDecoder(width, queries, layers, labels=max(classes, 2) + 1)

    def forward(self, features: Features) -> Tensor:
        labels, masks = self.queries(*self.pixels(features.maps))
        shares = precise(labels).softmax(-1)[..., :-1]  # less "nothing", the last
        with full_precision(masks):
            scores = torch.einsum("bqc,bqhw->bchw", shares, precise(masks).sigmoid())
        logs = torch.log(scores + SMALLEST)
        return logs[:, 1:] - logs[:, :1] if self.classes == 1 else logs


def _words(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers))
