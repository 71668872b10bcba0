"""What a model takes: parameters of method and decoder apart, bytes of its state, peak memory."""

import resource
import sys
from pathlib import Path

import torch

from lpmoe_bench.model import Segmenter

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
