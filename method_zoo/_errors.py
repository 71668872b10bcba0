"""Expected errors of the zoo, each one sentence, and the "did you mean" sentence."""

from collections.abc import Iterable
from difflib import get_close_matches


class ZooError(ValueError):
    """A request the zoo cannot serve: what was got, what is allowed, what to do."""


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """Return the sentence for a name that is not among the known ones."""
    known = sorted(known)
    close = get_close_matches(name, known, n=1)
    hint = f"did you mean '{close[0]}'? " if close else ""
    return f"unknown {kind} '{name}'; {hint}known: {', '.join(known) or 'none'}"
