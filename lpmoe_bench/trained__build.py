from __future__ import annotations

import torch

from lpmoe_bench.config.settings import RunConfig
from lpmoe_bench.decoder_weights import DecoderWeights, load_decoder_weights
from lpmoe_bench.decoders import build_decoder
from lpmoe_bench.model import Segmenter
from lpmoe_bench.weights import Weights, load_backbone
from method_zoo.options import get_method

CLASSES = 1  # binary masks; a task with more will say so


def build_segmenter(
    config: RunConfig, weights: Weights, decoder_weights: DecoderWeights | None = None
) -> Segmenter:
    """Build an untrained segmenter; the decoder starts alike whatever the method draws.

    Without `decoder_weights` the decoder is random: what is loaded next replaces all of it.
    """
    backbone = load_backbone(weights, config.size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        method = get_method(config.method)(backbone, **config.options)  # type: ignore[call-arg]
        torch.manual_seed(config.seed)
        decoder = build_decoder(config.decoder, method, CLASSES, config.decoder_options)
    load_decoder_weights(decoder, decoder_weights or DecoderWeights())
    method.checkpointing = config.runtime.checkpointing
    return Segmenter(method, decoder)
