"""An author's checkpoint as a run: no training, its own record, ready to be evaluated."""

import hashlib
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from lpmoe_bench.config.settings import RunConfig, build_config, fingerprint
from lpmoe_bench.console import Terminal
from lpmoe_bench.data.registry import load_registry
from lpmoe_bench.environment import collect_environment
from lpmoe_bench.errors import DataError, UsageError
from lpmoe_bench.files import sha256_file, write_atomically
from lpmoe_bench.metrics.protocols import get_protocol
from lpmoe_bench.model import costs
from lpmoe_bench.model.decoders.decoder import (
    RANDOM_NOTE,
    DecoderWeights,
    Head,
    resolve_decoder_weights,
)
from lpmoe_bench.model.decoders.names import get_decoder
from lpmoe_bench.model.decoders.sam import SamDecoder
from lpmoe_bench.model.released import Released, read_released
from lpmoe_bench.model.segmenter import Segmenter, build_segmenter
from lpmoe_bench.model.weights.checkpoint import Checkpoint
from lpmoe_bench.model.weights.layouts import find_model
from lpmoe_bench.model.weights.resolve import Weights, load_backbone, resolve_weights
from lpmoe_bench.records import model as records
from lpmoe_bench.records import store
from lpmoe_bench.records.context import plain
from lpmoe_bench.records.provenance import code_facts
from lpmoe_bench.records.verify import tensors_digest
from lpmoe_bench.training import run as trained
from lpmoe_bench.training.plan import complete_config
from lpmoe_bench.training.request import RunRequest, layers_of, preset_layer
from method_zoo.errors import ZooError
from method_zoo.options import get_method, method_name, vars_of

# Tables of positions and of pairs of places, which are resized where the image side is another;
# BEiT's is when it is loaded, so that tables of one shape may differ.
TABLES = ("pos_embed", "rel_pos_h", "rel_pos_w")
BIASES = "relative_position_bias_table"
EXACT = 1e-5  # of the largest value: a conversion between libraries may round
NOT_SETTINGS = ("train", "runtime")


@dataclass(frozen=True)
class ImportPlan:
    """A checkpoint resolved to its run; `notes` are for the record."""

    file: Path
    sha256: str
    config: RunConfig
    released: Released
    weights: Weights
    decoder_weights: DecoderWeights
    fingerprint: str
    folder: Path
    notes: tuple[str, ...]


def import_checkpoint(
    file: Path, request: RunRequest, terminal: Terminal, force: bool = False
) -> store.StoredRecord:
    """Make a run of an author's checkpoint, or return the one that is there unless forced.

    Args:
        file: the checkpoint, read as tensors alone.
        request: method, backbone, weights, decoder, task, size and options, and where runs go.
        terminal: is told what was taken, what was dropped, and what is not known.
        force: make it anew; what stood there keeps its files.

    Raises:
        UsageError: Settings that do not go with the checkpoint.
        DataError: The file is damaged, of another layout, not whole, or was trained on other
            weights of the backbone.
    """
    plan = plan_import(file, request, terminal)
    with store.only_one(plan.folder):
        if (plan.folder / store.RECORD).exists() and not force:
            terminal.note(f"{plan.folder} is there already; showing it (--force imports again)")
            return store.StoredRecord(plan.folder, store.read_record(plan.folder))
        segmenter, said = fill_model(plan)
        notes, weights = (*plan.notes, *said), plan.weights
        terminal.say(f"weights {'; '.join((weights.facts.text, *weights.read))}")
        for note in (*notes, *weights.remarks):
            terminal.note(note)
        if (plan.folder / store.RECORD).exists():
            store.set_aside(plan.folder)
        header = trained.adapter_header(plan.config, plan.weights, plan.fingerprint)
        state = save(segmenter.state(), metadata=header)
        record = imported_record(plan, segmenter, state, notes)
        write_atomically(plan.folder / store.ADAPTER_FILE, state)
        store.write_record(plan.folder, record, [])
    return store.StoredRecord(plan.folder, record)


def plan_import(file: Path, request: RunRequest, terminal: Terminal) -> ImportPlan:
    """Read a checkpoint and resolve its settings; raises as `import_checkpoint`."""
    if wrong := [k for k in NOT_SETTINGS if request.sets.get(k)]:
        raise UsageError(f"an import trains nothing; leave settings of {wrong[0]} out of --set")
    asked = layers_of(request, load_registry(request.datasets))
    method = get_method(asked.method)
    released = read_released(file, method_name(asked.method))
    given = {key for layer in asked.layers for key in layer}
    if "decoder" in given:
        chosen = next(layer["decoder"] for layer in reversed(asked.layers) if "decoder" in layer)
        if chosen != released.decoder:  # which the file then has no tensors for
            left = {f"decoder {released.decoder}": len(released.decoder_state)}
            dropped = released.dropped | (left if released.decoder else {})
            released = replace(
                released, decoder="", decoder_options={}, decoder_state={}, dropped=dropped
            )
    elif not released.decoder:
        raise UsageError(
            f"{file} has no decoder for masks, so its scores cannot be computed; say --decoder fpn "
            f"to import the method alone, with a decoder of random weights"
        )
    layer: dict[str, Any] = {
        "size": released.size,
        "options": released.options,
        **({"decoder": released.decoder} if released.decoder else {}),
        "decoder_options": released.decoder_options,
    }
    if released.whole and "weights" not in given:
        layer["weights"] = str(file)
    preset = {"decoder": preset_layer(vars_of(method))["decoder"]}
    config = build_config({"protocol": asked.task.protocol}, preset, layer, *asked.layers)
    config = complete_config(config, method)
    weights = resolve_weights(
        config.backbone, config.weights, request.cache, request.offline, terminal.say, config.facts
    )
    config = config.model_copy(update={"facts": weights.differing})
    decoder_weights = resolve_decoder_weights(get_decoder(config.decoder), config.decoder_weights)
    if not released.decoder:
        decoder_weights = replace(decoder_weights, note=RANDOM_NOTE)
    elif decoder_weights.path is None:
        decoder_weights = replace(decoder_weights, note="")
    sha256 = sha256_file(file)
    digests = {
        "imported": sha256,
        "protocol": get_protocol(config.protocol).hash,
        "weights": weights.sha256,
    }
    if decoder_weights.sha256:
        digests["decoder_weights"] = decoder_weights.sha256
    hashed = fingerprint(config, digests)
    place = records.run_folder(config.task, config.method, config.backbone, hashed, config.seed)
    notes = [
        f"imported from {file.name}, a {released.layout}: it was not trained here, and the images "
        f"of its training are not known",
        *(f"{file.name}: {sentence}" for sentence in released.said),
    ]
    if not released.decoder:
        notes.append(f"the decoder {config.decoder} is random: no score of this run says anything")
    for option in released.unknown:
        if all(option not in layer.get("options", {}) for layer in asked.layers):
            value = plain(config.options[option])
            notes.append(f"the file does not say {option}; taken is {value} (--set {option}=...)")
    if released.dropped:
        named = ", ".join(f"{name} ({count})" for name, count in released.dropped.items())
        notes.append(f"tensors of the file that are of no use here, by name: {named}")
    return ImportPlan(
        file,
        sha256,
        config,
        released,
        weights,
        decoder_weights,
        hashed,
        request.runs / place,
        tuple(notes),
    )


# The tensors of a file into a model.


def fill_model(plan: ImportPlan) -> tuple[Segmenter, list[str]]:
    """Build the model and put the checkpoint into it; returns it and what is to be said.

    Raises DataError where tensors are missing or of another shape, and where the file's own
    backbone is not the one that is used.
    """
    released, said = plan.released, []
    own_file = plan.weights.sha256 == plan.sha256
    if released.backbone and not own_file:
        said += compare_backbones(plan)
    segmenter = build_segmenter(plan.config, plan.weights, plan.decoder_weights)
    try:
        with torch.no_grad():
            segmenter.method.load_adapter_state(released.method)
    except ZooError as error:
        raise DataError(
            f"{plan.file} does not fit this backbone and these options: {error}"
        ) from None
    if released.decoder:
        said += fill_decoder(segmenter.decoder, plan)
    return segmenter.eval(), said


def compare_backbones(plan: ImportPlan) -> list[str]:
    """Hold the file's frozen backbone against the one that is used; returns what is to be said.

    Raises DataError where a tensor differs: the method was trained on other weights.
    """
    own = load_backbone(plan.weights, plan.config.sides).state()
    frozen = plan.released.backbone
    if not own.keys() & frozen.keys():  # of another layout, such as Uni-Perceiver's
        found = find_model(Checkpoint(frozen))
        frozen = found.tensors if found else frozen
    # timm names the two layers of an MLP in another way than Meta.
    theirs = {k if k in own else k.replace(".mlp.lin", ".mlp.fc"): t for k, t in frozen.items()}
    both, tables, largest = sorted(own.keys() & theirs.keys()), [], 0.0
    for name in both:
        # In the file's precision: half of it is still the same model.
        a, b = own[name].to(theirs[name].dtype).float(), theirs[name].float()
        same = a.shape == b.shape and a.numel() > 0
        apart = float((a - b).abs().max() / a.abs().max().clamp(min=1e-12)) if same else 0.0
        if same and apart <= EXACT:
            continue
        if not (name.endswith(BIASES) or (name.endswith(TABLES) and not same)):
            raise DataError(
                f"{plan.file} was trained on other weights of {plan.config.backbone} than these "
                f"({plan.weights.source}): its own {name} "
                + ("differs" if same else f"is {tuple(b.shape)}, here {tuple(a.shape)}")
                + "; give the ones it was trained on by --weights"
            )
        tables.append(name)
        largest = max(largest, apart)
    said = []
    if tables:
        far = f", by up to {largest:.1%} of the largest value" if largest else ""
        said.append(
            f"{len(tables)} tables of positions, such as {tables[0]}, differ between the file's "
            f"backbone and {plan.config.backbone} at {plan.config.size} px{far}: resized in "
            f"another way"
        )
    if rest := len(theirs) - len(both):
        said.append(f"{rest} tensors of the file's own backbone could not be compared")
    return said


def fill_decoder(decoder: Head, plan: ImportPlan) -> list[str]:
    """Put the file's decoder in; returns what is to be said.

    Raises DataError where a tensor that is trained or read is missing, or is of another shape.
    """
    state, own = plan.released.decoder_state, decoder.state_dict()
    if isinstance(decoder, SamDecoder):
        state = decoder.cut(state)
    trainable = {name for name, p in decoder.named_parameters() if p.requires_grad}
    missing = sorted(own.keys() - state.keys())
    needed = [name for name in missing if name in trainable]
    frozen = [name for name in missing if name not in trainable]
    read = [name for name in frozen if not name.startswith(decoder.unread)]
    if needed or (read and plan.decoder_weights.path is None):
        lack = needed or read
        hint = "" if needed else "; give SAM's own checkpoint by --decoder-weights"
        raise DataError(
            f"{plan.file} lacks {len(lack)} tensors of the decoder {plan.config.decoder}, such as "
            f"{lack[0]}{hint}"
        )
    surplus = sorted(state.keys() - own.keys())
    other = [n for n in own.keys() & state.keys() if own[n].shape != state[n].shape]
    if surplus or other:
        name = (surplus or sorted(other))[0]
        raise DataError(
            f"{plan.file} does not fit the decoder {plan.config.decoder}: {name} is "
            f"{tuple(state[name].shape)}"
            + (f", which should be {tuple(own[name].shape)}" if not surplus else ", which it lacks")
        )
    decoder.load_state_dict(own | dict(state))
    unread = [name for name in frozen if name.startswith(decoder.unread)]
    if unread and plan.decoder_weights.path is None:
        return [f"{len(unread)} tensors of the decoder that are never read are random"]
    return []


def imported_record(
    plan: ImportPlan, segmenter: Segmenter, state: bytes, notes: tuple[str, ...]
) -> records.Record:
    """Return the record of an import: no scores, no training, no seed. state: of its adapter."""
    config, protocol = plan.config, get_protocol(plan.config.protocol)
    paths = {"weights": config.weights, "decoder_weights": config.decoder_weights}
    names = {field: Path(path).name if path else None for field, path in paths.items()}
    settings = config.model_dump(exclude={"train", "seed"}) | names
    return records.Record(
        kind="run",
        id="/".join(plan.folder.parts[-4:]),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        label=config.label,
        config=settings,
        fingerprint=plan.fingerprint,
        method=trained.method_of_record(config, get_method(config.method)),
        decoder=trained.decoder_of_record(config, plan.decoder_weights),
        backbone=trained.backbone_facts(config, plan.weights),
        task=config.task,
        protocol=records.ProtocolFacts(
            name=protocol.name, version=protocol.version, hash=protocol.hash
        ),
        scores={},
        parameters=records.Parameters.model_validate(costs.count_parameters(segmenter)),
        environment=collect_environment(costs.device_name("cpu")),
        adapter_sha256=hashlib.sha256(state).hexdigest(),
        adapter_digest=tensors_digest(state),
        code=code_facts(config.method, config.decoder, config.train.loss),
        test_opened=0,
        notes=list(notes),
        imported=records.ImportFacts(
            file=plan.file.name,
            sha256=plan.sha256,
            layout=plan.released.layout,
            dropped=plan.released.dropped,
        ),
    )
