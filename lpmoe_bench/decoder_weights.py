"""What a decoder starts from: a published model's checkpoint, or random numbers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lpmoe_bench.decoders import get_decoder
from lpmoe_bench.decoders._decoder import Decoder
from lpmoe_bench.errors import DataError
from lpmoe_bench.files import sha256_file
from lpmoe_bench.weights.checkpoint import check_checkpoint_path, read_checkpoint

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


def resolve_decoder_weights(decoder: str, file: str | None) -> DecoderWeights:
    """Find and hash the file named by --decoder-weights, if one is.

    Raises ZooError for an unknown decoder, UsageError for one without published weights or for
    another kind of file, DataError for a file that is missing.
    """
    kind = get_decoder(decoder)
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
