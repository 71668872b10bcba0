"""A file of weights from outside to named tensors, without ever executing what it holds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lpmoe_bench.errors import DataError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

PICKLED = (".pth", ".pt")
SAFE = ".safetensors"


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a .safetensors file or a .pth state dict by name, dense, on the CPU.

    A .pth is a pickle, which can hold code: `torch.load(weights_only=True)` rebuilds tensors and
    plain containers and refuses everything else. This is the only place that reads one.
    Raises UsageError for another kind of file, and DataError for one that is missing, damaged,
    holds code, or holds anything but tensors by name.
    """
    check_checkpoint_path(path)
    content = _read_safe(path) if path.suffix == SAFE else _read_pickled(path)
    if not isinstance(content, Mapping) or not content:
        raise DataError(
            f"{path} holds no tensors by name; give a state dict, as Meta publishes SAM's"
        )
    return {_name(name, path): _tensor(name, value, path) for name, value in content.items()}


def check_checkpoint_path(path: Path) -> None:
    """Raise UsageError for a kind of file that is not read, DataError for one that is missing."""
    if path.suffix not in (SAFE, *PICKLED):
        raise UsageError(f"'{path}' is no file of weights; use a .safetensors or a .pth file")
    if not path.is_file():
        raise DataError(f"there is no weights file {path}; check the path")


def _read_safe(path: Path) -> object:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path} is not a readable safetensors file ({error})") from None


def _read_pickled(path: Path) -> object:
    import pickle
    import warnings

    import torch

    try:
        with warnings.catch_warnings():  # torch's remarks on odd files; what matters is refused
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise DataError(
            f"{path} is damaged or holds more than tensors, which could be code, so it was not "
            f"read; fetch it again from its publisher, or use a .safetensors file"
        ) from None
    except Exception as error:  # bytes from outside: a reader of pickles can fail in any way
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise DataError(f"{path} is damaged ({reason}); fetch it again") from None


def _name(name: object, path: Path) -> str:
    if not isinstance(name, str):
        raise DataError(f"{path} names a tensor {name!r}, which is no text; give a state dict")
    return name


def _tensor(name: str, value: Any, path: Path) -> Tensor:
    import torch

    if not isinstance(value, torch.Tensor):
        raise DataError(
            f"{path} holds no tensor but {type(value).__name__} under '{name}'; "
            f"give the state dict alone"
        )
    if value.layout is not torch.strided or value.is_quantized or value.device.type != "cpu":
        raise DataError(f"{path} holds no plain dense tensor under '{name}'; convert it to float32")
    return value.detach()
