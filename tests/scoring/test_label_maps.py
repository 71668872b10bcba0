"""Label maps of anybody against label maps: how files are read, refused, and scored."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from drawn_maps import save, score_folders, stored
from tiny_runs import QUICK, call, only_run

from lpmoe_bench import score
from lpmoe_bench.data.label_rules import class_colours, label_rules
from lpmoe_bench.data.labels import paint_labels, palette_png
from lpmoe_bench.data.pixels import PixelRules
from lpmoe_bench.errors import DataError, UsageError
from lpmoe_bench.metrics.classes import CLASSES, TRANS10K, ClassScorer
from lpmoe_bench.records.store import read_record, read_rows
from lpmoe_bench.scoring.label_maps import GREY
from lpmoe_bench.scoring.robustness import verify_confusions
from lpmoe_bench.scoring.work import INVENTED, MapsRead

NAMES = ["sky", "road", "car"]
RULES = PixelRules(labels=label_rules({"classes": NAMES, "ignore": 255}))
# Two rows are right, the lower left has a car that the map does not see, a pixel has no class.
TRUTH = np.array([[0, 0, 0, 0], [1, 1, 1, 1], [2, 2, 1, 255]], np.uint8)
PRED = np.array([[0, 0, 0, 0], [1, 1, 1, 1], [1, 2, 1, 0]], np.uint8)
# By hand: sky 4 of 4 (void is left out), road 5 of 6, car 1 of 2.
BY_HAND = {"iou/sky": 1.0, "iou/road": 5 / 6, "iou/car": 0.5, "pixel_acc": 10 / 11}


def draw(root, pred=PRED, name="A", count=3, suffix=".png", truth=TRUTH):
    for k in range(count):
        save(root / "masks" / f"p{k}.png", truth)
        save(root / name / f"p{k}{suffix}", pred)
    return root


def scores_of(root, *methods, **options):
    """The scores of each folder of maps, and what was said."""
    options = {"rules": RULES, "protocol": "classes", "names": ()} | options
    outcome, notes, _ = score_folders(root, *methods, **options)
    found = [next(iter(one.record.scores.values())) for one in outcome.records]
    return found, notes, outcome


def expected(pred=PRED, truth=TRUTH, count=3, protocol=CLASSES):
    scorer = ClassScorer(protocol, NAMES)
    for k in range(count):
        scorer.add(f"p{k}", pred, truth)
    return scorer.result()


def test_the_record_of_label_maps(tmp_path):
    (found,), _, outcome = scores_of(draw(tmp_path))
    assert {key: found[key] for key in BY_HAND} == BY_HAND
    assert found["mean_iou"] == pytest.approx((1 + 5 / 6 + 0.5) / 3)
    record, rows = stored(outcome)
    assert (record.kind, record.protocol.hash) == ("score", CLASSES.hash)
    assert record.labels is not None
    assert record.labels.classes == NAMES
    assert record.labels.ignored == {f"{tmp_path.name}/masks": 1 / 12}
    assert [row["image"] for row in rows] == ["p0", "p1", "p2"]
    assert [row["confusion"] for row in rows] == [r["confusion"] for r in expected().rows]


def test_palettes_and_colours_are_the_same_maps(tmp_path):
    draw(tmp_path, PRED, "index")
    draw(tmp_path, paint_labels(PRED, class_colours(3))[..., ::-1], "colour")
    draw(tmp_path, np.dstack([PRED] * 3), "three")
    (tmp_path / "palette").mkdir()
    (tmp_path / "array").mkdir()
    for k in range(3):
        (tmp_path / "palette" / f"p{k}.png").write_bytes(palette_png(PRED, class_colours(3)))
        np.save(tmp_path / "array" / f"p{k}.npy", PRED.astype(np.int64))
    found, notes, _ = scores_of(tmp_path, "index", "colour", "three", "palette", "array")
    assert all(one == expected().scores for one in found)
    assert [note for note in notes if "are in colours" in note] == [
        f"colour, {tmp_path.name}/masks: 3 of 3 maps are in colours, which are read as those of "
        f"the classes (p0, p1, p2)"
    ]


def test_a_set_in_colours_is_read_by_its_own(tmp_path):
    # Black and grey are classes: they may not be taken for the values 0 and 128.
    table = {"sky": "#808080", "road": "#000000", "car": "#ff0000"}
    rules = PixelRules(labels=label_rules({"classes": table, "ignore": "#ffffff"}))
    shown = np.array([[128, 128, 128], [0, 0, 0], [255, 0, 0]], np.uint8)
    truth = np.where((TRUTH == 255)[..., None], 255, shown[TRUTH % 255]).astype(np.uint8)
    draw(tmp_path, shown[PRED][..., ::-1], truth=truth[..., ::-1])
    draw(tmp_path, PRED, "index", truth=truth[..., ::-1])
    found, _, _ = scores_of(tmp_path, "A", "index", rules=rules)
    assert found == [expected().scores] * 2


def test_values_that_could_mean_two_things_are_to_be_declared(tmp_path):
    rules = PixelRules(labels=label_rules({"classes": NAMES, "first": 1, "ignore": 0}))
    truth = np.where(TRUTH == 255, 0, TRUTH + 1).astype(np.uint8)
    draw(tmp_path, PRED, "index", truth=truth)
    draw(tmp_path, PRED + 1, "set", truth=truth)
    with pytest.raises(UsageError, match="maps may have these or 0 to 2; say --map-values set"):
        scores_of(tmp_path, "index", rules=rules)
    for name in ("index", "set"):
        (found,), _, _ = scores_of(tmp_path, name, rules=rules, how=MapsRead(name))
        assert found == expected().scores
    with pytest.raises(DataError, match="the value 0, and the 3 classes are 1, 2, 3"):
        scores_of(tmp_path, "index", rules=rules, how=MapsRead("set"))


def test_maps_of_another_size_are_resized_only_when_asked(tmp_path):
    draw(tmp_path, np.kron(PRED, np.ones((2, 2), np.uint8)))
    with pytest.raises(DataError, match="8 x 6 pixels and its truth 4 x 3; label maps are not"):
        scores_of(tmp_path)
    (found,), notes, outcome = scores_of(tmp_path, how=MapsRead(resize=True))
    assert found == expected().scores
    assert any("were resized to the nearest pixel" in note for note in notes)
    assert next(iter(outcome.records[0].record.counts.values()))["resized_maps"] == 3
    draw(tmp_path, PRED.T, "turned")
    with pytest.raises(DataError, match="are they transposed"):
        scores_of(tmp_path, "turned")


@pytest.mark.parametrize(
    ("pred", "suffix", "text"),
    [
        (np.where(PRED == 2, 255, PRED), ".png", "the value 255, and the 3 classes are 0, 1, 2"),
        (np.where(PRED == 2, 3, PRED), ".png", "the value 3, and"),
        (PRED.astype(np.uint16) * 300, ".png", "the values 300, 600, and"),
        (PRED, ".jpg", "JPEG file, which does not keep values"),
        (np.dstack([PRED * 9, PRED, PRED]), ".png", "the colours #000000, #010109, #020212, and"),
    ],
)
def test_what_is_no_class_is_refused(tmp_path, pred, suffix, text):
    with pytest.raises(DataError, match=text):
        scores_of(draw(tmp_path, pred, suffix=suffix))
    assert not list(tmp_path.rglob("run.json"))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"rules": PixelRules()}, "say which classes yours have, with --classes FILE"),
        ({"protocol": "cod"}, "protocol cod scores binary tasks, and --classes tells of label"),
        ({"extra": ["hd95"]}, "hd95 is a metric of binary maps"),
        ({"task": "camvid", "rules": PixelRules()}, "which classes the label maps of --gt have"),
        ({"task": "cod"}, "but task cod is binary"),
        ({"besides": ["--worst", "--curves"]}, "--curves makes nothing of .* no threshold changes"),
    ],
)
def test_requests_that_do_not_go_together(tmp_path, options, text):
    with pytest.raises(UsageError, match=text):
        scores_of(draw(tmp_path), **options)


def test_what_is_unusual_is_said(tmp_path):
    draw(tmp_path, np.zeros_like(PRED), "blank")
    draw(tmp_path, np.where(TRUTH == 255, 0, TRUTH), "perfect")
    _, notes, _ = scores_of(tmp_path, "blank", "perfect")
    told = " ".join(notes)
    assert "blank" in told
    assert "3 of 3 maps are of one class all over, and their truth is not" in told
    assert "no map has class road, car, which the truth has" in told
    assert (
        "equal their truth in every pixel that has a class: is this a folder of the truth?" in told
    )


def test_several_processes_give_the_same_rows(tmp_path):
    draw(tmp_path, count=20)
    _, _, one = scores_of(tmp_path, jobs=1)
    _, _, two = scores_of(tmp_path, jobs=2, runs=tmp_path / "other")
    assert stored(one)[0].scores == stored(two)[0].scores
    assert stored(one)[1] == stored(two)[1]


def test_scores_of_arrays_files_and_folders(tmp_path):
    draw(tmp_path)
    wanted = expected(count=1).scores
    options = {"protocol": "classes", "classes": NAMES}
    assert score(PRED.astype(int), TRUTH, **options) == wanted
    files = tmp_path / "A" / "p0.png", tmp_path / "masks" / "p0.png"
    assert score(*files, **options) == wanted
    folders = score(tmp_path / "A", tmp_path / "masks", **options)
    assert not isinstance(folders, dict)
    assert folders.rows == [r | {"dataset": folders.rows[0]["dataset"]} for r in expected().rows]
    with pytest.raises(DataError, match="pred is 3 x 4 pixels and its truth 4 x 3"):
        score(PRED.T, TRUTH, **options)
    with pytest.raises(DataError, match="its map holds 3"):
        score(PRED + 1, TRUTH, **options)
    with pytest.raises(UsageError, match="protocol cod scores binary maps"):
        score(PRED, TRUTH, classes=NAMES)
    with pytest.raises(UsageError, match="say which classes yours have"):
        score(PRED, TRUTH, protocol="classes")


def test_a_runs_saved_maps_have_its_own_scores(tmp_path):
    rng = np.random.default_rng(0)
    for part, count in (("train", 6), ("test", 3)):
        for k in range(count):
            labels = np.sort(rng.integers(0, 3, (40, 56)), axis=1).astype(np.uint8)
            image = labels[..., None] * 60 + rng.integers(0, 60, (40, 56, 3))
            labels[:, :3] = 255
            save(tmp_path / part / "images" / f"{k}.png", image.astype(np.uint8))
            save(tmp_path / part / "masks" / f"{k}.png", labels)
    (tmp_path / "classes.txt").write_text("\n".join(NAMES))
    places = [
        text
        for part in ("train", "test")
        for kind in ("images", "masks")
        for text in (f"--{part}-{kind}", str(tmp_path / part / kind))
    ]
    declared = ["--classes", str(tmp_path / "classes.txt"), "--ignore", "255"]
    train = ["--set", "train.epochs=1", "--set", "runtime.save_predictions=true"]
    runs = tmp_path / "runs"
    command = ["run", "--task", "semantic", "--method", "decoder_only", *places, *declared]
    done = call([*command, "--runs", str(runs), *QUICK, *train])
    assert done.code == 0, done.stderr
    folder = only_run(runs)
    (maps,) = [place for place in (folder / "predictions").iterdir() if place.is_dir()]
    again = ["--gt", str(tmp_path / "test" / "masks"), *declared, "--runs", str(tmp_path / "more")]
    done = call(["score", str(maps), "--images", str(tmp_path / "test" / "images"), *again])
    assert done.code == 0, done.stderr
    scored = only_run(tmp_path / "more")
    (ours,), (theirs,) = (read_record(place).scores.values() for place in (folder, scored))
    assert ours == theirs
    texts = [
        {row["image"]: row["confusion"] for row in read_rows(place / "per_image.csv")}
        for place in (folder, scored)
    ]
    assert texts[0] == texts[1]
    # The table takes them together: the same images, the same protocol.
    done = call(["table", str(runs), str(tmp_path / "more"), "--format", "csv"])
    assert done.code == 0, done.stderr
    shown = call(["score", str(maps), *again, "--json"])
    assert json.loads(shown.stdout)["records"][0]["labels"]["classes"] == NAMES


@pytest.fixture
def videos(tmp_path, monkeypatch):
    """Maps A and B of two videos of three frames each, and options that score them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LPMOE_BENCH_CACHE", str(tmp_path / "cache"))
    (tmp_path / "classes.txt").write_text("\n".join([*NAMES, "bike"]))
    for k in range(6):
        name = f"v{k // 3}/{k % 3:05}.png"
        truth, pred = (TRUTH, PRED) if k < 3 else (np.where(TRUTH == 2, 0, TRUTH), PRED * 0)
        save(tmp_path / "gt" / name, truth)
        save(tmp_path / "A" / name, pred)
        save(tmp_path / "B" / name, np.where(truth == 255, k % 2, truth))
    return ["score", "A", "B", "--gt", "gt", "--classes", "classes.txt", "--ignore", "255"]


def test_videos_have_scores_of_their_own_pixels(videos):
    done = call([*videos, "--json"])
    assert done.code == 0, done.stderr
    assert "the mean of each video too" in done.stderr
    (a, _) = json.loads(done.stdout)["groups"]
    assert a["images"] == {"v0": 3, "v1": 3}
    first, second = a["means"]["v0"], a["means"]["v1"]
    assert {key: first[key] for key in BY_HAND} == BY_HAND
    # By hand: of the second video 6 of 11 pixels are sky, and the map has nothing else.
    assert second["iou/sky"] == second["pixel_acc"] == 6 / 11
    assert (second["iou/road"], second["iou/car"], second["iou/bike"]) == (0, None, None)
    assert second["mean_iou"] == 3 / 11
    assert a["mean"]["mean_iou"] == pytest.approx((first["mean_iou"] + 3 / 11) / 2)
    assert a["mean"]["iou/car"] == 0.5  # of the one video that has any
    assert Path(a["file"]).read_text().startswith("folder,images,mean_iou,")


def test_worst_label_maps_are_pictured_with_a_legend(videos):
    done = call([*videos, "--worst", "2", "--json"])
    assert done.code == 0, done.stderr
    (a, _) = json.loads(done.stdout)["worst"]
    assert [(one["image"], one["value"]) for one in a["images"]] == [
        ("v1/00000", 3 / 11),
        ("v1/00001", 3 / 11),
    ]
    picture = cv2.imread(a["pictures"])[..., ::-1].reshape(-1, 3)
    for colour in [*class_colours(4), INVENTED, GREY]:  # the fourth is in the legend alone
        assert (picture == colour).all(1).any()


def test_label_maps_are_counted_again(videos):
    done = call([*videos, "--verify", "4"])
    assert done.code == 0, done.stderr
    assert "4 images counted again, each pair of classes by itself" in done.stdout
    assert "largest difference 0.0e+00 (pixels of a pair)" in done.stdout
    other = [*expected().rows]
    other[1] = other[1] | {"confusion": other[1]["confusion"].replace("0:0:4", "0:0:7")}
    for protocol, rows, difference in (
        (CLASSES, expected().rows, 0),
        (TRANS10K, expected(protocol=TRANS10K).rows, 0),
        (CLASSES, other, 3),
    ):
        found = verify_confusions(rows, lambda name: (PRED, TRUTH), 9)
        assert (found.images, found.largest) == (("p0", "p1", "p2"), difference), protocol.name


def test_the_other_ways_to_score_label_maps(videos):
    done = call([*videos, "--vary", "--json"])
    assert done.code == 0, done.stderr
    (found,) = json.loads(done.stdout)["vary"].values()
    lines = {tuple(one["protocols"]): one for one in found["lines"] if one["metric"] == "mean_iou"}
    usual = lines["classes",]["values"]
    # A class that is nowhere, and void as a wrong pixel, lower the mean.
    assert lines["classes (absent counts 0)",]["values"]["B"] == usual["B"] * 3 / 4 == 3 / 4
    assert lines["classes (void counts as wrong)",]["values"]["B"] < 1
    both = lines["trans10k",]["values"]
    assert both["B"] < lines["classes (absent counts 0)",]["values"]["B"]
    assert "empty_masks" not in found
    done = call([*videos, "--vary"])
    assert "every protocol" in done.stdout
