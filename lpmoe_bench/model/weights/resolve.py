"""Backbone name to verified local weights, with their checksum, source, licence and facts."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.models import get_pretrained_cfg
from timm.models.beit import Beit as TimmBeit
from torch import Tensor

from lpmoe_bench.config.backbones import ALIASES, HUB, known_as
from lpmoe_bench.config.settings import STATISTICS, FactsConfig
from lpmoe_bench.errors import DataError, UsageError
from lpmoe_bench.files import sha256_file
from lpmoe_bench.model.weights import default_backbone, fitting, hub, layouts
from lpmoe_bench.model.weights.checkpoint import open_checkpoint
from method_zoo import Backbone, ZooError
from method_zoo.backbones import create
from method_zoo.backbones.sam import META_SAM
from method_zoo.backbones.staged import Staged
from method_zoo.backbones.uniperceiver import NAME as UNI_PERCEIVER

RANDOM = "random"
RANDOM_NOTE = "random weights, not pretrained"
LOCAL_NOTE = "local"
# The files in which authors publish what comes in no other way, and where they have them.
PUBLISHED = {
    "sam_vit_b": "sam_vit_b_01ec64.pth",
    "sam_vit_l": "sam_vit_l_0b3195.pth",
    "sam_vit_h": "sam_vit_h_4b8939.pth",
    UNI_PERCEIVER: "uni-perceiver-large-L24-H1024-224size-pretrained_converted.pth",
}
PAGES = dict.fromkeys(META_SAM, "github.com/facebookresearch/segment-anything") | {
    UNI_PERCEIVER: "github.com/czczup/ViT-Adapter, release v0.3.1"
}


@dataclass(frozen=True)
class WeightFacts:
    """What belongs to weights beside their numbers, and changes what a backbone computes.

    Attributes:
        mean: of RGB within 0 to 1; with `std` how images are normalised.
        std: likewise.
        patch: side of a patch in pixels of the model's own input.
        grid: side of the position table in patches; None for a model that has none, or whose
            tables are made for the images at hand.
        pos_antialias: whether the table is resized with antialias.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    patch: int
    grid: int | None
    pos_antialias: bool

    @property
    def text(self) -> str:
        """Say them in a line."""
        table = ""
        if self.grid is not None:
            how = "with" if self.pos_antialias else "without"
            table = f", positions of {self.grid} x {self.grid} resized {how} antialias"
        return f"mean {_plain(self.mean)}, std {_plain(self.std)}, patch {self.patch}{table}"


@dataclass(frozen=True)
class Weights:
    """What a backbone is built from; `load_backbone` builds it.

    Attributes:
        backbone: its name here.
        timm_name: its name in timm, or here where timm has none.
        path: None where the weights are drawn at random from `seed`.
        sha256: of the file; of the tensors for the default backbone; of the string `random:SEED`
            for random weights.
        source: where they come from.
        licence: empty where unknown.
        note: what must be said wherever the backbone is printed.
        facts: of these weights.
        differing: those of the facts that the name does not imply.
        seed: of random weights.
        published: the file is what timm or the default backbone publishes under this very name;
            any other is looked at for what it holds.
        read: what was stripped, left out and resized to read the file.
        remarks: what a user should know of the facts.
    """

    backbone: str
    timm_name: str
    path: Path | None
    sha256: str
    source: str
    licence: str
    note: str
    facts: WeightFacts
    differing: FactsConfig
    seed: int | None = None
    published: bool = False
    read: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def pos_antialias(self) -> bool:
        """Say how the position table is resized."""
        return self.facts.pos_antialias


def resolve_weights(
    backbone: str,
    weights: str | None,
    cache: Path,
    offline: bool = False,
    progress: Callable[[str], None] = lambda sentence: None,
    facts: FactsConfig | None = None,
    settled: bool = False,
) -> Weights:
    """Find, or fetch once, the weights of a backbone and verify them.

    Args:
        backbone: a timm model, one that timm does not have, the default backbone, a name of these
            elsewhere (`dinov2_vits14`, `facebook/dinov2-small`), or `hf-hub:owner/name`.
        weights: a local file of weights; `random` or `random:SEED`; None for the backbone's own
            pretrained ones.
        cache: folder of fetched weights.
        offline: fetch nothing.
        progress: is told in one sentence about anything that takes long.
        facts: what is asked for; the rest is as the file, or else the name, has it.
        settled: `facts` are of a record, where what is left out is as the name has it.

    Raises:
        ZooError: The backbone is unknown.
        UsageError: `weights` is none of these, or facts do not go with the backbone.
        DataError: Weights are missing, unreachable, of another model, or fail verification.
        ResourceError: The disk is full.
    """
    backbone, asked = known_as(backbone), facts or FactsConfig()
    is_default, repository = backbone == default_backbone.NAME, None
    timm_name = default_backbone.TIMM_NAME if is_default else backbone
    if backbone.startswith(HUB):
        repository = hub.describe_repository(backbone, offline, progress)
        timm_name = repository.timm_name
    _check_name(timm_name)
    model = _shapes(timm_name, create.create_backbone)
    implied = _implied(timm_name, model)
    own = _stated(repository, settled)
    if weights is not None and weights.partition(":")[0] == RANDOM:
        seed = _seed(weights)
        text = f"{RANDOM}:{seed}"
        sha256 = hashlib.sha256(text.encode()).hexdigest()
        base = Weights(
            backbone, timm_name, None, sha256, text, "", RANDOM_NOTE, implied, asked, seed
        )
        return _with_facts(base, implied, own, asked)
    if weights is None and is_default:
        path = default_backbone.default_weights(cache, offline, progress)
        sha256, source = default_backbone.STATE_SHA256, default_backbone.SOURCE
        licence, note = default_backbone.LICENCE, default_backbone.NOTE
        base = Weights(
            backbone, timm_name, path, sha256, source, licence, note, implied, asked, published=True
        )
        return _with_facts(base, implied, own, asked)
    if weights is None and repository is None:
        if timm_name in PUBLISHED:
            raise UsageError(where_to_get(timm_name))
        file = hub.fetch_from_hub(timm_name, offline, progress)
        base = Weights(
            backbone,
            timm_name,
            file.path,
            sha256_file(file.path),
            file.source,
            file.licence,
            "",
            implied,
            asked,
            published=True,
        )
        return _with_facts(base, implied, own, asked)
    if weights is None:
        file = hub.fetch_repository(backbone, offline, progress)
        licence = repository.licence if repository else ""
        path, source, note = file.path, file.source, ""
    else:
        path = Path(weights).expanduser()
        source, licence, note = path.name, "", LOCAL_NOTE
        if not weights.strip():
            raise UsageError("weights are empty; give a file, random, or leave --weights out")
        if path.is_dir():
            raise UsageError(f"weights are '{weights}', a folder; name the file in it")
    base = Weights(backbone, timm_name, path, "", source, licence, note, implied, asked)
    return _looked_at(base, model, implied, own, asked, settled)


def where_to_get(name: str) -> str:
    """Return the sentence that says where the weights of a backbone are to be had."""
    file = PUBLISHED[name]
    return (
        f"{name} has no weights to fetch from the hub: download {file} from {PAGES[name]} and "
        f"give it by --weights {file}, or use --weights random"
    )


def origin(backbone: str) -> str:
    """Say where the pretrained weights of a backbone come from; nothing is fetched."""
    name = known_as(backbone)
    if name == default_backbone.NAME:
        return f"{default_backbone.SOURCE}, {default_backbone.LICENCE}"
    if name.startswith(HUB):
        return f"the Hugging Face hub, {name.removeprefix(HUB)}"
    if name in PUBLISHED:
        return f"--weights {PUBLISHED[name]}, from {PAGES[name]}"
    cfg = get_pretrained_cfg(name)
    if cfg is None or not cfg.hf_hub_id:
        return "none that timm names; give --weights"
    return f"the Hugging Face hub, {cfg.hf_hub_id}, licence {cfg.license or 'not said'}"


def _check_name(name: str) -> None:
    try:
        create.check_backbone_name(name, also=[default_backbone.NAME, *ALIASES])
    except ZooError as error:
        if "/" not in name:
            raise error
        close = get_close_matches(name, ALIASES, n=2, cutoff=0.8)
        meant = f"did you mean {' or '.join(close)}? " if close else ""
        raise UsageError(
            f"unknown backbone '{name}'; {meant}For a repository of the Hugging Face hub write "
            f"{HUB}owner/name, for a file --backbone NAME --weights {name}"
        ) from None


@lru_cache(maxsize=16)
def _shapes(name: str, build: Callable[..., Backbone], **arguments: Any) -> Backbone:
    """Return a backbone of shapes alone, to read and never to change: it is built once."""
    with torch.device("meta"):
        return build(name, **arguments)


def _implied(name: str, model: Backbone) -> WeightFacts:
    """Return the facts that the name of a backbone implies."""
    # The authors of DINOv2 resize its position table without antialias, that of the models with
    # registers (reg4) with it.
    dinov2 = "dinov2" in name and "_reg" not in name
    vit: Any = model.vit
    cfg, has_grid = vit.pretrained_cfg, vit.pos_embed is not None and type(vit) is not TimmBeit
    mean, std = (tuple(map(float, cfg[key])) for key in ("mean", "std"))
    return WeightFacts(
        mean,  # type: ignore[arg-type]
        std,  # type: ignore[arg-type]
        vit.patch_embed.patch_size[0],  # type: ignore[arg-type]
        vit.patch_embed.grid_size[0] if has_grid else None,
        create.resizes_smoothly(name) and not dinov2,
    )


def _stated(repository: hub.HubModel | None, settled: bool) -> dict[str, Any]:
    """Return the facts that a repository states of its weights."""
    if repository is None or settled or repository.mean is None or repository.std is None:
        return {}
    return {"mean": repository.mean, "std": repository.std}


def _looked_at(
    base: Weights,
    model: Backbone,
    implied: WeightFacts,
    own: dict[str, Any],
    asked: FactsConfig,
    settled: bool,
) -> Weights:
    """Look into a file, take the facts from it that it tells, and check that it fits."""
    path = base.path
    assert path is not None
    checkpoint = open_checkpoint(path)
    try:
        found = layouts.find_model(checkpoint)
        # Facts of a hierarchical model are those of its name: its file tells none.
        seen = None if isinstance(model, Staged) else found
        told = {} if settled else _told_by(seen, model, implied) | own
        told |= {} if settled else _written(checkpoint.about)
        base = _with_facts(replace(base, sha256=sha256_file(path)), implied, told, asked)
        empty = _shapes(base.timm_name, create.create_backbone, **_arguments(base))
        taken = fitting.state_for(found, checkpoint, empty, base.timm_name)
        fitting.check_numbers(taken.state, empty.state())
    except (DataError, ZooError) as error:
        raise DataError(f"{path}: {error}; use a file made for this backbone") from None
    said = seen.said if seen else checkpoint.said
    of = (seen.title,) if seen and (seen.of or seen.kind != "vit") else ()
    remarks = base.remarks
    plain = seen is not None and seen.kind == "vit" and not {"mean", "std"} & told.keys()
    given = asked.mean is not None or asked.std is not None
    if plain and not given and base.facts.mean == STATISTICS["inception"][0] and not settled:
        remarks += (
            f"images are normalised by mean 0.5 and std 0.5, as {base.timm_name} implies; weights "
            f"of MAE, DINO and DeiT need --set facts.mean=imagenet --set facts.std=imagenet",
        )
    return replace(base, read=(*of, *said, *taken.said), remarks=remarks)


def _told_by(
    found: layouts.FoundModel | None, model: Backbone, implied: WeightFacts
) -> dict[str, Any]:
    """Return the facts that can be seen in a file."""
    if found is None:
        return {}
    told: dict[str, Any] = {}
    kernel = found.tensors[layouts.PATCHES]
    if kernel.ndim == 4 and kernel.shape[-1] == kernel.shape[-2]:
        told["patch"] = found.patch
    side = fitting.table_side(found, model)
    if side is not None and implied.grid is not None:
        told["grid"] = side
    if found.kind in layouts.IMAGENET:
        told["mean"], told["std"] = STATISTICS["imagenet"]
    return told


def _written(about: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts that a merge wrote into its file."""
    try:
        return FactsConfig.model_validate(about.get("facts") or {}).model_dump(exclude_none=True)
    except ValidationError as error:
        raise DataError("its header has facts that are none; merge the run again") from error


def _with_facts(
    base: Weights, implied: WeightFacts, told: dict[str, Any], asked: FactsConfig
) -> Weights:
    """Settle the facts: what is asked for, else what the file tells, else what the name implies."""
    wanted = {k: v for k, v in asked.model_dump().items() if v is not None}
    if "grid" in wanted and implied.grid is None:
        raise UsageError(
            f"facts.grid is {wanted['grid']}, but {base.backbone} has no position table of one "
            f"grid; leave it out"
        )
    facts = replace(implied, **(told | wanted))
    # Only what differs goes into a record's settings: a name that implies it all adds nothing.
    differing = {k: v for k, v in asdict(facts).items() if v != getattr(implied, k)}
    said = [f"{k} {_plain(v)}, where its name implies {_plain(getattr(implied, k))}"
            for k, v in differing.items()]  # fmt: skip
    remarks = (f"facts of the weights: {'; '.join(said)}",) if said else ()
    return replace(
        base, facts=facts, differing=FactsConfig(**differing), remarks=base.remarks + remarks
    )


def _plain(value: Any) -> str:
    if isinstance(value, tuple):
        return " ".join(f"{number:g}" for number in value)
    return str(value).lower()


def _arguments(weights: Weights) -> dict[str, Any]:
    """Return what a model is built with where its facts are not those of its name."""
    differing, found = weights.differing, {}
    if differing.patch is not None:
        found["patch_size"] = weights.facts.patch
    if weights.facts.grid is not None and (differing.patch, differing.grid) != (None, None):
        found["img_size"] = weights.facts.grid * weights.facts.patch
    return found


def load_backbone(weights: Weights, sides: tuple[int, int] | None = None) -> Backbone:
    """Build the frozen backbone from resolved weights; the global random state stays as it was.

    Args:
        weights: what `resolve_weights` returned.
        sides: of the images in pixels, (h, w), by default the model's own. They matter only to a
            model of one fixed grid, whose tables are resized for it.

    Raises:
        DataError: The file does not hold this backbone.
        ZooError: The model cannot be opened.
    """
    name, facts = weights.timm_name, weights.facts
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(weights.seed or 0)
        backbone = create.create_backbone(
            name, None, facts.pos_antialias, sides, **_arguments(weights)
        )
    if (weights.differing.mean, weights.differing.std) != (None, None):
        backbone.normalise_by(facts.mean, facts.std)
    if weights.path is None:
        return backbone
    try:
        state = _read(weights, weights.path, backbone)
        fitting.check_numbers(state, backbone.state())
        backbone.load(state)
    except (SafetensorError, OSError) as error:
        raise DataError(f"{weights.path} cannot be read ({error}); fetch it again") from None
    except (DataError, ZooError) as error:
        said = str(error) if str(weights.path) in str(error) else f"{weights.path}: {error}"
        raise DataError(f"{said}; use a file made for this backbone") from None
    return backbone


def _read(weights: Weights, path: Path, backbone: Backbone) -> dict[str, Tensor]:
    if weights.published:
        return fitting.timm_state(load_file(path), fitting.outside(backbone), weights.timm_name)
    checkpoint = open_checkpoint(path)
    found = layouts.find_model(checkpoint)
    return fitting.state_for(found, checkpoint, backbone, weights.timm_name).state


def _seed(weights: str) -> int:
    _, colon, text = weights.partition(":")
    if not colon:
        return 0
    if not text.isdecimal() or int(text) >= 2**63:
        raise UsageError(f"weights are '{weights}'; use random or random:SEED, such as random:1")
    return int(text)
