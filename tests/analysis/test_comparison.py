"""`compare`: which records pair, what is refused, and values of data sets as those of images."""

import json
import re

import numpy as np
import pytest
from sample_records import record
from typer.testing import CliRunner

import lpmoe_bench
from lpmoe_bench.analysis.comparison import choose_records, compare_records
from lpmoe_bench.analysis.pairing import Rules
from lpmoe_bench.analysis.samples import samples
from lpmoe_bench.cli.app import app
from lpmoe_bench.cli.options import RecordFilter
from lpmoe_bench.errors import DataError, NotComparableError, UsageError
from lpmoe_bench.metrics.facts import parse_margins
from lpmoe_bench.records.store import StoredRecord, find_records, read_rows, write_record
from lpmoe_bench.tables.table import build_table
from lpmoe_bench.tables.verdicts import with_verdicts

PROTOCOL = {"name": "cod", "version": 1, "hash": "cd" * 32}


def stored(root, name="lora", seed=0, shift=0.0, images=6, **changes):
    """A written record whose rows average to its scores."""
    rng = np.random.default_rng([seed or 0, images])
    values = 0.6 + 0.1 * rng.random(images) + shift
    rows = [
        {"dataset": "CAMO", "image": f"i{n}", "s_measure": v, "mae": 1 - v, "flags": ""}
        for n, v in enumerate(values.tolist())
    ]
    scores = {"s_measure": float(values.mean()), "mae": float(1 - values.mean())}
    made = record(name, seed, scores=scores, **changes)
    folder = root / f"{name}-{seed}"
    write_record(folder, made, rows)
    return StoredRecord(folder, made)


def test_values_are_the_rows_by_seed_and_image(tmp_path):
    both = [stored(tmp_path, seed=seed) for seed in (1, 0)]
    found = samples(both, "CAMO", "s_measure")
    assert found.seeds == [0, 1]
    assert found.images == [f"i{n}" for n in range(6)]
    scores = [
        both[1].record.scores["CAMO"]["s_measure"],
        both[0].record.scores["CAMO"]["s_measure"],
    ]
    assert found.values.mean(axis=1) == pytest.approx(scores)


def test_a_ratio_of_counts_becomes_pseudo_values_by_hand(tmp_path):
    # IoU of both images: (1 + 3) / (2 + 4) = 2/3; without the first 3/4, without the second 1/2.
    # Pseudo-values 2 x 2/3 - 3/4 = 7/12 and 2 x 2/3 - 1/2 = 10/12, mean 17/24; shifted to 2/3.
    rows = [
        {"dataset": "CAMO", "image": "a", "tp": 1, "fp": 1, "fn": 0, "tn": 2, "flags": ""},
        {"dataset": "CAMO", "image": "b", "tp": 3, "fp": 0, "fn": 1, "tn": 0, "flags": ""},
    ]
    made = record(scores={"iou_dataset": 2 / 3})
    write_record(tmp_path, made, rows)
    found = samples([StoredRecord(tmp_path, made)], "CAMO", "iou_dataset")
    shift = 2 / 3 - 17 / 24
    assert found.values[0] == pytest.approx([7 / 12 + shift, 10 / 12 + shift])


def test_a_clear_difference_is_better_in_every_direction(tmp_path):
    a = [stored(tmp_path, "lora", seed, 0.05) for seed in range(3)]
    b = [stored(tmp_path, "vpt", seed) for seed in range(3)]
    for one, other, verdict in ((a, b, "better"), (b, a, "worse")):
        report = compare_records(one, other, ["s_measure", "mae"])
        assert [line.result.verdict for line in report.lines] == [verdict, verdict]
        assert report.seeds == (0, 1, 2)
    assert report.lines[0].result.spread.mean == pytest.approx(-0.05)


def test_only_seeds_of_both_are_paired(tmp_path):
    a = [stored(tmp_path, "lora", seed, 0.05) for seed in (0, 1, 2)]
    b = [stored(tmp_path, "vpt", seed) for seed in (1, 2, 3)]
    assert compare_records(a, b, ["mae"]).seeds == (1, 2)
    with pytest.raises(NotComparableError, match="no seed in common"):
        compare_records(a[:1], b[1:], ["mae"])


def test_means_come_with_their_spread_over_seeds_and_what_is_unpaired_is_said(tmp_path):
    a = [stored(tmp_path, "lora", seed, 0.05) for seed in (0, 1, 2)]
    b = [stored(tmp_path, "vpt", seed) for seed in (1, 2, 10, 3)]
    report = compare_records(a, b, ["mae"])
    one, two = (found.record.scores["CAMO"]["mae"] or 0.0 for found in a[1:])
    assert report.lines[0].a == pytest.approx((one + two) / 2)
    assert report.lines[0].a_sd == pytest.approx(abs(one - two) / 2**0.5)
    assert report.notes[:2] == (
        "LoRA also has seed 0, left out: the other has none to pair",
        "VPT also has seed 3, 10, left out: the other has none to pair",
    )
    (line,) = compare_records(a[:1], [stored(tmp_path, "vpt", 0)], ["mae"]).lines
    assert (line.a_sd, line.b_sd) == (None, None)


def test_every_seed_is_checked_for_what_differs(tmp_path):
    a, b = ([stored(tmp_path, name, seed) for seed in (0, 1)] for name in ("lora", "vpt"))
    other = b[1].record.data.model_copy(
        update={"tests": [b[1].record.data.tests[0].model_copy(update={"digest": "33" * 32})]}
    )
    b[1] = b[1]._replace(record=b[1].record.model_copy(update={"data": other}))
    with pytest.raises(NotComparableError, match=r"test digest 2222.* against 3333"):
        compare_records(a, b, ["mae"])


def test_what_differs_is_named(tmp_path):
    a = [stored(tmp_path, "lora")]
    with pytest.raises(NotComparableError, match=r"epochs 3 against 4"):
        compare_records(a, [stored(tmp_path, "vpt", train={"epochs": 4})], ["mae"])
    other = {"name": "cod", "version": 2, "hash": "ee" * 32}
    with pytest.raises(NotComparableError, match="protocol hash"):
        compare_records(a, [stored(tmp_path, "vpt", protocol=other)], ["mae"])
    with pytest.raises(NotComparableError, match="6 images against 5"):
        compare_records(a, [stored(tmp_path, "vpt", images=5)], ["mae"])
    with pytest.raises(UsageError, match="did you mean 'mae'"):
        compare_records(a, [stored(tmp_path, "vpt")], ["maee"])


def test_rows_of_other_images_among_seeds_are_refused(tmp_path):
    both = [stored(tmp_path, seed=0), stored(tmp_path, seed=1, images=5)]
    with pytest.raises(DataError, match="score both on the same set"):
        samples(both, "CAMO", "mae")


def test_names_mean_methods_or_folders(tmp_path):
    stored(tmp_path, "lora")
    found = find_records([tmp_path])
    assert (
        len(choose_records("lora", found))
        == len(choose_records(str(tmp_path / "lora-0"), found))
        == 1
    )
    with pytest.raises(UsageError, match="did you mean 'lora'"):
        choose_records("lroa", found)
    stored(tmp_path, "lora", 1, fingerprint="f" * 64)
    found = find_records([tmp_path])
    with pytest.raises(
        UsageError, match=r"2 different settings \(ffffffffffff on cod, lora00000000"
    ):
        choose_records("lora", found)
    assert [one.record.seed for one in choose_records("ffffff", found)] == [1]
    with pytest.raises(UsageError, match="unknown method"):
        choose_records("fffff", found)


def test_evaluations_stand_beside_their_run(tmp_path):
    sides = []
    for name, shift in (("lora", 0.05), ("vpt", 0.0)):
        for seed in range(3):
            stored(tmp_path / "runs", name, seed, shift)
        # Newer records of seed 0: of the same set by another protocol.
        other = {"name": "cod", "version": 2, "hash": "ee" * 32}
        later = "2027-01-02T03:04:05+00:00"
        changes = {"kind": "evaluation", "protocol": other, "created": later}
        stored(tmp_path / "evaluations", name, 0, -shift, **changes)
        sides.append(choose_records(name, find_records([tmp_path])))
    assert [len(side) for side in sides] == [4, 4]
    report = compare_records(*sides, ["mae"])
    assert report.seeds == (0, 1, 2)
    assert report.lines[0].result.spread.mean == pytest.approx(-0.05)


def test_command_prints_a_table_and_json(tmp_path):
    for seed in range(3):
        stored(tmp_path, "lora", seed, 0.05)
        stored(tmp_path, "vpt", seed)
    command = ["compare", "lora", "vpt", "--root", str(tmp_path), "--metrics", "s_measure,mae"]
    shown = CliRunner().invoke(app, command)
    assert shown.exit_code == 0, shown.output
    assert "better" in shown.stdout
    assert "+0.0500" in shown.stdout
    assert re.search(r"0\.\d{3}\s±0\.0\d\d", shown.stdout)
    narrow = CliRunner().invoke(app, command, env={"COLUMNS": "58"}).stdout
    assert len(re.findall(r"±0\.\d{3}", narrow)) == 4  # two of each line
    command[-1] = "s_measure, mae,mae,"
    machine = json.loads(CliRunner().invoke(app, [*command, "--json"]).stdout)
    assert [line["result"]["verdict"] for line in machine["lines"]] == ["better", "better"]


def test_what_would_settle_a_line_is_said(tmp_path):
    for seed in range(3):
        stored(tmp_path, "lora", seed, 0.001 * seed)
        stored(tmp_path, "vpt", seed)
    command = ["compare", "lora", "vpt", "--root", str(tmp_path), "--metrics", "mae"]
    text = CliRunner().invoke(app, [*command, "--margin", "0"]).stdout
    # Differences 0, 0.001, 0.002: (t at 0.975 + 0.842) 0.001 / sqrt(n) is 0.001 from n = 10 on.
    assert "MAE ↓: about 7 more seeds would settle it with 80 % power, 10 in all" in text
    one = [str(tmp_path / name) for name in ("lora-2", "vpt-2")]
    text = CliRunner().invoke(app, ["compare", *one, "--metrics", "mae", "--margin", "0"]).stdout
    assert "one seed says nothing of others; this very model of A is better" in text


def test_table_and_compare_say_the_same_of_the_same_records(tmp_path):
    """One function judges: the same spread, interval and verdict, of seeds, one seed and maps."""
    for count in (1, 3):
        a = [stored(tmp_path / f"a{count}", "lora", seed, 0.05) for seed in range(count)]
        b = [stored(tmp_path / f"b{count}", "vpt", seed) for seed in range(count)]
        table = build_table([one.record for one in (*a, *b)], metrics=["s_measure"])
        (group,) = with_verdicts(table, [*a, *b], "vpt", Rules()).groups
        (cell,) = [c.verdict for row in group.rows for c in row.cells if c.verdict]
        (line,) = compare_records(a, b, ["s_measure"]).lines
        assert cell == line.result
        assert cell.verdict == ("inconclusive" if count == 1 else "better")


def test_every_method_beside_the_reference_counts_in_its_family(tmp_path):
    """One family in `table` and `compare`: the reference, the test set, the metric."""
    shifts = {"lora": 0.004, "vpt": 0.0, "decoder_only": -0.01}
    found = [stored(tmp_path, name, s, shift) for name, shift in shifts.items() for s in range(3)]
    other = stored(tmp_path / "other", "lora", 0, 0.1, train={"epochs": 9}, fingerprint="9" * 64)
    (line,) = compare_records(found[:3], found[3:6], ["mae"], None, [*found, other]).lines
    (alone,) = compare_records(found[:3], found[3:6], ["mae"]).lines
    assert (line.result.family, alone.result.family) == (2, 1)
    table = build_table([one.record for one in found], metrics=["mae"])
    (group,) = with_verdicts(table, found, "vpt", Rules()).groups
    (row,) = [row for row in group.rows if row.label == "LoRA"]
    assert [cell.verdict for cell in row.cells if cell.verdict] == [line.result]
    asked = ["--metrics", "mae", "--only", "train.epochs=3", "--json"]
    command = ["compare", "lora", "vpt", "--records", str(tmp_path), *asked]
    shown = CliRunner().invoke(app, command)
    assert json.loads(shown.stdout)["lines"][0]["result"]["family"] == 2


def test_families_may_span_all_test_sets(tmp_path):
    a, b = ([stored(tmp_path, n, s, 0.01 * (n == "lora")) for s in range(3)] for n in TWO)
    sides = [list(_with_a_second_set(side)) for side in (a, b)]
    one, two = (compare_records(*sides, ["mae"], Rules(family=f)) for f in ("set", "table"))
    assert [line.result.family for line in one.lines] == [1, 1]
    assert [line.result.family for line in two.lines] == [2, 2]
    with pytest.raises(UsageError, match="unknown family 'all'"):
        Rules(family="all")
    with pytest.raises(UsageError, match="--looks is 0"):
        Rules(looks=0)


TWO = ("lora", "vpt")


def _with_a_second_set(side):
    """The same records with the rows of CAMO under another name as well."""
    for one in side:
        rows = [row | {"flags": ""} for row in read_rows(one.folder / "per_image.csv")]
        more = [*rows, *(row | {"dataset": "Other"} for row in rows)]
        facts = one.record.data.tests[0].model_copy(update={"label": "Other", "digest": "44" * 32})
        record = one.record.model_copy(
            update={
                "scores": one.record.scores | {"Other": one.record.scores["CAMO"]},
                "data": one.record.data.model_copy(
                    update={"tests": [*one.record.data.tests, facts]}
                ),
            }
        )
        write_record(one.folder, record, more)
        yield StoredRecord(one.folder, record)


def test_explain_plan_and_one_answer_are_shown_and_are_in_json(tmp_path):
    for n in TWO:
        shifts = [(0.05 + 0.004 * s) * (n == "lora") for s in range(3)]
        list(_with_a_second_set([stored(tmp_path, n, s, x) for s, x in enumerate(shifts)]))
    asked = ["--metrics", "mae", "--explain", "--plan", "--over", "task"]
    command = ["compare", "lora", "vpt", "--records", str(tmp_path), *asked]
    text = CliRunner().invoke(app, command, env={"COLUMNS": "120"}).stdout
    assert "What varies" in text
    assert "each image" in text
    assert "Smallest difference found with 80 % power after Holm" in text
    assert "Over 2 test sets: mean difference, and chances" in text
    found = json.loads(CliRunner().invoke(app, [*command, "--json"]).stdout)
    (answer,) = found["tasks"]
    assert answer["test_sets"] == ["CAMO", "Other"]
    assert answer["mean"] == pytest.approx(-0.054, abs=0.003)
    assert answer["better"] > 0.9
    plan = found["plan"][0]
    assert plan["now"] == pytest.approx(plan["seeds"]["3"])
    assert plan["seeds"]["3"] > plan["seeds"]["5"] > plan["seeds"]["20"]


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (["--margin", "much"], "margin got 'much'; give a number from 0 to 1"),
        (["--margin", "maee=5%"], "unknown metric 'maee'"),
        (["--margin", "140%"], "margin got '140%'"),
        (["--margin", "5%,.1"], "margin is given twice for all metrics, 5 % and 0.1"),
        (["--family", "sets"], "unknown family 'sets'"),
        (["--looks", "0"], "--looks is 0"),
        (["--over", "tasks"], "unknown thing to answer over 'tasks'"),
        (["--groups", "none.csv"], "--groups none.csv could not be read"),
    ],
)
def test_wrong_options_are_told(tmp_path, given, sentence):
    for name in TWO:
        stored(tmp_path, name)
    shown = CliRunner().invoke(
        app, ["compare", *TWO, "--records", str(tmp_path), "--metrics", "mae", *given]
    )
    assert shown.exit_code != 0
    assert sentence in " ".join(str(shown.exception or shown.output).split())


def test_margins_are_each_metrics_own_or_what_is_asked(tmp_path):
    a, b = ([stored(tmp_path, n, s) for s in range(3)] for n in TWO)

    def margins(given):
        rules = Rules(parse_margins(given))
        return [
            line.result.margin for line in compare_records(a, b, ["s_measure", "mae"], rules).lines
        ]

    mean = compare_records(a, b, ["s_measure", "mae"]).lines
    assert margins(None) == pytest.approx([0.005, 0.05 * mean[1].b])
    assert margins("0.01") == [0.01, 0.01]
    assert margins(["2%", "mae=.001"]) == pytest.approx([0.02 * mean[0].b, 0.001])


def test_maps_of_no_seed_are_not_told_to_run_more_seeds(tmp_path):
    maps = {"kind": "score", "backbone": None, "decoder": None, "parameters": None}
    a = [stored(tmp_path / "a", "lora", None, **maps)]
    b = [stored(tmp_path / "b", "vpt", seed) for seed in range(3)]
    (line,) = compare_records(a, b, ["mae"]).lines
    assert (line.result.verdict, line.seeds_needed) == ("inconclusive", None)


def test_a_score_that_is_not_the_mean_of_its_rows_is_refused(tmp_path):
    one, other = stored(tmp_path), stored(tmp_path, "vpt")
    edited = one.record.model_copy(update={"scores": {"CAMO": {"s_measure": 0.9}}})
    with pytest.raises(DataError, match=r"lora-0 contradicts itself: .*run.json .*per_image.csv"):
        compare_records([StoredRecord(one.folder, edited)], [other], ["s_measure"])


@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_rows_that_are_gone_are_said(tmp_path, seeds):
    a, b = ([stored(tmp_path, name, seed) for seed in seeds] for name in ("lora", "vpt"))
    (a[0].folder / "per_image.csv").unlink()
    with pytest.raises((DataError, NotComparableError), match=r"per_image.csv is missing"):
        compare_records(a, b, ["s_measure"])


@pytest.mark.parametrize(
    ("given", "sentence"),
    [({"margin": m}, "from 0 to 1") for m in (-3, 5, float("nan"))] + [({}, "has no record")],
)
def test_what_python_may_ask_for_is_checked_as_options_are(tmp_path, given, sentence):
    with pytest.raises(UsageError, match=sentence):
        lpmoe_bench.compare([], [], tmp_path, **given)


def test_one_metric_may_be_one_text(tmp_path):
    a, b = stored(tmp_path), stored(tmp_path, "vpt", shift=0.1)
    assert [x.metric for x in lpmoe_bench.compare(a, b, metrics="mae").lines] == ["mae"]


def test_a_filter_of_records_that_cannot_be_read_says_so(tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "run.json").write_text("{")
    with pytest.raises(DataError, match="no record can be read"):
        RecordFilter(task=["cod"]).find([tmp_path])
