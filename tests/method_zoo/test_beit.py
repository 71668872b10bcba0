"""BEiT opened: its biases of pairs, one fixed grid, prompts, weights of another size."""

import pytest
import timm
import torch
from conftest import SIZE, moved, tiny_backbone, tiny_image
from opened import image_of, native, opened
from safetensors.torch import save_file

from lpmoe_bench.config.settings import RunConfig
from lpmoe_bench.errors import DataError
from lpmoe_bench.model.segmenter import build_segmenter
from lpmoe_bench.model.weights.resolve import load_backbone, resolve_weights
from method_zoo.backbones.create import create_backbone
from method_zoo.errors import ZooError
from method_zoo.options import get_method

NAME = "beit_base_patch16_224"


@pytest.mark.parametrize(
    "options",
    [
        {"use_rel_pos_bias": False, "use_shared_rel_pos_bias": True},
        {"use_shared_rel_pos_bias": True},
        {"use_rel_pos_bias": False, "use_abs_pos_emb": True},
        {"qkv_bias": False, "init_values": None},
        {"swiglu_mlp": True, "scale_mlp": True},
        {"patch_size": 8, "img_size": (32, 48), "use_abs_pos_emb": True},
    ],
    ids=lambda options: "-".join(options),
)
def test_equals_timm_for_every_option(options):
    size = SIZE | {"img_size": (64, 96)} | options
    backbone, image = moved(NAME, **size), image_of(64, 96)
    vit = timm.create_model(NAME, num_classes=0, global_pool="", **size)
    vit.load_state_dict(backbone.state())
    assert torch.equal(opened(backbone, image), native(backbone, vit, image))


def test_prompts_beside_a_block_by_hand():
    """Two prompts between class token and patches: a softmax with no bias where they take part."""
    backbone = tiny_backbone("beit")
    attn, width = backbone.vit.blocks[1].attn, backbone.dim // backbone.heads
    torch.manual_seed(0)
    with torch.no_grad():
        t = backbone.embed(tiny_image(backbone)).insert(torch.randn(2, backbone.dim))
        got, _ = backbone._self_attention(1, t.x, t)
        q, k, v = (
            m.unflatten(2, (backbone.heads, width)).transpose(1, 2)
            for m in attn.qkv(t.x).chunk(3, dim=2)
        )
        scores = q @ k.transpose(2, 3) / width**0.5
        table, last = attn.relative_position_bias_table, 7 * 11  # rows -3..3, columns -5..5
        scores[:, :, 0, 0] += table[last + 2]
        for a in range(24):
            scores[:, :, 0, 3 + a] += table[last]
            scores[:, :, 3 + a, 0] += table[last + 1]
            for b in range(24):
                place = (a // 6 - b // 6 + 3) * 11 + a % 6 - b % 6 + 5
                scores[:, :, 3 + a, 3 + b] += table[place]
        expected = attn.proj((scores.softmax(3) @ v).transpose(1, 2).flatten(2))
    torch.testing.assert_close(got, expected)


def test_another_size_is_refused_with_a_sentence():
    backbone = tiny_backbone("beit")
    assert backbone.fixed_grid == (4, 6)
    with pytest.raises(ZooError, match=r"built for images of 64 x 96, not 96 x 64: resize them"):
        backbone.embed(image_of(96, 64))
    with pytest.raises(ZooError, match="built for images of 64 x 96, not 64 x 64"):
        get_method("lpmoe")(backbone)(image_of(64, 64))


def test_it_is_built_for_the_size_of_the_images():
    options = {"embed_dim": 48, "depth": 1, "num_heads": 3}
    assert create_backbone(NAME, **options).fixed_grid == (14, 14)
    assert create_backbone(NAME, size=(256, 320), **options).fixed_grid == (16, 20)
    finer = create_backbone(NAME, size=(64, 96), patch_size=8, **options)
    assert finer.fixed_grid == (4, 6)
    assert finer.patchify(image_of(64, 96)).shape == (2, 4, 6, 48)
    # Other families take every size anyway.
    plain = create_backbone("vit_tiny_patch16_224", size=(256, 256), **options)
    assert plain.vit.pos_embed.shape[1] == 1 + 14 * 14
    assert plain.fixed_grid is None


@pytest.fixture
def checkpoint(tmp_path, monkeypatch):
    """A file of BEiT at 64 px, and its name with tiny blocks behind it."""
    from method_zoo.backbones import create as create_module

    create = create_module.create_backbone
    monkeypatch.setattr(create_module, "create_backbone", lambda *a, **k: create(*a, **(SIZE | k)))
    state = moved(NAME, **SIZE, img_size=64, use_shared_rel_pos_bias=False).state()
    for i in range(4):  # a bias that grows along the columns, whatever the row
        columns = torch.arange(-3.0, 4.0)[None, :, None].expand(7, 7, 3)
        table = state[f"blocks.{i}.attn.relative_position_bias_table"]
        table[:49] = columns.reshape(49, 3)
    path = tmp_path / "beit.safetensors"
    save_file(state, path)
    return path


def test_weights_of_another_size_are_resized(tmp_path, checkpoint):
    weights = resolve_weights(NAME, str(checkpoint), tmp_path, offline=True)
    backbone = load_backbone(weights, (128, 128))
    assert backbone.fixed_grid == (8, 8)
    assert opened(backbone, image_of(128, 128)).shape == (2, 65, 48)
    old = load_backbone(weights, (64, 64)).state()
    for name, tensor in backbone.state().items():
        if not name.endswith("table"):
            assert torch.equal(tensor, old[name]), name
            continue
        grown = tensor[:-3].view(15, 15, 3)
        assert torch.equal(tensor[-3:], old[name][-3:])  # what the class token has
        torch.testing.assert_close(grown, grown[:1].expand_as(grown), rtol=0, atol=1e-5)
        # Neighbours keep their bias, the far ends theirs; between them the steps get wider.
        ends = torch.tensor([-3.0, -1.0, 0.0, 1.0, 3.0])[:, None].expand(5, 3)
        torch.testing.assert_close(grown[0, [0, 6, 7, 8, 14]], ends, rtol=0, atol=1e-4)
        assert bool((grown[0, 3:11] < grown[0, 4:12]).all())


def test_a_run_builds_it_for_its_own_size(tmp_path, checkpoint):
    weights = resolve_weights(NAME, str(checkpoint), tmp_path, offline=True)
    config = RunConfig(backbone=NAME, method="decoder_only", size=96)
    segmenter = build_segmenter(config, weights)
    assert segmenter.method.backbone.fixed_grid == (6, 6)
    assert segmenter(image_of(96, 96)).shape == (2, 1, 96, 96)


def test_weights_of_another_model_are_refused(tmp_path, checkpoint):
    save_file(tiny_backbone("plain").state(), checkpoint)
    with pytest.raises(DataError, match=r"beit\.safetensors: .*made for this backbone"):
        resolve_weights(NAME, str(checkpoint), tmp_path, offline=True)
