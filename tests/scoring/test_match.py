"""Names of maps and masks: equal or alike, said aloud, never guessed where two would fit."""

from pathlib import Path

import pytest
from drawn_maps import draw_map, draw_mask, save

from lpmoe_bench.data.test_sets import files_digest, find_files, folder_set
from lpmoe_bench.errors import DataError, UsageError
from lpmoe_bench.scoring.plan import match_maps, open_folder, titles_of


def files(*names: str) -> dict[str, Path]:
    return {name: Path(f"{name}.png") for name in names}


@pytest.mark.parametrize(
    ("names", "found", "pairs", "note"),
    [
        (["a", "b"], ["a", "b"], {"a": "a", "b": "b"}, ""),
        (["a"], ["deep/er/a"], {"a": "deep/er/a"}, "in other sub-folders"),
        (["x/1", "y/1"], ["x/1", "y/1"], {"x/1": "x/1", "y/1": "y/1"}, ""),
        (["IMG_a"], ["img_A"], {"IMG_a": "img_A"}, "upper and lower case"),
        (["a_segmentation"], ["a"], {"a_segmentation": "a"}, "less an ending"),
        (["a"], ["a_Mask"], {"a": "a_Mask"}, "less an ending"),
        (["a_gt"], ["a_pred"], {"a_gt": "a_pred"}, "less an ending"),
        # Two would fit: neither is taken.
        (["a"], ["x/a", "y/a"], {}, ""),
        (["a"], ["a_mask", "a_pred"], {}, ""),
        (["a_mask", "a_gt"], ["a"], {}, ""),
        (["x/1", "y/1"], ["x/1", "z/1"], {"x/1": "x/1"}, ""),
        # An equal name wins, and what is left is not fitted by force.
        (["a", "b"], ["a", "a_mask"], {"a": "a"}, ""),
        (["_mask"], ["_gt"], {}, ""),
    ],
)
def test_rules_in_order(names, found, pairs, note):
    result = match_maps(names, files(*found))
    assert {name: path.with_suffix("").as_posix() for name, path in result.files.items()} == pairs
    assert sorted(result.missing) == sorted(set(names) - set(pairs))
    assert sorted(result.extra) == sorted(set(found) - set(pairs.values()))
    assert (note in " ".join(result.notes)) if note else not result.notes


def test_overlays_of_predict_are_no_maps():
    result = match_maps(["a"], files("a", "a_overlay", "b_overlay"))
    assert (list(result.files), result.extra) == (["a"], ("b_overlay",))
    assert "1 overlays beside a map" in result.notes[0]


def test_files_of_a_folder(tmp_path):
    for name in ("a.b.PNG", "deep/c.jpg", ".hidden/d.png", ".e.png", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert sorted(find_files(tmp_path)) == ["a.b", "deep/c"]
    (tmp_path / "a.b.jpg").touch()
    with pytest.raises(DataError, match=r"1 names in .* belong to two files: a.b.PNG and a.b.jpg"):
        find_files(tmp_path)
    with pytest.raises(DataError, match="is no folder"):
        find_files(tmp_path / "a.b.jpg")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no image files"):
        find_files(tmp_path / "empty")


def test_accents_in_two_spellings_are_one_name(tmp_path):
    save(tmp_path / "masks" / "e\u0301.png", draw_mask(0))
    save(tmp_path / "maps" / "\u00e9.png", draw_map(0))
    test = folder_set(tmp_path / "masks", None, tmp_path)
    assert list(match_maps(test.masks, find_files(tmp_path / "maps")).files) == ["\u00e9"]


def test_names_of_methods(tmp_path):
    one, two = tmp_path / "x" / "maps", tmp_path / "y" / "maps"
    assert titles_of([one], []) == ["maps"]
    assert titles_of([one, two], [" Net\nA ", "Net B"]) == ["Net A", "Net B"]
    for folders, names, words in (
        ([one, two], [], "two methods are called maps"),
        ([one, two], ["A"], "given 1 times for 2 folders"),
        ([one, one], ["A", "B"], "named twice"),
        ([one], ["  "], "cannot stand in a table"),
        ([one], ["a\x1b[31m"], "cannot stand in a table"),
        ([one], ["x" * 200], "at most 120 bytes"),
    ):
        with pytest.raises(UsageError, match=words):
            titles_of(folders, names)


@pytest.fixture
def masks(tmp_path):
    for seed in range(3):
        save(tmp_path / "masks" / f"p{seed}.png", draw_mask(seed))
    return folder_set(tmp_path / "masks", None, tmp_path)


def test_missing_and_extra_names_are_errors_unless_allowed(masks, tmp_path):
    for name in ("p0", "p1", "q"):
        save(tmp_path / "maps" / f"{name}.png", draw_map(0))
    words = r"1 of 3 masks of .* have no map \(p2\); 1 files belong to no mask \(q\); with --allow"
    with pytest.raises(DataError, match=words):
        open_folder("A", tmp_path / "maps", [masks], False)
    folder = open_folder("A", tmp_path / "maps", [masks], True)
    assert list(folder.matches[masks.label].files) == ["p0", "p1"]
    assert [note.startswith(f"A, {masks.label}: 1 ") for note in folder.notes] == [True, True]


def test_a_folder_without_any_name_is_refused_even_if_allowed(masks, tmp_path):
    save(tmp_path / "maps" / "q.png", draw_map(0))
    with pytest.raises(DataError, match="files such as q, masks such as p0, p1, p2"):
        open_folder("A", tmp_path / "maps", [masks], True)


@pytest.mark.parametrize("place", ["masks", "."])
def test_the_folder_of_masks_is_refused(masks, tmp_path, place):
    with pytest.raises(DataError, match=r"holds the masks of .* themselves"):
        open_folder("A", tmp_path / place, [masks], False)


def test_a_sub_folder_for_each_test_set(masks, tmp_path):
    for seed in range(2):
        save(tmp_path / "other" / "gt" / f"r{seed}.png", draw_mask(seed))
        save(tmp_path / "maps" / "other-gt" / f"r{seed}.png", draw_map(seed))
    sets = [masks, folder_set(tmp_path / "other" / "gt", None, tmp_path)]
    folder = open_folder("A", tmp_path / "maps", sets, False)
    assert list(folder.matches) == ["other/gt"]
    assert f"no sub-folder for {masks.label}" in folder.notes[0]
    # Without sub-folders the names tell which set it is; where they cannot, that is an error.
    flat = open_folder("A", tmp_path / "maps" / "other-gt", sets, False)
    assert list(flat.matches) == ["other/gt"]
    save(tmp_path / "both" / "r0.png", draw_map(0))
    save(tmp_path / "both" / "p0.png", draw_map(0))
    with pytest.raises(UsageError, match=r"match 2 test sets .* choose one with --set"):
        open_folder("A", tmp_path / "both", sets, True)


def test_the_digest_is_of_content_and_names(tmp_path):
    one = {"a": save(tmp_path / "1" / "a.png", draw_map(0))}
    same = {"a": save(tmp_path / "2" / "z.png", draw_map(0))}
    assert files_digest(one) == files_digest(same)
    assert files_digest(one) != files_digest({"b": one["a"]})
    assert files_digest(one) != files_digest({"a": save(tmp_path / "3.png", draw_map(1))})
