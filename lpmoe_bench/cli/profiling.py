"""The `profile` command: what one method costs, or the budgets of all beside published ones."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lpmoe_bench.cli import options
from lpmoe_bench.errors import UsageError
from lpmoe_bench.files import write_atomically

if TYPE_CHECKING:
    from rich.table import Table


def profile_command(
    *,
    method: options.MethodName = None,
    backbone: options.Backbone = None,
    decoder: options.DecoderName = None,
    size: Annotated[int | None, typer.Option(help="Image side; else the backbone's own.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="rank=8, decoder.width=64, train.batch=2.")
    ] = None,
    measure: Annotated[
        bool | None,
        typer.Option("--measure/--count-only", help="Speed and memory too; else if it is quick."),
    ] = None,
    budget_table: Annotated[
        bool, typer.Option("--budget-table", help="Trainable parameters beside published ones.")
    ] = False,
    format: Annotated[
        str, typer.Option("--format", "-f", help="Of the budget table: markdown or json.")
    ] = "markdown",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File of the budget table.")
    ] = None,
    out: options.Output,
) -> None:
    """Count parameters and FLOPs, measure speed and memory; downloads nothing."""
    from lpmoe_bench.config.settings import parse_sets

    # Counts need shapes alone; weights, data and a GPU are not asked for.
    flags = {"method": method, "backbone": backbone, "decoder": decoder, "size": size}
    _check_together(budget_table, [*flags.values(), set_, measure], output, format)
    if budget_table:
        _budgets("json" if out.json else format, output)
        return
    from lpmoe_bench.training.request import RunRequest, refuse_early

    sets, given = parse_sets(set_ or []), {k: v for k, v in flags.items() if v is not None}
    refuse_early(RunRequest(given, sets))
    from lpmoe_bench.training.profiling import profile_method

    found = profile_method(sets, given, measured=measure, terminal=out.terminal)
    if out.json:
        out.print(found, "")
    else:
        out.console.print(_table(found))


def _check_together(table: bool, of_one: list[Any], output: Path | None, format: str) -> None:
    """Raise UsageError for options of the budget table without it, or of one model with it."""
    if table and any(value is not None for value in of_one):
        raise UsageError("--budget-table shows all methods; leave the options of one model out")
    if not table and (output or format != "markdown"):
        raise UsageError("--format and --output belong to --budget-table; one model has --json")
    if output and not output.parent.is_dir():
        raise UsageError(f"there is no folder {output.parent} for --output; make it first")


def _budgets(format: str, output: Path | None) -> None:
    from lpmoe_bench.model import costs

    costs.check_format(format)
    text = costs.budget_page(costs.budgets(), format)
    if output is None:
        print(text, end="")
    else:
        write_atomically(output, text)


def _table(found: dict[str, Any]) -> Table:
    from rich.table import Table

    own = ", ".join(f"{k}={v}" for k, v in found["options"].items())
    table = Table(
        title=f"{found['title']} on {found['backbone']}, decoder {found['decoder']}, "
        f"{found['size']} px",
        caption=own or "no options",
        show_header=False,
    )
    table.add_column("what")
    table.add_column("value", justify="right")
    table.add_column("about", overflow="fold")
    for row in [*_counts(found), *_measured(found)]:
        table.add_row(*row)
    return table


def _counts(found: dict[str, Any]) -> list[tuple[str, str, str]]:
    count, flops = found["parameters"], found["flops"]
    share = f"{count['share_of_total']:.3%} of all"
    if count["published"]:
        share += f"; {count['share_of_published']:.3%} of the published {count['published']:,}"
    uncounted = "; not counted: " + ", ".join(flops["uncounted"]) if flops["uncounted"] else ""
    return [
        ("method", f"{count['method']:,}", f"{count['share_of_backbone']:.3%} of the backbone"),
        ("decoder", f"{count['decoder']:,}", "trainable parameters of the decoder"),
        ("trainable", f"{count['trainable']:,}", share),
        ("frozen", f"{count['frozen']:,}", "backbone, and what the decoder keeps frozen"),
        ("total", f"{count['total']:,}", "parameters"),
        ("state", f"{found['state_bytes'] / 2**20:.2f} MiB", "tensors of the adapter file"),
        ("forward", f"{flops['forward'] / 1e9:,.2f} GFLOPs", "an image; 1 MAC = 2" + uncounted),
        ("training", f"{flops['training'] / 1e9:,.2f} GFLOPs", "an image, forward and backward"),
    ]


def _measured(found: dict[str, Any]) -> list[tuple[str, str, str]]:
    took = found["measured"]
    if took is None:
        return [("not measured", "", f"speed, memory: {found['not_measured']}")]
    rows = []
    for name in ("training", "inference"):
        rate = took[name]
        spread = f"{rate['lower_quartile']:,.1f} to {rate['upper_quartile']:,.1f}"
        about = f"median; quartiles {spread} over {rate['timings']} timings"
        rows.append((name, f"{rate['median']:,.1f} images/s", about))
    peak, before = took["peak_memory_bytes"] / 2**30, took["before_memory_bytes"] / 2**30
    return [
        *rows,
        ("peak memory", f"{peak:.2f} GiB", f"of training; {before:.2f} GiB before the model"),
        ("", "", f"batch {took['batch']}, {took['precision']} on {took['device']}, random weights"),
    ]
