"""The notebook of the quickstart runs from top to bottom; here it trains for two steps only.

In a quick test on a tiny backbone: of the default one, test_default_backbone.py knows all.
"""

import json
from pathlib import Path

import pytest
from tiny_runs import BACKBONE, BLOCKS, WIDTH

from lpmoe_bench.environment import default_cache
from lpmoe_bench.errors import DataError
from lpmoe_bench.model.weights.resolve import resolve_weights

NOTEBOOK = Path(__file__).parents[1] / "docs" / "quickstart.ipynb"


def run_cells(**more: object) -> dict[str, object]:
    """Run all cells with further settings in the dictionary that both runs share."""
    cells = json.loads(NOTEBOOK.read_text("utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert 6 <= len(sources) <= 10
    assert any('"epochs": 8' in source for source in sources)
    assert sum("shared = {" in source for source in sources) == 1
    names: dict[str, object] = {"more": more}
    for source in sources:
        source = source.replace('"epochs": 8', '"steps": 2')
        exec(source.replace("shared = {", "shared = more | {"), names)
    assert {line.metric for line in names["report"].lines} == {"s_measure"}
    assert set(names["frame"].method) == {"lora", "decoder_only"}
    assert tuple(names["probability"].shape) == (2, 1, 64, 64)
    return names


def test_every_cell_runs():
    names = run_cells(backbone=BACKBONE, weights="random:3")
    assert names["lora"].record.parameters.method == BLOCKS * 4 * 4 * WIDTH


@pytest.mark.slow
def test_every_cell_runs_on_the_default_backbone():
    try:
        resolve_weights("dinov2_small_imgfocus", None, default_cache())
    except DataError as error:
        pytest.skip(f"the default backbone cannot be had here: {error}")
    assert run_cells()["lora"].record.parameters.method == 73728
