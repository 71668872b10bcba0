"""Mask R-CNN: Faster R-CNN with a mask for each box; instances.

He et al., ICCV 2017, arXiv 1703.06870, of torchvision's parts; see `regions`.
"""

from lpmoe_bench.model.decoders.regions import RegionHead


class MaskRCNN(RegionHead):
    title = "Mask R-CNN"
    paper = "arXiv 1703.06870"
    kinds = ("instance",)
    losses = {"instance": "own"}
    masked = True
    fidelity = (
        "torchvision's parts at a quarter of their width (pyramid 64, layers 256), with 128 "
        "regions where the paper samples 512, group norms in the pyramid, strides 4 to 32"
    )
