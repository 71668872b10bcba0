"""What reads records starts without torch, and the numbers of tests/house.py are kept."""

import subprocess
import sys

import house

HEAVY = ("lpmoe_bench.model", "lpmoe_bench.training", "lpmoe_bench.inference")
HEAVY += ("lpmoe_bench.data.loader",)
EXTRA = """
torch torchvision timm lightning safetensors onnx huggingface_hub segment_anything ray
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


def test_the_blocker_blocks():
    done = without_extra(["method_zoo.backbones.backbone"])
    assert done.returncode == 1
    assert "method_zoo.backbones.backbone does not import without" in done.stderr


def test_timm_imports():
    # Some pairs of torch and torchvision install together and fail here.
    import timm

    assert timm.is_model("vit_small_patch14_dinov2")


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
