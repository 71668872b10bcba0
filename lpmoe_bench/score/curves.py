"""PR, F and E curves of several methods on one data set, as plots."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

from lpmoe_bench.errors import UsageError
from lpmoe_bench.files import write_atomically
from lpmoe_bench.metrics.engine import Curves
from lpmoe_bench.metrics.protocols import Protocol

# Okabe and Ito's colours without yellow, which is faint on white; then again with other dashes.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
DASHES = ("-", "--", "-.", ":")
INSTALL = "pip install 'lpmoe-bench[plot]'"


def write_curves(
    curves: Mapping[str, Curves],
    protocol: Protocol,
    folder: Path,
    dataset: str = "",
    formats: tuple[str, ...] = ("png", "svg"),
) -> list[Path]:
    """Plot the curves of methods and return the files: pr, f and e, each in every format.

    `curves` maps a method's name to its `ScoreResult.curves`, which a `Scorer(protocol,
    curves=True)` keeps. Files are `curve_pr.png`, `curve_f.png`, ... in `folder`. Raises UsageError
    with the line that installs it where matplotlib is missing.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise UsageError(f"plots need matplotlib; install it with: {INSTALL}") from None
    assert curves, "at least one method"
    files = []
    for kind in ("pr", "f", "e"):
        for form in formats:
            # A figure for each file: the layout of one that was drawn before is another.
            figure = Figure(figsize=(5.6, 4.2), dpi=160, layout="constrained")
            FigureCanvasAgg(figure)  # drawn without a display, and without pyplot's global state
            _draw(figure, kind, curves, protocol, dataset)
            files.append(folder / f"curve_{kind}.{form}")
            write_atomically(files[-1], _rendered(figure, form))
    return files


def _draw(
    figure: Any, kind: str, curves: Mapping[str, Curves], protocol: Protocol, dataset: str
) -> None:
    axes = figure.add_subplot()
    floor = 1.0
    for index, (name, curve) in enumerate(curves.items()):
        xs, ys = _points(kind, curve)
        style = {
            "color": COLOURS[index % len(COLOURS)],
            "linestyle": DASHES[index // len(COLOURS) % len(DASHES)],
            "linewidth": 1.8,
        }
        axes.plot(xs, ys, label=_plain(name), **style)
        floor = min(floor, *ys)
    beta = f"$\\beta^2 = {protocol.f_beta2:g}$"
    across, up = {
        "pr": ("recall", "precision"),
        "f": ("threshold", f"F-measure, {beta}"),
        "e": ("threshold", "E-measure"),
    }[kind]
    axes.set_xlabel(across)
    axes.set_ylabel(f"{up}  (protocol {protocol.name} v{protocol.version})")
    axes.set_xlim(0, 1)
    axes.set_ylim(max(0.0, floor - 0.03), 1.02)
    axes.set_title(_plain(dataset), fontsize=10)
    axes.grid(True, color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.legend(fontsize=8, framealpha=0.9, ncols=1 + (len(curves) > 8))


def _plain(text: str) -> str:
    """Return text that matplotlib shows as it is: no formula, and no label that it would hide."""
    text = text.replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


def _points(kind: str, curve: Curves) -> tuple[tuple[float, ...], tuple[float, ...]]:
    if kind == "pr":
        return curve.recall, curve.precision
    return curve.thresholds, curve.f if kind == "f" else curve.e


def _rendered(figure: Any, form: str) -> bytes:
    """Return the picture's bytes, the same for the same curves: without date, with fixed names."""
    from matplotlib import rc_context

    data = BytesIO()
    metadata = {"Date": None} if form == "svg" else {}
    with rc_context({"svg.hashsalt": "curves", "svg.fonttype": "none"}):
        figure.savefig(data, format=form, metadata=metadata)
    return data.getvalue()
