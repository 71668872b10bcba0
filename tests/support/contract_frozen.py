"""What every method promises of the frozen: it stays as it is, and so does what it computes."""

from __future__ import annotations

import torch
from observe import Build, assert_equal, loss_of, outputs, perturb, pristine, run, trainables
from torch import Tensor

from method_zoo.method import Features, Method, Prefix


def check_frozen_stays_frozen(build: Build, image: Tensor) -> None:
    method = build().train()
    before = {name: t.detach().clone() for name, t in pristine(build, method).items()}
    parameters = list(method.parameters())
    loss = loss_of(run(method, image))
    if loss.requires_grad:
        loss.backward()
        torch.optim.AdamW(parameters, lr=0.1, weight_decay=0.1).step()
    after = method.state_dict(keep_vars=True)
    for name, tensor in before.items():
        assert after[name].grad is None, f"frozen {name} has a gradient"
        assert torch.equal(after[name], tensor), f"frozen {name} has changed"


def check_frozen_blocks(build: Build, image: Tensor) -> None:
    """What `prefix` returns can be computed once: it is all that `finish` needs, for ever."""
    method = build()
    assert 0 <= method.frozen_blocks <= build.frozen.depth
    if not method.frozen_blocks:
        return
    first = states(prefix_of(method, image))
    shape = first[0].shape
    assert all(x.shape == shape for x in first), "states of the prefix differ in shape"
    assert not any(x.requires_grad for x in first), "the prefix keeps a graph for the backward pass"
    assert not prefix_of(method, image).tokens.aux.any(), "the prefix has an auxiliary loss"
    assert_equal(states(prefix_of(build(seed=1), image)), first, "the prefix at another seed")
    trained = train_a_step(perturb(method), image)
    prefix = prefix_of(trained, image)
    assert_equal(states(prefix), first, "the prefix after training")
    with torch.no_grad():
        again = all_of(trained.eval().finish(prefix))
    assert_equal(again, outputs(trained, image), "finish(prefix(image)), against forward(image)")


def prefix_of(method: Method, image: Tensor) -> Prefix:
    """The prefix in train mode, where a method may behave in another way."""
    return method.train().prefix(image)


def states(prefix: Prefix) -> list[Tensor]:
    return [t.x for t in (prefix.tokens, *prefix.taps)]


def all_of(features: Features) -> list[Tensor]:
    return [*features.maps, features.final, features.aux]


def train_a_step(method: Method, image: Tensor) -> Method:
    loss, parameters = loss_of(run(method.train(), image)), list(trainables(method).values())
    if parameters:
        loss.backward()
        torch.optim.AdamW(parameters, lr=0.1).step()
    return method
