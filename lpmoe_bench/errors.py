"""Expected errors: one sentence each, with the exit code the command line returns."""

from collections.abc import Iterable
from typing import Self

from method_zoo.errors import unknown


class BenchError(Exception):
    """An error a user can act on; anything else that escapes is a bug."""

    exit_code = 1

    @classmethod
    def unknown(cls, kind: str, name: str, known: Iterable[str]) -> Self:
        """Return the error for a name that is not among the known ones."""
        return cls(unknown(kind, name, known))


class UsageError(BenchError):
    """A wrong command, option or configuration."""

    exit_code = 2


class DataError(BenchError):
    """Data or weights that are missing, unreadable or fail verification."""

    exit_code = 3


class FailedCellsError(BenchError):
    """Some cells of a sweep failed; the others are finished."""

    exit_code = 4


class BrokenContractError(BenchError):
    """A method does not keep the contract of all methods; the checks that failed are named."""

    exit_code = 4


class NotComparableError(BenchError):
    """Records that differ in something that makes a comparison meaningless."""

    exit_code = 5


class ResourceError(BenchError):
    """Memory, disk or device exhausted."""

    exit_code = 6


class DivergedError(BenchError):
    """Training produced a loss that is not finite."""

    exit_code = 7


class InterruptedRun(BenchError):
    """Stopped by the user; the same command resumes."""

    exit_code = 130


class OutputClosed(BenchError):
    """Whatever read the output has ended, as `head` does when it has seen enough."""

    exit_code = 141  # what a shell shows for a program that a closed pipe ended


# How torch, numpy, OpenCV and their libraries word that memory ran out, on a GPU or without one.
MEMORY_SIGNS = (
    *("out of memory", "not enough memory", "can't allocate memory", "Cannot allocate memory"),
    *("MemoryError", "Unable to allocate", "Insufficient memory", "std::bad_alloc"),
    *("CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED", "DefaultCPUAllocator"),
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out: that of Python, of numpy or OpenCV, or of torch on any device."""
    # By name, since torch is not imported for it.
    known = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return known or any(sign in str(error) for sign in MEMORY_SIGNS)
