"""The command line of `new`: a template to begin with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lpmoe_bench.cli import options

app = options.App(no_args_is_help=True, help="Write a template of your own method.")


@app.callback()
def _new() -> None:
    """Write a template of your own method."""
    # With a callback `new method` keeps its two words, though there is one command.


@app.command("method")
def new_method_command(
    *,
    name: Annotated[str, typer.Argument(help="Of the method: small letters, digits and _.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder to make.", show_default="NAME")
    ] = None,
    out: options.Output,
) -> None:
    """Write a package with a method that works, its entry point and its test."""
    from lpmoe_bench.model.template import write_method

    files = write_method(name, output or Path(name))
    out.print({"files": [str(path) for path in files]}, "\n".join(map(str, files)))
    out.terminal.note(f"next: lpmoe-bench contract {name} --plugin {files[-1]}")
