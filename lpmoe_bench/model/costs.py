"""What a model takes: parameters, operations, bytes of its state, peak memory."""

from __future__ import annotations

import sys
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from lpmoe_bench.errors import UsageError
from lpmoe_bench.model.segmenter import Segmenter

# What a model takes: parameters of method and decoder apart, bytes of its state, peak memory.


CPU_MEMORY = ("can't allocate memory", "not enough memory")  # how torch words it without a GPU


def count_parameters(segmenter: Segmenter) -> dict[str, int | float | None]:
    """Count what trains in the method and in the decoder, what is frozen, and the shares.

    `share_of_backbone` is the method's trainable count over the backbone's own size;
    `share_of_total` is all that trains over all there is; `share_of_published` that over the
    backbone and the published model's part the decoder stands for, None where it is ours.
    """
    method = sum(p.numel() for p in segmenter.method.parameters() if p.requires_grad)
    decoder = sum(p.numel() for p in segmenter.decoder.parameters() if p.requires_grad)
    total = sum(p.numel() for p in segmenter.parameters())
    published = segmenter.decoder.published_parameters
    published = segmenter.method.backbone_size + published if published else None
    return {
        "method": method,
        "decoder": decoder,
        "trainable": method + decoder,
        "frozen": total - method - decoder,
        "total": total,
        "share_of_backbone": method / segmenter.method.backbone_size,
        "share_of_total": (method + decoder) / total,
        "published": published,
        "share_of_published": (method + decoder) / published if published else None,
    }


def state_bytes(segmenter: Segmenter) -> int:
    """Return the size of all tensors that the adapter file holds, without the file's header."""
    return sum(t.numel() * t.element_size() for t in segmenter.state().values())


def peak_memory_bytes(device: torch.device) -> int:
    """Return the most memory this process has used: on the GPU if it has one, else resident."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        # Not getrusage where there is this: there a process inherits the peak of its parent.
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        import resource
    except ModuleNotFoundError:  # Windows has none, and no other way without a further package
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def is_out_of_memory(error: Exception) -> bool:
    """Whether torch ran out of memory, on a GPU or without one, or numpy did."""
    known = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return known or any(words in str(error) for words in CPU_MEMORY)


def device_name(kind: str) -> str:
    """Return the device in words: its model where torch knows one."""
    if kind == "cuda":
        return torch.cuda.get_device_name()
    return f"cpu, {torch.get_num_threads()} threads"


# Floating-point operations of a model for one image: counted on shapes alone, checked first.
#
# One multiplication with its addition is two operations. Matrix products, convolutions and
# attention count; of the backward pass what autograd has to do, so no weight gradient of a frozen
# layer. All else counts nothing: elementwise operations, norms, softmax, pooling, resizing, and the
# work named in `UNCOUNTED`, which is said where a model does it.


aten = torch.ops.aten
UNCOUNTED = {
    aten.grid_sampler_2d: "bilinear reads of deformable attention (grid_sample)",
    aten._fft_r2c: "Fourier transforms",
    aten._fft_c2c: "Fourier transforms",
}


class Flops(NamedTuple):
    """Operations for one image. training: forward and backward. uncounted: in words."""

    forward: int
    training: int
    uncounted: tuple[str, ...]


def count_flops(model: nn.Module, size: int) -> Flops:
    """Count what one image of size x size costs.

    The model lies on the meta device and maps (1, 3, size, size) to (logits, aux); attention there
    is its two products, so a count does not depend on the kernels of a device. Raises UsageError
    where this torch counts wrongly or a tensor is beyond counting, NotImplementedError where a
    shape depends on values.
    """
    check_counter()
    counter = _counter()
    was_training = model.training
    model.train()
    image = torch.empty(1, 3, size, size, device="meta")
    with counter:
        try:
            logits, aux = model(image)
        except RuntimeError as error:
            if "overflow" not in str(error):
                raise
            raise UsageError(
                "a tensor of this model is too large to be counted; choose smaller options"
            ) from None
        forward = _total(model, counter)
        (logits.sum() + aux).backward()
    model.train(was_training).zero_grad(set_to_none=True)
    seen = counter.get_flop_counts().get("Global", {})
    words = dict.fromkeys(text for operation, text in UNCOUNTED.items() if operation in seen)
    return Flops(forward, _total(model, counter), tuple(words))


def _counter() -> FlopCounterMode:
    known = dict.fromkeys(UNCOUNTED, _nothing)
    formulas = known | {aten.convolution_backward: _convolution_backward}
    return FlopCounterMode(display=False, custom_mapping=formulas)


def _total(model: nn.Module, counter: FlopCounterMode) -> int:
    counts = {name: sum(c.values()) for name, c in counter.get_flop_counts().items()}
    total = counts.get("Global", 0)
    for name, module in model.named_modules():
        if getattr(module, "one_of", False):  # all were run, for nobody knows which is chosen
            every = counts.get(f"{type(model).__name__}.{name}", 0)
            total -= every - every // len(list(module.children()))
    return total


def _nothing(*args: Any, **kwargs: Any) -> int:
    return 0


def _convolution_backward(
    grad: Any, x: Any, weight: Any, *args: Any, out_shape: Any = None, **kwargs: Any
) -> int:
    """Count the gradients of a convolution: each costs what the convolution costs.

    Torch's own formula forgets that groups divide the work of the weight's gradient.
    """
    transposed, mask = args[4], args[7]
    places = prod((x if transposed else grad)[2:])
    return 2 * x[0] * places * prod(weight) * (bool(mask[0]) + bool(mask[1]))


def check_counter() -> None:
    """Count operations whose numbers are known by hand; raises UsageError where one is wrong."""
    for name, work, forward, training in _known():
        counter = _counter()
        with counter:
            out = work()
            found = [counter.get_total_flops()]
            out.sum().backward()
        found.append(counter.get_total_flops())
        if found != [forward, training]:
            raise UsageError(
                f"torch {torch.__version__} counts {found} operations for a {name}, which has "
                f"{[forward, training]}: its FLOPs cannot be trusted; install the torch of the "
                f"extra `train`"
            )


def _known() -> list[tuple[str, Callable[[], Tensor], int, int]]:
    """Return (name, work, forward, forward + backward), the numbers worked by hand."""

    def make(*shape: int) -> Tensor:
        return torch.empty(shape, device="meta", requires_grad=True)

    a, b, x, q = make(3, 5), make(5, 7), make(2, 4, 8, 8), make(2, 3, 10, 8)
    kernel, filters, upward = make(6, 4, 3, 3), make(4, 1, 3, 3), make(4, 6, 2, 2)
    mask = make(2, 3, 10, 10)
    frozen = torch.empty(6, 4, 3, 3, device="meta")
    product = 2 * 3 * 5 * 7
    dense = 2 * 2 * 64 * 6 * 4 * 9  # twice, images, places, outputs, inputs, taps
    grouped = 2 * 2 * 64 * 4 * 1 * 9
    transposed = 2 * 2 * 64 * 4 * 6 * 4  # places are those of the smaller side
    attention = 2 * 2 * (2 * 3 * 10 * 10 * 8)  # twice, two products; backward is four of them
    attend = F.scaled_dot_product_attention
    return [
        ("matrix product", lambda: a @ b, product, 3 * product),
        ("convolution", lambda: F.conv2d(x, kernel, padding=1), dense, 3 * dense),
        ("frozen convolution", lambda: F.conv2d(x, frozen, padding=1), dense, 2 * dense),
        (
            "grouped convolution",
            lambda: F.conv2d(x, filters, padding=1, groups=4),
            grouped,
            3 * grouped,
        ),
        (
            "transposed convolution",
            lambda: F.conv_transpose2d(x, upward, stride=2),
            transposed,
            3 * transposed,
        ),
        ("scaled dot-product attention", lambda: attend(q, q, q), attention, 3 * attention),
        (
            "scaled dot-product attention with a mask",
            lambda: attend(q, q, q, attn_mask=mask),
            attention,
            3 * attention,
        ),
    ]
