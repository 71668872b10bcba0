"""The registry of data sets, and what a file of it may say."""

import shutil
from pathlib import Path

import pytest
from drawn_files import fill

from lpmoe_bench.data.audit.groups import known_groups, varying_groups
from lpmoe_bench.data.library.verify import verify_set
from lpmoe_bench.data.pairs import split_pairs
from lpmoe_bench.data.registry import Groups, load_registry
from lpmoe_bench.data.scenes import generate
from lpmoe_bench.data.scenes.generate import ensure_generated
from lpmoe_bench.data.tasks import Folders, open_split, resolve
from lpmoe_bench.errors import DataError, UsageError
from lpmoe_bench.metrics.facts import METRICS
from lpmoe_bench.metrics.protocols import get_protocol
from lpmoe_bench.model.losses import get_loss


@pytest.fixture
def root(tmp_path):
    """A data root with a tiny camo and cod10k_mini62."""
    root = tmp_path / "data"
    fill(root / "camo", ("train.txt", ["a", "b", "c"]), ("test.txt", ["x", "y"]))
    fill(root / "cod10k_mini62", ("all.txt", ["p"]))
    return root


@pytest.fixture
def tiny(monkeypatch):
    """Make the embedded set small; returns the calls."""
    calls = []

    def small(name, place, report=None):
        calls.append(name)
        counts = {"train": 3, "test": 2}
        return ensure_generated(name, place, report, counts=counts, shape=(48, 64))

    monkeypatch.setattr(generate, "ensure_generated", small)
    return calls


PLACES = {"cache": Path()}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Keep manifests apart from the sets."""
    monkeypatch.setitem(PLACES, "cache", tmp_path / "cache")


def find(root, generated_root=None, datasets=None, task="cod", **options):
    registry, cache = load_registry(datasets), generated_root or PLACES["cache"]
    return resolve(registry.task(task), registry, root, generated_root=cache, **options)


def own(tmp_path, text) -> Path:
    path = tmp_path / "own.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_few_lines_add_a_set_and_a_task(tmp_path, root):
    fill(tmp_path / "mine", ("train.txt", ["k", "l"]))
    path = own(
        tmp_path,
        "tasks:\n  mine: {title: Mine, protocol: cod, loss: structure, select: s_measure,"
        " train: [mine/train], test: [mine/every, camo/test]}\n"
        "datasets:\n  mine: {title: Mine, task: mine, folder: mine,"
        " splits: {train: train.txt, every: null}}\n",
    )
    data = find(root, datasets=path, task="mine")  # found beside the file
    assert data.train.label == "mine/train"
    assert [split.label for split in data.tests] == ["mine/every", "camo/test"]
    assert "camo" in load_registry(path).datasets


def test_real_sets_are_found_and_their_counts_compared(root, tiny):
    data = find(root)
    assert tiny == []  # nothing is drawn
    assert data.train.label == "camo/train"
    assert [p.name for p in data.train.pairs] == ["a", "b", "c"]
    assert [s.label for s in data.tests] == ["camo/test", "cod10k_mini62/all"]
    assert not data.train.generated
    text = "\n".join(data.notes)
    assert "camo/train: 3 pairs counted, officially 1000" in text
    assert "camo/test: 2 pairs counted, officially 250" in text
    assert "cod10k_mini62/all: a local split" in text
    assert "sinet_cod/train is not in the data folder" in text
    assert "training on camo/train in its place" in text


def test_the_tasks_own_sets_go_before_its_stand_ins(tmp_path, root):
    for split in ("train", "test_camo"):
        fill(root / "sinet_cod" / split, ("unused.txt", ["s", "t"]))
    data = find(root)
    assert data.train.label == "sinet_cod/train"
    assert [s.label for s in data.tests] == ["sinet_cod/test_camo"]  # camo/test is its double
    text = "\n".join(data.notes)
    assert "in its place" not in text
    assert "sinet_cod/test_nc4k is not in the data folder" in text
    assert "2 pairs counted, officially 4040 (a figure not confirmed)" in text


def test_a_complete_set_is_not_complained_of(root):
    stems = [f"p{i}" for i in range(62)]
    fill(root / "cod10k_mini62", ("all.txt", stems))
    split = open_split(*load_registry().split("cod10k_mini62/all"), root)
    assert split is not None
    assert len(split.pairs) == 62
    assert "counted" not in split.note


def test_a_missing_test_set_is_left_out_with_a_note(root):
    (root / "cod10k_mini62").rename(root / "elsewhere")
    data = find(root)
    assert [s.label for s in data.tests] == ["camo/test"]
    assert any(n.startswith("cod10k_mini62/all is not in the data folder") for n in data.notes)


def test_without_training_data_the_embedded_set_stands_in(tmp_path, tiny):
    data = find(None, tmp_path)
    assert data.train.label == "generated_cod/train"
    assert [s.label for s in data.tests] == ["generated_cod/test"]
    assert (len(data.train.pairs), len(data.tests[0].pairs)) == (3, 2)
    assert data.train.generated
    assert data.tests[0].generated
    (note,) = data.notes
    assert "LPMOE_BENCH_DATA is not set" in note
    assert "say nothing about real images" in note


def test_embedded_training_keeps_the_real_tests_that_are_there(tmp_path, root, tiny):
    (root / "camo").rename(root / "elsewhere")
    data = find(root, tmp_path)
    assert [s.label for s in data.tests] == ["generated_cod/test", "cod10k_mini62/all"]
    assert "sinet_cod/train, camo/train is not in the data folder" in data.notes[0]


def test_embedded_set_on_request(tmp_path, root, tiny):
    told = []
    data = find(root, tmp_path, embedded=True, report=lambda done, total: told.append(done))
    assert [s.label for s in (data.train, *data.tests)] == ["generated_cod/train",
                                                            "generated_cod/test"]  # fmt: skip
    assert "asked for" in data.notes[0]
    assert told == [1, 2, 3, 4, 5]
    # A data folder that is not there does not matter then.
    assert find(tmp_path / "nowhere", tmp_path, embedded=True).train == data.train


def test_a_damaged_embedded_set_says_how_to_repair_it(tmp_path, tiny):
    find(None, tmp_path).train.pairs[0].mask.unlink()
    with pytest.raises(
        DataError, match=r"is missing, or not as it was drawn: delete .*generated_cod"
    ):
        find(None, tmp_path)


def test_data_folder_that_does_not_exist(tmp_path):
    with pytest.raises(DataError, match=r"nowhere does not exist; correct --data-root"):
        find(tmp_path / "nowhere")


TWO = (
    "tasks:\n  two: {title: Two, protocol: cod, loss: structure, select: s_measure,"
    " train: [camo/train, second/all], test: [camo/test]}\n"
    "datasets:\n  second: {title: Second, task: two, folder: second}\n"
)


def test_two_training_sets_are_joined(tmp_path, root):
    fill(root / "second", ("all.txt", ["a", "z"]))
    data = find(root, datasets=own(tmp_path, TWO), task="two")
    assert data.train.label == "camo+second/train+all"
    assert [p.name for p in data.train.pairs] == [
        "camo-a", "camo-b", "camo-c", "second-a", "second-z"
    ]  # fmt: skip


def test_half_or_none_of_the_training_sets_is_an_error(tmp_path, root):
    with pytest.raises(DataError, match="needs second/all, which is not in the data folder"):
        find(root, datasets=own(tmp_path, TWO), task="two")
    with pytest.raises(DataError, match="task two has no embedded set; get camo/train, second/all"):
        find(None, datasets=own(tmp_path, TWO), task="two")


def test_list_that_is_missing_or_names_too_much(root):
    (root / "camo" / "train.txt").write_text("a\nnobody\n")
    with pytest.raises(DataError, match=r"nobody \(no image or mask\)"):
        find(root)
    (root / "camo" / "train.txt").unlink()
    with pytest.raises(DataError, match=r"train\.txt cannot be read"):
        find(root)


def test_own_folders_win(tmp_path, root):
    mine = fill(tmp_path / "mine", ("list.txt", ["k", "l"]))
    folders = Folders(mine / "images", mine / "masks", root / "camo/images", root / "camo/masks")
    data = find(root, folders=folders)
    assert [s.label for s in (data.train, *data.tests)] == ["own/train", "own/test"]
    assert (len(data.train.pairs), len(data.tests[0].pairs)) == (2, 5)
    assert data.notes == []


def test_own_folders_that_are_wrong(tmp_path, root):
    mine = fill(tmp_path / "mine", ("list.txt", ["k", "l"]))
    same = Folders(mine / "images", mine / "masks", mine / "images", mine / "masks")
    assert "same folder" in find(None, folders=same).notes[0]
    with pytest.raises(UsageError, match="both asked for"):
        find(None, folders=same, embedded=True)
    with pytest.raises(DataError, match="none cannot be opened"):
        find(None, folders=Folders(mine / "none", mine / "masks", mine / "images", mine / "masks"))


# datasets.yaml and a user's own file: what ships, and one sentence for all that is wrong.


SET = "{title: Mine, task: cod, folder: mine"


# --- the packaged file


def test_every_packaged_set_says_where_it_is_from():
    for item in load_registry().datasets.values():
        assert item.page.startswith(("https://", "http://")), item.name
        assert item.licence, item.name
        assert item.archives or item.by_hand or item.local, item.name
        assert set(item.counts) >= set(item.splits), item.name
        assert item.is_confirmed("all") or item.confirmed is not True


def test_the_tasks_of_the_field_are_complete():
    registry = load_registry()
    eight = {"cod", "sod", "polyp", "skin", "shadow", "glass", "leaf", "road"}
    real = {"dis", "crack", "building", "breast", "vessel", "gland", "defocus"}  # nothing is drawn
    classes = {"camvid", "leaf3", "trans10k_v2", "ade20k", "cityscapes", "voc", "coco_stuff",
               "loveda"}  # fmt: skip
    objects = {"pennfudan", "nuclei", "bccd", "coco", "coco_panoptic", "cityscapes_instances"}
    drawn = {"instance", "detection", "panoptic"}
    known = eight | {"leaf_all"} | real | classes | {"semantic"} | objects | drawn
    assert set(registry.tasks) == known
    assert {registry.task(name).kind for name in objects} == drawn
    assert all(registry.task(name).kind == name for name in drawn)
    for task in registry.tasks.values():
        if task.name in objects | drawn:
            continue
        if task.name in classes | {"semantic"}:
            assert task.kind == "semantic"
            continue
        assert task.select in METRICS, task.name
        assert METRICS[task.select].per_image, task.name
        assert get_protocol(task.protocol).name == task.protocol
        assert get_loss(task.loss)
        name = task.name.removesuffix("_all")
        assert task.embedded == ("" if task.name in real else f"generated_{name}")
        used = [registry.split(reference) for reference in task.references]
        assert {dataset.task.removesuffix("_all") for dataset, _ in used} == {name}
        for references, role in ((task.train, "train"), (task.stand_in.train, "train"),
                                 (task.test, "test"), (task.stand_in.test, "test")):  # fmt: skip
            for dataset, split in map(registry.split, references):
                assert dataset.role(split) == role, (task.name, dataset.name, split)


def test_figures_that_are_only_remembered_are_not_confirmed():
    registry = load_registry()
    for reference, sure in {
        "sinet_cod/train": False,
        "sinet_cod/test_nc4k": True,
        "isic2016/train": True,
        "isic2016/test": False,
        "isic2018/train": False,
        "sbu/train": False,
        "istd/train": True,
        "gdd/test": False,
        "massachusetts_roads/train": True,
    }.items():
        dataset, split = registry.split(reference)
        assert dataset.is_confirmed(split) is sure, reference


def test_unknown_names_get_a_suggestion():
    registry = load_registry()
    with pytest.raises(UsageError, match="unknown task 'cood'; did you mean 'cod'"):
        registry.task("cood")
    with pytest.raises(UsageError, match="unknown data set 'cam0'; did you mean 'camo'"):
        registry.dataset("cam0")
    with pytest.raises(UsageError, match="unknown split of camo 'tests'; did you mean 'test'"):
        registry.split("camo/tests")
    with pytest.raises(UsageError, match="names no split"):
        registry.split("camo")


# --- a user's own file

TASK = "title: T, protocol: cod, loss: structure, select: iou"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("tasks: [", "line 1 is not valid YAML"),
        ("a: b: c", "line 1 is not valid YAML"),
        ("- a", "must hold the sections"),
        ("", "must hold the sections"),
        ("dataset: {}", "unknown section 'dataset'; did you mean 'datasets'"),
        ("datasets: [a]", "must hold entries by name"),
        ("datasets: {a: b}", "data set 'a' must hold settings by name"),
        ("datasets: {mine: {titel: x}}", "unknown key 'titel'; did you mean 'title'"),
        ("datasets: {mine: {task: cod}}", "key 'title' is missing; add a line such as"),
        ("datasets: {mine: {base: /etc}}", "unknown key 'base'"),
        (f"datasets: {{mine: {SET}, counts: {{all: many}}}}}}", "key 'counts.all'"),
        (f"datasets: {{mine: {SET}, splits: {{}}}}}}", "splits or layouts must name at least one"),
        (f"datasets: {{mine: {SET}, layouts: [{{all: [../a, b]}}]}}}}", "key 'layouts.0.all.0.0'"),
        (f"datasets: {{mine: {SET}, layouts: [{{all: [a, /b]}}]}}}}", "key 'layouts.0.all.0.1'"),
        (f"datasets: {{mine: {SET}, layouts: [{{all: [a]}}]}}}}", "two places .* or one table"),
        (f"datasets: {{mine: {SET}, layouts: [{{all: [a, b, c]}}]}}}}", "two places .* or one"),
        (f"datasets: {{mine: {SET}, layouts: [{{all: [a.csv, b.csv]}}]}}}}", "two places .* or"),
        (f"datasets: {{mine: {SET}, layouts: [{{../all: [a, b]}}]}}}}", "key 'layouts"),
        (f"datasets: {{mine: {SET}, splits: {{a/b: }}}}}}", "key 'splits.a/b"),
        (f"datasets: {{mine: {SET}, object: white}}}}", "object is 'white'; it is a value"),
        (f"datasets: {{mine: {SET}, object: 1.5}}}}", "key 'object.*and not 1.5"),
        (f"datasets: {{mine: {SET}, layouts: [{{all: ['a\\b', c]}}]}}}}", "with forward slashes"),
        (f"datasets: {{mine: {SET}, groups: {{what: case, pattern: '(a'}}}}}}", "no regular expr"),
        (f"datasets: {{mine: {SET}, groups: {{what: case, pattern: 'a'}}}}}}", "has 0 groups in"),
        (f"datasets: {{mien: {SET}, override: true}}}}", "corrects an entry that is there"),
        ("tasks: {t: {title: T, loss: structure, select: iou, train: [camo/train]}}",
         "key 'protocol' is missing; add a line such as `protocol: cod`; one of cod, cod_matlab"),
        (f"tasks: {{t: {{{TASK.replace('structure', 'dice')}, train: [camo/train], "
         "test: [camo/test]}}", "unknown loss 'dice'; did you mean 'bce_dice'"),
        (f"tasks: {{t: {{{TASK.replace('protocol: cod', 'protocol: codd')}, train: [camo/train], "
         "test: [camo/test]}}", "unknown protocol 'codd'; did you mean 'cod'"),
        (f"tasks: {{t: {{{TASK.replace('iou', 'iouu')}, train: [camo/train], test: [camo/test]}}}}",
         "unknown metric 'iouu'; did you mean 'iou'"),
        (f"datasets: {{mine: {SET}, archives: [{{url: 'file:///a'}}]}}}}", "archives.0.url"),
        (f"datasets: {{mine: {SET}, archives: [{{url: 'http://h/a.zip', checksum: 1}}]}}}}",
         "archives.0.checksum"),
        (f"datasets: {{mine: {SET}, counts: {{al: 3}}}}}}", "data set 'mine': unknown split"),
        (f"datasets: {{mine: {SET.replace('cod', 'cood')}}}}}", "did you mean 'cod'"),
        (f"datasets: {{a/b: {SET}}}}}", "key 'name'"),
        (f"datasets: {{camo: {SET}}}}}", "data set 'camo' exists already"),
        ("tasks: {cod: {}}", "task 'cod' exists already"),
        (f"datasets:\n  m: {SET}}}\n  m: {SET}}}\n", "line 3 is not valid YAML: 'm' stands twice"),
        (f"tasks: {{t: {{{TASK}, train: [camo], test: [a/b]}}}}",
         "task 't': 'camo' names no split"),
        (f"tasks: {{t: {{{TASK}, train: [], test: [camo/test]}}}}",
         "key 'train'"),
        ("a: !!python/object/apply:os.system [echo hacked]", "not valid YAML"),
        ("[" * 600, "(nested too deeply|not valid YAML)"),
    ],
)  # fmt: skip
def test_broken_files_of_a_user(tmp_path, text, sentence):
    path = own(tmp_path, text)
    with pytest.raises(UsageError, match=sentence) as caught:
        load_registry(path)
    assert "\n" not in str(caught.value)


def test_several_files_and_an_entry_that_is_corrected(tmp_path):
    one, other = tmp_path / "one.yaml", tmp_path / "other.yaml"
    one.write_text(f"datasets: {{mine: {SET}}}}}\n")
    other.write_text(
        "datasets:\n"
        "  camo: {override: true, counts: {train: 996}, layouts: [{train: [a, b], test: [c, d]}]}\n"
        "  mine: {override: true, note: mine}\n"
        "tasks: {cod: {override: true, loss: bce_dice}}\n"
    )
    registry, shipped = load_registry([one, other]), load_registry()
    camo = registry.dataset("camo")
    assert camo.counts == {"train": 996, "test": 250}
    assert camo.layouts == [{"train": [["a", "b"]], "test": [["c", "d"]]}]
    assert camo.page == shipped.dataset("camo").page
    assert registry.dataset("mine").note == "mine"
    assert registry.task("cod") == shipped.task("cod").model_copy(update={"loss": "bce_dice"})
    with pytest.raises(UsageError, match=r"'mine' exists already; .* `override: true`"):
        load_registry([one, one])


def test_a_set_that_is_there_in_another_layout_is_not_called_missing(tmp_path):
    (tmp_path / "mine/rgb").mkdir(parents=True)
    path = own(tmp_path, f"datasets: {{mine: {SET}, layouts: [{{all: [rgbb, masks]}}]}}}}")
    with pytest.raises(DataError, match=r"is in .*, but none of its splits: looked for rgbb \+"):
        verify_set(load_registry(path).dataset("mine"), None)


@pytest.mark.parametrize(
    ("rule", "names", "groups"),
    [
        ({"folder": True}, ["a/1", "a/2", "b/c/1", "x"], {"a/1": "a", "a/2": "a", "b/c/1": "b/c"}),
        ({"pattern": "(case[0-9]+)_"}, ["case1_1/f", "case1_3/g", "case12_1/h", "no"],
         {"case1_1/f": "case1", "case1_3/g": "case1", "case12_1/h": "case12"}),
    ],
)  # fmt: skip
def test_groups_told_by_names(tmp_path, rule, names, groups):
    dataset = (
        load_registry()
        .dataset("camo")
        .model_copy(update={"groups": Groups.model_validate({"what": "video", **rule})})
    )
    found, source = known_groups(dataset, tmp_path, names)
    assert found == groups
    assert source.startswith("videos of 3 images by their")


def test_long_videos_are_cut_into_stretches_for_statistics_alone(tmp_path):
    rule = {"what": "video", "pattern": "(a|b)_", "stretch": 3}
    groups = Groups.model_validate(rule)
    dataset = load_registry().dataset("camo").model_copy(update={"groups": groups})
    # In the order of their numbers, whatever the order of the list; x is of no video.
    names = [f"a_{number}" for number in (10, 9, 8, 7, 11, 100, 1)] + ["b_2", "b_1", "x"]
    assert varying_groups(dataset, None, names) == {
        **{f"a_{number}": "a stretch 1" for number in (1, 7, 8)},
        **{f"a_{number}": "a stretch 2" for number in (9, 10, 11)},
        **{"a_100": "a stretch 3", "b_1": "b stretch 1", "b_2": "b stretch 1"},
    }
    # A leak between splits is one of the whole video.
    assert {*known_groups(dataset, None, names)[0].values()} == {"a", "b"}
    assert groups.unit == "stretch of 3 images of a video"
    whole = dataset.model_copy(update={"groups": groups.model_copy(update={"stretch": 0})})
    assert varying_groups(whole, None, names) == known_groups(whole, None, names)[0]
    with pytest.raises(ValueError, match="stretch cuts groups: give a table"):
        Groups.model_validate({"what": "video", "alike": True, "stretch": 3})


def test_frames_of_a_case_of_sun_seg_are_one_group(tmp_path):
    fill(tmp_path / "x", ("l.txt", ["f1", "f2"]))
    for clip in ("case1_1", "case1_3", "case2_1"):
        for kind, source in (("Frame", "images"), ("GT", "masks")):
            shutil.copytree(tmp_path / "x" / source, tmp_path / f"s/TrainDataset/{kind}/{clip}")
    sun = load_registry().dataset("sun_seg")
    pairs = split_pairs(sun, tmp_path / "s", "train") or []
    assert len(pairs) == 6
    groups, _ = known_groups(sun, tmp_path / "s", [pair.name for pair in pairs])
    assert sorted(groups.values()) == ["case1"] * 4 + ["case2"] * 2


def test_a_validation_split_belongs_to_the_training_split_of_its_name():
    registry = load_registry()
    for reference, expected in {
        "isic2017/train": "val",
        "coffee_leaf/train_with_symptom": "val_with_symptom",
        "kvasir_seg/train": "val",
        "dis5k/train": "val",
        "camo/train": "",
        "isic2017/test": "",
    }.items():
        dataset, split = registry.split(reference)
        assert dataset.validation_of(split) == expected, reference


def test_file_of_a_user_that_cannot_be_read(tmp_path):
    with pytest.raises(UsageError, match="cannot be read"):
        load_registry(tmp_path / "none.yaml")
    (tmp_path / "own.yaml").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(UsageError, match="UTF-8"):
        load_registry(tmp_path / "own.yaml")
