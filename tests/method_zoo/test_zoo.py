"""The zoo: names, options and what each method must be."""

import re
from functools import cache

import pytest
import torch
from conftest import FAMILIES, STAGED, tiny_backbone, tiny_image
from counts import COUNTS, IN_STAGES, VARIANTS
from sound_methods import Adapter, Scaled, ScaledLinear

from method_zoo.backbones.backbone import Backbone
from method_zoo.backbones.linear import Wrapped
from method_zoo.contract.checks import CHECKS
from method_zoo.contract.families import family_for
from method_zoo.contract.observe import Build, plain_outputs
from method_zoo.errors import ZooError
from method_zoo.method import Method
from method_zoo.options import check_options, get_method, list_methods, signature_options


class Late(Method):
    """Only the last block adapts, so the first three never change."""

    title = "Late"

    def __init__(self, backbone):
        super().__init__(backbone)
        self.frozen_blocks = 3
        self.factor = torch.nn.Parameter(torch.ones(()))

    def block(self, i, t):
        t = self.backbone.block(i, t)
        return t._replace(x=t.x * self.factor) if i >= 3 else t


class Gain(Wrapped):
    """One factor for a whole layer, whatever that layer is."""

    def __init__(self, base):
        super().__init__(base)
        self.gain = torch.nn.Parameter(torch.ones(()))


def test_methods_are_the_files_without_underscore():
    names = list_methods()
    assert {"decoder_only", "full", "lora", "vpt"} <= set(names)
    assert not any(name.startswith("_") for name in names)
    for name in names:
        assert get_method(name).__module__ == f"method_zoo.{name}"


def test_unknown_method_offers_the_closest():
    with pytest.raises(ZooError, match=r"method 'lroa'; did you mean 'lora' or 'lorand'\? .*vpt"):
        get_method("lroa")
    with pytest.raises(ZooError, match="did you mean 'lora'"):
        get_method("LoRA")
    for name in ("_backbone", "", "../lora"):
        with pytest.raises(ZooError, match="unknown method"):
            get_method(name)


def test_a_method_of_two_names_has_one_fingerprint():
    from lpmoe_bench.config.settings import build_config
    from lpmoe_bench.training.plan import complete_config

    assert get_method("parax") is get_method("adaroute")
    layer = {"method": "parax", "runtime": {"device": "cpu"}}
    assert complete_config(build_config(layer), get_method("parax")).method == "adaroute"


def test_prefix_and_finish_are_the_forward():
    method, image = Late(tiny_backbone()), tiny_image(tiny_backbone())
    prefix = method.prefix(image)
    assert not prefix.tokens.x.requires_grad
    assert len(prefix.taps) == 3
    features = method.finish(prefix)
    assert [m.requires_grad for m in features.maps] == [False, False, False, True]
    for got, expected in zip(features.maps, plain_outputs(tiny_backbone(), image), strict=False):
        assert torch.equal(got, expected)
    # What was computed once and stored serves again after training.
    with torch.no_grad():
        method.factor.fill_(2)
    assert torch.equal(method.finish(prefix).maps[3], method(image).maps[3])


def test_prefix_keeps_the_gradient_where_nothing_is_frozen():
    method = get_method("full")(tiny_backbone())
    assert method.prefix(tiny_image(method.backbone)).tokens.x.requires_grad


def test_nothing_to_wrap_or_unfreeze_is_an_error():
    method = Late(tiny_backbone())
    with pytest.raises(ZooError, match="Late found no layer to adapt"):
        method.wrap(lambda name: name.endswith("attn.query"), ScaledLinear)
    with pytest.raises(ZooError, match="Late found no parameter to train"):
        method.unfreeze(lambda name: "adapter" in name)


def test_unfreeze_trains_what_it_names_and_saves_it():
    method = Late(tiny_backbone())
    method.unfreeze(lambda name: name.endswith("norm1.bias"))
    names = [f"backbone.vit.blocks.{i}.norm1.bias" for i in range(4)]
    assert set(method.trainable()) == {"factor", *names}
    assert set(method.adapter_state()) == {"factor", *names}


def test_wrapping_twice_keeps_the_frozen_out_of_the_state():
    method = Scaled(tiny_backbone())
    method.wrap(lambda name: name.endswith("attn.proj"), Gain)
    leaves = [name.rpartition(".")[2] for name in method.adapter_state()]
    assert sorted(leaves) == ["factor"] * 4 + ["gain"] * 4


def test_state_of_another_method_is_refused_by_name():
    with pytest.raises(ZooError, match="not of Scaled with these options: 4 tensors missing"):
        Scaled(tiny_backbone()).load_adapter_state(Adapter(tiny_backbone()).adapter_state())


def test_options_are_checked_against_the_signature():
    method = get_method("lora")
    assert signature_options(method) == {"rank": 8, "alpha": 8.0, "targets": "qkv", "rslora": False}
    options = check_options(method, method.title, {"alpha": 4})
    assert options == {"rank": 8, "alpha": 4.0, "targets": "qkv", "rslora": False}
    assert type(options["alpha"]) is float
    with pytest.raises(ZooError, match="did you mean 'rank'"):
        check_options(method, method.title, {"rnak": 4})
    for wrong in ("8", 8.0, True, None):
        with pytest.raises(ZooError, match="option rank of LoRA"):
            check_options(method, method.title, {"rank": wrong})


@pytest.mark.parametrize("endless", [float("nan"), float("inf"), float("-inf")])
def test_an_option_that_is_no_finite_number_is_refused(endless):
    method = get_method("lora")
    with pytest.raises(ZooError, match=r"option alpha of LoRA is .*takes a finite number, such as"):
        check_options(method, method.title, {"alpha": endless})


WRONG = [
    *((name, {"bottleneck": 0}, "bottleneck is 0; it must be at least 1")
      for name in ("adapter", "adaptformer", "convpass", "mona")),
    *((name, {"rank": 0}, "rank is 0; it must be at least 1")
      for name in ("lora", "dora", "vera", "fact", "conv_lora")),
    *((name, {"dropout": 1.0}, "dropout is 1.0; it must be at least 0 and below 1")
      for name in ("mona", "vfm_adapter")),
    *((name, {"blocks": blocks}, f"blocks is {blocks}; it must be 1 to 4")
      for name in ("partial", "late_lora") for blocks in (-1, 5)),
    *(("rep_adapter", options, "must divide the bottleneck")
      for options in ({"groups": 3}, {"bottleneck": 9}, {"groups": 5, "bottleneck": 5})),
    *(("lst", {"reduction": k}, f"reduction is {k}; it must divide the width 48") for k in (5, 48)),
    ("adaroute", {"placement": "mlp"}, "placement is 'mlp'; choose block or attention"),
    ("adaroute", {"centers": 5}, "centers is 5; a backbone of 4 blocks takes 1 to 4"),
    ("adaroute", {"kernels": 4}, "kernels is 4; it must be 0 to 3"),
    ("adaroute", {"experts": -1}, "experts is -1; it must be at least 0"),
    ("conv_lora", {"experts": 0}, "experts is 0"),
    ("conv_lora", {"experts": 10**11}, "experts is 100000000000; it must be 1 to 64"),
    ("conv_lora", {"gate_gradient": "none"}, "gate_gradient is 'none'"),
    ("lora", {"targets": "q"}, "targets is 'q'; choose qkv or qv"),
    ("lpmoe", {"heads": 5}, "heads is 5; it must divide the backbone's width 48"),
    ("lpmoe", {"points": 0}, "points is 0; it must be at least 1"),
    ("lpmoe", {"ratio": 0.0}, "ratio is 0.0; it must be above 0"),
    ("lpmoe", {"width": 30}, "width is 30; it must be a positive multiple of 4"),
    ("lpmoe", {"cosine": "max"}, "cosine is 'max'; allowed are 'sum'"),
    ("lpmoe", {"norm": "none"}, "norm is 'none'; allowed are 'shared'"),
    ("lpmoe", {"drop_path": 1.0}, "drop_path is 1.0; it must be at least 0 and below 1"),
    ("sam_adapter", {"scale": 7}, "scale is 7; it must divide the width 48"),
    ("sam_adapter", {"layout": "flat"}, "layout is 'flat'; choose official or grid"),
    ("sigma", {"bottleneck": 6}, "bottleneck is 6; it must be a multiple of 4, or 0"),
    ("sigma", {"scale_weights": "no"}, "scale_weights is 'no'; choose image or token or"),
    ("sigma", {"modulation": "gate"}, "modulation is 'gate'; choose film or none"),
    ("vfm_adapter", {"pool": "max"}, "pool is 'max'; choose sum or mean"),
    ("vfm_adapter", {"inner": 0}, "inner is 0; it must be at least 1"),
    ("vfm_adapter", {"queries": -1}, "queries is -1; it must be at least 0"),
    ("vpt", {"prompts": 0}, "prompts is 0"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "options", "sentence"), WRONG)
def test_a_wrong_option_is_one_sentence(name, options, sentence):
    with pytest.raises(ZooError, match=sentence) as caught:
        get_method(name)(tiny_backbone(), **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "option"), [("mona", "zero_init_up"), ("adaroute", "zero_init"), ("ssf", "exact_init")]
)
def test_an_option_makes_it_start_at_the_frozen_model(name, option):
    image = tiny_image(tiny_backbone())
    frozen = get_method("decoder_only")(tiny_backbone())(image).final
    for options in ({}, {option: True}):
        method = get_method(name)(tiny_backbone(), **options)
        assert torch.equal(method(image).final, frozen) is bool(options)


# Every method keeps every promise of the contract on every family of backbones.


FIRST, *OTHERS = FAMILIES
ON_STAGES = ("adaroute", "decoder_only", "rep_adapter")  # a rung each; the others are slow there
CROSS = {name: check for name, check in CHECKS.items() if name != "compile"}


def check_method(method: str, family: str, check: str) -> None:
    backbone = tiny_backbone(family)
    build = Build(get_method(method), backbone, IN_STAGES.get(family, COUNTS).get(method))
    CHECKS[check](build, tiny_image(backbone))


@pytest.mark.parametrize("check", CROSS)
@pytest.mark.parametrize("method", list_methods())
def test_contract(method, check):
    check_method(method, family_for(get_method(method)), check)


# Compiling takes longer than all other checks of a method together: one here, the others slow.
@pytest.mark.parametrize(
    "method",
    [pytest.param(m, marks=[pytest.mark.slow] if n else []) for n, m in enumerate(list_methods())],
)
def test_contract_compile(method):
    check_method(method, family_for(get_method(method)), "compile")


@cache
def facts_of(family: str) -> Backbone:
    """A tiny backbone that nobody adapts: its facts are read."""
    return tiny_backbone(family)


def goes(method: str, family: str) -> bool:
    """Whether a method takes a family, by the facts that its class states."""
    cls, backbone = get_method(method), facts_of(family)
    narrow = cls.needs_one_width and len(backbone.widths) > 1
    blind = cls.needs_attention and not backbone.has_attention
    alien = cls.made_for and type(backbone).__name__ not in cls.made_for
    return not (narrow or blind or alien or (cls.needs_prompts and not backbone.accepts_prompts))


@pytest.mark.slow
@pytest.mark.parametrize("check", CROSS)
@pytest.mark.parametrize(
    ("method", "family"),
    [(m, f) for m in list_methods() for f in OTHERS if m not in ON_STAGES or f not in STAGED],
)
def test_contract_on_every_family(method, family, check):
    if goes(method, family):
        check_method(method, family, check)


@pytest.mark.parametrize("family", STAGED)
@pytest.mark.parametrize("method", ON_STAGES)
def test_contract_on_stages(method, family):
    for check in CROSS:
        check_method(method, family, check)


@pytest.mark.parametrize("family", STAGED)
@pytest.mark.parametrize("method", list_methods())
def test_what_a_method_needs_is_said_where_stages_lack_it(method, family):
    cls = get_method(method)
    if goes(method, family):
        assert cls(tiny_backbone(family)).channels == [24, 48, 96, 192]
        assert method in IN_STAGES[family]
        return
    with pytest.raises(
        ZooError, match=f"^{re.escape(cls.title)} .*(stages|attention|prompts|alone)"
    ):
        cls(tiny_backbone(family))


@pytest.mark.parametrize(
    ("method", "options", "count"),
    VARIANTS,
    ids=["-".join([v[0], *map(str, v[1].values())]) for v in VARIANTS],
)
def test_contract_with_other_options(method, options, count):
    backbone = tiny_backbone(family_for(get_method(method)))
    for check in CROSS.values():
        check(Build(get_method(method), backbone, count, options), tiny_image(backbone))


def test_no_formula_without_a_method():
    assert set(COUNTS) <= set(list_methods())
