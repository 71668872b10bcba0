"""Differences as pictures: a line an interval, 0 and the margin behind them (a forest plot)."""

from collections.abc import Sequence
from statistics import median
from typing import Any, NamedTuple

from lpmoe_bench.console import VERDICT_STYLES
from lpmoe_bench.report import plots
from lpmoe_bench.report.contents import ReportTable
from lpmoe_bench.report.verdicts import MOST_ROWS, JudgedTable, RowAnswer, TaskAnswers

LINE = 0.24  # inches of a line
LONGEST = 32  # letters of a name
BAND, ZERO, SETS = "#e3eef8", "#8c959f", "#4b6a88"
# How many times as far as a usual row a plot reaches: one row of another kind, such as maps without
# any training, would flatten all others.
REACH = 4


class Interval(NamedTuple):
    """A difference with its ends, in the units of a plot."""

    mean: float
    low: float
    high: float

    @property
    def reach(self) -> float:
        return max(abs(self.low), abs(self.high))


def draw_verdicts(judged: JudgedTable) -> plots.Plot:
    """Draw the difference of each row from the reference, its interval and its verdict."""
    table, rows = judged.table, judged.rows()[:MOST_ROWS]
    scale, reference = table.score.scale, judged.reference.label if judged.reference else ""
    results = [result for _, _, result in rows]
    found = [Interval(scale * r.spread.mean, scale * r.low, scale * r.high) for r in results]
    margin = scale * max(result.margin for result in results)
    axes = _axes(6.4, len(rows), 2.0, 1.05)
    low, high = _window(axes, found, [one.reach for one in found], margin, len(rows))
    short = plots.shorten(reference, LONGEST)
    axes.set_xlabel(_directed(table, f"{table.score.label}, row less {short}"))
    places, inks = range(len(rows)), [VERDICT_STYLES[result.verdict].ink for result in results]
    ends = ([min(max(end, low), high) for end in own] for own in list(zip(*found, strict=True))[1:])
    axes.hlines(places, *ends, colors=inks, linewidth=1.5, gid="mark-each-bar")
    look = {
        "s": [26 * (low <= one.mean <= high) for one in found],
        "edgecolors": inks,
        "facecolors": [
            "white" if result.verdict == "inconclusive" else ink
            for result, ink in zip(results, inks, strict=True)
        ],
    }
    means = [min(max(one.mean, low), high) for one in found]
    axes.scatter(means, places, gid="mark-each-dot", zorder=2.5, **look)
    marks = {}
    for place, ((row, _, result), one) in enumerate(zip(rows, found, strict=True)):
        style, key = VERDICT_STYLES[result.verdict], f"mark-{place}-"
        text = table.shown(result.spread.mean, "+")
        name = plots.shorten(row.label, LONGEST)
        _beside(axes, -0.015, place, name, ha="right", gid=f"{key}name")
        words = f"{style.sign} {result.verdict}"
        _beside(axes, 1.015, place, words, color=style.ink, gid=f"{key}verdict")
        _point_out(axes, place, one, text, color=style.ink, gid=f"{key}far")
        interval = f"{table.shown(result.low, '+')} to {table.shown(result.high, '+')}"
        said = f"{row.label}: {text}, 95 % interval {interval}, {result.verdict}"
        marks[key] = row.name, said
    title = f"{table.score.label} on {table.test}: rows less {reference}, 95 % intervals"
    return plots.Plot(axes.figure, title, marks)


def draw_answers(found: TaskAnswers) -> plots.Plot:
    """Draw one panel a row in one figure, to be taken apart: what belongs to row k alone has ids
    that begin with `row-k-`. Dots are test sets, the diamond is the mean over sets of their kind.
    """
    table, tests = found.tables[0], [one.test for one in found.tables]
    margin = table.score.scale * max(one.answer.margin for one in found.rows)
    axes = _axes(4.0, len(tests) + 1, 1.75, 0.12)
    of_rows = [_intervals(table, one) for one in found.rows]
    reaches = [max(interval.reach for interval in own) for own in of_rows]
    every = [interval for own in of_rows for interval in own]
    _window(axes, every, reaches, margin, len(tests) + 1)
    axes.set_xlabel(_directed(table, table.score.label))
    for place, test in enumerate(tests):
        _beside(axes, -0.02, place, plots.shorten(test, 26), ha="right", color=plots.SOFT)
    _beside(axes, -0.02, len(tests), "mean over sets", ha="right", fontweight="bold")
    title = f"{table.score.label} less that of {found.reference.label} on {', '.join(tests)}"
    plot = plots.Plot(axes.figure, title)
    for number, (one, own) in enumerate(zip(found.rows, of_rows, strict=True)):
        places = [*(tests.index(pair.test) for pair in one.pairs), len(tests)]
        _panel(axes, f"row-{number}-", table, places, own)
        words = ", ".join(
            f"{name} {table.shown(interval.mean / table.score.scale, '+')}"
            for name, interval in zip([*(p.test for p in one.pairs), "mean"], own, strict=True)
        )
        plot.marks[f"row-{number}-"] = one.row.name, f"{one.row.label}: {words}"
    return plot


def _intervals(table: ReportTable, one: RowAnswer) -> list[Interval]:
    """Return those of the test sets, then that of their mean."""
    scale, answer = table.score.scale, one.answer
    found = [Interval(scale * r.spread.mean, scale * r.low, scale * r.high) for r in one.results]
    return [*found, Interval(scale * answer.mean, scale * answer.low, scale * answer.high)]


def _panel(
    axes: Any, key: str, table: ReportTable, places: Sequence[int], found: Sequence[Interval]
) -> None:
    low, high = axes.get_xlim()
    kinds = ((SETS, 1.2, "o", 4, slice(0, -1)), (plots.FRONT, 2.2, "D", 6, slice(-1, None)))
    for ink, width, marker, size, which in kinds:
        kept = [
            (place, Interval(*(min(max(end, low), high) for end in one)), low < one.mean < high)
            for place, one in zip(places[which], found[which], strict=True)
        ]
        own, lows, highs = zip(*((place, one.low, one.high) for place, one, _ in kept), strict=True)
        axes.hlines(own, lows, highs, colors=ink, linewidth=width, gid=f"{key}bars{marker}")
        if seen := [(one.mean, place) for place, one, is_seen in kept if is_seen]:
            dots = {"linestyle": "none", "marker": marker, "markersize": size, "color": ink}
            axes.plot(*zip(*seen, strict=True), gid=f"{key}dots{marker}", **dots)
        for place, one in zip(places[which], found[which], strict=True):
            text = table.shown(one.mean / table.score.scale, "+")
            _point_out(axes, place, one, text, color=ink, gid=f"{key}far{place}")


# What both share.


def _axes(width: float, lines: int, left: float, right: float) -> Any:
    axes = plots.new_axes(width, LINE * lines + 0.5, left, 0.42, right, 0.08)
    axes.set(ylim=(lines - 0.5, -0.5), yticks=[])
    return axes


def _window(
    axes: Any, found: Sequence[Interval], reaches: Sequence[float], margin: float, lines: int
) -> tuple[float, float]:
    """Set how far a plot reaches, from low to high, and draw 0 and the margin behind."""
    most = max(REACH * median(reaches), 1.5 * margin)
    low = max(-most, min(*(one.low for one in found), -1.5 * margin))
    high = min(most, max(*(one.high for one in found), 1.5 * margin))
    low, high = (low, high) if low < high else (-1.0, 1.0)
    room = 0.04 * (high - low)
    axes.set_xlim(low - room, high + room)
    ends = (-0.5, lines - 0.5)
    axes.fill_betweenx(ends, -margin, margin, color=BAND, linewidth=0, zorder=0.5)
    axes.vlines([0], *ends, colors=ZERO, linewidth=0.8, zorder=0.8)
    return axes.get_xlim()


def _point_out(axes: Any, place: int, one: Interval, text: str, **look: Any) -> None:
    """Write the number of a difference that lies beyond the plot at the end where it is."""
    low, high = axes.get_xlim()
    if one.mean < low:
        _beside(axes, 0.01, place - 0.3, f"← {text}", **look)
    elif one.mean > high:
        _beside(axes, 0.99, place - 0.3, f"{text} →", ha="right", **look)


def _beside(axes: Any, x: float, place: float, text: str, **look: Any) -> None:
    axes.text(x, place, text, transform=axes.get_yaxis_transform(), va="center", fontsize=8, **look)


def _directed(table: ReportTable, what: str) -> str:
    return f"{what}, better →" if table.score.higher_is_better else f"← better, {what}"
