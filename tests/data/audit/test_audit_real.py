"""The audit of the real sets: what is known to be in two places is found, and nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lpmoe_bench.console import Terminal
from lpmoe_bench.data.audit.audit import audit_sets
from lpmoe_bench.data.audit.groups import Audit
from lpmoe_bench.data.registry import load_registry


@pytest.fixture(scope="module")
def look(tmp_path_factory):
    root = os.environ.get("LPMOE_BENCH_DATA")
    if not root or not (Path(root) / "kvasir_seg").is_dir():
        pytest.skip("LPMOE_BENCH_DATA names no folder with kvasir_seg")

    cache = tmp_path_factory.mktemp("cache")  # of its own: a report that is kept proves nothing

    def audit(*names: str) -> Audit:
        sets = [load_registry().dataset(name) for name in names]
        return audit_sets(sets, Path(root), cache, Terminal(quiet=True), None, "a test")

    return audit


def places(audit: Audit) -> list[tuple[str, str]]:
    return [(twins.one, twins.other) for twins in audit.leaks]


@pytest.mark.data
def test_the_known_pair_of_kvasir_and_no_other(look):
    assert places(look("kvasir_seg")) == [("kvasir_seg/test_0016", "kvasir_seg/train_0222")]


@pytest.mark.data
@pytest.mark.parametrize("name", ["camo", "ecssd"])
def test_sets_without_duplicates(look, name):
    assert places(look(name)) == []


@pytest.mark.data
@pytest.mark.slow
def test_leaves_of_one_shape_are_no_duplicates(look):
    assert look("coffee_leaf").twins == []


@pytest.mark.data
def test_one_photograph_of_camo_is_in_train_and_test_in_two_framings(look):
    (twins,) = look("camo").reframed
    assert (twins.one, twins.other) == ("camo/camourflage_00120", "camo/camourflage_00419")
    assert twins.between == [("camo/train", "camo/test")]


@pytest.mark.data
def test_sets_share_photographs(look):
    audit = look("camo", "cod10k_mini62", "ecssd")
    sets = [{one.partition("/")[0], other.partition("/")[0]} for one, other in places(audit)]
    assert sets.count({"camo", "ecssd"}) == 74
    assert sets.count({"camo", "cod10k_mini62"}) == 1


@pytest.mark.data
@pytest.mark.slow
def test_frames_and_lesions_are_groups(look):
    film = look("cvc_clinicdb")
    assert film.leaks == []
    assert (len(film.grouped) > 90, film.groups[0].count, film.groups[0].shared) == (True, 29, {})
    skin = look("ham10000_small")
    assert (skin.leaks, skin.reframed, skin.repeats) == ([], [], [])
    assert len(skin.grouped) > 2
