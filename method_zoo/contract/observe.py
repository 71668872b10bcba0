"""Builds a method again and again, and observes what it returns, trains and leaves frozen."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ..backbones.backbone import Backbone
from ..method import Features, Method, check_features_kind


class BrokenPromise(AssertionError):
    """What a method has promised does not hold; a sentence."""


def expect(holds: object, sentence: str) -> None:
    """Raise BrokenPromise with that sentence, also where Python leaves `assert` out."""
    if not holds:
        raise BrokenPromise(sentence)


@dataclass(frozen=True)
class Build:
    """Builds a method on the same frozen backbone again and again; `seed` draws its own weights.

    count: the hand-derived number of trainable parameters, None where nobody has derived it.
    options: other than the defaults.
    """

    method: type[Method]
    frozen: Backbone
    count: Callable[[Backbone], int] | None = None
    options: dict[str, object] = field(default_factory=dict)

    def __call__(self, seed: int = 0) -> Method:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.method(copy.deepcopy(self.frozen), **self.options)


def forward(method: Method, image: Tensor, seed: int = 0) -> Features:
    """Forward with the global generator at a known state, which stays as it was outside."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        features = method(image)
    check_features_kind(type(method), features)
    return features


def outputs(method: Method, image: Tensor, seed: int = 0) -> list[Tensor]:
    """Everything a method returns in eval mode: its maps, final and aux."""
    with torch.no_grad():
        features = forward(method.eval(), image, seed)
    return [*features.maps, features.final, features.aux]


def plain_outputs(backbone: Backbone, image: Tensor) -> list[Tensor]:
    """The same of a backbone without any method, by a loop of its own."""
    with torch.no_grad():
        t, maps = backbone.embed(image), []
        for g, group in enumerate(backbone.groups):
            t = backbone.merge(g, t) if g else t
            for i in group:
                t = backbone.block(i, t)
            maps.append(backbone.norm(t).map())
        return [*maps, backbone.neck(backbone.norm(t)), t.aux]


def loss_of(features: Features) -> Tensor:
    """A scalar that weighs every element of the maps differently, so that nothing cancels."""
    generator = torch.Generator().manual_seed(0)
    maps = [*features.maps, features.final]
    if features.queries is not None:
        maps.append(features.queries)
    terms = [(m * torch.randn(m.shape, generator=generator)).mean() for m in maps]
    return torch.stack(terms).sum() + features.aux


def trainables(method: Method) -> dict[str, nn.Parameter]:
    return {name: p for name, p in method.named_parameters() if p.requires_grad}


def perturb(method: Method) -> Method:
    """Move every trainable tensor off its start, where factors may be zero."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in trainables(method).values():
            parameter.add_(0.03 * torch.randn(parameter.shape, generator=generator))
    return method


def pristine(build: Build, method: Method) -> dict[str, Tensor]:
    """The tensors that the backbone had before the method and that do not train."""
    original = {f"backbone.{name}" for name in build.frozen.state_dict()}
    tensors = method.state_dict(keep_vars=True)
    return {n: t for n, t in tensors.items() if unwrapped(n) in original and not t.requires_grad}


def unwrapped(name: str) -> str:
    """The name a tensor or module had before it became the base of a wrapped layer."""
    return ".".join(part for part in name.split(".") if part != "base")


def assert_close(got: list[Tensor], expected: list[Tensor], tolerance: float, what: str) -> None:
    """Compare with a tolerance that is a share of each tensor's largest value."""
    expect(len(got) == len(expected), f"{what}: {len(got)} outputs in place of {len(expected)}")
    for k, (a, b) in enumerate(zip(got, expected, strict=True)):
        limit = tolerance * max(1.0, float(b.abs().max()))
        error = float((a - b).abs().max())
        sentence = f"{what}: output {k} is {error:.1e} off, {limit:.1e} is allowed"
        expect(error <= limit, sentence)


def assert_equal(got: list[Tensor], expected: list[Tensor], what: str) -> None:
    expect(len(got) == len(expected), f"{what}: {len(got)} outputs in place of {len(expected)}")
    for k, (a, b) in enumerate(zip(got, expected, strict=True)):
        expect(torch.equal(a, b), f"{what}: output {k} differs")


def moved(method: Method, image: Tensor, steps: int) -> set[str]:
    """Train for some steps and return the names that had a non-zero gradient at least once."""
    found: set[str] = set()
    parameters = trainables(method)
    if not parameters:
        return found
    optimiser = torch.optim.Adam(parameters.values(), lr=1e-2)
    for _ in range(steps):
        optimiser.zero_grad()
        loss_of(forward(method, image)).backward()
        found |= {n for n, p in parameters.items() if p.grad is not None and bool(p.grad.any())}
        optimiser.step()
    return found


def gradients(method: Method, image: Tensor, checkpointing: bool) -> tuple[dict[str, Tensor], int]:
    """Return the gradients by name and the bytes kept for the backward pass, weights left out."""
    weights = {t.untyped_storage().data_ptr() for t in method.state_dict().values()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    method.train().checkpointing = checkpointing
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = loss_of(forward(method, image))
    loss.backward()
    found = {n: p.grad for n, p in trainables(method).items() if p.grad is not None}
    return found, sum(kept.values())
