"""What benchmarks share: CPU time of one thread, alternatives in turns, medians of ratios."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping

from lpmoe_bench.environment import keep_freed_memory

Times = dict[str, list[float]]


def seconds(work: Callable[[], object]) -> float:
    """Return the CPU time that a call takes, of all threads of this process."""
    start = time.process_time()
    work()
    return time.process_time() - start


def in_turns(works: Mapping[str, Callable[[], object]], rounds: int, warm_up: int = 1) -> Times:
    """Time each work once a round; the rounds that warm up come first and do not count.

    Every other round goes backwards, so that none always follows the same one. All keep what they
    free, as the command line does.
    """
    keep_freed_memory()
    times: Times = {name: [] for name in works}
    for turn in range(-warm_up, rounds):
        for name in list(works)[:: 1 - 2 * (turn % 2)]:
            taken = seconds(works[name])
            if turn >= 0:
                times[name].append(taken)
    return times


def median(times: Times) -> dict[str, float]:
    """Return the median seconds of each work."""
    return {name: statistics.median(own) for name, own in times.items()}


def ratio(times: Times, over: str, under: str) -> float:
    """Return the median over rounds of one work's time divided by another's in the same round."""
    return statistics.median(a / b for a, b in zip(times[over], times[under], strict=True))


def multiple(of: int) -> Callable[[str], int]:
    """Return what reads a positive multiple of a number from the command line."""

    def read(text: str) -> int:
        if not text.isdecimal() or not int(text) or int(text) % of:
            words = "a whole number from 1" if of == 1 else f"a positive multiple of {of}"
            raise argparse.ArgumentTypeError(f"{text!r} is not {words}")
        return int(text)

    return read
