"""A folder of drawn scenes for people: its layout, its sizes, and what it refuses."""

import pytest

from lpmoe_bench.data.images import read_image, read_mask
from lpmoe_bench.data.pairs import find_pairs, read_stems
from lpmoe_bench.data.scenes.generate import SETS, generate
from lpmoe_bench.errors import UsageError


def test_a_folder_with_images_masks_and_lists(tmp_path):
    told = []
    folder = generate("road", tmp_path / "new" / "roads", 7, 64, 3,
                      report=lambda done, total: told.append((done, total)))  # fmt: skip
    assert told[-1] == (7, 7)
    lists = {split: read_stems(folder / f"{split}.txt") for split in ("train", "test")}
    assert {split: len(stems) for split, stems in lists.items()} == {"train": 5, "test": 2}
    (first, *_) = find_pairs(folder / "images", folder / "masks", lists["test"])
    image, mask = SETS["generated_road"].scene(0, "test", 3, size=64)
    assert (read_image(first.image) == image).all()
    assert (read_mask(first.mask) == mask).all()
    assert "seed 3" in (folder / "SOURCE.txt").read_text()


def test_more_scenes_are_the_same_scenes_and_more(tmp_path):
    few, many = (generate("leaf", tmp_path / str(n), n, 48, empty=0.5) for n in (4, 8))
    for path in sorted((few / "images").iterdir()):
        assert path.read_bytes() == (many / "images" / path.name).read_bytes()


def test_an_empty_folder_may_be_there(tmp_path):
    (tmp_path / "here").mkdir()
    assert len(list((generate("cod", tmp_path / "here", 2, 32) / "masks").iterdir())) == 2


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"task": "shadows"}, "did you mean 'shadow'"),
        ({"count": 1}, "--count is 1; it must be at least 2"),
        ({"size": 8}, "--size is 8; choose 32 to 4096 pixels"),
        ({"seed": -1}, "--seed is -1; it must be at least 0"),
        ({"empty": 1.5}, "--empty is 1.5; it is a part of all scenes"),
        ({"empty": 0.5}, "every image of sod has an object; drop it, or choose .*leaf"),
    ],
)
def test_refusals(tmp_path, wrong, sentence):
    with pytest.raises(UsageError, match=sentence):
        generate(**({"task": "sod", "output": tmp_path / "new"} | wrong))
    assert not list(tmp_path.iterdir())


def test_what_is_there_is_not_touched(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="exists already; choose a new folder"):
        generate("cod", tmp_path, 2, 32)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
