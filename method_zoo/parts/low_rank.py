"""A frozen linear layer with a trained change, without passes over its wide output.

Written plainly, y = W x + c + B A x costs a multiplication and a sum as large as y in each
direction. `changed_linear` has y = W' x + c with W' = g (W + B A) made once a call, g a factor for
each row: one product forward, one for the gradient of x, and thin ones for the gradients of A and
B; the gradient of W, which is frozen, is never formed. Where something stands between A and B, a
dropout or a convolution, `linear_and_low` gives W x + c and A x from one function, whose gradients
of x become one sum in place, and `add_low` adds B h to y in place.

They hold in full precision on a CPU, and the plain form is kept elsewhere. bfloat16 keeps 8 bits of
a number: of an update of a thousandth of W nothing would be left in W', while A x and B have all
their own bits. A compiler fuses the plain form by itself, and the operations of a model are counted
on the plain form. On a GPU nothing of this was measured.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from ..backbones.linear import Joined

# How many times larger than a row's factor its bias may be: see `well_scaled`.
LARGEST_BIAS = 4.0


def in_full_precision(base: nn.Module, x: Tensor) -> bool:
    """Say whether the functions of this file may stand in for the plain form.

    Args:
        base: the frozen layer; one with a forward pass of its own, or one that trains, may not.
        x: what it reads.
    """
    if torch.compiler.is_compiling() or x.device.type != "cpu" or torch.is_autocast_enabled("cpu"):
        return False
    if type(base).forward not in (nn.Linear.forward, Joined.forward):
        return False
    wide = x.dtype in (torch.float32, torch.float64)
    return wide and all(w.dtype is x.dtype and not w.requires_grad for w in _weights(base))


def well_scaled(rows: Tensor, bias: Tensor | None) -> bool:
    """Say whether the gradient of the factors of the rows can be had from the output.

    (y - c) / g is what the row gives before its factor. Where g is small beside c, y holds c and
    rounding: the plain form, which keeps the product itself, has the gradient then.
    """
    if bias is None:
        return bool(rows.all())
    return bool((bias.abs() < LARGEST_BIAS * rows.abs()).all())


def changed_linear(
    base: nn.Linear,
    x: Tensor,
    a: Tensor | None = None,
    b: Tensor | None = None,
    rows: Tensor | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """Return g (W + B A) x + c, equal to the plain form but for rounding.

    Args:
        base: the frozen layer W; see `in_full_precision`.
        x: (..., inputs).
        a: A, (rank, inputs); without A and B nothing is added to W.
        b: B, (outputs, rank), with whatever scales the update.
        rows: g, (outputs,), see `well_scaled`; without it one.
        bias: c, (outputs,); without it the layer's own.

    Returns:
        (..., outputs).
    """
    bias = base.bias if bias is None else bias
    return _ChangedLinear.apply(x, bias, a, b, rows, *_weights(base))


def linear_and_low(
    base: nn.Linear, x: Tensor, a: Tensor, bias: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return W x + c and A x, (..., outputs) and (..., rank), as `changed_linear` takes them.

    The first is nobody else's, so that `add_low` may write into it.
    """
    bias = base.bias if bias is None else bias
    return _LinearAndLow.apply(x, bias, a, *_weights(base))


def add_low(y: Tensor, h: Tensor, b: Tensor) -> Tensor:
    """Add B h to y in place and return it.

    Args:
        y: (..., outputs), contiguous.
        h: (..., rank). Where an output is several pieces, each with an h of its own, (...,
            pieces, rank).
        b: B, (outputs of a piece, rank).
    """
    return _AddLow.apply(y, h, b)


def _weights(base: Any) -> list[Tensor]:
    return [part.weight for part in base.parts] if isinstance(base, Joined) else [base.weight]


def _changed(weights: Any, a: Tensor | None, b: Tensor | None, rows: Tensor | None) -> Tensor:
    """Return g (W + B A), (outputs, inputs)."""
    weight = weights[0] if len(weights) == 1 else torch.cat(weights)
    if a is not None and b is not None:
        weight = torch.addmm(weight, b, a)
    return weight if rows is None else weight * rows[:, None]


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None, parts: Any) -> Tensor:
    """Apply one weight to x, in the parts that the layer has: equal to its last bit."""
    # A tensor of its own and no view, because autograd lets nobody write into views.
    y, flat, sizes = x.new_empty(*x.shape[:-1], len(weight)), _flat(x), [len(w) for w in parts]
    rows = [None] * len(sizes) if bias is None else bias.split(sizes)
    # A joined layer runs its parts one by one: one product of all would round otherwise.
    if len(parts) == 1 and bias is not None:
        torch.addmm(bias, flat, weight.t(), out=y.view(-1, len(weight)))
    elif len(parts) == 1:
        torch.mm(flat, weight.t(), out=y.view(-1, len(weight)))
    else:
        pairs = zip(weight.split(sizes), rows, strict=True)
        every = [F.linear(flat, part, shift) for part, shift in pairs]
        torch.cat(every, dim=1, out=y.view(-1, len(weight)))
    return y


def _flat(x: Tensor) -> Tensor:
    return x.reshape(-1, x.shape[-1])


# A product with a thin factor runs up to four times as fast where the short side, the rank, is the
# rows of its result: hence the transposes below.


class _ChangedLinear(Function):
    @staticmethod
    def forward(ctx: Any, x: Any, bias: Any, a: Any, b: Any, rows: Any, *weights: Any) -> Any:
        weight = _changed(weights, a, b, rows)
        y = _linear(x, weight, bias, weights)
        # W' is made again in the backward pass: kept, it would be one more backbone in memory.
        output = (y, bias) if ctx.needs_input_grad[4] else (None, None)
        ctx.save_for_backward(x, a, b, rows, *output, *weights)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        # With y = g (W + B A) x + c and dy the gradient of y, rows of tokens each: dx = dy W', dA
        # = (g B)^T dy^T x, dB = g dy^T (A x), dc = sum dy, dg = sum dy (y - c) / g.
        x, a, b, rows, y, bias, *weights = ctx.saved_tensors
        for_x, for_bias, for_a, for_b, for_rows, *_ = ctx.needs_input_grad
        grads: list[Tensor | None] = [None] * (5 + len(weights))
        grad, flat = _flat(grad), _flat(x)
        if for_x:
            grads[0] = (grad @ _changed(weights, a, b, rows)).view(x.shape)
        if for_bias or for_rows:
            grads[1] = grad.sum(0)
        if for_a:
            scaled = b if rows is None else b * rows[:, None]
            grads[2] = (scaled.t() @ grad.t()) @ flat
        if for_b:
            grads[3] = ((a @ flat.t()) @ grad).t()
            if rows is not None:
                grads[3] = grads[3] * rows[:, None]
        if rows is not None and for_rows:
            product = (grad * _flat(y)).sum(0)
            grads[4] = (product if bias is None else product - bias * grads[1]) / rows
        if not for_bias:
            grads[1] = None
        return tuple(grads)


class _LinearAndLow(Function):
    @staticmethod
    def forward(ctx: Any, x: Any, bias: Any, a: Any, *weights: Any) -> Any:
        ctx.save_for_backward(x, a, *weights)
        y = _linear(x, _changed(weights, None, None, None), bias, weights)
        return y, (a @ _flat(x).t()).t().view(*x.shape[:-1], len(a))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, low: Tensor) -> Any:
        x, a, *weights = ctx.saved_tensors
        grad, low = _flat(grad), _flat(low)
        for_x, for_bias, for_a, *_ = ctx.needs_input_grad
        of_x = None
        if for_x:
            of_x = (low @ a).addmm_(grad, _changed(weights, None, None, None)).view(x.shape)
        of_bias = grad.sum(0) if for_bias else None
        of_a = low.t() @ _flat(x) if for_a else None
        return of_x, of_bias, of_a, *[None] * len(weights)


class _AddLow(Function):
    @staticmethod
    def forward(ctx: Any, y: Any, h: Any, b: Any) -> Any:
        ctx.save_for_backward(h, b)
        # autograd has to know that an input was written into: y is returned as the output.
        ctx.mark_dirty(y)
        y.view(-1, len(b)).addmm_(_flat(h), b.t())
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        h, b = ctx.saved_tensors
        pieces = grad.reshape(-1, len(b))
        of_h = (b.t() @ pieces.t()).t().reshape(h.shape) if ctx.needs_input_grad[1] else None
        of_b = (_flat(h).t() @ pieces).t() if ctx.needs_input_grad[2] else None
        return grad, of_h, of_b
