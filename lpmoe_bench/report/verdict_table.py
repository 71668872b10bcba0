"""Verdicts as a matrix: the row's score less the column's, and whether that is sure."""

from __future__ import annotations

from collections import Counter

from lpmoe_bench.analysis.significance import settling
from lpmoe_bench.report.markup import Markup, tag
from lpmoe_bench.report.material import Chapter
from lpmoe_bench.report.verdicts import MARGIN, Verdicts

SIGNS = {"better": "▲", "worse": "▼", "equal": "=", "inconclusive": "?"}
TURNED = {"better": "worse", "worse": "better"}
MOST_NOTES = 6


def verdict_section(chapter: Chapter, verdicts: Verdicts) -> list[Markup]:
    """Return the matrix with what it says in words; a sentence alone where nothing is compared."""
    notes = [*verdicts.notes[:MOST_NOTES]]
    if len(verdicts.notes) > MOST_NOTES:
        notes.append(f"and {len(verdicts.notes) - MOST_NOTES} more of this kind")
    below = tag("p", ". ".join(notes) + ".", class_="soft") if notes else None
    if not verdicts.pairs:
        words = (
            "No verdict: a difference between methods needs at least two seeds of each. What "
            "another seed would change is not known, so small differences here mean nothing."
        )
        if len(chapter.entries) < 2:
            words = "One row: there is nothing to compare it with."
        return [tag("p", words, class_="soft"), *filter(None, [below])]
    return [
        tag("p", _summary(chapter, verdicts)),
        tag("div", _matrix(chapter, verdicts), class_="scroll", tabindex=0, role="region"),
        *filter(None, [below]),
    ]


def _summary(chapter: Chapter, verdicts: Verdicts) -> str:
    found = Counter(result.verdict for result in verdicts.pairs.values())
    settled = found["better"] + found["worse"]
    margin = f"{MARGIN * chapter.score.scale:g}"
    words = (
        f"Of {len(verdicts.pairs)} pairs, {settled} differ, {found['equal']} are equal within "
        f"±{margin} and {found['inconclusive']} are inconclusive: {chapter.score.label}, paired "
        f"over seeds and images; pairs differ where p, after Holm over all pairs of this table, is "
        f"below 0.05."
    )
    needed = sorted(r.seeds_needed for r in verdicts.pairs.values() if r.seeds_needed)
    if needed:
        words += (
            f" With about {needed[0]} seeds in all the nearest of the inconclusive pairs would be "
            f"settled, with {needed[(len(needed) - 1) // 2]} half of those that seeds can settle."
        )
    return words


def _matrix(chapter: Chapter, verdicts: Verdicts) -> Markup:
    labels = [entry.label for entry in verdicts.entries]
    corner = tag("th", "row less column", scope="col", class_="soft")
    head = tag("tr", corner, [tag("th", label, scope="col") for label in labels])
    body = []
    for a, entry in enumerate(verdicts.entries):
        cells = [_cell(chapter, verdicts, a, b) for b in range(len(labels))]
        body.append(tag("tr", tag("th", entry.label, scope="row"), cells, data_name=entry.name))
    caption = tag("caption", "Verdicts of every pair", class_="unseen")
    return tag("table", caption, tag("thead", head), tag("tbody", body), class_="matrix")


def _cell(chapter: Chapter, verdicts: Verdicts, a: int, b: int) -> Markup:
    result = verdicts.pairs.get((min(a, b), max(a, b)))
    if a == b or result is None:
        return tag("td", "" if a == b else "-", class_="none")
    sign = 1 if a < b else -1
    verdict = result.verdict if a < b else TURNED.get(result.verdict, result.verdict)
    difference = chapter.shown(sign * result.spread.mean, "+")
    ends = sorted((sign * result.low, sign * result.high))
    interval = " to ".join(chapter.shown(end, "+") for end in ends)
    pair = f"{verdicts.entries[a].label} less {verdicts.entries[b].label}"
    title = (
        f"{pair}: {difference}, 95 % interval {interval}, p {result.p:.2g}, "
        f"{result.spread.seeds} seeds, {verdict}"
    )
    title = "; ".join(filter(None, [title, settling(result)]))
    words = [tag("span", SIGNS[verdict], aria_hidden="true"), " ", difference]
    unseen = tag("span", f" {verdict}", class_="unseen")
    return tag("td", words, unseen, class_=verdict, title=title)
