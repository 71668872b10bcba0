"""Reading the reference tensors of the authors' own modules, and skipping where they are absent."""

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

DATA = os.environ.get("LPMOE_BENCH_DATA", "")
FOLDER = Path(DATA).parent / "reference"


ABSENT = not DATA or not FOLDER.is_dir()
MARKS = [pytest.mark.data, pytest.mark.skipif(ABSENT, reason="no reference tensors beside it")]


def needs_reference(test):
    """Mark a test that reads reference tensors beside LPMOE_BENCH_DATA."""
    return MARKS[0](MARKS[1](test))


def reference(name: str) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Return the tensors of a file, and those of its `state/` under the authors' names."""
    tensors = load_file(FOLDER / f"{name}.safetensors")
    state = {k.removeprefix("state/"): t for k, t in tensors.items() if k.startswith("state/")}
    return tensors, state


def assert_reference(got: torch.Tensor, expected: torch.Tensor) -> None:
    """Compare with the tolerance that the reference tensors are good for."""
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)
