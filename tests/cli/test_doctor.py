"""What doctor finds of the data: sets in every layout, parts of sets, broken ones."""

from drawn_files import noise_image, square_mask, write

from lpmoe_bench.cli.doctor import Finding, examine
from lpmoe_bench.console import Terminal
from lpmoe_bench.data.library.add import add_set
from lpmoe_bench.data.registry import load_registry


def data(root) -> Finding:
    (found,) = [finding for finding in examine(root) if finding.name == "data"]
    return found


def test_sets_that_data_add_took_in_are_found(tmp_path):
    for kind, pixels in (("image", noise_image()), ("mask", square_mask())):
        write(tmp_path / "down" / "train" / kind / "a.png", pixels)
    root = tmp_path / "root"
    add_set(load_registry().dataset("gdd"), tmp_path / "down", root, Terminal(quiet=True))
    write(root / "mine" / "images" / "a.png", noise_image())
    assert data(root) == Finding("data", f"{root}: gdd (partly), mine")
    (root / "gdd/train/masks/a.png").unlink()
    broken = data(root)
    assert broken.value == f"{root}: gdd (broken), mine"
    assert broken.advice == "lpmoe-bench data verify gdd"


def test_a_folder_without_sets(tmp_path):
    assert data(tmp_path).value == f"{tmp_path}: no sets"
    assert "does not exist" in data(tmp_path / "none").value
