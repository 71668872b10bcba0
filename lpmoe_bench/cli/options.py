"""Options that several commands share."""

from __future__ import annotations

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
# What is trained, on what: of run, sweep and profile.
Backbone = Annotated[str | None, typer.Option(help="timm ViT or the default.")]
WeightsFile = Annotated[str | None, typer.Option(help=".safetensors or random[:seed].")]
DecoderName = Annotated[str | None, typer.Option(help="Decoder.")]
DecoderWeights = Annotated[str | None, typer.Option(help="SAM checkpoint: .pth.")]
Size = Annotated[int | None, typer.Option(help="Image side, a multiple of 32.")]
Recipe = Annotated[str | None, typer.Option(help="A paper's own settings.")]
Label = Annotated[str | None, typer.Option(help="A few words of your own.")]
ConfigFile = Annotated[Path | None, typer.Option(help="YAML of settings.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the plan only.")]
