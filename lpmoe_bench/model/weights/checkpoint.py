"""Files of weights from outside, read as tensors alone: any checkpoint, and Meta's of SAM."""

import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from lpmoe_bench.errors import DataError, UsageError

# A file of weights from outside to named tensors, without ever executing what it holds.

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
    return {name: _tensor(name, value, path) for name, value in content.items()}


def check_checkpoint_path(path: Path) -> None:
    """Raise UsageError for a kind of file that is not read, DataError for one that is missing."""
    if path.suffix not in (SAFE, *PICKLED):
        raise UsageError(f"'{path}' is no file of weights; use a .safetensors or a .pth file")
    if not path.is_file():
        raise DataError(f"there is no weights file {path}; check the path")


def _read_safe(path: Path) -> object:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path} is not a readable safetensors file ({error})") from None


def _read_pickled(path: Path) -> object:
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


def _tensor(name: object, value: Any, path: Path) -> Tensor:
    """Return what lies under a name; raises DataError unless that is text and it a dense tensor."""
    if not isinstance(name, str):
        raise DataError(f"{path} names a tensor {name!r}, which is no text; give a state dict")
    if not isinstance(value, torch.Tensor):
        raise DataError(
            f"{path} holds no tensor but {type(value).__name__} under '{name}'; "
            f"give the state dict alone"
        )
    if value.layout is not torch.strided or value.is_quantized or value.device.type != "cpu":
        raise DataError(f"{path} holds no plain dense tensor under '{name}'; convert it to float32")
    return value.detach()


# Meta's checkpoints of SAM: which backbone one belongs to, and its encoder's tensors.

# Backbone name: the width of its tokens and the file that Meta publishes for it.
NAMES = {
    "sam_vit_b": (768, "sam_vit_b_01ec64.pth"),
    "sam_vit_l": (1024, "sam_vit_l_0b3195.pth"),
    "sam_vit_h": (1280, "sam_vit_h_4b8939.pth"),
}
PART = "image_encoder."
HUGGING_FACE = "vision_encoder."
PAGE = "github.com/facebookresearch/segment-anything"


def where_to_get_sam(name: str) -> str:
    """Return the sentence that says where the checkpoint of a backbone is to be had."""
    return (
        f"{name} has no weights to fetch from the hub: download {NAMES[name][1]} from {PAGE} and "
        f"give it by --weights {NAMES[name][1]}, or use --weights random"
    )


def encoder_state(state: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    """Return the encoder's tensors under the names of Meta's class, decoder and prompts left out.

    A state of the encoder alone, as a merge writes it, passes as it is. Raises DataError for the
    layout of Hugging Face and for SAM of another size, with what to use instead.
    """
    if any(key.startswith(HUGGING_FACE) for key in state):
        raise DataError(
            f"it holds SAM in the layout of Hugging Face; {NAMES[name][1]} has Meta's own"
        )
    part = {k.removeprefix(PART): t for k, t in state.items() if k.startswith(PART)} or state
    # SAM-Adapter's file is a whole SAM with its prompts inside of the encoder.
    part = {k: t for k, t in part.items() if not k.startswith("prompt_generator.")}
    table = part.get("pos_embed")
    if table is None:
        raise DataError(f"it holds no image encoder of SAM, whose tensors begin with {PART}")
    for other, (width, _) in NAMES.items():
        if other != name and tuple(table.shape[-1:]) == (width,):
            raise DataError(f"it holds {other}, not {name}: say --backbone {other}")
    return part
