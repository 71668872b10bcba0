"""Records with rows, curves and pictures, as the tests of the report need them."""

from pathlib import Path

import cv2
import numpy as np
from sample_records import PARAMETERS, record
from typer.testing import CliRunner

from lpmoe_bench.cli.app import app
from lpmoe_bench.data.pairs import find_pairs
from lpmoe_bench.data.splits import Split, make_split
from lpmoe_bench.records.store import StoredRecord, write_record

IMAGES = 12
HOSTILE = """<script>alert(1)</script>"'&<img src=x onerror=alert(2)>\u202e\ud800 мета 方法"""


def stored(
    root: Path, name: str = "lora", seed: int = 0, shift: float = 0.0, test: str = "CAMO", **changes
) -> StoredRecord:
    """A written record of some images, whose rows average to its scores; `shift` moves them."""
    rng = np.random.default_rng([seed, sorted(PARAMETERS).index(name)])
    values = np.clip(np.linspace(0.4, 0.8, IMAGES) + 0.05 * rng.random(IMAGES) + shift, 0, 1)
    rows = [
        {
            **{"dataset": test, "image": f"img{n:02}", "s_measure": float(v), "mae": float(1 - v)},
            **{"foreground_share": 0.004 * 1.6**n, "flags": ""},
        }
        for n, v in enumerate(values)
    ]
    mean = float(values.mean())
    facts = {"label": test, "digest": "22" * 32, "images": IMAGES}
    made = record(
        name,
        seed,
        **{
            "scores": {"s_measure": mean, "e_mean": mean, "weighted_f": mean, "mae": 1 - mean},
            "data": {
                "train": {"label": "CAMO-train", "digest": "11" * 32, "images": 996},
                "tests": [facts],
            },
        }
        | changes,
    )
    if test != "CAMO":
        made = made.model_copy(update={"scores": {test: made.scores["CAMO"]}})
    curve = [
        {"step": step, "loss": 2 / step, "validation": 0.5 + step / 100 if step % 5 == 0 else None}
        for step in range(1, 21)
    ]
    print_ = made.fingerprint[:6] + made.fingerprint[-6:]
    folder = root / "-".join([name, str(seed), print_, "".join(filter(str.isalnum, made.task))])
    write_record(folder, made, rows, curve)
    return StoredRecord(folder, made)


def draw_maps(one: StoredRecord, test: str = "CAMO") -> None:
    """Keep a map of every image beside the record, as a run does that was asked to."""
    for number in range(IMAGES):
        pred = np.full((24, 32), 20 * number, np.uint8)
        path = one.folder / "predictions" / test.replace("/", "-") / f"img{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), pred)


def draw_set(root: Path) -> tuple[Path, Split]:
    """Draw a set of two-coloured images, `tiny/test`, below root/data; its registry, its split."""
    folder = root / "data" / "tiny"
    for number in range(IMAGES):
        mask = np.zeros((24, 32), np.uint8)
        mask[4:12, 4 : 8 + number] = 255
        for kind, picture in (("images", mask // 2 + 60), ("masks", mask)):
            path = folder / kind / f"img{number:02}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), picture)
    own = root / "own.yaml"
    own.write_text(
        "datasets:\n  tiny:\n    title: Tiny\n    task: cod\n    folder: data/tiny\n"
        "    images: images\n    masks: masks\n    splits: {test: null}\n"
    )
    pairs = find_pairs(folder / "images", folder / "masks")
    return own, make_split(Split("tiny", "test", (), ""), "test", pairs)


def draw_two(runs: Path, digest: str) -> None:
    """Write two methods' records of that set, each with its maps."""
    facts = {"label": "tiny/test", "digest": digest, "images": IMAGES}
    for name, shift in (("lora", 0.0), ("vpt", 0.1)):
        draw_maps(stored(runs, name, 0, shift, "tiny/test", data={"tests": [facts]}), "tiny/test")


def report(root: Path, place: Path, *more: str) -> str:
    """The page that the command writes of records, without data of this machine."""
    command = ["report", str(root), "-o", str(place), "-q", *more]
    places = {"LPMOE_BENCH_DATA": None, "LPMOE_BENCH_CACHE": str(root.parent / "cache")}
    done = CliRunner().invoke(app, command, env=places)
    assert done.exit_code == 0, done.output
    assert done.stdout.strip() == str(place / "index.html")
    return (place / "index.html").read_text(encoding="utf-8")
