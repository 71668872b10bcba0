"""The page of a report: what stands in it, from records to the data of its template."""

import base64
import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lpmoe_bench import __version__
from lpmoe_bench.console import VERDICT_STYLES
from lpmoe_bench.metrics.facts import METRICS
from lpmoe_bench.metrics.protocols import PROTOCOLS
from lpmoe_bench.records.context import context_text, decoder_text
from lpmoe_bench.records.model import Record, SplitFacts
from lpmoe_bench.report import plots
from lpmoe_bench.report.contents import ReportContents, ReportTable, is_headline
from lpmoe_bench.report.disputes import PictureSources, dispute_facts
from lpmoe_bench.report.image_scores import TableScores, by_size, read_table_scores
from lpmoe_bench.report.pareto import PLOTTED, find_cost, pareto_plane
from lpmoe_bench.report.svg import clean, to_svg, to_svgs
from lpmoe_bench.report.training import Kind, TrainingCurves, read_training
from lpmoe_bench.report.verdicts import judge_rows, verdict_facts
from lpmoe_bench.tables.parts import PARAMETERS, Cell, Column
from lpmoe_bench.tables.rows import counted

HERE = Path(__file__).parent
TEMPLATE, STYLE, SCRIPT = "report.html.jinja", "report.css", "report.js"
SHOWN_COSTS = ("train_images_per_second", "peak_memory_bytes")  # the others on demand
MOST_NOTES, MOST_NAMES = 40, 12

OnTable = Callable[[int, int, str], None]


def build_page(
    contents: ReportContents, title: str, sources: PictureSources, report: OnTable
) -> str:
    """Return the HTML of a report: one file, whose policy lets it load and run nothing else.

    Args:
        contents: tables and their records.
        title: of the page.
        sources: of pictures; its `embedded` says afterwards of which sets images are in the page.
        report: told (done, all, test set) as tables are worked on.

    Raises:
        UsageError: matplotlib or adjustText is not installed.
    """
    plots.need_plots()
    titles = _titles(contents)
    sections = []
    with plots.plot_style():
        for number, table in enumerate(contents.tables):
            sections.append(_section(table, titles[number], sources))
            report(number + 1, len(contents.tables), table.test)
        lessons = [
            _training(number, lesson, titles, contents)
            for number, lesson in enumerate(read_training(contents.tables), start=1)
        ]
    links = [("about", "About")]
    links += [(one["anchor"], one["title"]) for one in sections]
    links += [("training", "Training curves")] * bool(lessons) + [("records", "All records")]
    return _rendered(
        title=title,
        links=links,
        tasks=list(dict.fromkeys(table.group.context.task for table in contents.tables)),
        tests=list(dict.fromkeys(table.test for table in contents.tables)),
        about=_about(contents, sources),
        sections=sections,
        training=lessons,
        records=_record_table(contents.records),
        version=__version__,
    )


def _rendered(**data: Any) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,  # names come from records, and records from anywhere
        finalize=lambda value: clean(value) if type(value) is str else value,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style, script = ((HERE / name).read_text(encoding="utf-8") for name in (STYLE, SCRIPT))
    looks = (f".matrix .{k} {{ color: {v.ink}; background: {v.ground}; }}" for k, v in _matrix())
    style += "\n".join(looks) + "\n"
    policy = (
        f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; "
        f"img-src data:; base-uri 'none'; form-action 'none'"
    )
    template = environment.get_template(TEMPLATE)
    return template.render(policy=policy, style=style, script=script, **data)


def _matrix() -> list[tuple[str, Any]]:
    return [(kind, look) for kind, look in VERDICT_STYLES.items() if " " not in kind]


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


# Tables of the page: every header sorts, every cell carries the number it is sorted by.


class Head(NamedTuple):
    """A column. first: the order of the first click, up or down; extra: shown on demand."""

    text: str
    first: str = "up"
    is_number: bool = False
    extra: bool = False
    hint: str = ""


class Value(NamedTuple):
    """A cell: what is shown, the number it is sorted by, small text behind it, its classes.

    Several lines where it is a list. mark: the class of the text alone, such as best.
    """

    shown: str | list[str]
    number: float | None = None
    soft: str = ""
    mark: str = ""
    kind: str = ""


class PageTable(NamedTuple):
    """A table: heads, and rows of (what filters read, one value a column), the first a name."""

    caption: str
    heads: list[Head]
    rows: list[tuple[dict[str, str], list[Value]]]


def _score_table(table: ReportTable) -> PageTable:
    """Return every metric and cost of a table, those that it shows unasked at once."""
    group = table.group
    heads = [Head("Method"), Head("n", "down", True, hint="seeds")]
    heads += [_column(table, column) for column in group.columns]
    rows = []
    for row in table.rows:
        values = [Value(row.label), Value(str(len(row.stored)), len(row.stored))]
        values += [
            _value(c, column) for c, column in zip(row.row.cells, group.columns, strict=True)
        ]
        rows.append(({"name": row.name}, values))
    return PageTable(f"Scores on {table.test}", heads, rows)


def _column(table: ReportTable, column: Column) -> Head:
    plain = column in PARAMETERS or column.key in SHOWN_COSTS
    shown = is_headline(table.group, column) if column.is_score else plain
    first = "up" if column.higher_is_better is False or column in PARAMETERS else "down"
    return Head(column.directed_label, first, True, not shown, column.key)


def _value(cell: Cell, column: Column) -> Value:
    if cell.mean is None:
        return Value("n/a" if column.is_score else "-", kind="none")
    text = f"{cell.mean * column.scale:.{column.decimals}f}"
    spread = ""
    if column.is_score and cell.sd is not None:
        spread = f" ± {cell.sd * column.scale:.{column.decimals}f}"
    return Value(text, cell.mean, spread, cell.mark)


def _record_table(records: Sequence[Record]) -> PageTable:
    """Return a line for every record."""
    heads = [
        Head("Record"),
        Head("Task"),
        Head("Method"),
        Head("Seed", is_number=True),
        Head("Scores"),
        Head("Made", "down"),
        Head("Code"),
        Head("Test opened", "down", True),
    ]
    return PageTable("All records", heads, [_record(one) for one in records])


def _record(record: Record) -> tuple[dict[str, str], list[Value]]:
    seed, code = record.seed, record.environment
    filters = {
        "name": f"{record.method.title} {record.method.name} {record.id}",
        "task": record.task,
        "tests": "\n".join(record.scores),
    }
    return filters, [
        Value(record.id, mark="code"),
        Value(record.task),
        Value(record.method.title),
        Value("-" if seed is None else str(seed), seed),
        Value(list(_scores(record))),
        Value(record.created[:16].replace("T", " ")),
        Value((code.git_sha or "-")[:10] + "+" * bool(code.git_dirty)),
        Value(str(record.test_opened), record.test_opened),
    ]


def _scores(record: Record) -> Iterable[str]:
    protocol = PROTOCOLS.get(record.protocol.name)
    for test, scores in record.scores.items():
        primary = protocol.primary if protocol and protocol.primary in scores else None
        key = primary or next(iter(scores), "")
        value = scores.get(key)
        label = METRICS[key].label if key in METRICS else key
        yield f"{test}: {label} {'n/a' if value is None else f'{value:.3f}'}"


# The head of the page: what is in it, how it was made, and what to beware of.


def _about(contents: ReportContents, sources: PictureSources) -> dict[str, Any]:
    records = contents.records
    methods = {record.method.name for record in records}
    tests = {test for record in records for test in record.scores}
    return {
        "summary": f"{counted(len(records), 'record')} of {counted(len(methods), 'method')} on "
        f"{counted(len(tests), 'test set')}, in {counted(len(contents.tables), 'table')} of what "
        f"is comparable. Within a table data, protocol, backbone weights and budget are the same.",
        "embedded": ", ".join(dict.fromkeys(sources.embedded)),
        "warnings": warnings_of(contents),
        "facts": [(name, _counted(values)) for name, values in _facts(records) if values],
        "notes": _notes(contents),
    }


def _facts(records: Sequence[Record]) -> Iterable[tuple[str, Counter[str]]]:
    tests = [facts for r in records for facts in r.data.tests if facts.label in r.scores]
    yield "Protocols", Counter(_protocol(r) for r in records)
    yield "Backbones", Counter(_backbone(r) for r in records if r.backbone)
    yield "Decoders", Counter(decoder_text(r) for r in records if r.decoder)
    yield "Trained on", Counter(_split(r.data.train) for r in records if r.data.train)
    yield "Tested on", Counter(map(_split, tests))
    yield "Code", Counter(_code(r) for r in records)
    yield "Devices", Counter(f"{r.environment.device} ({r.environment.cpu})" for r in records)


def _counted(values: Counter[str]) -> list[tuple[str, str]]:
    """Return each value with the number of its records, which one for all need not say."""
    several = len(values) > 1
    return [(text, counted(n, "record") if several else "") for text, n in values.most_common()]


def _protocol(record: Record) -> str:
    facts = record.protocol
    known = PROTOCOLS.get(facts.name)
    title = f": {known.title}" if known and known.hash == facts.hash else ""
    return f"{facts.name} v{facts.version} ({facts.hash[:8]}){title}"


def _backbone(record: Record) -> str:
    facts = record.backbone
    assert facts is not None
    parts = [
        f"weights {(facts.weights_sha256 or 'unknown')[:8]}",
        facts.weights_source,
        facts.licence and f"licence {facts.licence}",
        facts.note,
    ]
    return f"{facts.name}: {'; '.join(filter(None, parts))}"


def _split(facts: SplitFacts) -> str:
    parts = [f"{facts.images} images", f"digest {facts.digest[:8]}"]
    parts += ["generated"] if facts.generated else []
    return f"{facts.label}: {'; '.join([*parts, *filter(None, [facts.note])])}"


def _code(record: Record) -> str:
    facts = record.environment
    sha = facts.git_sha[:10] if facts.git_sha else "no commit known"
    changed = ", with uncommitted changes" if facts.git_dirty else ""
    return f"lpmoe-bench {facts.version}, {sha}{changed}"


def warnings_of(contents: ReportContents) -> list[str]:
    """Return what a reader must know before believing the numbers."""
    records = contents.records
    sets = [s for r in records for s in (r.data.train, *r.data.tests) if s]
    drawn = sorted({s.label for s in sets if s.generated})
    limited = sorted({s.label for s in sets if not s.generated and _is_limited(s.note)})
    found = []
    if drawn:
        found.append(
            f"Drawn in code, no photographs: {', '.join(drawn)}. Their scores say nothing about "
            f"real images and compare with no published number."
        )
    if limited:
        found.append(
            f"Local splits, resized or incomplete copies: {', '.join(limited)}. Compare methods "
            f"here with each other, not with published tables; the notes below say why."
        )
    seeds = {len(row.stored) for table in contents.tables for row in table.rows}
    if seeds == {1}:
        found.append("One seed of each method: differences may be what another seed would change.")
    if opened := sum(r.test_opened > 1 for r in records):
        found.append(f"The test images were opened more than once for {counted(opened, 'record')}.")
    if dirty := sum(bool(r.environment.git_dirty) for r in records):
        found.append(f"{counted(dirty, 'record')} made by code that differs from its commit.")
    if scored := sum(r.kind == "score" for r in records):
        found.append(f"{counted(scored, 'record')} of maps from a folder: nobody says how made.")
    return found


def _is_limited(note: str) -> bool:
    return any(word in note.lower() for word in ("local split", "resized", "officially", "stand"))


def _notes(contents: ReportContents) -> list[str]:
    """Return every distinct note of search, tables and records, with how many records say it."""
    said = Counter(note for record in contents.records for note in record.notes)
    of_records = [f"{note} ({counted(n, 'record')})" for note, n in said.most_common()]
    found = [*contents.notes, *of_records]
    more = len(found) - MOST_NOTES
    return found[:MOST_NOTES] + ([f"and {more} more notes; the records have them"] * (more > 0))


# A section for each table: scores, verdicts, costs, object size, disputed images.


def _titles(contents: ReportContents) -> list[str]:
    """Return a title a table; those of one test set are told apart by what differs."""
    names = [f"{table.group.context.task} · {table.test}" for table in contents.tables]
    alike: dict[str, list[dict[str, str]]] = {}
    for name, table in zip(names, contents.tables, strict=True):
        alike.setdefault(name, []).append(context_text(table.group.context))
    titles = []
    for name, table in zip(names, contents.tables, strict=True):
        own = context_text(table.group.context)
        differing = [k for k in own if len({other[k] for other in alike[name]}) > 1]
        said = ", ".join(f"{key} {own[key]}" for key in differing)
        titles.append(f"{name} ({said})" if said else name)
    return titles


def _section(table: ReportTable, title: str, sources: PictureSources) -> dict[str, Any]:
    scores = read_table_scores(table)
    return {
        "anchor": table.anchor,
        "title": title,
        "task": table.group.context.task,
        "test": table.test,
        "caption": table.group.caption,
        "scores": _score_table(table),
        "footer": table.group.footer,
        "verdicts": verdict_facts(table, judge_rows(table)),
        "costs": _cost_facts(table),
        "sizes": _size_facts(table, scores),
        "disputes": _dispute_facts(table, scores, sources),
    }


def _cost_facts(table: ReportTable) -> dict[str, Any]:
    """Return a plot for each cost that two rows have, with what is not seen in it below."""
    if len(table.rows) < 2:
        return {"plots": [], "reason": "One row: its costs stand in the table."}
    found = []
    for key in PLOTTED:
        plane = pareto_plane(table, find_cost(key))
        if len(plane.points) < 2:
            continue
        plot = plots.draw_pareto(plane, legend=False)
        front = [point.row.label for point in plane.front]
        said = [f"On the front: {_listed(front)}."] if front else []
        if plot.unnamed:
            listed = _listed(plot.unnamed)
            said.append(f"No room for the names of {listed}: point at a dot to see it.")
        if plane.absent:
            said.append(f"No figure for {_listed(plane.absent)}.")
        if plane.is_measured:
            said.append("Measured: compare only what ran on the same machine, alone.")
        found.append((to_svg(plot, f"{table.anchor}-{key}"), " ".join(said)))
    reason = "" if found else "Fewer than two rows have both a score and a cost."
    return {"plots": found, "reason": reason}


def _size_facts(table: ReportTable, scores: TableScores | None) -> dict[str, Any]:
    """Return the plot of score against foreground share, and its numbers as a table."""
    facts: dict[str, Any] = {"plot": None, "missing": "", "reason": ""}
    if scores is None:
        return facts | {"reason": "This score is of the whole set: no image has it."}
    if scores.missing:
        facts["missing"] = f"Left out: {_listed(scores.missing, '; ')}."
    sizes = by_size(scores)
    if not sizes.bins:
        return facts | {"reason": "No record says how large the objects are."}
    first = "down" if scores.metric.higher_is_better else "up"
    heads = [Head("Method"), *(Head(label, first, True) for label in sizes.bins)]
    rows = []
    for row, means, counts in sizes.rows:
        values = [Value(row.label)]
        for mean, count in zip(means, counts, strict=True):
            text = "-" if mean is None else scores.shown(mean)
            values.append(Value(text, mean, f" n {count}"))
        rows.append(({"name": row.name}, values))
    caption = f"{scores.metric.label} on {table.test} by foreground share"
    plot = to_svg(plots.draw_sizes(table, scores, sizes), f"{table.anchor}-sizes")
    return facts | {"plot": plot, "numbers": PageTable(caption, heads, rows)}


def _dispute_facts(
    table: ReportTable, scores: TableScores | None, sources: PictureSources
) -> dict[str, Any]:
    facts = dispute_facts(table, scores, sources)
    if scores is None or not facts["images"]:
        return facts
    first = "down" if scores.metric.higher_is_better else "up"
    heads = [Head("Image"), Head("Foreground (%)", "down", True), Head("Spread", "down", True)]
    heads += [Head(row.row.label, first, True) for row in scores.rows]
    rows: list[tuple[dict[str, str], list[Value]]] = []
    for one in facts["images"]:
        of_row = {id(row): value for row, value in one.scores}
        share = None if one.share is None else 100 * one.share
        values = [
            Value(one.image),
            Value("-" if share is None else f"{share:.1f}", share),
            Value(scores.shown(one.spread), one.spread),
        ]
        for row in scores.rows:
            value = of_row[id(row)]
            mark = {one.scores[0][1]: "best", one.scores[-1][1]: "poorest"}.get(value, "")
            values.append(Value(scores.shown(value), value, mark=mark))
        rows.append(({}, values))
    return facts | {"list": PageTable("Scores of the most disputed images", heads, rows)}


def _training(
    number: int, lesson: TrainingCurves, titles: list[str], contents: ReportContents
) -> dict[str, Any]:
    """Return the small plots of rows that trained alike: losses, then validation scores."""
    places = {id(table): place for place, table in enumerate(contents.tables)}
    first = lesson.tables[0].group.context
    limit = f"{first.limit_train} images" * bool(first.limit_train)
    groups = []
    kinds: dict[Kind, tuple[str, str]] = {
        "loss": ("Loss", "loss"),
        "validation": ("Validation score", lesson.selected_by),
    }
    for kind, (heading, label) in kinds.items():
        plot, rows = plots.draw_training(lesson, kind, label)
        if rows:
            drawn = to_svgs(plot, len(rows), f"training-{number}-{kind}")
            groups.append((heading, list(zip(rows, drawn, strict=True))))
    return {
        "anchor": f"training-{number}",
        "title": ", ".join([first.task, *filter(None, [first.train_set, first.backbone, limit])]),
        "task": first.task,
        "tests": "\n".join(table.test for table in lesson.tables),
        "of": "; ".join(titles[places[id(table)]] for table in lesson.tables),
        "groups": groups,
        "missing": _listed(lesson.missing),
    }


def _listed(names: Sequence[str], between: str = ", ") -> str:
    more = len(names) - MOST_NAMES
    return between.join(names[:MOST_NAMES]) + (f" and {more} more" if more > 0 else "")
