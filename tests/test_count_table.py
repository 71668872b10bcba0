"""Trainable parameters on the ViTs of the literature, as printed in the specification's table."""

import pytest
import torch

from method_zoo import create_backbone, get_method

SIZES = ("tiny", "small", "base")
# Method, options that differ from the defaults, trainable parameters on the three sizes.
TABLE = [
    ("lora", {"rank": 3}, (27_648, 55_296, 110_592)),
    ("conv_lora", {}, (36_288, 63_936, 119_232)),
    ("dora", {"rank": 3}, (34_560, 69_120, 138_240)),
    ("vera", {}, (9_984, 16_896, 30_720)),
    ("bitfit", {}, (25_728, 51_456, 102_912)),
    ("adapter", {}, (23_088, 46_128, 92_208)),
    ("adaptformer", {}, (297_984, 595_200, 1_189_632)),
    ("vpt", {}, (27_648, 55_296, 110_592)),
    ("ssf", {}, (51_456, 102_912, 205_824)),
    ("sam_adapter", {}, (15_912, 44_496, 139_680)),
    ("sam_adapter", {"scale": 32}, (7_620, 20_712, 63_312)),
    ("mona", {}, (846_336, 1_459_200, 2_684_928)),
    ("convpass", {}, (92_544, 170_880, 327_552)),
    ("rep_adapter", {}, (60_096, 120_000, 239_808)),
    ("fact", {}, (43_008, 49_152, 61_440)),
    ("lst", {}, (151_764, 598_428, 2_376_492)),
    ("full", {}, (5_524_416, 21_665_664, 85_798_656)),
]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("name", "options", "counts"), TABLE, ids=["-".join([r[0], *map(str, r[1])]) for r in TABLE]
)
def test_count(name, options, counts, size):
    with torch.device("meta"):  # no weight is drawn, and none takes memory
        backbone = create_backbone(f"vit_{size}_patch16_224")
        method = get_method(name)(backbone, **options)
    count = sum(p.numel() for p in method.trainable().values())
    assert count == counts[SIZES.index(size)]
