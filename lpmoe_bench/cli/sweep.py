"""The command line of `sweep` and `sweep status`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from lpmoe_bench.cli import options
from lpmoe_bench.cli.run import run_and_print
from lpmoe_bench.errors import UsageError

app = options.App(
    cls=options.CommandGroup,
    invoke_without_command=True,
    help="Run methods x tasks x seeds, each in a process of its own; `sweep status` any time.",
    epilog="Exit codes: 0 ok, 4 some cells failed, 130 interrupted (the same command resumes).",
)

Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="As for run; lora.rank=8 is for that method alone."),
]
Done = Annotated[
    list[Path] | None, typer.Option("--done", help="Records elsewhere that count as done too.")
]


@app.callback()
def sweep_command(
    *,
    context: typer.Context,
    method: Annotated[
        list[str] | None, typer.Option("--method", "-m", help="Methods; repeat, or with commas.")
    ] = None,
    task: Annotated[
        list[str] | None,
        typer.Option("--task", "-t", help="Tasks; repeat, or with commas.", show_default="cod"),
    ] = None,
    seed: Annotated[
        list[str] | None,
        typer.Option(
            "--seeds", "--seed", help="Seeds; repeat, or with commas.", show_default="0,1,2"
        ),
    ] = None,
    model: options.ModelChoice,
    set_: Set = None,
    config: options.ConfigFile = None,
    data: options.DataOptions,
    runs: options.Runs = Path("runs"),
    done: Done = None,
    plugin: options.Plugins = None,
    engine: Annotated[str, typer.Option(help="local, or ray for many machines.")] = "local",
    jobs: Annotated[
        int | None, typer.Option(help="Cells at a time; one a GPU, else one a machine.", min=1)
    ] = None,
    address: Annotated[str | None, typer.Option(help="Ray cluster, such as auto.")] = None,
    shared: Annotated[
        bool | None,
        typer.Option("--shared/--streamed", help="Whether Ray's workers see the runs folder."),
    ] = None,
    retry: Annotated[bool, typer.Option("--retry", help="Failed cells get new tries.")] = False,
    rerun_changed: Annotated[
        bool, typer.Option("--rerun-changed", help="Finished cells of other code run again.")
    ] = False,
    dry_run: options.DryRun = False,
    out: options.Output,
    offline: options.Offline = False,
) -> None:
    """Run methods x tasks x seeds; finished cells are skipped, stopped ones go on."""
    # Typer calls this before `sweep status` too, which has options of its own.
    if context.invoked_subcommand is not None:
        return
    from lpmoe_bench.config.settings import read_config_file
    from lpmoe_bench.sweep.execute import SweepMode, run_sweep
    from lpmoe_bench.sweep.plan import DataPlaces, SweepRequest
    from method_zoo.plugins import plugin_files

    options.tell_plugins(out)
    file = read_config_file(config) if config else {}
    # Cells run in folders of their own choice and perhaps later: a path has to hold everywhere.
    root = data.data_root and data.data_root.expanduser().resolve()
    datasets = tuple(path.expanduser().resolve() for path in data.datasets or ())
    places = DataPlaces(
        data_root=root,
        datasets=datasets,
        embedded=data.embedded,
        plugins=tuple(path.resolve() for path in plugin_files()),
    )
    request = SweepRequest(
        methods=_names(method, file, "method", ""),
        tasks=_names(task, file, "task", "cod"),
        seeds=_numbers(_names(seed, file, "seed", "0,1,2")),
        flags=model.flags(),
        sets=set_ or [],
        file=file,
        places=places,
        runs=runs.resolve(),
        offline=offline,
    )
    how = SweepMode(engine, jobs, address, shared, retry, rerun_changed, done or [])
    run_sweep(request, how, dry_run, out.json, out.terminal)


@app.command("status")
def sweep_status_command(
    *,
    context: typer.Context,
    runs: Annotated[Path | None, typer.Option("--runs", help="Folder of run records.")] = None,
    done: Done = None,
    out: options.Output,
) -> None:
    """Say how the sweeps of a folder stand: what is done, runs, failed and why."""
    from lpmoe_bench.sweep.execute import print_status

    before = context.parent.params if context.parent else {}  # `sweep --runs DIR status`
    folder: Path = runs or before["runs"]
    print_status(folder.resolve(), done or before["done"] or [], out.json or before["json"])


@app.command("cell", hidden=True)
def sweep_cell_command(
    *,
    config: Annotated[Path, typer.Option(help="The cell's settings.")],
    expect: Annotated[str, typer.Option(help="The fingerprint that was planned.")],
    parent: Annotated[int, typer.Option(help="Process to end with.")],
    runs: options.Runs = Path("runs"),
    note: Annotated[list[str] | None, typer.Option(help="A sentence for the record.")] = None,
    set_: Set = None,
    data: options.DataOptions,
    plugin: options.Plugins = None,
    offline: options.Offline = False,
) -> None:
    """Run one cell: `run --config`, refused where its fingerprint is not the planned one."""
    from lpmoe_bench.sweep.local import end_with

    end_with(parent)  # before torch is imported, which takes seconds in which the parent may die
    from lpmoe_bench.config.settings import parse_sets, read_config_file
    from lpmoe_bench.training.request import RunRequest

    request = RunRequest(
        flags={},
        sets=parse_sets(set_ or []),
        file=read_config_file(config),
        runs=runs,
        offline=offline,
        expect=expect,
        extra_notes=tuple(note or []),
        **vars(data),
    )
    # Read from a log and by the sweep: colours and bars would be noise there.
    run_and_print(request, False, False, options.Output(json=True, no_color=True))


def _names(given: list[str] | None, file: dict[str, Any], setting: str, default: str) -> list[str]:
    """Return the names of an option, else those of the setting of the file that it wins over."""
    return options.names([str(file.get(setting, default))] if given is None else given)


def _numbers(names: list[str]) -> list[int]:
    wrong = [name for name in names if not name.isdecimal() or int(name) >= 2**62]
    if wrong:
        raise UsageError(
            f"--seeds got '{wrong[0]}'; give whole numbers below 2^62 with commas: 0,1,2"
        )
    return list(dict.fromkeys(int(name) for name in names))
