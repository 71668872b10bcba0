"""The opened Swin computes what timm computes where windows fit, else what its authors do."""

import pytest
import timm
import torch
from conftest import FAMILIES, moved, tiny_backbone
from opened import image_of, walked
from reference_tensors import assert_reference, needs_reference, reference

from lpmoe_bench.model import released
from method_zoo.backbones.create import create_backbone
from method_zoo.backbones.swin import Swin, shift_mask
from method_zoo.errors import ZooError
from method_zoo.options import get_method

NAME, TINY = FAMILIES["swin"]


@pytest.mark.parametrize("side", [(96, 192), (192, 96)])
def test_equals_timm_where_windows_fit(side):
    # Grids of 24 x 48 down to 3 x 6, in windows of 3: the smallest is shifted as well.
    backbone, image = tiny_backbone("swin"), image_of(*side)
    whole = timm.create_model(
        NAME, num_classes=0, global_pool="", always_partition=True, strict_img_size=False, **TINY
    ).eval()
    whole.load_state_dict(backbone.state())
    with torch.no_grad():
        expected = whole.forward_features(backbone.normalise(image))
    t = walked(backbone, image)
    assert torch.equal(t.x, expected.flatten(1, 2))


def test_pads_before_it_shifts_as_torchvision_does():
    # Grids of 40 x 32 down to 5 x 4, none of which windows of 3 divide.
    models = pytest.importorskip("torchvision.models.swin_transformer")
    backbone, image = tiny_backbone("swin"), image_of(160, 128)
    other = models.SwinTransformer(
        patch_size=[4, 4], embed_dim=TINY["embed_dim"], depths=list(TINY["depths"]),
        num_heads=list(TINY["num_heads"]), window_size=[3, 3],
    ).eval()  # fmt: skip
    state, own = {}, backbone.vit.state_dict()
    stages, merges = (1, 3, 5, 7), (2, 4, 6)
    names = {"patch_embed.proj.": "features.0.0.", "patch_embed.norm.": "features.0.2."}
    for g, (stage, group) in enumerate(zip(stages, backbone.groups, strict=True)):
        names |= {f"blocks.{i}.": f"features.{stage}.{k}." for k, i in enumerate(group)}
        if g:
            names |= {f"merges.{g - 1}.": f"features.{merges[g - 1]}."}
    for name, tensor in own.items():
        start = next((s for s in names if name.startswith(s)), None)
        new = name if start is None else names[start] + name.removeprefix(start)
        state[new.replace("mlp.fc1", "mlp.0").replace("mlp.fc2", "mlp.3")] = tensor
    missing, surplus = other.load_state_dict(state, strict=False)
    assert not surplus
    assert all("relative_position_index" in n or n.startswith("head") for n in missing)
    backbone, other, image = backbone.double(), other.double(), image.double()
    with torch.no_grad():
        expected = other.norm(other.features(backbone.normalise(image)))
    torch.testing.assert_close(walked(backbone, image).x, expected.flatten(1, 2))


@pytest.mark.parametrize("grid", [(6, 6), (3, 3), (3, 9)])
def test_mask_keeps_what_the_shift_has_joined_apart(grid):
    """Two places of a window see each other if they were neighbours before the roll."""
    mask = shift_mask(grid, (3, 3), (1, 1), torch.zeros(()))
    height, width = grid
    # Where each place of the rolled grid came from: a window must not run over the edge.
    for w, window in enumerate(mask):
        top, left = w // (width // 3) * 3, w % (width // 3) * 3
        rolled = [(r + 1 >= height, c + 1 >= width)
                  for r in range(top, top + 3) for c in range(left, left + 3)]  # fmt: skip
        for a, one in enumerate(rolled):
            for b, other in enumerate(rolled):
                assert float(window[a, b]) == (0.0 if one == other else -100.0)


def test_merging_takes_four_places_in_the_authors_order():
    backbone = tiny_backbone("swin")
    t = backbone.position(torch.randn(1, 3, 4, backbone.dims[0]))  # an odd side is padded
    part, g = backbone.vit.merges[0], t.x.unflatten(1, (3, 4))
    with torch.no_grad():
        got = backbone.merge(1, t)
        four = torch.cat([g[0, 0, 2], g[0, 1, 2], g[0, 0, 3], g[0, 1, 3]])
        torch.testing.assert_close(got.x[0, 1], part.reduction(part.norm(four)))
        last = torch.cat([g[0, 2, 0], torch.zeros(24), g[0, 2, 1], torch.zeros(24)])
        torch.testing.assert_close(got.x[0, 2], part.reduction(part.norm(last)))
    assert got.grid == (2, 2)


def test_wrapped_layers_see_each_window_as_an_image():
    backbone, image = tiny_backbone("swin"), image_of(64, 96)
    seen: list[tuple[object, ...]] = []
    linear = backbone.linear

    def noted(module, x, prefix, grid):
        seen.append((x.shape[1], prefix, grid))
        return linear(module, x, prefix, grid)

    backbone.linear = noted
    walked(backbone, image)
    in_window = seen[:2]  # qkv and proj, then both layers of the MLP over the whole grid
    assert in_window == [(9, 0, (3, 3))] * 2
    assert seen[2:4] == [(16 * 24, 0, (16, 24))] * 2


@needs_reference
def test_adaroute_on_swin_equals_the_authors_network():
    tensors = reference("adaroute_swin")[0]
    backbone, own = authors_swin(tensors)
    method = get_method("adaroute")(backbone, bottleneck=8).double().eval()
    assert sum(p.numel() for p in method.trainable().values()) == 107_524
    method.load_adapter_state({k: t.double() for k, t in own.items()})
    image = tensors["in.0.image"].double()
    backbone.normalise_by((0, 0, 0), (1, 1, 1))
    with torch.no_grad():
        maps = method(image).maps
    for k, got in enumerate(maps):
        assert_reference(got.float(), tensors[f"out.0.map{k}"])


def authors_swin(tensors):
    """The backbone of the reference tensors with their weights, and the method's state."""
    size = {"embed_dim": 24, "depths": (2, 2, 4, 2), "num_heads": (2, 2, 4, 4), "window_size": 7}
    backbone = create_backbone("swin_tiny_patch4_window7_224", **size)
    weights = {k.removeprefix("weights."): t for k, t in tensors.items() if k.startswith("weights")}
    weights = {k: t for k, t in weights.items() if "logit_scale" not in k}
    adapters, merges = {"adapter1": "after_attention", "adapter2": "after_mlp"}, {}
    names: dict[str, str] = {}
    for s, group in enumerate(backbone.groups):
        names |= released.below(f"peft_params.{s}.", f"centers.{s}.", released.center_names())
        names[f"extra_norm{s}."] = f"stage_norms.{s}."
        merges[f"layers.{s}.downsample."] = f"layers.{s + 1}.downsample."
        for k, i in enumerate(group):
            for theirs, ours in adapters.items():
                place = f"layers.{s}.blocks.{k}.{theirs}."
                module = released.adaroute_module_names()
                names |= released.below(place, f"{ours}.{i}.", module)
    own, rest = released.rename(weights, names)
    moved_on, rest = released.rename(rest, merges)  # timm has a merge before its stage
    final = {k: t for k, t in backbone.state().items() if k.startswith("norm.")}
    backbone.load(rest | moved_on | final)
    return backbone, released.cascade_scalars(own)


# What it is ------------------------------------------------------------------------------------


def test_its_stages_are_groups_of_growing_stride():
    backbone = tiny_backbone("swin")
    assert [list(group) for group in backbone.groups] == [[0, 1], [2], [3, 4], [5]]
    assert backbone.strides == [4, 8, 16, 32]
    assert backbone.dims == [24, 24, 48, 96, 96, 192]
    with pytest.raises(ZooError, match="24, 48, 96 and 192 wide, so it has no one width"):
        _ = backbone.dim


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("swin_tiny_patch4_window7_224", 27_519_354),
        ("swin_small_patch4_window7_224", 48_837_258),
        ("swin_base_patch4_window7_224", 86_743_224),
        ("swin_large_patch4_window7_224", 194_995_476),
    ],
)
def test_sizes(name, count):
    with torch.device("meta"):
        assert sum(p.numel() for p in create_backbone(name).parameters()) == count


def test_one_that_shrinks_its_windows_is_refused():
    vit = timm.create_model(NAME, num_classes=0, global_pool="", **TINY)
    with pytest.raises(ZooError, match="always_partition=True"):
        Swin(vit)
    with pytest.raises(ZooError, match="patches of 8 and 8 pixels"):
        moved(NAME, **(TINY | {"patch_size": 8}))
    with pytest.raises(ZooError, match="stages of 2 and 2 blocks, 24 and 48 wide"):
        moved(NAME, **(TINY | {"depths": (2, 2), "num_heads": (2, 2)}))


def test_its_names_outside_are_those_of_timm():
    backbone = tiny_backbone("swin")
    whole = timm.create_model(NAME, num_classes=0, global_pool="", **TINY)
    assert backbone.state().keys() == whole.state_dict().keys()
