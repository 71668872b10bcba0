"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Machine output on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no notes.")]
NoColor = Annotated[bool, typer.Option("--no-color", help="Plain text.")]
Offline = Annotated[bool, typer.Option("--offline", help="Fetch nothing.")]
Runs = Annotated[Path, typer.Option("--runs", help="Folder of run records.")]
DataRoot = Annotated[
    Path | None,
    typer.Option("--data-root", envvar="LPMOE_BENCH_DATA", help="Folder of the real sets."),
]
Datasets = Annotated[Path | None, typer.Option("--datasets", help="Your own YAML of data sets.")]
