"""Likeness in the frozen backbone's own features: how well each patch is found in the other image.

It is what training sees of an image, so two images that are alike here are one to a method.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from lpmoe_bench.data.audit.search import FeatureLikeness, Question
from lpmoe_bench.errors import BenchError

if TYPE_CHECKING:
    from torch import Tensor

    from lpmoe_bench.model.weights.resolve import Weights

SIZE = 224  # pixels; a grid of 14 x 14 patches
KEPT = 512  # images whose features are held at once: an image has several candidates


def default_features(
    cache: Path, offline: bool, say: Callable[[str], None] = lambda text: None
) -> tuple[FeatureLikeness | None, str]:
    """Return what compares in the default backbone's features, or None and the reason why there is
    nothing; `say` is told when its weights must be fetched."""
    if find_spec("torch") is None:  # not imported: most audits have nothing to ask, or are kept
        return None, "torch is not installed"
    from lpmoe_bench.model.weights.default_backbone import NAME
    from lpmoe_bench.model.weights.resolve import resolve_weights

    try:
        weights = resolve_weights(NAME, None, cache, offline, say)
    except BenchError as error:
        return None, str(error)
    compare = partial(feature_likeness, weights)
    return FeatureLikeness(weights.backbone, weights.sha256, compare), ""


def feature_likeness(
    weights: Weights,
    questions: Sequence[Question],
    report: Callable[[int, int], None] | None = None,
) -> list[float]:
    """Return for each pair the mean cosine, -1 to 1, of every patch with the one most like it in
    the other image, both ways: patches need not be at the same place, so crops count as alike.

    `report` is told (pairs done, all pairs). Raises DataError for an image that cannot be read.
    """
    import torch
    import torch.nn.functional as F

    from lpmoe_bench.data.images import read_image
    from lpmoe_bench.data.loader import image_tensor
    from lpmoe_bench.model.weights.resolve import load_backbone

    backbone = load_backbone(weights)

    @lru_cache(KEPT)
    @torch.no_grad()
    def patches(path: Path, mirrored: bool) -> Tensor:
        image = image_tensor(read_image(path), (SIZE, SIZE), version=1)
        tokens = backbone.embed((image.flip(-1) if mirrored else image)[None])
        for g, group in enumerate(backbone.groups):
            # Stages of a hierarchical backbone are joined
            # by `merge`; a plain one does nothing there.
            tokens = backbone.merge(g, tokens) if g else tokens
            for block in group:
                tokens = backbone.block(block, tokens)
        return F.normalize(backbone.norm(tokens).patches[0], dim=-1)  # (N, C)

    found = []
    for done, (one, other, mirrored) in enumerate(questions, start=1):
        cosines = patches(one, False) @ patches(other, mirrored).T
        # The mean of both ways: each patch of one image with its best partner in the other.
        both = (cosines.amax(0).mean() + cosines.amax(1).mean()) / 2
        found.append(float(both))
        if report is not None:
            report(done, len(questions))
    return found
