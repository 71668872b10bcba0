"""The template of `new method`: a package with one method, its entry point and its test.

It works as it is, so that whoever fills it in changes one thing at a time.
"""

from __future__ import annotations

import keyword
from pathlib import Path
from string import Template

from lpmoe_bench.errors import UsageError
from lpmoe_bench.files import write_atomically
from method_zoo.options import list_methods, taken_names
from method_zoo.plugins import NAME, RESERVED

METHOD = '''\
"""$cls: a scale for each channel in front of every block. Authors, venue, arXiv number.

x <- g_i * x, then block i. g starts at one: training starts at the frozen model.
"""

import torch
from torch import nn

from method_zoo import Backbone, Method, Tokens


class $cls(Method):
    """share: one scale for all blocks, in place of one for each."""

    title = "$cls"
    fidelity = "say what it is faithful to, and where not"
    unmergeable = "the stream that it scales has no weight of its own"
    preset = {"lr": 1e-3}

    def __init__(self, backbone: Backbone, share: bool = False):
        super().__init__(backbone)
        # What is registered here trains, and is saved; the backbone stays frozen.
        self.scale = nn.Parameter(torch.ones(1 if share else backbone.depth, backbone.dim))

    def block(self, i: int, t: Tokens) -> Tokens:
        scale = self.scale[min(i, len(self.scale) - 1)]
        return self.backbone.block(i, t._replace(x=t.x * scale))
'''

TEST = '''\
"""$cls keeps the contract of all methods, and does what its equation says."""

import pytest
import torch
from $package.$name import $cls

from method_zoo.contract.checks import CHECKS
from method_zoo.contract.families import BROKEN, check_method, tiny_backbone, tiny_image


def count(backbone):
    """Trainable parameters, from the equation: one a channel and block."""
    return backbone.depth * backbone.dim


@pytest.mark.parametrize("check", CHECKS)
def test_contract(check):
    for row in check_method($cls, checks=[check], count=count):
        assert row.outcome != BROKEN, row.words


def test_a_scale_changes_the_features():
    method = $cls(tiny_backbone()).eval()
    image = tiny_image(method.backbone)
    before = method(image).final
    with torch.no_grad():
        method.scale.mul_(1.5)
    assert not torch.equal(method(image).final, before)
'''

PROJECT = """\
[build-system]
requires = ["setuptools>=64"]
build-backend = "setuptools.build_meta"

[project]
name = "$distribution"
version = "0.1.0"
description = "$cls, a fine-tuning method for lpmoe-bench"
readme = "README.md"
requires-python = ">=3.11"
dependencies = ["lpmoe-bench[train]"]

[project.entry-points."lpmoe_bench.methods"]
$name = "$package.$name:$cls"

[tool.setuptools]
packages = ["$package"]

[tool.pytest.ini_options]
testpaths = ["tests"]
"""

README = """\
# $cls

A method for [lpmoe-bench](https://pypi.org/project/lpmoe-bench/).

```console
pip install -e .
lpmoe-bench describe $name
lpmoe-bench contract $name
lpmoe-bench run --method $name --task cod --embedded --set train.limit_train=32 --set train.epochs=1
pytest
```

Without installing it: `lpmoe-bench contract $name --plugin $package/$name.py`.
"""


def write_method(name: str, folder: Path) -> list[Path]:
    """Write the template of a method as a package.

    Args:
        name: of the method.
        folder: of the package; it must not be there yet.

    Returns:
        The files, the method's own last.

    Raises:
        UsageError: The name is none, or exists; or the folder does.
        ResourceError: The folder cannot be written.
    """
    if not NAME.fullmatch(name) or keyword.iskeyword(name):
        raise UsageError(
            f"'{name[:80]}' is no name for a method; use small letters, digits and _, with a "
            f"letter first, such as my_method"
        )
    if name in (*taken_names(), *list_methods(), *RESERVED):
        raise UsageError(f"the name '{name}' exists; give your method another one")
    if folder.exists() or folder.is_symlink():
        raise UsageError(f"{folder} exists, and nothing is overwritten; name another --output")
    if not folder.absolute().parent.is_dir():
        raise UsageError(f"there is no folder {folder.absolute().parent}; make it first")
    cls = "".join(part.capitalize() for part in name.split("_"))
    if cls in ("Backbone", "Method", "Tokens") or keyword.iskeyword(cls):  # the template has those
        cls = f"My{cls}"
    package = f"lpmoe_bench_{name}"
    words = {
        "name": name,
        "cls": cls,
        "package": package,
        "distribution": package.replace("_", "-").strip("-"),
    }
    texts = {
        "pyproject.toml": PROJECT,
        "README.md": README,
        f"tests/test_{name}.py": TEST,
        f"{package}/__init__.py": '"""$cls, a method for lpmoe-bench."""\n',
        f"{package}/{name}.py": METHOD,
    }
    for place, text in texts.items():
        write_atomically(folder / place, Template(text).substitute(words))
    return [folder / place for place in texts]
