"""The report: the page and its pictures."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
from report_records import HOSTILE, IMAGES, draw_maps, draw_set, draw_two, report, stored
from typer.testing import CliRunner

from lpmoe_bench.cli.app import app
from lpmoe_bench.data.pairs import read_pair
from lpmoe_bench.errors import DataError, UsageError
from lpmoe_bench.metrics.engine import quick_score
from lpmoe_bench.metrics.protocols import COD
from lpmoe_bench.records.context import keep_only, parse_only
from lpmoe_bench.records.store import find_records, image_rows, read_record, read_rows, write_record
from lpmoe_bench.report.contents import Selection, gather_contents
from lpmoe_bench.report.plots import clean


class Parts(HTMLParser):
    """Elements of a page with their attributes, and the text of headings."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.heads: list[str] = []
        self.inside = ""
        self.feed(text)

    def handle_starttag(self, name, attributes):
        self.tags.append((name, dict(attributes)))
        self.inside = name

    def handle_data(self, data):
        if self.inside in ("h1", "h2", "h3"):
            self.heads.append(data)
            self.inside = ""

    def count(self, name: str) -> int:
        return sum(found == name for found, _ in self.tags)


def three(root: Path) -> None:
    for seed in range(3):
        stored(root, "lora", seed, 0.05)
        stored(root, "vpt", seed)
        stored(root, "decoder_only", seed, -0.05)


def test_signs_that_deceive_are_replaced_and_others_stay():
    assert clean("a\u202eb\ud800\x00\tc") == "a\ufffdb\ufffd\ufffd\tc"
    assert clean("мета 方法 é") == "мета 方法 é"


def test_a_hostile_name_stays_text_everywhere(tmp_path):
    name = clean(HOSTILE)
    method = {"name": name, "title": name}
    facts = {"label": name, "digest": "22" * 32, "images": IMAGES, "note": name}
    for seed in (0, 1):
        stored(
            tmp_path / "runs",
            "lora",
            seed,
            method=method,
            task=name,
            test=name,
            notes=[name],
            data={"tests": [facts]},
            backbone={"name": name, "weights_source": name, "licence": name, "note": name},
        )
        stored(tmp_path / "runs", "vpt", seed, task=name, test=name, data={"tests": [facts]})
    text = report(tmp_path / "runs", tmp_path / "report", "--title", name)
    parts = Parts(text)
    assert parts.count("script") == parts.count("style") == 1
    assert parts.count("img") == 0
    assert not [key for _, found in parts.tags for key in found if key.startswith("on")]
    assert name in parts.heads


def test_the_policy_names_the_very_script_and_style_and_no_place(tmp_path):
    stored(tmp_path / "runs")
    text = report(tmp_path / "runs", tmp_path / "report")
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy is not None
    rules = dict(rule.strip().split(" ", 1) for rule in policy[1].split(";"))
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert rules["img-src"] == "data:"
    for kind in ("script", "style"):
        (inside,) = re.findall(rf"<{kind}>(.*?)</{kind}>", text, re.S)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert rules[f"{kind}-src"] == f"'sha256-{digest}'"
    parts = Parts(text)
    places = [v for _, found in parts.tags for k, v in found.items() if k in ("src", "href")]
    assert places
    assert all(str(place).startswith("#") for place in places)
    assert not [found for _, found in parts.tags if "style" in found]


def test_everything_is_there(tmp_path):
    three(tmp_path / "runs")
    text = report(tmp_path / "runs", tmp_path / "report", "--title", "Mine")
    heads = Parts(text).heads
    assert heads[:3] == ["Mine", "About", "cod · CAMO"]
    assert {"Who is better, and how sure", "Score against cost", "All records"} <= set(heads)
    for seed in range(3):
        for name in ("lora", "vpt", "decoder_only"):
            assert f"cod/{name}/small/{name:0<12}-s{seed}" in text
    assert "Of 2 rows less Decoder only, 2 better" in text
    assert "9 records of 3 methods on 1 test set, in 1 table" in text
    assert "resized copies" not in text  # the facts of these records have no such note


def test_a_table_longer_than_can_be_read_shows_the_best_and_says_so(tmp_path):
    for number in range(105):
        name = f"{number:03}"
        stored(
            tmp_path / "runs",
            shift=0.001 * number,
            fingerprint=name * 21 + "0",
            method={"name": name, "title": f"m{name}"},
            costs={"inference_images_per_second": 100.0 + number, "peak_memory_bytes": 2**30},
        )
    text = report(tmp_path / "runs", tmp_path / "report")
    assert len(re.findall(r'<tr data-name="m\d+ \d+"><th', text)) == 105 + 40  # and by size
    ((dots, words),) = re.findall(r"<figure><svg(.*?)</svg><figcaption>(.*?)</fig", text, re.S)
    assert "On the front: m104. Drawn are the front and the best of the others, 60 of 105" in words
    drawn = {f"m{n:03}" for n in range(45, 105)}
    assert set(re.findall(r'class="mark" data-name="(m\d+) ', dots)) == drawn
    assert "All rows have the same: trainable parameters (M), decoder included; " in text
    assert "peak memory of training (GiB)." in text
    assert text.count("Only the images of the 40 best of 105 rows are read") == 1
    assert text.count("Only the curves of the 40 best of 105 rows are read") == 1
    curves = re.findall(r'<figure class="small" data-name="m(\d+) ', text)
    assert curves == [f"{n:03}" for n in range(65, 105)] * 2
    assert re.search(r"leaves out \d+ columns that shorter ones show on demand", text)


def test_titles_of_one_test_set_say_in_words_what_differs(tmp_path):
    stored(tmp_path / "runs", "lora", train={"limit_train": 150})
    stored(tmp_path / "runs", "vpt")
    stored(tmp_path / "runs", "decoder_only", decoder={"name": "linear", "options": {}})
    text = report(tmp_path / "runs", tmp_path / "report")
    assert re.findall(r"<h2[^>]*>(cod[^<]*)</h2>", text) == [
        "cod · CAMO (decoder fpn (width 64), limit train 150)",
        "cod · CAMO (decoder fpn (width 64), limit train all)",
        "cod · CAMO (decoder linear, limit train all)",
    ]


def test_one_record_without_rows_and_curve(tmp_path):
    one = stored(tmp_path / "runs")
    for name in ("per_image.csv", "curve.csv"):
        (one.folder / name).unlink()
    text = report(tmp_path / "runs", tmp_path / "report")
    assert "One row: there is nothing to compare it with." in text
    assert "per_image.csv does not exist" in text
    assert "No curve of LoRA" in text
    assert "One seed of each method" in text
    assert "One row: its costs stand in the table." in text


def test_scores_that_are_missing_or_no_number(tmp_path):
    scores = {"s_measure": None, "e_mean": 0.5, "weighted_f": None, "mae": 0.1}
    stored(tmp_path / "runs", "lora", scores=scores)
    stored(tmp_path / "runs", "vpt", scores=scores)
    broken = stored(tmp_path / "runs", "decoder_only")
    run = json.loads((broken.folder / "run.json").read_text())
    run["scores"]["CAMO"]["s_measure"] = float("nan")
    (broken.folder / "run.json").write_text(json.dumps(run))
    (broken.folder / "per_image.csv").write_text("dataset,image,s_measure\nCAMO,a,nan\nCAMO,b,x\n")
    (tmp_path / "runs" / "damaged").mkdir()
    (tmp_path / "runs" / "damaged" / "run.json").write_text("{")
    text = report(tmp_path / "runs", tmp_path / "report")
    assert ">n/a<" in text
    assert "nan" not in text.replace("no name", "")
    assert "Fewer than two rows have both a score and a cost." in text
    assert "damaged, or no record" in text


def test_hundreds_of_records_stay_a_page(tmp_path):
    names = [f"Method {number}" for number in range(100)]
    for number, title in enumerate(names):
        for seed in (0, 1):
            method = {"name": f"m{number}", "title": title}
            stored(tmp_path / "runs", "lora", seed, method=method, fingerprint=f"{number:064}")
    text = report(tmp_path / "runs", tmp_path / "report")
    assert len(text) < 3_000_000
    assert all(f">{title}<" in text for title in names)
    assert "Only the 24 best of 100 rows are compared" in text


def test_twice_the_rows_are_twice_the_work(tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr(
        "lpmoe_bench.report.images.image_rows",
        lambda folder, test: read.append(folder) or image_rows(folder, test),
    )
    grown = []
    for count in (15, 30):
        for number in range(count):
            method = {"name": f"m{number}", "title": f"Method {number}"}
            root = tmp_path / str(count)
            stored(root, "lora", number % 3, method=method, fingerprint=f"{number:064}")
        size = len(report(root, tmp_path / "report"))
        grown.append((len(read), size))
        read.clear()
    (reads, size), (more_reads, more_size) = grown
    assert (reads, more_reads) == (15, 30)
    assert more_size < 2 * size


def test_choices_narrow_the_records(tmp_path):
    stored(tmp_path, "lora", train={"limit_train": 150})
    stored(tmp_path, "vpt")
    stored(tmp_path, "decoder_only", task="sod", test="ecssd")
    found = find_records([tmp_path])
    assert [one.test for one in gather_contents(found, Selection()).tables] == [
        "CAMO",
        "CAMO",
        "ecssd",
    ]
    few = gather_contents(found, Selection(only=parse_only(["train.limit_train=150"])))
    assert [record.method.name for record in few.records] == ["lora"]
    none = gather_contents(
        found, Selection(task="cod", only=parse_only(["train.limit_train=none"]))
    )
    assert [record.method.name for record in none.records] == ["vpt"]
    maps = [
        stored(tmp_path, "vpt", 5 + n, kind="score", test=t) for n, t in ((0, "CAMO"), (1, "SBU"))
    ]
    with_maps = keep_only([*found.stored, *maps], parse_only(["train.limit_train=150"]))
    assert [one.record.kind for one in with_maps] == ["run", "score"]
    assert [one.record.seed for one in with_maps] == [0, 5]
    assert gather_contents(found, Selection(metric="mae")).tables[0].score.key == "mae"
    for choice, words in (
        (Selection(only=(("train.limit_trian", "1"),)), "did you mean 'train.limit_train'"),
        (Selection(only=(("train.limit_train", "7"),)), "there is 150, none"),
        (Selection(metric="maee"), "did you mean 'mae'"),
        (Selection(task="codd"), "did you mean 'cod'"),
    ):
        with pytest.raises(UsageError, match=words):
            gather_contents(found, choice)
    with pytest.raises(UsageError, match="write it as name=value"):
        parse_only(["rank"])
    with pytest.raises(DataError, match="there is no record"):
        gather_contents(find_records([]), Selection())


# The disputed images of the report: shown only where they are proven to be those scored.


@pytest.fixture
def drawn(tmp_path):
    """A data root with a set of two-coloured images, a registry that knows it, and its split."""
    return draw_set(tmp_path)


def pictured(tmp_path, drawn, digest: str | None = None, *more: str) -> str:
    own, split = drawn
    draw_two(tmp_path / "runs", digest or split.digest)
    place = ["--data-root", str(tmp_path / "data"), "--datasets", str(own)]
    return report(tmp_path / "runs", tmp_path / "report", *place, *more)


def test_pictures_stand_in_the_page_with_a_warning(tmp_path, drawn):
    text = pictured(tmp_path, drawn, None, "--count", "3")
    sources = re.findall(r'<img src="data:image/(jpeg|png);base64,([^"]+)"', text)
    assert len(sources) == 3 * (2 + 2 * 2)  # image and mask, a map and its errors of two methods
    pixels = [
        cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_UNCHANGED)
        for _, data in sources
    ]
    assert {picture.shape[:2] for picture in pixels} == {(24, 32)}
    assert "This file holds images of data sets (tiny/test)" in text


def test_no_images_on_request(tmp_path, drawn):
    text = pictured(tmp_path, drawn, None, "--no-images")
    assert "data:image" not in text
    assert "This file holds images" not in text
    assert "left out on request" in text


def test_other_images_than_those_scored_are_not_shown(tmp_path, drawn):
    text = pictured(tmp_path, drawn, "33" * 32)
    assert "data:image" not in text
    assert "are others than those that were scored" in text


def test_without_maps_images_are_listed_with_scores_and_a_command(tmp_path):
    for name, shift in (("lora", 0.05), ("vpt", 0.0), ("decoder_only", -0.05)):
        stored(tmp_path / "runs", name, 0, shift)
    text = report(tmp_path / "runs", tmp_path / "report")
    assert "No maps are kept of Decoder only, VPT, LoRA" in text
    assert "runtime.save_predictions=true" in text
    assert "predict RUN IMAGES -o RUN/predictions/SET" in text
    assert len(re.findall(r'<th scope="row"[^>]*>img\d\d</th>', text)) == 8


def test_maps_of_scored_records_are_found_where_the_user_says(tmp_path, drawn):
    own, split = drawn
    facts = {"label": "tiny/test", "digest": split.digest, "images": IMAGES}
    other = {"method": {"name": "Other Net", "title": "Other Net"}, "kind": "score"}
    stored(tmp_path / "runs", "lora", 0, 0.0, "tiny/test", data={"tests": [facts]})
    one = stored(tmp_path / "runs", "vpt", 0, 0.1, "tiny/test", data={"tests": [facts]}, **other)
    draw_maps(one, "tiny/test")
    (one.folder / "predictions").rename(tmp_path / "maps")
    place = ["--data-root", str(tmp_path / "data"), "--datasets", str(own)]
    text = report(tmp_path / "runs", tmp_path / "report", *place)
    assert "data:image" not in text
    maps = f"Other Net={tmp_path / 'maps'}"
    text = report(tmp_path / "runs", tmp_path / "report", *place, "--maps", maps)
    assert 'alt="map of Other Net"' in text
    for words in ("Other Net", f"x={tmp_path / 'nowhere'}"):
        command = ["report", str(tmp_path / "runs"), "--maps", words]
        assert isinstance(CliRunner().invoke(app, command).exception, UsageError)


@pytest.mark.parametrize("is_scored", [True, False])
def test_a_map_that_was_not_scored_is_told(tmp_path, drawn, is_scored):
    own, split = drawn
    draw_two(tmp_path / "runs", split.digest)
    facts = {"name": "cod", "version": COD.version, "hash": COD.hash}
    for path in (tmp_path / "runs").rglob("run.json"):
        made = json.loads(path.read_text())
        path.write_text(json.dumps(made | {"protocol": facts}))
        rows = read_rows(path.parent / "per_image.csv")
        for row, pair in zip(rows, split.pairs, strict=True):
            pred = cv2.imread(str(path.parent / "predictions/tiny-test" / f"{pair.name}.png"), 0)
            value = quick_score("s_measure", pred, read_pair(pair)[1])
            row["s_measure"] = value if is_scored else value - 0.1
        write_record(path.parent, read_record(path.parent), rows)
    place = ["--data-root", str(tmp_path / "data"), "--datasets", str(own)]
    text = report(tmp_path / "runs", tmp_path / "report", *place)
    assert text.count("not the map that was scored") == (0 if is_scored else 2 * 8)
