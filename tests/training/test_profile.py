"""The profile command: counts without downloads, measuring, what it says when it does not."""

import json
import subprocess
import sys

import pytest
import timm
import torch
from safetensors.torch import save
from tiny_runs import call

from lpmoe_bench.cli.models import _parts
from lpmoe_bench.console import Terminal
from lpmoe_bench.errors import ResourceError, UsageError
from lpmoe_bench.model.costs import count_parameters, peak_memory_bytes
from lpmoe_bench.model.segmenter import blueprint, build_segmenter, native_size
from lpmoe_bench.model.weights import resolve
from lpmoe_bench.model.weights.resolve import resolve_weights
from lpmoe_bench.training import profiling
from lpmoe_bench.training.profiling import (
    _interval,
    _rates,
    measure,
    profile_config,
    profile_method,
)

TINY = {"method": "lora", "backbone": "vit_tiny_patch16_224", "size": 64}
SMALL = {"decoder_options": {"width": 8}, "train": {"batch": 2}, "runtime": {"device": "cpu"}}


@pytest.fixture(autouse=True)
def nothing_is_fetched(monkeypatch):
    def refuse(*arguments):
        raise AssertionError("a profile fetches no weights")

    monkeypatch.setattr(resolve.hub, "fetch_from_hub", refuse)
    monkeypatch.setattr(resolve.default_backbone, "default_weights", refuse)


def test_counts_are_those_of_the_built_model(tmp_path):
    found = profile_method(SMALL, TINY, measured=False, terminal=Terminal(quiet=True))
    built = build_segmenter(
        profile_config(SMALL, TINY), resolve_weights(TINY["backbone"], "random", tmp_path)
    )
    assert found["parameters"] == count_parameters(built)
    state = built.state()
    assert found["state_bytes"] == sum(t.nbytes for t in state.values())
    assert 0 < len(save(state)) - found["state_bytes"] < 200 * len(state)  # the file's header
    assert found["flops"]["training"] > found["flops"]["forward"] > 0
    assert (found["measured"], found["not_measured"]) == (None, "only counts were asked for")
    assert json.loads(json.dumps(found))["options"]["rank"] == 8


WIDE = {"method": "decoder_only", "backbone": "vit_tiny_patch16_224"}


def test_a_task_of_classes_has_an_output_for_each(tmp_path):
    (tmp_path / "names.txt").write_text("a\nb\nc\n")

    def decoder(task: str, classes: str = "") -> int:
        config = profile_config(WIDE, {"task": task}, classes=classes)
        return count_parameters(blueprint(config))["decoder"]

    one = decoder("cod")
    row = 64 + 1  # of the last convolution, with its bias
    assert decoder("semantic") == one + 5 * row
    assert (
        decoder("semantic", "3") == decoder("ade20k", str(tmp_path / "names.txt")) == one + 2 * row
    )
    assert profile_config(WIDE, {"task": "camvid"}).size == (352, 480)  # as its runs have it
    assert profile_config({"task": "camvid"}, WIDE | {"size": 64}).size == 64
    told = ["--task", "semantic", "--size", "64", "--count-only", "--json", "--quiet"]
    done = call(["profile", "-m", "decoder_only", "--backbone", WIDE["backbone"], *told])
    found = json.loads(done.stdout)
    assert (found["classes"], found["parameters"]["decoder"]) == (6, one + 5 * row)


def test_a_file_of_weights_counts_with_its_own_grid(tmp_path):
    vit = timm.create_model(WIDE["backbone"], img_size=96)
    (tmp_path / "w.safetensors").write_bytes(save(vit.state_dict()))
    config = profile_config(WIDE, {"weights": str(tmp_path / "w.safetensors")})
    assert config.size == 96
    lost = 192 * (14 * 14 - 6 * 6)  # of the table of positions
    found, usual = (count_parameters(blueprint(one)) for one in (config, profile_config(WIDE)))
    assert usual["total"] - found["total"] == lost


@pytest.mark.parametrize("decoder", ["fpn", "mask2former"])
def test_measuring_with_classes(decoder):
    small = {"decoder_options": {"width": 32, "points": 16}, "train": {"batch": 2}}
    small = small if decoder == "mask2former" else SMALL
    config = profile_config(small, TINY, {"task": "semantic", "decoder": decoder})
    assert measure(config, repeats=2, seconds=0.0)["training"]["median"] > 0


@pytest.mark.parametrize(
    ("backbone", "size"),
    [
        ("samvit_huge_patch16.sa1b", 1024),
        ("vit_tiny_patch16_224", 224),
        ("dinov2_small_imgfocus", 576),  # a grid of 37, which is 592 px, down to a multiple of 32
        ("beit_base_patch16_224", 224),
    ],
)
def test_the_native_size(backbone, size):
    assert native_size(backbone) == size


def test_sam_huge_with_its_decoder_on_the_command_line():
    options = ["--backbone", "samvit_huge_patch16.sa1b", "--decoder", "sam", "--json", "--quiet"]
    done = call(["profile", "--method", "decoder_only", *options, "--set", "runtime.device=cpu"])
    assert done.code == 0
    found = json.loads(done.stdout)
    assert found["size"] == 1024
    assert found["parameters"]["trainable"] == 3_505_536
    # 2,965 GMAC of the encoder (specification), and the decoder.
    assert found["flops"]["forward"] / 2e9 == pytest.approx(2965, rel=0.01)
    assert "minutes on a CPU; --measure" in found["not_measured"]


def test_people_get_a_table():
    tiny = ["--backbone", "vit_tiny_patch16_224", "--size", "64", "--count-only", "--no-color"]
    done = call(["profile", "-m", "sam_adapter", *tiny])
    words = " ".join(done.stdout.replace("│", " ").split())
    assert "not counted: Fourier transforms" in words
    assert "% of the backbone" in words


def test_measuring():
    config = profile_config(SMALL, TINY)
    found = measure(config, repeats=4, seconds=0.0)
    for name in ("training", "inference"):
        rate = found[name]
        assert 0 < rate["lower_quartile"] <= rate["median"] <= rate["upper_quartile"]
        assert rate["timings"] == 3
    assert found["peak_memory_bytes"] >= found["before_memory_bytes"] > 0
    assert (found["batch"], found["precision"]) == (2, "32-true")


KINDS = {
    "detection": {"decoder_options": {"width": 8, "regions": 4, "hidden": 8}},
    "instance": {"decoder_options": {"width": 8, "regions": 4, "hidden": 8}},
    "panoptic": {"decoder": "panoptic_fpn", "decoder_options": {"width": 8, "hidden": 8}},
    "semantic": {"decoder": "fpn", "decoder_options": {"width": 8}},
}


@pytest.mark.parametrize("task", KINDS)
def test_every_kind_is_measured_in_parts(task):
    config = profile_config(SMALL | KINDS[task], TINY | {"task": task})
    found = measure(config, repeats=3, seconds=0.0)
    parts = found["parts"]
    assert (parts["turns"], parts["shown"]) == (6, [480, 640])
    for name in ("backbone", "head", "post_processing"):
        one = parts[name]
        assert 0 < one["low"] <= one["median"] <= one["high"]
        assert one["told"]
    assert parts["method"]["low"] <= parts["method"]["median"] <= parts["method"]["high"]
    assert parts["clock"] == "CPU seconds of the process"
    # Random masks and boxes are found, and maps have no objects to count.
    assert (parts["found"] is None) is (task == "semantic")
    assert json.loads(json.dumps(found)) == found


@pytest.mark.parametrize(
    ("values", "low", "high", "told"),
    [
        ([float(k) for k in range(1, 16)], 4.0, 12.0, True),  # the fourth of 15 at both ends
        ([-2.0, -1.0, 1.0, 2.0, 3.0, 4.0], -2.0, 4.0, False),
        ([-3.0, -2.0, -1.5, -1.0, -4.0, -5.0], -5.0, -1.0, True),  # told as it is, below 0
    ],
)
def test_what_cannot_be_told_from_nothing_is_said(values, low, high, told):
    found = _interval(values)
    assert (found["low"], found["high"], found["told"]) == (low, high, told)


def test_the_table_says_what_cannot_be_told_and_what_grows():
    one = {"median": -0.5, "low": -1.0, "high": 0.25, "told": False}
    sure = {"median": 2.0, "low": 1.5, "high": 3.0, "told": True}
    parts = {"turns": 9, "clock": "CPU seconds of the process", "shown": [480, 640], "found": 7.5}
    rows = _parts(parts | {"backbone": sure, "method": one, "head": sure, "post_processing": sure})
    assert rows[1] == (
        "  method",
        "-0.50 ms",
        "with the method, less the plain backbone; -1.00 to 0.25; cannot be told from 0",
    )
    assert "480 x 640 px; 1.50 to 3.00; grows with what is found, 7.5 an image" in rows[3][2]
    assert "over 9 turns" in rows[4][2]


def test_the_classes_of_objects_are_those_of_a_run():
    # COCO's file of drawn objects lists the things alone, the panoptic one all of them.
    instance = profile_config(SMALL, TINY | {"task": "instance"})
    panoptic = profile_config(SMALL, TINY | {"task": "panoptic"})
    assert set(panoptic.things) == set(instance.classes) < set(panoptic.classes)
    assert instance.things == ()


def test_one_class_is_enough_for_objects(tmp_path):
    (tmp_path / "one.txt").write_text("cell\n")
    for told in ("1", str(tmp_path / "one.txt")):
        config = profile_config(SMALL, TINY | {"task": "coco"}, classes=told)
        assert len(config.classes) == 1
    with pytest.raises(UsageError, match="--classes is 0; 1 to 254"):
        profile_config(SMALL, TINY | {"task": "coco"}, classes="0")


def test_rates_are_images_over_seconds(monkeypatch):
    clock = iter([0.0, 0.0, 9.0, 9.0, 10.0, 10.0, 12.0, 12.0, 16.0])  # warm-up, then 1, 2, 4 s
    monkeypatch.setattr("lpmoe_bench.training.profiling.time.perf_counter", lambda: next(clock))
    found = _rates(lambda: None, 8, torch.device("cpu"), 3, 100)
    assert found == {"lower_quartile": 3.0, "median": 4.0, "upper_quartile": 6.0, "timings": 3}


def test_a_process_without_memory_is_an_error_in_one_sentence(monkeypatch):
    killed = subprocess.CompletedProcess([], -9, "", "")
    monkeypatch.setattr(profiling.subprocess, "run", lambda *a, **k: killed)
    with pytest.raises(ResourceError, match=r"out of memory at batch 2, size 64"):
        profile_method(SMALL, TINY, measured=True, terminal=Terminal(quiet=True))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "name it with --method"),
        (["--method", "lroa"], "did you mean 'lora'"),
        (["--method", "lora", "--size", "100"], "multiple of 32"),
        (["--method", "lora", "--set", "rnak=3"], "did you mean 'rank'"),
        (["--method", "lora", "--backbone", "vit_tini"], "unknown backbone"),
        (["--method", "lora", "--classes", "3"], "--classes are of tasks that tell classes apart"),
        (["--method", "lora", "--task", "voc", "--classes", "1"], "2 to 254 are told apart"),
        (["--method", "lora", "--task", "camvit"], "did you mean 'camvid'"),
    ],
)
def test_errors_are_one_sentence(arguments, sentence):
    done = call(["profile", *arguments])
    assert (done.code, done.stdout) == (2, "")
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_peak_memory_is_not_inherited():
    """A process started by a large one begins with the large one's peak in getrusage."""
    ballast = torch.ones(2**30 // 4)  # 1 GiB
    code = (
        "import torch; from lpmoe_bench.model.costs import peak_memory_bytes as p;"
        "before = p(torch.device('cpu')); x = torch.ones(2**28 // 4);"
        "print(before, p(torch.device('cpu')) - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    before, grown = map(int, done.stdout.split())
    assert grown >= 0.9 * 2**28
    assert before < 2**30 <= peak_memory_bytes(torch.device("cpu"))
    del ballast


@pytest.mark.slow
def test_a_process_of_its_own_measures():
    found = profile_method(SMALL, TINY, measured=True, terminal=Terminal(quiet=True))
    assert found["not_measured"] is None
    assert found["measured"]["training"]["timings"] >= 3
