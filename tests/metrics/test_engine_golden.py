"""The engine against numbers that PySODMetrics 1.6.2 gave once, kept beside their pairs.

They guard against a drift of both on a new numpy. To make them again:
python tests/test_engine_golden.py
"""

import json
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from test_engine import TOLERANCE, by_engine, by_pysodmetrics, draw_pairs, normalised

from lpmoe_bench.metrics.engine import Measured
from lpmoe_bench.metrics.maps import PreparedMask
from lpmoe_bench.metrics.protocols import REFERENCE

FILE = Path(__file__).parents[1] / "golden" / "metrics.json"
LEVELS = [0, 64, 127, 128, 254, 255]  # of each curve, beside its mean and maximum


def told(scores):
    """Scores as JSON holds them: curves by some of their points, NaN as None."""
    found = {}
    for key, value in scores.items():
        values = np.asarray(value, float)
        if values.ndim:
            values = np.array([*values[LEVELS], values.mean(), values.max()])
        found[key] = [None if np.isnan(v) else float(v) for v in values.ravel()]
    return found


def pixels(vector, key):
    return np.frombuffer(bytes.fromhex(vector[key]), np.uint8).reshape(vector["shape"])


def make():
    assert version("pysodmetrics") == "1.6.2"
    first, others = {}, []
    for pred, mask in draw_pairs(400, seed=7):
        if not 1 < pred.size < 300:
            continue
        scores = told(by_pysodmetrics(normalised(pred), mask > 128))
        facts = {"shape": pred.shape, "pred": pred.tobytes().hex(), "mask": mask.tobytes().hex()}
        kind = (mask.max() > 128, mask.min() > 128, scores["s_measure"] == [None])
        if first.setdefault(kind, facts) is not facts:
            others.append(facts)
        facts["scores"] = scores
    vectors = [*first.values(), *others][:24]
    lines = ",\n".join(json.dumps(vector) for vector in vectors)
    FILE.write_text(f"[\n{lines}\n]\n")


VECTORS = json.loads(FILE.read_text()) if FILE.exists() else []


def test_the_vectors_cover_what_is_hard():
    assert len(VECTORS) == 24
    masks = [pixels(vector, "mask") > 128 for vector in VECTORS]
    assert any(mask.all() for mask in masks)
    assert any(not mask.any() for mask in masks)
    assert any(None in vector["scores"]["s_measure"] for vector in VECTORS)


@pytest.mark.parametrize("vector", VECTORS, ids=[str(i) for i in range(len(VECTORS))])
def test_scores_equal_the_golden_ones(vector):
    mask = PreparedMask(pixels(vector, "mask"))
    ours = told(by_engine(Measured(pixels(vector, "pred"), mask, mode=REFERENCE)))
    assert ours.keys() == vector["scores"].keys()
    for key, expected in vector["scores"].items():
        assert [v is None for v in ours[key]] == [v is None for v in expected], key
        close = [v for v in expected if v is not None]
        assert [v for v in ours[key] if v is not None] == pytest.approx(close, abs=TOLERANCE), key


if __name__ == "__main__":
    make()
