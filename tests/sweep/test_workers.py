"""Many workers on one folder: what they tell each other, and what is looked at on disk anyhow."""

import pytest
from fake_sweeps import fake_cell, fake_sweep, run_fake, states

from lpmoe_bench.files import hold_lock
from lpmoe_bench.sweep import execute
from lpmoe_bench.sweep.plan import Attempt, write_attempt, write_sweep
from lpmoe_bench.sweep.state import CLAIMED, FINISHED, Journal, cell_state, cell_states, claim_file


def test_workers_of_one_folder_hear_of_each_other_and_run_each_cell_once(tmp_path):
    sweep = fake_sweep(*(fake_cell(seed=seed) for seed in range(6)))
    folder = write_sweep(tmp_path, sweep)
    one, other = Journal(folder), Journal(folder)
    first, second = sweep.cells[:2]
    one.tell(CLAIMED, first)
    other.tell(FINISHED, second)
    with open(folder / "journal", "ab") as file:
        file.write(b"finished of-nobody\nclaimed somebody cod-lora")  # cut off
    assert one.news() == [(FINISHED, second.name)]
    assert other.news() == [(CLAIMED, first.name)]
    with open(folder / "journal", "ab") as file:
        file.write(b"-s5\n")
    assert one.news() == [(CLAIMED, "cod-lora-s5")]
    assert one.news() == []
    assert Journal(folder).news() == []  # a worker that starts later looks at the disk


def test_a_line_that_is_wrong_leaves_no_cell_out(tmp_path):
    sweep = fake_sweep(fake_cell(), fake_cell(seed=1))
    lies = Journal(write_sweep(tmp_path, sweep))
    news = [[(FINISHED, cell.name) for cell in sweep.cells]]
    lies.news = lambda: news.pop() if news else []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(execute, "Journal", lambda folder: lies)
        run_fake(sweep, tmp_path)
    assert {state.state for state in states(sweep, tmp_path).values()} == {"done"}
    assert all((tmp_path / cell.folder / "trained").exists() for cell in sweep.cells)


def test_a_listing_tells_what_looking_at_each_cell_does(tmp_path):
    cells = [fake_cell("fail=9"), fake_cell(seed=1), fake_cell(seed=2), fake_cell(seed=3)]
    sweep = fake_sweep(*cells)
    folder = write_sweep(tmp_path, sweep)
    run_fake(fake_sweep(cells[1]), tmp_path)  # another sweep has finished it
    for _ in range(3):
        write_attempt(folder, cells[0], Attempt(ended="", outcome="failed", reason="why"))
    with hold_lock(claim_file(tmp_path, cells[2])):
        found = cell_states(tmp_path, folder, cells, {})
        assert [one.state for one in found] == ["failed", "done", "running", "waiting"]
        assert found == [cell_state(tmp_path, folder, cell, {}) for cell in cells]
    known = cell_states(tmp_path, folder, cells, {}, {cell.name for cell in cells[1:3]})
    assert [one.state for one in known] == ["failed", "done", "waiting", "waiting"]
