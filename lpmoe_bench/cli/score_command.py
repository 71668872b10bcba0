"""The `score` command: plan, score, print, and make what else was asked for."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lpmoe_bench.console import Terminal
from lpmoe_bench.environment import collect_environment
from lpmoe_bench.errors import InterruptedRun
from lpmoe_bench.metrics.protocols import get_protocol
from lpmoe_bench.records.model import Record
from lpmoe_bench.scoring.plan import MapFolder, ScorePlan, ScoreRequest, plan_scores
from lpmoe_bench.scoring.robustness import (
    VariantScores,
    compare_variants,
    turn_sentences,
    variants_of,
)
from lpmoe_bench.scoring.scoring import ScoreOutcome, score_folders
from lpmoe_bench.scoring.views import (
    make_curves,
    make_verification,
    make_worst,
    verification_sentences,
)
from lpmoe_bench.scoring.work import Variant
from lpmoe_bench.tables.parts import Column, metric_columns

# What `score` prints: scores of all folders side by side, and the order under other protocols.


def show_map_scores(records: Sequence[Record], console: Console) -> None:
    """Print a table for each test set: a row for each metric, a column for each method."""
    for test in dict.fromkeys(test for record in records for test in record.scores):
        having = [record for record in records if test in record.scores]
        protocol = get_protocol(having[0].protocol.name)
        _say(console, f"{test}, protocol {protocol.label}")
        table = Table("metric")
        for record in having:
            table.add_column(escape(record.method.title), justify="right")
        for column in metric_columns(having, test, ["all"]):
            arrow = {True: " ↑", False: " ↓", None: ""}[column.higher_is_better]
            values = [column.value(record, test) for record in having]
            cells = [_number(value, column) for value in values]
            table.add_row(escape(column.label) + arrow, *cells)
        table.add_row("images", *(_coverage(record, test) for record in having))
        console.print(table)


def _number(value: float | None, column: Column) -> str:
    return "-" if value is None else f"{value * column.scale:.{column.decimals}f}"


def _coverage(record: Record, test: str) -> str:
    counts = record.counts.get(test, {})
    images, expected = counts.get("images", 0), counts.get("expected", 0)
    return str(images) if images == expected else f"[bold red]{images}/{expected}[/]"


def show_lines(test: str, lines: Sequence[VariantScores], console: Console) -> None:
    """Print every way to every score, then where the order of methods turns."""
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
        cells = (f"{line.values[method]:.4f}" for method in methods)
        turns = ", ".join(f"{behind} > {ahead}" for ahead, behind in line.turns)
        table.add_row(escape(line.metric), escape(", ".join(line.protocols)), *cells, escape(turns))
    console.print(table)
    sentences = turn_sentences(lines)
    if not sentences and len(methods) > 1:
        sentences = ["the order of these methods is the same under all protocols"]
    for sentence in sentences:
        _say(console, sentence)


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)


Say = Callable[[str], None]


@dataclass(frozen=True)
class ScoreExtras:
    """What is wanted besides records. worst, verify: numbers of images, 0 for none."""

    vary: bool = False
    worst: int = 0
    verify: int = 0
    curves: Path | None = None


def score_and_print(
    request: ScoreRequest, wishes: ScoreExtras, as_json: bool, quiet: bool, no_color: bool
) -> None:
    """Score and print; errors are those of plan_scores and score_folders."""
    terminal, console = Terminal(quiet, no_color), Console(no_color=no_color)
    try:
        _score(request, wishes, as_json, terminal, console)
    except KeyboardInterrupt:  # while names are matched or pictures drawn
        raise InterruptedRun(
            "interrupted; records that are written stay, the same command makes the rest"
        ) from None


def _score(
    request: ScoreRequest, wishes: ScoreExtras, as_json: bool, terminal: Terminal, console: Console
) -> None:
    drawn = wishes.curves is not None
    request = replace(request, curves=drawn, again=drawn or wishes.vary)
    plan = plan_scores(request, terminal)
    for note in plan.notes:
        terminal.note(note)
    variants = variants_of(plan.protocol) if wishes.vary else []
    outcome = score_folders(plan, request, terminal, variants)
    _name_old(outcome, terminal)
    records = [stored.record for stored in outcome.records]
    shown: dict[str, Any] = {"records": [record.model_dump(mode="json") for record in records]}
    if not as_json:
        show_map_scores(records, console)
    if wishes.vary:
        shown["vary"] = _vary(plan, outcome, variants, None if as_json else console)
    pairs = [
        (folder, place, test)
        for folder, place in zip(plan.folders, plan.places, strict=True)
        for test in folder.matches
    ]
    say = _speaker(None if as_json else console)
    if wishes.worst:
        shown["worst"] = [_worst(plan, *pair, wishes.worst, say) for pair in pairs]
    if wishes.verify:
        shown["verify"] = [_verify(plan, *pair, wishes.verify, terminal, say) for pair in pairs]
    if wishes.curves is not None:
        files = make_curves(plan, outcome, wishes.curves)
        shown["curves"] = [str(file) for file in files]
        say(f"curves: {', '.join(shown['curves'])}")
    if as_json:
        print(json.dumps(shown, indent=2, ensure_ascii=False))
    for stored in outcome.records:
        terminal.say(f"record: {stored.folder}")


def _name_old(outcome: ScoreOutcome, terminal: Terminal) -> None:
    """Say which records were there before, and of what code they are."""
    pairs = zip(outcome.records, outcome.fresh, strict=True)
    old = [stored for stored, fresh in pairs if not fresh]
    if not old:
        return  # for to look at this machine takes as long as to score ten images
    here = collect_environment("")
    for stored in old:
        there = stored.record.environment
        words = f"{stored.record.method.title} was scored before on these very maps and masks"
        if (here.version, here.git_sha) != (there.version, there.git_sha):
            words += f", by version {there.version} at {there.git_sha or 'no commit'}"
        terminal.note(f"{words}: showing that record (--force scores again)")


def _speaker(console: Console | None) -> Say:
    """Return what prints a line for people; without a console, because machines read, nothing."""
    if console is None:
        return lambda text: None
    return lambda text: console.print(text, markup=False, highlight=False, soft_wrap=True)


def _vary(
    plan: ScorePlan, outcome: ScoreOutcome, variants: Sequence[Variant], console: Console | None
) -> dict[str, Any]:
    shown = {}
    for test, results in outcome.results.items():
        lines: list[VariantScores] = compare_variants([Variant(plan.protocol), *variants], results)
        if console is not None:
            show_lines(test, lines, console)
        shown[test] = {
            "lines": [line.as_json() for line in lines],
            "turns": turn_sentences(lines),
        }
    return shown


def _worst(
    plan: ScorePlan,
    folder: MapFolder,
    place: Path,
    test: str,
    count: int,
    say: Say,
) -> dict[str, Any]:
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
    found = make_verification(plan, place, folder, test, count, terminal)
    for line in verification_sentences(folder.title, test, found):
        say(line)
    facts = {**found._asdict(), "largest": found.largest}
    return {"method": folder.title, "test_set": test, **facts}
