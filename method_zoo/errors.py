"""Expected errors of the zoo, each one sentence, and the "did you mean" sentence."""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Self

MOST_NAMES = 40  # more than that nobody reads in an error


class ZooError(ValueError):
    """A request the zoo cannot serve: what was got, what is allowed, what to do."""

    @classmethod
    def unknown(cls, kind: str, name: str, known: Iterable[str]) -> Self:
        """Return the error for a name that is not among the known ones."""
        return cls(unknown(kind, name, known))


class WrongOutputError(TypeError):
    """What a method or a decoder gave is not what it has to give: a fault of its own code.

    Args:
        owner: its class.
        sentence: what it gave and what it has to give, to stand behind a name.
    """

    def __init__(self, owner: type, sentence: str):
        super().__init__(f"{owner.__name__} {sentence}")
        self.owner, self.sentence = owner, sentence


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """Return the sentence for a name that is not among the known ones.

    Args:
        kind: what the name is of, such as "method".
        name: the name that was given.
        known: the names that exist. The closest come first; of very many, only those are named.

    Returns:
        A sentence for an error.
    """
    names = sorted(set(known))
    plain = {known.casefold(): known for known in names}  # COD is meant for cod
    close = [plain[match] for match in get_close_matches(name.casefold(), plain, n=3)]
    hint = f"did you mean {' or '.join(repr(n) for n in close)}? " if close else ""
    if len(names) > MOST_NAMES:
        return f"unknown {kind} '{name}'; {hint}{len(names)} names are known, see lpmoe-bench list"
    return f"unknown {kind} '{name}'; {hint}known: {', '.join(names) or 'none'}"


def at_least(option: str, value: float, least: float) -> None:
    """Raise ZooError where the value of an option is below the least that it may be."""
    if value < least:
        raise ZooError(f"{option} is {value}; it must be at least {least}")


def rate(option: str, value: float) -> None:
    """Raise ZooError where a rate such as dropout is not in [0, 1)."""
    if not 0 <= value < 1:
        raise ZooError(f"{option} is {value}; it must be at least 0 and below 1")


def one_of(option: str, value: str, allowed: Iterable[str]) -> None:
    """Raise ZooError where the value of an option is not among those that it takes."""
    allowed = list(allowed)
    if value not in allowed:
        raise ZooError(f"{option} is '{value}'; choose {' or '.join(allowed)}")
