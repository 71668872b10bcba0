"""What a model costs: parameters of method and decoder apart, and peak memory."""

import resource
import sys

import torch

from lpmoe_bench.model import Segmenter


def count_parameters(segmenter: Segmenter) -> dict[str, int | float]:
    """Count what trains in the method and in the decoder, what is frozen, and the shares.

    `share_of_backbone` is the method's trainable count over the backbone's own size;
    `share_of_total` is all that trains over all there is.
    """
    method = sum(p.numel() for p in segmenter.method.parameters() if p.requires_grad)
    decoder = sum(p.numel() for p in segmenter.decoder.parameters() if p.requires_grad)
    total = sum(p.numel() for p in segmenter.parameters())
    return {
        "method": method,
        "decoder": decoder,
        "trainable": method + decoder,
        "frozen": total - method - decoder,
        "total": total,
        "share_of_backbone": method / segmenter.method.backbone_size,
        "share_of_total": (method + decoder) / total,
    }


def peak_memory_bytes(device: torch.device) -> int:
    """Return the most memory this process has used: on the GPU if it has one, else resident."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
