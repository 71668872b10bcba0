"""Reading and writing baseline.json, as text whose differences people can read."""

from __future__ import annotations

import json
import re
from pathlib import Path

from lpmoe_bench.check.baseline import Baseline, parse_baseline
from lpmoe_bench.errors import DataError
from lpmoe_bench.files import write_atomically

DEFAULT_BASELINE = Path("results/baseline.json")


def read_baseline(path: Path) -> Baseline:
    """Read a baseline; raises DataError where it is missing, damaged or from a newer version."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(
            f"{path} does not exist; write it with: lpmoe-bench check pin ROOT --baseline {path}"
        ) from None
    except OSError as error:
        raise DataError(f"{path} could not be read ({error.strerror})") from None
    except (ValueError, RecursionError):
        raise DataError(
            f"{path} is not valid JSON: damaged, or half of a merge; restore it from git"
        ) from None
    return parse_baseline(content, path)


def write_baseline(path: Path, baseline: Baseline) -> None:
    """Write a baseline by rename; equal content gives equal bytes. Raises ResourceError."""
    write_atomically(path, as_text(baseline))


def as_text(baseline: Baseline) -> str:
    """Return the file's text: keys in the order of the schema, a list of numbers on one line."""
    text = json.dumps(baseline.model_dump(), indent=1, ensure_ascii=False, allow_nan=False)
    # A list without texts, lists or objects inside; a text cannot hold a bare line break.
    return re.sub(r"\[\n[\s\d.,eE+-]*\]", lambda match: _one_line(match[0]), text) + "\n"


def _one_line(text: str) -> str:
    return " ".join(text.split()).replace("[ ", "[").replace(" ]", "]")
