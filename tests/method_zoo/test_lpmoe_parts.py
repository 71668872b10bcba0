"""The parts of Controllable-LPMoE against the authors' own modules, by reference tensors."""

import json

import pytest
import torch
from reference_tensors import FOLDER, MARKS, assert_reference
from safetensors import safe_open

from lpmoe_bench.model import released
from method_zoo.lpmoe import ScaleEnhancement
from method_zoo.parts import layers
from method_zoo.parts.deformable import CosineDeformableAttention, places

pytestmark = MARKS
BRANCHES = dict(
    zip(
        released.EXPERTS,
        (layers.depthwise, layers.atrous, layers.asymmetric, layers.wavelet),
        strict=True,
    )
)


def read(name: str, group: str = "") -> tuple[dict[str, torch.Tensor], dict[str, int | float]]:
    with safe_open(FOLDER / f"lpmoe_{name}.safetensors", "pt") as file:
        tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
        facts = file.metadata()
    prefix = f"{group}/" if group else ""
    return (
        {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)},
        {k.removeprefix(prefix): json.loads(v) for k, v in facts.items() if k.startswith(prefix)},
    )


def inside(tensors: dict, prefix: str) -> dict[str, torch.Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def renamed(state: dict, names: released.Names) -> dict[str, torch.Tensor]:
    """Return the tensors under our names, by the maps that an import takes; none may be left."""
    found, left = released.rename(state, names)
    assert not left
    return found


@pytest.mark.parametrize("group", ["L3", "L1"])
def test_attention_and_its_gradients(group):
    ref, facts = read("cosine_deformable_attention", group)
    facts = {k.removeprefix("cfg/"): v for k, v in facts.items()}
    module = CosineDeformableAttention(
        facts["D"], facts["heads"], facts["levels"], facts["points"], facts["ratio"]
    )
    module.load_state_dict(renamed(inside(ref, "state/"), released.ATTENTION))
    query, features = ref["q"].requires_grad_(), ref["feat"].requires_grad_()
    grids = [tuple(map(int, shape)) for shape in ref["shapes"]]
    out = module(query, features, ref["ref"][0, :, 0], places(grids, query))
    assert_reference(out, ref["out"])
    out.square().sum().backward()
    assert_reference(query.grad, ref["gq"])
    assert_reference(features.grad, ref["gf"])
    for name, gradient in renamed(inside(ref, "gw/"), released.ATTENTION).items():
        assert_reference(module.get_parameter(name).grad, gradient)


def test_reference_points_are_those_of_the_authors():
    for group in ("L3", "L1"):
        ref, facts = read("cosine_deformable_attention", group)
        h, w = facts["cfg/H16"], facts["cfg/W16"]
        grids = [(h, w)] if group == "L3" else [(2 * h, 2 * w), (h, w), (h // 2, w // 2)]
        torch.testing.assert_close(
            places(grids, ref["q"]).points, ref["ref"][0, :, 0], rtol=0, atol=1e-7
        )


@pytest.mark.parametrize("kind", list(released.EXPERTS))
def test_expert_on_an_odd_size(kind):
    ref, _ = read("experts_and_mixture", kind)
    expert = layers.PriorExpert(BRANCHES[kind], 64, 1)
    expert.load_state_dict(renamed(inside(ref, "state/"), released.expert_names(kind)))
    assert_reference(expert.eval()(ref["x"]), ref["out_eval"])
    assert_reference(expert.train()(ref["x"]), ref["out_train"])


def test_mixture_and_its_gate():
    ref, _ = read("experts_and_mixture", "mixture")
    mixture = layers.Mixture(64, 1)
    mixture.load_state_dict(renamed(inside(ref, "state/"), released.mixture_names()))
    mixture.eval()
    assert_reference(mixture.weigh(ref["x"]), ref["gate"])
    assert_reference(mixture(ref["x"]), ref["out_eval"])


def test_scale_enhancement():
    ref, facts = read("scale_enhancement")
    module = ScaleEnhancement(96, 24)
    module.load_state_dict(renamed(inside(ref, "state/"), released.ENHANCEMENT))
    h, w = int(facts["H"]), int(facts["W"])
    out = module(ref["x"], [(2 * h, 2 * w), (h, w), (h // 2, w // 2)])
    assert_reference(out, ref["out"])


def test_prior_extractor_and_its_running_statistics():
    # In float64: their float32 output of a BatchNorm over 12 values is itself 9e-6 from the truth.
    ref, _ = read("local_prior_extractor")
    module = layers.PriorExtractor(96)
    module.load_state_dict(renamed(inside(ref, "state/"), released.prior_names()))
    module.double()
    for mode in ("eval", "train"):
        first, *rest = module.train(mode == "train")(ref["img"].double())
        assert_reference(first.float(), ref[f"out_{mode}/0"])
        for index, ours in enumerate(rest, start=1):
            assert_reference(ours.float().flatten(2).transpose(1, 2), ref[f"out_{mode}/{index}"])
    state = module.state_dict()
    after = renamed(inside(ref, "state_after_train/"), released.prior_names())
    assert state.keys() == after.keys()
    for name, tensor in after.items():
        assert_reference(state[name].to(tensor.dtype), tensor)
