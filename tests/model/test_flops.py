"""FLOPs: by hand for a whole model, for every method without values, and a check that can fail."""

import pytest
import torch
from conftest import FAMILIES
from torch import nn

from lpmoe_bench.errors import UsageError
from lpmoe_bench.model import costs
from lpmoe_bench.model.costs import check_counter, count_flops
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

    def forward(self, image):
        features = self.method(image)
        return torch.cat([m.flatten(1) for m in features.maps], dim=1), features.aux


def test_a_model_beyond_counting_is_refused():
    with pytest.raises(UsageError, match="choose smaller options"):
        count_flops(Bare("vpt", prompts=10**12), 64)


def test_full_tuning_by_hand():
    counted = count_flops(Bare("full"), 64)
    assert counted.forward == PATCHES + DEPTH * BLOCK
    # Backward each product once more for the weights and once for what enters; not for the image.
    assert counted.training == 3 * counted.forward - PATCHES
    assert counted.uncounted == ()


def test_a_frozen_weight_has_no_gradient_to_count():
    rank = 2
    added = DEPTH * 2 * TOKENS * rank * (WIDTH + 3 * WIDTH)
    counted = count_flops(Bare("lora", rank=rank), 64)
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
    lora = count_flops(Bare("lora", rank=rank), 64).forward
    assert count_flops(Bare("conv_lora", rank=rank, experts=2), 64).forward == lora + mean


@pytest.mark.parametrize("name", list_methods())
def test_every_method_is_counted_without_values(name):
    model = Bare(name).eval()
    if not list(model.method.trainable()):
        with torch.device("meta"):  # autograd wants something that trains
            model.method.register_parameter("unused", nn.Parameter(torch.zeros(())))
        model.register_forward_hook(lambda m, i, out: (out[0] + m.method.unused, out[1]))
    counted = count_flops(model, 64)
    assert counted.training > counted.forward >= PATCHES + DEPTH * BLOCK or name in (
        "decoder_only",
        "linear_probe",
    )
    assert not model.training
    assert all(p.grad is None for p in model.parameters())
    said = {"lpmoe": "grid_sample", "sam_adapter": "Fourier"}.get(name)
    assert bool(counted.uncounted) == (said is not None)
    assert said is None or said in counted.uncounted[0]


def test_a_counter_that_is_wrong_is_not_used(monkeypatch):
    check_counter()
    monkeypatch.setattr(costs, "_convolution_backward", lambda *a, **k: 0)
    with pytest.raises(UsageError, match=r"counts .* for a convolution") as caught:
        check_counter()
    assert "\n" not in str(caught.value)


def test_torch_alone_miscounts_groups():
    """Why there is a formula of our own; when this fails, it can go."""
    known = {name: numbers for name, _, *numbers in costs._known()}
    counter = torch.utils.flop_counter.FlopCounterMode(display=False)
    work = next(work for name, work, *_ in costs._known() if name == "grouped convolution")
    with counter:
        work().sum().backward()
    assert counter.get_total_flops() != known["grouped convolution"][1]
