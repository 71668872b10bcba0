"""The page of a report: from records to the data of its template, which holds the sentences."""

import base64
import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lpmoe_bench import __version__
from lpmoe_bench.console import VERDICT_STYLES
from lpmoe_bench.metrics.facts import METRICS
from lpmoe_bench.metrics.protocols import PROTOCOLS
from lpmoe_bench.records.context import context_text, decoder_text
from lpmoe_bench.records.model import Record, SplitFacts
from lpmoe_bench.report import images, pareto, plots, training, verdicts
from lpmoe_bench.report.contents import ReportContents, ReportTable
from lpmoe_bench.tables.parts import PARAMETERS, Cell, Column
from lpmoe_bench.tables.rows import counted, varying

HERE = Path(__file__).parent
TEMPLATE, STYLE, SCRIPT = "report.html.jinja", "report.css", "report.js"
SHOWN_COSTS = ("train_images_per_second", "peak_memory_bytes")  # the others on demand
LIMITED = ("local split", "resized", "officially", "stand")  # in notes of splits


def build_page(
    contents: ReportContents,
    title: str,
    source: images.SetSource | None,
    count: int,
    report: Callable[[int, int, str], None],
) -> tuple[str, list[str]]:
    """Return the HTML of a report: one file, whose policy lets it load and run nothing else.

    Args:
        contents: tables and their records.
        title: of the page.
        source: of the pictures of disputed images; None for no pictures.
        count: of disputed images.
        report: told (done, all, test set) as tables are worked on.

    Returns:
        The page, and the data sets whose images are in it.

    Raises:
        UsageError: matplotlib or adjustText is not installed.
    """
    plots.need_plots()
    titles = dict(zip(map(_anchor, contents.tables), _titles(contents), strict=True))
    sections = []
    with plots.plot_style():
        for number, table in enumerate(contents.tables, start=1):
            sections.append(_section(table, titles[table.anchor], source, count))
            report(number, len(contents.tables), table.test)
        trained = [
            _training(f"training-{number}", one, titles)
            for number, one in enumerate(training.read_training(contents.tables), start=1)
        ]
    embedded = [one["test"] for one in sections if one["disputes"]["embedded"]]
    embedded = list(dict.fromkeys(embedded))
    records = contents.records
    text = _filled(
        title=title,
        tests=list(dict.fromkeys(table.test for table in contents.tables)),
        tasks=list(dict.fromkeys(table.group.context.task for table in contents.tables)),
        methods=len({record.method.name for record in records}),
        scored_tests=len({test for record in records for test in record.scores}),
        embedded=embedded,
        warnings=_warnings(contents),
        facts=_facts(records),
        notes=[*contents.notes, *_notes(records)],
        sections=sections,
        training=trained,
        records=records,
        version=__version__,
    )
    return text, embedded


def _filled(**data: Any) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,  # names come from records, and records from anywhere
        finalize=lambda value: plots.clean(value) if type(value) is str else value,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"counted": counted, "listed": _listed, "scores": _scores}
    style, script = ((HERE / name).read_text(encoding="utf-8") for name in (STYLE, SCRIPT))
    looks = {kind: look for kind, look in VERDICT_STYLES.items() if " " not in kind}
    for kind, look in looks.items():
        style += f".matrix .{kind} {{ color: {look.ink}; background: {look.ground}; }}\n"
    policy = (
        f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; "
        f"img-src data:; base-uri 'none'; form-action 'none'"
    )
    template = environment.get_template(TEMPLATE)
    return template.render(policy=policy, style=style, script=script, **data)


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _listed(names: Sequence[str], most: int = 12, between: str = ", ") -> str:
    more = len(names) - most
    return between.join(names[:most]) + (f" and {more} more" if more > 0 else "")


def _scores(record: Record) -> Iterator[str]:
    """Yield the primary score of a record on each test set."""
    protocol = PROTOCOLS.get(record.protocol.name)
    for test, scores in record.scores.items():
        primary = protocol.primary if protocol and protocol.primary in scores else None
        key = primary or next(iter(scores), "")
        value = scores.get(key)
        label = METRICS[key].label if key in METRICS else key
        yield f"{test}: {label} {'n/a' if value is None else f'{value:.3f}'}"


# The head of the page: what is in it, how it was made, and what to beware of.


def _warnings(contents: ReportContents) -> dict[str, Any]:
    """Return what a reader must know before believing the numbers."""
    records = contents.records
    sets = [one for r in records for one in (r.data.train, *r.data.tests) if one]
    own = [one for one in sets if any(word in one.note.lower() for word in LIMITED)]
    return {
        "drawn": sorted({one.label for one in sets if one.generated}),
        "limited": sorted({one.label for one in own if not one.generated}),
        "single": {len(row.stored) for table in contents.tables for row in table.rows} == {1},
        "opened": sum(record.test_opened > 1 for record in records),
        "dirty": sum(bool(record.environment.git_dirty) for record in records),
        "maps": sum(record.kind == "score" for record in records),
    }


def _facts(records: Sequence[Record]) -> list[tuple[str, list[tuple[str, int]]]]:
    """Return what records were made with, and of how many each is true."""
    tests = [facts for r in records for facts in r.data.tests if facts.label in r.scores]
    places = [record.environment for record in records]
    facts = {
        "Protocols": map(_protocol, records),
        "Backbones": (_backbone(record) for record in records if record.backbone),
        "Decoders": (decoder_text(record) for record in records if record.decoder),
        "Trained on": (_split(record.data.train) for record in records if record.data.train),
        "Tested on": map(_split, tests),
        "Code": map(_code, records),
        "Devices": (f"{place.device} ({place.cpu})" for place in places),
    }
    found = [(name, Counter(texts).most_common()) for name, texts in facts.items()]
    return [(name, values) for name, values in found if values]


def _protocol(record: Record) -> str:
    facts = record.protocol
    known = PROTOCOLS.get(facts.name)
    title = f": {known.title}" if known and known.hash == facts.hash else ""
    return f"{facts.name} v{facts.version} ({facts.hash[:8]}){title}"


def _backbone(record: Record) -> str:
    facts = record.backbone
    assert facts is not None
    licence = facts.licence and f"licence {facts.licence}"
    weights = f"weights {(facts.weights_sha256 or 'unknown')[:8]}"
    parts = filter(None, [weights, facts.weights_source, licence, facts.note])
    return f"{facts.name}: {'; '.join(parts)}"


def _split(facts: SplitFacts) -> str:
    drawn = "generated" if facts.generated else ""
    parts = [f"{facts.images} images", f"digest {facts.digest[:8]}", drawn, facts.note]
    return f"{facts.label}: {'; '.join(filter(None, parts))}"


def _code(record: Record) -> str:
    facts = record.environment
    sha = facts.git_sha[:10] if facts.git_sha else "no commit known"
    changed = ", with uncommitted changes" if facts.git_dirty else ""
    return f"lpmoe-bench {facts.version}, {sha}{changed}"


def _notes(records: Sequence[Record]) -> list[str]:
    """Return every distinct note of records, with how many of them say it."""
    said = Counter(note for record in records for note in record.notes)
    return [f"{note} ({counted(n, 'record')})" for note, n in said.most_common()]


# A section for each table. In its tables every header sorts.


class Head(NamedTuple):
    """A column. first: the order of the first click, up or down; extra: shown on demand."""

    text: str
    first: str = "up"
    is_number: bool = False
    extra: bool = False
    hint: str = ""


class Value(NamedTuple):
    """A cell: what is shown, the number it is sorted by, small text behind it, its classes.

    mark: the class of the text alone, such as best.
    """

    shown: str
    number: float | None = None
    soft: str = ""
    mark: str = ""
    kind: str = ""


class PageTable(NamedTuple):
    """A table: heads, and rows of (what filters find it by, a value a column), a name first."""

    caption: str
    heads: list[Head]
    rows: list[tuple[str, list[Value]]]


def _anchor(table: ReportTable) -> str:
    return table.anchor


def _titles(contents: ReportContents) -> list[str]:
    """Return a title a table; those of one test set are told apart by what differs."""
    contexts = [table.group.context for table in contents.tables]
    named = [(f"{one.task} · {one.test_set}", context_text(one)) for one in contexts]
    alike = defaultdict(list)
    for name, text in named:
        alike[name].append(text)
    differing = {name: varying(texts) for name, texts in alike.items()}
    said = [", ".join(f"{k} {text[k]}" for k in differing[name]) for name, text in named]
    return [
        f"{name} ({more})" if more else name for (name, _), more in zip(named, said, strict=True)
    ]


def _section(
    table: ReportTable, title: str, source: images.SetSource | None, count: int
) -> dict[str, Any]:
    scores = images.read_table_scores(table)
    disputes = images.dispute_facts(table, scores, source, count)
    if scores and len(disputes["images"]):
        disputes["list"] = _disputed_table(scores, disputes["images"])
    return {
        "anchor": table.anchor,
        "title": title,
        "task": table.group.context.task,
        "test": table.test,
        "caption": table.group.caption,
        "table": _score_table(table),
        "footer": table.group.footer,
        "verdicts": verdicts.verdict_facts(table, verdicts.judge_rows(table)),
        "rows": len(table.rows),
        "costs": list(_costs(table)),
        "scores": scores,
        "sizes": _sizes(table, scores) if scores else None,
        "disputes": disputes,
    }


def _score_table(table: ReportTable) -> PageTable:
    """Return every metric and cost of a table, those that it shows unasked at once."""
    columns = table.group.columns
    heads = [Head("Method"), Head("n", "down", True, hint="seeds")]
    heads += [_column(table, column) for column in columns]
    rows = []
    for row in table.rows:
        cells = zip(row.row.cells, columns, strict=True)
        values = [Value(row.label), Value(str(len(row.stored)), len(row.stored))]
        rows.append((row.name, values + [_value(cell, column) for cell, column in cells]))
    return PageTable(f"Scores on {table.test}", heads, rows)


def _column(table: ReportTable, column: Column) -> Head:
    protocol = PROTOCOLS.get(table.group.context.protocol)
    shown = column in PARAMETERS or column.key in SHOWN_COSTS
    if column.is_score:
        shown = protocol is None or column.key in protocol.headline
    first = "up" if column.higher_is_better is False or column in PARAMETERS else "down"
    return Head(column.directed_label, first, True, not shown, column.key)


def _value(cell: Cell, column: Column) -> Value:
    if cell.mean is None:
        return Value("n/a" if column.is_score else "-", kind="none")
    text, sd = f"{cell.mean * column.scale:.{column.decimals}f}", cell.sd
    has_spread = column.is_score and sd is not None
    spread = f" ± {sd * column.scale:.{column.decimals}f}" if has_spread else ""
    return Value(text, cell.mean, spread, cell.mark)


def _costs(table: ReportTable) -> Iterator[tuple[pareto.ParetoPlane, plots.Plot, str]]:
    """Yield the plane, the plot and the drawn plot of each cost that two rows have."""
    for key in pareto.PLOTTED:
        plane = pareto.pareto_plane(table, pareto.find_cost(key))
        if len(plane.points) > 1:
            plot = pareto.draw_pareto(plane, legend=False)
            yield plane, plot, plots.to_svg(plot, f"{table.anchor}-{key}")


def _sizes(table: ReportTable, scores: images.TableScores) -> dict[str, Any] | None:
    """Return the plot of score against foreground share, and its numbers as a table."""
    sizes = images.by_size(scores)
    if sizes.means.empty:
        return None
    first = "down" if scores.metric.higher_is_better else "up"
    heads = [Head("Method"), *(Head(name, first, True) for name in sizes.means.index)]
    rows = []
    for place, row in enumerate(scores.rows):
        values = [Value(row.label)]
        for mean, count in zip(sizes.means[place], sizes.counts[place], strict=True):
            shown = Value(scores.shown(mean), mean) if count else Value("-")
            values.append(shown._replace(soft=f" n {count}"))
        rows.append((row.name, values))
    caption = f"{scores.metric.label} on {table.test} by foreground share"
    plot = plots.to_svg(images.draw_sizes(table, scores, sizes), f"{table.anchor}-sizes")
    return {"plot": plot, "numbers": PageTable(caption, heads, rows)}


def _disputed_table(scores: images.TableScores, disputed: Any) -> PageTable:
    first = "down" if scores.metric.higher_is_better else "up"
    heads = [Head("Image"), Head("Foreground (%)", "down", True), Head("Spread", "down", True)]
    heads += [Head(row.label, first, True) for row in scores.rows]
    rows = []
    for name, means in disputed.iterrows():
        share, low, high = scores.shares.get(name), means.min(), means.max()
        marks = {low: "poorest", high: "best"}
        if not scores.metric.higher_is_better:
            marks = {high: "poorest", low: "best"}
        values = [
            Value(name),
            Value("-") if share is None else Value(f"{100 * share:.1f}", 100 * share),
            Value(scores.shown(high - low), high - low),
        ]
        values += [Value(scores.shown(one), one, mark=marks.get(one, "")) for one in means]
        rows.append(("", values))
    return PageTable("Scores of the most disputed images", heads, rows)


def _training(
    anchor: str, trained: training.TrainingCurves, titles: dict[str, str]
) -> dict[str, Any]:
    """Return the small plots of rows that trained alike: losses, then validation scores."""
    first = trained.tables[0].group.context
    limit = f"{first.limit_train} images" if first.limit_train else ""
    groups = []
    for kind, heading, label in (
        ("loss", "Loss", "loss"),
        ("validation", "Validation score", trained.selected_by),
    ):
        plot, rows = training.draw_training(trained, kind, label)
        if rows:
            drawn = plots.to_svgs(plot, len(rows), f"{anchor}-{kind}")
            groups.append((heading, list(zip(rows, drawn, strict=True))))
    return {
        "anchor": anchor,
        "title": ", ".join(filter(None, [first.task, first.train_set, first.backbone, limit])),
        "task": first.task,
        "tests": [table.test for table in trained.tables],
        "of": [titles[table.anchor] for table in trained.tables],
        "groups": groups,
        "missing": trained.missing,
    }
