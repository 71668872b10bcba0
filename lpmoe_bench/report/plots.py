"""The plots of the page as figures: Pareto fronts, training, object size."""

from __future__ import annotations

from lpmoe_bench.metrics.facts import METRICS
from lpmoe_bench.report.drawing import Drawing
from lpmoe_bench.report.image_scores import ChapterScores
from lpmoe_bench.report.markup import Child, Markup, tag
from lpmoe_bench.report.material import Chapter
from lpmoe_bench.report.pareto import COSTS, plane
from lpmoe_bench.report.pareto_plot import draw_pareto
from lpmoe_bench.report.sizes import Sizes, by_size
from lpmoe_bench.report.sizes_plot import draw_sizes
from lpmoe_bench.report.svg import to_shared, to_svg
from lpmoe_bench.report.tables import Head, Value, sortable
from lpmoe_bench.report.training import Lesson, Trained
from lpmoe_bench.report.training_plot import draw_training

MOST_NAMES = 12
TRAINING = {"loss": "loss", "validation": "validation score"}


def pareto_figures(chapter: Chapter) -> list[Markup]:
    """Return a plot for each cost that two rows have, with what is not seen in it below."""
    if len(chapter.entries) < 2:
        return [tag("p", "One row: its costs stand in the table.", class_="soft")]
    figures = []
    for cost in COSTS.values():
        made = plane(chapter, cost)
        if len(made.dots) < 2:
            continue
        drawing, unnamed = draw_pareto(made)
        words = (
            [f"On the front: {_names([d.entry.label for d in made.front])}."] if made.front else []
        )
        if unnamed:
            words.append(f"No room for the names of {_names(unnamed)}: point at a dot to see it.")
        if made.absent:
            words.append(f"No figure for {_names(list(made.absent))}.")
        if not cost.exact:
            words.append("Measured: compare only what ran on the same machine, alone.")
        figures.append(tag("figure", to_svg(drawing), tag("figcaption", " ".join(words))))
    if not figures:
        return [tag("p", "Fewer than two rows have both a score and a cost.", class_="soft")]
    return [tag("div", figures, class_="figures")]


def training_figures(lesson: Lesson, number: int) -> list[Child]:
    """Return the small plots of one lesson, the `number`th: losses, then validation scores."""
    found: list[Child] = []
    for kind, words in TRAINING.items():
        label = _selection(lesson) if kind == "validation" else "loss"
        panels = draw_training(lesson, kind, label, f"{kind}-{number}")
        if panels:
            figures = [_small(one, drawing) for one, drawing in panels.drawings]
            shared = to_shared(panels.name, panels.behind)
            found += [tag("h4", words.capitalize()), shared, tag("div", figures, class_="smalls")]
    if lesson.missing:
        words = f"No curve of {_names(list(lesson.missing))}: no curve.csv beside the record."
        found.append(tag("p", words, class_="soft"))
    return found


def _small(one: Trained, drawing: Drawing) -> Markup:
    label, name = one.entry.label, one.entry.name
    return tag("figure", tag("figcaption", label), to_svg(drawing), class_="small", data_name=name)


def _selection(lesson: Lesson) -> str:
    """Return the label of the score that validation is about, where all agree."""
    names = {
        record.config.get("train", {}).get("select")
        for one in lesson.trained
        for record in one.entry.row.records
    }
    key = names.pop() if len(names) == 1 else None
    return METRICS[key].label if key in METRICS else "score"


def size_figures(chapter: Chapter, scores: ChapterScores | None) -> list[Child]:
    """Return the plot of score against foreground share, and its numbers as a table."""
    if scores is None:
        return [tag("p", "This score is of the whole set: no image has it.", class_="soft")]
    missing = tag("p", f"Left out: {_names(list(scores.missing), '; ')}.", class_="soft")
    below: list[Child] = [missing] if scores.missing else []
    sizes = by_size(scores)
    if not sizes.bins:
        return [tag("p", "No record says how large the objects are.", class_="soft"), *below]
    figure = tag("figure", to_svg(draw_sizes(chapter, scores, sizes)), class_="wide")
    return [
        figure,
        tag("details", tag("summary", "The numbers"), _size_table(chapter, scores, sizes)),
        *below,
    ]


def _size_table(chapter: Chapter, scores: ChapterScores, sizes: Sizes) -> Markup:
    first = "down" if scores.higher_is_better else "up"
    heads = [Head("Method"), *(Head(label, first, True) for label in sizes.bins)]
    rows = []
    for row, means, counts in sizes.rows:
        values = [Value(row.entry.label)]
        for mean, count in zip(means, counts, strict=True):
            text = "-" if mean is None else f"{mean:.{scores.decimals}f}"
            values.append(Value([text, tag("span", f" n {count}", class_="sd")], mean))
        rows.append(({"data_name": row.entry.name}, values))
    return sortable(f"{scores.label} on {chapter.test} by foreground share", heads, rows)


def _names(names: list[str], between: str = ", ") -> str:
    more = len(names) - MOST_NAMES
    return between.join(names[:MOST_NAMES]) + (f" and {more} more" if more > 0 else "")
