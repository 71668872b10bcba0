"""How a table looks: options and style files, the same in every format."""

import pytest
from sample_records import record
from table_samples import of_two, own, scores
from typer.testing import CliRunner

from lpmoe_bench.cli.app import app
from lpmoe_bench.errors import DataError, UsageError
from lpmoe_bench.records.store import write_record
from lpmoe_bench.tables.formats import to_csv, to_html, to_latex, to_markdown
from lpmoe_bench.tables.style import TableStyle, parse_rename, read_style
from lpmoe_bench.tables.table import build_table

TWO = [record(name, seed) for name in ("lora", "vpt") for seed in (0, 1)]


def look(records=TWO, **options):
    return build_table(records, style=TableStyle(**options))


def test_rows_columns_and_test_sets_have_new_names_everywhere():
    rename = {"lora": "LoRA (ours)", "s_measure": "S_1", "CAMO": "Camouflage"}
    table = build_table([of_two(), of_two("vpt")], group="task", style=TableStyle(rename=rename))
    text = to_markdown(table)
    assert "| LoRA (ours) |" in text
    assert "Camouflage: S_1 ↑" in text
    assert "| Other: S_1 ↑" in text
    assert r"\multicolumn{2}{c}{Camouflage}" in to_latex(table)
    assert r"S\_1 $\uparrow$" in to_latex(table)
    assert ">Camouflage</th>" in to_html(table)
    assert "LoRA (ours)" in to_csv(table)


def test_a_method_keeps_what_tells_its_settings_apart():
    options = [{"name": "lora", "title": "LoRA", "options": {"rank": rank}} for rank in (4, 8)]
    rows = [record(method=one, fingerprint=str(k) * 64) for k, one in enumerate(options)]
    labels = {row.label for row in look(rows, rename={"lora": "Ours"}).groups[0].rows}
    assert labels == {"Ours (rank=4)", "Ours (rank=8)"}
    only = look(rows, rename={"LoRA (rank=8)": "Ours"}).groups[0].rows
    assert {row.label for row in only} == {"LoRA (rank=4)", "Ours"}


def test_published_rows_keep_the_name_that_their_source_has():
    style = TableStyle(rename={"lora": "Ours", "LoRA [1]": "Zhong's LoRA"})
    (group,) = build_table([own()], published=True, methods=["lora"], style=style).groups
    assert [row.label for row in group.rows] == ["Ours", "Zhong's LoRA"]
    assert any(cell.difference is not None for cell in group.rows[1].cells)


def test_named_rows_come_first():
    rows = [record("lora"), record("vpt"), record("decoder_only")]
    made = look(rows, order=["LoRA", "decoder_only"]).groups[0].rows
    assert [row.label for row in made] == ["LoRA", "Decoder only", "VPT"]


def test_digits_percent_and_spread():
    rows = [record("lora", seed, scores=scores(s)) for seed, s in enumerate((0.711, 0.732))]
    assert "| 0.722 ± 0.015 |" in to_markdown(look(rows))
    text = to_markdown(look(rows, percent=True))
    assert "S (%) ↑" in text
    assert "| 72.2 ± 1.5 |" in text
    assert "| 0.7 ± 0.0 |" in to_markdown(look(rows, digits=1))
    assert "| 72.15 |" in to_markdown(look(rows, percent=True, digits=2, sd="none"))
    assert "| 0.722 <sub>±0.015</sub> |" in to_markdown(look(rows, sd="small"))
    assert "0.722 <small>±0.015</small></td>" in to_html(look(rows, sd="small"))
    assert r"0.722{\scriptsize\,$\pm$\,0.015}" in to_latex(look(rows, sd="small"))
    assert to_csv(look(rows, percent=True, digits=0, sd="none")) == to_csv(build_table(rows))


def test_ties_are_those_of_the_digits_that_are_printed():
    values = {"lora": 0.741, "vpt": 0.738, "decoder_only": 0.7}
    rows = [record(name, scores=scores(value)) for name, value in values.items()]
    (group,) = look(rows, digits=2).groups
    assert sorted(row.cells[3].mark for row in group.rows) == ["best", "best", "second"]


def test_values_that_are_no_fractions_stay_as_they_are():
    rows = [record(scores={"s_measure": 0.5, "hd95": 38.25})]
    text = to_markdown(build_table(rows, metrics=["all"], style=TableStyle(percent=True)))
    assert "| 50.0 | 38.25 |" in text


def test_exactly_the_columns_that_are_named():
    (group,) = look(columns=["mae", "train_images_per_second", "method_parameters"]).groups
    keys = ["mae", "train_images_per_second", "method_parameters"]
    assert [column.key for column in group.columns] == keys
    assert "| n |" not in to_markdown(look(columns=["mae"]))
    assert "| n |" in to_markdown(look(columns=["n", "mae"]))
    (added,) = look(columns=["train_images_per_second"]).groups
    assert len(added.columns) == 8
    with pytest.raises(UsageError, match="unknown column 'meh'"):
        look(columns=["mae", "meh"])


def test_caption_label_environment_and_notes():
    table = look(caption="Ours & theirs.", label="tab:a", env="table*", notes="none")
    latex = to_latex(table)
    assert "\\begin{table*}[t]\n\\centering\n\\caption{Ours \\& theirs.}\n\\label{tab:a}" in latex
    assert "% Task cod, test set CAMO" in latex  # what is not printed stands in comments
    assert "% Protocol cod v1" in latex
    assert "Protocol" not in to_markdown(table)
    assert to_markdown(table).startswith('<a id="tab:a"></a>\n\nOurs &amp; theirs.\n')
    assert '<section class="table-group" id="tab:a">' in to_html(table)
    assert "table-footer" not in to_html(table)
    short = to_latex(look(notes="short")).partition("\\end{tabular}")[2]
    assert "Mean $\\pm$ standard deviation" in short
    assert "Protocol" not in short
    assert "Protocol cod v1" in to_latex(look(notes="full")).partition("\\end{tabular}")[2]
    bare = to_latex(look(env="none", notes="full"))
    assert "\\begin{table" not in bare
    assert "% Protocol" in bare
    with pytest.raises(UsageError, match="--caption is for one table, and these records make 2"):
        look([record(), record("vpt", task="polyp")], caption="Both.")


def test_a_style_file_makes_the_same_table_again(tmp_path):
    for one in TWO:
        write_record(tmp_path / "runs" / one.id, one, [])
    style = tmp_path / "paper.yaml"
    style.write_text(
        "columns: [n, s_measure, mae]\nrename: {lora: LoRA (ours)}\norder: vpt, lora\ndigits: 2\n"
        "percent: true\nsd: small\ncaption: C.\nlabel: tab:c\nenv: table\nnotes: short\n"
    )
    given = ["--columns", "n,s_measure,mae", "--rename", "lora=LoRA (ours)", "--order", "vpt,lora"]
    given += ["--digits", "2", "--percent", "--sd", "small", "--caption", "C.", "--label", "tab:c"]
    given += ["--env", "table", "--notes", "short"]

    def shown(*arguments):
        command = ["table", str(tmp_path / "runs"), "-f", "latex", *map(str, arguments)]
        result = CliRunner().invoke(app, command, catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.stdout

    assert shown("--style", style) == shown(*given)
    assert "LoRA (ours) & 2" in shown("--style", style)
    assert "75.0" in shown("--style", style, "--digits", "1")  # an option wins over the file


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("captoin: x", "unknown option of a table 'captoin'; did you mean 'caption'"),
        ("digits: 9", "digits is 9: input should be less than or equal to 6"),
        ("sd: tiny", "sd is 'tiny': input should be 'none', 'small' or 'full'"),
        ("label: a}b", "label is 'a}b'; write letters, digits and"),
        ("columns: 3", "columns is 3; write names with commas"),
        ("[" * 100_000, "cannot be read"),
        ("- a", "it holds no options by name; write lines such as digits: 2"),
        ("a: [", "cannot be read"),
    ],
)
def test_a_wrong_style_file_is_refused_in_a_sentence(tmp_path, text, sentence):
    path = tmp_path / "paper.yaml"
    path.write_text(text)
    with pytest.raises(DataError) as raised:
        read_style(path)
    assert sentence in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"rename": {"lroa": "x"}}, "unknown thing to rename 'lroa'; did you mean 'lora'"),
        ({"order": ["lroa"]}, "unknown row to put first 'lroa'; did you mean 'lora'"),
    ],
)
def test_names_of_nothing_are_refused(options, sentence):
    with pytest.raises(UsageError, match=sentence):
        look(**options)
    with pytest.raises(UsageError, match="--sd is 'tiny'"):
        TableStyle().changed(sd="tiny")


# One seed does not stand above several.


def test_one_seed_is_never_bold_over_several():
    several = [record(name, seed, scores=scores(s)) for name, s in (("vpt", 0.7), ("lora", 0.6))
               for seed in (0, 1)]  # fmt: skip
    (group,) = build_table([*several, record("decoder_only", scores=scores(0.9))]).groups
    marks = {row.label: row.cells[3].mark for row in group.rows}
    assert marks == {"Decoder only": "", "VPT": "best", "LoRA": "second"}
    assert any("Best bold, second underlined among rows of several seeds." in line
               for line in group.footer)  # fmt: skip
    (one,) = build_table([*several[:2], record("decoder_only", scores=scores(0.9))]).groups
    assert {cell.mark for row in one.rows for cell in row.cells} == {""}
    assert any("None is marked as best" in line for line in one.footer)


def test_names_given_twice_or_empty_count_once():
    assert TableStyle(columns="mae,,mae").columns == ["mae"]
    assert TableStyle.model_validate({"columns": None, "rename": None}) == TableStyle()


@pytest.mark.parametrize(
    ("texts", "sentence"),
    [(["lora="], "write it as name=text"), (["lora=A", "lora=B"], "two texts for lora")],
)
def test_a_new_name_is_one_text(texts, sentence):
    with pytest.raises(UsageError, match=sentence):
        parse_rename(texts)


def test_a_method_has_one_new_name():
    with pytest.raises(UsageError, match="lora and LoRA are one method"):
        look(rename={"lora": "A", "LoRA": "B"})


def test_an_unknown_column_is_answered_with_columns():
    with pytest.raises(UsageError, match=r"known: decoder_parameters, .*list metrics"):
        look(columns=["nonsense"])


def test_percent_of_a_style_can_be_switched_off(tmp_path):
    write_record(tmp_path / "runs" / "one", record(), [])
    (tmp_path / "a.yaml").write_text("percent: true")
    command = ["table", str(tmp_path / "runs"), "--style", str(tmp_path / "a.yaml")]
    assert "| 75.0 |" in CliRunner().invoke(app, command).stdout
    assert "| 0.750 |" in CliRunner().invoke(app, [*command, "--no-percent"]).stdout
