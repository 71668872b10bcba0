"""Groups of images that vary together: where they are known from, and what they do to a mean."""

import numpy as np
import pytest
from sample_records import record

from lpmoe_bench.analysis.comparison import compare_records
from lpmoe_bench.analysis.groups import Grouping, GroupSource, read_groups
from lpmoe_bench.analysis.pairing import Rules, pair_up
from lpmoe_bench.analysis.samples import SeedRows
from lpmoe_bench.errors import DataError, UsageError
from lpmoe_bench.records.store import StoredRecord, write_record

FRAMES = {"a": "1", "b": "1", "c": "1", "d": "2"}


def stored(root, name, seed, values, test="CAMO", groups=None):
    """A written record of a seed with a value for each image."""
    rows = [
        {"dataset": test, "image": image, **({"group": groups[image]} if groups else {})}
        | {"s_measure": value, "flags": ""}
        for image, value in values.items()
    ]
    made = record(name, seed, scores={"s_measure": float(np.mean([*values.values()]))})
    made = made.model_copy(update={"scores": {test: made.scores["CAMO"]}})
    write_record(root / f"{name}-{seed}", made, rows)
    return StoredRecord(root / f"{name}-{seed}", made)


def test_shares_of_groups_by_hand(tmp_path):
    # Mean of a b c d = (1 + 2 + 3 + 6) / 4 = 3. Group 1 has mean 2 and three of four images:
    # 3 + 3 x 2 / 4 x (2 - 3) = 1.5; group 2: 3 + 1 x 2 / 4 x (6 - 3) = 4.5. Their mean is 3.
    one = stored(tmp_path, "lora", 0, {"a": 0.1, "b": 0.2, "c": 0.3, "d": 0.6})
    found = SeedRows([one], "CAMO").samples("s_measure", FRAMES)
    assert found.values[0] == pytest.approx([0.15, 0.45])
    assert (found.groups, found.images) == (["1", "2"], ["a", "b", "c", "d"])
    alone = SeedRows([one], "CAMO").samples("s_measure", {"a": "1", "b": "1"})
    assert alone.groups == ["1", "c", "d"]  # an image of no group stands alone


def test_ratios_of_counts_leave_out_whole_groups(tmp_path):
    # tp of a b c: 1 2 3, with fp 1 each, so IoU 6 / 9. Without a and b: 3 / 4; without c: 3 / 5.
    # Pseudo-values 2 x 2/3 - 3/4 and 2 x 2/3 - 3/5, shifted so that their mean is 2/3.
    rows = [
        {"dataset": "CAMO", "image": image, "tp": tp, "fp": 1, "fn": 0, "tn": 5, "flags": ""}
        for image, tp in (("a", 1), ("b", 2), ("c", 3))
    ]
    made = record(scores={"iou_dataset": 2 / 3})
    write_record(tmp_path, made, rows)
    source = SeedRows([StoredRecord(tmp_path, made)], "CAMO")
    found = source.samples("iou_dataset", {"a": "1", "b": "1", "c": "2"}).values[0]
    first, second = 4 / 3 - 3 / 4, 4 / 3 - 3 / 5
    shift = 2 / 3 - (first + second) / 2
    assert found == pytest.approx([first + shift, second + shift])


def _videos(tmp_path, groups=None):
    """Two methods on 10 videos of 10 frames, whose difference is one a video."""
    rng, sides = np.random.default_rng(0), []
    of = {f"v{v}f{f}": f"v{v}" for v in range(10) for f in range(10)}
    effect = {f"v{v}": value for v, value in enumerate(rng.normal(0.02, 0.05, 10))}
    for name, times in (("lora", 1.0), ("vpt", 0.0)):
        sides.append(
            [
                stored(
                    tmp_path, name, seed,
                    {i: 0.5 + times * effect[g] + rng.normal(0, 0.01) for i, g in of.items()},
                    groups=of if groups else None,
                )
                for seed in range(3)
            ]
        )  # fmt: skip
    return *sides, of


def test_frames_of_a_video_are_no_independent_images(tmp_path):
    a, b, of = _videos(tmp_path)
    table = tmp_path / "groups.csv"
    table.write_text("image,group\n" + "".join(f"{i},{g}\n" for i, g in of.items()))
    frames = pair_up(a, b, "CAMO", "s_measure").spread
    videos = pair_up(a, b, "CAMO", "s_measure", GroupSource(table)).spread
    assert (frames.units, videos.units, videos.images, videos.groups) == (100, 10, 100, 10)
    assert videos.mean == pytest.approx(frames.mean)
    width = [one.uncertainty.half_width(0.95) for one in (videos, frames)]
    assert 2.5 < width[0] / width[1] < 4  # ten frames that say the same count once: sqrt(10)


def test_groups_of_the_rows_count_by_themselves_and_are_said(tmp_path):
    a, b, _ = _videos(tmp_path, groups=True)
    report = compare_records(a, b, ["s_measure"])
    assert report.lines[0].groups == "10 groups"
    assert report.lines[0].result.spread.groups == 10
    assert "CAMO: 10 groups vary, not single images" in report.notes


def test_the_registry_knows_sequences_by_names_alone(tmp_path):
    test = "cvc_clinicdb/test_seqdisjoint"
    values = {f"{n:03}": 0.5 for n in (79, 80, 104, 127, 128)}  # sequences 5, 5, 6, 7, 7
    own = SeedRows([stored(tmp_path, "lora", 0, values, test)], test)
    found = GroupSource().of(own)
    assert found is not None
    assert (found.text, found.of["080"], found.of["128"]) == ("3 sequences", "5", "7")


def test_stretches_are_counted_in_their_own_words():
    what = "stretch of 20 images of a video"
    frames = {str(number): f"a stretch {number // 20}" for number in range(40)}
    assert Grouping(what, frames).text == "2 stretches of 20 images of a video"
    assert Grouping(what, {"1": "a"}).text == "1 stretch of 20 images of a video"
    assert Grouping("sequence", FRAMES).text == "2 sequences"


def test_few_groups_are_said_to_resolve_little(tmp_path):
    test = "cvc_clinicdb/test_seqdisjoint"
    rng = np.random.default_rng(0)
    a, b = (
        [
            stored(tmp_path, name, s, {f"{n:03}": rng.random() for n in range(79, 178)}, test)
            for s in range(3)
        ]
        for name in ("lora", "vpt")
    )
    (note,) = [n for n in compare_records(a, b, ["s_measure"]).notes if "sequences" in n]
    assert note.endswith("4 sequences vary, not single images; fewer than 8 resolve little")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a,1\nb,1\nc,1\n", "has no group of 1 of 4 images of CAMO, such as d"),
        ("x,1\ny,2\n", "has no image of these test sets"),
        ("a,1\na,2\n", "puts a into two groups"),
        ("a\n", r"line 1: got \['a'\]; write image,group"),
        ("image,group\n", "holds no line"),
    ],
)
def test_what_a_file_of_groups_lacks_is_said(tmp_path, text, sentence):
    table = tmp_path / "groups.csv"
    table.write_text(text)
    values = {"a": 0.1, "b": 0.2, "c": 0.3, "d": 0.6}
    a, b = ([stored(tmp_path, name, s, values) for s in (0, 1)] for name in ("lora", "vpt"))
    with pytest.raises((DataError, UsageError), match=sentence):
        compare_records(a, b, ["s_measure"], Rules(groups=GroupSource(table)))


def test_a_file_of_groups_that_is_not_there_is_said(tmp_path):
    with pytest.raises(DataError, match="could not be read"):
        read_groups(tmp_path / "none.csv")
