"""Decoder: what all decoders share: what they read and how they are built."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple

from torch import Tensor, nn

from lpmoe_bench.errors import DataError, UsageError
from lpmoe_bench.files import sha256_file
from lpmoe_bench.model.weights.checkpoint import check_checkpoint_path, read_checkpoint
from method_zoo.method import Features, Method


class Inputs(NamedTuple):
    """What a method will give: channels and strides of `Features.maps`, channels of `.final`."""

    channels: list[int]
    strides: list[int]
    final: int

    @classmethod
    def of(cls, method: Method) -> Inputs:
        """Return what a method gives on its backbone."""
        return cls(method.channels, method.strides, method.backbone.neck_channels)


class Decoder(nn.Module):
    """Features to logits, (B, classes, H, W), at a stride of its own choice.

    A subclass is built from (inputs, classes) and keyword options, and reads only what `reads`
    names. In training it may give several outputs, one after the other along the batch; the loss
    is their mean. What does not train, the decoder itself freezes; all of its tensors are saved,
    so a trained one needs no other file.
    """

    title: ClassVar[str]
    reads: ClassVar[str]  # "maps" or "final", of Features
    paper: ClassVar[str] = ""
    fidelity: ClassVar[str] = "made for this benchmark"
    # Whose published weights `load_published` takes; empty where there are none.
    published: ClassVar[str] = ""
    # Beginnings of the names of frozen tensors that it keeps for the published file alone.
    unread: ClassVar[tuple[str, ...]] = ()
    # The size of the published model's part that this decoder stands for, before any cut.
    published_parameters: int = 0

    def forward(self, features: Features) -> Tensor:
        raise NotImplementedError

    def load_published(self, state: dict[str, Tensor]) -> None:
        """Take the weights of a published decoder; raises UsageError where there are none."""
        self.refuse_published()

    @classmethod
    def refuse_published(cls) -> None:
        """Say that there are no published weights to take."""
        raise UsageError(
            f"decoder {cls.title} always starts at random; leave --decoder-weights out, or use "
            f"--decoder sam"
        )


# What a decoder starts from: a published model's checkpoint, or random numbers.

RANDOM_NOTE = "random decoder"


@dataclass(frozen=True)
class DecoderWeights:
    """A checkpoint and its checksum; both None where the decoder starts at random.

    note: what must be said beside the decoder's name: that a decoder which is published with
    weights starts without them. Empty for the others, which always start at random.
    """

    path: Path | None = None
    sha256: str | None = None
    note: str = ""


def resolve_decoder_weights(kind: type[Decoder], file: str | None) -> DecoderWeights:
    """Find and hash the file named by --decoder-weights, if one is, for a decoder of that class.

    Raises UsageError for a decoder without published weights or for another kind of file,
    DataError for a file that is missing.
    """
    if file is None:
        return DecoderWeights(note=RANDOM_NOTE if kind.published else "")
    if not kind.published:
        kind.refuse_published()
    path = Path(file).expanduser()
    check_checkpoint_path(path)
    return DecoderWeights(path, sha256_file(path))


def load_decoder_weights(decoder: Decoder, weights: DecoderWeights) -> None:
    """Put the weights into a decoder; raises DataError where the file holds others."""
    if weights.path is None:
        return
    state = read_checkpoint(weights.path)
    try:
        decoder.load_published(state)
    except DataError as error:
        raise DataError(f"{weights.path} holds {error}") from None
