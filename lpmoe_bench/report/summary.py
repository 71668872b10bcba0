"""The head of the page: what is in it, how it was made, and what to beware of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from lpmoe_bench.metrics.facts import METRICS
from lpmoe_bench.metrics.protocols import PROTOCOLS
from lpmoe_bench.records.context import decoder_words
from lpmoe_bench.records.model import Record, SplitFacts
from lpmoe_bench.report.markup import Child, Markup, tag
from lpmoe_bench.report.material import Material
from lpmoe_bench.report.tables import Head, Value, sortable
from lpmoe_bench.tables.rows import counted

MOST_NOTES = 40


def overview(material: Material) -> Markup:
    """Return the facts of all records as a list of terms, each value with its count."""
    records = material.records
    tests = [facts for r in records for facts in r.data.tests if facts.label in r.scores]
    facts = (
        ("Protocols", Counter(_protocol(r) for r in records)),
        ("Backbones", Counter(_backbone(r) for r in records if r.backbone)),
        ("Decoders", Counter(decoder_words(r) for r in records if r.decoder)),
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


def warnings(material: Material) -> list[str]:
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


def notes_list(material: Material) -> list[str]:
    """Return every distinct note of search, tables and records, with how many records say it."""
    said = Counter(note for record in material.records for note in record.notes)
    of_records = [f"{note} ({counted(n, 'record')})" for note, n in said.most_common()]
    found = [*material.notes, *of_records]
    more = len(found) - MOST_NOTES
    return found[:MOST_NOTES] + ([f"and {more} more notes; the records have them"] * (more > 0))


def record_list(material: Material) -> Markup:
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
