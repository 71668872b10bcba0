"""Kernels are compiled once for all starts, and without a cache where none can be written."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

from lpmoe_bench.metrics import kernels

CODE = """
import numpy as np
from lpmoe_bench.metrics.kernels import weighted_sum
assert weighted_sum(np.full((2, 3), 7, np.uint8), np.full((2, 3), 5, np.uint32)) == 210
print(sum(weighted_sum.stats.cache_hits.values()), sum(weighted_sum.stats.cache_misses.values()))
"""


def starts(code, **environment):
    """Run the code in two processes, one after the other; return what each printed."""
    kept = {key: value for key, value in os.environ.items() if key != "NUMBA_CACHE_DIR"}
    return [
        subprocess.run(
            [sys.executable, "-c", code],
            env=kept | environment,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        for _ in range(2)
    ]


def test_a_second_start_compiles_nothing_even_if_the_package_cannot_be_written(tmp_path):
    package = tmp_path / "sealed"
    package.mkdir()
    for name in ("__init__", "kernels"):
        shutil.copy(Path(kernels.__file__).with_name(f"{name}.py"), package)
    (package / "__init__.py").write_text("")
    (package / "__pycache__").touch()  # no folder can be made there, whoever runs this
    cache = tmp_path / "cache"
    code = CODE.replace("lpmoe_bench.metrics", "sealed")
    found = starts(code, PYTHONPATH=str(tmp_path), XDG_CACHE_HOME=str(cache), HOME=str(tmp_path))
    assert found == [["0", "1"], ["1", "0"]]
    assert {path.name for path in package.iterdir()} == {
        "__init__.py",
        "kernels.py",
        "__pycache__",
    }


def test_kernels_work_without_a_cache(monkeypatch):
    asked = []

    def njit(nogil, cache=False):
        asked.append(cache)
        if cache:
            raise RuntimeError("no locator available")
        return lambda function: function

    monkeypatch.setattr(kernels, "njit", njit)
    assert kernels.kernel(np.sum) is np.sum
    assert asked == [True, False]
