"""SAM-Adapter: high frequencies and prompts, by hand and against the authors' own generator."""

import pytest
import torch
import torch.nn.functional as F
from conftest import tiny_backbone, tiny_image
from reference_tensors import assert_reference, needs_reference, reference

from lpmoe_bench.model import released
from method_zoo.options import get_method
from method_zoo.sam_adapter import PromptGenerator, high_frequencies


def test_low_frequencies_are_taken_out_and_high_ones_stay():
    # A quarter of the spectrum of 16 x 16 goes: frequencies from -4 to 3 along both sides.
    line = torch.arange(16) * 2 * torch.pi / 16
    for cycles, stays in ((0, False), (3, False), (5, True)):
        wave = torch.cos(cycles * line).expand(1, 1, 16, 16)
        expected = wave.abs() if stays else torch.zeros_like(wave)
        for image in (wave, wave.transpose(2, 3)):
            wanted = expected if image is wave else expected.transpose(2, 3)
            torch.testing.assert_close(high_frequencies(image), wanted, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("height", "width", "equal"),
    [(32, 32, True), (32, 128, True), (128, 32, True), (32, 160, False)],
)
def test_up_to_an_aspect_ratio_of_four_the_square_is_the_authors(height, width, equal):
    """Beyond it their first index is negative and wraps around; ours takes all of the side out."""
    image = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0))
    half, rows, columns = int((height * width * 0.25) ** 0.5 // 2), height // 2, width // 2
    kept = torch.ones(height, width)
    kept[rows - half : rows + half, columns - half : columns + half] = 0
    spectrum = torch.fft.fftshift(torch.fft.fft2(image), dim=(-2, -1)) * kept
    theirs = torch.fft.ifft2(torch.fft.ifftshift(spectrum, dim=(-2, -1))).real.abs()
    assert torch.allclose(high_frequencies(image), theirs, atol=1e-5) is equal


def test_prompts_enter_before_every_block():
    method = get_method("sam_adapter")(tiny_backbone(), layout="grid")
    backbone, generator = method.backbone, method.prompts
    image = tiny_image(backbone)
    with torch.no_grad():
        patches = backbone.patchify(image)
        e = F.linear(patches, generator.embedding.weight, generator.embedding.bias).flatten(1, 2)
        conv = generator.frequencies
        f = F.conv2d(high_frequencies(backbone.normalise(image)), conv.weight, conv.bias, stride=16)
        hidden = e + f.flatten(2).mT
        t = backbone.embed(image)
        for i in range(backbone.depth):
            layer = generator.block[i]
            inner = F.gelu(F.linear(hidden, layer.weight, layer.bias))
            prompt = F.linear(inner, generator.up.weight, generator.up.bias)
            x = torch.cat([t.x[:, :1], t.x[:, 1:] + prompt], dim=1)
            t = backbone.block(i, t._replace(x=x))
        torch.testing.assert_close(method(image).final, backbone.norm(t).map())


@pytest.mark.parametrize(
    ("layout", "expected"), [("grid", [2 - 10, 4 - 30]), ("official", [2 - 4, 10 - 30])]
)
def test_layouts_of_the_patch_embedding_by_hand(layout, expected):
    # Two places with (2, 10) and (4, 30). In memory 2, 10, 4, 30: read as two channels of two
    # places that is (2, 4) and (10, 30).
    generator = PromptGenerator(2, 1, 1, layout)
    with torch.no_grad():
        generator.frequencies.weight.zero_()
        generator.embedding.weight.copy_(torch.tensor([[1.0, -1.0]]))
        hidden = generator(torch.tensor([[[[2.0, 10.0], [4.0, 30.0]]]]), torch.rand(1, 3, 16, 32))
    assert hidden.flatten().tolist() == expected


def test_without_the_way_up_it_is_the_frozen_model():
    method, image = get_method("sam_adapter")(tiny_backbone()), tiny_image(tiny_backbone())
    frozen = get_method("decoder_only")(tiny_backbone())(image).final
    assert not torch.equal(method(image).final, frozen)
    torch.nn.init.zeros_(method.prompts.up.weight)
    assert torch.equal(method(image).final, frozen)


@needs_reference
def test_the_generator_is_the_authors():
    tensors, state = reference("sam_adapter_prompt_generator")
    generator = PromptGenerator(64, 16, 3, "official")
    names = released.prompt_generator_names(3)  # by which an import takes them
    generator.load_state_dict(released.rename(state, names)[0])
    with torch.no_grad():
        hidden = generator(tensors["emb"], tensors["x"])
        assert_reference(high_frequencies(tensors["x"]), tensors["hf"])
        assert_reference(hidden, tensors["e"] + tensors["h"].flatten(2).mT)
        for i in range(3):
            assert_reference(generator.prompt(i, hidden), tensors[f"prompts/{i}"])
