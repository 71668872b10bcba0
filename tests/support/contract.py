"""What every method promises: one `check_x(build, image)` a promise, no method named.

A check applies, or not, because of the class attributes of the method. `image` is (2, 3, h, w) in
[0, 1], not square, with both sides multiples of 32.
"""

import copy
import inspect
import json
import re

import pytest
import torch
from observe import (
    Build,
    assert_close,
    assert_equal,
    gradients,
    loss_of,
    moved,
    outputs,
    perturb,
    plain_outputs,
    pristine,
    run,
    trainables,
    unwrapped,
)
from torch import Tensor

from method_zoo.backbones.linear import Wrapped
from method_zoo.errors import ZooError
from method_zoo.method import Features, Method, Prefix
from method_zoo.options import check_options, signature_options


def check_default_constructible(build: Build, image: Tensor) -> None:
    method = build()
    parameters = list(inspect.signature(build.method.__init__).parameters.values())[1:]
    assert parameters[0].name == "backbone"
    for parameter in parameters[1:]:
        assert parameter.kind is parameter.POSITIONAL_OR_KEYWORD, f"{parameter} is no plain option"
        assert parameter.default is not parameter.empty, f"{parameter.name} has no default"
    options = signature_options(build.method)
    assert json.loads(json.dumps(options)) == options, "options must survive a JSON file"
    assert method.title
    assert method.fidelity
    assert method.preset["lr"] > 0


def check_shapes(build: Build, image: Tensor) -> None:
    method = build().eval()
    side = min(image.shape[-2:])
    fixed = build.frozen.fixed_grid is not None
    for sample in [image] if fixed else [image, image[:, :, :side, :side]]:
        batch, _, height, width = sample.shape
        with torch.no_grad():
            features = run(method, sample)
        expected = [
            (batch, channels, height // stride, width // stride)
            for channels, stride in zip(method.channels, method.strides, strict=True)
        ]
        assert [tuple(m.shape) for m in features.maps] == expected
        grid = (height // build.frozen.stride, width // build.frozen.stride)
        assert features.final.shape[0] == batch
        assert tuple(features.final.shape[2:]) == grid
        assert features.aux.shape == ()
        assert features.aux.dtype is torch.float32
    assert method.strides == sorted(method.strides), "maps go from shallow to deep"


def check_identity_at_init(build: Build, image: Tensor) -> None:
    if build.method.identity_at_init:
        # What the decoder reads; a balance loss may well be there from the start.
        *expected, _ = plain_outputs(build.frozen, image)
        *got, _ = outputs(build(), image)
        assert_equal(got, expected, "untrained, against the frozen backbone")


def check_gradient_reaches_all(build: Build, image: Tensor) -> None:
    excused = build.method.without_gradient
    names = list(trainables(build()))
    for fragment, reason in excused.items():
        assert reason, f"{fragment} is excused without a reason"
        assert any(fragment in n for n in names), f"{fragment} is excused and does not exist"
    required = {n for n in names if not any(fragment in n for fragment in excused)}
    # In eval mode, because stochastic depth may drop the one path to a tensor.
    idle = required - moved(perturb(build()).eval(), image, steps=1)
    assert not idle, f"no gradient after a perturbation: {sorted(idle)}"
    # From the real start too: two zero factors in a row would never leave zero.
    idle = required - moved(build().eval(), image, steps=4)
    assert not idle, f"no gradient within four steps from the start: {sorted(idle)}"


def check_count(build: Build, image: Tensor) -> None:
    assert build.count is not None, "no formula for the trainable parameters: add one to counts.py"
    counted = sum(p.numel() for p in trainables(build()).values())
    assert counted == build.count(build.frozen)


def check_state_round_trip(build: Build, image: Tensor) -> None:
    trained, fresh = perturb(build()).train(), build(seed=1)
    with torch.no_grad():
        run(trained, image)  # moves statistics such as BatchNorm's
    state = {name: t.clone() for name, t in trained.adapter_state().items()}
    surplus = sorted(state.keys() & pristine(build, trained).keys())
    assert not surplus, f"the state carries frozen tensors: {surplus[:3]}"
    fresh.load_adapter_state(state)
    assert_equal(outputs(fresh, image), outputs(trained, image), "after loading its state")
    wrong = [state | {"foreign": torch.zeros(1)}]
    if state:
        name = sorted(state)[0]
        wrong.append({n: t for n, t in state.items() if n != name})
        wrong.append(state | {name: torch.zeros(*state[name].shape, 2)})
    untouched = build()
    before = {n: t.clone() for n, t in untouched.state_dict().items()}
    for bad in wrong:
        with pytest.raises(ZooError):
            untouched.load_adapter_state(bad)
    for name, tensor in untouched.state_dict().items():
        assert torch.equal(tensor, before[name]), f"a refused state has changed {name}"


def check_deterministic(build: Build, image: Tensor) -> None:
    expected = outputs(build(), image)
    assert_equal(outputs(build(), image), expected, "built again from the same seed")
    assert_equal(outputs(build(), image, seed=1), expected, "at another state of the generator")


def check_batch_independence(build: Build, image: Tensor) -> None:
    method = perturb(build())
    together = outputs(copy.deepcopy(method), image)[:-1]
    alone = [outputs(copy.deepcopy(method), one[None])[:-1] for one in image]
    joined = [torch.cat(parts) for parts in zip(*alone, strict=True)]
    # Another batch size is another order of additions; a leak between neighbours is far larger.
    assert_close(together, joined, 1e-4, "in a batch, against alone")


def check_no_hidden_state(build: Build, image: Tensor) -> None:
    method, other = perturb(build()), image.flip(0, 3)
    before = {name: t.clone() for name, t in method.state_dict().items()}
    first, _, again = (outputs(method, x) for x in (image, other, image))
    assert_equal(again, first, "after another image")
    for name, tensor in method.state_dict().items():
        assert torch.equal(tensor, before[name]), f"a forward in eval mode has changed {name}"


def check_checkpointing(build: Build, image: Tensor) -> None:
    method = perturb(build())
    if not trainables(method):
        return
    plain, plain_bytes = gradients(copy.deepcopy(method), image, checkpointing=False)
    saving, saving_bytes = gradients(method, image, checkpointing=True)
    assert plain.keys() == saving.keys()
    assert_close(list(saving.values()), list(plain.values()), 1e-6, "with checkpointing")
    assert saving_bytes < plain_bytes, f"keeps {saving_bytes} bytes of {plain_bytes}"


def check_merge_equivalence(build: Build, image: Tensor) -> None:
    method, image = perturb(build()).double(), image.double()
    if not method.mergeable:
        with pytest.raises(ZooError, match=re.escape(method.title)):
            method.merge()
        return
    expected = outputs(method, image)
    merged = method.merge()
    assert_close(plain_outputs(merged, image), expected, 1e-9, "merged, against the method")
    assert not any(isinstance(m, Wrapped) for m in merged.modules()), "a wrapped layer is left"
    assert not any(p.requires_grad for p in merged.parameters()), "a merged backbone is frozen"
    (fresh := copy.deepcopy(build.frozen).double()).load(merged.state())  # as a run reads a file
    assert_equal(plain_outputs(fresh, image), plain_outputs(merged, image), "merged and loaded")
    with pytest.raises(ZooError, match=re.escape(method.title)):
        method.merge()


def check_compile(build: Build, image: Tensor) -> None:
    torch.compiler.reset()
    method = perturb(build()).eval()
    expected = outputs(copy.deepcopy(method), image)
    with torch.no_grad():
        features = torch.compile(method, backend="aot_eager", fullgraph=True)(image)
    assert_close([*features.maps, features.final, features.aux], expected, 1e-5, "compiled")


def check_amp(build: Build, image: Tensor) -> None:
    method = build().train()
    parameters = trainables(method)
    with torch.autocast("cpu", torch.bfloat16):
        features = run(method, image)
    for tensor in [*features.maps, features.final, features.aux]:
        assert bool(tensor.isfinite().all()), "not finite in bfloat16"
    if parameters:
        loss_of(features).backward()
    for name, parameter in parameters.items():
        assert parameter.dtype is torch.float32, f"{name} is {parameter.dtype}"
        finite = parameter.grad is None or bool(parameter.grad.isfinite().all())
        assert finite, f"the gradient of {name} is not finite in bfloat16"


def check_train_eval(build: Build, image: Tensor) -> None:
    method = build().train()
    original = {f"backbone.{name}" for name, _ in build.frozen.named_modules() if name}
    modules = dict(method.named_modules())
    # A wrapped layer stands at the place of the frozen one, which is its base.
    frozen = {
        name
        for name, module in modules.items()
        if unwrapped(name) in original and not isinstance(module, Wrapped)
    }
    run(method, image)
    for name, module in modules.items():
        if name == "backbone" or name in frozen:
            assert not module.training, f"frozen {name} is in train mode"
        else:
            assert module.training, f"{name or 'the method'} did not follow train()"
    method.eval()
    assert not any(m.training for m in method.modules()), "eval() does not reach every module"


def check_errors(build: Build, image: Tensor) -> None:
    with pytest.raises(ZooError, match="multiples of 32"):
        run(build(), image[:, :, :-16])
    without_prompts = copy.deepcopy(build.frozen)
    without_prompts.accepts_prompts = False
    if build.method.needs_prompts:
        with pytest.raises(ZooError, match=re.escape(build.method.title)):
            build.method(without_prompts)
    else:
        build.method(without_prompts)
    with pytest.raises(ZooError, match="no_such_option"):
        check_options(build.method, build.method.title, {"no_such_option": 1})


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


CHECKS = {n.removeprefix("check_"): f for n, f in list(globals().items()) if n.startswith("check_")}
del CHECKS["options"]  # of the zoo: what checks options, not a check of a method
