"""Costs."""

import json
from pathlib import Path

import pytest
import torch
from conftest import FAMILIES
from torch import nn
from typer.testing import CliRunner

from lpmoe_bench.cli.app import app
from lpmoe_bench.errors import UsageError
from lpmoe_bench.model import costs
from lpmoe_bench.model.costs import budget_page, budgets, check_counter, count_flops
from method_zoo.backbones.create import create_backbone
from method_zoo.options import get_method, list_methods

WIDTH, DEPTH, GRID = 48, 4, 4
TOKENS = GRID**2 + 1
PATCHES = 2 * GRID**2 * (3 * 16 * 16) * WIDTH
# In a block 12 widths squared for each token, and attention's two products over all pairs.
BLOCK = 2 * TOKENS * 12 * WIDTH**2 + 2 * 2 * TOKENS**2 * WIDTH


class Bare(nn.Module):
    """A method without a decoder."""

    def __init__(self, name: str, **options):
        super().__init__()
        timm_name, size = FAMILIES["plain"]
        with torch.device("meta"):
            self.method = get_method(name)(create_backbone(timm_name, **size), **options)

    def countable(self, features, sides):
        return torch.cat([m.flatten(1) for m in features.maps], dim=1)


def test_a_model_beyond_counting_is_refused():
    with pytest.raises(UsageError, match="choose smaller options"):
        count_flops(Bare("vpt", prompts=10**12), (64, 64))


def test_full_tuning_by_hand():
    counted = count_flops(Bare("full"), (64, 64))
    assert counted.forward == PATCHES + DEPTH * BLOCK
    # Backward each product once more for the weights and once for what enters; not for the image.
    assert counted.training == 3 * counted.forward - PATCHES
    assert counted.uncounted == ()


def test_a_frozen_weight_has_no_gradient_to_count():
    rank = 2
    added = DEPTH * 2 * TOKENS * rank * (WIDTH + 3 * WIDTH)
    counted = count_flops(Bare("lora", rank=rank), (64, 64))
    assert counted.forward == PATCHES + DEPTH * BLOCK + added
    # Through all blocks but into the first: its qkv has no input that trains. Attention has no
    # weights: two products in, four back.
    attention = 2 * 2 * TOKENS**2 * WIDTH
    frozen = DEPTH * (BLOCK + attention) - 2 * TOKENS * 3 * WIDTH**2
    trained = 2 * added - 2 * TOKENS * rank * WIDTH
    assert counted.training == counted.forward + frozen + trained


def test_conv_lora_counts_the_mean_of_its_experts():
    rank, n = 3, GRID**2
    taps = 9 * rank**2
    first = 2 * n * taps
    double = 2 * GRID
    up = 2 * rank * (double * GRID * GRID + double * GRID * double)
    down = 2 * rank * (GRID * double * double + GRID * double * GRID)
    second = up + 2 * 4 * n * taps + down
    mean = DEPTH * (first + second) / 2
    lora = count_flops(Bare("lora", rank=rank), (64, 64)).forward
    assert count_flops(Bare("conv_lora", rank=rank, experts=2), (64, 64)).forward == lora + mean


@pytest.mark.parametrize("name", [n for n in list_methods() if not get_method(n).made_for])
def test_every_method_is_counted_without_values(name):
    model = Bare(name).eval()
    if not list(model.method.trainable()):
        with torch.device("meta"):  # autograd wants something that trains
            model.method.register_parameter("unused", nn.Parameter(torch.zeros(())))
        countable = model.countable
        model.countable = lambda *given: countable(*given) + model.method.unused
    counted = count_flops(model, (64, 64))
    assert counted.training > counted.forward >= PATCHES + DEPTH * BLOCK or name in (
        "decoder_only",
        "linear_probe",
    )
    assert not model.training
    assert all(p.grad is None for p in model.parameters())
    said = dict.fromkeys(("lpmoe", "vit_adapter", "vit_comer", "vit_split"), "grid_sample")
    said = (said | dict.fromkeys(("sam_adapter", "earth_adapter"), "Fourier")).get(name)
    assert bool(counted.uncounted) == (said is not None)
    assert said is None or said in counted.uncounted[0]


def test_a_counter_that_is_wrong_is_not_used(monkeypatch):
    check_counter()
    monkeypatch.setattr(costs, "_convolution_backward", lambda *a, **k: 0)
    with pytest.raises(UsageError, match=r"counts .* for a convolution") as caught:
        check_counter()
    assert "\n" not in str(caught.value)


# The budget table: every count to the parameter, the printed figures, the page in docs.


ROOT = Path(__file__).parents[2]
# Encoder and decoder on SAM ViT-H: ours, and how far the printed millions are from them.
SAM_HUGE = {
    "decoder_only": (3_505_536, "0"),
    "bitfit": (3_957_888, "0"),
    "adapter": (3_915_264, "0"),
    "vpt": (3_997_056, "0"),
    "sam_adapter": (3_980_576, "0"),
    "lora": (3_997_056, "0"),
    "conv_lora": (4_020_096, "0"),
    "ssf": (4_409_216, "-0.01"),
    "lst": (3_505_536 + 16_867_072, "+8.88"),
}
OTHERS = {
    "adaroute": [5_242_992, 7_302_384, 6_456_000, 9_156_096],
    "vfm_adapter": [2_518_848],
    "lpmoe": [21_966_356, 23_360_023, 12_459_316, 3_267_556, 952_636],
}
# Method, options; on SAM-H, SAM-L, SAM-B, ViT-Ti, ViT-S, ViT-B, as in the specification's table.
BUDGETS = {
    ("lora", 3): (491_520, 294_912, 110_592, 27_648, 55_296, 110_592),
    ("conv_lora", None): (514_560, 312_192, 119_232, 36_288, 63_936, 119_232),
    ("dora", 3): (614_400, 368_640, 138_240, 34_560, 69_120, 138_240),
    ("vera", None): (131_072, 79_872, 30_720, 9_984, 16_896, 30_720),
    ("bitfit", None): (452_352, 271_872, 102_656, 25_728, 51_456, 102_912),
    ("adapter", None): (409_728, 245_856, 92_208, 23_088, 46_128, 92_208),
    ("adaptformer", None): (5_285_888, 3_171_840, 1_189_632, 297_984, 595_200, 1_189_632),
    ("vpt", None): (491_520, 294_912, 110_592, 27_648, 55_296, 110_592),
    ("ssf", None): (903_680, 542_720, 204_288, 51_456, 102_912, 205_824),
    ("sam_adapter", None): (475_040, 281_216, 139_680, 15_912, 44_496, 139_680),
    ("sam_adapter", 32): (186_960, 116_544, 63_312, 7_620, 20_712, 63_312),
    ("mona", None): (11_517_952, 7_004_160, 2_684_928, 846_336, 1_459_200, 2_684_928),
    ("convpass", None): (1_430_528, 864_000, 327_552, 92_544, 170_880, 327_552),
    ("rep_adapter", None): (1_065_472, 639_360, 239_808, 60_096, 120_000, 239_808),
    ("fact", None): (139_264, 106_496, 61_440, 43_008, 49_152, 61_440),
    ("lst", None): (16_867_072, 8_170_904, 2_376_492, 151_764, 598_428, 2_376_492),
    ("ln_tune", None): (164_864, 99_328, 37_888, 9_600, 19_200, 38_400),
    ("late_lora", None): (655_360, 393_216, 147_456, 36_864, 73_728, 147_456),
    ("partial", None): (19_697_760, 12_612_480, 7_104_128, 445_248, 1_775_232, 7_089_408),
    ("adaroute", None): (13_215_456, 8_058_216, 3_098_340, 304_740, 551_268, 3_098_340),
    ("vfm_adapter", None): (10_879_040, 6_583_872, 2_518_848, 735_552, 1_329_984, 2_518_848),
    ("sigma", None): (10_660_896, 5_175_432, 1_482_876, 101_076, 354_180, 1_482_876),
    ("lorand", None): (8_019_968, 4_816_896, 1_809_408, 461_568, 910_848, 1_809_408),
    ("rein", None): (3_985_921, 2_530_817, 1_347_841, 130_177, 388_609, 1_347_841),
    ("snell", None): (23_592_960, 14_155_776, 5_308_416, 1_327_104, 2_654_208, 5_308_416),
    ("earth_adapter", None): (3_174_377, 2_007_009, 906_069, 226_965, 453_333, 906_069),
    ("colin", None): (5_111_808, 3_133_440, 1_216_512, 428_544, 691_200, 1_216_512),
    ("vit_adapter", None): (34_356_800, 23_236_800, 13_680_608, 2_438_192, 5_830_160, 13_680_608),
    ("vit_comer", None): (63_806_016, 42_864_704, 24_788_864, 5_090_912, 9_606_752, 24_788_864),
    ("vit_split", None): (98_800_196, 63_311_524, 35_692_964, 2_281_956, 8_987_556, 35_669_796),
    ("full", None): (637_026_048, 308_278_272, 89_670_912, 5_524_416, 21_665_664, 85_798_656),
}


@pytest.fixture(scope="module")
def counted():
    return budgets()


def rows(counted, name: str) -> list[dict]:
    return next(table["rows"] for table in counted["tables"] if table["name"] == name)


def test_sam_huge_with_its_decoder(counted):
    found = {r["method"]: (r["ours"], r["difference"]) for r in rows(counted, "sam_huge")}
    assert found == SAM_HUGE
    share = {row["method"]: round(row["share_percent"], 3) for row in rows(counted, "sam_huge")}
    assert (share["decoder_only"], share["bitfit"], share["conv_lora"]) == (0.547, 0.617, 0.627)


@pytest.mark.parametrize("name", OTHERS)
def test_the_other_tables(counted, name):
    found = rows(counted, name)
    assert [row["ours"] for row in found] == OTHERS[name]
    assert {row["difference"] for row in found} <= {"0", None}


def test_methods_on_the_encoders(counted):
    grid = counted["grid"]
    found = {}
    for row in grid["rows"]:
        option = next(iter(row.get("options", {}).values()), None)
        found[row["method"], option] = tuple(row["ours"].values())
    assert found == BUDGETS
    assert [figure["difference"] for figure in grid["printed"]] == ["0"]


def test_the_budgets_as_json_are_all_that_was_counted(counted):
    assert json.loads(budget_page(counted, "json")) == counted


@pytest.mark.parametrize(
    ("ours", "printed", "difference"),
    [(4_409_216, "4.42", "-0.01"), (3_996_000, "4.00", "0"), (6_455_000, "6.5", "0")],
)
def test_differences_round_as_the_source_rounds(ours, printed, difference):
    assert costs._difference(ours, printed) == difference


def test_options_reach_the_model():
    row = {"method": "lora", "backbone": "vit_tiny_patch16_224", "options": {"rank": 1}}
    assert costs.count_trainable(row) == 12 * 4 * 192


def test_a_format_that_is_none():
    result = CliRunner().invoke(app, ["profile", "--budget-table", "--format", "latex"])
    assert "markdown or json" in str(result.exception)
