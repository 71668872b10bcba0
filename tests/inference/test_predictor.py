"""Files are read and predictions scored beside the forward passes: same order, same scores."""

import threading

import cv2
import numpy as np
import pytest
import torch

from lpmoe_bench.data.pairs import Pair
from lpmoe_bench.data.splits import Split
from lpmoe_bench.errors import DataError
from lpmoe_bench.inference import predictor as predicting
from lpmoe_bench.inference.predictor import Predictor, in_order, new_fabric, score_split

WAIT = 10.0  # seconds that another thread is waited for; none of them is needed


class Edges(torch.nn.Module):
    """Logits of a simple function of the image, in the place of a segmenter."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return 8 * image.mean(1, keepdim=True) - 3


@pytest.fixture
def split(tmp_path):
    draws, pairs = np.random.default_rng(0), []
    for index in range(11):
        files = tmp_path / f"{index}.jpg", tmp_path / f"{index}.png"
        high, wide = int(draws.integers(40, 90)), int(draws.integers(40, 90))
        cv2.imwrite(str(files[0]), draws.integers(0, 256, (high, wide, 3), dtype=np.uint8))
        cv2.imwrite(str(files[1]), 255 * draws.integers(0, 2, (high, wide), dtype=np.uint8))
        pairs.append(Pair(f"p{index:02}", *files))
    return Split("drawn", "test", tuple(pairs))


def new_predictor(window=None):
    return Predictor(Edges(), new_fabric("cpu", "32-true"), (64, 64), batch=3, window=window)


@pytest.mark.parametrize("window", [None, (48, 48)], ids=["whole", "windows"])
def test_threads_change_no_score_no_order_and_no_file(split, tmp_path, monkeypatch, window):
    found, told = {}, {}
    for threads in (0, 1, 4):
        monkeypatch.setattr(predicting, "threads_beside", lambda device, count=threads: count)
        seen, folder = [], tmp_path / str(threads)

        def report(done, of, seen=seen):
            seen.append((done, of))

        found[threads] = score_split(new_predictor(window), split, "cod", report, folder)
        told[threads] = seen, {file.name: file.read_bytes() for file in folder.iterdir()}
    assert found[1] == found[4] == found[0]
    assert told[1] == told[4] == told[0]
    assert told[0][0][-1] == (11, 11)
    assert [row["image"] for row in found[4].rows] == [f"p{index:02}" for index in range(11)]


def test_a_broken_file_ends_it_with_the_same_error(split, monkeypatch):
    split.pairs[7].image.write_bytes(b"no image")
    for threads in (0, 3):
        monkeypatch.setattr(predicting, "threads_beside", lambda device, count=threads: count)
        with pytest.raises(DataError, match=r"7\.jpg"):
            score_split(new_predictor(), split, "cod", lambda done, of: None)
    assert not [thread for thread in threading.enumerate() if "ThreadPool" in thread.name]


def test_others_work_while_the_caller_waits_and_no_more_than_it_may():
    begun, go = [], threading.Event()

    def work(item):
        begun.append(item)
        if item == 0:
            assert go.wait(WAIT)
        if item == 1:
            go.set()  # only beside item 0 can this be reached
        return 10 * item

    results = in_order(work, range(100), 2, ahead=4)
    assert next(results) == 0
    assert max(begun) <= 5  # 0 was asked for; four more may be under way, and one that was given
    assert list(results) == [10 * item for item in range(1, 100)]


def test_the_caller_keeps_its_cores_and_threads_started_later_have_them_too():
    before, seen = torch.get_num_threads(), []
    torch.set_num_threads(3)
    try:
        assert list(in_order(lambda _: torch.get_num_threads(), range(3), 2, 2)) == [1, 1, 1]
        later = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
        later.start()
        later.join()
        assert [*seen, torch.get_num_threads()] == [3, 3]
    finally:
        torch.set_num_threads(before)


def test_what_is_left_is_not_begun_when_the_caller_stops():
    begun = []
    results = in_order(begun.append, range(1000), 1, ahead=3)
    next(results)
    results.close()
    assert len(begun) <= 4
