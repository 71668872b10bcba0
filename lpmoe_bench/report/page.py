"""The page of a report: from records to the data of its template, which holds the sentences."""

import base64
import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from lpmoe_bench import __version__
from lpmoe_bench.analysis.pairing import Rules
from lpmoe_bench.config.kinds import KINDS
from lpmoe_bench.console import VERDICT_STYLES
from lpmoe_bench.environment import no_collection
from lpmoe_bench.metrics.facts import METRICS
from lpmoe_bench.metrics.protocols import PROTOCOLS
from lpmoe_bench.records.context import Context, context_text, decoder_text
from lpmoe_bench.records.model import Record, SplitFacts
from lpmoe_bench.report import forest, images, pareto, plots, training, verdicts
from lpmoe_bench.report.confusion import class_facts, is_class_column
from lpmoe_bench.report.contents import ReportContents, ReportRow, ReportTable
from lpmoe_bench.tables.parts import PARAMETERS, Column
from lpmoe_bench.tables.rows import counted, varying

HERE = Path(__file__).parent
TEMPLATE, STYLE, SCRIPT = "report.html.jinja", "report.css", "report.js"
SHOWN_COSTS = ("train_images_per_second", "peak_memory_bytes")  # the others on demand
MOST_POINTS = 60  # of a plot in the page, which names them where the pointer rests
LONG = 100  # rows, beyond which a table leaves out the columns that are shown on demand
LIMITED = ("local split", "resized", "officially", "stand")  # in notes of splits


def build_page(
    contents: ReportContents,
    title: str,
    source: images.SetSource | None,
    count: int,
    report: Callable[[int, int, str], None],
    against: str | None = None,
    rules: Rules | None = None,
) -> tuple[str, list[str]]:
    """Return the HTML of a report: one file, whose policy lets it load and run nothing else.

    Args:
        contents: tables and their records.
        title: of the page.
        source: of the pictures of disputed images; None for no pictures.
        count: of disputed images.
        report: told (done, all, test set) as tables are worked on.
        against: the row that others are compared with; by default `verdicts.REFERENCE`.
        rules: how differences are judged.

    Returns:
        The page, and the data sets whose images are in it.

    Raises:
        UsageError: matplotlib or adjustText is not installed, or no row is that one.
    """
    plots.need_plots()
    rules = rules or Rules()
    titles = _titles(contents)
    judged = verdicts.judge_tables(contents.tables, against, rules)
    of = {one.table.anchor: one for together in judged for one in together}
    sections = []
    with plots.plot_style():
        for number, table in enumerate(contents.tables, start=1):
            facts = _verdicts(of[table.anchor], rules)
            sections.append(_section(table, titles[table.anchor], source, count) | facts)
            report(number, len(contents.tables), table.test)
        trained = [
            _training(f"training-{number}", one, titles)
            for number, one in enumerate(training.read_training(contents.tables), start=1)
        ]
        answers = _answers(verdicts.answer_tasks(judged, rules))
    embedded = [one["table"].test for one in sections if one["disputes"]["embedded"]]
    embedded = list(dict.fromkeys(embedded))
    text = _filled(
        title=title,
        embedded=embedded,
        doubtful=_doubtful(contents),
        facts=_facts(contents.records),
        notes=[*contents.notes, *_notes(contents.records)],
        sections=sections,
        training=trained,
        answers=answers,
        records=contents.records,
        version=__version__,
    )
    return text, embedded


@no_collection()
def _filled(**data: Any) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,  # names come from records, and records from anywhere
        finalize=lambda value: plots.clean(value) if type(value) is str else value,
        # A misspelt name is an error and no empty place in the page.
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["number"] = _number
    environment.filters |= {"counted": counted, "listed": _listed, "scores": _scores}
    environment.filters["digits"] = lambda value, decimals: f"{value:.{decimals}f}"
    style, script = ((HERE / name).read_text(encoding="utf-8") for name in (STYLE, SCRIPT))
    # What has a space is of the gate, and would be two classes.
    looks = {kind: look for kind, look in VERDICT_STYLES.items() if " " not in kind}
    for kind, look in looks.items():
        style += f"td.{kind} {{ color: {look.ink}; background: {look.ground}; }}\n"
    policy = (
        f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; "
        f"img-src data:; base-uri 'none'; form-action 'none'"
    )
    template = environment.get_template(TEMPLATE)
    return template.render(policy=policy, style=style, script=script, **data)


def _number(
    value: float | None, shown: Any, soft: str = "", mark: str = "", extra: bool = False
) -> Markup:
    """Return a cell that is sorted by its number; without one it comes last.

    A page has tens of thousands of them, for which a macro of the template takes ten times as long.
    """
    kinds = ("none" * (value is None and not soft), "number", "extra" * extra)
    data = "" if value is None else f' data-value="{float(value)}"'
    text, spread = escape(shown), f' <span class="sd">{escape(soft)}</span>' if soft else ""
    text = f'<span class="{mark}">{text}</span>' if mark else text
    return Markup(f'<td class="{" ".join(filter(None, kinds))}"{data}>{text}{spread}</td>')


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


def _doubtful(contents: ReportContents) -> tuple[list[str], list[str], bool]:
    """Return sets drawn in code, those unlike the published ones, and if all rows are single."""
    sets = [one for r in contents.records for one in (r.data.train, *r.data.tests) if one]
    own = [one for one in sets if any(word in one.note.lower() for word in LIMITED)]
    drawn = {one.label for one in sets if one.generated}
    limited = {one.label for one in own if not one.generated}
    seeds = {len(row.stored) for table in contents.tables for row in table.rows}
    return sorted(drawn), sorted(limited), seeds == {1}


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


# A section for each table.


def _titles(contents: ReportContents) -> dict[str, str]:
    """Return titles by anchor; tables of one test set are told apart by what differs."""
    contexts = [table.group.context for table in contents.tables]
    named = [(f"{context.task} · {context.test_set}", context) for context in contexts]
    anchors = [table.anchor for table in contents.tables]
    return dict(zip(anchors, _told_apart(named), strict=True))


def _told_apart(named: Sequence[tuple[str, Context]]) -> list[str]:
    """Return names with what differs between the contexts of one name."""
    alike: dict[str, list[dict[str, str]]] = defaultdict(list)
    for name, context in named:
        alike[name].append(context_text(context))
    titles = []
    for name, context in named:
        own = context_text(context)
        said = ", ".join(f"{key} {own[key]}" for key in varying(alike[name]))
        titles.append(f"{name} ({said})" if said else name)
    return titles


def _verdicts(judged: verdicts.JudgedTable, rules: Rules) -> dict[str, Any]:
    """Return the verdicts of a table with their plot, and the differences of all pairs."""
    table, facts = judged.table, verdicts.verdict_facts(judged)
    if facts["rows"]:
        facts["drawn"] = plots.to_svg(forest.draw_verdicts(judged), f"{table.anchor}-verdicts")
    matrix = verdicts.matrix_facts(table, verdicts.pair_all(table, rules.groups))
    return {"verdicts": facts, "matrix": matrix}


def _answers(found: Sequence[verdicts.TaskAnswers]) -> list[dict[str, Any]]:
    """Return the small plots and the numbers of each answer over test sets."""
    contexts = [one.tables[0].group.context for one in found]
    named = [
        (
            f"{context.task} · over {len(one.tables)} test sets",
            replace(context, test_set="", test_digest=""),
        )
        for one, context in zip(found, contexts, strict=True)
    ]
    made = []
    for number, (one, title) in enumerate(zip(found, _told_apart(named), strict=True), start=1):
        anchor, facts = f"over-{number}", verdicts.answer_facts(one)
        drawn = plots.to_svgs(forest.draw_answers(one), len(facts["rows"]), anchor)
        made.append({"anchor": anchor, "title": title, "drawn": drawn, **facts})
    return made


# Plots are full of circles, for which all records would be searched again and again.
@no_collection()
def _section(
    table: ReportTable, title: str, source: images.SetSource | None, count: int
) -> dict[str, Any]:
    scores = images.read_table_scores(table)
    planes = [pareto.pareto_plane(table, pareto.find_cost(key)) for key in pareto.PLOTTED]
    planes = [plane for plane in planes if len(plane.points) > 1]
    heads = [_head(table, column) for column in table.group.columns]
    own = table.group.columns.index(table.score)
    all_shown = len(table.rows) <= LONG
    # Columns of single classes stand in a table of their own.
    of_class = {n for n, column in enumerate(table.group.columns) if is_class_column(column)} - {
        own
    }
    kept = [(n, head) for n, head in enumerate(heads) if n not in of_class]
    places = [n for n, head in kept if all_shown or n == own or not head[3]]
    return {
        "table": table,
        "title": title,
        "rows": [(row, _cells(table, row, places, heads)) for row in table.rows],
        "left_out": len(kept) - len(places),
        "heads": [("Method", "up", False), ("n", "down", True, False, "seeds")]
        + [heads[place] for place in places],
        "costs": list(_costs(table, planes)),
        "alike": [plane.label for plane in planes if len({p.x for p in plane.points}) == 1],
        "classes": _classes(table, heads),
        "panels": _panels(table),
        "scores": scores,
        "sizes": _sizes(table, scores) if scores else None,
        "disputes": images.dispute_facts(table, scores, source, count),
    }


def _panels(table: ReportTable) -> list[Any]:
    """Return what the kind of the table's task shows besides; see `report.precision`."""
    protocol = PROTOCOLS.get(table.group.context.protocol)
    panels = KINDS[protocol.kind].panels if protocol else None
    return panels(table) if panels else []


def _classes(table: ReportTable, heads: Sequence[tuple[Any, ...]]) -> dict[str, Any] | None:
    """Return the rows of the table of classes and the picture of their confusion, if any."""
    facts = class_facts(table)
    if facts is None:
        return None
    places = [place for place, _ in facts["columns"]]
    shown = [(*head[:3], False) for head in heads]
    rows = [(row, _cells(table, row, places, shown)) for row in table.rows]
    named = [(name, "down", True, False, facts["what"]) for _, name in facts["columns"]]
    seeds = ("n", "down", True, False, "seeds")
    return facts | {"rows": rows, "heads": [("Method", "up", False), seeds, *named]}


def _head(table: ReportTable, column: Column) -> tuple[str, str, bool, bool, str]:
    """Return a head, the order of its first click, number or not, on demand or not, and a hint."""
    protocol = PROTOCOLS.get(table.group.context.protocol)
    shown = column in PARAMETERS or column.key in SHOWN_COSTS
    if column.is_score:
        shown = protocol is None or column.key in protocol.headline
    first = "up" if column.higher_is_better is False or column in PARAMETERS else "down"
    return column.directed_label, first, True, not shown, column.key


def _cells(
    table: ReportTable, row: ReportRow, places: Sequence[int], heads: Sequence[tuple[Any, ...]]
) -> Markup:
    """Return the cells of a row: its seeds, then the columns at these places."""
    found = [_number(len(row.stored), len(row.stored))]
    for place in places:
        column, cell, extra = table.group.columns[place], row.row.cells[place], heads[place][3]
        mean = cell.mean
        if mean is None:
            found.append(_number(None, "n/a" if column.is_score else "-", extra=extra))
            continue
        sd = cell.sd if column.is_score else None
        spread = "" if sd is None else f"± {sd * column.scale:.{column.decimals}f}"
        shown = f"{mean * column.scale:.{column.decimals}f}"
        found.append(_number(mean, shown, spread, cell.mark, extra))
    return Markup("").join(found)


def _costs(
    table: ReportTable, planes: Sequence[pareto.ParetoPlane]
) -> Iterator[tuple[pareto.ParetoPlane, plots.Plot, str]]:
    """Yield the plane, the plot and the drawn plot of each cost by which rows differ."""
    for plane in planes:
        if len({point.x for point in plane.points}) > 1:
            plot = pareto.draw_pareto(plane, legend=False, most=MOST_POINTS)
            yield plane, plot, plots.to_svg(plot, f"{table.anchor}-{plane.cost.key}")


def _sizes(table: ReportTable, scores: images.TableScores) -> tuple[images.Sizes, str] | None:
    """Return scores against foreground share, and their plot."""
    sizes = images.by_size(scores)
    if sizes.means.empty:
        return None
    return sizes, plots.to_svg(images.draw_sizes(table, scores, sizes), f"{table.anchor}-sizes")


@no_collection()
def _training(
    anchor: str, trained: training.TrainingCurves, titles: dict[str, str]
) -> dict[str, Any]:
    """Return the small plots of rows that trained alike: losses, then validation scores."""
    groups = []
    for kind, heading, label in (
        ("loss", "Loss", "loss"),
        ("validation", "Validation score", trained.selected_by),
    ):
        plot, rows = training.draw_training(trained, kind, label)
        if rows:
            drawn = plots.to_svgs(plot, len(rows), f"{anchor}-{kind}")
            groups.append((heading, list(zip(rows, drawn, strict=True))))
    of = [titles[table.anchor] for table in trained.tables]
    return {"anchor": anchor, "of": of, "groups": groups, "trained": trained}
