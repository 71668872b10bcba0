"""An outcome as Markdown for the summary of a GitHub step."""

from __future__ import annotations

import html
import os
import re
from pathlib import Path

from lpmoe_bench.check.verdicts import Line, Outcome
from lpmoe_bench.check.words import label, limit, number
from lpmoe_bench.errors import ResourceError
from lpmoe_bench.files import write_atomically, write_failure

MARKS = {
    "pass": "✅",
    "improved": "🎉",
    "inconclusive": "❔",
    "not comparable": "🚫",
    "regressed": "❌",
}
VARIABLE = "GITHUB_STEP_SUMMARY"


def to_markdown(outcome: Outcome) -> str:
    """Return a heading with the verdict and a table a cell; whatever comes from records is text."""
    blocks = [
        f"## Gate: {MARKS[outcome.verdict]} {outcome.verdict}",
        f"{outcome.summary()}; level {outcome.policy.level:g}, Holm over the scores of the call",
    ]
    for cell in dict.fromkeys(line.cell for line in outcome.lines):
        lines = [line for line in outcome.lines if line.cell == cell]
        blocks += [f"### {plain(cell)}", _markdown_table(lines)]
    blocks += [f"- {plain(note)}" for note in outcome.notes]
    return "\n\n".join(blocks) + "\n"


def write_summary(outcome: Outcome, path: Path | None) -> None:
    """Write to a file; without one, append to the summary of the GitHub step, if this is one."""
    if path is not None:
        write_atomically(path, to_markdown(outcome))
    elif own := os.environ.get(VARIABLE):
        try:
            with open(own, "a", encoding="utf-8") as file:
                file.write(to_markdown(outcome))
        except OSError as error:
            raise ResourceError(write_failure(Path(own), error)) from error


def plain(text: str) -> str:
    """Return text that Markdown and HTML show as it is: no markup, link, mention or line break."""
    text = "".join(c if c.isprintable() else " " for c in text)
    text = html.escape(" ".join(text.split()), quote=False)
    return re.sub(r"([\\`*_{}\[\]()#+!|~@:-])", lambda match: f"&#{ord(match[0])};", text)


def _markdown_table(lines: list[Line]) -> str:
    rows = [
        "| | what | baseline | candidate | limit | verdict | why |",
        "|---|---|---:|---:|---:|---|---|",
    ]
    for line in lines:
        cells = [
            MARKS[line.verdict],
            plain(label(line)),
            number(line, line.baseline),
            number(line, line.candidate),
            limit(line),
            line.verdict,
            plain(line.reason),
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)
