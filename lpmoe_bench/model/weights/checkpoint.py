"""Files of weights from outside to named tensors, without ever executing what they hold."""

import argparse
import json
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lpmoe_bench.errors import DataError, UsageError

PICKLED = (".pth", ".pt", ".bin", ".ckpt")
SAFE = ".safetensors"
SUFFIXES = (SAFE, *PICKLED)
ABOUT = "lpmoe_bench"  # one entry of metadata: the order of several is not kept, nor their digest
# What training code keeps beside a model's weights; none of it is a model.
NO_MODEL = re.compile(
    r"(optim|sched|lr_|scaler|amp|rng|loss|criterion|callbacks|loops|hparams|hyper_parameters|args)"
)
# Where weights lie in a checkpoint, first what its authors evaluate: an average over the training
# before the last state, a teacher before its student.
PARTS = (
    "model_ema",
    "ema_model",
    "ema",
    "ema_state_dict",
    "state_dict_ema",
    "model_ema_state_dict",
    "params_ema",
    "teacher",
    "target_encoder",
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "module",
    "network",
    "net",
    "weights",
    "params",
    "student",
    "backbone",
    "encoder",
)
DEPTH = 6  # of dictionaries in one another
SHOWN = 4


class Checkpoint(NamedTuple):
    """The tensors of a file by name, and what was said of how they were found in it.

    about: what this program wrote about them, where it made the file.
    """

    tensors: dict[str, Tensor]
    said: tuple[str, ...] = ()
    about: Mapping[str, Any] = MappingProxyType({})


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file of weights by name, dense, on the CPU; as `open_checkpoint`."""
    return open_checkpoint(path).tensors


def open_checkpoint(path: Path) -> Checkpoint:
    """Read a file of weights as tensors alone, and find the model in it.

    The pickles among them can hold code: `torch.load(weights_only=True)` rebuilds tensors and plain
    containers and refuses everything else. This is the only place that reads one.

    Args:
        path: a .safetensors file, or a .pth, .pt, .bin or .ckpt as `torch.save` writes it: a state
            dict, or one within the dictionaries of a training's checkpoint.

    Returns:
        Dense tensors on the CPU by name, and which part of the file they are.

    Raises:
        UsageError: Another kind of file.
        DataError: It is missing, damaged, no file of weights, holds code or several models.
    """
    check_checkpoint_path(path)
    about: Mapping[str, Any] = {}
    if path.suffix.lower() == SAFE:
        content, about = _read_safe(path)
    else:
        content = _read_pickled(path)
    if not isinstance(content, Mapping) or not content:
        raise DataError(f"{path} holds no tensors by name; give a state dict")
    content, said = _descend(content, path)
    tensors = {name: value for name, value in content.items() if isinstance(value, Tensor)}
    if not tensors:
        raise DataError(f"{path} holds no tensors by name; give a state dict")
    others = [str(name) for name in content if name not in tensors]
    if others:
        said.append(f"left out what is no tensor: {_some(others)}")
    whole = path.stat().st_size
    state = {name: tensor.detach() for name, tensor in _checked(tensors, whole, path)}
    return Checkpoint(state, tuple(said), about)


def check_checkpoint_path(path: Path) -> None:
    """Raise UsageError for a kind of file that is not read, DataError for one that is missing."""
    if path.suffix.lower() not in SUFFIXES:
        kinds = f"{', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}"
        raise UsageError(
            f"'{path}' is no file of weights that is read here, which are {kinds}; save its "
            f"tensors by name with safetensors or torch.save"
        )
    if not path.is_file():
        raise DataError(f"there is no weights file {path}; check the path")
    with path.open("rb") as file:
        start = file.read(512)
    if what := _no_weights(start):
        raise DataError(f"{path} {what}")


def _no_weights(start: bytes) -> str:
    """Say what a file is that was fetched in the place of weights, by its first bytes."""
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not start:
        return "is empty (0 bytes), so it is damaged; fetch it again"
    if text.startswith(b"version https://git-lfs"):
        return (
            "is a Git LFS pointer, a few lines of text in the place of the weights; "
            "run `git lfs pull` in its repository, or download the file itself"
        )
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return (
            "is a web page (HTML), not weights: its server answered with a page, such as one to "
            "log in or to confirm; download the file itself"
        )
    if text.startswith(b"{") and b'"weight_map"' in text:
        return "is the index of weights in several files; join them into one file"
    return ""


def _read_safe(path: Path) -> tuple[dict[str, Tensor], Mapping[str, Any]]:
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return tensors, _about(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise DataError(
            f"{path} is not a readable safetensors file ({error}); it is damaged, fetch it again"
        ) from None


def _about(metadata: Mapping[str, str]) -> Mapping[str, Any]:
    try:
        about = json.loads(metadata.get(ABOUT, "{}"))
    except ValueError:
        return {}
    return about if isinstance(about, dict) else {}


def _read_pickled(path: Path) -> object:
    try:
        # A Namespace keeps attributes and runs nothing; training scripts store their arguments so.
        with warnings.catch_warnings(), torch.serialization.safe_globals([argparse.Namespace]):
            warnings.simplefilter("ignore")  # torch's remarks on odd files; what matters is refused
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL ([\w.]{1,80})", str(error))
        raise DataError(
            f"{path} is damaged or holds more than tensors"
            + (f" ({found[1]})" if found else "")
            + ", which could be code, so it was not read; fetch it again from its publisher, or "
            "save its tensors alone to a .safetensors file"
        ) from None
    except Exception as error:  # bytes from outside: a reader of pickles can fail in any way
        if "torchscript" in str(error).lower():
            raise DataError(
                f"{path} is a TorchScript archive, a program with weights, so it was not read; "
                f"save its state_dict() instead"
            ) from None
        raise DataError(f"{path} {_unreadable(path)}; fetch it again") from None


def _unreadable(path: Path) -> str:
    """Say what a file is that torch cannot read, by its first bytes and by its end."""
    with path.open("rb") as file:
        start = file.read(4)
    if start.startswith(b"PK"):  # as torch writes since version 1.6: a zip archive
        if zipfile.is_zipfile(path):
            return "is damaged, or a zip archive that torch.save has not written"
        return f"is damaged: a zip archive that is cut off after {path.stat().st_size} bytes"
    if start.startswith(b"\x80"):
        return "is damaged: cut off, or its pickle holds less than it says"
    return "is damaged, or no file of weights: it does not begin as torch.save begins one"


def _descend(content: Mapping, path: Path) -> tuple[Mapping, list[str]]:
    """Return the dictionary that holds the model's tensors, and where it was, in words."""
    taken: list[str] = []
    said: list[str] = []
    for _ in range(DEPTH):
        parts = {
            str(name): value
            for name, value in content.items()
            if isinstance(value, Mapping) and _holds_tensors(value)
        }
        models = {name: part for name, part in parts.items() if not NO_MODEL.match(name.lower())}
        # Names with dots are those of a model's tensors: what lies beside them is no other model.
        named = any(isinstance(v, Tensor) and "." in str(k) for k, v in content.items())
        if named or not models:
            break
        known = [name for name in PARTS if name in models]
        if not known and len(models) > 1:
            raise DataError(
                f"{path} holds several parts ({_some(list(models))}), and none of them is known "
                f"as the model; save one of them to a file of its own"
            )
        name = (known or list(models))[0]
        taken.append(name)
        if rest := [other for other in models if other != name]:
            said.append(f"of its parts {_some([name, *rest])} '{name}' was taken")
        content = models[name]
    place = ".".join(taken)
    return content, ([] if not taken or said else [f"taken from '{place}'"]) + said


def _holds_tensors(part: Mapping, depth: int = DEPTH) -> bool:
    return any(
        isinstance(value, Tensor)
        or (depth > 0 and isinstance(value, Mapping) and _holds_tensors(value, depth - 1))
        for value in part.values()
    )


def _checked(
    tensors: Mapping[Any, Tensor], file_bytes: int, path: Path
) -> Iterator[tuple[str, Tensor]]:
    """Yield tensors that are what they claim to be; raises DataError for the first that is not."""
    stored: dict[int, int] = {}
    for name, tensor in tensors.items():
        if not isinstance(name, str):
            raise DataError(f"{path} names a tensor {name!r}, which is no text; give a state dict")
        if tensor.layout is not torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
            raise DataError(
                f"{path} holds no plain dense tensor under '{name}'; convert it to float32"
            )
        storage = tensor.untyped_storage()
        # By address: tensors that share memory take its bytes once, in the file too.
        stored[storage.data_ptr()] = storage.nbytes()
        # A view that repeats few numbers claims memory that no file of its size can hold.
        if tensor.numel() * tensor.element_size() > storage.nbytes():
            shape = " x ".join(map(str, tensor.shape))
            raise DataError(
                f"{path} holds a view of {storage.nbytes()} bytes under '{name}' that claims to be "
                f"{shape} numbers; save the tensor itself"
            )
        yield name, tensor
    if sum(stored.values()) > file_bytes:
        raise DataError(
            f"{path} claims {sum(stored.values())} bytes of tensors and has {file_bytes}, so it is "
            f"damaged; fetch it again"
        )


def _some(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(name[:60] for name in names[:SHOWN]) + more
