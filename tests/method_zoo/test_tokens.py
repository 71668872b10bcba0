"""Tokens: every verb keeps the prefix in front and the patches in reading order."""

from __future__ import annotations

import torch
import torch.utils._pytree as pytree

from method_zoo.backbones.backbone import Tokens


def tokens() -> Tokens:
    """Two prefix tokens and a grid of 2 x 3, token n filled with n: (1, 8, 4)."""
    x = torch.arange(8.0).view(1, 8, 1).expand(1, 8, 4).clone()
    return Tokens(x, 2, (2, 3), None, torch.zeros(()))


def values(t: Tokens) -> list[float]:
    return t.x[0, :, 0].tolist()


def test_patches_and_map():
    t = tokens()
    assert t.patches[0, :, 0].tolist() == [2, 3, 4, 5, 6, 7]
    assert t.map().shape == (1, 4, 2, 3)
    assert t.map()[0, 0].tolist() == [[2, 3, 4], [5, 6, 7]]


def test_with_patches_keeps_the_prefix():
    t = tokens().with_patches(torch.full((1, 6, 4), 9.0))
    assert values(t) == [0, 1, 9, 9, 9, 9, 9, 9]


def test_insert_goes_behind_the_prefix_and_drop_takes_it_away():
    t = tokens().insert(torch.full((2, 4), 9.0))
    assert values(t) == [0, 1, 9, 9, 2, 3, 4, 5, 6, 7]
    assert (t.prefix, t.grid) == (4, (2, 3))
    assert torch.equal(t.patches, tokens().patches)
    back = t.drop(2)
    assert values(back) == values(tokens())
    assert back.prefix == 2


def test_insert_takes_one_prompt_per_image():
    t = tokens()._replace(x=tokens().x.repeat(2, 1, 1))
    prompts = torch.tensor([10.0, 20.0]).view(2, 1, 1).expand(2, 1, 4)
    inserted = t.insert(prompts)
    assert inserted.x[:, 2, 0].tolist() == [10, 20]


def test_insert_follows_the_precision_of_the_tokens():
    t = tokens()._replace(x=tokens().x.bfloat16())
    assert t.insert(torch.zeros(1, 4)).x.dtype is torch.bfloat16


def test_drop_takes_the_last_of_the_prefix():
    assert values(tokens().drop(1)) == [0, 2, 3, 4, 5, 6, 7]


def test_add_sums_tokens_and_auxiliary_loss():
    t = tokens()._replace(aux=torch.tensor(0.5))
    total = t.add(t._replace(aux=torch.tensor(0.25)))
    assert values(total) == [0, 2, 4, 6, 8, 10, 12, 14]
    assert float(total.aux) == 0.75


def test_no_verb_writes_to_its_tokens():
    t, before = tokens(), tokens().x
    for changed in (t.with_patches(t.patches + 1), t.insert(t.x[0]), t.drop(1), t.add(t)):
        changed.x.add_(1)
    assert torch.equal(t.x, before)


def test_tokens_are_a_pytree():
    leaves = pytree.tree_leaves(tokens())
    assert sum(isinstance(leaf, torch.Tensor) for leaf in leaves) == 2
