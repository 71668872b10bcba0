"""Published rows of a table: their files, their context, and tables made of them alone."""

import csv
import io
import re
from pathlib import Path

import pytest
from sample_records import content, record
from table_samples import CAMO, COD, SCORES, own
from typer.testing import CliRunner

from lpmoe_bench.cli.app import app
from lpmoe_bench.errors import DataError, UsageError
from lpmoe_bench.metrics.protocols import PROTOCOLS
from lpmoe_bench.records.model import Record
from lpmoe_bench.tables.formats import FORMATS, format_table, to_csv, to_html, to_markdown
from lpmoe_bench.tables.published_figures import load_published
from lpmoe_bench.tables.table import build_table


def published(*records, **options):
    """{label: row} of the published rows of the only group, and all lines below."""
    (group,) = build_table(records, published=True, **options).groups
    rows = {row.label: row for row in group.rows if row.origin}
    return group, rows, "\n".join(group.below)


def cell(group, row, key):
    return row.cells[[column.key for column in group.columns].index(key)]


def test_a_difference_is_own_less_published():
    group, rows, below = published(own(), own(seed=1, scores=SCORES | {"s_measure": 0.92}))
    found = cell(group, rows["LoRA [1]"], "s_measure")
    assert found.values == (0.880,)
    assert found.difference == pytest.approx(0.91 - 0.880)
    assert cell(group, rows["LoRA [1]"], "weighted_f").difference == pytest.approx(0.8 - 0.828)
    assert not cell(group, rows["LoRA [1]"], "mae").values  # the slides print none
    assert "In parentheses" in below
    assert "No difference" not in below
    text = to_markdown(build_table([own()], published=True))
    assert r"| *LoRA \[1\]* | - | - | - | 4.00 | 0.880 ± 0.0024 (+0.020) |" in text
    assert "Zhong et al." in below  # the source, and what was scored
    assert "1024 x 1024 px" in below


def test_weights_from_a_file_are_compared():
    group, rows, _ = published(own(backbone={"name": "sam_vit_h", "note": "local"}))
    assert cell(group, rows["LoRA [1]"], "s_measure").difference is not None


def test_methods_without_an_own_row_have_no_difference_and_no_dash():
    group, rows, _ = published(own())
    found = cell(group, rows["VPT [1]"], "s_measure")
    assert found.values == (0.874,)
    assert found.difference is None
    assert found.printed.versus == ""
    assert "| 0.874 ± 0.0060 |" in to_markdown(build_table([own()], published=True))


NOTED = {"name": "small", "note": "saliency-tuned"}


@pytest.mark.parametrize(
    ("records", "words"),
    [
        ([own(images=248)], f"{CAMO} has 248 of the 250 images of CAMO"),
        ([own(split={"generated": True})], "generated or not known"),
        ([own(split={"note": "resized copies"})], "is not CAMO as published: resized copies"),
        (
            [own(protocol={"name": "sod", "version": 1, "hash": PROTOCOLS["sod"].hash})],
            "under: cod",
        ),
        ([own(protocol=COD | {"hash": "cd" * 32})], "protocol cod (cdcdcdcd) is not today's"),
        ([own(backbone=NOTED)], "weights of small are of no paper (saliency-tuned)"),
        ([own(), own(fingerprint="f" * 64)], "several own rows are this method"),
        ([own(backbone={"name": "vit", "note": "random weights"})], "of no paper (random"),
        ([own(counts={"images": 240, "expected": 250})], "maps are missing"),
    ],
)
def test_what_forbids_a_difference_is_said(records, words):
    group, rows, below = published(*records)
    cells = [one for one in rows["LoRA [1]"].cells if one.printed]
    assert {one.difference for one in cells} == {None}
    assert cell(group, rows["LoRA [1]"], "s_measure").printed.versus == "barred"
    assert words in below
    assert "0.880 ± 0.0024 (-)" in to_markdown(build_table(records, published=True))


def test_other_images_of_the_same_origin_have_the_figures_and_no_difference():
    name = "cod10k_mini62/all"
    group, rows, below = published(own("lora", label=name, images=62), methods=["lora"])
    assert not rows  # nobody printed LoRA on COD10K
    assert f"No published figure fits {name}." in below
    maps = own(label=name, images=62, method={"name": "x", "title": "SAM-Adapter"}, kind="score")
    group, rows, below = published(maps)
    found = cell(group, rows["SAM-Adapter [1]"], "s_measure")
    assert (found.values, found.difference) == ((0.883,), None)
    assert f"{name} holds other images than COD10K" in below


def of_objects(label, protocol, scores, images=5000, note=""):
    """A record of AdaRoute on a test set of objects or of classes."""
    rules = PROTOCOLS[protocol]
    made = content("lora", task="coco", method={"name": "adaroute", "title": "AdaRoute"})
    facts = {"label": label, "digest": "55" * 32, "images": images, "note": note}
    made["data"] = made["data"] | {"tests": [facts]}
    made["protocol"] = {"name": protocol, "version": rules.version, "hash": rules.hash}
    made |= {"scores": {label: scores}, "counts": {label: {"images": images}}}
    return Record.model_validate(made)


@pytest.mark.parametrize(
    ("label", "protocol", "scores", "key", "figure"),
    [
        ("coco/test_val", "coco_masks", {"mask_ap": 0.3, "box_ap": 0.4}, "mask_ap", 0.427),
        ("coco/test_val", "coco_masks", {"mask_ap": 0.3, "box_ap": 0.4}, "box_ap", 0.473),
        ("coco/test_val", "coco_boxes", {"box_ap": 0.4}, "box_ap", 0.473),
        ("coco_panoptic/test_val", "coco_panoptic", {"pq": 0.3}, "pq", 0.488),
        ("ade20k/test_val", "classes", {"mean_iou": 0.3}, "mean_iou", 0.503),
    ],
)
def test_tables_of_objects_have_published_neighbours_and_no_difference(
    label, protocol, scores, key, figure
):
    images = 2000 if label.startswith("ade20k") else 5000
    group, rows, below = published(of_objects(label, protocol, scores, images))
    found = [cell(group, one, key) for name, one in rows.items() if "AdaRoute" in name]
    assert found[0].values == (pytest.approx(figure),)
    assert {one.printed.versus for one in found} == {"barred"}
    assert {one.difference for one in found} == {None}
    assert "another backbone, head and schedule than those of any run here" in below


@pytest.mark.parametrize(
    ("label", "protocol", "scores"),
    [
        ("coco_mini_instances/test_val", "coco_masks", {"mask_ap": 0.1}),
        ("coco_mini/test_val", "coco_panoptic", {"pq": 0.1}),
    ],
)
def test_small_parts_of_coco_have_the_figures_of_all_of_it(label, protocol, scores):
    _, rows, _ = published(of_objects(label, protocol, scores, 100))
    assert any("AdaRoute" in name for name in rows)
    assert not any(one.difference for row in rows.values() for one in row.cells)


def test_figures_of_objects_are_defined_as_a_protocol_here_defines_them():
    tables = load_published().tables
    for name, keys in {"parax_coco": "box mask", "parax_panoptic": "pq sq rq"}.items():
        for metric in tables[name].metrics.values():
            assert metric.metric.partition("_")[0] in keys.split()
            assert metric.protocols
            for protocol in metric.protocols:
                assert metric.metric in PROTOCOLS[protocol].metrics


def test_only_primary_and_slides_stand_without_a_mark():
    group, rows, below = published(own(), own("vpt", method={"name": "s", "title": "SINet-V2"}))
    marked = {label for label in rows if "‡" in label}
    assert {rows[label].origin.level for label in marked} == {"secondary"}
    assert {row.origin.level for row in rows.values()} == {"primary", "slides", "secondary"}
    assert all(label.endswith("‡ secondary") for label in marked)
    (found,) = [row for label, row in rows.items() if label.startswith("SINet-V2")]
    assert cell(group, found, "s_measure").printed.versus == "barred"  # no reference
    assert "figures that are secondary are no reference" in below
    assert "‡ No reference (secondary: quoted or run by others than the authors)." in below


def test_a_figure_in_doubt_has_a_star_and_no_difference():
    maps = own(method={"name": "x", "title": "JCOD"}, kind="score", scores=SCORES)
    group, rows, below = published(maps)
    (found,) = [row for label, row in rows.items() if label.startswith("JCOD")]
    assert cell(group, found, "mae").difference is None
    assert cell(group, found, "s_measure").difference == pytest.approx(0.9 - 0.792)
    assert "* JCOD, CAMO MAE: typo of the source, likely 0.082." in below
    assert r"0.820\* (-)" in to_markdown(build_table([maps], published=True))


def test_percent_and_digits_are_those_of_the_source():
    protocol = {"name": "shadow_per_image", "version": 1}
    protocol["hash"] = PROTOCOLS["shadow_per_image"].hash
    ours = own(label="sbu/test", images=638, protocol=protocol, task="shadow", scores={"ber": 0.03})
    text = to_markdown(build_table([ours], published=True))
    assert "| 2.74 ± 0.079 (+0.26) |" in text
    assert "| 14.58 |" in text


def test_published_rows_stay_below_and_win_nothing():
    records = [own(), own("vpt", scores=SCORES | {"s_measure": 0.5})]
    (group,) = build_table(records, published=True, sort="s_measure").groups
    assert [row.origin is None for row in group.rows[:2]] == [True, True]
    assert all(row.origin for row in group.rows[2:])
    values = [cell(group, row, "s_measure").mean for row in group.rows[2:]]
    assert values == sorted(values, reverse=True)
    assert {one.mark for row in group.rows[2:] for one in row.cells} == {""}
    assert cell(group, group.rows[0], "s_measure").mark == "best"


def test_methods_choose_published_rows_too():
    _, rows, _ = published(own(), methods=["lora"])
    assert set(rows) == {"LoRA [1]"}
    group, rows, _ = published(own(), own("vpt"), methods=["lora", "bitfit"])
    assert [row.label for row in group.rows] == ["LoRA", "BitFit [1]", "LoRA [1]"]
    group, rows, _ = published(own(), methods=["bitfit"], test_set=CAMO)
    assert set(rows) == {"BitFit"}  # nothing of ours: the source alone
    with pytest.raises(UsageError, match="did you mean 'lora'"):
        build_table([own()], published=True, methods=["lora", "lroa"])


def test_all_that_trains_has_a_column_where_a_source_counts_that():
    group, rows, _ = published(own())
    keys = [column.key for column in group.columns]
    assert keys[3] == "trainable_parameters"
    assert group.rows[0].cells[3].mean == 147456 + 500000
    assert rows["LoRA [1]"].cells[3].mean == pytest.approx(4.00e6)
    assert not rows["LoRA [1]"].cells[0].values  # the method alone is not printed


def test_sources_are_numbered_over_all_tables():
    other = own(label="chameleon/test", images=76)
    table = build_table([own(), other], published=True)
    lines = [line for group in table.groups for line in group.sources if line.startswith("[")]
    named = dict(re.fullmatch(r"\[(\d)\] (.+)", line).groups() for line in lines)
    assert (len(lines), sorted(named), len({*named.values()})) == (6, ["1", "2", "3", "4"], 4)


def test_records_that_are_not_comparable_keep_tables_of_their_own():
    table = build_table([own(), own("vpt", protocol=COD | {"hash": "ab" * 32})], published=True)
    assert [sum(row.origin is None for row in group.rows) for group in table.groups] == [1, 1]
    allowed = {
        group.context.protocol_hash[:2]: any(c.difference for row in group.rows for c in row.cells)
        for group in table.groups
    }
    assert allowed == {COD["hash"][:2]: True, "ab": False}


def test_csv_and_html_carry_level_source_and_difference():
    table = build_table([own()], published=True)
    lines = list(csv.DictReader(io.StringIO(to_csv(table))))
    line = next(one for one in lines if one["label"] == "LoRA [1]")
    assert (line["method"], line["level"], line["n"]) == ("lora", "slides", "")
    assert float(line["s_measure_mean"]) == 0.880
    assert float(line["s_measure_sd"]) == 0.0024
    assert float(line["s_measure_difference"]) == pytest.approx(0.02)
    assert "1024" in line["conditions"]
    assert next(one for one in lines if one["label"] == "LoRA")["level"] == ""
    html = to_html(table)
    assert '<tr class="published slides">' in html
    assert '<tr class="own">' in html
    assert "0.880 ± 0.0024 (+0.020)" in html


def test_every_format_takes_them():
    for kind in FORMATS:
        assert "LoRA" in format_table(build_table([own()], published=True, group="task"), kind)


# Published tables alone: the slide of Conv-LoRA as printed, and what chooses others.


GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    """A folder without any record."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def shown(*arguments):
    result = CliRunner().invoke(app, ["table", *arguments], catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


@pytest.mark.parametrize("kind", ["markdown", "latex", "csv", "html"])
def test_the_slide_of_conv_lora(nowhere, kind):
    text = shown("--published", "--source", "conv_lora", "--format", kind)
    assert text == (GOLDEN / f"conv_lora.{kind}").read_text(encoding="utf-8")


def test_the_slide_has_every_row_column_spread_and_count():
    (group,) = build_table([], source="conv_lora").groups
    table = load_published().table("conv_lora")
    assert [row.label for row in group.rows] == [row.title for row in table.rows]
    assert [span.title for span in group.spans] == [
        *("", "Kvasir", "CVC-612", "ISIC 2017", "CAMO", "SBU", "Leaf", "Road")
    ]
    for row, source in zip(group.rows, table.rows, strict=True):
        figures = [one for one in row.cells[2:] if one.values]
        assert [one.mean for one in figures] == list(source.values.values())
        assert [one.sd for one in figures if one.sd is not None] == list(source.pm.values())
    printed = shown("--source", "conv_lora", "--task", "shadow")
    assert "| Conv-LoRA | 4.02 | 0.63 | 2.54 ± 0.081 |" in printed
    assert "| SAM trained from scratch | 641.09 | 100 | 5.53 |" in printed


def test_a_task_without_records_shows_what_is_published(nowhere):
    text = shown("--published", "--task", "cod")
    for words in ("seven binary tasks", "SAM-Adapter, camouflaged", "CLIP-guided", "0.440\\*"):
        assert words in text
    assert "ISIC" not in text
    assert "| SAM-Adapter ‡ secondary |" in text
    of_polyps = build_table([record()], published=True, task="polyp")
    assert all(row.origin for group in of_polyps.groups for row in group.rows)
    own = build_table([record()], published=True, task="cod")
    assert any(not row.origin for group in own.groups for row in group.rows)


def test_methods_and_test_sets_choose(nowhere):
    text = shown("--published", "--test-set", "isic2017/test", "--method", "lora")
    assert "| LoRA | 4.00 | 0.62 | 76.6 ± 0.23 | 84.9 ± 0.22 |" in text
    assert "Conv-LoRA |" not in text
    assert "Road" not in text


def test_every_table_prints_in_every_format(nowhere):
    for name in load_published().tables:
        for kind in ("markdown", "latex", "csv", "html"):
            assert shown("--source", name, "-f", kind)


def test_the_names_of_tables_are_listed():
    result = CliRunner().invoke(app, ["list", "published"], catch_exceptions=False)
    assert "conv_lora                " in result.stdout
    assert "Conv-LoRA, seven binary tasks (slides)" in result.stdout


@pytest.mark.parametrize(
    ("choice", "sentence"),
    [
        ({"source": "conv_lra"}, "unknown published table 'conv_lra'; did you mean 'conv_lora'"),
        ({"published": True, "task": "leaves"}, "no published figure has this source, task"),
        ({"source": "conv_lora", "methods": ["mona"]}, "no published figure has this source"),
    ],
)
def test_a_choice_that_leaves_nothing_is_one_sentence(choice, sentence):
    with pytest.raises(UsageError, match=sentence):
        build_table([], **choice)


def test_no_record_and_nothing_published_asked_for():
    with pytest.raises(DataError, match="there is no record"):
        build_table([])
