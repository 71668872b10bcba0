"""Records of which tests make tables: several methods, tasks, test sets, and with rows."""

import numpy as np
from sample_records import content, record

from lpmoe_bench.analysis.pairing import Rules
from lpmoe_bench.metrics.facts import parse_margins
from lpmoe_bench.metrics.protocols import PROTOCOLS
from lpmoe_bench.records.model import Record
from lpmoe_bench.records.store import StoredRecord, write_record
from lpmoe_bench.tables.table import build_table
from lpmoe_bench.tables.verdicts import with_verdicts


def scores(s, e=0.8, w=0.6, mae=0.1):
    return {"s_measure": s, "e_mean": e, "weighted_f": w, "mae": mae}


def three_methods():
    """Decoder only and VPT with one seed, LoRA with two."""
    return [
        record("vpt", scores=scores(0.7412, 0.81, 0.56, 0.125), train={"lr": 5e-3}),
        record("lora", 1, scores=scores(0.7600, 0.83, 0.57, 0.120)),
        record("decoder_only", scores=scores(0.697, 0.77, 0.477, 0.155)),
        record("lora", 0, scores=scores(0.7500, 0.82, 0.58, 0.123)),
    ]


def nasty():
    method = {"name": "lora", "title": r"A_b & 50% {x} #1 $y^2~<z>\ | *t*"}
    return build_table([record(method=method), record("vpt")])


def shadow(name="lora", seed=0, ber=0.2):
    """A record of another task: other test set, training set, protocol and loss; BER alone."""
    made = content(name, seed, task="shadow", train={"loss": "balanced_bce"})
    tests = [made["data"]["tests"][0] | {"label": "SBU", "digest": "77" * 32}]
    made["data"] = {"train": made["data"]["train"] | {"label": "SBU-train"}, "tests": tests}
    made["protocol"] = {"name": "shadow_sbu", "version": 1, "hash": "77" * 32}
    return Record.model_validate(
        made | {"scores": {"SBU": {"ber_dataset": ber}}, "counts": {"SBU": {"images": 90}}}
    )


BOTH = [record("vpt"), record("lora"), shadow("vpt", ber=0.1), shadow("lora")]


SETS = ("CAMO", "Other")


def of_two(name="lora", seed=0, values=(0.7, 0.8), **changes):
    """A record with scores on two test sets, S as given."""
    made = content(name, seed, **changes)
    tests = [made["data"]["tests"][0] | {"label": label, "digest": label * 8} for label in SETS]
    made["data"] = made["data"] | {"tests": tests}
    made["scores"] = {
        label: {"s_measure": value, "mae": 0.1} for label, value in zip(SETS, values, strict=True)
    }
    made["counts"] = {label: {"images": 248} for label in SETS}
    return Record.model_validate(made)


def stored(root, name="lora", seed=0, shift=0.0, sets=SETS, images=8, **changes):
    """A written record whose rows average to its scores, on each test set."""
    rng = np.random.default_rng([seed or 0, images, len(name)])
    rows, scores = [], {}
    for label in sets:
        base = np.random.default_rng([images, len(label)]).random(images)
        values = 0.6 + 0.1 * base + shift + 0.01 * rng.random(images)
        scores[label] = {"s_measure": float(values.mean()), "mae": float(1 - values.mean())}
        rows += [
            {"dataset": label, "image": f"i{n}", "s_measure": v, "mae": 1 - v, "flags": ""}
            for n, v in enumerate(values.tolist())
        ]
    made = content(name, seed, **changes)
    tests = [made["data"]["tests"][0] | {"label": label, "digest": label * 8} for label in sets]
    made |= {"scores": scores, "counts": {}, "data": made["data"] | {"tests": tests}}
    record = Record.model_validate(made)
    folder = root / f"{record.fingerprint[:9]}-{seed}-{'+'.join(sets)}"
    write_record(folder, record, rows)
    return StoredRecord(folder, record)


def three(root, seeds=(0, 1, 2), **changes):
    return [
        stored(root, name, seed, shift, **changes)
        for name, shift in (("lora", 0.0), ("vpt", 0.05), ("decoder_only", -0.05))
        for seed in seeds
    ]


def judged(found, against="lora", margin=None, rules=None, **options):
    rules = rules or Rules(parse_margins(margin))
    table = build_table([one.record for one in found], metrics=["s_measure", "mae"], **options)
    return with_verdicts(table, found, against, rules)


CAMO = "sinet_cod/test_camo"


COD = {"name": "cod", "version": 1, "hash": PROTOCOLS["cod"].hash}


SCORES = {"s_measure": 0.9, "e_mean": 0.9, "weighted_f": 0.8, "mae": 0.05}


def own(name="lora", seed=0, label=CAMO, images=250, scores=SCORES, **changes):
    """A record on the complete test set of CAMO, at its original size, with a paper's weights."""
    split = {"label": label, "digest": "22" * 32, "images": images}
    split |= changes.pop("split", {})
    counts = changes.pop("counts", {"images": images})
    made = content(name, seed, **{"protocol": COD, "backbone": {"name": "vit"}} | changes)
    made |= {"scores": {label: scores}, "counts": {label: counts}}
    made["data"] = made["data"] | {"tests": [split]}
    return type(record()).model_validate(made)
