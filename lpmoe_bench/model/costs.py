"""What a model takes: parameters, operations, bytes of its state, peak memory."""

import copy
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
import torchvision  # noqa: F401  (it brings roi_align to torch.ops)
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from lpmoe_bench.errors import UsageError
from lpmoe_bench.model.decoders.names import build_decoder
from lpmoe_bench.model.segmenter import Segmenter, blueprint_backbone
from lpmoe_bench.yaml_files import read_yaml
from method_zoo import Backbone, get_method


def count_parameters(segmenter: Segmenter) -> dict[str, int | float | None]:
    """Count what trains in the method and in the decoder, what is frozen, and the shares.

    Args:
        segmenter: the model; shapes on the meta device are enough.

    Returns:
        method, decoder, trainable, frozen and total: numbers of parameters. share_of_backbone: the
        method's over the backbone's own size. share_of_total: all that trains over all there is.
        published, share_of_published: the size of the backbone and of the published model's part
        that the decoder stands for, and all that trains over that; None where the decoder is ours.
    """
    method = sum(p.numel() for p in segmenter.method.parameters() if p.requires_grad)
    decoder = sum(p.numel() for p in segmenter.decoder.parameters() if p.requires_grad)
    # Once each, though methods may share modules: parameters() names a shared tensor once.
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
# work named in `UNCOUNTED`, which is said where a model does it. Heads of regions are counted with
# as many as training samples of an image; see `countable` of a head.

aten = torch.ops.aten
UNCOUNTED = {
    aten.grid_sampler_2d: "bilinear reads of deformable attention (grid_sample)",
    torch.ops.torchvision.roi_align: "bilinear reads of regions (roi_align)",
    aten._fft_r2c: "Fourier transforms",
    aten._fft_c2c: "Fourier transforms",
}


class Flops(NamedTuple):
    """Operations for one image. training: forward and backward. uncounted: in words."""

    forward: int
    training: int
    uncounted: tuple[str, ...]


def count_flops(model: Segmenter, sides: tuple[int, int]) -> Flops:
    """Count what one image costs.

    Attention is counted as its two products, so a count does not depend on the kernels of a device.

    Args:
        model: on the meta device.
        sides: (h, w) of the image in pixels.

    Returns:
        Operations of the forward pass, of forward and backward together, and what is not counted.

    Raises:
        UsageError: This torch counts wrongly, or a tensor is too large to be counted.
        NotImplementedError: A shape depends on values.
    """
    check_counter()
    # In training mode: some methods and decoders do more there, such as to supervise every layer.
    counter = _counter()
    was_training = model.training
    model.train()
    image = torch.empty(1, 3, *sides, device="meta")
    with counter:
        try:
            features = model.method(image)
            result = model.countable(features, sides)
        except RuntimeError as error:
            if "overflow" not in str(error):
                raise
            raise UsageError(
                "a tensor of this model is too large to be counted; choose smaller options"
            ) from None
        forward = _total(model.method, counter)
        (result.sum() + features.aux).backward()
    # The backward pass has left gradients, if on the
    # meta device only; the model goes back as it came.
    model.train(was_training).zero_grad(set_to_none=True)
    seen = counter.get_flop_counts().get("Global", {})
    left_out = dict.fromkeys(text for operation, text in UNCOUNTED.items() if operation in seen)
    return Flops(forward, _total(model.method, counter), tuple(left_out))


def _counter() -> FlopCounterMode:
    def nothing(*args: Any, **kwargs: Any) -> int:
        return 0

    # Counted as nothing, an operation is still listed as seen, so that it can be named.
    formulas: dict[Any, Any] = dict.fromkeys(UNCOUNTED, nothing)
    formulas[aten.convolution_backward] = _convolution_backward
    return FlopCounterMode(display=False, custom_mapping=formulas)


def _total(method: nn.Module, counter: FlopCounterMode) -> int:
    counts = {name: sum(c.values()) for name, c in counter.get_flop_counts().items()}
    total = counts.get("Global", 0)
    for name, module in method.named_modules():
        # All experts were run, for nobody knows which is chosen; an image costs one: their mean.
        if getattr(module, "one_of", False):
            every = counts.get(f"{type(method).__name__}.{name}", 0)
            total -= every - every // len(list(module.children()))
    return total


def _convolution_backward(
    grad: Any, x: Any, weight: Any, *args: Any, out_shape: Any = None, **kwargs: Any
) -> int:
    """Count the gradients of a convolution: each costs what the convolution costs.

    Torch's own formula forgets that groups divide the work of the weight's gradient.
    """
    # The mask says which gradients autograd asks for: of the input, of the weight.
    transposed, mask = args[4], args[7]
    # Every place of the smaller side meets the whole kernel. prod(weight) is divided by the groups
    # already: (outputs, inputs / groups, k, k).
    places = prod((x if transposed else grad)[2:])
    return 2 * x[0] * places * prod(weight) * (bool(mask[0]) + bool(mask[1]))


def check_counter() -> None:
    """Count operations whose numbers are known by hand; raises UsageError where one is wrong."""
    for name, work, forward, times in _known():
        counter = _counter()
        with counter:
            out = work()
            found = [counter.get_total_flops()]
            out.sum().backward()
        found.append(counter.get_total_flops())
        if found != [forward, times * forward]:
            raise UsageError(
                f"torch {torch.__version__} counts {found} operations for a {name}, which has "
                f"{[forward, times * forward]}: its FLOPs cannot be trusted; install the torch of "
                f"the extra `train`"
            )


def _known() -> list[tuple[str, Callable[[], Tensor], int, int]]:
    """Return (name, work, operations forward, how many times that with the backward pass).

    Worked by hand: the backward pass of a product is two products of the same size, one for each
    factor, and one alone where the other factor is frozen.
    """

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
    attend, sdpa = F.scaled_dot_product_attention, "scaled dot-product attention"
    return [
        ("matrix product", lambda: a @ b, product, 3),
        ("convolution", lambda: F.conv2d(x, kernel, padding=1), dense, 3),
        ("frozen convolution", lambda: F.conv2d(x, frozen, padding=1), dense, 2),
        ("grouped convolution", lambda: F.conv2d(x, filters, padding=1, groups=4), grouped, 3),
        ("transposed convolution", lambda: F.conv_transpose2d(x, upward, stride=2), transposed, 3),
        (sdpa, lambda: attend(q, q, q), attention, 3),
        (f"{sdpa} with a mask", lambda: attend(q, q, q, attn_mask=mask), attention, 3),
    ]


# Trainable parameters of our methods, counted from models, beside the figures others print.


def budgets() -> dict[str, Any]:
    """Return {tables: tables with a printed column, grid: methods x backbones}.

    Every row of results/published/budgets.yaml gains `ours`, the parameters that train, and where a
    figure is printed `difference`, in millions with a sign.
    """
    package = Path(__file__).parents[1]
    path = package / "published/budgets.yaml"  # in an installed wheel
    path = path if path.exists() else package.parent / "results/published/budgets.yaml"
    content = read_yaml(path)
    tables = [table | {"rows": [*_rows(table)]} for table in content["tables"]]
    return {"tables": tables, "grid": _grid(content["grid"])}


def _rows(table: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for row in table["rows"]:
        merged = {key: table[key] for key in ("backbone", "decoder") if key in table} | row
        ours = count_trainable(merged)
        share = 100 * ours / table["share_of"] if "share_of" in table else None
        found = merged | {"ours": ours, "share_percent": share, "difference": None}
        if "printed" in row:
            found["difference"] = _difference(ours, row["printed"])
        yield found


def _difference(ours: int, printed: str) -> str:
    """Return ours in millions, rounded as the source rounds, less what it prints, with a sign."""
    places = len(printed.partition(".")[2])
    difference = round(ours / 1e6, places) - float(printed)
    return f"{difference:+.{places}f}" if abs(difference) > 1e-9 else "0"


def count_trainable(row: Mapping[str, Any]) -> int:
    """Count what trains in the model of a row; its decoder too where the row names one."""
    # A copy, because a method wraps layers of the backbone that it is given.
    frozen = copy.deepcopy(_backbone(row["backbone"]))
    with torch.device("meta"):
        method = get_method(row["method"])(frozen, **row.get("options", {}))
        parts: list[torch.nn.Module] = [method]
        if "decoder" in row:
            parts.append(build_decoder(row["decoder"], method, classes=1))
    return sum(p.numel() for part in parts for p in part.parameters() if p.requires_grad)


@cache
def _backbone(name: str) -> Backbone:
    return blueprint_backbone(name)


def _grid(grid: Mapping[str, Any]) -> dict[str, Any]:
    rows = []
    for row in grid["rows"]:
        counts = {
            label: count_trainable(row | {"backbone": name})
            for label, name in grid["backbones"].items()
        }
        rows.append(row | {"ours": counts})
    printed = []
    for figure in grid["printed"]:
        ours = next(row for row in rows if row["method"] == figure["method"])["ours"]
        difference = _difference(ours[figure["backbone"]], figure["millions"])
        printed.append(figure | {"difference": difference})
    return {"backbones": grid["backbones"], "rows": rows, "printed": printed}


# The page of parameter budgets: the counted tables as Markdown or JSON.

FORMATS = ("markdown", "json")
HEAD = """# Parameter budgets

Written by `lpmoe-bench profile --budget-table`. Ours are counted from the built
models, without weights; printed figures come from `results/published/budgets.yaml` with their
sources. The difference is ours, rounded as the source rounds, less the printed figure.
"""


def check_format(format: str) -> None:
    """Raise UsageError for a format that the page does not have."""
    if format not in FORMATS:
        raise UsageError(f"format is '{format}'; the budget table is {' or '.join(FORMATS)}")


def budget_page(budgets: Mapping[str, Any], format: str) -> str:
    """Return all tables, as lpmoe_bench.budgets counts them, as text."""
    if format == "json":
        return json.dumps(budgets, indent=2) + "\n"
    return "\n".join([HEAD, *map(_table_text, budgets["tables"]), _grid_text(budgets["grid"])])


def _table_text(table: Mapping[str, Any]) -> str:
    share = any(row["share_percent"] is not None for row in table["rows"])
    head = ["method", "setting", "ours", "ours (M)", "printed (M)", "difference"]
    lines = [head + ["share (%)"] * share + ["note"]]
    lines += [_line(row, share) for row in table["rows"]]
    facts = f"Printed by: {table['source']} ({table['level']})."
    return f"## {table['title']}\n\n{table['about']}\n{facts}\n\n{_markdown(lines, 2)}"


def _line(row: Mapping[str, Any], share: bool) -> list[str]:
    cells = [row["method"], row["setting"], f"{row['ours']:,}", f"{row['ours'] / 1e6:.3f}"]
    cells += [row.get("printed", "-"), row["difference"] or "-"]
    if share:
        printed = f" (printed {row['printed_share']})" if "printed_share" in row else ""
        cells.append(f"{row['share_percent']:.3f}{printed}")
    return [*cells, row.get("note", "")]


def _grid_text(grid: Mapping[str, Any]) -> str:
    labels = list(grid["backbones"])
    lines = [["method", "setting", *labels]]
    for row in grid["rows"]:
        counts = [f"{row['ours'][label]:,}" for label in labels]
        lines.append([row["method"], row["setting"], *counts])
    about = "Encoder alone, without a decoder: " + ", ".join(
        f"{label} is {name}" for label, name in grid["backbones"].items()
    )
    figures = "\n".join(
        f"{f['method']} on {f['backbone']} is printed as {f['millions']} M by {f['source']} "
        f"({f['level']}); difference {f['difference']}."
        for f in grid["printed"]
    )
    title = "## Methods on the encoders of the literature"
    return f"{title}\n\n{about}.\n{figures}\n\n{_markdown(lines, 2)}"


def _markdown(lines: list[list[str]], left: int) -> str:
    """Return a table; the first `left` columns are text, the rest numbers up to a note."""
    rule = ["---" if i < left or name == "note" else "---:" for i, name in enumerate(lines[0])]
    rows = [lines[0], rule, *lines[1:]]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in rows) + "\n"
