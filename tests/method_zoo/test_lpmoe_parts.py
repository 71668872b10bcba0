"""The parts of Controllable-LPMoE against the authors' own modules, by reference tensors."""

import json

import pytest
import torch
from reference_tensors import FOLDER, MARKS, assert_reference
from safetensors import safe_open

from method_zoo.lpmoe import ScaleEnhancement
from method_zoo.parts import layers
from method_zoo.parts.deformable import CosineDeformableAttention, places

pytestmark = MARKS
# The authors' names of the branches of each expert, in the order of the gate.
EXPERTS = {"dconv": "DConv", "atconv": "ATConv", "asconv": "ASConv", "wtconv": "WTConv"}
BRANCHES = dict(
    zip(EXPERTS, (layers.depthwise, layers.atrous, layers.asymmetric, layers.wavelet), strict=True)
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


def unit(state: dict, source: str, target: str, conv: str = "conv.") -> dict[str, torch.Tensor]:
    """Map a convolution (or what stands for it) and its BatchNorm to the names of a Unit."""
    out = {f"{target}.{conv}{k}": v for k, v in inside(state, f"{source}.0.").items()}
    return out | {f"{target}.norms.0.{k}": v for k, v in inside(state, f"{source}.1.").items()}


def expert_state(state: dict, kind: str) -> dict[str, torch.Tensor]:
    out = unit(state, "Conv_1", "enter") | unit(state, "reduce", "leave")
    for index, kernel in enumerate((3, 5, 7)):
        target = f"branches.{index}"
        if kind == "asconv":
            out |= unit(state, f"ASConv_1_{kernel}", f"{target}.0")
            out |= unit(state, f"ASConv_{kernel}_1", f"{target}.1")
        else:
            out |= unit(state, f"{EXPERTS[kind]}_{kernel}", target)
    names = {
        "base_conv.": "base.",
        "base_scale.weight": "base_scale",
        "wavelet_convs.0.": "bands.",
        "wavelet_scale.0.weight": "bands_scale",
    }
    for old, new in names.items():
        out = {k.replace(old, new): v for k, v in out.items()}
    return {k: v for k, v in out.items() if "wt_filter" not in k}  # constants in our code


def mixture_state(state: dict) -> dict[str, torch.Tensor]:
    out = {f"gate.{k}": v for k, v in inside(state, "gating_network.fc.").items()}
    for index, (kind, letter) in enumerate(zip(EXPERTS, "abcd", strict=True)):
        own = expert_state(inside(state, f"expert_{letter}."), kind)
        out |= {f"experts.{index}.{k}": v for k, v in own.items()}
    return out


def prior_state(state: dict) -> dict[str, torch.Tensor]:
    out = unit(state, "stem", "stem")
    for index in range(3):
        out |= unit(state, f"conv{index + 2}", f"downs.{index}")
    out |= {f"mixture.{k}": v for k, v in mixture_state(inside(state, "MoEConv.")).items()}
    return out | {f"project.{k}": v for k, v in inside(state, "fc1.").items()}


ATTENTION = {
    "sampling_offsets": "offsets",
    "attention_weights": "weights",
    "value_proj": "value",
    "output_proj": "output",
}


@pytest.mark.parametrize("group", ["L3", "L1"])
def test_attention_and_its_gradients(group):
    ref, facts = read("cosine_deformable_attention", group)
    facts = {k.removeprefix("cfg/"): v for k, v in facts.items()}
    module = CosineDeformableAttention(
        facts["D"], facts["heads"], facts["levels"], facts["points"], facts["ratio"]
    )
    rename = {f"{a}.{k}": f"{b}.{k}" for a, b in ATTENTION.items() for k in ("weight", "bias")}
    module.load_state_dict({rename[k]: v for k, v in inside(ref, "state/").items()})
    query, features = ref["q"].requires_grad_(), ref["feat"].requires_grad_()
    grids = [tuple(map(int, shape)) for shape in ref["shapes"]]
    out = module(query, features, ref["ref"][0, :, 0], places(grids, query))
    assert_reference(out, ref["out"])
    out.square().sum().backward()
    assert_reference(query.grad, ref["gq"])
    assert_reference(features.grad, ref["gf"])
    for theirs, gradient in inside(ref, "gw/").items():
        assert_reference(module.get_parameter(rename[theirs]).grad, gradient)


def test_reference_points_are_those_of_the_authors():
    for group in ("L3", "L1"):
        ref, facts = read("cosine_deformable_attention", group)
        h, w = facts["cfg/H16"], facts["cfg/W16"]
        grids = [(h, w)] if group == "L3" else [(2 * h, 2 * w), (h, w), (h // 2, w // 2)]
        torch.testing.assert_close(
            places(grids, ref["q"]).points, ref["ref"][0, :, 0], rtol=0, atol=1e-7
        )


@pytest.mark.parametrize("kind", list(EXPERTS))
def test_expert_on_an_odd_size(kind):
    ref, _ = read("experts_and_mixture", kind)
    expert = layers.PriorExpert(BRANCHES[kind], 64, 1)
    expert.load_state_dict(expert_state(inside(ref, "state/"), kind))
    assert_reference(expert.eval()(ref["x"]), ref["out_eval"])
    assert_reference(expert.train()(ref["x"]), ref["out_train"])


def test_mixture_and_its_gate():
    ref, _ = read("experts_and_mixture", "mixture")
    mixture = layers.Mixture(64, 1)
    mixture.load_state_dict(mixture_state(inside(ref, "state/")))
    mixture.eval()
    assert_reference(mixture.weigh(ref["x"]), ref["gate"])
    assert_reference(mixture(ref["x"]), ref["out_eval"])


def test_scale_enhancement():
    ref, facts = read("scale_enhancement")
    module = ScaleEnhancement(96, 24)
    names = {
        "dwconv.dwconv.": "depthwise.",
        "dwconv.moe_attention.Gating.fc.": "gate.",
        "dwconv.moe_attention.ca.conv.": "channel.",
        "dwconv.moe_attention.ra.conv.": "reverse.",
        "fc1.": "reduce.",
        "fc2.": "expand.",
    }
    state = inside(ref, "state/")
    module.load_state_dict(
        {new + k: v for old, new in names.items() for k, v in inside(state, old).items()}
    )
    h, w = int(facts["H"]), int(facts["W"])
    out = module(ref["x"], [(2 * h, 2 * w), (h, w), (h // 2, w // 2)])
    assert_reference(out, ref["out"])


def test_prior_extractor_and_its_running_statistics():
    # In float64: their float32 output of a BatchNorm over 12 values is itself 9e-6 from the truth.
    ref, _ = read("local_prior_extractor")
    module = layers.PriorExtractor(96)
    module.load_state_dict(prior_state(inside(ref, "state/")))
    module.double()
    for mode in ("eval", "train"):
        first, *rest = module.train(mode == "train")(ref["img"].double())
        assert_reference(first.float(), ref[f"out_{mode}/0"])
        for index, ours in enumerate(rest, start=1):
            assert_reference(ours.float().flatten(2).transpose(1, 2), ref[f"out_{mode}/{index}"])
    state = module.state_dict()
    after = prior_state(inside(ref, "state_after_train/"))
    assert state.keys() == after.keys()
    for name, tensor in after.items():
        assert_reference(state[name].to(tensor.dtype), tensor)
