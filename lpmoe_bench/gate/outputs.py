"""What the gate says of a call: a table for people, JUnit XML, Markdown."""

from __future__ import annotations

import html
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from lpmoe_bench.console import VERDICT_STYLES
from lpmoe_bench.errors import ResourceError
from lpmoe_bench.files import write_atomically, write_failure
from lpmoe_bench.gate.baseline import Policy
from lpmoe_bench.gate.judge import JudgedLine, Outcome
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
    # A name from a record may hold anything; one wrong
    # character makes the whole report unreadable.
    return _FORBIDDEN.sub("?", text)


# An outcome as Markdown for the summary of a GitHub step.

VARIABLE = "GITHUB_STEP_SUMMARY"


def level_text(policy: Policy) -> str:
    """Return what the level is one of: an average over baselines, or most of them."""
    if policy.confidence is None:
        return f"level {policy.level:g} on average over baselines"
    return f"level {policy.level:g} in {100 * policy.confidence:g} % of baselines"


def summary_markdown(outcome: Outcome) -> str:
    """Return a heading with the verdict and a table a cell; whatever comes from records is text."""
    blocks = [
        f"## Gate: {MARKS[outcome.verdict]} {outcome.verdict}",
        f"{outcome.summary()}; {level_text(outcome.policy)}, Holm over the scores of the call",
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
