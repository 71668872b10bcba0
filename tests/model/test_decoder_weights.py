"""Decoder weights through a run: hashed only where given, in the record, in the state."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from sam_checkpoint import checkpoint
from tiny_runs import call, draw_data, only_run

from lpmoe_bench.model.trained import load_trained
from lpmoe_bench.records.store import read_record

PUBLISHED = sorted((Path(__file__).parents[2] / "results/records").rglob("run.json"))


def arguments(data: Path, runs: Path, *more: str) -> list[str]:
    """A run of one epoch on a random backbone, 24 images of 64 pixels."""
    folders = []
    for part in ("train", "test"):
        for kind in ("images", "masks"):
            folders += [f"--{part}-{kind}", str(data / part / kind)]
    return [
        *("run", "--method", "decoder_only", *folders, "--runs", str(runs), "--size", "64"),
        *("--backbone", "vit_tiny_patch16_224", "--weights", "random:3"),
        *("--set", "train.batch=8", "--set", "train.epochs=1", *more),
    ]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_data(tmp_path_factory.mktemp("data"))


def planned(data: Path, tmp_path: Path, *more: str) -> dict:
    done = call([*arguments(data, tmp_path / "runs", *more), "--dry-run", "--json"])
    assert done.code == 0, done.stderr
    return json.loads(done.stdout) | {"said": done.stderr}


def test_the_digest_is_hashed_and_the_path_is_not(data: Path, tmp_path: Path):
    one, same, other = (tmp_path / name for name in ("one.pth", "same.pth", "other.pth"))
    torch.save({"a": torch.zeros(1)}, one)
    same.write_bytes(one.read_bytes())
    torch.save({"a": torch.ones(1)}, other)
    plain = planned(data, tmp_path, "--decoder", "sam")
    given = [
        planned(data, tmp_path, "--decoder", "sam", "--decoder-weights", str(path))
        for path in (one, same, other)
    ]
    assert "decoder sam: random decoder" in plain["said"]
    assert "random decoder" not in given[0]["said"]
    prints = [plan["fingerprint"] for plan in (plain, *given)]
    assert prints[1] == prints[2]
    assert len(set(prints)) == 3


@pytest.mark.parametrize(
    ("more", "code", "sentence"),
    [
        (["--decoder", "sam", "--decoder-weights", "none.pth"], 3, "no weights file none.pth"),
        (["--decoder", "sam", "--decoder-weights", "sam.zip"], 2, "use a .safetensors or a .pth"),
        (["--decoder-weights", "none.pth"], 2, "FPN always starts at random"),
        (["--decoder", "mask2former"], 2, "reads maps at strides 4, 8, 16, 32"),
        (["--decoder", "sam", "--set", "decoder.width=8"], 2, "unknown option of decoder SAM"),
    ],
)
def test_wrong_requests_are_one_sentence(
    data: Path, tmp_path: Path, more: list[str], code: int, sentence: str
):
    done = call(arguments(data, tmp_path / "runs", *more))
    assert done.code == code
    assert sentence in done.stderr.splitlines()[-1]


def test_a_run_names_its_weights_and_no_longer_needs_them(data: Path, tmp_path: Path):
    path, state = tmp_path / "sam.pth", checkpoint()
    torch.save(state, path)
    chosen = ("--decoder", "sam", "--decoder-weights", str(path))
    done = call(arguments(data, tmp_path / "runs", *chosen))
    assert done.code == 0, done.stderr
    folder = only_run(tmp_path / "runs")
    record, text = read_record(folder), (folder / "run.json").read_text()
    assert record.decoder
    assert record.decoder.weights_source == record.config["decoder_weights"] == "sam.pth"
    assert record.decoder.weights_sha256
    assert record.decoder.note == ""
    assert str(tmp_path) not in text
    assert record.parameters
    assert record.parameters.decoder == 3_505_536 + 192 * 256 + 256
    assert record.parameters.published == 5_524_416 + 4_058_340 + 6_220
    path.unlink()
    trained, _ = load_trained(folder, tmp_path)
    saved = load_file(folder / "adapter.safetensors")
    kept = "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"  # frozen, from the file
    assert torch.equal(saved[f"decoder.{kept}"], state[kept])
    found = trained.decoder.state_dict()
    assert all(torch.equal(v, saved[f"decoder.{k}"]) for k, v in found.items())
