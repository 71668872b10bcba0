"""SAM2-Adapter: its prompts by hand, the authors' generator, its groups and the printed counts."""

import pytest
import torch
from conftest import tiny_backbone, tiny_image
from hand_backbone import assert_values, fill, gelu, set_all
from reference_tensors import assert_reference, needs_reference, reference

from method_zoo.backbones.create import create_backbone
from method_zoo.errors import ZooError
from method_zoo.options import get_method
from method_zoo.sam2_adapter import GroupPrompts
from method_zoo.sam_adapter import high_frequencies


def test_sam2_adapter_by_hand():
    prompts = GroupPrompts(3, 2, 2, 1, first=True)
    fill(prompts.conv.weight, torch.zeros(2, 3, 7, 7))
    set_all(prompts, conv__bias=[3.0, 1.0], norm__weight=[2.0, 2.0], norm__bias=[0.0, 2.0])
    set_all(prompts, embedding__weight=[[1.0, 0.0], [0.0, 3.0]], embedding__bias=[0.0, 0.0])
    fill(prompts.block[0].weight, torch.eye(2))
    set_all(prompts, up__weight=[[1.0, 0.0], [2.0, 1.0]], up__bias=[0.0, 1.0])
    maps = prompts.embed(torch.rand(1, 3, 4, 4))
    # (3, 1) normed is (1, -1): h = (2, 0). x = (1, 0.5): e = (1, 1.5), e + h = (3, 1.5).
    hidden = prompts.hidden(torch.tensor([[[1.0, 0.5]]]), maps)
    expected = [[(gelu(3), 2 * gelu(3) + gelu(1.5) + 1)]]
    assert_values(prompts(0, hidden), expected, 1e-4)


def test_a_group_is_the_blocks_that_read_one_width():
    with torch.device("meta"):
        method = get_method("sam2_adapter")(create_backbone("sam2_hiera_large"))
    assert [len(prompts.block) for prompts in method.prompts] == [3, 6, 36, 3]
    assert [prompts.up.in_features for prompts in method.prompts] == [4, 9, 18, 36]


def test_blocks_read_tokens_and_prompts():
    method, image = (
        get_method("sam2_adapter")(tiny_backbone("hiera")),
        tiny_image(tiny_backbone("hiera")),
    )
    for prompts in method.prompts:
        set_all(prompts, up__weight=torch.zeros_like(prompts.up.weight).tolist())
    frozen = get_method("decoder_only")(tiny_backbone("hiera"))(image)
    assert torch.equal(method(image).final, frozen.final)
    fill(method.prompts[0].up.bias, torch.ones(24))
    assert not torch.allclose(method(image).final, frozen.final)


def test_it_goes_on_hiera_alone():
    with pytest.raises(ZooError, match=r"^SAM2-Adapter goes on Hiera alone.*sam2_hiera_large"):
        get_method("sam2_adapter")(tiny_backbone())


@pytest.mark.parametrize(
    ("name", "released"),
    [
        ("sam2_hiera_tiny", 57_621),
        ("sam2_hiera_small", 58_245),
        ("sam2_hiera_base_plus", 80_534),
        ("sam2_hiera_large", 140_650),
    ],
)
def test_count_beside_what_the_released_class_builds(name, released):
    with torch.device("meta"):
        backbone = create_backbone(name)
        method = get_method("sam2_adapter")(backbone)
    counted = sum(p.numel() for p in method.trainable().values())
    # Theirs has a layer more in each stage than it has blocks; ours one for each that reads it.
    for blocks, prompts in zip(backbone.groups, method.prompts, strict=True):
        k = prompts.up.in_features
        counted += (len(blocks) + 1 - len(prompts.block)) * (k**2 + k)
    assert counted == released


@needs_reference
def test_sam2_adapter_is_the_authors_generator():
    tensors, state = reference("sam2_adapter_prompt_generator")
    maps = high_frequencies(tensors["image"])
    assert_reference(maps, tensors["high_frequency"])
    for s, dim in enumerate((32, 64, 128, 256), start=1):
        prompts = GroupPrompts(maps.shape[1], dim // 16, dim, 2, first=s == 1)
        names = {
            "conv": f"handcrafted_generator{s}.proj",
            "norm": f"handcrafted_generator{s}.norm",
            "embedding": f"embedding_generator{s}",
            "up": f"shared_mlp{s}",
            **{f"block.{b}": f"lightweight_mlp{s}_{b}.0" for b in range(2)},
        }
        prompts.load_state_dict(
            {f"{a}.{x}": state[f"{b}.{x}"] for a, b in names.items() for x in ("weight", "bias")}
        )
        maps, x = prompts.embed(maps), tensors[f"stage{s}/x"].flatten(1, 2)
        assert_reference(maps.flatten(2).mT, tensors[f"stage{s}/handcrafted"])
        for b in range(2):
            y = x + prompts(b, prompts.hidden(x, maps))
            assert_reference(y, tensors[f"stage{s}/y{b}"].flatten(1, 2))
