"""Options that several commands share, and how every command reads names and prints.

One thing has one name everywhere: records (ROOTS or `--records`), test sets (`--test-set`), methods
(`--method`), tasks (`--task`), metrics (`--metrics`). Older spellings still work, with a note.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

if TYPE_CHECKING:
    from rich.console import Console

    from lpmoe_bench.records.store import Found

# What `list backbones` shows and shells complete; any timm ViT works by its own name.
BACKBONES = {
    "dinov2_small_imgfocus": (
        "DINOv2-S/14-derived, saliency-tuned; fetched once from PyPI (default)"
    ),
    "vit_small_patch14_dinov2.lvd142m": "DINOv2 ViT-S/14; L and B likewise",
    "vit_base_patch14_reg4_dinov2.lvd142m": "DINOv2 ViT-B/14 with registers",
    "vit_base_patch16_224.augreg_in21k": "ViT-B/16, ImageNet-21k; any plain timm ViT works by name",
    "deit3_base_patch16_224.fb_in22k_ft_in1k": "DeiT-III ViT-B/16",
    "eva02_base_patch14_224.mim_in22k": "EVA-02 ViT-B/14; tiny, small, large and EVA likewise",
    "vit_base_patch16_dinov3.lvd1689m": "DINOv3 ViT-B/16, under its own licence; S, L, H+ likewise",
    "beit_base_patch16_224.in22k_ft_in22k": "BEiT-B/16, built for the images' size; BEiT v2 too",
    "samvit_base_patch16.sa1b": "SAM ViT-B as timm has it: norms with epsilon 1e-5, Meta's 1e-6",
    "sam_vit_b": "SAM ViT-B in Meta's own code, --weights sam_vit_b_01ec64.pth from Meta",
    "sam_vit_l": "SAM ViT-L likewise, --weights sam_vit_l_0b3195.pth",
    "sam_vit_h": "SAM ViT-H likewise, --weights sam_vit_h_4b8939.pth",
}
# Older spellings of an option, by command; they go with the next version.
RENAMED = {
    "compare": {"--root": "--records"},
    "evaluate": {"--data": "--test-set"},
    "picture": {"--images": "--count"},
    "report": {"--images": "--count"},
    "score": {"--set": "--test-set"},
    "sweep": {"--methods": "--method", "--tasks": "--task"},
}


def renamed(command: str, args: Sequence[str]) -> list[str]:
    """Return arguments with today's spelling of options, with a note for each that was older."""
    names, found = RENAMED.get(command, {}), []
    for arg in args:
        name, equals, value = arg.partition("=")
        if name in names:
            print(f"note: {name} is now {names[name]}", file=sys.stderr)
        found.append(f"{names.get(name, name)}{equals}{value}")
    return found


class Command(TyperCommand):
    """A command that knows its options by their older names too."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, renamed(str(self.name), args))


class CommandGroup(TyperGroup):
    """A group of commands whose own options may have older names."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        # What follows the name of a command inside is that command's.
        inside = next((k for k, arg in enumerate(args) if arg in self.commands), len(args))
        return super().parse_args(ctx, [*renamed(str(self.name), args[:inside]), *args[inside:]])


def _methods(incomplete: str) -> list[str]:
    from method_zoo.options import list_methods

    return _completed(incomplete, list_methods())


def _tasks(incomplete: str) -> list[str]:
    from lpmoe_bench.data.registry import load_registry

    return _completed(incomplete, load_registry(None).tasks)


def _decoders(incomplete: str) -> list[str]:
    from lpmoe_bench.model.decoders.names import list_decoders

    return _completed(incomplete, list_decoders())


def _backbones(incomplete: str) -> list[str]:
    return _completed(incomplete, BACKBONES)


def _protocols(incomplete: str) -> list[str]:
    from lpmoe_bench.metrics.protocols import PROTOCOLS

    return _completed(incomplete, PROTOCOLS)


def complete_metrics(incomplete: str) -> list[str]:
    """Return the metrics that a word may become."""
    from lpmoe_bench.metrics.extra import known_metrics

    return _completed(incomplete, known_metrics())


def _completed(incomplete: str, names: Iterable[str]) -> list[str]:
    """Return what a word may become; of names with commas, the last one is completed."""
    before, comma, last = incomplete.rpartition(",")
    return [f"{before}{comma}{name}" for name in names if name.startswith(last)]


Json = Annotated[bool, typer.Option("--json", help="Machine output on stdout: one object.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no notes.")]
NoColor = Annotated[bool, typer.Option("--no-color", help="Plain text.")]
Offline = Annotated[bool, typer.Option("--offline", help="Fetch nothing.")]
Runs = Annotated[Path, typer.Option("--runs", help="Folder that records are written to.")]
DataRoot = Annotated[
    Path | None,
    typer.Option("--data-root", envvar="LPMOE_BENCH_DATA", help="Folder of the real sets."),
]
Datasets = Annotated[Path | None, typer.Option("--datasets", help="Your own YAML of data sets.")]
# What is trained, on what: of run, sweep and profile.
MethodName = Annotated[
    str | None,
    typer.Option("--method", "-m", help="Method.", show_default="lpmoe", autocompletion=_methods),
]
TaskName = Annotated[
    str | None,
    typer.Option("--task", "-t", help="Task.", show_default="cod", autocompletion=_tasks),
]
Backbone = Annotated[
    str | None,
    typer.Option(
        help="timm ViT or the packaged one.",
        show_default="dinov2_small_imgfocus",
        autocompletion=_backbones,
    ),
]
WeightsFile = Annotated[
    str | None,
    typer.Option(help=".safetensors or random[:seed].", show_default="the backbone's own"),
]
DecoderName = Annotated[
    str | None,
    typer.Option(help="Decoder.", show_default="the method's: fpn", autocompletion=_decoders),
]
DecoderWeights = Annotated[
    str | None, typer.Option(help="SAM checkpoint: .pth.", show_default="random")
]
Size = Annotated[int | None, typer.Option(help="Image side, a multiple of 32.", show_default="256")]
Recipe = Annotated[
    str | None, typer.Option(help="A paper's own settings.", show_default="the task's")
]
Seed = Annotated[int | None, typer.Option(help="Seed.", show_default="0")]
Label = Annotated[str | None, typer.Option(help="A few words of your own.")]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", help="rank=8, decoder.width=64, train.lr=1e-4; `list settings`."),
]
ConfigFile = Annotated[Path | None, typer.Option(help="YAML of settings.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the plan only.")]
Embedded = Annotated[bool, typer.Option("--embedded", help="Use the set drawn in code.")]
# Which records: of table, report, compare and check.
Roots = Annotated[
    list[Path] | None,
    typer.Argument(metavar="[ROOTS]...", help="Folders of records; else runs, or results/records."),
]
Only = Annotated[
    list[str] | None, typer.Option(help="Only records of this setting: train.limit_train=150.")
]
Tasks = Annotated[
    list[str] | None,
    typer.Option("--task", "-t", help="Only these tasks.", autocompletion=_tasks),
]
Methods = Annotated[
    list[str] | None,
    typer.Option("--method", "-m", help="Only these methods.", autocompletion=_methods),
]
TestSets = Annotated[list[str] | None, typer.Option("--test-set", help="Only these test sets.")]
Metrics = Annotated[
    list[str] | None,
    typer.Option(
        "--metrics", "--metric", help="Metrics; else the headline.", autocompletion=complete_metrics
    ),
]
ProtocolName = Annotated[str | None, typer.Option(help="Protocol.", autocompletion=_protocols)]


def names(texts: Iterable[str] | None) -> list[str]:
    """Return the names of a repeatable option, each of which may hold several with commas."""
    found = (name.strip() for text in texts or () for name in text.split(","))
    return list(dict.fromkeys(filter(None, found)))


def readable_records(roots: Sequence[Path] | None) -> Found:
    """Find records; raises DataError where there are some and none of them can be read."""
    from lpmoe_bench.errors import DataError
    from lpmoe_bench.records.store import find_records

    found = find_records(roots or None)
    if (
        found.notes and not found.stored
    ):  # to say that there are none would send people off to train
        raise DataError(f"no record can be read; {'; '.join(found.notes)}")
    return found


def refuse_no_run(*folders: Path) -> None:
    """Raise DataError for a folder without a record, before torch is imported to load it."""
    from lpmoe_bench.records.store import read_record

    for folder in folders:
        read_record(folder)


def narrowed(
    found: Found,
    only: Iterable[str] | None,
    tasks: Iterable[str] | None,
    methods: Iterable[str] | None,
    test_sets: Iterable[str] | None,
) -> Found:
    """Return the records that the filters of a command leave; raises UsageError."""
    from lpmoe_bench.records.context import narrow, parse_only

    return narrow(found, parse_only(only or ()), names(tasks), names(methods), names(test_sets))


def offline_too(offline: bool) -> bool:
    """Whether nothing may be fetched: by option, or by LPMOE_BENCH_OFFLINE."""
    import os

    return offline or bool(os.environ.get("LPMOE_BENCH_OFFLINE"))


def plain_asked(no_color: bool) -> bool:
    """Whether output has to be plain: by option, or by the variable that all programs share."""
    import os

    return no_color or bool(os.environ.get("NO_COLOR"))


def console(no_color: bool) -> Console:
    """Return standard output as rich writes it; plain means no bold and no italics either."""
    from rich.console import Console

    plain = plain_asked(no_color)
    return Console(no_color=plain, color_system=None if plain else "auto", highlight=False)


def print_json(value: Any) -> None:
    """Print one object for machines."""
    from json import dumps

    print(dumps(value, indent=2, ensure_ascii=False))


def print_pairs(rows: Sequence[tuple[str, str]], json: bool, no_color: bool = False) -> None:
    """Print names with their texts: wrapped in a terminal, a line each in a pipe, or as JSON."""
    if json:
        return print_json([list(row) for row in rows])
    width = max((len(name) for name, _ in rows), default=0)
    if sys.stdout.isatty():
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(padding=(0, 2))
        table.add_column(no_wrap=True)
        table.add_column(overflow="fold")
        for name, text in rows:
            table.add_row(Text(name, "bold"), Text(_joined(text)))
        return console(no_color).print(table)
    for name, text in rows:
        print(f"{name:<{width}}  " + text.replace("\n", "\n" + " " * (width + 2)))
    return None


def _joined(text: str) -> str:
    """Join the lines of a paragraph, that a terminal breaks them where it ends; others stay."""
    return re.sub(r"(?<=[^\n])\n(?=[^\s*-])", " ", text)
