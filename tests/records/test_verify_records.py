"""Records held against their digests and rows: what is edited, cut off or missing is named."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save
from sample_records import content, record
from tiny_runs import call

from lpmoe_bench.errors import DataError
from lpmoe_bench.records.context import unsealed_text
from lpmoe_bench.records.model import record_digest
from lpmoe_bench.records.store import find_records, read_record, write_record
from lpmoe_bench.records.verify import publish_all, tensors_digest, verify_record

RESULTS = Path(__file__).resolve().parents[2] / "results" / "records"
TENSORS = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.zeros(2, np.float16)}
SCORES = {"s_measure": 0.5, "mae": 0.25, "ber_dataset": 0.25, "f_mean_pr": 0.4}


def sealed(folder: Path, **changes):
    """A run of two images with a curve and an adapter, sealed as it is written."""
    counted = [{"tp": 8, "fp": 2, "fn": 2, "tn": 8}, {"tp": 7, "fp": 3, "fn": 3, "tn": 7}]
    rows = [
        {"dataset": "CAMO", "image": name, "s_measure": s, "mae": 0.25, **pixels, "flags": ""}
        for name, s, pixels in zip("ab", (0.25, 0.75), counted, strict=True)
    ]
    state = save(TENSORS, metadata={"n": "1"})
    facts = content(
        schema_version=2,
        scores=SCORES,
        counts={"CAMO": {"images": 2, "scored": 2}},
        training={"steps": 4, "best_step": 4, "best_validation": 0.75},
        adapter_sha256=hashlib.sha256(state).hexdigest(),
        adapter_digest=tensors_digest(state),
        seed=0,
    )
    folder.mkdir(parents=True)
    (folder / "adapter.safetensors").write_bytes(state)
    curve = [{"step": 4, "loss": 0.5, "validation": 0.75}]
    return write_record(folder, record().model_validate(facts | changes), rows, curve)


@pytest.fixture
def folder(tmp_path):
    sealed(tmp_path / "runs" / "x")
    return tmp_path / "runs" / "x"


def test_a_sealed_record_reads_as_it_was_written_and_is_sound(tmp_path):
    written = sealed(tmp_path / "x")
    assert written.seal is not None
    assert read_record(tmp_path / "x") == written
    found = verify_record(tmp_path / "x")
    assert found.faults == []
    assert (found.sealed, found.recomputed, found.without) == (True, 3, [])
    assert found.undetermined == ["CAMO f_mean_pr"]
    (tmp_path / "x" / "adapter.safetensors").unlink()  # as in a published copy
    found = verify_record(tmp_path / "x")
    assert (found.faults, found.without) == ([], ["adapter.safetensors"])


def test_the_digest_is_of_the_content_and_not_of_its_layout(folder):
    path = folder / "run.json"
    found = json.loads(path.read_text())
    turned = {key: found[key] for key in reversed(found)}
    path.write_text(json.dumps(turned, indent=7))
    assert verify_record(folder).faults == []


def edited(folder, change):
    found = json.loads((folder / "run.json").read_text())
    change(found)
    (folder / "run.json").write_text(json.dumps(found))


def cut(folder, name, end=-3):
    path = folder / name
    path.write_bytes(path.read_bytes()[:end])


FAULTS = {
    "score": (lambda f: edited(f, lambda r: r["scores"]["CAMO"].update(mae=0.2)), "was changed"),
    "note": (lambda f: edited(f, lambda r: r["notes"].append("fine")), "was changed"),
    "seal": (lambda f: edited(f, lambda r: r.pop("seal")), "was changed"),
    "downgrade": (lambda f: edited(f, lambda r: r.update(schema_version=1)), "holds some"),
    "cut record": (lambda f: cut(f, "run.json"), "not valid JSON"),
    "cut rows": (lambda f: cut(f, "per_image.csv"), "per_image.csv was changed or cut off"),
    "no rows": (lambda f: (f / "per_image.csv").unlink(), "per_image.csv is missing"),
    "cut curve": (lambda f: cut(f, "curve.csv"), "curve.csv was changed or cut off"),
    "no curve": (lambda f: (f / "curve.csv").unlink(), "curve.csv is missing"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_was_edited_or_cut_is_named_and_kept_out(folder, name):
    change, sentence = FAULTS[name]
    sealed(folder.with_name("good"))
    change(folder)
    found = find_records([folder.parent])
    assert [one.folder.name for one in found.stored] == ["good"]
    assert len(found.notes) == 1
    assert "x" in found.notes[0]
    assert sentence in found.notes[0]
    (fault,) = verify_record(folder).faults
    assert sentence in fault


def test_a_curve_that_was_not_there_is_named(tmp_path):
    write_record(tmp_path, record().model_validate(content(schema_version=2)), [])
    (tmp_path / "curve.csv").write_text("step,loss\n1,0.5\n")
    assert "was written without one" in verify_record(tmp_path).faults[0]


def resealed(folder, change):
    """Edit a record and make its digests anew, as somebody might on purpose."""

    def whole(found):
        change(found)
        for name in ("rows", "curve"):
            file = folder / {"rows": "per_image.csv", "curve": "curve.csv"}[name]
            found["seal"][name] = hashlib.sha256(file.read_bytes()).hexdigest()
        found["seal"]["record"] = record_digest(found)

    edited(folder, whole)


def test_scores_that_rows_do_not_bear_out_are_named_though_sealed_anew(folder):
    def change(found):
        found["scores"]["CAMO"].update(s_measure=0.6, ber_dataset=0.1)
        found["counts"]["CAMO"]["images"] = 3
        found["training"].update(steps=5, best_validation=0.8)

    resealed(folder, change)
    text = "; ".join(verify_record(folder).faults)
    assert "CAMO s_measure is 0.6, but its rows give 0.5" in text
    assert "CAMO ber_dataset is 0.1, but its rows give 0.25" in text
    assert "counts 3 images, but has 2 rows" in text
    assert "curve.csv ends at step 4.0, but the record counts 5 steps" in text
    assert "the best validation score is 0.8" in text


def test_rows_twice_strange_or_impossible_are_named(folder):
    path = folder / "per_image.csv"
    lines = path.read_text().splitlines()
    lines[2] = lines[1].replace("0.25", "7.5", 1)
    path.write_text("\n".join([*lines, lines[1].replace("CAMO", "Other")]) + "\n")
    resealed(folder, lambda found: None)
    text = "; ".join(verify_record(folder).faults)
    assert "has a of CAMO more than once" in text
    assert "s_measure is 7.5, but lies between 0 and 1" in text
    assert "rows of Other, of which there is no score" in text


def test_another_adapter_is_told_from_another_header(folder):
    path = folder / "adapter.safetensors"
    path.write_bytes(save(TENSORS, metadata={"n": "2"}))
    assert "its checksum differs" in verify_record(folder).faults[0]
    path.write_bytes(save(TENSORS | {"a": TENSORS["a"] + 1}, metadata={"n": "1"}))
    assert "other tensors than those that were scored" in verify_record(folder).faults[0]
    for end in (4, 40, -1):
        cut(folder, "adapter.safetensors", end)
        assert "adapter.safetensors" in verify_record(folder).faults[0]


def test_a_digest_of_tensors_is_of_names_types_shapes_and_bytes():
    digests = {
        tensors_digest(save(tensors))
        for tensors in (
            TENSORS,
            {"a": TENSORS["a"], "c": TENSORS["b"]},
            TENSORS | {"a": TENSORS["a"].reshape(3, 2)},
            TENSORS | {"b": np.zeros(2, np.int16)},
            TENSORS | {"a": TENSORS["a"] * 2},
        )
    }
    assert len(digests) == 5
    assert tensors_digest(save(TENSORS, metadata={"x": "y"})) == tensors_digest(save(TENSORS))


@pytest.mark.parametrize(
    ("key", "value", "fine"),
    [
        ("s_measure", 68.0, False),
        ("mae", 1e300, False),
        ("mae", -0.1, False),
        ("e_max", 1.0002, True),  # a sum over pixels, divided by their number less one
        ("mcc", -0.5, True),
        ("kappa", -1.5, False),
        ("hd95", 300.0, True),
        ("hd95", 1e300, False),
        ("of_a_newer_program", 68.0, True),
        ("dice", 1 + 1e-12, True),
    ],
)
def test_a_score_lies_within_the_limits_of_its_metric(tmp_path, key, value, fine):
    (tmp_path / "run.json").write_text(json.dumps(content(scores={key: value})))
    if fine:
        assert read_record(tmp_path).scores["CAMO"][key] == value
    else:
        with pytest.raises(DataError, match=f"CAMO: {key} is .*but lies between"):
            read_record(tmp_path)


def test_published_records_are_unsealed_sound_and_stay_in():
    done = call(["verify", str(RESULTS / "scored"), str(RESULTS / "polyp"), "--json"])
    assert done.code == 0
    found = json.loads(done.stdout)
    assert found
    assert not any(one["sealed"] or one["faults"] for one in found)
    assert all(one["recomputed"] for one in found)
    stored = find_records([RESULTS / "polyp"])
    assert stored.notes == []
    assert unsealed_text(stored.records).endswith("without a digest of the code that made them")


def test_verify_names_what_is_not_sound_and_ends_with_3(folder):
    sealed(folder.with_name("y"), seed=1)
    assert call(["verify", str(folder.parent)]).code == 0
    cut(folder, "per_image.csv")
    done = call(["verify", str(folder.parent)])
    assert done.code == 3
    assert f"{folder}: NOT SOUND: per_image.csv was changed or cut off" in done.stdout
    assert f"1 of 2 records are sound; not so: {folder}" in done.stderr
    assert call(["verify", str(folder / "nowhere")]).code == 2
    shutil.rmtree(folder.with_name("y"))
    (folder / "run.json").unlink()
    assert call(["verify", str(folder.parent)]).code == 3  # there is nothing to verify


def test_publish_takes_roots_and_keeps_back_what_is_not_sound(folder, tmp_path):
    sealed(folder.with_name("y"), seed=1)
    resealed(folder, lambda found: found["scores"]["CAMO"].update(mae=0.2))
    made = []
    with pytest.raises(DataError, match=r"x is not published: CAMO mae is 0\.2"):
        made.extend(publish_all([folder.parent], tmp_path / "records"))
    (copy,) = find_records([tmp_path / "records"]).stored
    assert copy.record.seed == 1
    assert verify_record(copy.folder).without == ["adapter.safetensors"]
    done = call(["publish", str(folder.parent), "--results", str(tmp_path / "records")])
    assert done.code == 3
    assert done.stdout.split() == [str(copy.folder)]
