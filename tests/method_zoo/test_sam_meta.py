"""Meta's own SAM encoders: equal to Meta's code, to timm's on the same weights, and their files."""

from functools import partial

import pytest
import torch
from conftest import FAMILIES, moved, tiny_backbone
from opened import image_of, native, opened, rebuilt
from safetensors.torch import save_file
from timm.layers import resample_abs_pos_embed_nhwc
from timm.models.vision_transformer_sam import checkpoint_filter_fn
from tiny_weights import Hostile
from torch import nn

from lpmoe_bench.errors import DataError, UsageError
from lpmoe_bench.model.weights.resolve import PUBLISHED, load_backbone, resolve_weights
from method_zoo.backbones.create import create_backbone
from method_zoo.backbones.sam import META_SAM, Sam
from method_zoo.options import get_method

NAME, TINY = FAMILIES["sam_meta"]


@pytest.mark.parametrize("side", [64, 96])
def test_equals_metas_code_at_its_own_size(side):
    # 96 pixels fill the windows exactly, 64 are padded.
    backbone, image = moved(NAME, **(TINY | {"img_size": side})), image_of(side, side)
    meta = rebuilt("sam_meta", backbone, img_size=side)
    assert torch.equal(opened(backbone, image), native(backbone, meta, image))


@pytest.mark.parametrize("height_width", [(64, 96), (32, 32), (128, 160)])
def test_other_sizes_resize_the_table_that_meta_leaves(height_width):
    backbone, image = tiny_backbone("sam_meta"), image_of(*height_width)
    meta = rebuilt("sam_meta", backbone)
    grid = [side // 16 for side in height_width]
    meta.pos_embed = nn.Parameter(resample_abs_pos_embed_nhwc(meta.pos_embed, grid))
    assert torch.equal(opened(backbone, image), native(backbone, meta, image))


def fused(meta: Sam, epsilon: float) -> Sam:
    """timm's encoder with the weights of Meta's, as from a checkpoint."""
    name, size = FAMILIES["sam"]
    backbone = create_backbone(name, **size, norm_layer=partial(nn.LayerNorm, eps=epsilon))
    checkpoint = {f"image_encoder.{n}": t for n, t in meta.state().items()}
    checkpoint["prompt_encoder.no_mask_embed.weight"] = torch.zeros(1, 256)
    backbone.load(checkpoint_filter_fn(checkpoint, backbone.vit))
    return backbone


def test_timm_computes_the_same_from_the_same_checkpoint():
    meta, image = tiny_backbone("sam_meta"), image_of(64, 96).double()
    expected = opened(tiny_backbone("sam_meta").double(), image)
    errors = [  # with Meta's epsilon, and that of timm's own samvit
        float((opened(fused(meta, epsilon).double(), image) - expected).abs().max())
        for epsilon in (1e-6, 1e-5)
    ]
    assert errors[0] < 1e-12 < 1e-7 < errors[1]


def test_prompts_in_metas_windows_are_those_in_timms():
    meta, outputs = tiny_backbone("sam_meta"), []
    for backbone in (meta, fused(meta, 1e-6)):
        method = get_method("vpt")(backbone, prompts=3).double().eval()
        with torch.no_grad():
            method.prompts.copy_(
                torch.linspace(-1, 1, method.prompts.numel()).view_as(method.prompts)
            )
            outputs.append(method(image_of(64, 96).double()).final)
    torch.testing.assert_close(*outputs, rtol=0, atol=1e-10)


def test_the_neck_does_not_depend_on_how_tokens_lie_in_memory():
    # Meta's norms add channels up one by one; a method may return tokens laid out otherwise.
    backbone = tiny_backbone("sam_meta")
    with torch.no_grad():
        t = backbone.embed(image_of(64, 96))
        other = t._replace(x=t.x.contiguous())
        assert other.x.stride() != t.x.stride()
        assert torch.equal(backbone.neck(other), backbone.neck(t))


def test_reset_draws_every_weight_anew():
    first, second, old = (tiny_backbone("sam_meta") for _ in range(3))
    first.reset(1)
    second.reset(1)
    for name, tensor in first.state().items():
        assert torch.equal(tensor, second.state()[name]), name
        assert not torch.equal(tensor, old.state()[name]), f"{name} was not drawn anew"
    assert bool((first.state()["neck.3.weight"] == 1).all())


@pytest.mark.parametrize(
    ("name", "count"),
    [("sam_vit_b", 89_670_912), ("sam_vit_l", 308_278_272), ("sam_vit_h", 637_026_048)],
)
def test_sizes_are_metas(name, count):
    with torch.device("meta"):
        backbone = create_backbone(name)
    assert sum(p.numel() for p in backbone.parameters()) == count
    assert backbone.vit.blocks[0].norm1.eps == 1e-6
    assert backbone.dim == META_SAM[name][0]
    assert name in PUBLISHED


def test_pixels_are_normalised_as_meta_does():
    image = torch.tensor([200.0, 100.0, 50.0]).view(1, 3, 1, 1)
    mean, std = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]  # build_sam.py
    expected = (image - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    torch.testing.assert_close(tiny_backbone("sam_meta").normalise(image / 255), expected)


# Files -----------------------------------------------------------------------------------------


@pytest.fixture
def checkpoint(tmp_path, monkeypatch):
    """A checkpoint as Meta publishes it, of a tiny encoder, and `sam_vit_b` of that size."""
    create = create_backbone
    tiny = lambda *args, **kwargs: create(*args, **(TINY | kwargs))  # noqa: E731
    monkeypatch.setattr("method_zoo.backbones.create.create_backbone", tiny)
    state = {f"image_encoder.{n}": t for n, t in tiny_backbone("sam_meta").state().items()}
    state["mask_decoder.iou_token.weight"] = torch.zeros(1, 256)
    state["prompt_encoder.no_mask_embed.weight"] = torch.zeros(1, 256)
    torch.save(state, tmp_path / "sam_vit_b_01ec64.pth")
    return tmp_path / "sam_vit_b_01ec64.pth"


def load(path, name: str = NAME):
    return load_backbone(resolve_weights(name, str(path), path.parent, offline=True), (64, 64))


def test_a_checkpoint_of_metas_is_read(checkpoint):
    backbone, expected = load(checkpoint), tiny_backbone("sam_meta")
    for name, tensor in expected.state().items():
        assert torch.equal(backbone.state()[name], tensor), name
    save_file(expected.state(), checkpoint.with_name("merged.safetensors"))
    merged = load(checkpoint.with_name("merged.safetensors"))
    assert torch.equal(merged.vit.pos_embed, expected.vit.pos_embed)


def test_timms_encoder_reads_the_same_file(checkpoint):
    backbone, expected = load(checkpoint, "samvit_base_patch16"), tiny_backbone("sam_meta")
    for name, tensor in expected.state().items():
        own = name.replace("mlp.lin", "mlp.fc")
        assert torch.equal(backbone.state()[own], tensor), name


def test_without_a_file_the_sentence_says_where_to_get_one(tmp_path):
    for name, file in PUBLISHED.items():
        with pytest.raises(UsageError, match=rf"download {file} from .*--weights {file}"):
            resolve_weights(name, None, tmp_path)
    assert resolve_weights(NAME, "random:2", tmp_path).seed == 2


def test_hostile_truncated_and_missing_checkpoints(checkpoint):
    mark = checkpoint.with_name("ran")
    torch.save({"image_encoder.pos_embed": Hostile(mark)}, checkpoint)
    with pytest.raises(DataError, match="could be code"):
        load(checkpoint)
    assert not mark.exists()
    checkpoint.write_bytes(checkpoint.read_bytes()[:200])
    with pytest.raises(DataError, match=r"01ec64\.pth is damaged") as caught:
        load(checkpoint)
    assert str(caught.value).count("01ec64") == 1
    checkpoint.unlink()
    with pytest.raises(DataError, match="there is no weights file"):
        load(checkpoint)


PATCHES, ONE = "image_encoder.patch_embed.proj.weight", torch.zeros(1)


@pytest.mark.parametrize(
    ("state", "sentence"),
    [
        ({PATCHES: torch.zeros(48, 3, 16, 16), "image_encoder.neck.0.weight": ONE}, "missing"),
        ({PATCHES: torch.zeros(()), "image_encoder.neck.0.weight": ONE}, "no image encoder"),
        ({"image_encoder.pos_embed": torch.zeros(1, 4, 4, 48)}, "no image encoder"),
        ({"mask_decoder.iou_token.weight": ONE}, "a decoder of SAM without its image encoder"),
    ],
)
def test_other_files_are_refused_with_one_sentence(checkpoint, state, sentence):
    torch.save(state, checkpoint)
    with pytest.raises(DataError, match=sentence) as caught:
        load(checkpoint)
    assert str(checkpoint) in str(caught.value)
    assert "\n" not in str(caught.value)
