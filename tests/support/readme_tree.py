"""The file tree of the README, from the first line of each module; run it to print the tree."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
WIDTH = 24
PARTS = [path.parent.name for path in sorted((ROOT / "lpmoe_bench").glob("*/__init__.py"))]


def first_line(path: Path) -> str:
    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").splitlines()[0]


def tree() -> str:
    """One line a file: packages, then their modules with their idea."""
    lines = []
    for package in (
        "method_zoo",
        "lpmoe_bench",
        *(f"lpmoe_bench/{name}" for name in PARTS),
        "benchmarks",
    ):
        lines.append(f"{package}/")
        for path in sorted((ROOT / package).glob("*.py")):
            lines.append(f"  {path.name:<{WIDTH}} {first_line(path)}")
    return "\n".join(lines)


if __name__ == "__main__":
    print(tree())
