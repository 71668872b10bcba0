"""The contract notices every broken promise, and nothing but the broken one."""

from __future__ import annotations

import broken_forward
import broken_training
import pytest
from conftest import tiny_backbone, tiny_image
from contract import CHECKS
from observe import Build
from sound_methods import Adapter, Scaled, adapter_count, scaled_count

from method_zoo.method import Method

BROKEN: dict[type[Method], str] = {
    item: item.breaks
    for module in (broken_forward, broken_training)
    for item in vars(module).values()
    if hasattr(item, "breaks")
}
COMPILE = "compile"  # seconds rather than milliseconds


def failing(method: type[Method], checks: list[str], formula: bool = True) -> set[str]:
    """Return the checks that the method does not pass."""
    backbone = tiny_backbone()
    count = scaled_count if issubclass(method, Scaled) else adapter_count
    build = Build(method, backbone, count if formula else None)
    found = set()
    for name in checks:
        try:
            CHECKS[name](build, tiny_image(backbone))
        except (Exception, pytest.fail.Exception):
            found.add(name)
    return found


def test_sound_methods_pass():
    assert failing(Adapter, list(CHECKS)) == set()
    assert failing(Scaled, [name for name in CHECKS if name != COMPILE]) == set()


@pytest.mark.parametrize("method", BROKEN, ids=lambda method: method.__name__)
def test_exactly_the_broken_promise_is_noticed(method):
    checks = [name for name in CHECKS if name != COMPILE or name == BROKEN[method]]
    assert failing(method, checks) == {BROKEN[method]}


def test_a_missing_formula_is_noticed():
    checks = [name for name in CHECKS if name != COMPILE]
    assert failing(Adapter, checks, formula=False) == {"count"}


def test_every_check_has_a_method_that_breaks_it():
    assert set(BROKEN.values()) == CHECKS.keys()
