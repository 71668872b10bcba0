"""Sweeps on a Ray cluster of two nodes, started on this machine."""

import importlib.util
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_sweeps import fake_cell, fake_sweep, states
from tiny_runs import environment
from tiny_sweeps import draw_sets, finish, records, sweep

from lpmoe_bench.errors import ResourceError, UsageError
from lpmoe_bench.sweep import ray_engine
from lpmoe_bench.sweep.plan import Sweep, write_sweep
from lpmoe_bench.sweep.ray_engine import share_of

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="the extra ray is not installed"
)
HERE = Path(__file__).parents[1] / "support"


class Nodes:
    """A running cluster: its address, and its process."""

    def __init__(self, temporary: Path):
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "ray_nodes.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment() | {"TMPDIR": str(temporary), "RAY_USAGE_STATS_ENABLED": "0"},
        )
        assert self.process.stdout is not None
        self.address = self.process.stdout.readline().strip()
        assert self.address, "the cluster did not start"

    def drop(self) -> None:
        """Take the second node away, as a machine that fails."""
        assert self.process.stdin is not None
        self.process.stdin.write("drop\n")
        self.process.stdin.flush()

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()


@pytest.fixture(scope="module")
def worker_files(tmp_path_factory) -> Path:
    """Where the workers keep what is streamed."""
    return tmp_path_factory.mktemp("worker")


@pytest.fixture(scope="module")
def nodes(worker_files) -> Iterator[Nodes]:
    started = Nodes(worker_files)
    yield started
    started.close()


def drive(runs: Path, planned: Sweep, where: str) -> subprocess.Popen:
    """Start a sweep of fake cells on a cluster."""
    write_sweep(runs, planned)
    with open(runs / "log", "w") as log:
        return subprocess.Popen(
            [sys.executable, str(HERE / "fake_sweeps.py"), str(runs), where],
            stdout=subprocess.DEVNULL,
            stderr=log,
            env=environment(),
        )


def wait_for(runs: Path, pattern: str, count: int, process: subprocess.Popen) -> None:
    while len(list(runs.rglob(pattern))) < count:
        assert process.poll() is None, (runs / "log").read_text()
        time.sleep(0.02)


CPU, GPU = {"CPU": 8.0}, {"CPU": 8.0, "GPU": 4.0}


@pytest.mark.parametrize(
    ("nodes", "jobs", "runtime", "expected"),
    [
        ([CPU, CPU], None, {}, (2, 8, 0)),  # a machine each
        ([CPU, CPU], 4, {}, (4, 4, 0)),  # two on each
        ([CPU, CPU], 3, {}, (3, 4, 0)),
        ([{"memory": 1.0}, CPU, CPU], None, {}, (2, 8, 0)),  # a head of `ray start --num-cpus=0`
        ([{"memory": 1.0}], None, {}, (1, 1, 0)),
        ([GPU, GPU], None, {}, (8, 1, 1)),
        ([GPU, GPU], None, {"devices": 3}, (2, 1, 3)),  # the fourth of each stays idle
        ([GPU, CPU], None, {"device": "cpu"}, (2, 8, 0)),
        ([GPU], 2, {}, (2, 1, 1)),
    ],
)
def test_a_cluster_is_shared_by_gpus_else_by_cores(nodes, jobs, runtime, expected):
    cell = fake_cell()
    cell.settings["runtime"].update(runtime)
    assert share_of([cell], nodes, jobs) == expected


def test_without_ray_the_command_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r"pip install 'lpmoe-bench\[ray\]'"):
        ray_engine._connect(None)


@needs_ray
@pytest.mark.slow
def test_real_runs_on_two_nodes_and_on_none_are_the_same(nodes, worker_files, tmp_path):
    datasets = draw_sets(tmp_path / "data")
    both = {}
    for how in ("--shared", "--streamed"):
        runs = tmp_path / how
        command = sweep(datasets, runs, "--seeds", "0,1", "--engine", "ray", how, "--json")
        done = finish([*command, "--address", nodes.address])
        assert done.returncode == 0, done.stderr
        cells = json.loads(done.stdout)["cells"]
        assert len({a["host"] for cell in cells for a in cell["attempts"]}) == 2
        assert all(Path(cell["log"] or runs).exists() for cell in cells)
        both[how] = records(runs)
        for name in both[how]:
            files = {path.name for path in (runs / name).iterdir()} - {".lock"}
            assert files == {"run.json", "per_image.csv", "curve.csv", "adapter.safetensors"}
    assert both["--shared"].keys() == both["--streamed"].keys()
    for name in both["--shared"]:
        one, other = (tmp_path / how / name / "per_image.csv" for how in both)
        assert one.read_bytes() == other.read_bytes()
    assert len(list(worker_files.rglob("run.json"))) == 2  # the streamed ones, on the workers


@needs_ray
@pytest.mark.slow
def test_workers_look_whether_they_see_the_folder(nodes, worker_files, tmp_path):
    before = len(list(worker_files.rglob("run.json")))
    planned = fake_sweep(fake_cell("fail=1"), fake_cell("memory=4", seed=1))
    assert drive(tmp_path, planned, f"{nodes.address},look").wait() == 0
    assert len(list(worker_files.rglob("run.json"))) == before
    found = [[a.outcome for a in s.attempts] for s in states(planned, tmp_path).values()]
    assert found == [["failed", "finished"], ["out of memory", "finished"]]


@needs_ray
@pytest.mark.slow
@pytest.mark.parametrize("how", ["shared", "streamed"])
def test_an_interrupted_sweep_saves_and_goes_on(nodes, worker_files, tmp_path, how):
    cells = [fake_cell(f"steps=60 pause=0.25 {how}", method=how, seed=seed) for seed in (0, 1)]
    planned, where = fake_sweep(*cells), f"{nodes.address},{how}"
    place = tmp_path if how == "shared" else worker_files
    process = drive(tmp_path, planned, where)
    wait_for(place, f"{how}/small/*/resume.safetensors", 2, process)
    process.send_signal(signal.SIGINT)
    assert process.wait() == 130, (tmp_path / "log").read_text()
    attempts = [a for state in states(planned, tmp_path).values() for a in state.attempts]
    assert [a.outcome for a in attempts] == ["interrupted"] * 2
    assert all("interrupted after step" in a.reason for a in attempts)
    assert drive(tmp_path, planned, where).wait() == 0
    for cell in cells:
        assert (tmp_path / cell.folder / "run.json").exists()


@needs_ray
@pytest.mark.slow
def test_a_killed_driver_takes_its_cells_along(nodes, tmp_path):
    planned = fake_sweep(fake_cell("steps=1000 pause=0.1", method="killed"))
    process = drive(tmp_path, planned, f"{nodes.address},shared")
    wait_for(tmp_path, "resume.safetensors", 1, process)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 120
    while states(planned, tmp_path)["cod-killed-s0"].state == "running":
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert states(planned, tmp_path)["cod-killed-s0"].state == "partial"


def test_an_address_where_nothing_answers_is_a_sentence():
    with pytest.raises(ResourceError, match=r"no Ray cluster answers at ray://127.0.0.1:1 .*"):
        ray_engine._check_answer("ray://127.0.0.1:1")
    for place in ("auto", "local"):
        ray_engine._check_answer(place)


@needs_ray
@pytest.mark.slow
def test_a_lost_node_costs_an_attempt_and_the_cell_is_finished_elsewhere(nodes, tmp_path):
    # The last test of the file: the cluster has one node less afterwards.
    planned = fake_sweep(*[fake_cell("steps=100 pause=0.1", seed=seed) for seed in (0, 1)])
    process = drive(tmp_path, planned, f"{nodes.address},shared")
    wait_for(tmp_path, "resume.safetensors", 2, process)
    nodes.drop()
    assert process.wait() == 0, (tmp_path / "log").read_text()
    attempts = [a for state in states(planned, tmp_path).values() for a in state.attempts]
    assert sorted(a.outcome for a in attempts) == ["failed", "finished", "finished"]
    assert any("Ray lost it" in a.reason for a in attempts)
