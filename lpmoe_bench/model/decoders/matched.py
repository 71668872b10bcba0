"""What decoders with queries share: scores of classes from queries, and the matching loss."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lpmoe_bench.config.settings import MATCHING, check_loss
from lpmoe_bench.errors import UsageError
from lpmoe_bench.model.decoders.decoder import Decoder, Examined, Head
from lpmoe_bench.model.matching import PAPER, PartWeights, matching_loss, truth_of_labels
from method_zoo.method import Features
from method_zoo.parts.deformable import full_precision, precise

SMALLEST = 1e-6  # added to a score before its logarithm


def query_scores(labels: Tensor, masks: Tensor) -> Tensor:
    """Return S_c = sum over queries q of p(q, c) m(q), (B, K, H, W), in single precision.

    Args:
        labels: logits of the classes and of "nothing", the last, (B, Q, K + 1).
        masks: logits of the masks, (B, Q, H, W).
    """
    shares = precise(labels).softmax(-1)[..., :-1]
    with full_precision(masks):
        return torch.einsum("bqc,bqhw->bchw", shares, precise(masks).sigmoid())


class MatchedDecoder(Decoder):
    """A decoder whose queries have a label and a mask each, and that the matching loss can train.

    points: at which masks are compared. weights: of the parts of the loss. With another loss its
    logits are trained, as those of any decoder.
    """

    classes: int
    losses = {"semantic": "matching"}  # plainly, for it is read from here without an import
    points: int = 12_544
    weights: PartWeights = PAPER

    def queries_of(self, features: Features) -> tuple[Tensor, Tensor]:
        """Return logits of the labels, (D * B, Q, K + 1), and of the masks, (D * B, Q, H, W); in
        training of D outputs, one after the other along the batch."""
        raise NotImplementedError

    def matched(self, features: Features, size: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return what the matching loss takes: labels, and masks at whatever size they are held
        against the truth of the images, whose (h, w) is given."""
        return self.queries_of(features)

    def refuse_for_one(self, classes: int, **options: Any) -> None:
        """Refuse options of the matching loss where there is one class, which has no such loss."""
        for name, value in options.items():
            if classes == 1 and value != self.later_options[name]:
                raise UsageError(
                    f"option {name} of decoder {self.title} is for tasks of several classes, but "
                    f"this one has a mask alone; leave it out"
                )

    def train_with(
        self, loss: str, kind: str = "binary", class_weights: Sequence[float] | None = None
    ) -> None:
        check_loss(loss, kind)
        if loss != MATCHING:
            super().train_with(loss, kind, class_weights)
        elif self.classes == 1:
            raise UsageError(
                f"loss {MATCHING} tells classes apart, but this task has one; use a task of two or "
                f"more, or another loss"
            )
        elif class_weights is not None:
            raise UsageError(
                f"train.class_weights are not for loss {MATCHING}; use cross_entropy, ce_dice or "
                f"focal, or leave them out"
            )
        else:
            self.criterion = None

    @classmethod
    def depends_on_batch(cls, loss: str, options: Mapping[str, Any]) -> str:
        return "divides by how many masks a batch holds" if loss == MATCHING else ""

    def loss(self, features: Features, targets: Any, size: Sequence[int]) -> Tensor:
        if self.criterion is not None:
            return super().loss(features, targets, size)
        truth = truth_of_labels(targets)
        return matching_loss(*self.matched(features, size), truth, self.points, self.weights)

    def examine(self, features: Features, targets: Any, size: Sequence[int]) -> Examined:
        if self.criterion is not None:
            return super().examine(features, targets, size)
        return Head.examine(self, features, targets, size)
