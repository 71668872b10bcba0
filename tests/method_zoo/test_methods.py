"""Every method keeps every promise of the contract on every family of backbones."""

from __future__ import annotations

import pytest
from conftest import FAMILIES, tiny_backbone, tiny_image
from contract import CHECKS
from counts import COUNTS, VARIANTS
from observe import Build

from method_zoo.options import get_method, list_methods

FIRST, *OTHERS = FAMILIES
CROSS = {name: check for name, check in CHECKS.items() if name != "compile"}


def check_method(method: str, family: str, check: str) -> None:
    backbone = tiny_backbone(family)
    build = Build(get_method(method), backbone, COUNTS.get(method))
    CHECKS[check](build, tiny_image(backbone))


@pytest.mark.parametrize("check", CROSS)
@pytest.mark.parametrize("method", list_methods())
def test_contract(method, check):
    check_method(method, FIRST, check)


# Compiling takes longer than all other checks of a method together: one here, the others slow.
@pytest.mark.parametrize(
    "method",
    [pytest.param(m, marks=[pytest.mark.slow] if n else []) for n, m in enumerate(list_methods())],
)
def test_contract_compile(method):
    check_method(method, FIRST, "compile")


@pytest.mark.slow
@pytest.mark.parametrize("check", CROSS)
@pytest.mark.parametrize("family", OTHERS)
@pytest.mark.parametrize("method", list_methods())
def test_contract_on_every_family(method, family, check):
    check_method(method, family, check)


@pytest.mark.parametrize(
    ("method", "options", "count"),
    VARIANTS,
    ids=["-".join([v[0], *map(str, v[1].values())]) for v in VARIANTS],
)
def test_contract_with_other_options(method, options, count):
    backbone = tiny_backbone(FIRST)
    for check in CROSS.values():
        check(Build(get_method(method), backbone, count, options), tiny_image(backbone))


def test_no_formula_without_a_method():
    assert set(COUNTS) <= set(list_methods())
