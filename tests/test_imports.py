"""What reads records starts without torch, and the numbers of tests/house.py are kept."""

import subprocess
import sys

import house
import pytest

HEAVY = ("lpmoe_bench.model", "lpmoe_bench.training", "lpmoe_bench.inference")
HEAVY += ("lpmoe_bench.data.loader", "lpmoe_bench.data.readers", "lpmoe_bench.data.targets")
HEAVY += ("lpmoe_bench.data.object_readers",)
EXTRA = """
torch torchvision timm lightning_fabric safetensors onnx huggingface_hub segment_anything ray
"""
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


def test_all_but_what_trains_imports_without_torch():
    paths = [path.relative_to(house.ROOT).with_suffix("") for path in house.files("lpmoe_bench")]
    names = [".".join(path.parts).removesuffix(".__init__") for path in paths]
    light = [name for name in names if not name.startswith(HEAVY) and "__main__" not in name]
    done = without_extra(["method_zoo", "lpmoe_bench.model.decoders.names", *light])
    assert done.returncode == 0, done.stderr
    assert "lora" in done.stdout.split()


LIGHT = [
    ("from lpmoe_bench.cli import app", "torch numpy pandas scipy cv2 pydantic"),
    ("import lpmoe_bench", "torch numpy pandas rich"),
    ("from lpmoe_bench.data.registry import load_registry as load; load().task('cod')", "torch"),
    ("from lpmoe_bench.metrics.protocols import get_protocol as get; get('cod').hash", "numpy"),
    ("from lpmoe_bench.metrics import protocols, scorer;"
     "scorer.Scorer(protocols.get_protocol('cod'))", "numba py_sod_metrics"),
    *((f"import lpmoe_bench.{name}", "torch pandas numpy scipy cv2")
      for name in ("records.store", "environment", "records.context", "tables.formats")),
]  # fmt: skip


@pytest.mark.parametrize(("code", "heavy"), LIGHT)
def test_what_starts_without_heavy_packages(code, heavy):
    code = f"import sys; {code}; print(*{set(heavy.split())} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_the_blocker_blocks():
    done = without_extra(["method_zoo.backbones.backbone"])
    assert done.returncode == 1
    assert "method_zoo.backbones.backbone does not import without" in done.stderr


def test_numbers_of_the_house_are_kept():
    assert not [str(fact) for fact in house.facts() if fact.value > fact.bound]


def test_the_count_of_imports_and_chains():
    code = "import os\ndef f():\n    from a import (\n        b,\n    )\nx = 1\n"
    assert house.import_lines(house.ast.parse(code)) == 4
    used = {"lpmoe_bench.a.x": {"lpmoe_bench.b"}, "lpmoe_bench.b": {"lpmoe_bench.c"}}
    used |= {"lpmoe_bench.c": set(), "method_zoo.x": {"method_zoo.y", "lpmoe_bench.a.x"}}
    used |= {"method_zoo.y": {"lpmoe_bench.b"}}
    units = ["lpmoe_bench.c", "lpmoe_bench.b", "lpmoe_bench.a", "method_zoo"]
    assert house.longest_chain(used) == units
