"""A sweep in words: its plan and its result, as lines for people or JSON for machines."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lpmoe_bench.console import Terminal
from lpmoe_bench.environment import collect_environment
from lpmoe_bench.sweep.plan import Sweep
from lpmoe_bench.sweep.process import last_line, tail
from lpmoe_bench.sweep.runner import Estimate, duration, total_words, words_of
from lpmoe_bench.sweep.state import MOST_ATTEMPTS, CellState

ORDER = ("done", "running", "partial", "waiting", "failed")
WORDS = {"partial": "partly done"}


def show_plan(
    sweep: Sweep,
    folder: Path,
    states: Sequence[CellState],
    estimates: Mapping[str, Estimate],
    jobs: int,
    as_json: bool,
) -> None:
    """Print what would run, what is done, and how long the rest may take."""
    if as_json:
        cells = [
            {**state.as_json(), "estimate": estimates[state.cell.name]._asdict()}
            if state.cell.name in estimates
            else state.as_json()
            for state in states
        ]
        _print_json(sweep, folder, cells)
        return
    width = max(len(state.cell.name) for state in states)
    for state in states:
        name, one = state.cell.name, estimates.get(state.cell.name)
        time = ""
        if one is not None:
            time = "time unknown" if one.seconds is None else f"about {duration(one.seconds)}"
        state_ = WORDS.get(state.state, state.state)
        line = f"{name:<{width}}  {state.cell.fingerprint[:12]}  {state_:<11}  {time}"
        print(f"{line.rstrip()}{_failed_words(state)}")
    print(f"sweep {sweep.id}: {counts(states)}")
    for words in other_code([state for state in states if state.state == "done"]):
        print(words)
    print(f"left: {total_words(estimates, jobs)}")


def show_result(
    sweep: Sweep, folder: Path, states: Sequence[CellState], as_json: bool, terminal: Terminal
) -> None:
    """Print how every cell stands after a sweep."""
    if as_json:
        _print_json(sweep, folder, [state.as_json() for state in states])
        return
    others = [state for state in states if state.state not in ("done", "failed")]
    if others:
        names = ", ".join(state.cell.name for state in others[:5])
        terminal.note(
            f"{len(others)} cells are left to other processes that work on them ({names}); the "
            f"same command looks again, `lpmoe-bench sweep status` tells how they stand"
        )
    print(f"sweep {sweep.id}: {counts(states)}")


def show_status(found: Sequence[tuple[Path, Sweep, Sequence[CellState]]], as_json: bool) -> None:
    """Print every sweep: counts, and a line for each cell that runs, has failed or is half done."""
    if as_json:
        whole = [
            {"id": sweep.id, "folder": str(folder), "created": sweep.created}
            | {"cells": [state.as_json() for state in states]}
            for folder, sweep, states in found
        ]
        print(json.dumps(whole, indent=2, ensure_ascii=False))
        return
    for folder, sweep, states in found:
        print(f"sweep {sweep.id}, planned {sweep.created}: {counts(states)}")
        print(f"  {folder}")
        for words in other_code([state for state in states if state.state == "done"]):
            print(f"  {words}")
        for state in states:
            if state.state == "running":
                print(f"  running      {words_of(state.cell)}: {_now(state.log)}")
            elif state.state == "partial":
                print(f"  partly done  {words_of(state.cell)}{_failed_words(state)}")
            elif state.state == "failed" or (state.failures and state.state == "waiting"):
                print(f"  {state.state:<11}  {words_of(state.cell)}{_failed_words(state)}")


def counts(states: Sequence[CellState]) -> str:
    """Count cells by how they stand."""
    found = Counter(state.state for state in states)
    parts = [f"{found[name]} {WORDS.get(name, name)}" for name in ORDER if found[name]]
    return f"{len(states)} cells: {', '.join(parts)}"


def other_code(done: Sequence[CellState]) -> list[str]:
    """Say how many finished cells were made by other code than this."""
    here = collect_environment("")
    others = [
        state.record.environment
        for state in done
        if state.record is not None
        and (state.record.environment.version, state.record.environment.git_sha)
        != (here.version, here.git_sha)
    ]
    if not others:
        return []
    shas = sorted({(one.git_sha or "no commit")[:12] for one in others})
    return [
        f"{len(others)} of {len(done)} finished cells were made by other code ({', '.join(shas)}); "
        f"this is {(here.git_sha or f'version {here.version}')[:12]}"
    ]


def _now(log: Path | None) -> str:
    """Return the last words of a cell at work; its log opens with the command, which are none."""
    words = last_line(tail(log)) if log else ""
    return "starting" if not words or words.startswith("# ") else words


def _failed_words(state: CellState) -> str:
    if not state.failures or state.state == "done":
        return ""
    log = f"; log: {state.log}" if state.log else ""
    tries = f"{len(state.failures)} of {MOST_ATTEMPTS} attempts failed"
    return f"  ({tries}: {state.failures[-1].reason}{log})"


def _print_json(sweep: Sweep, folder: Path, cells: list[dict[str, Any]]) -> None:
    found = {"id": sweep.id, "folder": str(folder), "cells": cells}
    print(json.dumps(found, indent=2, ensure_ascii=False))
