"""Segmenter: a method and a head as one model, from images to a loss or to predictions."""

import hashlib
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn

from lpmoe_bench.config.settings import RunConfig, stored_config
from lpmoe_bench.environment import memory_bytes
from lpmoe_bench.errors import DataError, ResourceError, UsageError
from lpmoe_bench.files import read_regular
from lpmoe_bench.model.decoders.decoder import DecoderWeights, Head, load_decoder_weights
from lpmoe_bench.model.decoders.names import build_decoder
from lpmoe_bench.model.plugins import plugins_here
from lpmoe_bench.model.weights.resolve import RANDOM, Weights, load_backbone, resolve_weights
from lpmoe_bench.records.model import Record
from lpmoe_bench.records.provenance import changed_code
from lpmoe_bench.records.store import ADAPTER_FILE, read_record
from method_zoo import Backbone, Features, Method, ZooError, get_method
from method_zoo.backbones.backbone import SIDE_MULTIPLE
from method_zoo.backbones.linear import Wrapped
from method_zoo.method import check_features, is_of_others

DECODER_PREFIX = "decoder."


class Segmenter(nn.Module):
    """A method and a head as one model.

    Images in [0, 1], (B, 3, h, w), give what the head predicts: of a decoder logits at their size,
    (B, K, h, w), in training of several outputs one after the other along the batch. With targets
    they give the loss, a scalar: the head's and the method's own.

    Args:
        method: built on a backbone.
        decoder: the head, built for what the method gives.
    """

    def __init__(self, method: Method, decoder: Head):
        super().__init__()
        self.method = method
        self.decoder = decoder

    def forward(self, image: Tensor, targets: Any = None, examine: bool = False) -> Any:
        return self.finish(self.method(image), image.shape[-2:], targets, examine)

    def finish(
        self, features: Features, size: Sequence[int], targets: Any = None, examine: bool = False
    ) -> Any:
        """Turn a method's features, of images of a size (h, w), into predictions or the loss.

        examine: return (`Examined`, the method's auxiliary loss) instead of their sum.
        """
        if is_of_others(type(self.method)):
            check_features(self.method, features, size)
        if targets is None:
            return self.decoder.predict(features, size)
        if examine:
            return self.decoder.examine(features, targets, size), features.aux
        return self.decoder.loss(features, targets, size) + features.aux

    def countable(self, features: Features, size: Sequence[int]) -> Tensor:
        """Compute what the head costs for an image of (h, w), of shapes alone."""
        return self.decoder.countable(features, size)

    def state(self) -> dict[str, Tensor]:
        """Return the method's adapter state and the whole decoder, its frozen parts too."""
        decoder = {DECODER_PREFIX + k: v.detach() for k, v in self.decoder.state_dict().items()}
        return {"method." + k: v for k, v in self.method.adapter_state().items()} | decoder

    @torch.no_grad()
    def load_state(self, state: dict[str, Tensor]) -> None:
        """Copy a saved state in; raises ZooError naming what does not fit."""
        decoder = under(DECODER_PREFIX, state)
        if len(decoder) + len(under("method.", state)) != len(state):
            raise ZooError("this file holds tensors of neither a method nor a decoder")
        own = {k: v.shape for k, v in self.decoder.state_dict().items()}
        if own != {k: v.shape for k, v in decoder.items()}:
            raise ZooError("the decoder in this state has other tensors: same decoder options?")
        self.method.load_adapter_state(under("method.", state))
        self.decoder.load_state_dict(decoder)


ROUNDED = (nn.Linear, nn.Conv2d)  # autocast rounds their weights, and nothing else reads these


def keep_frozen_rounded(segmenter: Segmenter, precision: str) -> None:
    """Round frozen weights once, in place, and not anew in every pass under autocast.

    Equal to the bit, and half the memory. What a method wraps keeps its own weights, for a wrapper
    may compute with them; so does all that trains, and the decoder, which is saved as it is.

    Args:
        segmenter: it computes under autocast alone from here on.
        precision: as in `train.precision`, settled; nothing is done but for bf16-mixed.
    """
    if precision != "bf16-mixed":
        return
    modules = list(segmenter.method.backbone.modules())
    wrapped = {part for m in modules if isinstance(m, Wrapped) for part in m.base.modules()}
    for module in modules:
        trains = any(p.requires_grad for p in module.parameters(recurse=False))
        if type(module) in ROUNDED and module not in wrapped and not trains:
            module.to(torch.bfloat16)


def under(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors whose names start with a prefix, without it."""
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def build_segmenter(
    config: RunConfig,
    weights: Weights,
    decoder_weights: DecoderWeights | None = None,
    backbone: Backbone | None = None,
) -> Segmenter:
    """Build an untrained segmenter; the decoder starts alike whatever the method draws.

    Args:
        config: the settings of the run.
        weights: of the backbone, as `resolve_weights` found them.
        decoder_weights: without them the decoder is random: what is loaded next replaces all of it.
        backbone: what `load_backbone` built of these weights; the segmenter changes it.

    Raises:
        UsageError: Method, decoder and options do not go together.
        ZooError: The backbone or an option is unknown or unsupported.
        DataError: A file does not hold these weights.
    """
    if backbone is None:
        backbone = load_backbone(weights, config.sides)
    # A run is told by its seed alone, not by what was drawn in this process before.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        method = get_method(config.method)(backbone, **config.options)  # type: ignore[call-arg]
        # Again: the decoder's draws do not depend on how many the method has made.
        torch.manual_seed(config.seed)
        decoder = build_decoder(config.decoder, method, config.outputs, config.decoder_options)
    decoder.train_with(config.train.loss, config.kind, config.train.class_weights)
    load_decoder_weights(decoder, decoder_weights or DecoderWeights())
    method.checkpointing = config.runtime.checkpointing
    if (part := config.runtime.recompute) is not None and part not in method.recomputable:
        raise UsageError(
            f"runtime.recompute is {part!r}, but {config.method} has no {part}: leave it out, or "
            f"use runtime.checkpointing=true"
        )
    method.recompute = config.runtime.recompute
    return Segmenter(method, decoder)


# A segmenter of shapes alone, on the meta device: nothing is read, drawn or fetched.


def blueprint(config: RunConfig) -> Segmenter:
    """Return the segmenter of a configuration; raises the errors of building it."""
    weights = resolve_weights(config.backbone, RANDOM, Path(), facts=config.facts, settled=True)
    with torch.device("meta"):
        return build_segmenter(config, weights)


def shape_key(config: RunConfig) -> tuple[object, ...]:
    """Return what the blueprint of a configuration depends on: equal keys, equal shapes."""
    parts = [config.options, config.decoder, config.decoder_options, config.runtime.checkpointing]
    parts += [config.train.loss, config.kind, config.train.class_weights]
    parts.append(config.runtime.recompute)
    return (
        get_method(config.method),
        config.backbone,
        config.facts,
        config.sides,
        config.outputs,
        json.dumps(parts, sort_keys=True, default=str),
    )


class _Sizes(NamedTuple):
    """Bytes of a model's tensors, and of those that train; 0 where shapes alone do not tell."""

    all: int = 0
    trained: int = 0


_sizes: dict[tuple[object, ...], _Sizes] = {}


def check_buildable(config: RunConfig) -> None:
    """Raise what a run would raise when it builds its model, as far as shapes alone can tell."""
    key = shape_key(config)
    if key in _sizes:  # it was checked in this process, such as for another seed
        return
    try:
        model = blueprint(config)
    except NotImplementedError:  # a method that needs values cannot be built here
        _sizes[key] = _Sizes()
        return
    except RuntimeError as error:
        if "overflow" not in str(error):  # how torch words a tensor of more bytes than it can count
            raise
        raise UsageError(f"{_named(config)} is larger than any memory; {SMALLER}") from None
    trained = sum(p.nbytes for p in model.parameters() if p.requires_grad)
    _sizes[key] = _Sizes(sum(t.nbytes for t in model.state_dict().values()), trained)


SMALLER = "choose smaller options, of the method or of the decoder"
KEPT_TO_TRAIN = 3  # of the size of what trains, beside it: its gradient and two moments of AdamW


def check_memory(config: RunConfig) -> None:
    """Raise ResourceError for a model that cannot fit into this machine, before it is built.

    Raises what `check_buildable` does, too.
    """
    check_buildable(config)
    sizes, there = _sizes[shape_key(config)], memory_bytes()
    # Wherever it computes, it is built on the CPU.
    kept = KEPT_TO_TRAIN * sizes.trained if config.runtime.device == "cpu" else 0
    if sizes.all + kept > there:
        raise ResourceError(
            f"{_named(config)} takes {(sizes.all + kept) / 2**30:,.0f} GiB for its weights"
            f"{' and their training' if kept else ''}, and this machine has "
            f"{there / 2**30:,.0f} GiB of memory; {SMALLER}"
        )


def _named(config: RunConfig) -> str:
    def words(name: str, options: Mapping[str, object]) -> str:
        return f"{name} ({', '.join(f'{k} {v}' for k, v in options.items())})" if options else name

    method, decoder = words(config.method, config.options), config.decoder
    return f"{method} with decoder {words(decoder, config.decoder_options)} on {config.backbone}"


def blueprint_backbone(name: str) -> Backbone:
    """Return a backbone at its native size; raises ZooError for an unknown or unsupported name."""
    weights = resolve_weights(name, RANDOM, Path())
    with torch.device("meta"):
        return load_backbone(weights)


def native_size(name: str) -> int:
    """Return the image side at which a backbone has its own grid, down to a multiple of 32.

    Seen from the image every backbone has stride 16, so that grid times 16 is the side.
    """
    backbone = blueprint_backbone(name)
    side = min(backbone.vit.patch_embed.grid_size) * backbone.stride
    return max(SIDE_MULTIPLE, side // SIDE_MULTIPLE * SIDE_MULTIPLE)


# A trained run's model, rebuilt from its folder and verified.

ADAPTER_FORMAT = "lpmoe-bench adapter 1"


def code_note(record: Record) -> list[str]:
    """Return what is to be said of a model that is built by other code than it was trained with."""
    changes = changed_code(record)
    return [f"trained with other code than is here: {', '.join(changes)}"] if changes else []


def load_trained(
    folder: Path, cache: Path, offline: bool = False, say: Callable[[str], None] = warnings.warn
) -> tuple[Segmenter, RunConfig]:
    """Rebuild the model of a finished run in eval mode.

    Args:
        folder: of the run.
        cache: folder of fetched weights.
        offline: fetch nothing.
        say: is told what must be said, such as that a plug-in has changed since.

    Returns:
        The model on the CPU, and the settings of its run.

    Raises:
        DataError: The adapter is missing, damaged, of another run, or was trained on other backbone
            weights than those found here.
        UsageError: The run was trained with a plug-in that is not here.
    """
    record = read_record(folder)
    # Before it is built: of a plug-in that is missing only the name would be told.
    for note in plugins_here(record)[1] or code_note(record):
        say(note)
    path = folder / ADAPTER_FILE
    try:
        data = read_regular(path)
    except OSError as error:
        raise DataError(
            f"{path} could not be read ({error.strerror}); published records carry no weights: "
            f"name the run's own folder"
        ) from None
    # The record is the proof: weights of another training would give its scores a wrong model.
    if hashlib.sha256(data).hexdigest() != record.adapter_sha256:
        raise DataError(f"{path} is damaged or of another run: its checksum is not the record's")
    header = _header(data, path)
    config = stored_config(json.loads(header["config"]))
    weights = resolve_weights(
        config.backbone, config.weights, cache, offline, facts=config.facts, settled=True
    )
    # An adapter is a change of these very weights: on
    # others it would give scores of no model at all.
    if weights.sha256 != header["backbone_sha256"]:
        raise DataError(
            f"{path} was trained on {config.backbone} weights {header['backbone_sha256'][:12]}, "
            f"here they are {weights.sha256[:12]}: use the same weights"
        )
    segmenter = build_segmenter(config, weights)
    try:
        segmenter.load_state(load(data))
    except (SafetensorError, ZooError) as error:
        raise DataError(f"{path} does not fit its own configuration: {error}") from None
    return segmenter.eval(), config


def _header(data: bytes, path: Path) -> dict[str, str]:
    """Read the metadata of a safetensors file: 8 bytes of length, then JSON."""
    try:
        length = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + length])["__metadata__"]
        if header["format"] != ADAPTER_FORMAT:
            raise ValueError(header["format"])
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is no adapter of lpmoe-bench ({error})") from None
    return header
