"""Figures of label maps: pictures in the colours of classes, a legend, scores of single images."""

import base64
import re

import cv2
import numpy as np
import pytest
from drawn_maps import save
from tiny_runs import call

from lpmoe_bench.data import test_sets
from lpmoe_bench.data.label_rules import class_colours, label_rules
from lpmoe_bench.data.pixels import PixelRules
from lpmoe_bench.errors import UsageError
from lpmoe_bench.metrics.facts import get_metric
from lpmoe_bench.metrics.protocols import get_protocol
from lpmoe_bench.report.pictures import LabelPictures, pictures_of
from lpmoe_bench.scoring.label_maps import GREY

NAMES = ["sky", "road", "car"]
TRUTH = np.array([[0, 0, 1, 1], [0, 2, 1, 255]], np.uint8)
PRED = np.array([[0, 0, 1, 1], [0, 1, 1, 1]], np.uint8)


@pytest.fixture
def labels(tmp_path):
    save(tmp_path / "gt" / "a.png", TRUTH)
    save(tmp_path / "A" / "a.png", PRED)
    rules = PixelRules(labels=label_rules({"classes": NAMES, "ignore": 255}))
    return test_sets.folder_set(tmp_path / "gt", None, tmp_path / "cache", rules)


def test_pictures_of_label_maps(labels, tmp_path):
    shows = pictures_of(labels, "semantic", get_protocol("classes"))
    assert isinstance(shows, LabelPictures)
    image, truth = shows.read("a")
    assert image is None
    pred = shows.read_map(tmp_path / "A" / "a.png", truth, None)
    sky, road, car = map(list, class_colours(3))
    assert shows.shown(truth, truth)[1].tolist() == [sky, car, road, [0, 0, 0]]
    errors = shows.errors(pred, truth)
    assert (errors[0] == 255).all()  # right
    assert errors[1, 1].tolist() == [220, 100, 0]  # a car that is called road
    assert errors[1, 3].tolist() == list(GREY)
    # By hand: sky 3 of 3, road 3 of 4, car 0 of 1; of this image alone, void left out.
    assert shows.score(get_metric("mean_iou"), pred, truth) == pytest.approx((1 + 0.75 + 0) / 3)
    assert shows.label(get_metric("mean_iou")) == "image mIoU"
    assert shows.score(get_metric("mean_iou"), pred, np.full_like(truth, 255)) is None
    found = {"sky": class_colours(3)[0], "car": class_colours(3)[2], "void": (0, 0, 0)}
    assert shows.swatches([255, 2, 0], ["maps"]) == found
    with pytest.raises(UsageError, match="classes does not have mae"):
        shows.score(get_metric("mae"), pred, truth)
    with pytest.raises(UsageError, match="has label maps, and the protocol is of binary tasks"):
        pictures_of(labels, "binary")


def test_a_figure_of_label_maps(labels, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LPMOE_BENCH_CACHE", str(tmp_path / "cache"))
    (tmp_path / "classes.txt").write_text("\n".join(NAMES))
    given = ["A=A", "--gt", "gt", "--classes", "classes.txt", "--ignore", "255"]
    done = call(["figure", *given, "--show", "maps,errors", "--scores", "-o", "f.png"])
    assert done.code == 0, done.stderr
    picture = cv2.imread("f.png")[..., ::-1].reshape(-1, 3)
    for colour in class_colours(3):  # in the truth, the maps or the legend
        assert (picture == colour).all(1).any()
    done = call(["figure", *given, "--crop", "object", "-o", "f.png"])
    assert "--crop object is of binary masks" in done.stderr
    done = call(["figure", "A=A", "--gt", "gt", "-o", "f.png"])
    assert (done.code, "holds the values 0, 1, 2, 255 alone" in done.stderr) == (3, True)


def test_a_page_of_label_maps_has_a_legend(labels, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LPMOE_BENCH_CACHE", str(tmp_path / "cache"))
    (tmp_path / "classes.txt").write_text(
        "\n".join(f"{name} #0{k}8090" for k, name in enumerate(NAMES))
    )
    save(tmp_path / "B" / "a.png", np.where(TRUTH == 255, 0, TRUTH))
    given = ["A", "B", "--gt", "gt", "--classes", "classes.txt", "--ignore", "255"]
    assert call(["score", *given, "--runs", "runs"]).code == 0
    done = call(["report", "runs", "-o", "page"])
    assert done.code == 0, done.stderr
    page = (tmp_path / "page/index.html").read_text()
    legend = re.search(r'<p class="legend">.*</p>', page)
    assert legend is not None
    told = re.findall(r'src="data:image/png;base64,([^"]+)"[^>]*>([^<]+)</span>', legend[0])
    assert [name for _, name in told] == [*NAMES, "void", "wrong class", "void, in errors"]
    first = cv2.imdecode(np.frombuffer(base64.b64decode(told[0][0]), np.uint8), 1)[6, 6, ::-1]
    assert first.tolist() == [0, 0x80, 0x90]  # as it is declared
    assert "too much" not in page
