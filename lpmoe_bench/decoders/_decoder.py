"""Decoder: what all decoders share: what they read and how they are built."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from lpmoe_bench.errors import UsageError
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


def full_precision(x: Tensor) -> torch.autocast:
    """Return the context in which autocast leaves the numbers on the device of x as they are."""
    # The meta device, where only shapes are counted, knows no autocast: it stands for the CPU.
    return torch.autocast("cpu" if x.is_meta else x.device.type, enabled=False)
