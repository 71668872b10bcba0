"""The loop over PySODMetrics that people write, which `score` is measured against.

    python benchmarks/pysod_loop.py MASKS MAPS

It imports nothing of this repository, so that a process of it costs what a user's own would.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import cv2
import py_sod_metrics as sod


def by_pysodmetrics(masks: Path, folder: Path) -> dict[str, float]:
    """The loop that people write."""
    mae, s, e, w = sod.MAE(), sod.Smeasure(), sod.Emeasure(), sod.WeightedFmeasure()
    binary = {"with_dynamic": False, "with_adaptive": False, "with_binary": True}
    overlap = sod.FmeasureV2(
        {
            "f": sod.FmeasureHandler(with_dynamic=True, with_adaptive=True, beta=0.3),
            "ber": sod.BERHandler(**binary),
            "dice": sod.DICEHandler(**binary),
            "iou": sod.IOUHandler(**binary),
        }
    )
    for path in sorted(masks.iterdir()):
        mask = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        pred = cv2.imread(str(folder / path.name), cv2.IMREAD_GRAYSCALE)
        for recorder in (mae, s, e, w, overlap):
            recorder.step(pred, mask)
    em, found = e.get_results()["em"], overlap.get_results()
    return {
        **{"s_measure": s.get_results()["sm"], "mae": mae.get_results()["mae"]},
        **{"weighted_f": w.get_results()["wfm"], "e_mean": em["curve"].mean()},
        **{"e_max": em["curve"].max(), "e_adaptive": em["adp"]},
        **{"f_mean": found["f"]["dynamic"].mean(), "f_max": found["f"]["dynamic"].max()},
        "f_adaptive": found["f"]["adaptive"],
        **{key: found[key]["binary"] for key in ("ber", "dice", "iou")},
    }


if __name__ == "__main__":
    found = by_pysodmetrics(Path(sys.argv[1]), Path(sys.argv[2]))
    print(json.dumps({name: float(value) for name, value in found.items()}))
