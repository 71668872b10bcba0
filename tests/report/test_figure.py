"""Figures of images x methods, and folders that records remember."""

from __future__ import annotations

import json
import shutil

import cv2
import numpy as np
import pytest
from report_records import draw_set, draw_two, report
from tiny_runs import arguments, call, draw_data, draw_pairs, only_run

from lpmoe_bench.errors import DataError, UsageError
from lpmoe_bench.records.store import Places, recall_places, remember_places
from lpmoe_bench.report.figure import FigureLook, _part, parse_crops
from lpmoe_bench.report.images import embedded_picture

SIZE = (60, 80)


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A user's folders: six images, their masks, and the maps of two programs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LPMOE_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("LPMOE_BENCH_DATA", raising=False)
    draw_data(tmp_path)
    for name, shift in (("Sharp", 1), ("Late", 9)):
        (tmp_path / "maps" / name).mkdir(parents=True)
        for k, path in enumerate(sorted((tmp_path / "test" / "masks").iterdir())):
            mask = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
            wrong = 40 if (name, k) == ("Late", 2) else 0  # by far the worst of them
            pred = np.roll(mask, shift + wrong, axis=1)
            cv2.imwrite(str(tmp_path / "maps" / name / path.name), pred)
    return tmp_path


FOLDERS = ["--images", "test/images", "--gt", "test/masks"]
NAMED = ["Sharp=maps/Sharp", "Late=maps/Late"]


def rows(*more: str) -> list[str]:
    done = call(["figure", *more, "--json", "-o", "f.png"])
    assert done.code == 0, done.stderr
    return json.loads(done.stdout)["images"]


def test_a_figure_of_a_users_own_folders(own):
    done = call(["figure", *NAMED, *FOLDERS, "--count", "2", "-o", "f.png", "-o", "f.pdf"])
    assert (done.code, done.stdout) == (0, "f.png\nf.pdf\n"), done.stderr
    assert (own / "f.pdf").read_bytes().startswith(b"%PDF")
    picture = cv2.imread(str(own / "f.png"))
    height, width = picture.shape[:2]
    assert width == pytest.approx(6.9 * 300, abs=1)
    # Image, mask and two maps side by side, each with the shape of the image.
    column = width / 4
    assert height == pytest.approx(2 * column * SIZE[0] / SIZE[1] + 0.28 * 300, rel=0.02)
    first = (own / "f.pdf").read_bytes()
    call(["figure", *NAMED, *FOLDERS, "--count", "2", "-o", "f.pdf"])
    assert (own / "f.pdf").read_bytes() == first


def test_rows_by_disagreement_by_worst_evenly_and_by_name(own):
    assert rows(*NAMED, *FOLDERS, "--count", "1")[0] == "002"
    assert rows(*NAMED, *FOLDERS, "--rows", "worst", "--count", "1") == ["002"]
    assert rows(*NAMED, *FOLDERS, "--rows", "even", "--count", "3") == ["000", "002", "004"]
    assert rows(*NAMED, *FOLDERS, "--rows", "004,001") == ["004", "001"]
    done = call(["figure", *NAMED, *FOLDERS, "--rows", "04", "-o", "f.png"])
    assert (
        done.code,
        "no image of own/test is called" in done.stderr or "'04'" in done.stderr,
    ) == (2, True)


def test_maps_of_another_test_set_are_not_in_the_title(own):
    shutil.copytree(own / "test" / "masks", own / "other")
    cv2.imwrite(str(own / "other" / "000.png"), np.eye(*SIZE, dtype=np.uint8) * 255)
    for masks in ("test/masks", "other"):
        done = call(["score", "maps/Sharp", *FOLDERS[:2], "--gt", masks, "-q"])
        assert done.code == 0, done.stderr
    done = call(["figure", "runs", *FOLDERS, "--json", "-o", "f.png"])
    assert json.loads(done.stdout)["methods"] == ["Sharp"]


def test_errors_have_two_colours_and_a_legend(own):
    call(["figure", "Late=maps/Late", *FOLDERS, "--rows", "000", "--show", "errors", "-o", "e.png"])
    pixels = cv2.imread(str(own / "e.png"))[..., ::-1].reshape(-1, 3).astype(int)
    for colour in ((0, 90, 181), (220, 100, 0)):  # missed, invented
        near = (np.abs(pixels - colour).max(axis=1) < 12).sum()
        assert near > 500


def test_crops(own):
    mask = np.zeros(SIZE, np.uint8)
    mask[20:30, 40:60] = 255
    crops, around = parse_crops(["10,5,30,20", "b=0,0,8,8", "object"])
    assert around
    look = FigureLook(crops=crops)
    assert _part("a", mask, SIZE, look) == (slice(5, 25), slice(10, 40))
    assert _part("b", mask, SIZE, look) == (slice(0, 8), slice(0, 8))
    ys, xs = _part("a", mask, SIZE, FigureLook(crop_object=True))
    assert (ys.start < 20 and ys.stop > 30, xs.start < 40 and xs.stop > 60) == (True, True)
    assert ys.stop - ys.start < SIZE[0]
    with pytest.raises(UsageError, match="lies outside of a, which is 80 x 60"):
        _part("a", mask, SIZE, FigureLook(crops={"": (90, 0, 5, 5)}))
    for wrong in ("1,2,3", "a,b,c,d", "1,2,0,4"):
        with pytest.raises(UsageError, match="--crop"):
            parse_crops([wrong])


def test_what_is_wrong_is_one_sentence(own):
    for more, code, words in (
        (["Sharp=maps/Nothing", *FOLDERS], 2, "is no folder"),
        (["Sharp=test/images", "--images", "test/images"], 2, "name that of their masks with --gt"),
        ([*NAMED, *FOLDERS, "--show", "mapps"], 2, "did you mean 'maps'"),
        ([*NAMED, *FOLDERS, "-o", "f.gif"], 2, "f.gif ends with none of .pdf, .png, .svg"),
        (NAMED, 2, "name the images with --images and --gt"),
        (["Sharp=maps/Sharp", "maps/Late", *FOLDERS], 2, "holds no record; name a folder of rec"),
        (["maps"], 2, "maps holds no record"),
        ([*NAMED, "Late=maps/Sharp", *FOLDERS], 2, "names Late twice"),
        ([*NAMED, *FOLDERS, "--crop", "nosuch=0,0,5,5"], 2, "'nosuch'"),
        ([*NAMED, *FOLDERS, "--crop", f"{'9' * 5000},0,5,5"], 2, "--crop got"),
        ([*NAMED, *FOLDERS, "--crop", "²,0,5,5"], 2, "--crop got"),
        ([*NAMED, *FOLDERS, "--show", ""], 2, "--show names nothing"),
        ([*NAMED, *FOLDERS, "--rows", ","], 2, "--rows names no image"),
        ([*NAMED, *FOLDERS, "--rows", ""], 2, "--rows names no image"),
        ([*NAMED, *FOLDERS, "--width", "inf"], 2, "it is 1 to 60 inches"),
        ([*NAMED, *FOLDERS, "--width", "100000"], 2, "it is 1 to 60 inches"),
        ([*NAMED, *FOLDERS, "--test-set", "nix"], 2, "--test-set is of records"),
        (["--task", "cod,sod"], 2, "--task names cod, sod"),
        (["--test-set", "a", "--test-set", "b"], 2, "--test-set names a, b"),
    ):
        done = call(["figure", *more])
        assert (done.code, words in done.stderr) == (code, True), done.stderr
        assert "Traceback" not in done.stderr
    crop = ["--crop", "001=0,0,5,5", "--rows", "000", "-o", "f.png"]
    assert "--crop of 001 is of no row" in call(["figure", *NAMED, *FOLDERS, *crop]).stderr
    (own / "other").mkdir()
    cv2.imwrite(str(own / "other" / "x.png"), np.zeros(SIZE, np.uint8))
    done = call(["figure", "Other=other", *FOLDERS])
    assert (done.code, "has the name of an image of own/test" in done.stderr) == (3, True)


def test_scored_folders_are_remembered_and_found(own):
    score = ["score", "maps/Sharp", "maps/Late", "--gt", "test/masks", "--images", "test/images"]
    assert call([*score, "-q"]).code == 0
    records = sorted((own / "runs").rglob("run.json"))
    before = [path.read_bytes() for path in records]
    assert rows("runs", "--count", "1") == ["002"]
    text = report(own / "runs", own / "page")
    assert 'alt="map of Sharp"' in text
    assert "This file holds images of data sets (own/test)" in text
    assert [path.read_bytes() for path in records] == before
    assert b"places" not in before[0]  # it is no part of the record
    assert str(own).encode() not in before[0]
    # Images that changed meanwhile are not those that were scored.
    cv2.imwrite(str(own / "test" / "images" / "000.png"), np.zeros((*SIZE, 3), np.uint8))
    text = report(own / "runs", own / "page")
    assert "are others than those that were scored" in text
    shutil.move(own / "test", own / "moved")
    gone = f"{own / 'test' / 'masks'}, remembered for own/test, is not there any more"
    assert f"No pictures: {gone}" in report(own / "runs", own / "page")
    done = call(["figure", "runs"])
    assert (done.code, gone in done.stderr) == (DataError.exit_code, True)
    shutil.move(own / "maps" / "Late", own / "late")
    done = call(["figure", "runs", "--images", "moved/images", "--gt", "moved/masks"])
    assert "maps/Late, remembered for own/test, is not there any more" in done.stderr


def test_a_run_remembers_its_own_folders_and_predicts_what_it_scored(own):
    kept = ["--set", "train.epochs=1", "--set", "runtime.save_predictions=true"]
    assert call(arguments(own, own / "runs", *kept)).code == 0
    run = only_run(own / "runs")
    places = recall_places(run, "own/test")
    assert (places.images, places.masks) == (own / "test" / "images", own / "test" / "masks")
    maps = run / "predictions" / "own-test"
    assert call(["predict", str(run), "test/images", "-o", "again"]).code == 0
    for path in sorted(maps.iterdir()):  # what `predict` writes is what was scored
        scored, again = (
            cv2.imread(str(p / path.name), -1).astype(int) for p in (maps, own / "again")
        )
        assert np.abs(scored - again).max() <= 1
    assert rows("runs", "--count", "2", "--rows", "worst")
    shutil.rmtree(run / "predictions")  # then the trained run predicts them
    done = call(["figure", "runs", "--count", "1", "-o", "f.png"])
    assert (done.code, "were predicted now by the trained run" in done.stderr) == (0, True)
    draw_pairs(own / "more", 4, seed=5)
    more = ["--test-images", "more/images", "--test-masks", "more/masks", "--name", "more"]
    assert call(["evaluate", str(run), *more, "--save-predictions", "-q"]).code == 0
    (evaluation,) = (p.parent for p in (own / "runs").rglob("run.json") if p.parent != run)
    assert recall_places(evaluation, "own/more").masks == own / "more" / "masks"
    assert len(rows(str(evaluation), "--count", "9")) == 4


def test_damaged_places_are_none(tmp_path):
    remember_places(tmp_path, "own/test", Places(tmp_path, tmp_path / "gone"))
    assert recall_places(tmp_path, "own/test") == Places(tmp_path)
    for text in ("{", "[]", '{"own/test": 3}', '{"own/test": {"images": 3}}', "[" * 100_000):
        (tmp_path / "places.json").write_text(text)
        assert recall_places(tmp_path, "own/test") == Places()


def test_records_without_maps_say_how_to_keep_them(tmp_path):
    own, split = draw_set(tmp_path)
    draw_two(tmp_path / "runs", split.digest)
    for folder in (tmp_path / "runs").glob("*/predictions"):
        shutil.rmtree(folder)
    place = ["--data-root", str(tmp_path / "data"), "--datasets", str(own)]
    done = call(["figure", str(tmp_path / "runs"), *place])
    assert (done.code, "runtime.save_predictions=true" in done.stderr) == (
        DataError.exit_code,
        True,
    )


def test_settings_choose_runs_and_each_has_a_column_on_own_folders(own):
    kept = ["--set", "train.epochs=1", "--set", "runtime.save_predictions=true", "--set"]
    for rank in ("2", "4"):
        made = arguments(own, own / "runs", *kept, f"rank={rank}")
        assert call(made).code == 0
    drawn = ["figure", "runs", "--json", "--count", "1", "-o", "f.png", *FOLDERS]
    for only, titles in (
        ([], ["LoRA (rank=2)", "LoRA (rank=4)"]),
        (["--only", "options.rank=4"], ["LoRA"]),
    ):
        done = call([*drawn, *only])
        assert (done.code, json.loads(done.stdout or "{}").get("methods")) == (0, titles)


@pytest.mark.parametrize("shape", [(9, 9), (9, 9, 3)])
def test_pictures_of_a_page_make_no_warning(shape, capfd):
    embedded_picture(np.zeros(shape, np.uint8), "")
    assert capfd.readouterr() == ("", "")
