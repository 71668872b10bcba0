"""What a method costs before it is trained: counts on shapes alone, then speed and memory here."""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from lpmoe_bench.config.kinds import Kind, get_kind
from lpmoe_bench.config.settings import RunConfig, sides_text
from lpmoe_bench.console import Terminal
from lpmoe_bench.data.label_rules import MOST_CLASSES, OBJECTS, label_rules
from lpmoe_bench.data.registry import Registry, Task, load_registry
from lpmoe_bench.data.scenes.generate import generated_classes
from lpmoe_bench.errors import ResourceError, UsageError
from lpmoe_bench.inference.predictor import set_products
from lpmoe_bench.model import costs
from lpmoe_bench.model.segmenter import (
    Segmenter,
    blueprint,
    build_segmenter,
    check_buildable,
    check_memory,
    native_size,
)
from lpmoe_bench.model.weights.resolve import RANDOM, load_backbone, resolve_weights
from lpmoe_bench.training.plan import complete_config
from lpmoe_bench.training.request import Asked, merged_config, settings_of
from method_zoo.backbones.backbone import SIDE_MULTIPLE
from method_zoo.method import Method
from method_zoo.options import get_method, vars_of

REPEATS = 15
BINARY_TASK = "cod"  # stands for all of them: a mask is one output
SECONDS = 15.0  # for the timings of training, and again for those of inference
CPU_STEP_FLOPS = 2e12  # a training step beyond this takes a processor half a minute or more


def profile_method(
    *layers: Mapping[str, Any],
    measured: bool | None = None,
    terminal: Terminal,
    classes: str = "",
    datasets: Sequence[Path] | None = None,
) -> dict[str, Any]:
    """Count and measure the model of these settings, the weakest layer first.

    The size is that of a layer, else of the task, else the backbone's own. A file of weights is
    read for its facts alone. measured: whether to measure speed and memory too; None where that
    takes seconds rather than minutes. classes, datasets: see `profile_config`. Raises UsageError
    or ZooError for settings that do not fit, DataError for a file of weights or a list of classes
    that cannot be read, ResourceError where the model does not fit into memory.
    """
    config = profile_config(*layers, classes=classes, datasets=datasets)
    check_buildable(config)
    model = blueprint(config)
    flops = costs.count_flops(model, config.sides)
    skipped = _reason(config, flops, measured)
    found = {
        "method": config.method,
        "title": model.method.title,
        "options": config.options,
        "backbone": config.backbone,
        "decoder": config.decoder,
        "decoder_options": config.decoder_options,
        "classes": len(config.classes),
        "size": config.size,
        "parameters": costs.count_parameters(model),
        "state_bytes": costs.state_bytes(model),
        "flops": flops._asdict(),
    }
    measurement = None if skipped else _measure(config, terminal)
    return found | {"measured": measurement, "not_measured": skipped}


def profile_config(
    *layers: Mapping[str, Any], classes: str = "", datasets: Sequence[Path] | None = None
) -> RunConfig:
    """Return the complete settings of a profile.

    Args:
        layers: of settings, the weakest first. Without a task it is a binary one.
        classes: of the task: how many, or a file that lists them; else those of its sets.
        datasets: YAML files of tasks and sets beside our own.

    Raises:
        UsageError: there is no method, or nobody knows the classes, and the errors of a plan.
    """
    named = [str(layer["method"]) for layer in layers if "method" in layer]
    if not named:
        raise UsageError("profile needs a method; name it with --method, such as --method lora")
    method, registry = get_method(named[-1]), load_registry(datasets)
    tasks = [registry.task(str(layer["task"])) for layer in layers if "task" in layer]
    of_task = settings_of(tasks[-1]) if tasks else {}
    task = tasks[-1] if tasks else registry.task(BINARY_TASK)
    asked = Asked(task, named[-1], "", of_task, layers)
    config = merged_config(asked, vars_of(method))
    found, things = _classes(task, registry, classes)
    weights = resolve_weights(
        config.backbone, config.weights or RANDOM, Path(), offline=True, facts=config.facts
    )
    config = config.model_copy(
        update={"classes": found, "things": things, "facts": weights.differing}
    )
    if not any("size" in layer for layer in (of_task, *layers)):
        grid = config.facts.grid
        side = max(SIDE_MULTIPLE, grid * 16 // SIDE_MULTIPLE * SIDE_MULTIPLE) if grid else 0
        config = config.model_copy(update={"size": side or native_size(config.backbone)})
    return complete_config(config, method)


def _classes(task: Task, registry: Registry, told: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the classes that a model of a task tells apart, none of binary tasks; and which of
    them are things. Of classes that somebody told nobody knows that: then all are."""
    kind = get_kind(task.kind)
    if not kind.classed:
        if told:
            raise UsageError(
                f"--classes are of tasks that tell classes apart, and {task.name} is {task.kind}; "
                f"name one with --task, such as --task semantic, or leave them out"
            )
        return (), ()
    if told:
        found = _told_classes(kind, told)
        return found, found
    sets = [registry.split(reference)[0].pixels.labels for reference in task.references]
    known = [(one.classes, one.things) for one in sets if one and one.classes]
    known += [generated_classes(task.embedded, kind.formats)] if task.embedded else []
    if not known:
        raise UsageError(
            f"the classes of task {task.name} are listed in the folder of its set; say --classes "
            f"FILE, or how many there are: --classes 12"
        )
    return known[0]


def _told_classes(kind: Kind, told: str) -> tuple[str, ...]:
    """Return the classes of a number, or of a file that lists them."""
    if not told.isdecimal():
        of_objects = next((form for form in kind.formats if form in OBJECTS), "")
        found = label_rules({"classes": Path(told), "format": of_objects}).classes
    else:
        found = tuple(f"class {k}" for k in range(min(int(told), MOST_CLASSES + 1)))
    if not kind.least_classes <= len(found) <= MOST_CLASSES:
        count = told if told.isdecimal() else f"a file of {len(found)}"
        raise UsageError(
            f"--classes is {count}; {kind.least_classes} to {MOST_CLASSES} are told apart"
        )
    return found


def _reason(config: RunConfig, flops: costs.Flops, measured: bool | None) -> str | None:
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
    check_memory(config)
    terminal.say(f"measuring {config.method} at batch {config.train.batch}, random weights")
    asked = {"config": config.model_dump(), "repeats": REPEATS, "seconds": SECONDS}
    done = subprocess.run(
        [sys.executable, "-m", "lpmoe_bench.training.profiling"],
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
            f"out of memory at batch {config.train.batch}, size {sides_text(config.size)}; use a "
            f"smaller --set train.batch or --count-only"
        )
    raise RuntimeError(f"the measuring process failed: {last[0]}")


# A process that measures one model's speed and memory, so that both are that model's own.
#
# Reads {"config": ..., "repeats": ..., "seconds": ...} from standard input, writes JSON to standard
# output. Weights are random: they have the speed of any others, and none is fetched.

LEAST = 3  # timings
TURNS = 6  # of the parts, at least: fewer have no interval of 95 %
SHOWN = (480, 640)  # h, w in pixels of the images that predictions are brought to: COCO's usual


def measure(config: RunConfig, repeats: int, seconds: float) -> dict[str, Any]:
    """Time training steps, then forward passes and their parts, on random images; memory is that
    of training.

    Each is repeated up to `repeats` times after a warm-up, fewer when `seconds` are over.
    """
    device = torch.device(config.runtime.device)
    # Python, torch and their kernels alone: the peak less this is what the model takes.
    before = costs.peak_memory_bytes(device)
    weights = resolve_weights(config.backbone, RANDOM, Path(), facts=config.facts)
    segmenter = build_segmenter(config, weights)
    segmenter.to(device)
    set_products(config.train.precision)
    images = torch.rand(config.train.batch, 3, *config.sides, device=device)
    targets = get_kind(config.kind).reader.of_noise(images[:, 0], config.outputs)
    optimizer = torch.optim.AdamW([p for p in segmenter.parameters() if p.requires_grad])
    half = torch.autocast(
        device.type, torch.bfloat16, enabled=config.train.precision == "bf16-mixed"
    )

    def step() -> None:
        with half:
            loss = segmenter(images, targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def infer() -> None:
        with torch.inference_mode(), half:
            segmenter(images)

    segmenter.train()
    # Training first: its peak is the larger one, and inference must not have raised it.
    training = _rates(step, len(images), device, repeats, seconds)
    peak = costs.peak_memory_bytes(device)
    segmenter.eval()
    inference = _rates(infer, len(images), device, repeats, seconds)
    # Here, for the backbone that it is compared with would raise the peak.
    plain = get_method("decoder_only")(load_backbone(weights, config.sides))
    with torch.inference_mode(), half:
        parts = _parts(config, segmenter, plain.to(device).eval(), images, repeats, seconds)
    return {
        "device": costs.device_name(device.type),
        "precision": config.train.precision,
        "batch": len(images),
        "training": training,
        "inference": inference,
        "parts": parts,
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
        if device.type == "cuda":  # kernels run on after the call has returned
            torch.cuda.synchronize(device)
        now = time.perf_counter()
        if turn:
            rates.append(images / (now - started))
        if now > end and len(rates) >= LEAST:
            break
    low, median, high = statistics.quantiles(rates, n=4, method="inclusive")
    names = ("lower_quartile", "median", "upper_quartile")
    return dict(zip(names, (low, median, high), strict=True)) | {"timings": len(rates)}


def _parts(
    config: RunConfig,
    segmenter: Segmenter,
    plain: Method,
    images: torch.Tensor,
    repeats: int,
    seconds: float,
) -> dict[str, Any]:
    """Time backbone, method, head and post-processing, all of them in each turn.

    The method is the forward pass of backbone and method less that of the plain backbone, turn by
    turn: it can come out below 0 where it is within the noise, and is told as it is.

    Returns:
        clock and turns; shown: (h, w) of the images that predictions are brought to; found:
        objects or segments an image, which post-processing grows with, None of maps; for each
        part milliseconds an image, see `_interval`.
    """
    outputs = get_kind(config.kind).outputs
    things = [name in config.things for name in config.classes]
    on_gpu = images.device.type == "cuda"

    def now() -> float:
        if not on_gpu:  # what others do on this processor does not count
            return time.process_time()
        torch.cuda.synchronize(images.device)
        return time.perf_counter()

    def timed(work: Callable[[], Any]) -> tuple[float, Any]:
        started = now()
        found = work()
        return now() - started, found

    def finish(response: Any) -> list[Any]:
        brought = (
            outputs.placed(one, config.sides, config.sides, SHOWN, things)
            for one in outputs.received(response)
        )
        return [outputs.settle(one) for one in brought]

    end, turns, counts = time.perf_counter() + seconds, [], []
    for turn in range(max(repeats, TURNS) + 1):
        of_backbone = None
        if turn % 2:  # who goes first changes, for the second one finds warm caches
            of_backbone, _ = timed(lambda: plain(images))
        of_both, features = timed(lambda: segmenter.method(images))
        if of_backbone is None:
            of_backbone, _ = timed(lambda: plain(images))
        of_head, response = timed(partial(segmenter.finish, features, config.sides))
        of_rest, predictions = timed(partial(finish, response))
        if turn:  # the first one warms up
            turns.append((of_backbone, of_both - of_backbone, of_head, of_rest))
            counts += [outputs.found_in(one) for one in predictions]
        if time.perf_counter() > end and len(turns) >= TURNS:
            break
    known = [count for count in counts if count is not None]
    names = ("backbone", "method", "head", "post_processing")
    scale = 1000 / len(images)
    return {
        "clock": "seconds on a GPU that is waited for" if on_gpu else "CPU seconds of the process",
        "turns": len(turns),
        "shown": list(SHOWN),
        "found": statistics.mean(known) if known else None,
    } | {
        name: _interval([scale * one for one in own])
        for name, own in zip(names, zip(*turns, strict=True), strict=True)
    }


def _interval(values: Sequence[float]) -> dict[str, Any]:
    """Return the median of turns and its 95 % interval, by ranks; told: whether 0 lies outside."""
    from scipy.stats import binom

    ordered = sorted(values)
    rank = max(1, int(binom.ppf(0.025, len(ordered), 0.5)))
    low, high = ordered[rank - 1], ordered[-rank]
    told = low > 0 or high < 0
    return {"median": statistics.median(ordered), "low": low, "high": high, "told": told}


if __name__ == "__main__":
    asked = json.load(sys.stdin)
    torch.manual_seed(0)
    config = RunConfig.model_validate(asked["config"])
    print(json.dumps(measure(config, asked["repeats"], asked["seconds"])))
