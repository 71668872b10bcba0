"""What every method promises: one `check_x(build, image)` a promise, no method named.

A check applies, or not, because of the class attributes of the method: one that does not returns
why. `image` is (2, 3, h, w) in [0, 1], not square, with both sides multiples of 32. What does not
hold is a BrokenPromise.
"""

from __future__ import annotations

import copy
import inspect
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

import torch
from torch import Tensor

from .. import options
from ..backbones.backbone import Tokens
from ..backbones.linear import Wrapped
from ..errors import ZooError
from ..method import Features, Method, Prefix
from .observe import (
    Build,
    assert_close,
    assert_equal,
    expect,
    forward,
    gradients,
    loss_of,
    moved,
    outputs,
    perturb,
    plain_outputs,
    pristine,
    trainables,
    unwrapped,
)

Check = Callable[[Build, Tensor], str | None]


@contextmanager
def _refused(what: str, words: str = "") -> Iterator[None]:
    """Require a ZooError that has these words."""
    try:
        yield
    except ZooError as error:
        expect(words in str(error), f"{what} is refused without the words '{words}': {error}")
        return
    expect(False, f"{what} is not refused by a ZooError")


def check_default_constructible(build: Build, image: Tensor) -> None:
    """It is built from a backbone alone; its options have defaults that JSON can hold."""
    method = build()
    parameters = list(inspect.signature(build.method.__init__).parameters.values())[1:]
    expect(parameters[0].name == "backbone", "the first parameter must be called backbone")
    for parameter in parameters[1:]:
        plain = parameter.kind is parameter.POSITIONAL_OR_KEYWORD
        expect(plain, f"{parameter} is no plain option")
        expect(parameter.default is not parameter.empty, f"{parameter.name} has no default")
    found = options.signature_options(build.method)
    try:
        same = json.loads(json.dumps(found)) == found
    except (TypeError, ValueError):
        same = False
    expect(same, f"options must survive a JSON file: {found}")
    expect(method.title, "title is empty")
    expect(method.fidelity, "fidelity is empty")
    preset = method.preset
    expect(preset.get("lr", 0) > 0, f"preset is {preset}; it needs lr, a learning rate above 0")


def check_shapes(build: Build, image: Tensor) -> None:
    """Maps have the channels and strides that it says, from shallow to deep."""
    method = build().eval()
    side = min(image.shape[-2:])
    fixed = build.frozen.fixed_grid is not None
    for sample in [image] if fixed else [image, image[:, :, :side, :side]]:
        batch, _, height, width = sample.shape
        with torch.no_grad():
            features = forward(method, sample)
        expected = [
            (batch, channels, height // stride, width // stride)
            for channels, stride in zip(method.channels, method.strides, strict=True)
        ]
        got = [tuple(m.shape) for m in features.maps]
        expect(got == expected, f"maps are {got}; channels and strides say {expected}")
        grid = (height // build.frozen.strides[-1], width // build.frozen.strides[-1])
        final, wanted = tuple(features.final.shape), (batch, build.frozen.neck_channels, *grid)
        expect(final == wanted, f"final is {final}; it must be {wanted}")
        aux = features.aux
        scalar = aux.shape == () and aux.dtype is torch.float32
        expect(scalar, f"aux is {tuple(aux.shape)} {aux.dtype}; it must be a float32 scalar")
    expect(
        method.strides == sorted(method.strides),
        f"maps go from shallow to deep, but strides are {method.strides}",
    )


def check_identity_at_init(build: Build, image: Tensor) -> str | None:
    """Untrained it gives the features of the frozen backbone, bit by bit."""
    if not build.method.identity_at_init:
        return "it says identity_at_init = False"
    # What the decoder reads; a balance loss may well be there from the start.
    *expected, _ = plain_outputs(build.frozen, image)
    *got, _ = outputs(build(), image)
    assert_equal(got, expected, "untrained, against the frozen backbone")
    return None


def check_gradient_reaches_all(build: Build, image: Tensor) -> None:
    """Every trainable tensor gets a gradient, from its start and after a perturbation."""
    excused = build.method.without_gradient
    names = list(trainables(build()))
    for fragment, reason in excused.items():
        expect(reason, f"{fragment} is excused without a reason")
        expect(any(fragment in n for n in names), f"{fragment} is excused and does not exist")
    required = {n for n in names if not any(fragment in n for fragment in excused)}
    # In eval mode, because stochastic depth may drop the one path to a tensor.
    idle = required - moved(perturb(build()).eval(), image, steps=1)
    expect(not idle, f"no gradient after a perturbation: {sorted(idle)}")
    # From the real start too: two zero factors in a row would never leave zero.
    idle = required - moved(build().eval(), image, steps=4)
    expect(not idle, f"no gradient within four steps from the start: {sorted(idle)}")


def check_count(build: Build, image: Tensor) -> None:
    """It trains as many parameters as a formula that was derived by hand says."""
    count = build.count
    expect(count is not None, "no formula for the trainable parameters: derive one by hand")
    assert count is not None
    counted = sum(p.numel() for p in trainables(build()).values())
    derived = count(build.frozen)
    expect(counted == derived, f"{counted} parameters train; the formula says {derived}")


def check_state_round_trip(build: Build, image: Tensor) -> None:
    """Its state holds all that is not pristine, restores the outputs, and refuses another one."""
    trained, fresh = perturb(build()).train(), build(seed=1)
    with torch.no_grad():
        forward(trained, image)  # moves statistics such as BatchNorm's
    state = {name: t.clone() for name, t in trained.adapter_state().items()}
    surplus = sorted(state.keys() & pristine(build, trained).keys())
    expect(not surplus, f"the state carries frozen tensors: {surplus[:3]}")
    fresh.load_adapter_state(state)
    assert_equal(outputs(fresh, image), outputs(trained, image), "after loading its state")
    wrong = {"a state with a foreign tensor": state | {"foreign": torch.zeros(1)}}
    if state:
        name = sorted(state)[0]
        wrong["a state without a tensor"] = {n: t for n, t in state.items() if n != name}
        other = torch.zeros(*state[name].shape, 2)
        wrong["a state with a tensor of another shape"] = state | {name: other}
    untouched = build()
    before = {n: t.clone() for n, t in untouched.state_dict().items()}
    for what, bad in wrong.items():
        with _refused(what):
            untouched.load_adapter_state(bad)
    for name, tensor in untouched.state_dict().items():
        expect(torch.equal(tensor, before[name]), f"a refused state has changed {name}")


def check_deterministic(build: Build, image: Tensor) -> None:
    """Built from one seed it is the same, and what it gives does not depend on random numbers."""
    expected = outputs(build(), image)
    assert_equal(outputs(build(), image), expected, "built again from the same seed")
    assert_equal(outputs(build(), image, seed=1), expected, "at another state of the generator")


def check_batch_independence(build: Build, image: Tensor) -> None:
    """In eval mode an image's features do not depend on its neighbours in the batch."""
    method = perturb(build())
    together = outputs(copy.deepcopy(method), image)[:-1]
    alone = [outputs(copy.deepcopy(method), one[None])[:-1] for one in image]
    joined = [torch.cat(parts) for parts in zip(*alone, strict=True)]
    # Another batch size is another order of additions; a leak between neighbours is far larger.
    assert_close(together, joined, 1e-4, "in a batch, against alone")


def check_no_hidden_state(build: Build, image: Tensor) -> None:
    """In eval mode nothing stays of an image that it has seen."""
    method, other = perturb(build()), image.flip(0, 3)
    before = {name: t.clone() for name, t in method.state_dict().items()}
    first, _, again = (outputs(method, x) for x in (image, other, image))
    assert_equal(again, first, "after another image")
    for name, tensor in method.state_dict().items():
        expect(torch.equal(tensor, before[name]), f"a forward in eval mode has changed {name}")


def check_checkpointing(build: Build, image: Tensor) -> str | None:
    """With checkpointing gradients stay the same and fewer bytes are kept."""
    method = perturb(build())
    if not trainables(method):
        return "nothing trains"
    plain, plain_bytes = gradients(copy.deepcopy(method), image, checkpointing=False)
    saving, saving_bytes = gradients(method, image, checkpointing=True)
    odd = sorted(plain.keys() ^ saving.keys())
    expect(not odd, f"other tensors have a gradient with checkpointing: {odd[:3]}")
    assert_close(list(saving.values()), list(plain.values()), 1e-6, "with checkpointing")
    fewer = saving_bytes < plain_bytes
    expect(fewer, f"with checkpointing it keeps {saving_bytes} bytes of {plain_bytes}")
    return None


def check_merge_equivalence(build: Build, image: Tensor) -> None:
    """Merged into the backbone it gives the same features, or says why it cannot be merged."""
    method, image = perturb(build()).double(), image.double()
    if not method.mergeable:
        with _refused("merging, which it says it cannot,", method.title):
            method.merge()
        return
    expected = outputs(method, image)
    merged = method.merge()
    assert_close(plain_outputs(merged, image), expected, 1e-9, "merged, against the method")
    left = any(isinstance(m, Wrapped) for m in merged.modules())
    expect(not left, "a wrapped layer is left after merging")
    trains = any(p.requires_grad for p in merged.parameters())
    expect(not trains, "a merged backbone must be frozen")
    (fresh := copy.deepcopy(build.frozen).double()).load(merged.state())  # as a run reads a file
    assert_equal(plain_outputs(fresh, image), plain_outputs(merged, image), "merged and loaded")
    with _refused("merging twice", method.title):
        method.merge()


def check_compile(build: Build, image: Tensor) -> str | None:
    """torch.compile takes it as one graph, and it gives the same."""
    torch.compiler.reset()
    if reason := _why_nothing_compiles():
        return reason
    method = perturb(build()).eval()
    expected = outputs(copy.deepcopy(method), image)
    with torch.no_grad():
        features = torch.compile(method, backend="aot_eager", fullgraph=True)(image)
    assert_close([*features.maps, features.final, features.aux], expected, 1e-5, "compiled")
    return None


@cache
def _why_nothing_compiles() -> str:
    """Say why this torch compiles no method at all; empty where it does. Torch 2.6 does not."""
    from torch._dynamo.exc import Unsupported  # seconds, which other checks need not wait for

    zero = torch.zeros(())
    tokens = Tokens(zero, prefix=0, grid=(0, 0), rope=None, aux=zero)
    try:
        torch.compile(_replace_aux, backend="eager", fullgraph=True)(tokens)
    except Unsupported:
        return (
            f"torch {torch.__version__} does not compile the _replace of a named tuple, by which "
            f"every block hands its tokens on"
        )
    return ""


def _replace_aux(tokens: Tokens) -> Tokens:
    return tokens._replace(aux=tokens.aux + 1)


def check_amp(build: Build, image: Tensor) -> None:
    """Under bfloat16 all is finite, and parameters stay float32."""
    method = build().train()
    parameters = trainables(method)
    with torch.autocast("cpu", torch.bfloat16):
        features = forward(method, image)
    for tensor in [*features.maps, features.final, features.aux]:
        expect(bool(tensor.isfinite().all()), "features are not finite in bfloat16")
    if parameters:
        loss_of(features).backward()
    for name, parameter in parameters.items():
        expect(parameter.dtype is torch.float32, f"{name} is {parameter.dtype}")
        finite = parameter.grad is None or bool(parameter.grad.isfinite().all())
        expect(finite, f"the gradient of {name} is not finite in bfloat16")


def check_train_eval(build: Build, image: Tensor) -> None:
    """train() and eval() reach all of its own modules, and none that is frozen."""
    method = build().train()
    original = {f"backbone.{name}" for name, _ in build.frozen.named_modules() if name}
    modules = dict(method.named_modules())
    # A wrapped layer stands at the place of the frozen one, which is its base.
    frozen = {
        name
        for name, module in modules.items()
        if unwrapped(name) in original and not isinstance(module, Wrapped)
    }
    forward(method, image)
    for name, module in modules.items():
        if name == "backbone" or name in frozen:
            expect(not module.training, f"frozen {name} is in train mode")
        else:
            expect(module.training, f"{name or 'the method'} did not follow train()")
    method.eval()
    behind = [name for name, m in method.named_modules() if m.training]
    expect(not behind, f"eval() does not reach {behind[:3]}")


def check_errors(build: Build, image: Tensor) -> None:
    """What it cannot serve is refused: odd sizes, backbones without prompts, unknown options."""
    with _refused("an image whose height is no multiple of 32", "multiples of 32"):
        forward(build(), image[:, :, :-16])
    without_prompts = copy.deepcopy(build.frozen)
    without_prompts.accepts_prompts = False
    if build.method.needs_prompts:
        with _refused("a backbone without prompts", build.method.title):
            build.method(without_prompts)
    else:
        build.method(without_prompts)
    with _refused("an option that there is not", "no_such_option"):
        options.check_options(build.method, build.method.title, {"no_such_option": 1})


def check_frozen_stays_frozen(build: Build, image: Tensor) -> None:
    """A training step changes nothing that is not the method's."""
    method = build().train()
    before = {name: t.detach().clone() for name, t in pristine(build, method).items()}
    parameters = list(method.parameters())
    loss = loss_of(forward(method, image))
    if loss.requires_grad:
        loss.backward()
        torch.optim.AdamW(parameters, lr=0.1, weight_decay=0.1).step()
    after = method.state_dict(keep_vars=True)
    for name, tensor in before.items():
        expect(after[name].grad is None, f"frozen {name} has a gradient")
        expect(torch.equal(after[name], tensor), f"frozen {name} has changed")


def check_frozen_blocks(build: Build, image: Tensor) -> str | None:
    """What `prefix` returns can be computed once: it is all that `finish` needs, for ever."""
    method = build()
    count, depth = method.frozen_blocks, build.frozen.depth
    expect(0 <= count <= depth, f"frozen_blocks is {count}; it must be 0 to {depth}")
    if not count:
        return "it says frozen_blocks = 0"
    first = _states(_prefix(method, image))
    shapes = {x.shape[-1]: x.shape for x in first}  # by width: stages differ in theirs
    alike = all(x.shape == shapes[x.shape[-1]] for x in first)
    expect(alike, "states of the prefix differ in shape")
    kept = any(x.requires_grad for x in first)
    expect(not kept, "the prefix keeps a graph for the backward pass")
    aux = _prefix(method, image).tokens.aux
    expect(not aux.any(), "the prefix has an auxiliary loss")
    assert_equal(_states(_prefix(build(seed=1), image)), first, "the prefix at another seed")
    trained = _train_a_step(perturb(method), image)
    prefix = _prefix(trained, image)
    assert_equal(_states(prefix), first, "the prefix after training")
    with torch.no_grad():
        again = _all_of(trained.eval().finish(prefix))
    assert_equal(again, outputs(trained, image), "finish(prefix(image)), against forward(image)")
    return None


def _prefix(method: Method, image: Tensor) -> Prefix:
    """The prefix in train mode, where a method may behave in another way."""
    return method.train().prefix(image)


def _states(prefix: Prefix) -> list[Tensor]:
    return [t.x for t in (prefix.tokens, *prefix.taps)]


def _all_of(features: Features) -> list[Tensor]:
    return [*features.maps, features.final, features.aux]


def _train_a_step(method: Method, image: Tensor) -> Method:
    loss, parameters = loss_of(forward(method.train(), image)), list(trainables(method).values())
    if parameters:
        loss.backward()
        torch.optim.AdamW(parameters, lr=0.1).step()
    return method


CHECKS: dict[str, Check] = {
    name.removeprefix("check_"): check
    for name, check in list(globals().items())
    if name.startswith("check_")
}
