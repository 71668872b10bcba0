"""What a method costs before it is trained: counts on shapes alone, then speed and memory here."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from lpmoe_bench.completed_config import complete_config, preset_layer
from lpmoe_bench.config.settings import RunConfig, build_config
from lpmoe_bench.console import Terminal
from lpmoe_bench.errors import ResourceError, UsageError
from lpmoe_bench.model.costs import Flops, count_flops, count_parameters, state_bytes
from lpmoe_bench.model.segmenter import blueprint, native_size
from method_zoo.options import get_method

REPEATS = 15
SECONDS = 15.0  # for the timings of training, and again for those of inference
CPU_STEP_FLOPS = 2e12  # a training step beyond this takes a processor half a minute or more


def profile(
    *layers: Mapping[str, Any], measured: bool | None = None, terminal: Terminal
) -> dict[str, Any]:
    """Count and measure the model of these settings, the weakest layer first.

    The size is the backbone's own unless a layer has one. measured: whether to measure speed and
    memory too; None where that takes seconds rather than minutes. Raises UsageError or ZooError
    for settings that do not fit, ResourceError where the model does not fit into memory.
    """
    config = profile_config(*layers)
    model = blueprint(config)
    flops = count_flops(model, config.size)
    skipped = _reason(config, flops, measured)
    found = {
        "method": config.method,
        "title": model.method.title,
        "options": config.options,
        "backbone": config.backbone,
        "decoder": config.decoder,
        "decoder_options": config.decoder_options,
        "size": config.size,
        "parameters": count_parameters(model),
        "state_bytes": state_bytes(model),
        "flops": flops._asdict(),
    }
    measurement = None if skipped else _measure(config, terminal)
    return found | {"measured": measurement, "not_measured": skipped}


def profile_config(*layers: Mapping[str, Any]) -> RunConfig:
    """Return the complete settings of a profile, at the backbone's own size unless one is given."""
    named = [str(layer["method"]) for layer in layers if "method" in layer]
    if not named:
        raise UsageError("profile needs a method; name it with --method, such as --method lora")
    method = get_method(named[-1])
    config = build_config(preset_layer(method), *layers)
    if not any("size" in layer for layer in layers):
        config = config.model_copy(update={"size": native_size(config.backbone)})
    return complete_config(config, method)


def _reason(config: RunConfig, flops: Flops, measured: bool | None) -> str | None:
    """Say why speed and memory are not measured, None where they are."""
    if measured is not None:
        return None if measured else "only counts were asked for"
    step = config.train.batch * flops.training
    if config.runtime.device == "cuda" or step <= CPU_STEP_FLOPS:
        return None
    return (
        f"a training step of {config.train.batch} images is {step / 1e12:,.0f} TFLOPs, minutes on "
        f"a CPU; --measure does it all the same"
    )


def _measure(config: RunConfig, terminal: Terminal) -> dict[str, Any]:
    """Measure in a process of its own, whose peak memory is that of this model."""
    terminal.say(f"measuring {config.method} at batch {config.train.batch}, random weights")
    asked = {"config": config.model_dump(), "repeats": REPEATS, "seconds": SECONDS}
    done = subprocess.run(
        [sys.executable, "-m", "lpmoe_bench.profile_worker"],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 0:
        return json.loads(done.stdout)
    last = done.stderr.strip().splitlines()[-1:] or [f"signal {-done.returncode}"]
    if done.returncode < 0 or "memory" in last[0].lower():
        raise ResourceError(
            f"out of memory at batch {config.train.batch}, size {config.size}; use a smaller "
            f"--set train.batch or --count-only"
        )
    raise RuntimeError(f"the measuring process failed: {last[0]}")
