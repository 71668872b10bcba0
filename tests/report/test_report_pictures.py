"""The disputed images of the report: shown only where they are proven to be those scored."""

from __future__ import annotations

import base64
import json
import re

import cv2
import numpy as np
import pytest
from report_records import IMAGES, draw_maps, draw_set, draw_two, report, stored
from typer.testing import CliRunner

from lpmoe_bench.cli.app import app
from lpmoe_bench.data.pairs import read_pair
from lpmoe_bench.errors import UsageError
from lpmoe_bench.metrics.engine import quick_score
from lpmoe_bench.metrics.protocols import COD
from lpmoe_bench.records.store import read_record, read_rows, write_record


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
    text = pictured(tmp_path, drawn, None, "--images", "3")
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
    assert "predict RUN IMAGES --tile never" in text  # windows give other maps than were scored
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
