"""Protocols of one's own: hashed and told like the shipped ones; each mistake is a sentence."""

import json

import numpy as np
import pytest
from drawn_maps import draw_folders, out, score_folders, stored
from typer.testing import CliRunner

import lpmoe_bench
from lpmoe_bench.cli.app import app
from lpmoe_bench.errors import UsageError
from lpmoe_bench.metrics.protocol_files import open_protocol, read_protocol
from lpmoe_bench.metrics.protocols import PROTOCOLS, explain_protocol, get_protocol

OWN = """
base: cod
name: clinic
normalisation: none
resize: nearest
empty_masks: one
threshold: 0.3
columns: [dice, iou, hd95]
percent: [dice]
"""


@pytest.fixture
def own(tmp_path):
    (tmp_path / "own.yaml").write_text(OWN)
    return tmp_path / "own.yaml"


def test_a_file_changes_rules_of_its_base(own):
    found = read_protocol(own)
    base = get_protocol("cod")
    assert (found.name, found.normalisation, found.resize) == ("clinic", "none", "nearest to mask")
    assert (found.empty_masks, found.binary_threshold) == ("one", 0.3)
    assert (found.metrics, found.extra) == (("dice", "iou"), ("hd95",))
    assert (found.headline, found.primary, found.percent) == (
        ("dice", "iou", "hd95"),
        "dice",
        ("dice",),
    )
    assert (found.mask_threshold, found.thresholds) == (base.mask_threshold, base.thresholds)
    told = dict(explain_protocol(found))
    assert told["protocol"].startswith(f"clinic v1 ({found.hash[:8]})")
    assert "takes the nearest pixel" in told["map"]
    assert "counts 1 in overlap" in told["mask"]
    assert "above 76.5 of 255" in told["binary"]
    assert "  hd95" in told


def test_the_hash_is_of_rules_and_of_nothing_else(tmp_path):
    def hash_of(text):
        (tmp_path / "p.yaml").write_text(text)
        return read_protocol(tmp_path / "p.yaml").hash

    first = hash_of("base: cod\nname: x")
    assert first not in {protocol.hash for protocol in PROTOCOLS.values()}
    assert hash_of("base: cod\nname: x\ntitle: other\npercent: [iou]\nheadline: [mae]") == first
    # cod and sod differ in what a table shows alone.
    assert hash_of("base: sod\nname: x") == first
    others = [
        *("normalisation: none", "resize: bicubic", "empty_masks: zero", "threshold: 0.4"),
        *("mask_threshold: 127", "f_beta2: 1", "thresholds: matlab", "columns: [iou]"),
        *("version: 2", "columns: [iou, hd95]", "primary: mae"),
    ]
    assert len({first, *(hash_of(f"base: cod\nname: x\n{line}") for line in others)}) == 12


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("base: codd", "did you mean 'cod'"),
        ("normalisation: none", "base is missing; name the protocol"),
        ("base: cod\nname: sod", "which is a shipped protocol"),
        ("base: cod\nname: ''", "name is ''; it must be text"),
        ("base: 3", "base is 3; it must be text"),
        (
            "base: cod\nresize: linear",
            "resize is 'linear'; it must be bilinear, bicubic or nearest",
        ),
        ("base: cod\nnormalisation: max", "normalisation is 'max'; it must be minmax or none"),
        ("base: cod\nempty_masks: 1", "empty_masks is 1; it must be skip, score, zero or one"),
        ("base: cod\nthreshold: 128", "threshold is 128; it must be a number from 0 to below 1, a"),
        ("base: cod\nthreshold: .nan", "threshold is nan; it must be a number"),
        ("base: cod\nthreshold: '0.5'", "threshold is '0.5'; it must be a number"),
        ("base: cod\nmask_threshold: 255", "mask_threshold is 255; it must be a whole number"),
        ("base: cod\nversion: true", "version is True; it must be a whole number"),
        ("base: cod\nthresholds: 256", "thresholds is 256; it must be levels, matlab or"),
        ("base: cod\ncolumns: iou", "columns is 'iou'; it must be a list of keys"),
        ("base: cod\ncolumns: [iouu]", "columns: unknown metric 'iouu'"),
        ("base: cod\ncolumns: [mDice]", "means different things in different papers"),
        ("base: cod\ncolumns: [iou, iou]", "it holds iou twice"),
        ("base: cod\ncolumns: [hd95]", "one column at least must be no extra metric"),
        ("base: cod\ncolumns: [iou]\nheadline: [mae]", "headline names 'mae', which is no column"),
        ("base: cod\nprimary: iouu", "primary is 'iouu'; it must be one of the columns"),
        ("base: cod\ncolums: [iou]", "did you mean 'columns'"),
        ("base: cod\n3: 4", "unknown field '3'"),
        ("- cod", "must hold fields by name"),
        ("", "must hold fields by name"),
        ("base: [", "is not valid YAML"),
        ("base: 2024-13-45", "unknown protocol '2024-13-45'"),
        ("[" * 3000, "is not valid YAML"),
        ("base: !!python/object/apply:os.getcwd []", "is not valid YAML"),
    ],
)
def test_every_mistake_is_a_sentence(tmp_path, text, words):
    path = tmp_path / "own.yaml"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        read_protocol(path)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "unknown protocol" in words or "codd" in text or str(path) in str(caught.value)


def test_a_missing_file_and_bytes_are_told(tmp_path):
    with pytest.raises(UsageError, match="does not exist"):
        open_protocol(str(tmp_path / "none.yaml"))
    (tmp_path / "bytes.yml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="is no UTF-8 text"):
        open_protocol(str(tmp_path / "bytes.yml"))
    assert open_protocol("cod") is get_protocol("cod")


def test_folders_are_scored_by_it(tmp_path, own):
    draw_folders(tmp_path, 3)
    outcome, _, _ = score_folders(tmp_path, protocol=str(own))
    record, rows = stored(outcome)
    (scores,) = record.scores.values()
    assert list(scores) == ["dice", "iou", "hd95"]
    assert scores["iou"] == pytest.approx(np.mean([row["iou"] for row in rows]))
    protocol = read_protocol(own)
    assert record.protocol.hash == protocol.hash
    # What the hash is of stands in the record, so that anybody can make it again.
    assert record.config["protocol_rules"] == json.loads(json.dumps(protocol.rules))
    again, _, _ = score_folders(tmp_path, protocol=str(own))
    assert again.fresh == [False]
    own.write_text(OWN.replace("0.3", "0.4"))
    other, _, _ = score_folders(tmp_path, protocol=str(own))
    assert other.fresh == [True]
    given = lpmoe_bench.score(tmp_path / "A" / "p0.png", tmp_path / "masks" / "p0.png", str(own))
    assert list(given) == ["dice", "iou", "hd95"]


def test_the_commands_print_and_describe_it(tmp_path, own):
    draw_folders(tmp_path, 2)
    shown = out(tmp_path, "--protocol", str(own), "--vary", folders=("A", "B"))
    assert shown.exit_code == 0, shown.output
    assert "protocol clinic v1" in shown.stdout
    assert "Dice@.5 (%)" in shown.stdout
    told = CliRunner().invoke(app, ["describe", str(own)])
    assert told.exit_code == 0, told.output
    assert "clinic v1" in told.stdout
    table = CliRunner().invoke(app, ["table", str(tmp_path / "runs")])
    assert table.exit_code == 0, table.output
    assert "Protocol clinic v1" in table.stdout
    assert "Dice@.5 (%)" in table.stdout


def test_metrics_of_other_protocols_can_be_asked_for(tmp_path):
    draw_folders(tmp_path, 2)
    outcome, _, _ = score_folders(tmp_path, protocol="cod", extra=["specificity", "hd95", "iou"])
    (scores,) = stored(outcome)[0].scores.values()
    assert list(scores)[-2:] == ["specificity", "hd95"]
    assert stored(outcome)[0].protocol.hash == get_protocol("cod").hash
