"""How the code is laid out, in numbers with bounds: prints them, exit code 1 where one is broken.

The directions of imports are contracts in pyproject.toml, for `lint-imports`.
"""

import ast
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from graphlib import TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import grimp

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("lpmoe_bench", "method_zoo")
HIDDEN = re.compile(r"method_zoo\._|from method_zoo import _")
PLUG_IN_NAMES = {"draw_scene"}  # each scene of data/scenes is a plug-in that defines it


class Fact(NamedTuple):
    """A number of the code, the most that it may be, and what it was counted from."""

    name: str
    value: float
    bound: float
    seen: str = ""

    def __str__(self) -> str:
        mark = "TOO MUCH: " if self.value > self.bound else ""
        return f"{mark}{self.name} {self.value:g}, at most {self.bound:g} {self.seen}".rstrip()


def files(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def names(paths: Iterable[Path]) -> str:
    return ", ".join(str(path.relative_to(ROOT)) for path in paths)


def import_lines(tree: ast.Module) -> int:
    """Lines that imports take, those inside functions too."""
    nodes = (node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom))
    return sum((node.end_lineno or node.lineno) - node.lineno + 1 for node in nodes)


def names_twice(trees: dict[Path, ast.Module]) -> list[str]:
    """Public classes and functions at the top of more than one module, with these modules."""
    found = defaultdict(list)
    for path, tree in trees.items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
                found[node.name].append(path)
    return [f"{k} ({names(v)})" for k, v in found.items() if v[1:] and k not in PLUG_IN_NAMES]


def users() -> dict[str, set[str]]:
    """For each module those that import it; an import for types alone does not count."""
    sys.path.insert(0, str(ROOT))  # where the packages are looked for
    graph = grimp.build_graph(*PACKAGES, exclude_type_checking_imports=True, cache_dir=None)
    return {m: graph.find_modules_that_directly_import(m) for m in sorted(graph.modules)}


def longest_chain(used: dict[str, set[str]]) -> list[str]:
    """The longest way of imports; a package of lpmoe_bench is one step, and so is method_zoo."""

    units = {m: ".".join(m.split(".")[: 1 if m.startswith(PACKAGES[1]) else 2]) for m in used}
    units["lpmoe_bench.__main__"] = "lpmoe_bench.cli"  # which it starts, and nothing else
    below = defaultdict(set)
    for module, importers in used.items():
        for name in {units[importer] for importer in importers} - {units[module]}:
            below[name].add(units[module])

    chains: dict[str, list[str]] = {}
    for name in TopologicalSorter(below).static_order():  # an error where there is a circle
        deeper = (chains[other] for other in sorted(below[name]))
        chains[name] = [name, *max(deeper, key=len, default=[])]
    return max(chains.values(), key=len)


def facts() -> Iterator[Fact]:
    product = {path: path.read_text(encoding="utf-8") for name in PACKAGES for path in files(name)}
    trees = {path: ast.parse(text) for path, text in product.items()}
    lines = sum(text.count("\n") for text in product.values())
    share = 100 * sum(map(import_lines, trees.values())) / lines
    yield Fact("lines of imports in a hundred", round(share, 2), 6.0)
    yield Fact("files", len(product), 292)
    yield Fact("lines", lines, 65_600)
    beside = [path for path in (ROOT / PACKAGES[0]).glob("*.py") if path.name[0] != "_"]
    yield Fact("modules beside the packages", len(beside), 6, names(beside))
    used = users()
    chain = longest_chain(used)
    yield Fact("steps of the longest chain of imports", len(chain), 9, " > ".join(chain))
    single = [module for module in used if len(used[module]) == 1]
    yield Fact("modules that one other imports", len(single), 72, ", ".join(single))
    twice = names_twice(trees)
    yield Fact("public names that stand twice", len(twice), 0, "; ".join(twice))
    outside = [p for p in files(PACKAGES[0]) + files("benchmarks") if HIDDEN.search(p.read_text())]
    yield Fact("files that import what method_zoo hides", len(outside), 0, names(outside))
    shadows = [path for path in product if path.stem in sys.stdlib_module_names]
    yield Fact("modules named as one of Python's own", len(shadows), 0, names(shadows))


if __name__ == "__main__":
    found = list(facts())
    print(*found, sep="\n")
    sys.exit(any(fact.value > fact.bound for fact in found))
