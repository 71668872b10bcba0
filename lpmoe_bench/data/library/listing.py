"""What of the registry is there, what is missing, and where to get it, in plain words."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lpmoe_bench.data.pairs import split_pairs
from lpmoe_bench.data.registry import Dataset
from lpmoe_bench.errors import DataError

UNSET = "LPMOE_BENCH_DATA is not set"


@dataclass(frozen=True)
class SplitState:
    """One split on disk. pairs: None where it is not there; problem: why it cannot be opened."""

    split: str
    role: str
    pairs: int | None
    official: int | None
    confirmed: bool
    local: bool
    problem: str = ""

    @property
    def sentence(self) -> str:
        """How much of it is there."""
        if self.problem:
            return f"broken: {self.problem}"
        there = "missing" if self.pairs is None else f"{self.pairs} pairs"
        if self.official in (None, self.pairs):
            return there
        return f"{there}, officially {self.official}" + (
            "" if self.confirmed else " (not confirmed)"
        )

    @property
    def short(self) -> str:
        """The same in a word or two."""
        if self.problem:
            return "broken"
        known = self.official not in (None, self.pairs)
        return f"{self.pairs} of {self.official}" if known else f"{self.pairs}"


@dataclass(frozen=True)
class SetState:
    """A data set and what of it is on disk."""

    dataset: Dataset
    place: Path | None
    splits: list[SplitState]

    @property
    def state(self) -> str:
        """Found, partly found, broken or missing."""
        if any(split.problem for split in self.splits):
            return "broken"
        # A set is found by its official splits; local ones are extras, unless it has no others.
        official = [split for split in self.splits if not split.local] or self.splits
        if all(split.pairs is not None for split in official):
            return "found"
        return "partly" if any(split.pairs is not None for split in self.splits) else "missing"

    def as_json(self) -> dict[str, Any]:
        facts = self.dataset.model_dump(mode="json", exclude={"base", "layouts", "splits"})
        return facts | {
            "state": self.state,
            "place": str(self.place) if self.place else None,
            "splits": [asdict(split) for split in self.splits],
            "get": how_to_get(self.dataset),
        }


def set_state(dataset: Dataset, root: Path | None) -> SetState:
    """Look for the splits of a set under the data root; names are matched, no file is read."""
    place = dataset.location(root)
    splits = []
    for name in dataset.split_names:
        pairs, problem = None, ""
        try:
            pairs = None if place is None else split_pairs(dataset, place, name)
        except DataError as error:
            problem = str(error)
        splits.append(
            SplitState(
                split=name,
                role=dataset.role(name),
                pairs=None if pairs is None else len(pairs),
                official=dataset.counts.get(name),
                confirmed=dataset.is_confirmed(name),
                local=name in dataset.local,
                problem=problem,
            )
        )
    return SetState(dataset, place, splits)


def how_to_get(dataset: Dataset) -> str:
    """Return the sentence that says where a set comes from and which command takes it in."""
    if dataset.archives:
        return f"lpmoe-bench data fetch {dataset.name}"
    if dataset.by_hand:
        return (
            f"open {dataset.page} and download by hand: {dataset.by_hand}; then lpmoe-bench data "
            f"add {dataset.name} FILE"
        )
    if dataset.page:
        return f"a copy made locally after {dataset.page}; it cannot be downloaded as it is"
    return f"lpmoe-bench data add {dataset.name} FILE_OR_FOLDER"


def overview(states: list[SetState]) -> list[tuple[str, str]]:
    """Return (set, one line) for a list of all sets."""
    lines = []
    for state in states:
        dataset = state.dataset
        there = [s for s in state.splits if s.pairs is not None or s.problem]
        command = f"lpmoe-bench data {'fetch' if dataset.archives else 'show'} {dataset.name}"
        rest = ", ".join(f"{s.split} {s.short}" for s in there) or command
        roles = "+".join(dict.fromkeys(split.role for split in state.splits))
        lines.append((dataset.name, f"{dataset.task:<7} {state.state:<8} {roles}: {rest}"))
    return lines


def _labels(dataset: Dataset) -> str:
    """Say what the classes of its label maps are; empty for binary masks."""
    rules = dataset.pixels.labels
    if rules is None:
        return ""
    if not rules.classes:
        return f"classes of the list {(dataset.labels or {})['classes']} in its folder"
    return f"{len(rules.classes)} classes by {rules.format}: {', '.join(rules.classes)}"


def details(state: SetState, root: Path | None) -> list[tuple[str, str]]:
    """Return (field, text) with all that a user may want to know about one set."""
    dataset = state.dataset
    where = str(state.place) if state.place else f"not under {root}" if root else UNSET
    lines = [
        ("data set", f"{dataset.name}: {dataset.title}"),
        ("task", dataset.task),
        ("labels", _labels(dataset)),
        ("folder", where),
    ]
    for split in state.splits:
        local = "; a local split, nobody's official one" if split.local else ""
        lines.append((f"  {split.split}", f"{split.sentence} (for {split.role}){local}"))
    lines += [
        ("page", dataset.page),
        ("licence", dataset.licence),
        ("note", dataset.note),
        ("archives", "\n".join(archive.url[0] for archive in dataset.archives)),
        ("get it", "" if state.state == "found" else how_to_get(dataset)),
        ("verify it", f"lpmoe-bench data verify {dataset.name}" if state.place else ""),
    ]
    return [(field, text) for field, text in lines if text]
