"""Records for the tests of the gate: cells of several seeds whose rows average to their scores."""

from pathlib import Path

import numpy as np
from sample_records import record
from typer.testing import CliRunner

from lpmoe_bench.cli.app import app
from lpmoe_bench.errors import BenchError
from lpmoe_bench.gate.pin import gather_cells
from lpmoe_bench.records.store import StoredRecord, find_records, write_record

METRICS = ("s_measure", "mae")


def draw(seed, images=40, shift=0.0, seed_sd=0.01, image_sd=0.15, rest_sd=0.04):
    """Scores an image of one seed: the images are the same for every seed."""
    image = np.random.default_rng([7, images]).normal(0.7, image_sd, images)
    own = np.random.default_rng([11, seed])
    return image + own.normal(0, seed_sd) + own.normal(0, rest_sd, images) + shift


def store(root: Path, seed=0, name="lora", values=None, **changes) -> StoredRecord:
    """Write a record whose S-measure an image is `values`, and whose MAE is 1 less those."""
    values = draw(seed) if values is None else values
    rows = [
        {"dataset": "CAMO", "image": f"i{n:03}", "s_measure": v, "mae": 1 - v, "flags": ""}
        for n, v in enumerate(values.tolist())
    ]
    count = {"images": len(values), "scored": len(values)}
    scores = {"s_measure": float(values.mean()), "mae": float(1 - values.mean())}
    made = record(name, seed, **{"scores": scores, "counts": {"CAMO": count}} | changes)
    folder = root / f"{name}-{made.fingerprint[:6]}-{seed}"
    write_record(folder, made, rows)
    return StoredRecord(folder, made)


def cells(root: Path):
    return gather_cells(find_records([root]), str(root))


def call(*arguments, code=0):
    """Run a `check` command; return what it prints, or the error that it ends with."""
    result = CliRunner().invoke(app, ["check", *map(str, arguments)])
    if isinstance(result.exception, BenchError):
        assert result.exception.exit_code == code, result.exception
        return str(result.exception)
    assert result.exit_code == code, result.output
    return result.stdout


def pinned(folder):
    """A pinned cell of five seeds: its folder of records, and the file."""
    for seed in range(5):
        store(folder / "base", seed)
    file = folder / "baseline.json"
    call("pin", folder / "base", "--baseline", file, "--metrics", ",".join(METRICS))
    return folder / "base", file
