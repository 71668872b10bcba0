"""Published tables alone: the slide of Conv-LoRA as printed, and what chooses others."""

from pathlib import Path

import pytest
from records import record
from typer.testing import CliRunner

from lpmoe_bench.cli.app import app
from lpmoe_bench.errors import DataError, UsageError
from lpmoe_bench.tables.ledger import load_ledger
from lpmoe_bench.tables.table import build_table

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
    table = load_ledger().table("conv_lora")
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
    for name in load_ledger().tables:
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
