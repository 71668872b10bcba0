"""What the gate promises, worked out: false alarms, --strict, drops found, and replays.

Scores of seeds are drawn and pinned by the package's own functions. A baseline is pinned once and
met by many clean changes: for each one drawn, the share of clean changes that alarm is integrated,
so a rate is told on average and for each baseline. A call alarms where any score falls past its
limit at the level of Holm's first step; `judge_scores` has to say the same of calls that are drawn.

    python benchmarks/gate.py [--json] [--baselines 1000] [--seed 0]

Exit code 1 where a promise is broken by more than four standard errors of the simulation, which
among some hundred comparisons does not happen by chance.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy import special

from lpmoe_bench.gate import limits
from lpmoe_bench.gate.baseline import CellPin, Policy
from lpmoe_bench.gate.explain import PlannedScore, smallest_drop, strict_share
from lpmoe_bench.gate.judge import Score, judge_scores
from lpmoe_bench.gate.pin import metric_pin
from lpmoe_bench.metrics.facts import METRICS

SEED_SD, MEAN, PLANTED = 0.01, 0.7, 0.001
OFTEN, CALLS = 0.14, 20  # alarms on so many clean changes; calls until somebody sees one
KEYS = [key for key, fact in METRICS.items() if fact.higher_is_better]
DOUBT = 4  # standard errors by which a promise may be missed
CHECKED = 20  # calls of each setting that are judged in full as well
NODES, WEIGHTS = special.roots_hermitenorm(60)
WEIGHTS = WEIGHTS / WEIGHTS.sum()


class Setting(NamedTuple):
    """pinned and candidate: seeds. scores of a call; shared: their correlation over seeds. replay:
    the sd of a rerun of one seed, None where seeds are run once."""

    pinned: int
    candidate: int
    scores: int
    shared: float = 0.0
    confidence: float | None = None
    replay: float | None = None


ONCE = [
    Setting(n, m, scores, shared)
    for n, m, scores, shared in (
        (3, 3, 1, 0.0),
        (5, 1, 1, 0.0),
        (5, 5, 1, 0.0),
        (8, 8, 1, 0.0),
        (2, 2, 4, 0.0),
        (3, 3, 4, 0.0),
        (5, 1, 4, 0.0),
        (5, 5, 4, 0.0),
        (5, 5, 4, 0.9),
        (8, 8, 4, 0.0),
        (5, 5, 12, 0.5),
    )
]
SETTINGS = [*ONCE, *(one._replace(confidence=0.9) for one in ONCE)]
REPLAYS = [
    Setting(n, n, 4, 0.0, confidence, noise)
    for noise in (0.0, 0.0001, 0.0003, 0.001)
    for n, confidence in ((2, None), (5, None), (5, 0.9))
]


class Pinned(NamedTuple):
    """One baseline. references: one a score. truth: what its seeds score on average without noise.
    sd: of one score of a candidate."""

    references: list[limits.Reference]
    truth: np.ndarray
    sd: float

    @property
    def above(self) -> np.ndarray:
        """How far luck has lifted the pinned mean of each score."""
        return np.array([reference.mean for reference in self.references]) - self.truth


def draw(rng: np.random.Generator, count: int, setting: Setting) -> np.ndarray:
    """Return normal deviates, (count, scores), whose scores are correlated."""
    common, own = rng.normal(size=(count, 1)), rng.normal(size=(count, setting.scores))
    return math.sqrt(setting.shared) * common + math.sqrt(1 - setting.shared) * own


def pin(rng: np.random.Generator, setting: Setting, policy: Policy) -> Pinned:
    """Pin a baseline that is drawn; its seeds twice in a replay."""
    scores, again = MEAN + SEED_SD * draw(rng, setting.pinned, setting), None
    truth, sd = [MEAN] * setting.scores, SEED_SD
    if setting.replay is not None:
        truth = [math.fsum(column) / setting.pinned for column in scores.T.tolist()]
        sd, again = setting.replay, scores + setting.replay * draw(rng, setting.pinned, setting)
        scores = scores + setting.replay * draw(rng, setting.pinned, setting)
    references = []
    for k in range(setting.scores):
        reruns = None if again is None else again[:, k].tolist()
        pinned = metric_pin(scores[:, k].tolist(), None, 1, policy, reruns)
        references.append(limits.reference_of(pinned, 1))
    return Pinned(references, np.array(truth), sd)


def share(pinned: Pinned, setting: Setting, drops: np.ndarray) -> float:
    """Return how many clean changes fall by more than `drops`, (scores,), in any score."""
    if pinned.sd == 0:
        return float((pinned.above > drops).any())
    least = (pinned.above - drops) * math.sqrt(setting.candidate) / pinned.sd
    # Given what scores have in common, they fall independently; that is integrated over.
    given = least[:, None] - math.sqrt(setting.shared) * NODES
    stays = special.ndtr(-given / math.sqrt(1 - setting.shared)).prod(axis=0)
    return float(1 - WEIGHTS @ stays)


def simulate(setting: Setting, baselines: int, seed: int) -> dict[str, Any]:
    """Return the rates of one setting."""
    # The same baselines with and without a confidence.
    rng = np.random.default_rng([seed, *setting[:3], round(1e6 * (setting.replay or 0))])
    policy, seeds = Policy(confidence=setting.confidence), setting.candidate
    level, each = policy.level / setting.scores, limits.of_each(policy, setting.scores)
    rates: dict[str, list[float]] = {key: [] for key in ("alarms", "strict", "found", "planted")}
    stated = []
    for number in range(baselines):
        pinned = pin(rng, setting, policy)
        known = pinned.references
        allowed = np.array([limits.tolerance(one, seeds, level, each) for one in known])
        floor = np.array([limits.floor_of(each, one) for one in known])
        doubted = np.minimum(allowed, np.maximum(floor, allowed / 2))
        rates["alarms"].append(share(pinned, setting, allowed))
        rates["strict"].append(share(pinned, setting, doubted))
        rates["planted"].append(share(pinned, setting, allowed - PLANTED))
        least = smallest_drop(known[0], seeds, level, each) or 0.0
        if pinned.sd:  # without noise any drop is found, and none is the smallest
            beyond = (pinned.above[0] + least - allowed[0]) * math.sqrt(seeds) / pinned.sd
            rates["found"].append(float(special.ndtr(beyond)))
        cell = CellPin.model_construct(name="cell")
        stated.append(strict_share([PlannedScore(cell, "", one, seeds) for one in known], policy))
        if number < CHECKED:
            check(rng, pinned, setting, allowed, policy)
    alarms = np.array(rates["alarms"])
    told = {key: np.array(found) for key, found in rates.items() if found}
    row = setting._asdict() | {"found": None} | {k: float(v.mean()) for k, v in told.items()}
    errors = {key: float(found.std() / math.sqrt(baselines)) for key, found in told.items()}
    return row | {
        "errors": errors,
        "worst_tenth": float(np.quantile(alarms, 0.9)),
        "often": float((alarms > OFTEN).mean()),
        "seen": float((1 - (1 - alarms) ** CALLS).mean()),
        "within_level": float((alarms <= policy.level).mean()),
        "stated": [float(side) for side in np.mean(stated, axis=0)],
    }


def check(
    rng: np.random.Generator, pinned: Pinned, setting: Setting, allowed: np.ndarray, policy: Policy
) -> None:
    """Draw a change; stop where its full judgement says otherwise than its first step."""
    noise = 3 * pinned.sd * draw(rng, 1, setting)[0] / math.sqrt(setting.candidate)
    fallen = pinned.above + noise
    pairs = zip(KEYS, pinned.references, fallen.tolist(), strict=False)
    seeds = setting.candidate
    scores = [Score("cell", key, one, one.mean - drop, seeds, False) for key, one, drop in pairs]
    verdicts = {line.verdict for line in judge_scores(scores, policy)}
    if ("regressed" in verdicts) != bool((fallen > allowed).any()):
        raise RuntimeError(f"judge_scores says {verdicts}, and the first step otherwise")


def broken(row: dict[str, Any], baselines: int) -> list[str]:
    """Return the promises that a row breaks."""
    errors, said = row["errors"], []
    if row["alarms"] > 0.05 + DOUBT * errors["alarms"]:
        said.append("alarms on average")
    error = math.sqrt(0.9 * 0.1 / baselines)
    if row["confidence"] and row["within_level"] < row["confidence"] - DOUBT * error:
        said.append("alarms of single baselines")
    (least, most), doubt = row["stated"], DOUBT * errors["strict"] + 0.001
    if not least - doubt <= row["strict"] <= most + doubt:
        said.append("the rate of --strict")
    if row["found"] is not None and abs(row["found"] - 0.8) > DOUBT * errors["found"]:
        said.append("drops found")
    if row["replay"] == 0 and (row["planted"] < 1 or row["alarms"] > 0):
        said.append("an exact replay")
    return said


def table(title: str, rows: list[dict[str, Any]]) -> Table:
    made = Table(title=title)
    heads = ("seeds", "scores", "noise", "confidence", "alarms", "worst tenth", f"> {OFTEN:.0%}")
    heads += (f"seen in {CALLS}", "within 5 %", "strict", "stated", "found", "drop .001", "broken")
    for head in heads:
        made.add_column(head, justify="right")
    for row in rows:
        shared = f", r {row['shared']:g}" if row["shared"] else ""
        made.add_row(
            f"{row['pinned']} / {row['candidate']}",
            f"{row['scores']}{shared}",
            "-" if row["replay"] is None else f"{row['replay']:g}",
            f"{row['confidence'] or '-'}",
            *(f"{row[key]:.1%}" for key in ("alarms", "worst_tenth", "often", "seen")),
            f"{row['within_level']:.1%}",
            f"{row['strict']:.1%}",
            " to ".join(f"{100 * side:.0f}" for side in row["stated"]),
            "-" if row["found"] is None else f"{row['found']:.1%}",
            f"{row['planted']:.1%}",
            "; ".join(row["broken"]) or "none",
        )
    return made


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--baselines", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    simulated = [simulate(one, given.baselines, given.seed) for one in SETTINGS + REPLAYS]
    rows = [row | {"broken": broken(row, given.baselines)} for row in simulated]
    if given.json:
        print(json.dumps(rows, indent=1))
    else:
        console = Console(width=160)
        title = f"{given.baselines} baselines"
        console.print(table(f"New seeds, {title}", rows[: len(SETTINGS)]))
        console.print(table(f"Replays, {title}", rows[len(SETTINGS) :]))
    return int(any(row["broken"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
