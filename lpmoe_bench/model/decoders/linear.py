"""Linear: one 1 x 1 convolution on the final normed patch tokens; what a linear probe trains.

logits = W x + b at stride 16, for each patch by itself; the segmenter resizes them bilinearly to
the image. Without a batch norm before it, as in the probes of VPT (arXiv 2203.12119).
"""

from torch import Tensor, nn

from lpmoe_bench.model.decoders.decoder import Decoder, Inputs
from method_zoo.method import Features


class Linear(Decoder):
    """W starts as N(0, 0.01), b as zero. Of SAM it reads what follows the neck, 256 channels."""

    title = "Linear"
    reads = "final"

    def __init__(self, inputs: Inputs, classes: int):
        super().__init__()
        self.logits = nn.Conv2d(inputs.final, classes, 1)
        nn.init.normal_(self.logits.weight, std=0.01)
        nn.init.constant_(self.logits.get_parameter("bias"), 0)

    def forward(self, features: Features) -> Tensor:
        return self.logits(features.final)
