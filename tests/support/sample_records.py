"""Records made by hand, for the tests of what reads records."""

from lpmoe_bench.records.model import Record

PARAMETERS = {"decoder_only": 0, "lora": 147456, "vpt": 55296}


def content(name="lora", seed=0, **changes):
    """The content of a run.json; `changes` replace fields, `scores` those of the test set CAMO."""
    trained = PARAMETERS[name] + 500000
    scores = changes.pop(
        "scores", {"s_measure": 0.75, "e_mean": 0.8, "weighted_f": 0.6, "mae": 0.1}
    )
    train = {"epochs": 3, "batch": 8, "lr": 1e-3, "loss": "structure", "limit_train": None}
    train |= changes.pop("train", {})
    split = {"images": 248, "note": "official split less six images, resized copies"}
    return {
        "schema_version": 1,
        "kind": "run",
        "status": "finished",
        "id": f"cod/{name}/small/{name:0<12}-s{seed}",
        "created": "2026-01-02T03:04:05+00:00",
        "config": {
            **{"task": "cod", "method": name, "backbone": "small", "size": 256, "seed": seed},
            **{"decoder": "fpn", "decoder_options": {"width": 64}, "protocol": "cod"},
            "options": {},
            "train": train,
            "runtime": {"device": "cpu", "workers": seed},
        },
        "fingerprint": f"{name:0<64}",
        "seed": seed,
        "method": {"name": name, "title": {"lora": "LoRA", "vpt": "VPT"}.get(name, "Decoder only")},
        "decoder": {"name": "fpn", "options": {"width": 64}},
        "backbone": {"name": "small", "weights_sha256": "ab" * 32, "note": "saliency-tuned"},
        "task": "cod",
        "protocol": {"name": "cod", "version": 1, "hash": "cd" * 32},
        "scores": {"CAMO": scores},
        "counts": {"CAMO": {"images": 248, "scored": 248}},
        "parameters": {
            **{"method": PARAMETERS[name], "decoder": 500000, "trainable": trained},
            **{"frozen": 22000000, "total": 22000000 + trained},
            "share_of_backbone": PARAMETERS[name] / 22000000,
            "share_of_total": trained / (22000000 + trained),
        },
        "costs": {"train_images_per_second": 10.0 + (seed or 0), "peak_memory_bytes": 3 * 2**30},
        "environment": {
            **{"python": "3.11.7", "platform": "Linux", "cpu": "Some CPU", "device": "cpu"},
            **{"git_sha": "ef" * 20, "git_dirty": False, "version": "0.1.0"},
        },
        "data": {
            "train": {"label": "CAMO-train", "digest": "11" * 32, "images": 996},
            "tests": [{"label": "CAMO", "digest": "22" * 32, **split}],
        },
    } | changes


def record(name="lora", seed=0, **changes):
    """A record; see `content`."""
    return Record.model_validate(content(name, seed, **changes))


def changed(path, value):
    """A record of another method that differs in one field of its content."""
    other = content("vpt")
    *parents, leaf = path
    place = other
    for key in parents:
        place = place[key]
    place[leaf] = value
    return record("vpt", **{path[0]: other[path[0]]})
