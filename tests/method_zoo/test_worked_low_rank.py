"""LoRA on the fused layer, and on queries and values alone, worked on paper."""

import pytest
from hand_backbone import assert_values, fill, hand_backbone
from torch import tensor

from method_zoo.errors import ZooError
from method_zoo.options import get_method

# W x = x to the queries, nothing to the keys, x to the values: (1, 2, 0, 0, 1, 2) for x = (1, 2).
W = [[1, 0], [0, 1], [0, 0], [0, 0], [1, 0], [0, 1]]
X = tensor([1.0, 2.0])


def layer(**options):
    method = get_method("lora")(hand_backbone(), **options)
    found = method.backbone.vit.blocks[3].attn.qkv
    fill(found.base.weight, W)
    return found


def assert_output(found, expected: list[float]) -> None:
    assert_values(found(X), expected)
    assert_values(found.fold()(X), expected)


def test_lora_by_hand():
    found = layer(rank=2, alpha=6.0)
    fill(found.a, [[2, 1], [0, 1]])
    fill(found.b, [[1, 0], [0, 1], [0, 0], [-1, 0], [2, 0], [0, 0]])
    # A x = (4, 2); B A x = (4, 2, 0, -4, 8, 0), times alpha / rank = 3.
    assert_output(found, [1 + 12, 2 + 6, 0, 0 - 12, 1 + 24, 2])


def test_lora_on_queries_and_values_by_hand():
    found = layer(rank=1, alpha=3.0, targets="qv")
    fill(found.a, [[2, 1], [1, -1]])
    fill(found.b, [[[1], [0]], [[0], [3]]])
    # Queries: A x = 4, B A x = (4, 0). Values: A x = -1, B A x = (0, -3). Times 3.
    assert_output(found, [1 + 12, 2, 0, 0, 1, 2 - 9])


def test_lora_names_its_targets():
    with pytest.raises(ZooError, match="targets is 'q'; choose qkv or qv"):
        layer(targets="q")
