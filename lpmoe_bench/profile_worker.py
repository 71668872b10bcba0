"""A process that measures one model's speed and memory, so that both are that model's own.

Reads {"config": ..., "repeats": ..., "seconds": ...} from standard input, writes JSON to standard
output. Weights are random: they have the speed of any others, and none is fetched.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from lpmoe_bench.config.settings import RunConfig
from lpmoe_bench.model.costs import device_name, peak_memory_bytes
from lpmoe_bench.model.losses import get_loss
from lpmoe_bench.model.segmenter import build_segmenter
from lpmoe_bench.model.weights.resolve import RANDOM, resolve_weights

LEAST = 3  # timings


def measure(config: RunConfig, repeats: int, seconds: float) -> dict[str, Any]:
    """Time training steps, then forward passes, on random images; memory is that of training.

    Each is repeated up to `repeats` times after a warm-up, fewer when `seconds` are over.
    """
    device = torch.device(config.runtime.device)
    before = peak_memory_bytes(device)
    segmenter = build_segmenter(config, resolve_weights(config.backbone, RANDOM, Path()))
    segmenter.to(device)
    images = torch.rand(config.train.batch, 3, config.size, config.size, device=device)
    masks = (images[:, :1] > 0.5).float()
    optimizer = torch.optim.AdamW([p for p in segmenter.parameters() if p.requires_grad])
    half = torch.autocast(
        device.type, torch.bfloat16, enabled=config.train.precision == "bf16-mixed"
    )
    loss_of = get_loss(config.train.loss)

    def step() -> None:
        with half:
            logits, aux = segmenter(images)
            loss = loss_of(logits, masks) + aux
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def infer() -> None:
        with torch.inference_mode(), half:
            segmenter(images)

    segmenter.train()
    training = _rates(step, len(images), device, repeats, seconds)
    peak = peak_memory_bytes(device)
    segmenter.eval()
    return {
        "device": device_name(device.type),
        "precision": config.train.precision,
        "batch": len(images),
        "training": training,
        "inference": _rates(infer, len(images), device, repeats, seconds),
        "peak_memory_bytes": peak,
        "before_memory_bytes": before,
    }


def _rates(
    work: Callable[[], None], images: int, device: torch.device, repeats: int, seconds: float
) -> dict[str, Any]:
    """Return images a second: median and quartiles over timings after one that warms up."""
    end, rates = time.perf_counter() + seconds, []
    for turn in range(repeats + 1):
        started = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        now = time.perf_counter()
        if turn:
            rates.append(images / (now - started))
        if now > end and len(rates) >= LEAST:
            break
    low, median, high = statistics.quantiles(rates, n=4, method="inclusive")
    names = ("lower_quartile", "median", "upper_quartile")
    return dict(zip(names, (low, median, high), strict=True)) | {"timings": len(rates)}


def main() -> None:
    asked = json.load(sys.stdin)
    torch.manual_seed(0)
    config = RunConfig.model_validate(asked["config"])
    print(json.dumps(measure(config, asked["repeats"], asked["seconds"])))


if __name__ == "__main__":
    main()
