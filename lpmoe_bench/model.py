"""Segmenter: a method and a decoder as one model from image to logits."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lpmoe_bench.decoders._decoder import Decoder
from method_zoo.errors import ZooError
from method_zoo.method import Features, Method

DECODER_PREFIX = "decoder."


class Segmenter(nn.Module):
    """Image in [0, 1], (B, 3, h, w), to logits at its size, (B, K, h, w), and a scalar aux loss.

    In training a decoder may give several outputs, one after the other along the batch.
    """

    def __init__(self, method: Method, decoder: Decoder):
        super().__init__()
        self.method = method
        self.decoder = decoder

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        return self.decode(self.method(image), image.shape[-2:])

    def decode(self, features: Features, shape: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Turn a method's features into logits of height and width `shape`, and the aux loss."""
        logits = self.decoder(features).float()
        logits = F.interpolate(logits, shape, mode="bilinear", align_corners=False)
        return logits, features.aux

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


def under(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors whose names start with a prefix, without it."""
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
