"""What may differ within a table: a setting at its default is as if it were not there."""

from pathlib import Path

import pytest

from lpmoe_bench.config.settings import later_fields, nested_fields
from lpmoe_bench.records.context import own_settings
from lpmoe_bench.records.store import read_record

RECORDS = Path(__file__).parents[2] / "results/records"


@pytest.mark.parametrize("form", [list, tuple])
def test_settings_that_came_later_part_no_old_record_from_a_new_one(form):
    old = read_record(next(RECORDS.glob("cod/lora/*/41d3b80aaace-s0")))
    config = {k: dict(v) if isinstance(v, dict) else v for k, v in old.config.items()}
    for key, value in nested_fields(later_fields()).items():
        if isinstance(value, dict):
            config.setdefault(key, {}).update(value)
        else:  # as it is before it is written, and as it is read
            config[key] = form(value) if isinstance(value, tuple) else value
    new = old.model_copy(update={"config": config})
    assert "classes" in new.config
    assert own_settings(new) == own_settings(old)
