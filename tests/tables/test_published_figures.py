"""The published figures of published figures: sound files, true copies, errors in one sentence."""

from pathlib import Path

import pytest
import yaml
from collected import COLLECTED, collected, expected, letters

from lpmoe_bench.data.registry import load_registry
from lpmoe_bench.errors import DataError, UsageError
from lpmoe_bench.tables.published_figures import load_published
from method_zoo.options import list_methods

ROOT = Path(__file__).parents[2]


def test_names_are_those_of_the_zoo_and_of_the_data_sets():
    figures, registry = load_published(), load_registry()
    known = set(list_methods())
    for table in figures.tables.values():
        assert {row.method for row in table.rows} <= known | {None}, table.name
        assert table.source
        for name in table.sets:
            assert figures.sets[name].task in {*registry.tasks, None}
    for one in figures.sets.values():
        for label in (*one.same, *one.near):
            dataset, split = registry.split(label)
            assert dataset.task == one.task
            assert label not in one.same or dataset.counts.get(split) == one.images
            assert label not in one.same or split not in dataset.local


def test_every_file_of_the_folder_is_known():
    named = {path.name for path in (ROOT / "results" / "published").iterdir()}
    assert named == {
        *("README.md", "budgets.yaml", "sets.yaml", "costs.yaml"),
        *("conv_lora.yaml", "peft.yaml", "vfm.yaml", "lpmoe.yaml"),
    }


def test_levels_are_the_cautious_ones():
    levels = {table.name: table.level for table in load_published().tables.values()}
    assert levels["conv_lora"] == "slides"
    assert {levels[name] for name in ("sam_adapter", "mona", "parax_ade20k")} == {"primary"}
    for name in ("clip_guided_sam", "conv_lora_user_run", "v_petl_bench_coco", "infosam"):
        assert levels[name] == "secondary"
    assert levels["lpmoe_claims"] == levels["claims_of_abstracts"] == "claim"


# Figures of texts, not of tables: by hand in the published figures, by hand here.
BY_HAND = {
    "infosam": [{"road.IoU": 0.072}],
    "lpmoe_claims": [{"any.methods": 31}, {"any.share": 0.001}, {"any.share": 0.05}],
    "claims_of_abstracts": [
        *({"any.to": 0.05}, {"any.to": 0.0172}, {"any.to": 0.03}),
        *({"any.from": 0.016, "any.to": 0.028}, {"any.from": 0.01, "any.to": 0.03}),
        {"any.to": 0.015, "any.memory": 0.622, "any.time": 0.262},
        *({"any.to": 0.01}, {"any.flops_from": 0.71, "any.flops_to": 0.85}),
    ],
}


def test_figures_of_texts():
    for name, rows in BY_HAND.items():
        assert [row.values for row in load_published().tables[name].rows] == rows


@pytest.mark.skipif(COLLECTED is None, reason="the collected figures are not beside the project")
def test_every_figure_is_the_collected_one():
    tables, wanted = load_published().tables, expected()
    assert tables.keys() == wanted.keys() | BY_HAND.keys()
    for name, rows in wanted.items():
        table = tables[name]
        assert len(table.rows) == len(rows), name
        for row, (key, figures) in zip(table.rows, rows, strict=True):
            assert letters(row.title).startswith(letters(key)[:4]), (name, row.title, key)
            percent = {c: table.metrics[c.split(".")[1]].unit == "percent" for c in row.values}
            found = {c: v * (100 if percent[c] else 1) for c, v in row.values.items()}
            figures = {column: v for column, v in figures.items() if column}
            assert found == pytest.approx(figures, rel=1e-12), (name, row.title)


@pytest.mark.skipif(COLLECTED is None, reason="the collected figures are not beside the project")
def test_spreads_parameters_and_flags_are_the_collected_ones():
    tables = load_published().tables
    for row, block in zip(
        tables["conv_lora"].rows, collected("conv_lora")["binary"].values(), strict=True
    ):
        spreads = {column: 100 * value for column, value in row.pm.items()}
        assert spreads == pytest.approx(block.get("pm", {}), rel=1e-12)
        assert float(row.share_percent) == block["ratio_pct"]
        printed = row.parameters_millions and float(row.parameters_millions)
        assert printed == block["params_M"]
    vfm, bench = collected("vfm"), collected("peft")["v_petl_bench"]
    parax = [b for b in vfm["ade20k_upernet_parax"].values() if isinstance(b, dict)]
    wanted = [v["params"] for block in parax for v in block.values()]
    assert [float(row.parameters_millions) for row in tables["parax_ade20k"].rows] == wanted
    for name, key, place in (
        ("v_petl_bench_swin_l", "ade20k_swinL_upernet", 0),
        ("v_petl_bench_coco", "coco_swinB_cascade", 0),
        ("v_petl_bench_vtab", "vtab1k_vitB_mean_params", 1),
        ("v_petl_bench_fgvc", "fgvc_vitB_mean_params", 1),
    ):
        wanted = [values[place] for values in bench[key].values()]
        assert [float(row.parameters_millions) for row in tables[name].rows] == wanted
    flagged = {(row.title, *row.flags) for row in tables["sam_adapter"].rows if row.flags}
    wanted = {("SINet", "chameleon.MAE"), ("PFNet", "chameleon.MAE"), ("JCOD", "camo.MAE")}
    assert flagged == wanted


TABLE = {
    **{"name": "t", "title": "T", "source": "s", "level": "primary", "protocol": "p"},
    "metrics": {"S": {"metric": "s_measure", "label": "S", "unit": "fraction", "decimals": 3}},
    "columns": ["camo.S"],
    "rows": [{"title": "R", "values": {"camo.S": 0.5}}],
}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"level": "A"}, "tables.0.level"),
        ({"columns": ["camo.S", "camo.E"]}, "column 'camo.E' names no metric of its table"),
        ({"rows": [{"title": "R", "values": {"camo.S": 50}}]}, "'R' has camo.S 50, beyond 0 to 1"),
        ({"rows": [{"title": "R", "values": {"x.S": 0.5}}]}, "row 'R' has 'x.S'"),
        ({"rows": [{"title": "R", "values": {}, "pm": {"camo.S": 0.1}}]}, "row 'R' has 'camo.S'"),
        ({"columns": ["camp.S"], "rows": []}, "unknown set 'camp'; did you mean 'camo'"),
        (
            {"metrics": {"S": TABLE["metrics"]["S"] | {"protocols": ["shadow_sbu"]}}},
            "no protocol 'shadow_sbu' has a metric 's_measure'",
        ),
        ({"sorce": "s"}, "tables.0.sorce: extra inputs are not permitted"),
        ({"rows": [{"title": "R", "values": {}, "parameters_millions": "4M"}]}, "pattern"),
    ],
)
def test_a_wrong_file_is_one_sentence(tmp_path, change, sentence):
    content = {"sets": {"camo": {"title": "CAMO"}}, "tables": [TABLE | change]}
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    with pytest.raises(DataError, match=sentence) as raised:
        load_published(tmp_path)
    assert "\n" not in str(raised.value)


def test_names_that_stand_twice_and_names_that_are_none(tmp_path):
    sets = {"sets": {"camo": {"title": "CAMO"}}, "tables": [TABLE]}
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(sets), encoding="utf-8")
    assert load_published(tmp_path).table("t").of_set("camo") == ["camo.S"]
    (tmp_path / "b.yaml").write_text(yaml.safe_dump({"tables": [TABLE]}), encoding="utf-8")
    load_published.cache_clear()
    with pytest.raises(DataError, match=r"b\.yaml: t stands twice"):
        load_published(tmp_path)
    (tmp_path / "b.yaml").write_text("tables: [", encoding="utf-8")
    with pytest.raises(DataError, match=r"b\.yaml cannot be read"):
        load_published(tmp_path)
    with pytest.raises(UsageError, match="did you mean 'conv_lora'"):
        load_published().table("conv_lra")
