"""Commands that turn a trained method into files for elsewhere: plain weights, a peft adapter."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lpmoe_bench.cli import options
from lpmoe_bench.errors import UsageError

if TYPE_CHECKING:
    from lpmoe_bench.model.merge import Merged


def merge_command(
    *,
    source: Annotated[
        Path, typer.Argument(help="Folder of a finished run, or of a LoRA in peft's format.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="A .safetensors file.")],
    backbone: Annotated[str | None, typer.Option(help="Of a LoRA in peft's format.")] = None,
    weights: Annotated[str | None, typer.Option(help="... its weights, as for run.")] = None,
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
    _show(made, out)
    out.terminal.note(
        f"the decoder is not part of the file; use it with --backbone {made.backbone} "
        f"--weights {made.file}"
    )


def export_command(
    *,
    run: Annotated[Path, typer.Argument(help="Folder of a finished run of lora or late_lora.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder.")],
    force: Annotated[bool, typer.Option("--force", help="Overwrite an adapter there.")] = False,
    out: options.Output,
    offline: options.Offline = False,
) -> None:
    """Write a run's LoRA in the format of Hugging Face peft."""
    options.refuse_no_run(run)
    from lpmoe_bench.model.merge import export_run

    backbone = export_run(run, output, options.cache_folder(), offline, force)
    out.print({"output": str(output), "backbone": backbone}, output)
    out.terminal.note(
        f"load it with PeftModel.from_pretrained around timm's {backbone} with the weights "
        f"that the run was trained on; the decoder is not part of it"
    )


def _show(made: Merged, out: options.Output) -> None:
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
