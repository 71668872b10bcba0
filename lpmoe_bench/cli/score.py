"""The `score` command: plan, score, print, and make what else was asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from lpmoe_bench.cli import options
from lpmoe_bench.console import Terminal
from lpmoe_bench.errors import InterruptedRun

if TYPE_CHECKING:
    from rich.console import Console

    from lpmoe_bench.metrics.protocols import Protocol
    from lpmoe_bench.records.model import Record
    from lpmoe_bench.scoring.plan import MapFolder, ScorePlan, ScoreRequest
    from lpmoe_bench.scoring.robustness import EmptyLine, VariantScores
    from lpmoe_bench.scoring.scoring import ScoreOutcome
    from lpmoe_bench.scoring.work import Variant


Say = Callable[[str], None]
GroupBy = Literal["folder", "set"]
MapValues = Literal["index", "set"]
FOLDERS_SHOWN = 20


@dataclass(frozen=True)
class ScoreExtras:
    """What is wanted besides records. worst, verify: numbers of images, 0 for none."""

    vary: Annotated[
        bool, typer.Option("--vary", help="Every protocol, and where it turns the order.")
    ] = False
    worst: Annotated[int, typer.Option(help="List and picture so many worst images.", min=0)] = 0
    verify: Annotated[
        int, typer.Option(help="Score so many images again in another way.", min=0)
    ] = 0
    curves: Annotated[Path | None, typer.Option(help="Folder for PR, F and E curves.")] = None


@dataclass(frozen=True)
class Names:
    """How files of maps are named after their masks, and what sub-folders are."""

    pattern: Annotated[
        str | None, typer.Option(help="Names of maps, * being the mask's: '*_sal.png'.")
    ] = None
    prefix: Annotated[str, typer.Option(help="What a map has before its mask's name.")] = ""
    suffix: Annotated[str, typer.Option(help="What a map has behind its mask's name.")] = ""
    group_by: Annotated[
        GroupBy | None,
        typer.Option(help="Sub-folders: folder, means of each and their mean; set, a row each."),
    ] = None


def score_command(
    *,
    folders: Annotated[list[Path], typer.Argument(help="Folders of maps, one a method.")],
    gt: Annotated[Path | None, typer.Option(help="Folder of masks.")] = None,
    images: Annotated[Path | None, typer.Option(help="Images of --gt, as a run has them.")] = None,
    task: Annotated[str | None, typer.Option("--task", "-t", help="Task.")] = None,
    test_set: Annotated[
        str | None, typer.Option("--test-set", help="Test set of the task, such as camo/test.")
    ] = None,
    protocol: options.ScoreProtocol = None,
    name: Annotated[
        list[str] | None, typer.Option(help="Method's name, once a folder; else the folder's.")
    ] = None,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Score what is there; tables show how much.")
    ] = False,
    matching: Names,
    extras: ScoreExtras,
    extra: Annotated[
        list[str] | None, typer.Option(help="Extra metrics, with commas, such as hd95.")
    ] = None,
    jobs: Annotated[int | None, typer.Option(help="Processes; as cores allow.", min=1)] = None,
    map_values: Annotated[
        MapValues | None,
        typer.Option(help="Label maps: classes from 0 (index), or the values of the truth (set)."),
    ] = None,
    resize_maps: Annotated[
        bool, typer.Option("--resize-maps", help="Label maps of another size: take nearest pixels.")
    ] = False,
    pixels: options.PixelOptions,
    data: options.DataOptions,
    runs: options.Runs = Path("runs"),
    force: Annotated[bool, typer.Option("--force", help="Score again; old ones are kept.")] = False,
    out: options.Output,
) -> None:
    """Score maps that any program made; writes a record for each folder."""
    from lpmoe_bench.scoring.plan import ScoreRequest
    from lpmoe_bench.scoring.work import MapsRead

    request = ScoreRequest(
        folders=folders,
        names=name or (),
        gt=gt,
        images=images,
        rules=pixels.rules(own=gt is not None),
        task=task,
        test_set=test_set,
        protocol=protocol,
        runs=runs,
        allow_missing=allow_missing,
        force=force,
        jobs=jobs,
        extra=[key for text in extra or () for key in text.split(",") if key],
        how=MapsRead(map_values or "", resize_maps),
        besides=[f"--{option}" for option, value in vars(extras).items() if value],
        **vars(matching),
        **vars(data),
    )
    try:
        _score(request, extras, out)
    except KeyboardInterrupt:  # while names are matched or pictures drawn
        raise InterruptedRun(
            "interrupted; records that are written stay, the same command makes the rest"
        ) from None


# What `score` prints: scores of all folders side by side, and the order under other protocols.


def show_map_scores(records: Sequence[Record], protocol: Protocol, console: Console) -> None:
    """Print a table for each test set: a row for each metric, a column for each method."""
    from rich.markup import escape
    from rich.table import Table

    from lpmoe_bench.tables.parts import metric_columns

    for test in dict.fromkeys(test for record in records for test in record.scores):
        having = [record for record in records if test in record.scores]
        _say(console, f"{test}, protocol {protocol.label}")
        table = Table("metric")
        for record in having:
            table.add_column(escape(record.method.title), justify="right")
        for column in metric_columns(having, test, ["all"]):
            values = [column.value(record, test) for record in having]
            form = f".{column.decimals}f"
            cells = ["-" if v is None else format(v * column.scale, form) for v in values]
            table.add_row(escape(column.directed_label), *cells)
        table.add_row("images", *(_coverage(record, test) for record in having))
        console.print(table)


def _coverage(record: Record, test: str) -> str:
    counts = record.counts.get(test, {})
    images, expected = counts.get("images", 0), counts.get("expected", 0)
    # In red, because the score of a part of the set is none of the set.
    return str(images) if images == expected else f"[bold red]{images}/{expected}[/]"


def show_lines(test: str, lines: Sequence[VariantScores], console: Console) -> None:
    """Print every way to every score, then where the order of methods turns."""
    from rich.markup import escape
    from rich.table import Table

    from lpmoe_bench.scoring.robustness import turn_sentences

    methods = list(lines[0].values) if lines else []
    _say(console, f"{test}, every protocol")
    table = Table("metric", "protocols that give these values")
    for method in methods:
        table.add_column(escape(method), justify="right")
    table.add_column("order turns")
    last = ""
    for line in lines:
        if line.family != last and last:
            table.add_section()
        last = line.family
        # One digit more than tables have: protocols often differ there alone.
        cells = (f"{line.values[method]:.4f}" for method in methods)
        turns = ", ".join(f"{behind} > {ahead}" for ahead, behind in line.turns)
        table.add_row(escape(line.metric), escape(", ".join(line.protocols)), *cells, escape(turns))
    console.print(table)
    sentences = turn_sentences(lines)
    if not sentences and len(methods) > 1:
        sentences = ["the order of these methods is the same under all protocols"]
    for sentence in sentences:
        _say(console, sentence)


def show_empty(test: str, lines: Sequence[EmptyLine], console: Console) -> None:
    """Print metrics by each convention for empty masks, then whether the ranking turns."""
    from rich.markup import escape
    from rich.table import Table

    from lpmoe_bench.scoring.robustness import empty_sentences

    _say(console, f"{test}, empty masks by each convention")
    table = Table("metric", "convention")
    for method in lines[0].values:
        table.add_column(escape(method), justify="right")
    for line in lines:
        table.add_row(line.metric, line.convention, *(f"{v:.4f}" for v in line.values.values()))
    console.print(table)
    for sentence in empty_sentences(lines):
        _say(console, sentence)


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _score(request: ScoreRequest, extras: ScoreExtras, out: options.Output) -> None:
    from lpmoe_bench.scoring import robustness, scoring, views
    from lpmoe_bench.scoring.plan import plan_scores

    terminal, console = out.terminal, None if out.json else out.console
    if drawn := extras.curves is not None:
        views.need_matplotlib()  # before anything is scored
    # A record holds scores alone, so for curves and variants even scored maps are read again.
    request = replace(request, curves=drawn, again=drawn or extras.vary)
    plan = plan_scores(request, terminal)
    for note in plan.notes:
        terminal.note(note)
    variants = robustness.variants_of(plan.protocol) if extras.vary else []
    outcome = scoring.score_folders(plan, request, terminal, variants)
    _name_old(outcome, terminal)
    records = [stored.record for stored in outcome.records]
    shown: dict[str, Any] = {"records": [record.model_dump(mode="json") for record in records]}
    # Before pictures and curves, which take longer and may find the disk full.
    if console is not None:
        show_map_scores(records, plan.protocol, console)
    if extras.vary:
        shown["vary"] = _vary(plan, outcome, variants, console)
    # Each folder of maps with its run's folder, once for each test set that it has maps of.
    pairs = [
        (folder, place, test)
        for folder, place in zip(plan.folders, plan.places, strict=True)
        for test in folder.matches
    ]
    # Without a console, because machines read, nothing is said.
    say: Say = (lambda text: None) if console is None else partial(_say, console)
    if plan.by_folder:
        shown["groups"] = [_groups(plan, *pair, say) for pair in pairs]
    if extras.worst:
        shown["worst"] = [_worst(plan, *pair, extras.worst, say) for pair in pairs]
    if extras.verify:
        shown["verify"] = [_verify(plan, *pair, extras.verify, terminal, say) for pair in pairs]
    if extras.curves is not None:
        files = views.make_curves(plan, outcome, extras.curves)
        shown["curves"] = [str(file) for file in files]
        say(f"curves: {', '.join(shown['curves'])}")
    if out.json:
        out.print(shown, "")
    for stored in outcome.records:
        terminal.say(f"record: {stored.folder}")


def _name_old(outcome: ScoreOutcome, terminal: Terminal) -> None:
    """Say which records were there before, and of what code they are."""
    pairs = zip(outcome.records, outcome.fresh, strict=True)
    old = [stored for stored, fresh in pairs if not fresh]
    if not old:
        return  # for to look at this machine takes as long as to score ten images
    from lpmoe_bench.environment import collect_environment

    here = collect_environment("")
    for stored in old:
        there = stored.record.environment
        told = f"{stored.record.method.title} was scored before on these very maps and masks"
        if (here.version, here.git_sha) != (there.version, there.git_sha):
            told += f", by version {there.version} at {there.git_sha or 'no commit'}"
        terminal.note(f"{told}: showing that record (--force scores again)")


def _vary(
    plan: ScorePlan, outcome: ScoreOutcome, variants: Sequence[Variant], console: Console | None
) -> dict[str, Any]:
    from lpmoe_bench.scoring import robustness, work

    shown, every = {}, [work.Variant(plan.protocol), *variants]
    for test, results in outcome.results.items():
        lines = robustness.compare_variants(every, results)
        if console is not None:
            show_lines(test, lines, console)
        turns = robustness.turn_sentences(lines)
        shown[test] = {"lines": [line.as_json() for line in lines], "turns": turns}
        if empty := robustness.compare_empty(every, results):
            shown[test]["empty_masks"] = [line._asdict() for line in empty]
            shown[test]["empty_turns"] = robustness.empty_sentences(empty)
            if console is not None:
                show_empty(test, empty, console)
    return shown


def _groups(plan: ScorePlan, folder: MapFolder, place: Path, test: str, say: Say) -> dict[str, Any]:
    """Write and print the means of the sub-folders of a test set."""
    from lpmoe_bench.scoring import views

    classes = plan.classes
    keys = [*plan.protocol.metrics, *plan.extra, *plan.protocol.class_keys(classes)]
    found = views.folder_means(views.rows_of(place, test), keys, plan.protocol, classes)
    path = place / f"{test.replace('/', '-')}-{views.GROUPS}"
    views.write_folder_means(found, path)
    shown = [key for key in plan.protocol.headline if key in found.mean] or list(found.mean)

    def line(values: Mapping[str, float | None]) -> str:
        cells = (f"{k} {v:.4f}" for k in shown if (v := values[k]) is not None)
        return "  ".join(cells) or "no image counts"

    say(f"{folder.title}, {test}: means of {len(found.means)} folders, in full in {path}")
    for name, values in list(found.means.items())[:FOLDERS_SHOWN]:
        say(f"  {name or '.'} ({found.images[name]} images): {line(values)}")
    if len(found.means) > FOLDERS_SHOWN:
        say(f"  and {len(found.means) - FOLDERS_SHOWN} more")
    say(f"  mean of folders: {line(found.mean)}")
    return {"method": folder.title, "test_set": test, **found._asdict(), "file": str(path)}


def _worst(
    plan: ScorePlan, folder: MapFolder, place: Path, test: str, count: int, say: Say
) -> dict[str, Any]:
    from lpmoe_bench.scoring.views import make_worst

    worst, sheet = make_worst(plan, place, folder, test, count)
    say(f"{folder.title}, {test}: worst {len(worst)} images by {worst[0].metric}")
    for one in worst:
        say(f"  {one.value:.4f}  {one.image}")
    say(f"  pictures: {sheet}")
    images = [one._asdict() for one in worst]
    return {"method": folder.title, "test_set": test, "images": images, "pictures": str(sheet)}


def _verify(
    plan: ScorePlan,
    folder: MapFolder,
    place: Path,
    test: str,
    count: int,
    terminal: Terminal,
    say: Say,
) -> dict[str, Any]:
    from lpmoe_bench.scoring.views import make_verification, verification_sentences

    found = make_verification(plan, place, folder, test, count, terminal)
    for line in verification_sentences(folder.title, test, found):
        say(line)
    facts = {**found._asdict(), "largest": found.largest}
    return {"method": folder.title, "test_set": test, **facts}
