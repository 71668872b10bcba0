"""The report from records: sections in order, and the file that holds them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from lpmoe_bench import __version__
from lpmoe_bench.records.context import in_words
from lpmoe_bench.report.disputes import Gallery, dispute_section
from lpmoe_bench.report.image_scores import read_chapter
from lpmoe_bench.report.markup import Child, Markup, tag
from lpmoe_bench.report.material import Chapter, Material
from lpmoe_bench.report.page import filter_bar, page, part, section
from lpmoe_bench.report.plots import pareto_figures, size_figures, training_figures
from lpmoe_bench.report.summary import notes_list, overview, record_list, warnings
from lpmoe_bench.report.tables import score_table
from lpmoe_bench.report.training import Lesson, read_lessons
from lpmoe_bench.report.verdict_table import verdict_section
from lpmoe_bench.report.verdicts import judge
from lpmoe_bench.tables.rows import counted

Report = Callable[[int, int, str], None]


def build_page(material: Material, title: str, gallery: Gallery, report: Report) -> str:
    """Return the HTML of a report. report: told (done, all, which) as tables are worked on.

    The gallery's `embedded` says afterwards of which test sets images stand in the page.
    """
    chapters: list[Markup] = []
    total = len(material.chapters)
    titles = _titles(material)
    for number, chapter in enumerate(material.chapters, start=1):
        chapters.append(_chapter(chapter, titles[number - 1], gallery))
        report(number, total, chapter.test)
    read = enumerate(read_lessons(material.chapters), start=1)
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


def _titles(material: Material) -> list[str]:
    """Return a title a chapter; those of one test set are told apart by what differs."""
    names = [f"{c.group.context.task} · {c.test}" for c in material.chapters]
    many = Counter(names)
    return [
        f"{name}{_difference(chapter, material)}" if many[name] > 1 else name
        for name, chapter in zip(names, material.chapters, strict=True)
    ]


def _difference(chapter: Chapter, material: Material) -> str:
    own = chapter.group.context
    alike = [
        in_words(other.group.context)
        for other in material.chapters
        if (other.group.context.task, other.test) == (own.task, chapter.test)
    ]
    words = [
        f"{name} {value}"
        for name, value in in_words(own).items()
        if len({other[name] for other in alike}) > 1
    ]
    return f" ({', '.join(words)})" if words else ""


def _about(material: Material, gallery: Gallery) -> Markup:
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
        "about", "About", tag("p", words), warned, overview(material), folded if notes else None
    )


def _chapter(chapter: Chapter, title: str, gallery: Gallery) -> Markup:
    group, scores = chapter.group, read_chapter(chapter)
    below = tag("ul", [tag("li", line) for line in group.footer], class_="footer")
    return section(
        chapter.anchor,
        title,
        tag("p", group.caption, class_="caption"),
        score_table(chapter),
        tag("details", tag("summary", "Below this table"), below, class_="notes"),
        part("Who is better, and how sure", verdict_section(chapter, judge(chapter))),
        part("Score against cost", pareto_figures(chapter)),
        part("Score against the size of the object", size_figures(chapter, scores)),
        part("Images that methods disagree on most", dispute_section(chapter, scores, gallery)),
        class_="chapter",
        data_task=group.context.task,
        data_tests=chapter.test,
    )


def _lesson(number: int, lesson: Lesson, titles: list[str], material: Material) -> Markup:
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
