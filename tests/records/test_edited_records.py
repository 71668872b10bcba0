"""Records edited at random: refused in a sentence, or as they were; never a traceback, nothing
wrong unsaid."""

import json
import os
import random
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sample_records import content, record
from test_verify_records import resealed, sealed

from lpmoe_bench.errors import BenchError, DataError
from lpmoe_bench.records.frame import load_records
from lpmoe_bench.records.store import find_records, read_record
from lpmoe_bench.records.verify import verify_record
from lpmoe_bench.tables.formats import format_table
from lpmoe_bench.tables.table import build_table

COUNT = int(os.environ.get("LPMOE_BENCH_EXAMPLES", "25"))
VALUES = [
    *(
        None,
        True,
        0,
        -1,
        68,
        1e300,
        -1e300,
        2**63,
        10**400,
        0.5,
        "",
        "0.5",
        "=1+1",
        "\x1b[31m",
        "é",
    ),
    *("\ud800", "../../etc", "a" * 5000, [], {}, [[[]]], {"a": {"b": []}}, ["x"], {"": None}),
]
slow = settings(
    max_examples=COUNT, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def places(value, path=()):
    """Every place of a nested value, its own among them."""
    yield path
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(inner, (*path, key))


def canonical(found):
    """Its text: in Python 0 equals False and 1 equals 1.0, which are other values here."""
    return json.dumps(found, sort_keys=True)


def edit(found, draw):
    """Replace, remove, add or move one thing of a record's content."""
    *parents, leaf = draw.choice([path for path in places(found) if path])
    place = found
    for key in parents:
        place = place[key]
    kind = draw.randrange(4)
    if kind == 0 and isinstance(place, dict):
        del place[leaf]
    elif kind == 1 and isinstance(place, dict):
        place[draw.choice(["more", "schema_version", "seal", "", "é"])] = draw.choice(VALUES)
    elif kind == 2 and isinstance(place[leaf], int | float) and not isinstance(place[leaf], bool):
        place[leaf] = place[leaf] * draw.choice([-1, 0.999, 1.001, 2, 100]) + draw.choice([0, 1])
    else:
        place[leaf] = draw.choice(VALUES)


def shown(root):
    """What tables and frames make of a folder: nothing but expected errors may come out of it."""
    found = find_records([root])
    assert len(found.stored) + len(found.notes) == 1
    if found.stored:
        with suppress(BenchError):
            format_table(build_table(found.records), "markdown")
        load_records(root)
    return found


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp("original") / "x"
    sealed(folder)
    names = ("run.json", "per_image.csv", "curve.csv", "adapter.safetensors")
    return {name: (folder / name).read_bytes() for name in names}


def written(folder, files):
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    for name, data in files.items():
        (folder / name).write_bytes(data)


@slow
@given(st.integers(0, 2**32), st.integers(1, 3))
def test_an_edit_of_a_sealed_record_is_seen(tmp_path, original, seed, times):
    draw, found = random.Random(seed), json.loads(original["run.json"])
    for _ in range(times):
        edit(found, draw)
    written(tmp_path / "x", original | {"run.json": json.dumps(found).encode()})
    same = canonical(found) == canonical(json.loads(original["run.json"]))
    assert bool(shown(tmp_path).stored) is same
    assert (not verify_record(tmp_path / "x").faults) is same


@slow
@given(st.integers(0, 2**32))
def test_an_edit_that_is_sealed_anew_is_read_or_refused_in_a_sentence(tmp_path, original, seed):
    draw = random.Random(seed)
    written(tmp_path / "x", original)
    before = read_record(tmp_path / "x")

    def change(found):
        seal = found.pop("seal")
        edit(found, draw)
        found["seal"] = seal

    resealed(tmp_path / "x", change)
    found = shown(tmp_path)
    verified = verify_record(tmp_path / "x")
    if found.stored and not verified.faults:  # what the rows determine is what they say
        (now,) = found.records
        for test, scores in now.scores.items():
            for key, value in scores.items():
                if f"{test} {key}" not in verified.undetermined and value is not None:
                    assert value == pytest.approx(before.scores["CAMO"][key], abs=1e-6)


@slow
@given(st.integers(0, 2**32))
@example(0)
def test_an_edit_of_an_unsealed_record_is_read_or_refused(tmp_path, seed):
    draw, found = random.Random(seed), content()
    edit(found, draw)
    written(tmp_path / "x", {"run.json": json.dumps(found).encode()})
    result = shown(tmp_path)
    for one in result.records:  # a score that cannot be never enters a table
        values = [v for scores in one.scores.values() for k, v in scores.items() if v is not None]
        known = record().scores["CAMO"].keys()
        wrong = [v for s in one.scores.values() for k, v in s.items() if k in known and v]
        assert all(-1e-6 <= value <= 2 + 1e-6 for value in wrong), values


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("value", ["0.75", True, False, "", [0.75]])
@pytest.mark.parametrize("place", ["scores.CAMO.s_measure", "costs.peak_memory_bytes", "seed"])
def test_what_is_no_number_is_none_though_it_reads_as_one(tmp_path, version, value, place):
    def change(found):
        *parents, leaf = place.split(".")
        for key in parents:
            found = found[key]
        found[leaf] = value

    if version == 1:
        found = content()
        change(found)
        written(tmp_path / "x", {"run.json": json.dumps(found).encode()})
    else:
        sealed(tmp_path / "x")
        resealed(tmp_path / "x", change)
    with pytest.raises(DataError, match=f"is no valid record: {place}: "):
        read_record(tmp_path / "x")


@slow
@given(
    st.sampled_from(["run.json", "per_image.csv", "curve.csv", "adapter.safetensors"]),
    st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 255)), max_size=4),
    st.floats(0, 1),
)
def test_changed_bytes_of_any_file_are_named(tmp_path, original, name, changes, share):
    data = bytearray(original[name][: int(len(original[name]) * share)])
    for at, value in changes:
        if data:
            data[at % len(data)] = value
    if data == original[name]:
        return
    written(tmp_path / "x", original | {name: bytes(data)})
    found = verify_record(tmp_path / "x")
    same = False
    if name == "run.json":  # spaces may change: the digest is of the content
        try:
            same = canonical(json.loads(data)) == canonical(json.loads(original[name]))
        except ValueError:
            same = False
    assert bool(found.faults) is not same
    assert all("\n" not in fault for fault in found.faults)
