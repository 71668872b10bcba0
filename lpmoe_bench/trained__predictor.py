from __future__ import annotations

from pathlib import Path

import torch
from lightning.fabric import Fabric

from lpmoe_bench.config.settings import RunConfig
from lpmoe_bench.evaluate import Predictor
from lpmoe_bench.model.trained import load_trained


def load_predictor(folder: Path, cache: Path, offline: bool = False) -> tuple[Predictor, RunConfig]:
    """Rebuild a finished run's model on the device found here, as it was scored after training.

    A run of a GPU's bfloat16 computes in single precision on a CPU, most of which are slow in the
    other. Raises as `load_trained`.
    """
    segmenter, config = load_trained(folder, cache, offline)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    alike = device in ("cuda", config.runtime.device)
    fabric = Fabric(
        accelerator=device,
        devices=1,
        precision=config.train.precision if alike else "32-true",  # type: ignore[arg-type]
    )
    return Predictor(segmenter.to(fabric.device), fabric, config.size), config
