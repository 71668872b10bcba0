"""Why training diverged: broken weights, an input, an output, the loss, or a gradient, and where.

Asked once, when a step has given no number: what it computed is computed again and looked at.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

Loss = Callable[[Tensor, Tensor], Tensor]
SHOWN = 3  # names in a sentence


def divergence_cause(
    model: nn.Module,
    loss: Loss,
    images: Tensor,
    masks: Tensor,
    names: Sequence[str],
    chunk: int,
    backward: bool = True,
) -> str:
    """Say what is not finite, as the end of a sentence; empty where it does not happen again.

    Running statistics and gradients of the model are changed by it.

    Args:
        model: returns logits and an auxiliary loss; in the mode in which it trained.
        loss: of logits and masks.
        images: the batch, as the model takes it.
        masks: their masks, (B, 1, s, s).
        names: of the images.
        chunk: images at once.
        backward: look at gradients too; not where several processes share them.
    """
    with torch.no_grad():
        if broken := _broken(model.named_parameters()) + _broken(model.named_buffers()):
            return f"the weights hold NaN or infinity: {_shown(broken)}"
    if rows := _rows(images):
        return f"the input of {_of_images(rows, names)} is not finite"
    found, largest = "", (0.0, "")  # the largest value of a gradient, and whose it is
    for start in range(0, len(images), chunk):
        part = slice(start, start + chunk)
        given = (images[part], masks[part], names[part])
        try:
            found, here = _in_chunk(model, loss, *given, backward)
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
    model: nn.Module,
    loss: Loss,
    images: Tensor,
    masks: Tensor,
    names: Sequence[str],
    backward: bool,
) -> tuple[str, tuple[float, str]]:
    """Return the cause, if it is here, and the largest value of a gradient with its tensor."""
    none = (0.0, "")
    logits, aux = model(images)
    # A decoder may give several outputs, one after the other along the batch.
    by_image = logits.unflatten(0, (-1, len(images))).transpose(0, 1)
    if rows := _rows(by_image):
        return f"the model's output is not finite for {_of_images(rows, names)}", none
    if not torch.isfinite(aux).all():
        return "the method's own auxiliary loss is not finite", none
    each = [loss(by_image[k], masks[k : k + 1]) for k in range(len(images))]
    if rows := [k for k, one in enumerate(each) if not torch.isfinite(one)]:
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
    for prefix in ("_forward_module.", "_original_module.", "module.", "segmenter."):
        name = name.removeprefix(prefix)
    return name


def _rows(batch: Tensor) -> list[int]:
    finite = torch.isfinite(batch).flatten(1).all(1)
    return [k for k, fine in enumerate(finite.tolist()) if not fine]


def _of_images(rows: Sequence[int], names: Sequence[str]) -> str:
    if len(rows) == len(names) > 1:
        return f"all {len(names)} images at once, such as {names[0]}"
    return f"image{'s' if rows[1:] else ''} {_shown([names[k] for k in rows])}"


def _shown(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if names[SHOWN:] else ""
    return ", ".join(names[:SHOWN]) + more
