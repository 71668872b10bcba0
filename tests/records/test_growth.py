"""Work grows as records do: calls of functions are counted up to ten times the usual size."""

import sys

import pytest
from sample_records import record

from lpmoe_bench.analysis.comparison import choose_records, compare_records
from lpmoe_bench.analysis.pairing import Rules
from lpmoe_bench.gate.baseline import Policy
from lpmoe_bench.gate.judge import judge_cells
from lpmoe_bench.gate.pin import gather_cells, pin_cells, update_pins
from lpmoe_bench.records.frame import load_records
from lpmoe_bench.records.store import FoundRecords, StoredRecord, find_records, write_record
from lpmoe_bench.tables.formats import format_table
from lpmoe_bench.tables.table import build_table
from lpmoe_bench.tables.verdicts import with_verdicts

COUNTS = FEW, MIDDLE, MANY = 20, 110, 200  # settings of one method, of two seeds each


def calls(work):
    """Count the calls, of Python's own functions and of those in C, that some work makes."""
    counted = 0

    def count(frame, event, argument):
        nonlocal counted
        counted += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(None)
    return counted


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """{settings: their records on disk}, with rows of four images each."""
    made = {}
    for count in COUNTS:
        root, stored = tmp_path_factory.mktemp(str(count)), []
        for k in range(count):
            for seed in (0, 1):
                change = {"scores": {"s_measure": 0.7 + 0.001 * k, "mae": 0.1}}
                one = record(
                    seed=seed,
                    fingerprint=f"{k:012d}" + 52 * "0",
                    train={"lr": 1e-3 * (1 + k)},
                    **change,
                )
                rows = [
                    {"dataset": "CAMO", "image": f"i{n}", "s_measure": 0.7 + 0.01 * n * seed}
                    | {"mae": 0.1, "flags": ""}
                    for n in range(4)
                ]
                write_record(root / f"{k:04d}-{seed}", one, rows)
                stored.append(StoredRecord(root / f"{k:04d}-{seed}", one))
        made[count] = FoundRecords(stored, [])
    return made


def tables(found, group):
    return format_table(build_table(found.records, group=group), "markdown")


def verdicts(found):
    table = build_table(found.records)
    return with_verdicts(table, found.stored, "LoRA (lr=0.001)", Rules())


def gate(found):
    cells = gather_cells(found, "runs")
    pinned = pin_cells(cells, Policy(), "why", ["mae"])
    update_pins(pinned, cells, Policy(), None)
    return judge_cells(pinned, cells, Policy())


def missing(found):
    """Every pin has lost its cell, and every cell is new."""
    cells = gather_cells(found, "runs")
    pinned = pin_cells(cells[::2], Policy(), "why", ["mae"])
    return judge_cells(pinned, cells[1::2], Policy())


def comparison(found):
    sides = [choose_records(f"{k:012d}", found) for k in (0, 1)]
    return compare_records(*sides, ["mae"])


WORK = {
    "table": lambda found: tables(found, "test_set"),
    "table of a task": lambda found: tables(found, "task"),
    "stacked table": lambda found: tables(found, "all"),
    "verdicts": verdicts,
    "gate": gate,
    "gate without candidates": missing,
    "comparison": comparison,
    "reading": lambda found: find_records([found.stored[0].folder.parent]),
    "frame": lambda found: load_records(found.stored[0].folder.parent),
}


@pytest.mark.parametrize("name", WORK)
def test_the_second_half_of_the_records_costs_what_the_first_does(found, name):
    """Up to ten times the usual size: of work that grows with the square, it costs 2.4 times."""
    WORK[name](found[FEW])  # what is made once is made now
    few, middle, many = (calls(lambda n=count: WORK[name](found[n])) for count in COUNTS)
    assert many - middle < 1.05 * (middle - few) + 100
