"""What the gate says: a table for people, JUnit XML, Markdown, and where a limit comes from."""

from __future__ import annotations

import html
import math
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from lpmoe_bench.console import VERDICT_STYLES
from lpmoe_bench.errors import ResourceError, UsageError
from lpmoe_bench.files import write_atomically, write_failure
from lpmoe_bench.gate import limits
from lpmoe_bench.gate.baseline import Baseline, CellPin, MetricPin, Policy
from lpmoe_bench.gate.judge import JudgedLine, Judgement, Outcome
from lpmoe_bench.gate.pin import GateCell, differences
from lpmoe_bench.metrics.facts import METRICS

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

# How a line of an outcome is worded, the same in every form of output.

# Each verdict's mark in Markdown.
MARKS = {
    "pass": "✅",
    "improved": "🎉",
    "inconclusive": "❔",
    "not comparable": "🚫",
    "regressed": "❌",
}


def label(line: JudgedLine) -> str:
    """Return the name of what is judged; a metric's with its direction."""
    if line.kind != "quality" or line.name not in METRICS:
        return line.name
    fact = METRICS[line.name]
    return f"{fact.label} {fact.arrow}"


def number_text(line: JudgedLine, value: float | None) -> str:
    """Return a value with the digits that its kind deserves."""
    if value is None:
        return "-"
    if line.kind == "count":
        return f"{value:,.0f}"
    return f"{value:.1f}" if line.kind == "speed" else f"{value:.4f}"


def limit(line: JudgedLine) -> str:
    """Return the limit of a score, a dash where there is none."""
    judgement = line.judgement
    return number_text(line, judgement.limit if judgement else None)


def sentence(line: JudgedLine) -> str:
    """Say a line in one sentence."""
    said = f"{label(line)} is {line.verdict}"
    if line.candidate is not None:
        said += (
            f": {number_text(line, line.candidate)}, baseline {number_text(line, line.baseline)}"
        )
    if line.judgement and line.judgement.limit is not None:
        said += f", limit {limit(line)}"
    return f"{said}; {line.reason}" if line.reason else said


# An outcome as a table for people in a terminal.


def show_outcome(outcome: Outcome, console: Console) -> None:
    """Print a table a cell, the reasons below it, and the verdict of the call last.

    Counts that are equal share one line.
    """
    from rich.text import Text

    for cell in dict.fromkeys(line.cell for line in outcome.lines):
        lines = [line for line in outcome.lines if line.cell == cell]
        console.print(cell, highlight=False, markup=False, style="bold", soft_wrap=True)
        equal = [line for line in lines if line.kind == "count" and line.verdict == "pass"]
        rows = [line for line in lines if line.candidate is not None and line not in equal]
        if rows:
            console.print(_table(rows))
        if equal:
            console.print(f"{len(equal)} counts of parameters and FLOPs are equal")
        for line in lines:
            if line.reason and line.verdict != "pass":
                said = f"{label(line)}: {line.verdict}, {line.reason}"
                console.print(said, highlight=False, markup=False, soft_wrap=True)
    for note in outcome.notes:
        console.print(f"note: {note}", highlight=False, markup=False, soft_wrap=True)
    verdict = Text(outcome.verdict, VERDICT_STYLES[outcome.verdict].terminal)
    console.print(Text("gate: ").append_text(verdict).append(f" ({outcome.summary()})"))


def _table(lines: list[JudgedLine]) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("", no_wrap=True)
    for name in ("baseline", "candidate", "limit", "p"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for line in lines:
        judged = line.judgement
        table.add_row(
            Text(label(line)),
            number_text(line, line.baseline),
            number_text(line, line.candidate),
            limit(line),
            f"{judged.p:.2g}" if judged and judged.p is not None else "",
            Text(line.verdict, VERDICT_STYLES[line.verdict].terminal),
        )
    return table


# An outcome as JUnit XML, which most CI systems show beside the tests.

# What no XML 1.0 document may hold, not even as a reference.
_FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def to_junit(outcome: Outcome, strict: bool) -> str:
    """Return the XML: a suite a call, a case a line; regressed and not comparable are failures.

    An inconclusive line is skipped, and with `strict` a failure.
    """
    failing = {"regressed", "not comparable"} | ({"inconclusive"} if strict else set())
    skipped = {"inconclusive"} - failing
    failures = sum(line.verdict in failing for line in outcome.lines)
    skips = sum(line.verdict in skipped for line in outcome.lines)
    counts = {"tests": len(outcome.lines), "failures": failures, "skipped": skips, "errors": 0}
    attributes = {"name": "lpmoe-bench check"} | {k: str(v) for k, v in counts.items()}
    root = ElementTree.Element("testsuites", attributes)
    suite = ElementTree.SubElement(root, "testsuite", attributes)
    for line in outcome.lines:
        names = {"classname": _clean(line.cell), "name": _clean(label(line))}
        case, said = ElementTree.SubElement(suite, "testcase", names), _clean(sentence(line))
        if line.verdict in failing:
            attributes = {"message": said, "type": line.verdict}
            ElementTree.SubElement(case, "failure", attributes).text = said
        elif line.verdict in skipped:
            ElementTree.SubElement(case, "skipped", {"message": said})
    for note in outcome.notes:
        ElementTree.SubElement(suite, "system-out").text = _clean(note)
    ElementTree.indent(root, " ")
    text = ElementTree.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{text}\n'


def _clean(text: str) -> str:
    return _FORBIDDEN.sub("?", text)


# An outcome as Markdown for the summary of a GitHub step.

VARIABLE = "GITHUB_STEP_SUMMARY"


def summary_markdown(outcome: Outcome) -> str:
    """Return a heading with the verdict and a table a cell; whatever comes from records is text."""
    blocks = [
        f"## Gate: {MARKS[outcome.verdict]} {outcome.verdict}",
        f"{outcome.summary()}; level {outcome.policy.level:g}, Holm over the scores of the call",
    ]
    for cell in dict.fromkeys(line.cell for line in outcome.lines):
        lines = [line for line in outcome.lines if line.cell == cell]
        blocks += [f"### {plain_markdown(cell)}", _markdown_table(lines)]
    blocks += [f"- {plain_markdown(note)}" for note in outcome.notes]
    return "\n\n".join(blocks) + "\n"


def write_summary(outcome: Outcome, path: Path | None) -> None:
    """Write to a file; without one, append to the summary of the GitHub step, if this is one."""
    if path is not None:
        write_atomically(path, summary_markdown(outcome))
    # Steps of one job share the file, so it is appended to.
    elif own := os.environ.get(VARIABLE):
        try:
            with open(own, "a", encoding="utf-8") as file:
                file.write(summary_markdown(outcome))
        except OSError as error:
            raise ResourceError(write_failure(Path(own), error)) from error


def plain_markdown(text: str) -> str:
    """Return text that Markdown and HTML show as it is: no markup, link, mention or line break."""
    text = "".join(c if c.isprintable() else " " for c in text)
    # Markdown resolves character references after it has looked for markup, so they show as text.
    text = html.escape(" ".join(text.split()), quote=False)
    return re.sub(r"([\\`*_{}\[\]()#+!|~@:-])", lambda match: f"&#{ord(match[0])};", text)


def _markdown_table(lines: list[JudgedLine]) -> str:
    rows = [
        "| | what | baseline | candidate | limit | verdict | why |",
        "|---|---|---:|---:|---:|---|---|",
    ]
    for line in lines:
        cells = [
            MARKS[line.verdict],
            plain_markdown(label(line)),
            number_text(line, line.baseline),
            number_text(line, line.candidate),
            limit(line),
            line.verdict,
            plain_markdown(line.reason),
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


# Sentences on where one limit comes from: spread, quantile, floor, cap, Holm.


def choose_pin(baseline: Baseline, cell: str, metric: str) -> tuple[CellPin, str]:
    """Return the pin and the metric that two texts mean; a part of a cell's name is enough.

    Raises UsageError where none, or more than one, is meant.
    """
    names = [pin.name for pin in baseline.cells]
    fitting = [pin for pin in baseline.cells if cell in pin.name]
    fitting = [pin for pin in fitting if pin.name == cell] or fitting
    if not fitting:
        raise UsageError.unknown("cell of the baseline", cell, names)
    if len(fitting) > 1:
        raise UsageError(
            f"--cell {cell or 'is not given, which'} means {len(fitting)} cells, such as "
            f"'{fitting[0].name}' and '{fitting[1].name}'; say more of the name"
        )
    key = metric or next(iter(fitting[0].metrics))
    if key not in fitting[0].metrics:
        raise UsageError.unknown(f"metric of {fitting[0].name}", key, fitting[0].metrics)
    return fitting[0], key


def explain_limit(
    pin: CellPin, metric: str, policy: Policy, outcome: Outcome | None, cells: Sequence[GateCell]
) -> list[str]:
    """Explain one limit; with an outcome also the verdict, else for as many seeds as are pinned."""
    lines = [one for one in outcome.lines if one.cell == pin.name] if outcome else []
    line = next((one for one in lines if (one.kind, one.name) == ("quality", metric)), None)
    judgement = line.judgement if line else None
    found, label = pin.metrics[metric], METRICS[metric].label if metric in METRICS else metric
    seeds = judgement.seeds if judgement else len(pin.seeds)
    level = judgement.level if judgement else policy.level / len(pin.metrics)
    family = judgement.family if judgement else len(pin.metrics)
    said = [f"{label} on {pin.name}.", *_spread(pin, found)]
    said += _limit(pin, metric, policy, seeds, level, family)
    if line and judgement:
        said += _verdict(line, judgement, policy)
        said += _same_seeds(pin, found, cells, metric)
    elif line:
        said.append(f"The verdict is {line.verdict}: {line.reason}.")
    elif lines:  # of the whole cell, which nothing could be compared with
        said.append(f"The cell is {lines[0].verdict}: {lines[0].reason}.")
    else:
        said.append("No candidate is there; the limit is the one that such a candidate would meet.")
    return said


def _spread(pin: CellPin, found: MetricPin) -> Iterator[str]:
    if found.sd is None:
        yield f"The baseline has one seed, {found.mean:.4f}: how far seeds differ is not known."
        return
    yield (
        f"The baseline has {len(pin.seeds)} seeds with a mean of {found.mean:.4f} and an sd of "
        f"{found.sd:.4f}."
    )
    if found.rest_variance is None:
        return
    nested = math.sqrt(found.rest_variance / max(1, pin.images))
    raised = "so it is raised to that" if nested > found.sd else "so it stands"
    yield (
        f"The rows of {pin.images} images, nested within the seeds, allow no sd below "
        f"{nested:.4f}, {raised}."
    )


def _limit(
    pin: CellPin, metric: str, policy: Policy, seeds: int, level: float, family: int
) -> Iterator[str]:
    reference = limits.reference_of(pin.metrics[metric], pin.images)
    allowed = limits.tolerance(reference, seeds, level, policy)
    if reference.sd is None:
        if allowed is None:
            yield (
                f"Without floor or cap there is no limit, and every verdict but a rerun that is "
                f"the same to the last bit is inconclusive; pin {limits.GOOD_SEEDS} seeds, or "
                f"give one."
            )
            return
    else:
        found = limits.learnt(reference, seeds, level) or 0.0
        # The drop is t x sd x sqrt(1/n_c + 1/n_b): t is what is left of it without the last two.
        scale = reference.sd * math.sqrt(1 / seeds + 1 / reference.seeds)
        quantile = found / scale if scale else 0.0
        if family > 1:
            yield (
                f"Holm's procedure judges it at the level {level:.3g}, since {family} scores share "
                f"the {policy.level:g} of one call."
            )
        yield (
            f"Chance alone makes the mean of {seeds} new seeds worse than that of the baseline by "
            f"more than t x sd x sqrt(1/{seeds} + 1/{reference.seeds}) = {quantile:.2f} x "
            f"{reference.sd:.4f} x {math.sqrt(1 / seeds + 1 / reference.seeds):.3f} = {found:.4f} "
            f"with a probability of {level:.3g}."
        )
        if found < limits.floor_of(policy):
            yield f"That is less than the floor, {limits.floor_of(policy):g}, which counts instead."
        if policy.cap is not None and found > policy.cap:
            yield f"That is more than the cap, {policy.cap:g}, which counts instead."
    assert allowed is not None  # with a spread there is a limit
    up = METRICS[metric].higher_is_better if metric in METRICS else True
    limit = reference.mean - allowed if up else reference.mean + allowed
    yield f"So the limit is {limit:.4f}: a score {'below' if up else 'above'} it is a regression."


def _verdict(line: JudgedLine, judgement: Judgement, policy: Policy) -> Iterator[str]:
    seeds = f"{judgement.seeds} seeds" if judgement.seeds > 1 else "one seed"
    p = "" if judgement.p is None else f" (one-sided p {judgement.p:.3g})"
    drop = "no drop"
    if judgement.drop:
        change = judgement.drop
        drop = f"a drop of {change:.4f}" if change > 0 else f"better by {-change:.4f}"
    yield f"The candidate scores {line.candidate:.4f} over {seeds}, {drop}{p}: {line.verdict}."
    if line.reason:
        yield f"{line.reason[:1].upper()}{line.reason[1:]}."
    needed = limits.seeds_needed(judgement.reference, judgement.drop, judgement.level)
    if line.verdict == "pass" and needed and judgement.drop > limits.floor_of(policy):
        side = "both sides" if needed[1] else "the candidate"
        yield f"Were that drop real, about {needed[0]} seeds of {side} would show it."


def _same_seeds(
    pin: CellPin, found: MetricPin, cells: Sequence[GateCell], metric: str
) -> Iterator[str]:
    """Show the seeds that both sides have, one by one: for reading, they decide nothing."""
    cell = next((c for c in cells if not differences(pin.identity, c.identity)), None)
    if cell is None:
        return
    before = dict(zip(pin.seeds, found.scores, strict=True))
    after = {
        seed: one.record.scores[cell.test_set].get(metric)
        for seed, one in zip(cell.seeds, cell.stored, strict=True)
    }
    pairs = [(s, before[s], v) for s, v in after.items() if s in before and v is not None]
    if pairs:
        each = ", ".join(f"seed {s} {v - old:+.2g}" for s, old, v in pairs)
        yield f"Seed by seed, which decides nothing (see docs/gate.md): {each}."
