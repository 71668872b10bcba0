"""Groups in an audit: frames and lesions are reported apart, by table, by number or by likeness."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from audit_sets import lists, look, place, scene

from lpmoe_bench.data.audit.report import as_text
from lpmoe_bench.data.registry import Dataset
from lpmoe_bench.errors import DataError


def grouped(dataset: Dataset, **rule) -> Dataset:
    return Dataset.model_validate(dataset.model_dump() | {"groups": {"what": "sequence"} | rule})


def frames(root: Path) -> Dataset:
    """Frames 1 and 2 are alike, so are 3 and 4; a list divides the first two."""
    for name, seed, noise in (("1", 0, 0), ("2", 0, 1), ("3", 1, 0), ("4", 1, 2), ("5", 2, 0)):
        grain = np.random.default_rng(noise).normal(0, 3 * bool(noise), (150, 200, 3))
        place(root, "film", name, (scene(seed) + grain).clip(0, 255).astype(np.uint8))
    return lists(root, "film", train="1 3 4", test="2 5")


@pytest.mark.parametrize("kind", ["starts", "table"])
def test_known_groups_are_reported_apart(tmp_path, kind):
    film = frames(tmp_path)
    if kind == "table":
        text = "stem,sequence\n1,x\n2,x\n3,y\n4,y\n5,z\n"
        (tmp_path / "film/sequences.csv").write_text(text)
        film = grouped(film, table=["sequences.csv", "stem", "sequence"], starts=[1], last=9)
    else:
        film = grouped(film, starts=[1, 3, 5], last=5)
    audit = look(tmp_path, film)
    assert (audit.leaks, audit.repeats, len(audit.grouped)) == ([], [], 2)
    (groups,) = audit.groups
    (shared,) = groups.shared.values()
    assert (groups.count, groups.images, shared) == (
        2,
        4,
        {"film/train": ["1"], "film/test": ["2"]},
    )
    assert "2 near duplicates within groups, by nature" in as_text(audit)
    assert "not confirmed" in groups.source


def test_near_duplicates_of_no_known_group_are_one_where_the_registry_says_so(tmp_path):
    film = grouped(frames(tmp_path), table=["none.csv", "a", "b"], alike=True)
    audit = look(tmp_path, film)
    assert (audit.leaks, len(audit.grouped)) == ([], 2)
    assert "none.csv is not there" in audit.groups[0].source
    assert list(audit.groups[0].shared) == ["film: like 1"]


def test_a_table_that_is_broken(tmp_path):
    (tmp_path / "film").mkdir()
    (tmp_path / "film/sequences.csv").write_text("a,b\n1,2\n")
    film = grouped(frames(tmp_path), table=["sequences.csv", "stem", "sequence"])
    with pytest.raises(DataError, match="must have rows with the columns stem and sequence"):
        look(tmp_path, film)
