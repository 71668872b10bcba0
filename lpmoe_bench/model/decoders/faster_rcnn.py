"""Faster R-CNN: proposals on a pyramid, then a class and a box for each; boxes alone.

Ren et al., NeurIPS 2015, arXiv 1506.01497, of torchvision's parts; see `regions`.
"""

from lpmoe_bench.model.decoders.regions import RegionHead


class FasterRCNN(RegionHead):
    title = "Faster R-CNN"
    paper = "arXiv 1506.01497"
    kinds = ("detection",)
    losses = {"detection": "own"}
    fidelity = (
        "torchvision's parts at a quarter of their width (pyramid 64, layers 256), with 128 "
        "regions where the paper samples 256, group norms in the pyramid, strides 4 to 32"
    )
