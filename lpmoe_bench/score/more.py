"""What can be made of maps besides scores: worst images, curves, a second opinion."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lpmoe_bench.console import Terminal
from lpmoe_bench.records.store import ROWS, read_rows
from lpmoe_bench.score.curves import write_curves
from lpmoe_bench.score.folders import MapFolder
from lpmoe_bench.score.plan import ScorePlan
from lpmoe_bench.score.scoring import ScoreOutcome
from lpmoe_bench.score.sheet import Views
from lpmoe_bench.score.verify import Verification, verify
from lpmoe_bench.score.worst import Worst, worst_images, write_worst


def rows_of(place: Path, test: str) -> list[dict[str, Any]]:
    """Return the rows that a record has of one test set."""
    return [row for row in read_rows(place / ROWS) if row["dataset"] == test]


def make_worst(
    plan: ScorePlan, place: Path, folder: MapFolder, test: str, count: int
) -> tuple[list[Worst], Path]:
    """Return the worst images of a method, and the sheet of pictures written beside its record."""
    worst = worst_images(rows_of(place, test), plan.protocol, count)
    load = plan.load(folder, test)

    def views(name: str) -> Views:
        pred, mask = load(name)
        image = plan.load_image(test, name)
        same = image is not None and image.shape[:2] == mask.shape
        return Views(pred, mask, image if same else None)

    sheet = place / f"worst-{test.replace('/', '-')}.png"
    return worst, write_worst(worst, views, sheet, f"{folder.title}, {test}")


def make_verification(
    plan: ScorePlan, place: Path, folder: MapFolder, test: str, count: int, terminal: Terminal
) -> Verification:
    """Score some images of a method again by PySODMetrics."""
    rows = rows_of(place, test)
    with terminal.bar(f"verifying {folder.title}", count) as bar:
        return verify(rows, plan.load(folder, test), plan.protocol, count, report=bar.update)


def make_curves(plan: ScorePlan, outcome: ScoreOutcome, folder: Path) -> list[Path]:
    """Write the curves of all methods, for several test sets in a folder for each."""
    files: list[Path] = []
    for test, methods in outcome.results.items():
        place = folder / test.replace("/", "-") if len(outcome.results) > 1 else folder
        firsts = {title: results[0] for title, results in methods.items()}
        curves = {title: r.curves for title, r in firsts.items() if r is not None and r.curves}
        files += write_curves(curves, plan.protocol, place, test)
    return files


def verification_words(title: str, test: str, found: Verification) -> Sequence[str]:
    """Say what a verification found."""
    metric = max(found.differences, key=lambda key: found.differences[key], default="nothing")
    words = [
        f"{title}, {test}: {len(found.images)} images scored again by PySODMetrics; largest "
        f"difference {found.largest:.1e} ({metric})"
    ]
    if found.skipped:
        reasons = (f"{key}: {why}" for key, why in found.skipped.items())
        words.append(f"not compared: {'; '.join(reasons)}")
    return words
