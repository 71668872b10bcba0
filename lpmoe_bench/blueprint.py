"""A segmenter of shapes alone, on the meta device: nothing is read, drawn or fetched."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import torch

from lpmoe_bench.config.settings import RunConfig
from lpmoe_bench.model import Segmenter
from lpmoe_bench.trained__build import build_segmenter
from lpmoe_bench.weights import RANDOM, load_backbone, resolve_weights
from method_zoo.backbones.backbone import SIDE_MULTIPLE, Backbone


def blueprint(config: RunConfig) -> Segmenter:
    """Return the segmenter of a configuration; raises the errors of building it."""
    weights = resolve_weights(config.backbone, RANDOM, Path())
    with torch.device("meta"):
        return build_segmenter(config, weights)


def check_buildable(config: RunConfig) -> None:
    """Raise what a run would raise when it builds its model, as far as shapes alone can tell."""
    with suppress(NotImplementedError):  # a method that needs values cannot be built here
        blueprint(config)


def blueprint_backbone(name: str) -> Backbone:
    """Return a backbone at its native size; raises ZooError for an unknown or unsupported name."""
    weights = resolve_weights(name, RANDOM, Path())
    with torch.device("meta"):
        return load_backbone(weights)


def native_size(name: str) -> int:
    """Return the image side at which a backbone has its own grid, down to a multiple of 32.

    Seen from the image every backbone has stride 16, so that grid times 16 is the side.
    """
    backbone = blueprint_backbone(name)
    side = min(backbone.vit.patch_embed.grid_size) * backbone.stride
    return max(SIDE_MULTIPLE, side // SIDE_MULTIPLE * SIDE_MULTIPLE)
