"""Tables in another order, and tables that mix decoders when asked."""

import pytest
from records import record

from lpmoe_bench.errors import UsageError
from lpmoe_bench.tables.table import build_table


def test_rows_are_sorted_by_a_column_the_best_first():
    rows = [
        record(name, scores={"s_measure": s, "mae": m})
        for name, s, m in (("lora", 0.7, 0.2), ("vpt", 0.8, 0.1), ("decoder_only", 0.6, 0.3))
    ]
    for key, order in (
        ("s_measure", ["VPT", "LoRA", "Decoder only"]),
        ("mae", ["VPT", "LoRA", "Decoder only"]),
        ("method_parameters", ["LoRA", "VPT", "Decoder only"]),
    ):
        (group,) = build_table(rows, metrics=["s_measure", "mae"], sort=key).groups
        assert [row.label for row in group.rows] == order, key
    with pytest.raises(UsageError, match="did you mean 's_measure'"):
        build_table(rows, sort="s_mesure")


def test_decoders_share_a_table_only_when_asked():
    rows = [record("lora"), record("vpt", decoder={"name": "linear", "options": {}})]
    assert len(build_table(rows).groups) == 2
    (group,) = build_table(rows, across=["decoder"]).groups
    assert [row.label for row in group.rows] == ["VPT (decoder linear)", "LoRA"]
    assert "Decoder fpn (width 64) where a row names none." in group.footer
    with pytest.raises(UsageError, match="unknown thing a table may mix 'backbone'"):
        build_table(rows, across=["backbone"])
