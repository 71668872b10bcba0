"""The folders of the README with the first line of each; run it to print them."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
WIDTH = 24


def first_line(path: Path) -> str:
    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").splitlines()[0]


def tree() -> str:
    """One line a package, and one a module that lies beside the packages of `lpmoe_bench`."""
    lines = []
    for name in ("method_zoo", "lpmoe_bench"):
        for folder in sorted(path.parent for path in (ROOT / name).rglob("__init__.py")):
            places = [(f"{folder.relative_to(ROOT)}/", folder / "__init__.py")]
            if folder == ROOT / "lpmoe_bench":
                beside = [path for path in sorted(folder.glob("*.py")) if path.name[0] != "_"]
                places += [(f"  {path.name}", path) for path in beside]
            lines += [f"{label:<{WIDTH}} {first_line(path)}" for label, path in places]
    return "\n".join(lines)


if __name__ == "__main__":
    print(tree())
