"""A trained run's model, rebuilt from its folder and verified."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load

from lpmoe_bench.config.settings import RunConfig
from lpmoe_bench.errors import DataError
from lpmoe_bench.model.segmenter import Segmenter, build_segmenter
from lpmoe_bench.model.weights.resolve import resolve_weights
from lpmoe_bench.records.store import ADAPTER_FILE, read_record
from method_zoo.errors import ZooError

ADAPTER_FORMAT = "lpmoe-bench adapter 1"


def load_trained(folder: Path, cache: Path, offline: bool = False) -> tuple[Segmenter, RunConfig]:
    """Rebuild the model of a finished run in eval mode.

    Raises DataError when the adapter is missing, damaged, of another run, or was trained on
    other backbone weights than those found here.
    """
    record = read_record(folder)
    path = folder / ADAPTER_FILE
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"{path} could not be read ({error.strerror}); published records carry no weights: "
            f"name the run's own folder"
        ) from None
    if hashlib.sha256(data).hexdigest() != record.adapter_sha256:
        raise DataError(f"{path} is damaged or of another run: its checksum is not the record's")
    header = _header(data, path)
    config = RunConfig.model_validate_json(header["config"])
    weights = resolve_weights(config.backbone, config.weights, cache, offline)
    if weights.sha256 != header["backbone_sha256"]:
        raise DataError(
            f"{path} was trained on {config.backbone} weights {header['backbone_sha256'][:12]}, "
            f"here they are {weights.sha256[:12]}: use the same weights"
        )
    segmenter = build_segmenter(config, weights)
    try:
        segmenter.load_state(load(data))
    except (SafetensorError, ZooError) as error:
        raise DataError(f"{path} does not fit its own configuration: {error}") from None
    return segmenter.eval(), config


def _header(data: bytes, path: Path) -> dict[str, str]:
    """Read the metadata of a safetensors file: 8 bytes of length, then JSON."""
    try:
        length = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + length])["__metadata__"]
        if header["format"] != ADAPTER_FORMAT:
            raise ValueError(header["format"])
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is no adapter of lpmoe-bench ({error})") from None
    return header
