"""Trainable parameters on the ViTs of the literature, as printed in the specification's table."""

import pytest
import torch

from method_zoo import create_backbone, get_method

BACKBONES = (
    "vit_tiny_patch16_224",
    "vit_small_patch16_224",
    "vit_base_patch16_224",
    "samvit_base_patch16",
    "samvit_large_patch16",
    "samvit_huge_patch16",
)
# Method, options that differ from the defaults, trainable parameters on the plain and the SAM ViTs.
TABLE = [
    ("lora", {"rank": 3}, (27_648, 55_296, 110_592, 110_592, 294_912, 491_520)),
    ("conv_lora", {}, (36_288, 63_936, 119_232, 119_232, 312_192, 514_560)),
    ("dora", {"rank": 3}, (34_560, 69_120, 138_240, 138_240, 368_640, 614_400)),
    ("vera", {}, (9_984, 16_896, 30_720, 30_720, 79_872, 131_072)),
    ("bitfit", {}, (25_728, 51_456, 102_912, 102_656, 271_872, 452_352)),
    ("adapter", {}, (23_088, 46_128, 92_208, 92_208, 245_856, 409_728)),
    ("adaptformer", {}, (297_984, 595_200, 1_189_632, 1_189_632, 3_171_840, 5_285_888)),
    ("vpt", {}, (27_648, 55_296, 110_592, 110_592, 294_912, 491_520)),
    ("ssf", {}, (51_456, 102_912, 205_824, 204_288, 542_720, 903_680)),
    ("sam_adapter", {}, (15_912, 44_496, 139_680, 139_680, 281_216, 475_040)),
    ("sam_adapter", {"scale": 32}, (7_620, 20_712, 63_312, 63_312, 116_544, 186_960)),
    ("mona", {}, (846_336, 1_459_200, 2_684_928, 2_684_928, 7_004_160, 11_517_952)),
    ("convpass", {}, (92_544, 170_880, 327_552, 327_552, 864_000, 1_430_528)),
    ("rep_adapter", {}, (60_096, 120_000, 239_808, 239_808, 639_360, 1_065_472)),
    ("fact", {}, (43_008, 49_152, 61_440, 61_440, 106_496, 139_264)),
    ("lst", {}, (151_764, 598_428, 2_376_492, 2_376_492, 8_170_904, 16_867_072)),
    ("full", {}, (5_524_416, 21_665_664, 85_798_656, 89_670_912, 308_278_272, 637_026_048)),
]


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize(
    ("method", "options", "counts"), TABLE, ids=["-".join([r[0], *map(str, r[1])]) for r in TABLE]
)
def test_count(method, options, counts, name):
    with torch.device("meta"):  # no weight is drawn, and none takes memory
        adapted = get_method(method)(create_backbone(name), **options)
    count = sum(p.numel() for p in adapted.trainable().values())
    assert count == counts[BACKBONES.index(name)]
