"""The head of the page: what is in it, how it was made, and what to beware of."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from lpmoe_bench import __version__
from lpmoe_bench.metrics.facts import METRICS
from lpmoe_bench.metrics.protocols import PROTOCOLS
from lpmoe_bench.records.context import context_text, decoder_text
from lpmoe_bench.records.model import Record, SplitFacts
from lpmoe_bench.report.contents import ReportContents, ReportTable
from lpmoe_bench.report.disputes import PictureSources, dispute_section
from lpmoe_bench.report.drawing import Drawing, to_shared, to_svg
from lpmoe_bench.report.page import (
    Child,
    Head,
    Markup,
    Value,
    filter_bar,
    page,
    part,
    score_table,
    section,
    sortable,
    tag,
)
from lpmoe_bench.report.pareto import COSTS, draw_pareto, plane
from lpmoe_bench.report.sizes import Sizes, TableScores, by_size, draw_sizes, read_table_scores
from lpmoe_bench.report.training import Trained, TrainingCurves, draw_training, read_training
from lpmoe_bench.report.verdicts import judge_rows, verdict_section
from lpmoe_bench.tables.rows import counted

MOST_NOTES = 40


def overview_section(material: ReportContents) -> Markup:
    """Return the facts of all records as a list of terms, each value with its count."""
    records = material.records
    tests = [facts for r in records for facts in r.data.tests if facts.label in r.scores]
    facts = (
        ("Protocols", Counter(_protocol(r) for r in records)),
        ("Backbones", Counter(_backbone(r) for r in records if r.backbone)),
        ("Decoders", Counter(decoder_text(r) for r in records if r.decoder)),
        ("Trained on", Counter(_split(r.data.train) for r in records if r.data.train)),
        ("Tested on", Counter(map(_split, tests))),
        ("Code", Counter(_code(r) for r in records)),
        ("Devices", Counter(f"{r.environment.device} ({r.environment.cpu})" for r in records)),
    )
    terms: list[Child] = []
    for name, values in facts:
        if values:
            items = [tag("li", text, _times(n, len(values))) for text, n in values.most_common()]
            terms += [tag("dt", name), tag("dd", tag("ul", items))]
    return tag("dl", terms, class_="facts")


def _times(count: int, kinds: int) -> Markup | None:
    return tag("span", f" {counted(count, 'record')}", class_="soft") if kinds > 1 else None


def _protocol(record: Record) -> str:
    facts = record.protocol
    known = PROTOCOLS.get(facts.name)
    title = f": {known.title}" if known and known.hash == facts.hash else ""
    return f"{facts.name} v{facts.version} ({facts.hash[:8]}){title}"


def _backbone(record: Record) -> str:
    facts = record.backbone
    assert facts is not None
    weights = f"weights {(facts.weights_sha256 or 'unknown')[:8]}"
    parts = [
        weights,
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


def warnings(material: ReportContents) -> list[str]:
    """Return what a reader must know before believing the numbers."""
    records = material.records
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
    seeds = {len(e.stored) for c in material.chapters for e in c.entries}
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


def notes_list(material: ReportContents) -> list[str]:
    """Return every distinct note of search, tables and records, with how many records say it."""
    said = Counter(note for record in material.records for note in record.notes)
    of_records = [f"{note} ({counted(n, 'record')})" for note, n in said.most_common()]
    found = [*material.notes, *of_records]
    more = len(found) - MOST_NOTES
    return found[:MOST_NOTES] + ([f"and {more} more notes; the records have them"] * (more > 0))


def record_list(material: ReportContents) -> Markup:
    """Return a table with a line for every record."""
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
    rows = [(_attributes(r), _record(r)) for r in material.records]
    return sortable("All records", heads, rows)


def _attributes(record: Record) -> dict[str, str]:
    return {
        "data_name": f"{record.method.title} {record.method.name} {record.id}",
        "data_task": record.task,
        "data_tests": "\n".join(record.scores),
    }


def _record(record: Record) -> Sequence[Value]:
    seed = record.seed
    return (
        Value(tag("code", record.id)),
        Value(record.task),
        Value(record.method.title),
        Value("-" if seed is None else seed, seed),
        Value([tag("div", words) for words in _scores(record)]),
        Value(record.created[:16].replace("T", " ")),
        Value((record.environment.git_sha or "-")[:10] + "+" * bool(record.environment.git_dirty)),
        Value(record.test_opened, record.test_opened),
    )


def _scores(record: Record) -> Iterable[str]:
    protocol = PROTOCOLS.get(record.protocol.name)
    for test, scores in record.scores.items():
        key = (
            protocol.primary if protocol and protocol.primary in scores else next(iter(scores), "")
        )
        value = scores.get(key)
        label = METRICS[key].label if key in METRICS else key
        yield f"{test}: {label} {'n/a' if value is None else f'{value:.3f}'}"


# The plots of the page as figures: Pareto fronts, training, object size.


MOST_NAMES = 12
TRAINING = {"loss": "loss", "validation": "validation score"}


def pareto_figures(chapter: ReportTable) -> list[Markup]:
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


def training_figures(lesson: TrainingCurves, number: int) -> list[Child]:
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


def _selection(lesson: TrainingCurves) -> str:
    """Return the label of the score that validation is about, where all agree."""
    names = {
        record.config.get("train", {}).get("select")
        for one in lesson.trained
        for record in one.entry.row.records
    }
    key = names.pop() if len(names) == 1 else None
    return METRICS[key].label if key in METRICS else "score"


def size_figures(chapter: ReportTable, scores: TableScores | None) -> list[Child]:
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


def _size_table(chapter: ReportTable, scores: TableScores, sizes: Sizes) -> Markup:
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


# The report from records: sections in order, and the file that holds them.


Report = Callable[[int, int, str], None]


def build_page(
    material: ReportContents, title: str, gallery: PictureSources, report: Report
) -> str:
    """Return the HTML of a report. report: told (done, all, which) as tables are worked on.

    The gallery's `embedded` says afterwards of which test sets images stand in the page.
    """
    chapters: list[Markup] = []
    total = len(material.chapters)
    titles = _titles(material)
    for number, chapter in enumerate(material.chapters, start=1):
        chapters.append(_chapter(chapter, titles[number - 1], gallery))
        report(number, total, chapter.test)
    read = enumerate(read_training(material.chapters), start=1)
    lessons = [_lesson(n, lesson, titles, material) for n, lesson in read]
    tasks = list(dict.fromkeys(chapter.group.context.task for chapter in material.chapters))
    tests = list(dict.fromkeys(chapter.test for chapter in material.chapters))
    contents = [("about", "About")]
    contents += [(c.anchor, words) for c, words in zip(material.chapters, titles, strict=True)]
    contents += [("training", "Training curves")] * bool(lessons) + [("records", "All records")]
    training = section("training", "Training curves", lessons) if lessons else None
    parts = [
        filter_bar(tasks, tests, len(material.records)),
        _about(material, gallery),
        *chapters,
        training,
        section("records", "All records", record_list(material)),
        tag("footer", f"Made by lpmoe-bench {__version__} report."),
    ]
    return page(title, contents, parts)


def _titles(material: ReportContents) -> list[str]:
    """Return a title a chapter; those of one test set are told apart by what differs."""
    names = [f"{c.group.context.task} · {c.test}" for c in material.chapters]
    many = Counter(names)
    return [
        f"{name}{_difference(chapter, material)}" if many[name] > 1 else name
        for name, chapter in zip(names, material.chapters, strict=True)
    ]


def _difference(chapter: ReportTable, material: ReportContents) -> str:
    own = chapter.group.context
    alike = [
        context_text(other.group.context)
        for other in material.chapters
        if (other.group.context.task, other.test) == (own.task, chapter.test)
    ]
    words = [
        f"{name} {value}"
        for name, value in context_text(own).items()
        if len({other[name] for other in alike}) > 1
    ]
    return f" ({', '.join(words)})" if words else ""


def _about(material: ReportContents, gallery: PictureSources) -> Markup:
    records = material.records
    methods = {record.method.name for record in records}
    tests = {test for record in records for test in record.scores}
    tables = counted(len(material.chapters), "table")
    words = (
        f"{counted(len(records), 'record')} of {counted(len(methods), 'method')} on "
        f"{counted(len(tests), 'test set')}, in {tables} of what is comparable. Within a table "
        f"data, protocol, backbone weights and budget are the same."
    )
    items: list[Child] = list(warnings(material))
    if gallery.embedded:
        names = ", ".join(dict.fromkeys(gallery.embedded))
        items.insert(
            0,
            tag(
                "b",
                f"This file holds images of data sets ({names}). Their licences may forbid that "
                f"you publish them: make the report with --no-images before you pass it on.",
            ),
        )
    warned = tag("ul", [tag("li", item) for item in items], class_="warnings") if items else None
    notes = [tag("li", note) for note in notes_list(material)]
    folded = tag(
        "details", tag("summary", counted(len(notes), "note")), tag("ul", notes), class_="notes"
    )
    return section(
        "about",
        "About",
        tag("p", words),
        warned,
        overview_section(material),
        folded if notes else None,
    )


def _chapter(chapter: ReportTable, title: str, gallery: PictureSources) -> Markup:
    group, scores = chapter.group, read_table_scores(chapter)
    below = tag("ul", [tag("li", line) for line in group.footer], class_="footer")
    return section(
        chapter.anchor,
        title,
        tag("p", group.caption, class_="caption"),
        score_table(chapter),
        tag("details", tag("summary", "Below this table"), below, class_="notes"),
        part("Who is better, and how sure", verdict_section(chapter, judge_rows(chapter))),
        part("Score against cost", pareto_figures(chapter)),
        part("Score against the size of the object", size_figures(chapter, scores)),
        part("Images that methods disagree on most", dispute_section(chapter, scores, gallery)),
        class_="chapter",
        data_task=group.context.task,
        data_tests=chapter.test,
    )


def _lesson(
    number: int, lesson: TrainingCurves, titles: list[str], material: ReportContents
) -> Markup:
    places = [material.chapters.index(chapter) for chapter in lesson.chapters]
    first = lesson.chapters[0].group.context
    facts = [
        first.train_set,
        first.backbone,
        f"{first.limit_train} images" * bool(first.limit_train),
    ]
    title = ", ".join([first.task, *filter(None, facts)])
    tables = "; ".join(titles[place] for place in places)
    return tag(
        "div",
        tag("h3", title),
        tag(
            "p",
            f"The runs of {tables}. Seeds thin, their mean bold, all methods grey.",
            class_="soft",
        ),
        training_figures(lesson, number),
        class_="chapter",
        data_task=first.task,
        data_tests="\n".join(chapter.test for chapter in lesson.chapters),
        id=f"training-{number}",
    )
