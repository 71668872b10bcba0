"""Commands about one model: what it costs, and files of it for elsewhere."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lpmoe_bench.cli import options
from lpmoe_bench.errors import UsageError
from lpmoe_bench.files import write_atomically

if TYPE_CHECKING:
    from rich.table import Table

    from lpmoe_bench.model.merge import Merged


def profile_command(
    *,
    method: options.MethodName = None,
    backbone: options.Backbone = None,
    weights: Annotated[
        str | None,
        typer.Option(help="A file of weights, whose facts count; none is computed with."),
    ] = None,
    decoder: options.DecoderName = None,
    size: Annotated[
        str | None, typer.Option(help="Image side; else the task's, or the backbone's own.")
    ] = None,
    task: Annotated[
        str | None,
        typer.Option("--task", "-t", help="Outputs, loss and size of this task; else one mask."),
    ] = None,
    classes: Annotated[
        str | None, typer.Option(help="Of the task: how many, or a FILE with a name a line.")
    ] = None,
    datasets: options.Datasets = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="rank=8, decoder.width=64, train.batch=2.")
    ] = None,
    plugin: options.Plugins = None,
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
    flags |= {"task": task, "weights": weights}
    _check_together(budget_table, [*flags.values(), classes, set_, measure], output, format)
    if budget_table:
        _budgets("json" if out.json else format, output)
        return
    from lpmoe_bench.training.request import RunRequest, refuse_early

    options.tell_plugins(out)
    sets, given = parse_sets(set_ or []), {k: v for k, v in flags.items() if v is not None}
    refuse_early(RunRequest(given, sets, datasets=datasets))
    from lpmoe_bench.training.profiling import profile_method

    found = profile_method(
        *(sets, given),
        measured=measure,
        terminal=out.terminal,
        classes=classes or "",
        datasets=datasets,
    )
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
    # Before all methods are counted, which takes far longer.
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

    from lpmoe_bench.config.settings import sides_text

    own = ", ".join(f"{k}={v}" for k, v in found["options"].items())
    count = found["classes"]
    table = Table(
        title=f"{found['title']} on {found['backbone']}, decoder {found['decoder']}, "
        f"{sides_text(found['size'])} px" + (f", {count} classes" if count else ""),
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
    rows += _parts(took["parts"])
    peak, before = took["peak_memory_bytes"] / 2**30, took["before_memory_bytes"] / 2**30
    return [
        *rows,
        ("peak memory", f"{peak:.2f} GiB", f"of training; {before:.2f} GiB before the model"),
        ("", "", f"batch {took['batch']}, {took['precision']} on {took['device']}, random weights"),
    ]


PARTS = {
    "backbone": "the plain backbone",
    "method": "with the method, less the plain backbone",
    "head": "from features to what it finds",
    "post_processing": "to predictions of",
}


def _parts(parts: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Return the rows of what an image of inference is made of."""
    rows = []
    for name, about in PARTS.items():
        one = parts[name]
        said = f"{about}; {one['low']:,.2f} to {one['high']:,.2f}"
        if name == "post_processing":
            high, wide = parts["shown"]
            said = said.replace(about, f"{about} {high} x {wide} px")
            if parts["found"] is not None:
                said += f"; grows with what is found, {parts['found']:,.1f} an image here"
        said += "" if one["told"] else "; cannot be told from 0"
        rows.append((f"  {name.replace('_', '-')}", f"{one['median']:,.2f} ms", said))
    about = f"an image, median and its 95 % interval over {parts['turns']} turns, {parts['clock']}"
    return [*rows, ("", "", about)]


# A trained method as files for elsewhere: plain weights, an adapter of peft.


def merge_command(
    *,
    source: Annotated[
        Path, typer.Argument(help="Folder of a finished run, or of an adapter in peft's format.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="A .safetensors file.")],
    backbone: Annotated[str | None, typer.Option(help="Of an adapter in peft's format.")] = None,
    weights: Annotated[str | None, typer.Option(help="... its weights, as for run.")] = None,
    plugin: options.Plugins = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the output.")] = False,
    out: options.Output,
    offline: options.Offline = False,
) -> None:
    """Fold a method into plain backbone weights and prove that the features stay the same."""
    from lpmoe_bench.model.merge import merge_peft, merge_run

    cache = options.cache_folder()
    # A folder of peft's has its own configuration, a run has its record: no option has to say it.
    is_peft = (source / "adapter_config.json").is_file()
    if (backbone or weights) and not is_peft:
        raise UsageError(
            f"{source} is a run, which names its backbone; leave --backbone and --weights out"
        )
    with out.terminal.bar("merging", 1) as bar:
        if is_peft:
            made = merge_peft(source, backbone, weights, output, cache, offline, force, bar.update)
        else:
            made = merge_run(source, output, cache, offline, force, bar.update)
    _show_merged(made, out)
    out.terminal.note(
        f"the decoder is not part of the file; use it with --backbone {made.backbone} "
        f"--weights {made.file}"
    )


def export_command(
    *,
    run: Annotated[
        Path, typer.Argument(help="Folder of a finished run of lora, late_lora, dora or vera.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder.")],
    force: Annotated[bool, typer.Option("--force", help="Overwrite an adapter there.")] = False,
    out: options.Output,
    offline: options.Offline = False,
) -> None:
    """Write a run's LoRA, DoRA or VeRA in the format of Hugging Face peft."""
    options.refuse_no_run(run)
    from lpmoe_bench.model.peft_format import export_run

    backbone = export_run(run, output, options.cache_folder(), offline, force)
    out.print({"output": str(output), "backbone": backbone}, output)
    out.terminal.note(
        f"load it with PeftModel.from_pretrained around timm's {backbone} with the weights "
        f"that the run was trained on; the decoder is not part of it"
    )


def _show_merged(made: Merged, out: options.Output) -> None:
    from lpmoe_bench.model.merge import LIMIT

    proof = made.proof
    if out.json:
        return out.print(asdict(made) | {"file": str(made.file), "limit": LIMIT}, "")
    print(made.file)
    print(
        f"max |difference| {proof.largest:.1e} < {LIMIT:g} between the features of {made.method} "
        f"and of the merged {made.backbone} on {proof.images} images, computed in double precision"
    )
    print(
        f"computed in single precision {proof.single:.1e}, where the method is {proof.noise:.1e} "
        f"from its own features in double precision"
    )
    return None


# The other way: an author's checkpoint as a run.


def import_command(
    *,
    file: Annotated[Path, typer.Argument(help="Checkpoint of a method's authors.")],
    method: Annotated[
        str | None,
        typer.Option("--method", "-m", help="Whose: lpmoe, sam_adapter, conv_lora or adaroute."),
    ] = None,
    backbone: Annotated[
        str | None, typer.Option(help="What it was trained on, such as sam_vit_h.")
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="Of the backbone, as for run; else the file's own, or known.")
    ] = None,
    decoder: options.DecoderName = None,
    decoder_weights: Annotated[
        str | None, typer.Option(help="SAM checkpoint, for what the file does not hold of it.")
    ] = None,
    task: Annotated[str | None, typer.Option(help="What it was trained for; else cod.")] = None,
    size: Annotated[str | None, typer.Option(help="Image side; else the authors' own.")] = None,
    label: Annotated[str | None, typer.Option(help="A few words of your own.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="What the file does not tell: alpha=16.")
    ] = None,
    runs: Annotated[Path, typer.Option(help="Folder of runs.")] = Path("runs"),
    force: Annotated[bool, typer.Option("--force", help="Import again.")] = False,
    out: options.Output,
    offline: options.Offline = False,
) -> None:
    """Turn a checkpoint of a method's authors into a run, which evaluate can score."""
    from lpmoe_bench.config.settings import parse_sets
    from lpmoe_bench.training.request import RunRequest

    if method is None or backbone is None:
        raise UsageError(
            "say whose checkpoint it is and on which backbone, such as --method sam_adapter "
            "--backbone sam_vit_h"
        )
    if "results" in runs.resolve().parts[-2:]:
        raise UsageError(f"--runs {runs} holds published records; import into another folder")
    flags = {
        "method": method,
        "backbone": backbone,
        "weights": weights,
        "decoder": decoder,
        "decoder_weights": decoder_weights,
        "task": task,
        "size": size,
        "label": label,
    }
    request = RunRequest(
        {key: value for key, value in flags.items() if value is not None},
        parse_sets(set_ or []),
        runs=runs,
        cache=options.cache_folder(),
        offline=offline,
    )
    from lpmoe_bench.training.imported import import_checkpoint

    folder, record = import_checkpoint(file, request, out.terminal, force)
    out.print({"folder": str(folder), "record": record.model_dump()}, folder)
    if task is None:
        out.terminal.note(f"its task is {record.task}; --task names another")
    out.terminal.note(f"score it with: lpmoe-bench evaluate {folder} --test-set SET")
