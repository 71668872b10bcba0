"""What is unusual about an image, as a sentence for each flag of its row."""

from __future__ import annotations

FLAGS = {
    "empty_mask": "its mask is empty",
    "full_mask": "its mask is object throughout",
    "constant_pred": (
        "its map is constant: at an adaptive threshold a map of zeros is object throughout"
    ),
    "s_undefined": (
        "its object's centroid lies on the last row or column: the S-measure leaves out the empty "
        "quadrants, where PySODMetrics is NaN"
    ),
    "s_unstable": (
        "a quadrant is constant in map and mask: it counts 1 in the S-measure, "
        "where PySODMetrics rounds to 0"
    ),
    "single_pixel": (
        "it has one pixel: its E-measure is divided by 1, where PySODMetrics divides by 2.2e-16"
    ),
}
