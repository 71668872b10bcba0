"""Publishing copies numbers only, once, and only what others can rerun."""

import pytest
from records import content, record

from lpmoe_bench.errors import DataError, UsageError
from lpmoe_bench.records.folder import publish
from lpmoe_bench.records.store import read_record, write_record

ROWS = [{"dataset": "CAMO", "image": "a", "s_measure": 0.5}]


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "runs" / "x"
    write_record(folder, record(), ROWS, [{"step": 1, "loss": 0.5}])
    (folder / "adapter.safetensors").write_bytes(b"weights")
    (folder / "predictions").mkdir()
    (folder / "predictions" / "a.png").write_bytes(b"image")
    return folder


def test_copies_the_numbers_and_nothing_else(run, tmp_path):
    target = publish(run, tmp_path / "records")
    assert target == tmp_path / "records" / "cod" / "lora" / "small" / "lora00000000-s0"
    assert sorted(p.name for p in target.iterdir()) == ["curve.csv", "per_image.csv", "run.json"]
    for path in target.iterdir():
        assert path.read_bytes() == (run / path.name).read_bytes()


def test_same_record_again_is_accepted_another_is_refused(run, tmp_path):
    target = publish(run, tmp_path / "records")
    assert publish(run, tmp_path / "records") == target
    write_record(run, record(created="2026-02-02T00:00:00+00:00"), ROWS)
    with pytest.raises(UsageError, match=r"made 2026-01-02.*yours was made 2026-02-02"):
        publish(run, tmp_path / "records")
    assert read_record(target) == record()


def test_a_dirty_tree_is_refused_unless_allowed(tmp_path):
    dirty = content()["environment"] | {"git_dirty": True}
    write_record(tmp_path / "run", record(environment=dirty), ROWS)
    with pytest.raises(UsageError, match="code that differs from its commit efefefefefef"):
        publish(tmp_path / "run", tmp_path / "records")
    assert not (tmp_path / "records").exists()
    assert publish(tmp_path / "run", tmp_path / "records", allow_dirty=True).is_dir()


def test_an_unfinished_or_incomplete_run_is_refused(run, tmp_path):
    (run / "per_image.csv").unlink()
    with pytest.raises(DataError, match=r"per_image\.csv could not be read"):
        publish(run, tmp_path / "records")
    (run / "run.json").unlink()
    with pytest.raises(DataError, match="no finished run is there"):
        publish(run, tmp_path / "records")
