"""A configuration completed: names checked, defaults filled in, `auto` settled, misfits refused."""

from __future__ import annotations

from typing import Any

import torch

from lpmoe_bench.config.settings import RunConfig, RuntimeConfig
from lpmoe_bench.errors import ResourceError, UsageError
from lpmoe_bench.metrics.facts import get_metric
from lpmoe_bench.metrics.protocols import get_protocol
from lpmoe_bench.model.decoders.names import get_decoder
from lpmoe_bench.model.losses import get_loss
from method_zoo.method import Method
from method_zoo.options import check_options, method_name


def preset_layer(method: type[Method]) -> dict[str, Any]:
    """Return the settings that a method prefers: its decoder, its rates."""
    return {"decoder": method.decoder, "train": dict(method.preset)}


def complete_config(config: RunConfig, method: type[Method]) -> RunConfig:
    """Check names, fill in the defaults of method and decoder, and settle `auto`."""
    get_loss(config.train.loss)
    get_protocol(config.protocol)
    if not get_metric(config.train.select).per_image:
        raise UsageError(
            f"train.select is {config.train.select}, which only a whole data set has; "
            f"choose one that an image has, such as {get_protocol(config.protocol).primary}"
        )
    decoder = get_decoder(config.decoder)
    precision, device = config.train.precision, _device(config.runtime)
    _check_batch_statistics(config, method, device)
    _check_features(config)
    if precision == "auto":
        bf16 = device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        precision = "bf16-mixed" if bf16 else "32-true"
    return config.model_copy(
        update={
            "method": method_name(config.method),
            "options": _options(method, config.options),
            "decoder_options": check_options(
                decoder, f"decoder {decoder.title}", config.decoder_options
            ),
            "train": config.train.model_copy(update={"precision": precision}),
            "runtime": config.runtime.model_copy(update={"device": device}),
        }
    )


def _options(method: type[Method], given: dict[str, Any]) -> dict[str, Any]:
    """Return all options of a method, less later ones at the value that older records mean."""
    options = check_options(method, method.title, given)
    later = method.later_options
    return {k: v for k, v in options.items() if k not in later or later[k] != v}


def _device(runtime: RuntimeConfig) -> str:
    """Return the device kind; raises ResourceError when there is none, or too few."""
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if runtime.device == "cuda" and not found:
        raise ResourceError("runtime.device is cuda, but no GPU is found here; use cpu or auto")
    device = "cpu" if runtime.device == "cpu" or not found else "cuda"
    if device == "cuda" and runtime.devices > found:
        raise ResourceError(f"runtime.devices is {runtime.devices}, but {found} GPUs are found")
    return device


def _check_features(config: RunConfig) -> None:
    """Refuse a feature cache where it would not serve; raises UsageError."""
    runtime, train = config.runtime, config.train
    if runtime.cache_test and runtime.cache_features != "disk":
        raise UsageError("runtime.cache_test needs runtime.cache_features=disk: a run tests once")
    if runtime.cache_features and (train.scale or train.photometric):
        raise UsageError(
            "runtime.cache_features keeps each image as it is and mirrored, but train.scale and "
            "train.photometric make every view of it new; leave one or the other out"
        )
    if runtime.cache_features == "memory" and runtime.devices > 1:
        raise UsageError(
            f"runtime.cache_features is memory, of which {runtime.devices} processes would each "
            f"need all; use disk, which they share"
        )


def _check_batch_statistics(config: RunConfig, method: type[Method], device: str) -> None:
    """Refuse what would change the statistics of a batch behind the fingerprint's back."""
    if not method.batch_statistics:
        return
    if config.train.batch < 2:
        raise UsageError(f"{method.title} normalises over the batch; train.batch must be 2 or more")
    if config.runtime.micro_batch or (config.runtime.devices > 1 and device == "cpu"):
        raise UsageError(
            f"{method.title} normalises over the batch, which micro-batches and several CPU "
            f"processes divide; use --set runtime.checkpointing=true to save memory"
        )
