"""Imports go down the levels, never in a circle, and bring no torch where none is promised."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import lpmoe_bench
import method_zoo

BENCH = Path(lpmoe_bench.__file__).parent
ZOO = Path(method_zoo.__file__).parent

# No import goes to a higher level. method_zoo lies below all of them.
LEVELS = {
    0: "__init__ errors",
    1: "config console environment files generated images map_files record record_model registry "
    "recipes weights",
    2: "augment data decoder_weights decoders flops losses merge_proof metrics model pictures "
    "samples statistics",
    3: "completed_config evaluate feature_cache plan profiling run run_record stopping train "
    "train_state trained blueprint profile_worker",
    4: "audit budget_page budgets catalogue check compare datasets doctor evaluation merge "
    "peft_format predict profile publish report run_command score sweep tables verdicts",
    5: "__main__ cli commands",
}
LEVEL = {name: level for level, names in LEVELS.items() for name in names.split()}
# These import, with all they import, where the extra `train` is not installed; so do levels 0, 1.
LIGHT = """
__main__ audit budget_page catalogue check cli commands compare datasets doctor metrics pictures
publish report samples score statistics sweep tables verdicts
"""
NO_TORCH = {name for name, level in LEVEL.items() if level <= 1} | set(LIGHT.split())
EXTRA = """
torch torchvision timm lightning safetensors onnx huggingface_hub segment_anything ray
"""


def modules(package: Path) -> dict[str, list[Path]]:
    """The modules of a package by name, a subpackage as one, with their files."""
    found: dict[str, list[Path]] = {}
    for path in sorted(package.rglob("*.py")):
        name = path.relative_to(package).parts[0].removesuffix(".py")
        found.setdefault(name, []).append(path)
    return found


def imports(path: Path, package: Path) -> set[str]:
    """Full names of what a file imports, inside functions too, but not for types alone."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node.body = []
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = (package.name, *path.relative_to(package).parts[:-1])
                above = ".".join(parts[: len(parts) - node.level + 1])
                base = f"{above}.{base}".removesuffix(".")
            found |= {base} | {f"{base}.{alias.name}" for alias in node.names}
    return found


def graph(package: Path) -> dict[str, set[str]]:
    """For each module of a package the other modules of it that it imports."""
    known = modules(package)
    edges: dict[str, set[str]] = {}
    for name, paths in known.items():
        inner = {i for path in paths for i in imports(path, package)}
        targets = {i.split(".")[1] for i in inner if i.startswith(f"{package.name}.")}
        edges[name] = (targets & known.keys()) - {name}
    return edges


def test_the_walk_sees_imports_of_every_kind(tmp_path):
    package = tmp_path / "lpmoe_bench"
    (package / "deep").mkdir(parents=True)
    file = package / "deep" / "a.py"
    file.write_text(
        "from __future__ import annotations\nimport numpy.linalg\nfrom . import b\n"
        "from ..c import d\nfrom lpmoe_bench import e\nif TYPE_CHECKING:\n    import types_only\n"
        "def f():\n    from lpmoe_bench.g import h\n"
    )
    found = imports(file, package)
    expected = [
        "numpy.linalg",
        "lpmoe_bench.deep.b",
        "lpmoe_bench.c",
        "lpmoe_bench.e",
        "lpmoe_bench.g",
    ]
    assert set(expected) <= found
    assert "types_only" not in found
    for name in "cge":
        (package / f"{name}.py").touch()
    assert graph(package)["deep"] == {"c", "e", "g"}


def test_every_module_has_a_level():
    unknown = sorted(modules(BENCH).keys() - LEVEL.keys())
    assert not unknown, f"add {unknown} to LEVELS in tests/test_imports.py"


def test_no_import_goes_to_a_higher_level():
    upward = [
        f"{name} (level {LEVEL[name]}) imports {target} (level {LEVEL[target]})"
        for name, targets in graph(BENCH).items()
        for target in sorted(targets)
        if LEVEL.get(target, 0) > LEVEL.get(name, 0)
    ]
    assert not upward, "; ".join(upward)


def test_no_circles():
    for package in (BENCH, ZOO):
        # Raises CycleError naming the circle; __init__ is imported by everything anyway.
        edges = {n: t - {"__init__"} for n, t in graph(package).items() if n != "__init__"}
        assert list(graphlib.TopologicalSorter(edges).static_order())


def test_the_zoo_does_not_know_the_benchmark():
    for paths in modules(ZOO).values():
        for path in paths:
            known = [i for i in imports(path, ZOO) if i.startswith("lpmoe_bench")]
            assert not known, f"{path.name} imports {known}"


BLOCKED = """
import importlib, sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {extra!r}.split():
            raise ImportError(f"{{name}} is blocked")

sys.meta_path.insert(0, Blocker())
for name in {names!r}:
    try:
        importlib.import_module(name)
    except ImportError as error:
        sys.exit(f"{{name}} does not import without the extra train: {{error}}")
import method_zoo
print(*method_zoo.list_methods())
"""


def without_extra(names: list[str]) -> subprocess.CompletedProcess:
    code = BLOCKED.format(extra=EXTRA, names=names)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_modules_that_promise_it_import_without_torch():
    paths = [path for name, inner in modules(BENCH).items() if name in NO_TORCH for path in inner]
    dotted = [".".join(path.relative_to(BENCH.parent).with_suffix("").parts) for path in paths]
    names = [name.removesuffix(".__init__") for name in dotted if not name.endswith("__main__")]
    done = without_extra(["method_zoo", "lpmoe_bench.model.decoders.names", *names])
    assert done.returncode == 0, done.stderr
    assert "lora" in done.stdout.split()


def test_the_blocker_blocks():
    done = without_extra(["method_zoo.backbones.backbone"])
    assert done.returncode == 1
    assert "method_zoo._backbone does not import without" in done.stderr


def test_timm_imports():
    # Some pairs of torch and torchvision install together and fail here.
    import timm

    assert timm.is_model("vit_small_patch14_dinov2")
