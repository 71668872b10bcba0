"""Tables of values that are no fractions, and of fractions that the papers print in percent."""

import csv
import io

from records import record
from test_table import cells

from lpmoe_bench.tables.formats import to_csv, to_latex, to_markdown
from lpmoe_bench.tables.table import build_table


def test_values_beyond_one_and_percent_are_printed_as_they_should():
    shadow = {"name": "shadow_per_image", "version": 1, "hash": "cd" * 32}
    records = [
        record(name, protocol=shadow, scores={"ber": ber, "hd95": far, "hce": effort, "iou": 0.5})
        for name, ber, far, effort in (
            ("lora", 0.0254, 38.0634, 1204.0),
            ("vpt", 0.0311, 4.5, 73.66),
        )
    ]
    table = build_table(records, metrics=["all"])
    assert cells(table, "hd95") == {"LoRA": ("38.06", "second"), "VPT": ("4.50", "best")}
    assert cells(table, "hce") == {"LoRA": ("1204.0", "second"), "VPT": ("73.7", "best")}
    text = to_markdown(table)
    assert "BER@.5 (%) ↓" in text
    assert "| **2.54** | <u>38.06</u> | <u>1204.0</u> | **0.500** |" in text
    assert "BER@.5 (\\%)" in to_latex(table)
    assert "HD95@.5 (px) ↓" in text
    (line, _) = csv.DictReader(io.StringIO(to_csv(table)))
    assert float(line["ber_mean"]) in (0.0254, 0.0311)  # a fraction
    assert "2.54" in to_markdown(build_table(records))  # the protocol's headline
