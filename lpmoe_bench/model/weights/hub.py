"""Weights from the Hugging Face hub: those that timm names, and those of any repository."""

import errno
import json
import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import huggingface_hub
import timm
from huggingface_hub.errors import EntryNotFoundError, HFValidationError
from huggingface_hub.utils import validate_repo_id
from timm.models import get_pretrained_cfg

from lpmoe_bench.config.backbones import HUB
from lpmoe_bench.errors import BenchError, DataError, ResourceError, UsageError
from lpmoe_bench.model.weights.layouts import backbone_for

FILE = "model.safetensors"
PICKLE = "pytorch_model.bin"  # of older repositories
CONFIG, PIXELS = "config.json", "preprocessor_config.json"
INSTEAD = "use --weights file.safetensors or --weights random"
REACH_SECONDS = 10  # how long the hub is given to answer at all, whatever it then takes to download
Say = Callable[[str], None]


class HubFile(NamedTuple):
    """A file of the hub on this disk: its path, its repository at a commit, its licence."""

    path: Path
    source: str
    licence: str


class HubModel(NamedTuple):
    """What a repository says of its model.

    timm_name: the backbone that it is. licence: empty where it is not said. mean, std: of the
    pixels within 0 to 1, None where the repository does not say.
    """

    timm_name: str
    licence: str
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None


def fetch_from_hub(timm_name: str, offline: bool, progress: Say) -> HubFile:
    """Fetch the pretrained weights of a timm model into the hub's own cache, or find them there.

    Raises UsageError where timm names none, DataError where they cannot be had, ResourceError
    for a full disk.
    """
    cfg = get_pretrained_cfg(timm_name)
    if cfg is None or not cfg.hf_hub_id:
        raise UsageError(f"{timm_name} has no pretrained weights on the hub; {INSTEAD}")
    return _file(str(cfg.hf_hub_id), (FILE,), offline, progress)._replace(
        licence=str(cfg.license or "")
    )


def fetch_repository(name: str, offline: bool, progress: Say) -> HubFile:
    """Fetch the weights of a repository, `hf-hub:owner/name`; raises as `fetch_from_hub`."""
    return _file(name.removeprefix(HUB), (FILE, PICKLE), offline, progress)


def describe_repository(name: str, offline: bool, progress: Say = lambda text: None) -> HubModel:
    """Say which backbone a repository holds, from its configuration of timm or of transformers.

    Args:
        name: `hf-hub:owner/name`, with `@revision` behind it where that is meant.
        offline: fetch nothing; what lies in the hub's cache is read.
        progress: is told before anything is fetched.

    Raises:
        UsageError: The name is none, or the model is none that is opened here.
        DataError: The configuration cannot be had or read.
    """
    repository = name.removeprefix(HUB)
    try:
        validate_repo_id(repository.partition("@")[0])
        known = repository.count("/") == 1
    except HFValidationError:
        known = False
    if not known:
        raise UsageError(
            f"unknown backbone '{name}'; a repository of the hub is {HUB}owner/name, such as "
            f"{HUB}timm/vit_small_patch14_dinov2.lvd142m"
        )
    config = _json(_file(repository, (CONFIG,), offline, progress).path)
    if "architecture" in config:
        return _of_timm(name, config)
    found = _of_transformers(config)
    if not found:
        kind = config.get("model_type") or "of no known kind"
        raise UsageError(
            f"{name} is {kind} ({CONFIG}), which no backbone here opens; use a ViT, DeiT, DINO, "
            f"DINOv2, DINOv3, MAE or SAM"
        )
    mean = std = None
    with suppress(DataError):  # many repositories have no such file
        pixels = _json(_file(repository, (PIXELS,), offline, lambda text: None).path)
        mean, std = (_channels(pixels.get(key)) for key in ("image_mean", "image_std"))
    return HubModel(found, "", mean, std)


def _of_timm(name: str, config: dict[str, Any]) -> HubModel:
    architecture, arguments = str(config["architecture"]), config.get("model_args") or {}
    other = [key for key in arguments if key not in ("img_size", "patch_size", "num_classes")]
    if not timm.is_model(architecture) or other:
        what = f"has {other[0]}={arguments[other[0]]!r}" if other else "is none of this timm"
        raise UsageError(f"{name} is {architecture} of timm and {what}; use another repository")
    facts = config.get("pretrained_cfg") or config
    return HubModel(
        architecture,
        str(facts.get("license") or ""),
        _channels(facts.get("mean")),
        _channels(facts.get("std")),
    )


def _of_transformers(config: dict[str, Any]) -> str:
    """Return the backbone of a configuration of transformers, empty where there is none."""
    config = config.get("vision_config") or config
    kinds = {
        "vit": "vit",
        "deit": "deit",
        "vit_mae": "mae",
        "dinov2": "dinov2",
        "dinov3_vit": "dinov3",
    }
    kinds |= {"dinov2_with_registers": "dinov2", "sam": "sam", "sam_vision_model": "sam"}
    kind = kinds.get(str(config.get("model_type")), "")
    sizes = [config.get(k) for k in ("hidden_size", "num_hidden_layers")]
    if not kind or not all(isinstance(size, int) for size in sizes):
        return ""
    width, depth = (int(size or 0) for size in sizes)
    registers = config.get("num_register_tokens", 0) if "registers" in config["model_type"] else 0
    gated = bool(config.get("use_gated_mlp"))
    patch = config.get("patch_size")
    return backbone_for(
        kind, width, depth, patch if isinstance(patch, int) else 16, registers, gated
    ).partition(".")[0]


def _channels(values: Any) -> tuple[float, ...] | None:
    whole = isinstance(values, list) and len(values) == 3
    if not whole or not all(isinstance(v, int | float) and 0 <= v <= 1 for v in values):
        return None
    return tuple(float(value) for value in values)


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({type(error).__name__}); fetch it again") from None
    if not isinstance(content, dict):
        raise DataError(f"{path} holds no settings by name; fetch it again")
    return content


# Fetching, with a limit on how long the hub may stay silent.


def _file(hub_id: str, names: tuple[str, ...], offline: bool, progress: Say) -> HubFile:
    """Return the first of these files that a repository has, fetched or from the cache."""
    repository, _, revision = hub_id.partition("@")
    revision = revision or None
    for name in names:
        found = huggingface_hub.try_to_load_from_cache(repository, name, revision=revision)
        if isinstance(found, str):
            return _at_commit(Path(found), repository)
    if offline:
        raise DataError(f"{repository} is not on this disk and --offline is set; {INSTEAD}")
    progress(f"fetching {names[0]} of {repository} from the Hugging Face hub, once")
    _reach(repository)
    for name in names[:-1]:
        with suppress(EntryNotFoundError):
            return _at_commit(_download(repository, name, revision), repository)
    try:
        return _at_commit(_download(repository, names[-1], revision), repository)
    except EntryNotFoundError as error:
        raise _failure(repository, error) from error


def _at_commit(path: Path, repository: str) -> HubFile:
    commit = path.parent.name  # the hub's cache has one folder a commit
    return HubFile(path, f"hf:{repository}@{commit}/{path.name}", "")


def _reach(repository: str) -> None:
    """Raise DataError where the hub does not answer within REACH_SECONDS.

    In a thread of its own: to look a name up has no limit of time that could be set.
    """
    failed: list[Exception] = []

    def ask() -> None:
        try:
            _answer(huggingface_hub.constants.ENDPOINT)
        except Exception as error:  # whatever the network or its library does
            failed.append(error)

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(REACH_SECONDS)
    if asking.is_alive() or failed:
        reason = (str(failed[0]).strip() or type(failed[0]).__name__) if failed else ""
        why = reason.splitlines()[0] if reason else f"no answer within {REACH_SECONDS} s"
        raise DataError(
            f"the Hugging Face hub cannot be reached for {repository} ({why}); {INSTEAD}"
        )


def _answer(endpoint: str) -> None:
    """Ask the hub for anything; each answer will do, a refusal too."""
    huggingface_hub.get_session().head(endpoint, timeout=REACH_SECONDS)


def _download(repository: str, name: str, revision: str | None) -> Path:
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it warns at every retry
    try:
        return Path(huggingface_hub.hf_hub_download(repository, name, revision=revision))
    except EntryNotFoundError:
        raise
    except OSError as error:  # all of network and disk
        raise _failure(repository, error) from error


def _failure(repository: str, error: Exception) -> BenchError:
    if getattr(error, "errno", None) == errno.ENOSPC:
        return ResourceError(
            f"the disk is full while fetching {repository}: free some, "
            f"or set HF_HOME to a folder on another disk"
        )
    if isinstance(error, FileNotFoundError):  # neither reached nor on this disk
        return DataError(f"the Hugging Face hub cannot be reached for {repository}; {INSTEAD}")
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return DataError(f"the Hugging Face hub does not give {repository} ({reason}); {INSTEAD}")
