"""The audit: images in two sets, found by likeness."""

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from audit_sets import QUIET, found, lists, look, place, scene
from drawn_files import write
from typer.testing import CliRunner

from lpmoe_bench.cli.app import app
from lpmoe_bench.console import Terminal
from lpmoe_bench.data.audit import audit as audit_module
from lpmoe_bench.data.audit.audit import audit_json, audit_markdown, audit_sets, audit_text
from lpmoe_bench.data.audit.groups import Audit, Duplicate
from lpmoe_bench.data.audit.search import FeatureLikeness, Question
from lpmoe_bench.data.registry import Dataset, load_registry
from lpmoe_bench.errors import DataError
from lpmoe_bench.model import likeness
from lpmoe_bench.model.likeness import default_features, feature_likeness
from lpmoe_bench.model.weights.resolve import resolve_weights


def cropped(pixels: np.ndarray, part: float, x: float = 0.3) -> np.ndarray:
    h, w = pixels.shape[:2]
    top, left = round(h * part * 0.7), round(w * part * x)
    return pixels[top : top + round(h * (1 - part)), left : left + round(w * (1 - part))]


COPIES = {
    "smaller": lambda p: cv2.resize(p, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA),
    "squashed": lambda p: cv2.resize(p, (128, 128), interpolation=cv2.INTER_AREA),
    "brighter": lambda p: np.clip(p * 1.15 + 10, 0, 255).astype(np.uint8),
    "cropped": lambda p: cropped(p, 0.05),
    "mirrored": lambda p: np.ascontiguousarray(p[:, ::-1]),
}


@pytest.mark.parametrize("kind", [*COPIES, "jpeg"])
def test_planted_copies_are_found_and_look_alikes_are_not(tmp_path, kind):
    for seed in range(6):
        place(tmp_path, "mine", f"a{seed}", scene(seed))
    place(tmp_path, "mine", "b", scene(99))
    if kind == "jpeg":
        data = cv2.imencode(".jpg", scene(3)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 40])[1]
        place(tmp_path, "mine", "c", scene(3))
        (tmp_path / "mine/images/c.png").rename(tmp_path / "mine/images/c.jpg")
        (tmp_path / "mine/images/c.jpg").write_bytes(data.tobytes())
    else:
        place(tmp_path, "mine", "c", COPIES[kind](scene(3)))
    audit = look(tmp_path, lists(tmp_path, "mine", train="a0 a1 a2 a3 a4 a5", test="b c"))
    assert found(audit) == {("mine/a3", "mine/c", "near", kind == "mirrored")}
    assert audit.twins[0].between == [("mine/train", "mine/test")]
    assert audit.leaks == audit.twins


def test_equal_pixels_in_another_format_are_exact(tmp_path):
    for seed in range(3):
        place(tmp_path, "mine", f"a{seed}", scene(seed))
    place(tmp_path, "mine", "b", scene(1), ".bmp")
    audit = look(tmp_path, lists(tmp_path, "mine", train="a0 a1 a2", val="b"))
    assert found(audit) == {("mine/a1", "mine/b", "exact", False)}
    assert audit.twins[0].likeness == 1.0


def test_every_equal_image_is_joined_to_every_other_split(tmp_path):
    for name in "abcd":
        place(tmp_path, "mine", name, scene(0))
    audit = look(tmp_path, lists(tmp_path, "mine", test="a b", train="c d"))
    joined = {(t.one, t.other) for t in audit.leaks}
    assert {name for pair in joined for name in pair} == {f"mine/{name}" for name in "abcd"}
    assert {(t.one, t.other) for t in audit.repeats} == {("mine/a", "mine/b"), ("mine/c", "mine/d")}
    assert {t.kind for t in audit.twins} == {"exact"}


def test_another_framing_is_told_from_a_copy(tmp_path):
    place(tmp_path, "mine", "a", scene(5, (300, 400)))
    place(tmp_path, "mine", "b", cropped(scene(5, (300, 400)), 0.09, 0.5))
    audit = look(tmp_path, lists(tmp_path, "mine", train="a", test="b"))
    assert found(audit) == {("mine/a", "mine/b", "reframed", False)}
    assert audit.leaks == []
    assert "1 picture in two framings" in audit_text(audit)


def hard_negatives() -> dict[str, np.ndarray]:
    """One layout, frame and colours, but another content each: views through one endoscope."""
    across, down = np.meshgrid(np.linspace(-1.3, 1.3, 200), np.linspace(-1, 1, 150))
    inside = (across**2 + down**2 < 1)[..., None]
    light = (170 - 80 * (across**2 + down**2))[..., None].clip(0)
    views = {}
    for seed in range(8):
        texture = (scene(seed).astype(np.float32) - 128) * 0.35
        view = np.where(inside, light * [1.0, 0.6, 0.5] + texture, 0)
        views[f"v{seed}"] = view.clip(0, 255).astype(np.uint8)
    return views


def test_hard_negatives_are_candidates_and_no_more(tmp_path):
    views = hard_negatives()
    for name, pixels in views.items():
        place(tmp_path, "mine", name, pixels)
    audit = look(tmp_path, lists(tmp_path, "mine", train="v0 v1 v2 v3", test="v4 v5 v6 v7"))
    assert audit.candidates > 0  # else they would not be hard
    assert audit.twins == []
    assert audit_text(audit).splitlines()[3] == "No duplicate between splits or sets."


def test_across_sets_and_within_one_split(tmp_path):
    for name, seeds in (("one", (0, 1, 2)), ("two", (1, 3, 3))):
        for k, seed in enumerate(seeds):
            place(tmp_path, name, f"{'abc'[k]}", scene(seed))
    one = lists(tmp_path, "one", all="a b c")
    two = lists(tmp_path, "two", train="a b c")
    audit = look(tmp_path, one, two)
    (leak,), (repeat,) = audit.leaks, audit.repeats
    assert (leak.one, leak.other, leak.between) == ("one/b", "two/a", [("one/all", "two/train")])
    assert (repeat.one, repeat.other, repeat.between) == ("two/b", "two/c", [])
    assert audit_json(audit)["leaks"] == audit_json(audit)["repeats"] == 1


def test_lists_that_overlap_and_lists_that_hold_others(tmp_path):
    for seed in range(4):
        place(tmp_path, "mine", f"a{seed}", scene(seed))
    mine = lists(tmp_path, "mine", all="a0 a1 a2 a3", train="a0 a1", test="a1 a2")
    audit = look(tmp_path, mine)
    (twins,) = audit.twins
    assert (twins.one, twins.other, twins.kind) == ("mine/a1", "mine/a1", "file")
    assert twins.between == [("mine/train", "mine/test")]
    assert sum("these are not compared" in remark for remark in audit.remarks) == 2


# --- what is kept


def test_a_second_audit_reads_nothing_and_a_change_is_seen(tmp_path, monkeypatch):
    for seed in range(3):
        place(tmp_path, "mine", f"a{seed}", scene(seed))
    mine = lists(tmp_path, "mine", train="a0 a1", test="a2")
    first = look(tmp_path, mine)
    with monkeypatch.context() as patch:
        patch.setattr(audit_module.search, "find_matches", None)  # would fail if called
        assert look(tmp_path, mine) == first
    place(tmp_path, "mine", "a2", scene(0))
    assert found(look(tmp_path, mine)) == {("mine/a0", "mine/a2", "exact", False)}
    for file in (tmp_path / "cache/audit").iterdir():
        file.write_bytes(b"damaged")
    assert found(look(tmp_path, mine)) == {("mine/a0", "mine/a2", "exact", False)}


def test_the_backbone_has_the_last_word(tmp_path):
    place(tmp_path, "mine", "a", scene(0))
    place(tmp_path, "mine", "b", COPIES["smaller"](scene(0)))
    mine = lists(tmp_path, "mine", train="a", test="b")

    for value, kept in ((0.95, 1), (0.8, 0)):
        features = FeatureLikeness("some", "ab" * 32, lambda asked, report, v=value: [v])
        audit = audit_sets([mine], tmp_path, tmp_path / f"{value}", QUIET, features)
        assert [t.features for t in audit.twins] == [value] * kept
        assert audit.features == "some, weights abababababab"


# --- the command


def test_the_command(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        place(tmp_path, "mine", name, scene(seed))
    lists(tmp_path, "mine", train="a", test="b c")
    own = tmp_path / "own.yaml"
    splits = "{train: train.txt, test: test.txt}"
    own.write_text(f"datasets: {{mine: {{title: M, task: cod, splits: {splits}}}}}\n")
    begin = ["data", "audit", "mine", "--no-features", "-q", "--data-root", str(tmp_path)]
    begin += ["--datasets", str(own)]
    env = {"LPMOE_BENCH_CACHE": str(tmp_path / "cache")}
    report = tmp_path / "report.md"
    text = CliRunner().invoke(app, [*begin, "-o", str(report)], env=env)
    assert text.exit_code == 0, text.output
    assert "mine/a (train) = mine/b (test): exact" in text.stdout
    assert "| mine/train and mine/test | train, test | 0 | 1 | 0 |" in report.read_text()
    assert str(tmp_path) not in report.read_text() + text.stdout
    machine = CliRunner().invoke(app, [*begin, "--json"], env=env)
    assert json.loads(machine.stdout)["leaks"] == 1
    missing = CliRunner().invoke(app, ["data", "audit", "camo", *begin[4:]], env=env)
    assert isinstance(missing.exception, DataError)
    assert "camo is not under" in str(missing.exception)


def test_markdown_names_every_finding():
    twins = Duplicate(one="a/x", one_splits=["a/train"], other="b/y", other_splits=["b/all"],
                  kind="near", mirrored=True, likeness=0.9,
                  between=[("a/train", "b/all")])  # fmt: skip
    text = audit_markdown(Audit(splits=[], twins=[twins]))
    assert text.startswith("1 duplicate between splits or sets.")
    assert "- a/x (train) = b/y (all): near, mirrored, structure 0.90" in text


# Likeness in a backbone's features, on drawn scenes, and what is said where there is none.


@pytest.fixture(scope="module")
def weights():
    return resolve_weights("vit_tiny_patch16_224", "random", Path())


def test_copies_are_alike_and_other_scenes_are_not(tmp_path, weights):
    one = write(tmp_path / "a.png", scene(0))
    turned = write(tmp_path / "b.png", np.ascontiguousarray(scene(0)[:, ::-1]))
    other = write(tmp_path / "c.png", scene(1))
    told = []
    asked = [(one, one, False), (one, turned, True), (one, turned, False), (one, other, False)]
    same, mirrored, unturned, unlike = feature_likeness(
        weights, [Question(*q) for q in asked], lambda done, total: told.append((done, total))
    )
    assert same == pytest.approx(1, abs=1e-5)
    assert mirrored == pytest.approx(1, abs=1e-3)
    assert max(unturned, unlike) < mirrored
    assert told == [(k, 4) for k in range(1, 5)]


def test_an_image_that_went_missing_is_a_sentence(tmp_path, weights):
    one = write(tmp_path / "a.png", scene(0))
    with pytest.raises(DataError, match=r"b\.png does not exist"):
        feature_likeness(weights, [Question(one, tmp_path / "b.png", False)])


def test_without_torch_or_weights_the_reason_is_said(tmp_path, monkeypatch):
    found, why = default_features(tmp_path, offline=True)
    assert found is None
    assert "offline" in why
    monkeypatch.setattr(likeness, "find_spec", lambda name: None)
    assert default_features(tmp_path, offline=False) == (None, "torch is not installed")


# Groups in an audit: frames and lesions are reported apart, by table, by number or by likeness.


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
    assert (groups.count, groups.images) == (2, 4)
    assert shared == {"film/train": ["1"], "film/test": ["2"]}
    assert "2 near duplicates within groups, by nature" in audit_text(audit)
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


# The audit of the real sets: what is known to be in two places is found, and nothing else.


@pytest.fixture(scope="module")
def audit_of(tmp_path_factory):
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
def test_the_known_pair_of_kvasir_and_no_other(audit_of):
    assert places(audit_of("kvasir_seg")) == [("kvasir_seg/test_0016", "kvasir_seg/train_0222")]


@pytest.mark.data
@pytest.mark.parametrize("name", ["camo", "ecssd"])
def test_sets_without_duplicates(audit_of, name):
    assert places(audit_of(name)) == []


@pytest.mark.data
@pytest.mark.slow
def test_leaves_of_one_shape_are_no_duplicates(audit_of):
    assert audit_of("coffee_leaf").twins == []


@pytest.mark.data
def test_one_photograph_of_camo_is_in_train_and_test_in_two_framings(audit_of):
    (twins,) = audit_of("camo").reframed
    assert (twins.one, twins.other) == ("camo/camourflage_00120", "camo/camourflage_00419")
    assert twins.between == [("camo/train", "camo/test")]


@pytest.mark.data
def test_sets_share_photographs(audit_of):
    audit = audit_of("camo", "cod10k_mini62", "ecssd")
    sets = [{one.partition("/")[0], other.partition("/")[0]} for one, other in places(audit)]
    assert sets.count({"camo", "ecssd"}) == 74
    assert sets.count({"camo", "cod10k_mini62"}) == 1


@pytest.mark.data
@pytest.mark.slow
def test_frames_and_lesions_are_groups(audit_of):
    film = audit_of("cvc_clinicdb")
    assert film.leaks == []
    assert (len(film.grouped) > 90, film.groups[0].count, film.groups[0].shared) == (True, 29, {})
    skin = audit_of("ham10000_small")
    assert (skin.leaks, skin.reframed, skin.repeats) == ([], [], [])
    assert len(skin.grouped) > 2
