"""Options that several commands share, and how every command reads names and prints.

One thing has one name everywhere: records (ROOTS or `--records`), test sets (`--test-set`), methods
(`--method`), tasks (`--task`), metrics (`--metrics`). Older spellings still work, with a note.
"""

from __future__ import annotations

import inspect
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass
from functools import cached_property, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer
from typer.core import TyperCommand, TyperGroup

from lpmoe_bench.console import Terminal, printable
from lpmoe_bench.errors import DataError, UsageError
from lpmoe_bench.metrics.extra import known_metrics
from lpmoe_bench.metrics.protocols import PROTOCOLS
from lpmoe_bench.model.decoders.names import list_decoders
from method_zoo.options import list_methods
from method_zoo.plugins import name_troubles

if TYPE_CHECKING:
    from rich.console import Console

    from lpmoe_bench.analysis.pairing import Rules
    from lpmoe_bench.data.pixels import PixelRules
    from lpmoe_bench.data.registry import Registry
    from lpmoe_bench.records.store import FoundRecords

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
    "swin_base_patch4_window7_224.ms_in22k": "Swin-B, four stages; other sizes and v2 likewise",
    "convnext_base.fb_in22k": "ConvNeXt-B, four stages, no attention; v2 likewise",
    "sam2_hiera_base_plus.fb_r896_2pt1": "the Hiera of SAM 2, four stages; T, S, L likewise",
    "deit_base_distilled_patch16_224.fb_in1k": "DeiT-B/16 with its distillation token",
    "uni_perceiver_large": "Uni-Perceiver-L/16, --weights with the file of ViT-Adapter's release",
    "sam_vit_b": "SAM ViT-B in Meta's own code, --weights sam_vit_b_01ec64.pth from Meta",
    "sam_vit_l": "SAM ViT-L likewise, --weights sam_vit_l_0b3195.pth",
    "sam_vit_h": "SAM ViT-H likewise, --weights sam_vit_h_4b8939.pth",
}
# Older spellings of an option, by command; they go with the next version.
RENAMED = {
    "add": {"--split": "--as-split"},
    "compare": {"--root": "--records"},
    "evaluate": {"--data": "--test-set"},
    "generate": {"--size": "--side"},
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
            # On standard error, for the output may go into another program.
            print(f"note: {name} is now {names[name]}", file=sys.stderr)
        found.append(f"{names.get(name, name)}{equals}{value}")
    return found


class Command(TyperCommand):
    """A command that knows its options by their older names too."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        # Before Typer reads them, which would refuse the older name.
        return super().parse_args(ctx, renamed(str(self.name), args))


class CommandGroup(TyperGroup):
    """A group of commands whose own options may have older names."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        # What follows the name of a command inside is that command's.
        inside = next((k for k, arg in enumerate(args) if arg in self.commands), len(args))
        return super().parse_args(ctx, [*renamed(str(self.name), args[:inside]), *args[inside:]])


class App(typer.Typer):
    """A Typer whose commands may take groups of options, the dataclasses at the end of this file.

    A parameter `out: Output` of a command stands for the options `--json`, `--quiet` and
    `--no-color`: each field of the group becomes an option.
    """

    def command(self, *names: Any, cls: type[TyperCommand] = Command, **how: Any) -> Any:
        register = super().command(*names, cls=cls, **how)
        return lambda function: register(_ungrouped(function)) and function

    def callback(self, *names: Any, **how: Any) -> Any:
        register = super().callback(*names, **how)
        return lambda function: register(_ungrouped(function)) and function


def _ungrouped(function: Callable[..., None]) -> Callable[..., None]:
    """Return a command with an option for each field of its groups, as Typer reads them."""
    # Typer reads a signature, so the command is given one in which groups are spelt out.
    options, groups = [], {}
    for given in inspect.signature(function, eval_str=True).parameters.values():
        if is_dataclass(group := given.annotation):
            groups[given.name], kinds = group, get_type_hints(group, include_extras=True)
            of_group = [(f.name, f.default, kinds[f.name]) for f in fields(group)]
        else:
            of_group = [(given.name, given.default, given.annotation)]
        # By keyword alone, so that an option without a default may follow one that has one.
        keyword = inspect.Parameter.KEYWORD_ONLY
        options += [
            inspect.Parameter(name, keyword, default=default, annotation=kind)
            for name, default, kind in of_group
        ]

    @wraps(function)
    def command(**given: Any) -> None:
        # Typer gives each option by itself: those of a group are put together again.
        made = {
            name: group(**{field.name: given.pop(field.name) for field in fields(group)})
            for name, group in groups.items()
        }
        function(**given, **made)

    vars(command)["__signature__"] = inspect.Signature(options)
    command.__annotations__ = {option.name: option.annotation for option in options}
    return command


def _completing(known: Callable[[], Iterable[str]]) -> Callable[[str], list[str]]:
    """Return what tells a shell what a word may become; of names with commas, the last one."""

    def complete(incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",")
        return [f"{before}{comma}{name}" for name in known() if name.startswith(last)]

    return complete


# Functions, since the names are read when a shell asks: a YAML file would slow every help down.
_methods, _decoders = _completing(list_methods), _completing(list_decoders)
_backbones, _protocols = _completing(lambda: BACKBONES), _completing(lambda: PROTOCOLS)
_tasks, complete_metrics = _completing(lambda: registry(None).tasks), _completing(known_metrics)


# What checks its input on the way in needs pydantic, which takes half as long to import as the
# help of all commands takes together. So it is imported where a command does something.


def registry(datasets: Sequence[Path] | None) -> Registry:
    """Return the tasks and data sets that are known, those of a user's own files among them."""
    from lpmoe_bench.data.registry import load_registry

    return load_registry(datasets)


def cache_folder() -> Path:
    """Return the folder of weights that were fetched and of data that was checked."""
    from lpmoe_bench.environment import default_cache

    return default_cache()


def _is_offline(asked: bool) -> bool:
    from lpmoe_bench.environment import is_offline

    return is_offline(asked)


def _add_plugins(files: list[Path] | None) -> list[Path] | None:
    from lpmoe_bench.model.plugins import add_plugin

    for file in files or ():
        add_plugin(file)
    return files


def tell_plugins(out: Output) -> None:
    """Say which plug-ins that nobody has named here cannot be used; the rest goes on."""
    from lpmoe_bench.model.plugins import all_plugins

    for sentence in name_troubles(all_plugins()):
        out.terminal.note(sentence)


Plugins = Annotated[
    list[Path] | None,
    typer.Option(
        "--plugin",
        callback=_add_plugins,
        help="FILE.py with a method, decoder or loss of yours; several. Or LPMOE_BENCH_PLUGINS.",
    ),
]
Offline = Annotated[bool, typer.Option("--offline", callback=_is_offline, help="Fetch nothing.")]
Runs = Annotated[Path, typer.Option("--runs", help="Folder that records are written to.")]
DataRoot = Annotated[
    Path | None,
    typer.Option("--data-root", envvar="LPMOE_BENCH_DATA", help="Folder of the real sets."),
]
Datasets = Annotated[
    list[Path] | None,
    typer.Option(
        "--datasets", envvar="LPMOE_BENCH_DATASETS", help="Your own YAML of data sets; several."
    ),
]
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
        help="A timm name or the packaged one; `list backbones`.",
        show_default="dinov2_small_imgfocus",
        autocompletion=_backbones,
    ),
]
DecoderName = Annotated[
    str | None,
    typer.Option(help="Decoder.", show_default="the method's: fpn", autocompletion=_decoders),
]
Seed = Annotated[int | None, typer.Option(help="Seed.", show_default="0")]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", help="rank=8, decoder.width=64, train.lr=1e-4; `list settings`."),
]
ConfigFile = Annotated[Path | None, typer.Option(help="YAML of settings.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the plan only.")]
Roots = Annotated[
    list[Path] | None,
    typer.Argument(metavar="[ROOTS]...", help="Folders of records; else runs, or results/records."),
]
Tasks = Annotated[
    list[str] | None, typer.Option("--task", "-t", help="Only these tasks.", autocompletion=_tasks)
]
Metrics = Annotated[
    list[str] | None,
    typer.Option(
        "--metrics", "--metric", help="Metrics; else the headline.", autocompletion=complete_metrics
    ),
]
ScoreProtocol = Annotated[
    str | None, typer.Option(help="Protocol, or FILE.yaml, your own.", autocompletion=_protocols)
]
ProtocolName = Annotated[str | None, typer.Option(help="Protocol.", autocompletion=_protocols)]


def names(texts: Iterable[str] | None) -> list[str]:
    """Return the names of a repeatable option, each of which may hold several with commas."""
    found = (name.strip() for text in texts or () for name in text.split(","))
    return list(dict.fromkeys(filter(None, found)))


def refuse_no_run(*folders: Path) -> None:
    """Raise DataError for a folder without a record, before torch is imported to load it."""
    from lpmoe_bench.records.store import read_record

    for folder in folders:
        read_record(folder)


# Groups of options: a parameter of a command that is one of these gives it all of them.


@dataclass(frozen=True)
class Output:
    """How a command speaks. Every command takes it."""

    json: Annotated[bool, typer.Option("--json", help="Machine output on stdout: one object.")] = (
        False
    )
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no notes.")] = False
    no_color: Annotated[bool, typer.Option("--no-color", help="Plain text.")] = False

    # One for a whole command: two of them would draw their bars over each other.
    @cached_property
    def terminal(self) -> Terminal:
        """Standard error, for notes and progress."""
        return Terminal(self.quiet, self.no_color)

    @cached_property
    def console(self) -> Console:
        """Standard output as rich writes it; plain means no bold and no italics either."""
        from rich.console import Console

        plain = self.no_color or bool(os.environ.get("NO_COLOR"))  # which all programs share
        return Console(no_color=plain, color_system=None if plain else "auto", highlight=False)

    def print(self, value: Any, text: object) -> None:
        """Print one object for machines, or in its place a text for people."""
        # Names of methods and images may be of any script: they stay readable.
        whole = json.dumps(value, indent=2, ensure_ascii=False) if self.json else str(text)
        print(printable(whole))

    def pairs(self, rows: Sequence[tuple[str, str]]) -> None:
        """Print names with their texts: wrapped in a terminal, a line each in a pipe, or JSON."""
        # In a pipe each name stays in one line with its text, so that grep finds both.
        if self.json:
            return self.print([list(row) for row in rows], "")
        plain = [(printable(name), printable(text)) for name, text in rows]
        width = max((len(name) for name, _ in plain), default=0)
        if sys.stdout.isatty():
            from rich.table import Table
            from rich.text import Text

            table = Table.grid(padding=(0, 2))
            table.add_column(no_wrap=True)
            table.add_column(overflow="fold")
            for name, text in plain:
                # A terminal breaks the lines of a paragraph where it ends; those of a list stay.
                text = re.sub(r"(?<=[^\n])\n(?=[^\s*-])", " ", text)
                table.add_row(Text(name, "bold"), Text(text))
            return self.console.print(table)
        for name, text in plain:
            print(f"{name:<{width}}  " + text.replace("\n", "\n" + " " * (width + 2)))
        return None


@dataclass(frozen=True)
class VerdictOptions:
    """How differences of methods are judged."""

    margin: Annotated[
        list[str] | None,
        typer.Option(
            help="Differences within it are equal: .005, 5% of the reference, or mae=5%.",
            show_default="each metric's own",
        ),
    ] = None
    groups: Annotated[
        Path | None,
        typer.Option(help="CSV of image,group: images that vary together, such as a video's."),
    ] = None
    family: Annotated[
        str, typer.Option(help="Holm's correction over each test set, or the whole table.")
    ] = "set"
    looks: Annotated[
        int, typer.Option(help="How often you look: once more for each time seeds were added.")
    ] = 1

    def rules(self) -> Rules:
        """Return the rules; raises UsageError for what is none."""
        from lpmoe_bench.analysis.groups import GroupSource
        from lpmoe_bench.analysis.pairing import Rules
        from lpmoe_bench.metrics.facts import parse_margins

        margins = parse_margins(self.margin)
        return Rules(margins, GroupSource(self.groups), self.family, self.looks)


@dataclass(frozen=True)
class RecordFilter:
    """Which of the records found count."""

    task: Tasks = None
    test_set: Annotated[
        list[str] | None, typer.Option("--test-set", help="Only these test sets.")
    ] = None
    method: Annotated[
        list[str] | None,
        typer.Option("--method", "-m", help="Only these methods.", autocompletion=_methods),
    ] = None
    only: Annotated[
        list[str] | None, typer.Option(help="Only records of this setting: train.limit_train=150.")
    ] = None

    def find(self, roots: Sequence[Path] | None) -> FoundRecords:
        """Return those of the records under these folders, or the usual ones, that are left."""
        return self.narrow(readable_records(roots))

    def narrow(self, found: FoundRecords) -> FoundRecords:
        """Return the records that are left; raises UsageError where a filter fits none."""
        from lpmoe_bench.records.context import narrow

        return narrow(found, *self.parsed())

    def parsed(self) -> tuple[Any, list[str], list[str], list[str]]:
        """Return settings, tasks, methods and test sets, as the functions of records take them."""
        from lpmoe_bench.records.context import parse_only

        settings = parse_only(self.only or ())
        return settings, names(self.task), names(self.method), names(self.test_set)


def readable_records(roots: Sequence[Path] | None) -> FoundRecords:
    """Find records; raises DataError where there are some and none of them can be read."""
    from lpmoe_bench.records.store import find_records

    found = find_records(roots or None)
    # To say that there are none would send people off to train.
    if found.notes and not found.stored:
        raise DataError(f"no record can be read; {'; '.join(found.notes)}")
    return found


@dataclass(frozen=True)
class ModelChoice:
    """What is trained, on which backbone: of run, sweep and profile."""

    backbone: Backbone = None
    weights: Annotated[
        str | None,
        typer.Option(
            help="A file (.safetensors, .pth, .pt, .bin, .ckpt) or random[:seed].",
            show_default="the backbone's own",
        ),
    ] = None
    decoder: DecoderName = None
    decoder_weights: Annotated[
        str | None, typer.Option(help="SAM checkpoint: .pth.", show_default="random")
    ] = None
    size: Annotated[
        str | None,
        typer.Option(help="Image side, a multiple of 32; or 256x320.", show_default="256"),
    ] = None
    recipe: Annotated[
        str | None, typer.Option(help="A paper's own settings.", show_default="the task's")
    ] = None
    label: Annotated[str | None, typer.Option(help="A few words of your own.")] = None

    def flags(self, **more: Any) -> dict[str, Any]:
        """Return the settings that are given, with some more."""
        # What is not given must be absent: a None would win over recipe and file.
        return {k: v for k, v in (asdict(self) | more).items() if v is not None}


@dataclass(frozen=True)
class PixelOptions:
    """What the values of a user's own files mean."""

    mask_object: Annotated[
        str | None,
        typer.Option(help="Own masks: object is 1, nonzero, '#ff0000', alpha or 'above 128'."),
    ] = None
    mask_ignore: Annotated[
        str | None, typer.Option(help="... values that count for nothing, such as 255.")
    ] = None
    bands: Annotated[
        str | None, typer.Option(help="Own images: bands that are red, green, blue: 3,2,1.")
    ] = None
    range: Annotated[
        str | None, typer.Option(help="... values that are black and white: 0,4095.")
    ] = None
    resize_masks: Annotated[
        bool, typer.Option("--resize-masks", help="Stretch own masks to their images.")
    ] = False
    exif: Annotated[
        str | None, typer.Option(help="What EXIF of own images turns: image or both.")
    ] = None
    category: Annotated[
        str | None, typer.Option(help="What is object in own COCO and labelme files: cat,dog.")
    ] = None
    classes: Annotated[
        Path | None,
        typer.Option(help="Own label maps: FILE of their classes, a name (and #rrggbb) a line."),
    ] = None
    void: Annotated[
        str | None, typer.Option("--ignore", help="... values that count for nothing, such as 255.")
    ] = None
    first: Annotated[
        int | None, typer.Option(help="... value of the first class.", show_default="0")
    ] = None

    def rules(self, own: bool = True) -> PixelRules:
        """Return what is declared; raises UsageError, also where there are no own files."""
        from lpmoe_bench.data.pixels import pixel_rules

        given = asdict(self)
        given["object"], given["ignore"] = given.pop("mask_object"), given.pop("mask_ignore")
        labels = {"classes": given.pop("classes"), "ignore": given.pop("void")}
        labels = {
            k: v for k, v in (labels | {"first": given.pop("first")}).items() if v is not None
        }
        if labels and "classes" not in labels:
            raise UsageError(
                f"--{next(iter(labels))} is of label maps; name their classes with --classes FILE, "
                f"or write --mask-ignore where masks are binary"
            )
        rules = pixel_rules(given | {"labels": labels})
        if rules.facts and not own:
            raise UsageError(
                f"{', '.join(rules.facts)} is declared of your own folders, but none is named; an "
                f"entry of a data set says it itself"
            )
        return rules


@dataclass(frozen=True)
class DataOptions:
    """Where images are looked for."""

    data_root: DataRoot = None
    datasets: Datasets = None
    embedded: Annotated[bool, typer.Option("--embedded", help="Use the set drawn in code.")] = False
