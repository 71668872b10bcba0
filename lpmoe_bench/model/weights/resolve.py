"""Backbone name to verified local weights, with their checksum, source and licence."""

import errno
import hashlib
import logging
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import huggingface_hub
import torch
from huggingface_hub.errors import EntryNotFoundError
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from timm.models import get_pretrained_cfg, model_entrypoint
from torch import Tensor, nn

from lpmoe_bench.errors import BenchError, DataError, ResourceError, UsageError
from lpmoe_bench.files import sha256_file
from lpmoe_bench.model.weights import checkpoint as checkpoints
from lpmoe_bench.model.weights import default_backbone
from method_zoo import Backbone, ZooError
from method_zoo.backbones import create

# The pretrained weights that timm names, from the Hugging Face hub, under the names of timm.

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
    cfg = get_pretrained_cfg(timm_name)
    if cfg is None or not cfg.hf_hub_id:
        raise UsageError(f"{timm_name} has no pretrained weights on the hub; {INSTEAD}")
    with torch.device("meta"):  # without memory: nothing is fetched for a model that cannot be used
        create.create_backbone(timm_name)
    repository, _, revision = str(cfg.hf_hub_id).partition("@")
    found = huggingface_hub.try_to_load_from_cache(repository, FILE, revision=revision or None)
    path = Path(found) if isinstance(found, str) else None
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


def _download(repository: str, revision: str | None) -> Path:
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it warns at every retry
    try:
        return Path(huggingface_hub.hf_hub_download(repository, FILE, revision=revision))
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


RANDOM = "random"
RANDOM_NOTE = "random weights, not pretrained"


@dataclass(frozen=True)
class Weights:
    """What a backbone is built from; `load_backbone` builds it.

    Attributes:
        backbone: its name here.
        timm_name: its name in timm.
        path: None where the weights are drawn at random from `seed`.
        sha256: of the file; of the tensors for the default backbone; of the string `random:SEED`
            for random weights.
        source: where they come from.
        licence: empty where unknown.
        note: what must be said wherever the backbone is printed.
        pos_antialias: how position tables are resized, None as timm does.
        seed: of random weights.
    """

    backbone: str
    timm_name: str
    path: Path | None
    sha256: str
    source: str
    licence: str
    note: str
    pos_antialias: bool | None
    seed: int | None


def resolve_weights(
    backbone: str,
    weights: str | None,
    cache: Path,
    offline: bool = False,
    progress: Callable[[str], None] = lambda sentence: None,
) -> Weights:
    """Find, or fetch once, the weights of a backbone and verify them.

    Args:
        backbone: a timm model, one of Meta's SAM encoders, or the default backbone.
        weights: a local .safetensors file, for Meta's SAM encoders a .pth file too; `random` or
            `random:SEED`; None for the backbone's own pretrained ones.
        cache: folder of fetched weights.
        offline: fetch nothing.
        progress: is told in one sentence about anything that takes long.

    Raises:
        ZooError: The backbone is unknown.
        UsageError: `weights` is none of these.
        DataError: Weights are missing, unreachable, or fail verification.
        ResourceError: The disk is full.
    """
    is_default = backbone == default_backbone.NAME
    timm_name = default_backbone.TIMM_NAME if is_default else backbone
    create.check_backbone_name(timm_name, also=[default_backbone.NAME])
    is_meta = timm_name in checkpoints.NAMES
    # The authors of DINOv2 resize its position table without antialias, that of the models with
    # registers (reg4) with it.
    antialias = False if "dinov2" in timm_name and "_reg" not in timm_name else None
    if weights is not None and weights.partition(":")[0] == RANDOM:
        seed = _seed(weights)
        text = f"{RANDOM}:{seed}"
        sha256 = hashlib.sha256(text.encode()).hexdigest()
        return Weights(backbone, timm_name, None, sha256, text, "", RANDOM_NOTE, antialias, seed)
    if weights is not None:
        path = _local_file(Path(weights).expanduser(), is_meta)
        sha256 = sha256_file(path)
        return Weights(backbone, timm_name, path, sha256, path.name, "", "local", antialias, None)
    if is_default:
        path = default_backbone.default_weights(cache, offline, progress)
        sha256, source = default_backbone.STATE_SHA256, default_backbone.SOURCE
        licence, note = default_backbone.LICENCE, default_backbone.NOTE
        return Weights(backbone, timm_name, path, sha256, source, licence, note, antialias, None)
    if is_meta:
        raise UsageError(checkpoints.where_to_get_sam(timm_name))
    hub = fetch_from_hub(timm_name, offline, progress)
    sha256 = sha256_file(hub.path)
    return Weights(
        backbone, timm_name, hub.path, sha256, hub.source, hub.licence, "", antialias, None
    )


def load_backbone(weights: Weights, size: int | None = None) -> Backbone:
    """Build the frozen backbone from resolved weights; the global random state stays as it was.

    Args:
        weights: what `resolve_weights` returned.
        size: side of the images in pixels, by default the model's own. It matters only to a model
            of one fixed grid, whose tables are resized for it.

    Raises:
        DataError: The file does not hold this backbone.
        ZooError: The model cannot be opened.
    """
    name, antialias = weights.timm_name, weights.pos_antialias
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(weights.seed or 0)
        sides = None if size is None else (size, size)
        backbone = create.create_backbone(name, None, antialias, sides)
    if weights.path is None:
        return backbone
    is_meta = name in checkpoints.NAMES
    checkpoint = checkpoints.read_checkpoint(weights.path) if is_meta else {}
    try:
        if is_meta:
            backbone.load(checkpoints.encoder_state(checkpoint, name))
        else:
            backbone.load(timm_state(load_file(weights.path), backbone.vit, name))
    except (SafetensorError, OSError) as error:
        raise DataError(f"{weights.path} cannot be read ({error}); fetch it again") from None
    except (DataError, ZooError) as error:
        raise DataError(f"{weights.path}: {error}; use a file made for this backbone") from None
    return backbone


def _seed(weights: str) -> int:
    _, colon, text = weights.partition(":")
    if not colon:
        return 0
    if not text.isdecimal() or int(text) >= 2**63:
        raise UsageError(f"weights are '{weights}'; use random or random:SEED, such as random:1")
    return int(text)


def _local_file(path: Path, is_meta: bool) -> Path:
    """Check that the path is a readable safetensors file, or perhaps a checkpoint of Meta's SAM."""
    if is_meta and path.suffix != ".safetensors":
        checkpoints.check_checkpoint_path(path)
        return path
    if path.suffix != ".safetensors":
        raise UsageError(
            f"weights are '{path}'; only .safetensors files are read, because other formats can "
            f"execute code: convert it to .safetensors, or use random"
        )
    if not path.is_file():
        raise DataError(f"there is no weights file {path}; check the path given to --weights")
    try:
        with safe_open(path, framework="numpy"):
            return path
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path} is not a readable safetensors file ({error})") from None
