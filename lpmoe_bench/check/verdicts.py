"""What the gate says: a line for each thing judged, the outcome of a call, its exit code."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from lpmoe_bench.check.baseline import Policy
from lpmoe_bench.check.limits import Reference
from lpmoe_bench.errors import NotComparableError

Verdict = Literal["pass", "improved", "inconclusive", "not comparable", "regressed"]
Kind = Literal["cell", "quality", "count", "speed"]
# From the best to what weighs most in a call.
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
REGRESSED, INCONCLUSIVE = 10, 11


@dataclass(frozen=True)
class Judgement:
    """The numbers behind the verdict on one score; drops are positive where quality falls.

    level: at which Holm's procedure judged it. tolerance: the drop that is still none. limit: the
    score that lies just there. seeds: of the candidate. identical: to the last bit, seed by seed.
    needed: seeds that would settle it, and whether the baseline needs them too.
    """

    reference: Reference
    seeds: int
    drop: float
    p: float | None
    level: float
    family: int
    tolerance: float | None
    limit: float | None
    identical: bool
    needed: tuple[int, bool] | None = None


@dataclass(frozen=True)
class Line:
    """One thing judged. name: of a metric by its key, else in words. reason: a clause, not a
    sentence; it says why the verdict is not a plain pass."""

    cell: str
    kind: Kind
    name: str
    verdict: Verdict
    reason: str = ""
    baseline: float | None = None
    candidate: float | None = None
    judgement: Judgement | None = None


@dataclass(frozen=True)
class Outcome:
    """All lines of a call; `notes` say what was not judged."""

    lines: tuple[Line, ...]
    notes: tuple[str, ...]
    policy: Policy

    @property
    def verdict(self) -> Verdict:
        found = {line.verdict for line in self.lines}
        for verdict in reversed(VERDICTS):
            if verdict in found:
                return verdict
        return "not comparable"  # no line is no pass

    def exit_code(self, strict: bool) -> int:
        """Return 10, 5, 11 (strict) or 0: a proven regression weighs more than a missing cell."""
        codes = {"regressed": REGRESSED, "not comparable": NotComparableError.exit_code}
        if strict:
            codes["inconclusive"] = INCONCLUSIVE
        return codes.get(self.verdict, 0)

    def summary(self) -> str:
        """Return the counts of the verdicts, the gravest first."""
        counts = Counter(line.verdict for line in self.lines)
        return ", ".join(f"{counts[v]} {v}" for v in reversed(VERDICTS) if counts[v])

    def as_json(self, strict: bool) -> dict[str, Any]:
        """Return everything for machines."""
        return {
            "verdict": self.verdict,
            "exit_code": self.exit_code(strict),
            "policy": self.policy.model_dump(),
            "lines": [asdict(line) for line in self.lines],
            "notes": list(self.notes),
        }
