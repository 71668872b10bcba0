"""The notebook of the quickstart runs from top to bottom; here it trains for two steps only."""

import json
from pathlib import Path

import pytest

from lpmoe_bench.environment import default_cache
from lpmoe_bench.errors import DataError
from lpmoe_bench.model.weights.resolve import resolve_weights

NOTEBOOK = Path(__file__).parents[1] / "docs" / "quickstart.ipynb"


def test_every_cell_runs():
    try:
        resolve_weights("dinov2_small_imgfocus", None, default_cache())
    except DataError as error:
        pytest.skip(f"the default backbone cannot be had here: {error}")
    cells = json.loads(NOTEBOOK.read_text("utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert 6 <= len(sources) <= 10
    assert any('"epochs": 8' in source for source in sources)
    names: dict[str, object] = {}
    for source in sources:
        exec(source.replace('"epochs": 8', '"steps": 2'), names)
    assert {line.metric for line in names["report"].lines} == {"s_measure"}
    assert set(names["frame"].method) == {"lora", "decoder_only"}
    assert names["lora"].record.parameters.method == 73728
    assert tuple(names["probability"].shape) == (2, 1, 64, 64)
