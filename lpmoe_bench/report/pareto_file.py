"""One plot of score against cost as a file, for a paper or a README."""

from __future__ import annotations

from pathlib import Path

from lpmoe_bench.errors import DataError, UsageError
from lpmoe_bench.files import write_atomically
from lpmoe_bench.report.material import Material
from lpmoe_bench.report.pareto import COSTS, plane
from lpmoe_bench.report.pareto_plot import draw_pareto
from lpmoe_bench.report.png import to_png
from lpmoe_bench.report.svg import to_svg_file
from method_zoo.errors import unknown

FORMATS = (".svg", ".png")


def write_pareto(material: Material, cost: str, path: Path) -> list[str]:
    """Write the plot of the one table that was chosen, and return what its reader should know.

    Raises UsageError for an unknown cost or ending and for several tables, DataError where no row
    has the cost.
    """
    if cost not in COSTS:
        raise UsageError(unknown("cost for --x", cost, COSTS))
    if path.suffix.lower() not in FORMATS:
        raise UsageError(f"--pareto {path} is no .svg and no .png; end its name with one of them")
    if len(material.chapters) > 1:
        tests = list(dict.fromkeys(chapter.test for chapter in material.chapters))
        how = "--only, such as --only train.limit_train=150" if len(tests) == 1 else "--test-set"
        raise UsageError(
            f"these records make {len(material.chapters)} tables ({', '.join(tests)}), one plot "
            f"shows one: choose it with {how}"
        )
    made = plane(next(iter(material.chapters)), COSTS[cost])
    if not made.dots:
        raise DataError(f"no record of {made.chapter.test} has both a score and {cost}")
    drawing, unnamed = draw_pareto(made)
    drawn = to_png(drawing) if path.suffix.lower() == ".png" else to_svg_file(drawing)
    write_atomically(path, drawn)
    notes = [f"no room for the names of {', '.join(unnamed)}"] if unnamed else []
    return notes + ([f"no {cost} for {', '.join(made.absent)}"] if made.absent else [])
