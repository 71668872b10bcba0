"""A trained method as plain backbone weights, proven equal."""

import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save
from torch import Tensor

from lpmoe_bench import __version__
from lpmoe_bench.config.settings import RunConfig, build_config
from lpmoe_bench.console import OnProgress
from lpmoe_bench.data.scenes.generate import SETS
from lpmoe_bench.errors import BenchError, UsageError
from lpmoe_bench.files import sha256_file, write_atomically
from lpmoe_bench.model.peft_format import TENSORS, read_config, read_peft
from lpmoe_bench.model.plugins import plugins_here
from lpmoe_bench.model.segmenter import build_segmenter, load_trained
from lpmoe_bench.model.weights.checkpoint import ABOUT
from lpmoe_bench.model.weights.resolve import resolve_weights
from lpmoe_bench.records.store import read_record
from method_zoo import Method, ZooError, get_method

# How far the features of a merged backbone are from those of the method it was merged from.

LIMIT = 1e-5
NOISE = DRAWN = 2  # images of each kind
SIDE = 160  # of a drawn scene, before it is resized
DTYPES = (torch.float32, torch.float64)

Maps = list[list[Tensor]]  # of each image: all maps and the final features


@dataclass(frozen=True)
class Proof:
    """The largest differences over all maps and the final features of all images.

    largest: between the method and its merged weights in single precision, both computed in double
    precision, so that nothing but the weights can differ. single: between the two computed in
    single precision. noise: between the method in single and itself in double precision, without
    which `single` cannot be read: a deep ViT is further than 1e-5 from its own exact features.
    """

    images: int
    largest: float
    single: float
    noise: float

    @property
    def holds(self) -> bool:
        """Say whether the weights stand for the method, in either precision, as far as it goes."""
        # Both sides carry rounding as large as the noise; ten times as much is more than rounding.
        readable = math.isfinite(self.single) and self.single < LIMIT + 10 * self.noise
        return self.largest < LIMIT and readable


def proof_images(sides: tuple[int, int]) -> list[Tensor]:
    """Return seeded noise and scenes drawn in code, each (1, 3, h, w) in [0, 1]."""
    generator = torch.Generator().manual_seed(0)
    noise = [torch.rand(1, 3, *sides, generator=generator) for _ in range(NOISE)]
    draw = SETS["generated_cod"].scene
    scenes = [draw(index, "test", shape=(SIDE, SIDE))[0] for index in range(DRAWN)]
    drawn = [torch.from_numpy(s).permute(2, 0, 1)[None] / 255 for s in scenes]
    return noise + [F.interpolate(d, sides, mode="bilinear", antialias=True) for d in drawn]


@torch.no_grad()
def features(method: Method, images: list[Tensor], step: Callable[[], None]) -> list[Maps]:
    """Return the features in single, then in double precision, in which `method` then stays."""
    found: list[Maps] = []
    for dtype in DTYPES:
        method.eval().to(dtype)
        found.append([])
        for image in images:
            given = method(image.to(dtype))
            found[-1].append([*given.maps, given.final])
            step()
    return found


def prove(expected: list[Maps], got: list[Maps]) -> Proof:
    """Compare what `features` returned for a method and for its merged backbone."""
    single, double = expected
    largest = (_largest(double, got[1]), _largest(single, got[0]), _largest(single, double))
    return Proof(len(single), *largest)


def _largest(one: Maps, other: Maps) -> float:
    """Return max |difference| over all maps; what is not a number stays so."""
    pairs = zip(chain(*one), chain(*other), strict=True)
    return torch.stack([(a.double() - b.double()).abs().max() for a, b in pairs]).max().item()


SUFFIX = ".safetensors"
PEFT_SIZE = 128  # pixels: an adapter has no image side of its own


@dataclass(frozen=True)
class Merged:
    """A file of merged weights, which `--backbone` with `--weights` reads as any other."""

    file: Path
    sha256: str
    backbone: str
    method: str
    proof: Proof


def merge_run(
    run: Path, output: Path, cache: Path, offline: bool, force: bool, report: OnProgress
) -> Merged:
    """Fold a finished run's method into its backbone and write that under the model's own names.

    Raises UsageError for a method that cannot be merged, an output that is there already (unless
    `force`) or is no .safetensors; DataError for a run without its files; BenchError where the
    merged weights do not prove equal.
    """
    check_output(output, force)
    record = read_record(run)
    plugins_here(record)  # one that is missing is named, where its method would be unknown
    check_mergeable(get_method(record.method.name))
    segmenter, config = load_trained(run, cache, offline)
    backbone = record.backbone
    about = {
        "run": record.id,
        "fingerprint": record.fingerprint,
        "task": record.task,
        "method": record.method.name,
        "options": record.method.options,
        "backbone_sha256": backbone.weights_sha256 if backbone else None,
        "adapter_sha256": record.adapter_sha256,
        "licence": backbone.licence if backbone else "",
    }
    return write_merged(segmenter.method, config, output, cache, about, report)


def merge_peft(
    folder: Path,
    backbone: str | None,
    weights: str | None,
    output: Path,
    cache: Path,
    offline: bool,
    force: bool,
    report: OnProgress,
) -> Merged:
    """Do the same for an adapter in Hugging Face peft's format, on the backbone of its training.

    Without `backbone` the adapter's own configuration has to name one. Raises as `merge_run` and
    `read_peft`.
    """
    check_output(output, force)
    base = backbone or read_config(folder).get("base_model_name_or_path")
    if not base:
        raise UsageError(f"{folder} does not say which backbone it adapts; give --backbone NAME")
    plain = {"backbone": base, "weights": weights, "method": "decoder_only"}
    config = build_config(plain, {"size": PEFT_SIZE})
    found = resolve_weights(base, weights, cache, offline)
    config = config.model_copy(update={"facts": found.differing})
    method = read_peft(folder, build_segmenter(config, found).method.backbone)
    about = {
        "method": type(method).__module__.rpartition(".")[2],
        "backbone_sha256": found.sha256,
        "adapter_sha256": sha256_file(folder / TENSORS),
        "licence": found.licence,
    }
    return write_merged(method, config, output, cache, about, report)


def check_output(output: Path, force: bool) -> None:
    """Raise UsageError where merged weights may not be written."""
    if output.suffix != SUFFIX or output.is_dir():
        raise UsageError(f"output is '{output}'; merged weights are a {SUFFIX} file: name one")
    if output.exists() and not force:
        raise UsageError(f"{output} is there already; name another file, or overwrite with --force")


def check_mergeable(method: type[Method]) -> None:
    """Raise UsageError with the reason for a method that no plain weights can hold."""
    if not method.mergeable:
        raise UsageError(f"{method.title} cannot be merged: {method.unmergeable}")


def write_merged(
    method: Method,
    config: RunConfig,
    output: Path,
    cache: Path,
    about: Mapping[str, object],
    report: OnProgress,
) -> Merged:
    """Merge a method, write the file, read it back and prove it; `method` is used up.

    `config` names backbone and image side, `about` goes into the file's header. Where the proof
    does not hold no file is left, and what stood at `output` stays.
    """
    images, title = proof_images(config.sides), method.title
    done, total = count(1), 2 * len(DTYPES) * len(images)

    def step() -> None:
        report(next(done), total)

    expected = features(method, images, step)
    # Folded in double precision, in which the method now is: each weight is rounded once.
    state = {
        name: (tensor.float() if tensor.is_floating_point() else tensor).contiguous()
        for name, tensor in method.merge().state().items()
    }
    facts = config.facts.model_dump(exclude_none=True)
    header = {"version": __version__, "backbone": config.backbone, "facts": facts, **about}
    # Proven on the file as it is read back, under another name until then.
    draft = output.with_name(f".{output.stem}.unproven{SUFFIX}")
    try:
        write_atomically(draft, save(state, metadata={ABOUT: json.dumps(header)}))
        proof = prove(expected, features(_read_back(config, draft, cache, title), images, step))
        if not proof.holds:
            raise BenchError(
                f"the features of {title} and of its merged weights differ by {proof.largest:.1e}, "
                f"which must be below {LIMIT:g}; no file was written"
            )
        os.replace(draft, output)
    finally:
        draft.unlink(missing_ok=True)
    return Merged(output, sha256_file(output), config.backbone, title, proof)


def _read_back(config: RunConfig, file: Path, cache: Path, title: str) -> Method:
    """Build the plain backbone as a run on this file would."""
    name = str(file)
    changes = {"method": "decoder_only", "decoder": "fpn", "weights": name}
    plain = config.model_copy(update=changes | {"options": {}, "decoder_options": {}})
    try:
        weights = resolve_weights(
            plain.backbone, name, cache, offline=True, facts=plain.facts, settled=True
        )
        return build_segmenter(plain, weights).method
    except (BenchError, ZooError) as error:
        raise UsageError(
            f"{title} on {config.backbone} gives weights that this backbone has no place for, "
            f"so no file was written: {error}"
        ) from None
