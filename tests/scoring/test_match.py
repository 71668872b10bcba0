"""Names of maps and masks: equal or alike, said aloud, never guessed where two would fit."""

from pathlib import Path

import pytest
from drawn_maps import draw_map, draw_mask, save

from lpmoe_bench.data.test_sets import files_digest, find_files, folder_set
from lpmoe_bench.errors import DataError, UsageError
from lpmoe_bench.scoring.matching import choose_files, match_maps, pattern_of
from lpmoe_bench.scoring.plan import open_folder, titles_of


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
        # Folders that all have tell nothing; those that differ must agree.
        (["u/GT/0", "v/GT/0"], ["u/0", "v/0"], {"u/GT/0": "u/0", "v/GT/0": "v/0"}, "tell them"),
        (
            ["u/GT/0", "v/GT/0"],
            ["U/out/0", "V/out/0"],
            {"u/GT/0": "U/out/0", "v/GT/0": "V/out/0"},
            "tell them",
        ),
        (["u/0_gt", "v/0_gt"], ["u/0", "v/0"], {"u/0_gt": "u/0", "v/0_gt": "v/0"}, "less an"),
        (["u/0", "v/0", "v/1"], ["u/0", "u/1", "v/0"], {"u/0": "u/0", "v/0": "v/0"}, ""),
        # What a program added to a whole file name, or to all names.
        (["a", "b"], ["a.jpg", "b.png"], {"a": "a.jpg", "b": "b.png"}, "less a second file ending"),
        (["a", "b"], ["a_x_y", "b_x_y"], {"a": "a_x_y", "b": "b_x_y"}, "_x_y behind the mask's"),
        (["a", "b"], ["Net-a", "Net-b"], {"a": "Net-a", "b": "Net-b"}, "Net- before the mask's"),
        (["a-x", "b-x"], ["a", "b"], {"a-x": "a", "b-x": "b"}, "-x behind the map's name"),
        (["1", "10"], ["1_x", "10_x"], {"1": "1_x", "10": "10_x"}, "_x behind"),
        (["g_1", "g_2"], ["p_1", "p_2"], {"g_1": "p_1", "g_2": "p_2"}, "maps are p_* where masks"),
        (["u/0", "v/0"], ["u/0_x_y", "v/0_x_y"], {"u/0": "u/0_x_y", "v/0": "v/0_x_y"}, "_x_y"),
        (["a", "b", "c"], ["a_x_y", "b_x_y"], {"a": "a_x_y", "b": "b_x_y"}, "_x_y"),
        # No rule, or two of them: a digit more is another number.
        (["1", "2"], ["10", "20"], {}, ""),
        (["10", "11"], ["20", "21"], {}, ""),
        (["a", "b"], ["a_x", "b_x", "a_y", "b_y"], {}, ""),
        (["a", "b"], ["a_x", "b_y"], {}, ""),
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


def test_linked_folders_are_followed_but_not_in_circles(tmp_path):
    save(tmp_path / "real" / "a.png", draw_map(0))
    (tmp_path / "maps" / "deep").mkdir(parents=True)
    (tmp_path / "maps" / "link").symlink_to(tmp_path / "real")
    (tmp_path / "maps" / "deep" / "up").symlink_to(tmp_path / "maps")
    (tmp_path / "real" / "here").symlink_to(tmp_path / "real")
    assert list(find_files(tmp_path / "maps")) == ["link/a"]


@pytest.mark.parametrize(
    ("pattern", "found", "left"),
    [
        ("*_sal", {"a": "a_sal", "v/b": "v/b_sal"}, ["a_depth", "x/a/sal"]),
        ("*_sal.png", {"a": "a_sal", "v/b": "v/b_sal"}, ["a_depth", "x/a/sal"]),
        ("x/*/sal", {"a": "x/a/sal"}, ["a_depth", "a_sal", "v/b_sal"]),
        ("*/*_sal", {"v/b": "v/b_sal"}, ["a_depth", "a_sal", "x/a/sal"]),
    ],
)
def test_a_pattern_says_which_files_are_maps(pattern, found, left):
    there = files("a_sal", "a_depth", "v/b_sal", "x/a/sal")
    chosen, others = choose_files(there, pattern, Path("maps"))
    assert {name: path.with_suffix("").as_posix() for name, path in chosen.items()} == found
    assert sorted(others) == left


def test_prefix_and_suffix_are_a_pattern():
    assert pattern_of(None, "", "") is None
    assert pattern_of(None, "x_", "_y") == "x_*_y"
    assert pattern_of("*.jpg", "", "") == "*.jpg"
    with pytest.raises(UsageError, match="drop --prefix and --suffix"):
        pattern_of("*", "x", "")
    with pytest.raises(UsageError, match=r"let \* stand for the mask's name"):
        pattern_of("a_sal", "", "")
    with pytest.raises(DataError, match="no file in maps fits the pattern 'x\\*': files such as a"):
        choose_files(files("a"), "x*", Path("maps"))
    with pytest.raises(DataError, match="several files fit"):
        choose_files(files("a_sal", "a_sal.png"), "*_sal.png", Path("maps"))


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
