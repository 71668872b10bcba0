"""What forbids a difference between an own score and a published figure."""

from __future__ import annotations

from collections.abc import Sequence

from lpmoe_bench.metrics.protocols import PROTOCOLS
from lpmoe_bench.records.context import Context, test_facts
from lpmoe_bench.tables.figures import metric_of
from lpmoe_bench.tables.guests import is_partial
from lpmoe_bench.tables.ledger import REFERENCES, PublishedRow, PublishedSet, PublishedTable
from lpmoe_bench.tables.parts import Row

LOCAL = "local"  # the note of weights from a file, such as Meta's SAM, which comes in no other way


def barrier(
    context: Context,
    own: Sequence[Row],
    images: PublishedSet,
    table: PublishedTable,
    row: PublishedRow,
    column: str,
) -> str:
    """Return why a figure has no difference to the own rows of its method; empty if it has one.

    A difference needs a reference, the same test set, complete and at original size, and a
    protocol of ours under which the metric is defined as the source defines it. Weights that no
    paper used are never compared with papers.
    """
    return (
        _of_source(table, row, column)
        or _of_images(context.test_set, own, images)
        or _of_protocol(context, table, column)
        or _of_rows(own)
    )


def _of_source(table: PublishedTable, row: PublishedRow, column: str) -> str:
    if table.level not in REFERENCES:
        return f"figures that are {table.level} are no reference"
    if table.barrier:
        return table.barrier
    return "the figure itself is in doubt (*)" if column in row.flags else ""


def _of_images(test: str, own: Sequence[Row], images: PublishedSet) -> str:
    """Say what is other with the images; a copy in another size is known by its note alone."""
    if test not in images.same:
        return f"{test} holds other images than {images.title}"
    if images.images is None:
        return f"how many images {images.title} has is not said"
    for record in (record for row in own for record in row.records):
        facts = test_facts(record, test)
        if facts is None or facts.generated:
            return f"the images of {test} are generated or not known"
        if facts.images != images.images:
            return f"{test} has {facts.images} of the {images.images} images of {images.title}"
        if is_partial(record, test):
            return f"maps are missing for images of {test}"
        if "resized" in facts.note or "local split" in facts.note:
            return f"{test} is not {images.title} as published: {facts.note}"
    return ""


def _of_protocol(context: Context, table: PublishedTable, column: str) -> str:
    metric = metric_of(table, column)
    known = PROTOCOLS.get(context.protocol)
    if context.protocol not in metric.protocols:
        usable = ", ".join(metric.protocols) or "none"
        return (
            f"{metric.label} is not defined alike under protocol {context.protocol} "
            f"(it is under: {usable})"
        )
    if known is None or known.hash != context.protocol_hash:
        return f"protocol {context.protocol} ({context.protocol_hash[:8]}) is not today's"
    return ""


def _of_rows(own: Sequence[Row]) -> str:
    if len(own) > 1:
        return f"several own rows are this method ({', '.join(row.label for row in own)})"
    backbone = own[0].records[0].backbone
    if backbone and backbone.note not in ("", LOCAL):
        return f"weights of {backbone.name} are of no paper ({backbone.note})"
    return ""
