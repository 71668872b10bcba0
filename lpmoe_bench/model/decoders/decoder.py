"""Head: what a kind of task trains and predicts with; Decoder: one that gives maps of logits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lpmoe_bench.config.settings import OWN, check_loss
from lpmoe_bench.errors import DataError, UsageError
from lpmoe_bench.files import sha256_file
from lpmoe_bench.model.losses import get_loss
from lpmoe_bench.model.weights.checkpoint import check_checkpoint_path, read_checkpoint
from method_zoo.errors import WrongOutputError
from method_zoo.method import Features, Method, is_of_others

NORMALISES = "normalises over the batch"


class Inputs(NamedTuple):
    """What a method will give: channels and strides of `Features.maps`, channels of `.final`, and
    (m, Q) of `.queries` where it has such."""

    channels: list[int]
    strides: list[int]
    final: int
    queries: tuple[int, int] | None = None

    @classmethod
    def of(cls, method: Method) -> Inputs:
        """Return what a method gives on its backbone."""
        final, queries = method.backbone.neck_channels, method.query_shape
        return cls(method.channels, method.strides, final, queries)


class Examined(NamedTuple):
    """Of each image of a batch: what its loss is computed from, and the loss."""

    outputs: list[Tensor]
    losses: list[Tensor]


class Head(nn.Module):
    """What reads a method's features, is trained with targets and predicts; it sees no image.

    A subclass is built from (inputs, classes) and keyword options, and reads only what `reads`
    names. What does not train, the head itself freezes; all of its tensors are saved, so a trained
    one needs no other file.
    """

    title: ClassVar[str]
    reads: ClassVar[str]  # "maps" or "final", of Features
    kinds: ClassVar[tuple[str, ...]]  # of tasks that it serves
    losses: ClassVar[Mapping[str, str]] = {}  # by kind, where it has one of its own by default
    paper: ClassVar[str] = ""
    fidelity: ClassVar[str] = "made for this benchmark"
    batch_statistics: ClassVar[bool] = False  # whether it normalises over the batch in training
    takes_queries: ClassVar[bool] = False  # of a method that has such, in the place of its own
    # Options that came when records existed, with the value that these mean: not hashed at that.
    later_options: ClassVar[Mapping[str, object]] = {}
    # Whose published weights `load_published` takes; empty where there are none.
    published: ClassVar[str] = ""
    # Beginnings of the names of frozen tensors that it keeps for the published file alone.
    unread: ClassVar[tuple[str, ...]] = ()
    # The size of the published model's part that this decoder stands for, before any cut.
    published_parameters: int = 0

    @classmethod
    def depends_on_batch(cls, loss: str, options: Mapping[str, Any]) -> str:
        """Say why the loss of an image depends on the others of its batch; empty where it does not.

        Such a head takes no micro-batches: they would be another training.

        Args:
            loss: its name.
            options: of the head; what is left out is as by default.
        """
        return NORMALISES if cls.batch_statistics else ""

    def train_with(
        self, loss: str, kind: str = "binary", class_weights: Sequence[float] | None = None
    ) -> None:
        """Take the loss of a run.

        Args:
            loss: its name.
            kind: of the task.
            class_weights: how much each class weighs; None where all weigh the same.

        Raises:
            UsageError: A loss that this head or this kind of task cannot have.
        """
        raise NotImplementedError

    def loss(self, features: Features, targets: Any, size: Sequence[int]) -> Tensor:
        """Return the loss of a batch, a scalar in single precision.

        Args:
            features: of the batch, without their auxiliary loss.
            targets: of the batch, as the kind's reader gives them.
            size: (h, w) of the images.
        """
        raise NotImplementedError

    def predict(self, features: Features, size: Sequence[int]) -> Any:
        """Return what the kind's outputs take, such as logits (B, K, h, w) at the images' size."""
        raise NotImplementedError

    def examine(self, features: Features, targets: Any, size: Sequence[int]) -> Examined:
        """Return what `loss` rests on, image by image: to find the one that breaks it."""
        outputs, losses = [], []
        for k in range(len(features.final)):
            one = features._replace(
                maps=[m[k : k + 1] for m in features.maps], final=features.final[k : k + 1]
            )
            outputs.append(one.final)
            losses.append(self.loss(one, targets[k : k + 1], size))
        return Examined(outputs, losses)

    def countable(self, features: Features, size: Sequence[int]) -> Tensor:
        """Compute, on shapes alone, what an image costs; the sum of the result is differentiable.

        What takes as many steps as there are objects, such as regions, stands here at a fixed
        number of them.
        """
        return self.predict(features, size)

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


class Decoder(Head):
    """Features to logits, (B, classes, H, W), at a stride of its own choice.

    In training it may give several outputs, one after the other along the batch; the loss is their
    mean.
    """

    kinds = ("binary", "semantic")
    criterion: Callable[[Tensor, Any], Tensor] | None = None
    classes: int = 1  # how many maps of logits it was built for

    def train_with(
        self, loss: str, kind: str = "binary", class_weights: Sequence[float] | None = None
    ) -> None:
        self.criterion = get_loss(loss, kind, class_weights)

    def forward(self, features: Features) -> Tensor:
        raise NotImplementedError

    def loss(self, features: Features, targets: Any, size: Sequence[int]) -> Tensor:
        """Return the criterion of the logits, computed in single precision."""
        assert self.criterion is not None, "train_with comes first"
        logits = self.predict(features, size)
        with torch.autocast(logits.device.type, enabled=False):
            return self.criterion(logits, targets)

    def examine(self, features: Features, targets: Any, size: Sequence[int]) -> Examined:
        assert self.criterion is not None, "train_with comes first"
        # Several outputs stand one after the other along the batch.
        by_image = self.predict(features, size).unflatten(0, (-1, len(features.final)))
        outputs = list(by_image.transpose(0, 1))
        # one: (D, K, h, w), all outputs of one image; its target serves all D of them.
        losses = [self.criterion(one, targets[k : k + 1]) for k, one in enumerate(outputs)]
        return Examined(outputs, losses)

    def predict(self, features: Features, size: Sequence[int]) -> Tensor:
        """Return logits (B, K, h, w), resized bilinearly to the images' size."""
        logits = self(features)
        if is_of_others(type(self)):
            self._check(logits, len(features.final))
        # Single precision from here: half has too few digits for the loss and for the threshold.
        return F.interpolate(logits.float(), tuple(size), mode="bilinear", align_corners=False)

    def _check(self, logits: object, batch: int) -> None:
        """Raise WrongOutputError where these are no logits of a batch."""
        if isinstance(logits, Tensor) and logits.ndim == 4 and len(logits):
            count, classes = logits.shape[:2]
            if classes == self.classes and count % batch == 0:  # several outputs in training
                return
        got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        sentence = f"gives logits {got}; they must be ({batch}, {self.classes}, H, W)"
        raise WrongOutputError(type(self), sentence)


class Detector(Head):
    """A head that finds objects and is trained with the loss that its paper defines it with.

    `loss` takes a list of `Target`, `predict` gives one of `Found`.
    """

    losses = {"detection": "own"}

    def train_with(
        self, loss: str, kind: str = "detection", class_weights: Sequence[float] | None = None
    ) -> None:
        check_loss(loss, kind)
        if loss != OWN:
            raise UsageError(
                f"decoder {self.title} is trained with loss {OWN}, but train.loss is {loss}; "
                f"leave train.loss out"
            )
        if class_weights is not None:
            raise UsageError(
                f"train.class_weights are not for loss {OWN} of decoder {self.title}; leave them "
                f"out"
            )

    @classmethod
    def depends_on_batch(cls, loss: str, options: Mapping[str, Any]) -> str:
        return "divides by how many boxes a batch is trained with"


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


def resolve_decoder_weights(kind: type[Head], file: str | None) -> DecoderWeights:
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


def load_decoder_weights(decoder: Head, weights: DecoderWeights) -> None:
    """Put the weights into a decoder; raises DataError where the file holds others."""
    if weights.path is None:
        return
    state = read_checkpoint(weights.path)
    try:
        decoder.load_published(state)
    except DataError as error:
        raise DataError(f"{weights.path} holds {error}") from None
