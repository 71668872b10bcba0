"""Adapter behind a branch and AdaptFormer beside one: a whole block worked on paper."""

import pytest
from hand_backbone import assert_values, fill, gelu, grey, hand_backbone, patch_of

from method_zoo.options import get_method


@pytest.fixture
def backbone():
    """Block 2 adds (1, 2) behind its attention and (0, -1) behind its MLP."""
    made = hand_backbone()
    fill(made.vit.blocks[2].attn.proj.bias, (1, 2))
    fill(made.vit.blocks[2].mlp.fc2.bias, (0, -1))
    return made


def test_adapter_by_hand(backbone):
    method = get_method("adapter")(backbone, bottleneck=1)
    first, second = method.after_attention[2], method.after_mlp[2]
    fill(first.down.weight, [[1, 0]])
    fill(first.up.weight, [[2], [0]])
    fill(first.up.bias, [0, 1])
    fill(second.down.weight, [[0, 1]])
    fill(second.up.weight, [[10], [0]])
    # o = (1, 2): Down 1, Up (2 GELU(1), 1); u = (3, 1) + o + that.
    # o = (0, -1): Down -1, Up (10 GELU(-1), 0).
    expected = (3 + 1 + 2 * 0.8413447 + 10 * -0.1586553, 1 + 2 + 1 - 1)
    assert gelu(1) == pytest.approx(0.8413447)
    assert_values(patch_of(method(grey(backbone))), expected)


def test_adaptformer_by_hand(backbone):
    method = get_method("adaptformer")(backbone, bottleneck=2).eval()
    fill(method.adapters[2].down.weight, [[1, -1], [-1, 1]])
    fill(method.adapters[2].down.bias, [0.5, 0])
    fill(method.adapters[2].up.weight, [[2, 9], [-4, 9]])
    fill(method.adapters[2].up.bias, [0, 1])
    # u = (3, 1) + (1, 2) = (4, 3); Down (1.5, -1), of which ReLU leaves (1.5, 0);
    # Up (3, -6 + 1); y = u + (0, -1) + 0.1 (3, -5).
    assert_values(patch_of(method(grey(backbone))), (4 + 0.3, 3 - 1 - 0.5))
