"""The pretrained weights that timm names, from the Hugging Face hub, under the names of timm."""

from __future__ import annotations

import errno
import logging
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from lpmoe_bench.errors import BenchError, DataError, ResourceError, UsageError

if TYPE_CHECKING:
    from torch import Tensor, nn

FILE = "model.safetensors"
INSTEAD = "use --weights file.safetensors or --weights random"
# Parts of a model behind its tokens; a backbone has none of them.
HEADS = ("head.", "head_dist.", "fc_norm.", "attn_pool.")


class HubFile(NamedTuple):
    """A file of the hub on this disk: its path, its repository at a commit, its licence."""

    path: Path
    source: str
    licence: str


def fetch_from_hub(timm_name: str, offline: bool, progress: Callable[[str], None]) -> HubFile:
    """Fetch the pretrained weights of a timm model into the hub's own cache, or find them there.

    Raises UsageError where timm names none, DataError where they cannot be had, ResourceError
    for a full disk, ZooError for a model that cannot be opened (before anything is fetched).
    """
    from timm.models import get_pretrained_cfg

    cfg = get_pretrained_cfg(timm_name)
    if cfg is None or not cfg.hf_hub_id:
        raise UsageError(f"{timm_name} has no pretrained weights on the hub; {INSTEAD}")
    _check_supported(timm_name)
    repository, _, revision = str(cfg.hf_hub_id).partition("@")
    path = _find(repository, revision or None)
    if path is None and offline:
        raise DataError(f"{repository} is not on this disk and --offline is set; {INSTEAD}")
    if path is None:
        progress(f"fetching {repository} from the Hugging Face hub, once")
        path = _download(repository, revision or None)
    commit = path.parent.name  # the hub's cache has one folder a commit
    return HubFile(path, f"hf:{repository}@{commit}/{FILE}", str(cfg.license or ""))


def timm_state(state: dict[str, Tensor], vit: nn.Module, timm_name: str) -> dict[str, Tensor]:
    """Return a checkpoint under the names of `vit`, through timm's own filter, without heads.

    Raises DataError where timm cannot read it.
    """
    from timm.models import model_entrypoint

    module = sys.modules[model_entrypoint(timm_name).__module__]
    try:
        with warnings.catch_warnings():  # torch's about how timm resizes the tables of BEiT
            for message in (r"torch\.searchsorted", "Using a non-tuple sequence"):
                warnings.filterwarnings("ignore", message, UserWarning)
            state = module.checkpoint_filter_fn(state, vit)
    except Exception as error:  # a foreign file fails inside timm in any way it likes
        raise DataError(f"timm cannot read these weights as {timm_name} ({error!r})") from error
    own = vit.state_dict().keys()
    # Models that pool by the mean keep their final norm behind the pooling.
    for leaf in ("weight", "bias"):
        if f"norm.{leaf}" in own and f"norm.{leaf}" not in state and f"fc_norm.{leaf}" in state:
            state[f"norm.{leaf}"] = state[f"fc_norm.{leaf}"]
    return {name: t for name, t in state.items() if name in own or not name.startswith(HEADS)}


def _check_supported(timm_name: str) -> None:
    """Build the model without memory, so that nothing is fetched for one that cannot be used."""
    import torch

    from method_zoo.backbones.create import create_backbone

    with torch.device("meta"):
        create_backbone(timm_name)


def _find(repository: str, revision: str | None) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repository, FILE, revision=revision)
    return Path(found) if isinstance(found, str) else None


def _download(repository: str, revision: str | None) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it warns at every retry
    try:
        return Path(hf_hub_download(repository, FILE, revision=revision))
    except (EntryNotFoundError, OSError) as error:  # OSError: all of network and disk
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
