"""Kernels are compiled once for all starts, and without a cache where none can be written."""

import os
import subprocess
import sys

import numpy as np

from lpmoe_bench.metrics import compiled

CODE = """
import numpy as np
from lpmoe_bench.metrics.smoothing import weighted_sum
assert weighted_sum(np.full((2, 3), 7, np.uint8), np.full((2, 3), 5, np.uint32)) == 210
print(sum(weighted_sum.stats.cache_hits.values()), sum(weighted_sum.stats.cache_misses.values()))
"""


def test_a_second_start_compiles_nothing(tmp_path):
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    found = [
        subprocess.run(
            [sys.executable, "-c", CODE],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        for _ in range(2)
    ]
    assert found == [["0", "1"], ["1", "0"]]


def test_kernels_work_without_a_cache(monkeypatch):
    asked = []

    def njit(nogil, cache=False):
        asked.append(cache)
        if cache:
            raise RuntimeError("no locator available")
        return lambda function: function

    monkeypatch.setattr(compiled, "njit", njit)
    assert compiled.kernel(np.sum) is np.sum
    assert asked == [True, False]
