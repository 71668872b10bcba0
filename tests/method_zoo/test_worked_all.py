"""Every method has one numeric example worked by hand: a test named after it."""

import ast
from functools import cache
from pathlib import Path

import pytest
from test_worked_unfrozen import CASES

from method_zoo.options import list_methods


@cache
def worked_examples() -> set[str]:
    """The names of the tests that end in `_by_hand`, and the cases that one of them has."""
    found: set[str] = set()
    for path in Path(__file__).parent.glob("test_*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and node.name.endswith("_by_hand"):
                found.add(node.name.removeprefix("test_").removesuffix("_by_hand"))
    return found | set(CASES)


@pytest.mark.parametrize("method", list_methods())
def test_a_method_has_an_example_worked_by_hand(method):
    sentence = f"add test_{method}_by_hand: its equation on numbers worked on paper"
    assert method in worked_examples(), sentence
