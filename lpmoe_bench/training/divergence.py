"""Why training diverged: broken weights, an input, an output, the loss, or a gradient, and where.

Asked once, when a step has given no number: what it computed is computed again and looked at.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

SHOWN = 3  # names in a sentence


def divergence_cause(
    model: nn.Module,
    images: Tensor,
    targets: Any,
    names: Sequence[str],
    chunk: int,
    backward: bool = True,
) -> str:
    """Say what is not finite, as the end of a sentence; empty where it does not happen again.

    Running statistics and gradients of the model are changed by it.

    Args:
        model: as it trained, a segmenter or one around it.
        images: the batch, as the model takes it.
        targets: of the batch, as the reader of its kind gives them.
        names: of the images.
        chunk: images at once.
        backward: look at gradients too; not where several processes share them.
    """
    with torch.no_grad():
        # From the cause to its effects: weights, input, output, loss, gradients. The first that is
        # not finite explains all behind it.
        if broken := _broken(model.named_parameters()) + _broken(model.named_buffers()):
            return f"the weights hold NaN or infinity: {_shown(broken)}"
    if rows := _rows(images):
        return f"the input of {_of_images(rows, names)} is not finite"
    found, largest = "", (0.0, "")  # the largest value of a gradient, and whose it is
    for start in range(0, len(images), chunk):
        part = slice(start, start + chunk)
        given = (images[part], targets[part], names[part])
        try:
            found, here = _in_chunk(model, *given, backward)
        except (RuntimeError, MemoryError):  # too large with its graph kept: the cause stays open
            return ""
        if found:
            break
        largest = max(largest, here)
    model.zero_grad(set_to_none=True)
    if found or not largest[1]:
        return found
    return (
        f"loss and gradients are finite image by image, but not together: the largest value of a "
        f"gradient is {largest[0]:.3g}, in {_clean(largest[1])}"
    )


def _in_chunk(
    model: nn.Module, images: Tensor, targets: Any, names: Sequence[str], backward: bool
) -> tuple[str, tuple[float, str]]:
    """Return the cause, if it is here, and the largest value of a gradient with its tensor."""
    none = (0.0, "")
    (outputs, each), aux = model(images, targets, examine=True)
    if rows := _rows(outputs):
        return f"the model's output is not finite for {_of_images(rows, names)}", none
    if not torch.isfinite(aux).all():
        return "the method's own auxiliary loss is not finite", none
    if rows := _rows(each):
        return f"the loss is not finite for {_of_images(rows, names)}", none
    return _gradients(model, each, names) if backward else ("", none)


def _gradients(
    model: nn.Module, each: Sequence[Tensor], names: Sequence[str]
) -> tuple[str, tuple[float, str]]:
    """Say which tensors have a gradient that is no number, and by which images."""
    broken: dict[str, None] = {}
    rows, largest = [], (0.0, "")
    for k, one in enumerate(each):
        model.zero_grad(set_to_none=True)
        # One forward pass serves all images of the chunk, so the graph must outlive each of them.
        one.backward(retain_graph=True)
        grads = [(name, p.grad) for name, p in model.named_parameters() if p.grad is not None]
        if here := _broken(grads):
            rows.append(k)
            broken |= dict.fromkeys(here)
        largest = max(largest, *((float(g.abs().max()), n) for n, g in grads if g.numel()))
    if broken:
        where = _of_images(rows, names)
        return f"the gradient of {_shown([*broken])} is not finite for {where}", (0.0, "")
    return "", largest


def _broken(tensors) -> list[str]:
    return [
        _clean(name)
        for name, tensor in tensors
        if tensor.is_floating_point() and not torch.isfinite(tensor).all()
    ]


def _clean(name: str) -> str:
    """Return a tensor's name as records have it, without what wraps the model."""
    # Fabric around torch.compile's around that of several processes, from the outside in.
    for prefix in ("_forward_module.", "_original_module.", "_orig_mod.", "module.", "segmenter."):
        name = name.removeprefix(prefix)
    return name


def _rows(batch: Iterable[Tensor]) -> list[int]:
    return [k for k, one in enumerate(batch) if not torch.isfinite(one).all()]


def _of_images(rows: Sequence[int], names: Sequence[str]) -> str:
    if len(rows) == len(names) > 1:
        return f"all {len(names)} images at once, such as {names[0]}"
    return f"image{'s' if rows[1:] else ''} {_shown([names[k] for k in rows])}"


def _shown(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if names[SHOWN:] else ""
    return ", ".join(names[:SHOWN]) + more
