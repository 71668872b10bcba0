"""The Python API: the same numbers as the command line, objects instead of text, sentences."""

import doctest
import json
import subprocess
import sys
import warnings

import cv2
import numpy as np
import pytest
import torch
from drawn_maps import draw_folders, draw_map, draw_mask, out, stored
from drawn_maps import score_folders as score_by_plan
from tiny_runs import BACKBONE, draw_data

import lpmoe_bench
from lpmoe_bench import api
from lpmoe_bench.errors import DataError, UsageError

RECORDS = "results/records"
COST = (
    "import time; start = time.process_time(); import lpmoe_bench;"
    "print(time.process_time() - start)"
)


def test_import_is_light():
    done = subprocess.run([sys.executable, "-c", COST], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 0.3


def test_everything_offered_is_there_and_documented():
    for name in lpmoe_bench.__all__:
        assert getattr(lpmoe_bench, name) is getattr(api, name)
        assert name in dir(lpmoe_bench)
        assert getattr(api, name).__doc__
    with pytest.raises(AttributeError, match="scroe"):
        _ = lpmoe_bench.scroe
    assert doctest.testmod(api).failed == 0


# --- score


def test_arrays_files_and_folders_have_the_scores_of_the_command(tmp_path):
    root = draw_folders(tmp_path, count=3)
    _, rows = stored(score_by_plan(root)[0])
    for seed, row in enumerate(rows):
        by_array = lpmoe_bench.score(draw_map(seed), draw_mask(seed))
        by_file = lpmoe_bench.score(root / f"A/p{seed}.png", str(root / f"masks/p{seed}.png"))
        assert by_array == by_file
        # In a row the largest of a curve is that at the threshold which is best for the data set.
        alone = [key for key in by_array if not key.endswith("_max")]
        assert [by_array[key] for key in alone] == [row[key] for key in alone]
    before = sorted(root.rglob("*"))
    result = lpmoe_bench.score(root / "A", root / "masks", protocol="sod", extra=["hd95"])
    assert sorted(root.rglob("*")) == before  # nothing is written
    shown = json.loads(out(root, "--protocol", "sod", "--extra", "hd95", "--json").stdout)
    assert [result.scores] == list(shown["records"][0]["scores"].values())
    assert [row["image"] for row in result.rows] == ["p0", "p1", "p2"]


def test_floats_that_eight_bits_hold_score_alike():
    mask, levels = draw_mask(0), draw_map(0)
    scores = lpmoe_bench.score(levels, mask)
    assert lpmoe_bench.score(levels / 255, mask > 127) == pytest.approx(scores, abs=1e-12)
    # In 32 bits a level may fall below its threshold.
    rounded = (levels / 255).astype(np.float32)
    assert lpmoe_bench.score(rounded, mask / 255) == pytest.approx(scores, abs=5e-3)


def test_what_is_suspicious_of_a_folder_is_a_warning(tmp_path):
    root = draw_folders(tmp_path, count=2)
    for seed in range(2):
        cv2.imwrite(str(root / f"A/p{seed}.png"), 255 - draw_mask(seed))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        lpmoe_bench.score(root / "A", root / "masks")
    assert any("inverted" in str(one.message) for one in caught)


@pytest.mark.parametrize(
    ("pred", "mask", "words"),
    [
        (np.full((4, 4), 1.5), np.eye(4, dtype=bool), "outside of"),
        (np.full((4, 4), np.nan), np.eye(4, dtype=bool), "outside of"),
        (np.zeros((1, 4, 4)), np.eye(4, dtype=bool), r"shape \(1, 4, 4\)"),
        (np.zeros((4, 4), int), np.eye(4, dtype=bool), "int64"),
        (np.zeros((4, 4)), RECORDS, "an array and gt is a folder"),
    ],
)
def test_ambiguous_arrays_are_refused(pred, mask, words):
    with pytest.raises(UsageError, match=words):
        lpmoe_bench.score(pred, mask)
    ones = draw_mask(0) // 255
    with pytest.raises(UsageError, match="nothing above 1"):  # would count as black
        lpmoe_bench.score(ones, draw_mask(0), protocol="medical")
    assert lpmoe_bench.score(ones, draw_mask(0), protocol="cod")["mae"] == 0


def test_what_is_missing_is_a_sentence():
    with pytest.raises(DataError, match=r"nowhere\.png does not exist"):
        lpmoe_bench.score("nowhere.png", "nowhere.png")
    with pytest.raises(UsageError, match="unknown protocol 'cdo'"):
        lpmoe_bench.score(draw_map(0), draw_mask(0), protocol="cdo")


# --- records


def test_frames_hold_every_score_once():
    long, wide = lpmoe_bench.load_records(RECORDS), lpmoe_bench.load_records(RECORDS, wide=True)
    assert len(wide) == 138
    assert not long.duplicated(["id", "test_set", "metric"]).any()
    # No test image of nuclei has a large object, so there is no AP of large ones.
    absent = long.value.isna()
    assert set(long.metric[absent]) == {"mask_ap_large", "box_ap_large"}
    assert long.value[~absent].between(0, 1.1).all()
    for row in long.sample(40, random_state=0).itertuples():
        found = wide.loc[wide.id == row.id, f"{row.test_set} {row.metric}"]
        assert found.item() == row.value or np.isnan(row.value)
    runs = wide[wide.kind == "run"]
    assert str(wide.seed.dtype) == str(wide["train.batch"].dtype) == "Int64"
    assert {*map(type, wide["size"].dropna())} == {int, tuple}  # a side, or height and width
    assert (runs["parameters.decoder"] > 0).all()
    assert (runs["costs.train_seconds"] > 0).all()


def test_frames_are_filtered_by_any_column():
    found = lpmoe_bench.load_records(RECORDS, size=[(128, 256)], wide=True)
    assert set(found.task) == {"leaf3"}
    assert "leaf3" not in set(lpmoe_bench.load_records(RECORDS, size=256).task)
    found = lpmoe_bench.load_records(
        RECORDS, method="lora", task="cod", seed=[0, 1], **{"train.limit_train": 150}
    )
    assert set(found.method) == {"lora"}
    assert set(found.seed) == {0, 1}
    for filters, words in (
        ({"metod": "lora"}, "did you mean 'method'"),
        ({"method": "lroa"}, "did you mean 'lora'"),
        ({"seed": 99}, "there is 0"),
    ):
        with pytest.raises(UsageError, match=words):
            lpmoe_bench.load_records(RECORDS, **filters)


def test_a_broken_record_is_left_out_with_a_warning(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/run.json").write_text("{")
    with pytest.warns(UserWarning, match="not valid JSON"):
        assert lpmoe_bench.load_records(tmp_path).empty


def test_compare_and_check_return_what_the_commands_print():
    report = lpmoe_bench.compare("41d3b80aaace", "84d0a33ab675", RECORDS, metrics=["s_measure"])
    assert {line.metric for line in report.lines} == {"s_measure"}
    assert lpmoe_bench.compare("84d0a33ab675", "41d3b80aaace", RECORDS).lines[0].a == pytest.approx(
        report.lines[0].b
    )
    outcome = lpmoe_bench.check(RECORDS, "results/baseline.json")
    assert (outcome.verdict, outcome.exit_code()) == ("not comparable", 5)
    with pytest.raises(UsageError, match="--level"):
        lpmoe_bench.check(RECORDS, level=2)


# --- runs


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    root = draw_data(tmp_path_factory.mktemp("api"))
    folders = [root / p / k for p in ("train", "test") for k in ("images", "masks")]
    settings = {"method": "lora", "backbone": BACKBONE, "weights": "random:3"}
    settings |= {"size": 64, "train": {"batch": 4, "steps": 2}, "decoder_options": {"width": 8}}
    made = lpmoe_bench.run(settings, folders=folders, runs=root / "runs", rank=2, quiet=True)
    return root, folders, settings, made


def test_a_run_is_trained_once_and_its_settings_are_those_asked_for(trained):
    root, folders, settings, made = trained
    assert made.record.config["options"]["rank"] == 2
    again = lpmoe_bench.run(
        folders=folders, runs=root / "runs", quiet=True, **settings, **{"rank": 2}
    )
    assert again.record == made.record
    with pytest.raises(UsageError, match="'train\\.lrr'"):
        lpmoe_bench.run(settings, folders=folders, runs=root, quiet=True, **{"train.lrr": 1})
    with pytest.raises(UsageError, match="'rnak'; did you mean 'rank'"):
        lpmoe_bench.run(settings, folders=folders, runs=root, quiet=True, rnak=1)


def test_predictions_and_the_model_are_those_that_were_scored(trained):
    root, folders, _, made = trained
    found = lpmoe_bench.predict(made, folders[2])
    assert [one.image.name for one in found] == [f"{k:03}.png" for k in range(6)]
    assert found[0].probability.shape == (60, 80)
    scored = lpmoe_bench.evaluate(
        made.folder, images=folders[2], masks=folders[3], runs=root / "other", quiet=True
    )
    assert [one.record.scores for one in scored.values()] == [made.record.scores]
    levels = [(one.probability * 255 + 0.5).astype(np.uint8) for one in found]  # as runs save them
    masks = [cv2.imread(str(folders[3] / one.image.name), 0) for one in found]
    mae = [lpmoe_bench.score(*pair)["mae"] for pair in zip(levels, masks, strict=True)]
    # Alone, not in a batch, an image may differ in the last bit: in a level of one pixel at most.
    assert np.mean(mae) == pytest.approx(made.record.scores["own/test"]["mae"], abs=1 / 4800 / 255)
    image = np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)
    model = lpmoe_bench.load_model(made)
    batch = torch.tensor(image).permute(2, 0, 1)[None] / 255
    batch.requires_grad_()
    probability = model(batch)
    expected = lpmoe_bench.predict(made, image)[0].probability
    torch.testing.assert_close(probability[0, 0].detach(), torch.tensor(expected))
    probability.sum().backward()
    assert batch.grad.abs().sum() > 0
    assert model(torch.rand(2, 3, 50, 70)).shape == (2, 1, 50, 70)
    with pytest.raises(UsageError, match="RGB uint8"):
        lpmoe_bench.predict(made, image[..., 0])


EMPTY = np.zeros((0, 4, 3), np.uint8)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: lpmoe_bench.run(method="nope"), "unknown method 'nope'"),
        (lambda: lpmoe_bench.run([1]), "give settings by name"),  # type: ignore[arg-type]
        (lambda: lpmoe_bench.predict("x", EMPTY), "give RGB uint8"),
        (lambda: lpmoe_bench.predict("x", [], tile=16), "--tile is '16'"),
        (lambda: lpmoe_bench.score(EMPTY[..., 0], EMPTY[..., 0]), "not empty"),
        (lambda: lpmoe_bench.load_records([RECORDS]), "one by one"),  # type: ignore[arg-type]
    ],
)
def test_what_python_may_pass_by_mistake_is_refused_in_a_sentence(call, sentence):
    with pytest.raises(UsageError, match=sentence):
        call()


def test_one_extra_metric_may_be_one_text():
    assert "hd95" in lpmoe_bench.score(draw_map(0), draw_mask(0), extra="hd95")
