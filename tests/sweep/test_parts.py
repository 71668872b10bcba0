"""The rules of a sweep by themselves: ids, memory, outcomes, estimates, shares of a machine."""

from statistics import fmean

import pytest
from fake_sweeps import fake_cell
from hypothesis import given
from hypothesis import strategies as st
from sample_records import record

from lpmoe_bench.sweep.local import Ended, changes_next, memory_steps, outcome_of, shares
from lpmoe_bench.sweep.plan import Attempt, DataPlaces, sets_of, sweep_id
from lpmoe_bench.sweep.runner import Estimate, TimeLeft, duration, estimate_cells, total_words

GENERAL = ["rank=4", "train.lr=1", "lora.rank=8", "vpt.train.lr=2", "decoder.width=8"]


def test_settings_of_a_method_are_for_it_alone_and_win():
    assert sets_of(GENERAL, "lora", ["lora", "vpt"]) == [
        *("rank=4", "train.lr=1", "decoder.width=8", "rank=8")
    ]
    assert sets_of(GENERAL, "vpt", ["lora", "vpt"])[-1] == "train.lr=2"


def test_any_setting_or_place_changes_the_id():
    cell = fake_cell()
    ids = {
        sweep_id([cell], DataPlaces()),
        sweep_id([fake_cell(seed=1)], DataPlaces()),
        sweep_id([fake_cell("other words")], DataPlaces()),
        sweep_id([cell], DataPlaces(embedded=True)),
        sweep_id([cell, fake_cell(seed=1)], DataPlaces()),
    }
    assert len(ids) == 5


def test_memory_is_saved_step_by_step():
    cell = fake_cell()
    sizes = [[f"runtime.micro_batch={n}"] for n in (4, 2, 1)]
    last = ["runtime.micro_batch=1", "runtime.checkpointing=true"]
    assert memory_steps(cell) == [[], *sizes, last]
    cell.settings["runtime"]["micro_batch"] = 64  # more than there is to divide
    assert memory_steps(cell) == [[], *sizes, last]
    cell.settings["runtime"] |= {"micro_batch": 3, "checkpointing": True}
    assert memory_steps(cell) == [[], ["runtime.micro_batch=1"]]
    cell.settings["runtime"] |= {"micro_batch": None, "devices": 4}
    assert memory_steps(cell) == [
        [],
        ["runtime.micro_batch=1"],
    ]  # 8 images over 4 devices are 2 each
    bound = fake_cell(batch_statistics=True)
    assert memory_steps(bound) == [[], ["runtime.checkpointing=true"]]


def test_the_next_attempt_takes_less_memory_than_any_that_did_not_suffice():
    def tried(outcome, *changes):
        return Attempt(ended="", outcome=outcome, changes=list(changes))

    cell, four = fake_cell(), "runtime.micro_batch=4"
    assert changes_next(cell, []) == []
    assert changes_next(cell, [tried("out of memory")]) == [four]
    assert changes_next(cell, [tried("out of memory"), tried("interrupted", four)]) == [four]
    # A machine whose clock is behind tried it with 4: that attempt comes first.
    late = [tried("out of memory", four), tried("out of memory")]
    assert changes_next(cell, late) == ["runtime.micro_batch=2"]
    last = memory_steps(cell)[-1]
    assert changes_next(cell, [tried("failed", *last), tried("out of memory", *last)]) == last


BUSY = "error: another process is working on runs/x; wait for it"
TRACE = "Traceback (most recent call last):\n  File x\nRuntimeError: CUDA error: out of memory\n"


@pytest.mark.parametrize(
    ("ended", "has_record", "stopping", "outcome"),
    [
        (Ended(0), True, False, "finished"),
        (Ended(-9), True, True, "finished"),  # the record was complete before
        (Ended(0), False, False, "failed"),
        (Ended(2, BUSY), False, False, "busy"),
        (Ended(2, "error: unknown method"), False, False, "failed"),
        (Ended(6, "note\nerror: out of memory at batch 8"), False, False, "out of memory"),
        (Ended(6, "error: the disk is full: x"), False, False, "failed"),
        (Ended(1, TRACE), False, False, "out of memory"),
        (Ended(-9, kernel_kill=True), False, False, "out of memory"),
        (Ended(-9), False, False, "failed"),
        (Ended(-9, kernel_kill=True), False, True, "interrupted"),
        (Ended(130, "error: interrupted after step 3"), False, True, "interrupted"),
        (Ended(130, "error: interrupted after step 3"), False, False, "failed"),
        (Ended(None, lost="out of memory: a node's"), False, False, "out of memory"),
        (Ended(None, lost="Ray lost it"), False, False, "failed"),
    ],
)
def test_outcomes(ended, has_record, stopping, outcome):
    found, reason = outcome_of(ended, has_record, stopping)
    assert found == outcome
    assert (reason == "") == (outcome == "finished")
    assert "\n" not in reason


def estimate(cell, records):
    return estimate_cells([cell], records)[cell.name]


def test_an_estimate_is_of_the_same_settings_else_of_the_methods_speed():
    cell = fake_cell(train_images=400, test_images=100)
    costs = {"train_images_per_second": 10.0, "inference_images_per_second": 20.0}
    like = record(fingerprint="a" * 64, costs=costs)
    assert estimate(cell, [record("vpt")]).seconds is None
    assert estimate(cell, [like]).seconds is None  # of another size
    cell.settings["size"] = 256
    assert estimate(cell, [like]) == (400 / 10 + 100 / 20, "same method")
    same = record(fingerprint=cell.fingerprint, costs=costs | {"train_seconds": 70.0})
    assert estimate(cell, [like, same]) == (70.0 + 5.0, "same settings")
    wide = [
        record(fingerprint="a" * 64, costs=costs, config=like.config | {"size": size})
        for size in ([64, 96], 64)
    ]
    cell.settings["size"] = [64, 96]  # as JSON has height and width
    assert estimate(cell, wide[:1]) == (400 / 10 + 100 / 20, "same method")
    assert estimate(cell, wide[1:]).seconds is None
    words = total_words({"a": estimate(cell, [same]), "b": estimate(fake_cell(), [])}, 1)
    assert words == "about 1 min for 1 cells (1 by records of the same settings); 1 cells unknown"
    found = [duration(s) for s in (5, 90, 3599, 7380)]
    assert found == ["5 s", "2 min", "1 h 00 min", "2 h 03 min"]


def test_records_are_looked_at_once_for_all_cells():
    asked = []

    def found():
        for number in range(50):
            asked.append(number)
            yield record(fingerprint=f"{number:064}", costs={"train_images_per_second": 10.0})

    cells = [fake_cell(seed=seed) for seed in range(40)]
    assert len(estimate_cells(cells, found())) == 40
    assert asked == list(range(50))


@given(st.data())
def test_the_time_left_is_what_looking_at_every_cell_would_say(data):
    """Against the plain loop over all cells that the sums stand for."""
    seconds = st.one_of(st.none(), st.floats(1, 1000))
    of_kind = data.draw(st.lists(seconds, min_size=1, max_size=5))
    left = {f"k{kind}-s{n}": s for kind, s in enumerate(of_kind) for n in range(3)}
    time_left = TimeLeft({name: Estimate(s, "") for name, s in left.items()})
    taken: dict[str, list[float]] = {}
    for name in data.draw(st.permutations(list(left))):
        took = data.draw(seconds)
        time_left.end(name, took)
        del left[name]
        if took is not None:
            taken.setdefault(name.partition("-")[0], []).append(took)
        for other in left:
            if other.partition("-")[0] in taken:
                left[other] = fmean(taken[other.partition("-")[0]])
        known = [s for s in left.values() if s is not None] + [fmean(s) for s in taken.values()]
        if not left or not known:
            assert time_left.seconds() is None
        else:
            expected = sum(fmean(known) if s is None else s for s in left.values())
            assert time_left.seconds() == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_jobs_divide_the_cores_or_have_a_gpu_each(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("lpmoe_bench.sweep.local.visible_gpus", lambda: [])
    monkeypatch.setattr("lpmoe_bench.sweep.local.usable_cores", lambda: 8)
    assert shares([fake_cell()], None) == ([{}], [])
    assert [env["OMP_NUM_THREADS"] for env in shares([fake_cell()], 3)[0]] == ["2", "2", "2"]
    monkeypatch.setattr("lpmoe_bench.sweep.local.visible_gpus", lambda: ["2", "5", "6"])
    assert [e["CUDA_VISIBLE_DEVICES"] for e in shares([fake_cell()], None)[0]] == ["2", "5", "6"]
    given, notes = shares([fake_cell()], 4)
    assert [env["CUDA_VISIBLE_DEVICES"] for env in given] == ["2", "5", "6", "2"]
    assert "share 3 GPUs" in notes[0]
    pair = fake_cell()
    pair.settings["runtime"]["devices"] = 2
    assert shares([pair], None)[0] == [{"CUDA_VISIBLE_DEVICES": "2,5"}]
    pair.settings["runtime"]["device"] = "cpu"
    assert shares([pair], None)[0] == [{}]
