"""datasets.yaml and a user's own file: what ships, and one sentence for all that is wrong."""

from pathlib import Path

import pytest

from lpmoe_bench.data.registry import load_registry
from lpmoe_bench.errors import UsageError
from lpmoe_bench.metrics.facts import METRICS
from lpmoe_bench.metrics.protocols import get_protocol
from lpmoe_bench.model.losses import get_loss

SET = "{title: Mine, task: cod, folder: mine"


def own(tmp_path, text) -> Path:
    path = tmp_path / "own.yaml"
    path.write_text(text, encoding="utf-8")
    return path


# --- the packaged file


def test_task_cod_as_it_ships():
    task = load_registry().task("cod")
    assert (task.protocol, task.loss, task.select) == ("cod", "structure", "s_measure")
    assert task.train == ["sinet_cod/train"]
    assert task.stand_in.train == ["camo/train"]
    assert task.stand_in.test == ["camo/test", "cod10k_mini62/all"]
    assert task.embedded == "generated_cod"
    assert task.recipe == {}


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
    assert set(registry.tasks) == eight | {"leaf_all"}
    for task in registry.tasks.values():
        assert task.select in METRICS, task.name
        assert METRICS[task.select].per_image, task.name
        assert get_protocol(task.protocol).name == task.protocol
        assert get_loss(task.loss)
        assert task.embedded == f"generated_{task.name.removesuffix('_all')}"
        used = [registry.split(reference) for reference in task.references]
        assert {dataset.task.removesuffix("_all") for dataset, _ in used} == {task.embedded[10:]}
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
        ("datasets: {mine: {task: cod}}", "key 'title': field required"),
        ("datasets: {mine: {base: /etc}}", "unknown key 'base'"),
        (f"datasets: {{mine: {SET}, counts: {{all: many}}}}}}", "key 'counts.all'"),
        (f"datasets: {{mine: {SET}, splits: {{}}}}}}", "splits or layouts must name at least one"),
        (f"datasets: {{mine: {SET}, layouts: [{{all: [../a, b]}}]}}}}", "key 'layouts.0.all.0.0'"),
        (f"datasets: {{mine: {SET}, layouts: [{{all: [a, /b]}}]}}}}", "key 'layouts.0.all.0.1'"),
        (f"datasets: {{mine: {SET}, layouts: [{{all: [a]}}]}}}}", "two folders .* or one table"),
        (f"datasets: {{mine: {SET}, layouts: [{{all: [a, b, c]}}]}}}}", "two folders .* or one"),
        (f"datasets: {{mine: {SET}, layouts: [{{all: [a.csv, b.csv]}}]}}}}", "two folders .* or"),
        (f"datasets: {{mine: {SET}, layouts: [{{../all: [a, b]}}]}}}}", "key 'layouts"),
        (f"datasets: {{mine: {SET}, splits: {{a/b: }}}}}}", "key 'splits.a/b"),
        (f"datasets: {{mine: {SET}, object: white}}}}", "key 'object'"),
        (f"datasets: {{mine: {SET}, archives: [{{url: 'file:///a'}}]}}}}", "archives.0.url"),
        (f"datasets: {{mine: {SET}, archives: [{{url: 'http://h/a.zip', checksum: 1}}]}}}}",
         "archives.0.checksum"),
        (f"datasets: {{mine: {SET}, counts: {{al: 3}}}}}}", "data set 'mine': unknown split"),
        (f"datasets: {{mine: {SET.replace('cod', 'cood')}}}}}", "did you mean 'cod'"),
        (f"datasets: {{a/b: {SET}}}}}", "key 'name'"),
        (f"datasets: {{camo: {SET}}}}}", "data set 'camo' exists already"),
        ("tasks: {cod: {}}", "task 'cod' exists already"),
        (f"datasets:\n  m: {SET}}}\n  m: {SET}}}\n", "line 2 is not valid YAML: 'm' stands twice"),
        ("tasks: {t: {title: T, protocol: cod, loss: l, select: s, train: [camo], test: [a/b]}}",
         "task 't': 'camo' names no split"),
        ("tasks: {t: {title: T, protocol: cod, loss: l, select: s, train: [], test: [camo/test]}}",
         "key 'train'"),
        ("a: !!python/object/apply:os.system [echo hacked]", "not valid YAML"),
        ("[" * 2000, "(nested too deeply|not valid YAML)"),
    ],
)  # fmt: skip
def test_broken_files_of_a_user(tmp_path, text, sentence):
    path = own(tmp_path, text)
    with pytest.raises(UsageError, match=sentence) as caught:
        load_registry(path)
    assert "\n" not in str(caught.value)


def test_file_of_a_user_that_cannot_be_read(tmp_path):
    with pytest.raises(UsageError, match="cannot be read"):
        load_registry(tmp_path / "none.yaml")
    (tmp_path / "own.yaml").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(UsageError, match="UTF-8"):
        load_registry(tmp_path / "own.yaml")
