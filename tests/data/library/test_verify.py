"""Verification and the lists: every kind of fault named, with the command that repairs it."""

import json
import os
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from drawn_files import fill, square_mask, write
from typer.testing import CliRunner

from lpmoe_bench.cli.app import app
from lpmoe_bench.data.images import read_image, read_mask
from lpmoe_bench.data.library import verify
from lpmoe_bench.data.registry import Dataset, load_registry
from lpmoe_bench.errors import BenchError, DataError, UsageError


def dataset(**changes) -> Dataset:
    facts = {"name": "mine", "title": "Mine", "task": "cod", "splits": {"all": "all.txt"}}
    return Dataset.model_validate(facts | changes)


@pytest.fixture
def root(tmp_path) -> Path:
    fill(tmp_path / "data" / "mine", ("all.txt", ["a", "b", "c"]))
    return tmp_path / "data"


def one(root, **changes):
    (found,) = verify.verify_set(dataset(**changes), root)
    return found


def test_a_sound_set(root):
    found = one(root, counts={"all": 3})
    assert (found.label, found.pairs, found.problems, found.remarks) == ("mine/all", 3, [], [])
    assert found.sizes == ("30 x 20", "30 x 20")
    assert found.masks == {}
    assert len(found.checksum) == len(found.digest) == 64
    assert "mine/all: sound" in verify.verification_text([found])
    assert verify.verification_json([found])["sound"] is True


def test_the_checksum_follows_content_not_names_or_dates(root):
    first = one(root)
    place = root / "mine"
    os.utime(place / "images/a.jpg", (0, 0))
    for kind, ending in (("images", "jpg"), ("masks", "png")):
        (place / kind / f"a.{ending}").rename(place / kind / f"z.{ending}")
    (place / "all.txt").write_text("c\nb\nz\n")
    second = one(root)
    assert second.checksum == first.checksum
    assert second.digest != first.digest
    write(place / "masks/b.png", square_mask((20, 30)))
    assert one(root).checksum != first.checksum


def test_a_checksum_that_is_expected(root):
    right = one(root).checksum
    assert one(root, checksums={"all": right}).problems == []
    (problem,) = one(root, checksums={"all": "0" * 64}).problems
    assert problem == f"the content has checksum {right}, expected is {'0' * 64}"


def test_every_fault_is_named_with_its_repair(root):
    place = root / "mine"
    (place / "images/a.jpg").write_bytes((place / "images/a.jpg").read_bytes()[:-40])
    write(place / "masks/b.png", np.zeros((20, 31), np.uint8))
    write(place / "masks/c.png", square_mask((20, 30)) // 100)
    found = one(root, archives=[{"url": "http://host/a.zip"}])
    assert len(found.problems) == 3
    text = verify.verification_text([found])
    for words in ("a.jpg is truncated", "b.png is 31 x 20", "c.png holds values from 0 to 2 only"):
        assert words in text
    assert found.repairs == [
        "lpmoe-bench data fetch mine --replace",
        f"lpmoe-bench data add mine {place} --object nonzero --replace  "
        f"(everything but 0 becomes object, saved as 255)",
    ]
    assert found.checksum == ""
    assert "- repair: lpmoe-bench data fetch mine --replace" in verify.verification_markdown(
        [found]
    )


def test_a_repair_can_be_run_as_it_is_printed(call, tmp_path, monkeypatch):
    root = tmp_path / "my data"
    monkeypatch.setenv("LPMOE_BENCH_DATA", str(root))
    fill(root / "camo", ("train.txt", ["a", "b"]), ("test.txt", ["x"]))
    for name in "abx":
        write(root / f"camo/masks/{name}.png", square_mask((20, 30)) // 100)
    camo = load_registry().dataset("camo")
    repairs = {text for one in verify.verify_set(camo, root) for text in one.repairs}
    (line,) = (text for text in repairs if "--object nonzero" in text)
    program, group, *arguments = shlex.split(line.partition("  (")[0])
    assert (program, group) == ("lpmoe-bench", "data")
    assert "camo/train: 2 pairs" in call(*arguments)
    assert [(one.pairs, one.problems) for one in verify.verify_set(camo, root)] == [
        (2, []),
        (1, []),
    ]


def test_masks_of_every_kind_are_counted(root):
    place = root / "mine"
    write(place / "masks/a.png", square_mask((20, 30)) // 255)
    write(place / "masks/b.png", np.zeros((20, 30), np.uint8))
    write(place / "masks/c.png", square_mask((20, 30)) // 255 * 240)
    found = one(root)
    assert found.problems == []
    assert found.masks == {
        "with grey levels (above 128 is object)": 1,
        "of 0 and 1 (1 is object)": 1,
        "empty": 1,
    }


def test_counts_are_compared_with_the_official_ones(root):
    found = one(root, counts={"all": 9}, local=["all"], archives=[{"url": "http://host/a.zip"}])
    assert found.problems == []
    assert found.remarks[0] == "3 pairs counted, officially 9 (not confirmed)"
    assert "local split" in found.remarks[1]
    assert found.repairs == ["lpmoe-bench data fetch mine --replace"]
    assert "9 (not confirmed)" in verify.verification_markdown([found])


def test_pairs_that_do_not_match_are_a_problem_of_their_split(root):
    (root / "mine/masks/b.png").unlink()
    found = one(root, page="http://page", by_hand="mine.zip")
    assert "b (no mask)" in found.problems[0]
    assert found.repairs == [
        "lpmoe-bench data add mine FILE --replace  (FILE: mine.zip, see http://page)"
    ]


def test_names_without_a_partner_can_be_left_out(call, root):
    fill(root / "gdd/test", ("unused.txt", ["p", "q"]))
    (root / "gdd/test/masks/q.png").unlink()
    gdd = load_registry().dataset("gdd")
    (found,) = verify.verify_set(gdd, root)
    assert "q (no mask)" in found.problems[0]
    _, _, *arguments = shlex.split(found.repairs[1].partition("  (")[0])
    text = call(*arguments)
    assert "left out: gdd/test: q (no mask)" in text
    assert [(one.pairs, one.problems) for one in verify.verify_set(gdd, root)] == [(1, [])]


def test_a_set_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match=r"mine is not under .*; see lpmoe-bench data show mine"):
        verify.verify_set(dataset(), tmp_path)


def test_many_problems_are_told_once_in_text_and_whole_in_json(root):
    names = [f"n{k:02d}" for k in range(14)]
    fill(root / "mine", ("all.txt", names))
    for name in names:
        (root / f"mine/images/{name}.jpg").write_bytes(b"")
    found = one(root)
    assert "14 of them, such as " in verify.verification_text([found])
    assert len(verify.verification_json([found])["splits"][0]["problems"]) == 14
    for place, name in enumerate(names):  # each of another size
        write(root / f"mine/images/{name}.jpg", np.zeros((20, 31 + place, 3), np.uint8))
    found = one(root)
    told = verify.verification_text([found])
    assert "14 of this kind, the first: " in told
    assert told.count("resize_masks") == 1
    assert len(verify.verification_json([found])["splits"][0]["problems"]) == 14


# --- the commands


@pytest.fixture
def call(root, tmp_path, monkeypatch):
    """Run `lpmoe-bench data ...` on a data folder with mine, camo and broken; returns stdout."""
    monkeypatch.setenv("LPMOE_BENCH_DATA", str(root))
    monkeypatch.setenv("LPMOE_BENCH_CACHE", str(tmp_path / "cache"))
    fill(root / "camo", ("train.txt", ["a", "b"]), ("test.txt", ["x"]))
    own = tmp_path / "own.yaml"
    own.write_text("datasets: {mine: {title: Mine, task: cod, splits: {all: all.txt}}}")

    def run(*arguments: str) -> str:
        done = CliRunner().invoke(app, ["data", *arguments, "--datasets", str(own)])
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        assert done.exit_code == 0, done.output
        return done.stdout

    return run


def test_list_says_what_is_there(call):
    lines = {line.split()[0]: line for line in call("list").splitlines()}
    assert set(lines) == {*load_registry().datasets, "mine"}
    assert "found    train+test: train 2 of 1000, test 1 of 250" in lines["camo"]
    assert lines["duts"].endswith("missing  train+test: lpmoe-bench data fetch duts")
    assert lines["gdd"].endswith("lpmoe-bench data show gdd")
    assert all(" polyp " in line for line in call("list", "--task", "polyp").splitlines())


def test_show_says_how_to_get_it(call):
    text = call("show", "nc4k")
    assert "missing, officially 4121" in text
    assert "open https://github.com/JingZhang617" in text
    assert "Google Drive 1kzpX_U3gbgO9MuwZIWTuRVpiB7V6yrAQ" in text
    assert "lpmoe-bench data add nc4k FILE" in text
    facts = json.loads(call("show", "camo", "--json"))
    assert [split["pairs"] for split in facts["splits"]] == [2, 1]
    assert facts["state"] == "found"


def test_verify_prints_and_writes_a_report(call, root, tmp_path):
    report = tmp_path / "report.md"
    text = call("verify", "-o", str(report))
    assert "camo/train: sound" in text
    assert "mine/all: sound" in text
    assert report.read_text().count("| yes |") == 3
    found = json.loads(call("verify", "mine", "--json"))
    assert [split["label"] for split in found["splits"]] == ["mine/all"]
    (root / "mine/images/a.jpg").write_bytes(b"")
    with pytest.raises(DataError, match="mine/all failed verification"):
        call("verify", "mine", "-o", str(report))
    assert "a.jpg is empty" in report.read_text()


def test_verify_tells_values_and_draws_a_sheet(call, root, tmp_path):
    plain, sheet = tmp_path / "plain.png", tmp_path / "sheet.png"
    text = call("verify", "mine", "--sheet", str(sheet))
    assert re.search(r"values +images 3 of uint8, \d+ to \d+; masks 0, 255; object \d", text)
    drawn = read_image(sheet)
    assert min(drawn.shape[:2]) > 50
    for mask in (root / "mine/masks").iterdir():  # the sheet shows what the masks say
        write(mask, 255 - read_mask(mask))
    call("verify", "mine", "--sheet", str(plain))
    assert not np.array_equal(read_image(plain), drawn)
    with pytest.raises(UsageError, match="--sheet draws one data set, but 2 are named"):
        call("verify", "mine", "camo", "--sheet", str(sheet))


def test_add_and_its_errors(call, root, tmp_path):
    fill(tmp_path / "down" / "GDD" / "test", ("unused.txt", ["p", "q"]))
    (tmp_path / "down/GDD/test/images").rename(tmp_path / "down/GDD/test/image")
    (tmp_path / "down/GDD/test/masks").rename(tmp_path / "down/GDD/test/mask")
    text = call("add", "gdd", str(tmp_path / "down"))
    assert "gdd/test: 2 pairs; 2 pairs counted, officially 936 (not confirmed)" in text
    assert "found" not in call("show", "gdd").splitlines()[0]
    for arguments, sentence in {
        ("add", "gdd", str(tmp_path / "down")): "--replace puts that aside",
        ("fetch", "gdd"): "no direct archive; open https://mhaiyang",
        ("fetch", "duts", "--offline"): "cannot be fetched offline",
        ("show", "dutz"): "did you mean 'duts'",
    }.items():
        with pytest.raises(BenchError, match=sentence):
            call(*arguments)


def test_no_data_folder(call, monkeypatch):
    monkeypatch.delenv("LPMOE_BENCH_DATA")
    assert "LPMOE_BENCH_DATA is not set" in call("show", "camo")
    for arguments in (("verify",), ("fetch", "duts")):
        with pytest.raises(DataError, match="LPMOE_BENCH_DATA"):
            call(*arguments)
    monkeypatch.setenv("LPMOE_BENCH_DATA", "nowhere")
    with pytest.raises(DataError, match="data folder nowhere does not exist"):
        call("list")
