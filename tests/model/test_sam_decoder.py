"""SAM's mask decoder: the published one's numbers, and weights that come from its checkpoint."""

import json
from pathlib import Path

import pytest
import torch
from reference_tensors import assert_reference, needs_reference, reference
from safetensors.torch import load_file, save_file
from segment_anything.modeling import MaskDecoder, PromptEncoder, TwoWayTransformer
from tiny_runs import BACKBONE, PARAMETERS, WIDTH, call, folders, only_run
from torch import Tensor

from lpmoe_bench.errors import DataError, UsageError
from lpmoe_bench.model.costs import count_parameters
from lpmoe_bench.model.decoders.decoder import Inputs, load_decoder_weights, resolve_decoder_weights
from lpmoe_bench.model.decoders.matched import query_scores
from lpmoe_bench.model.decoders.names import get_decoder
from lpmoe_bench.model.decoders.sam import NORM_EPS, WEIGHTS, SamDecoder, _set_eps, decode_tokens
from lpmoe_bench.model.matching import matching_loss, truth_of_labels
from lpmoe_bench.model.segmenter import Segmenter, load_trained
from lpmoe_bench.model.weights.checkpoint import read_checkpoint
from lpmoe_bench.records.store import read_record
from method_zoo.backbones.create import create_backbone
from method_zoo.errors import ZooError
from method_zoo.method import Features
from method_zoo.options import get_method

FULL, PROMPTS, IOU_HEAD = 4_058_340, 6_220, 132_612
GRID = (3, 5)


def published(masks: int = 4) -> tuple[PromptEncoder, MaskDecoder]:
    """Meta's modules for a grid, with as many mask tokens as asked for."""
    torch.manual_seed(5)
    transformer = TwoWayTransformer(depth=2, embedding_dim=256, num_heads=8, mlp_dim=2048)
    decoder = MaskDecoder(
        transformer_dim=256, transformer=transformer, num_multimask_outputs=masks - 1
    )
    size = (16 * GRID[0], 16 * GRID[1])
    return PromptEncoder(256, GRID, size, mask_in_chans=16).eval(), decoder.eval()


def checkpoint() -> dict[str, Tensor]:
    """A whole checkpoint as Meta writes it, with a stub for the image encoder."""
    prompts, decoder = published()
    state = {"image_encoder.pos_embed": torch.zeros(1, 64, 64, 8)}
    state |= {f"prompt_encoder.{k}": v for k, v in prompts.state_dict().items()}
    return state | {f"mask_decoder.{k}": v for k, v in decoder.state_dict().items()}


def sam(channels: int = 256, classes: int = 1, seed: int = 0, **options) -> SamDecoder:
    torch.manual_seed(seed)
    return SamDecoder(Inputs([channels], [16], channels), classes, **options).eval()


def features(channels: int = 256) -> Features:
    final = torch.randn(2, channels, *GRID, generator=torch.Generator().manual_seed(0))
    return Features([], final, torch.zeros(()))


def test_counts_on_sam_huge():
    with torch.device("meta"):
        method = get_method("decoder_only")(create_backbone("samvit_huge_patch16"))
        counts = count_parameters(Segmenter(method, sam()))
    assert counts["decoder"] == counts["trainable"] == 3_505_536
    assert counts["frozen"] == 637_026_048 + PROMPTS + IOU_HEAD
    # The shares that papers print are of the whole of SAM, the cut parts included.
    assert counts["published"] == 641_090_608
    assert round(100 * (counts["share_of_published"] or 0), 2) == 0.55


@pytest.mark.parametrize(("channels", "classes"), [(256, 1), (48, 1), (256, 3), (256, 12)])
def test_counts_of_other_widths_and_classes(channels: int, classes: int):
    decoder = sam(channels, classes)
    trained = sum(p.numel() for p in decoder.parameters() if p.requires_grad)
    projection = 0 if channels == 256 else 256 * channels + 256
    of_classes = 256 * 9 + 257 * (classes + 1) if classes > 1 else 0  # ten tokens, a class layer
    assert trained == 3_505_536 + projection + of_classes
    assert trained == {12: 3_511_181}.get(classes, trained)
    assert decoder.published_parameters == FULL + PROMPTS
    frozen = {n for n, p in decoder.named_parameters() if not p.requires_grad}
    parts = ("prompt_encoder.", "mask_decoder.iou_prediction_head.")
    assert frozen == {n for n, _ in decoder.named_parameters() if n.startswith(parts)}


def test_it_equals_the_authors_modules_cut_to_one_token():
    ours = sam()
    ours.load_published(checkpoint())
    prompts, whole = published()
    _, one = published(masks=1)
    state = {k: v for k, v in whole.state_dict().items() if not k.startswith("iou_prediction")}
    state["mask_tokens.weight"] = state["mask_tokens.weight"][:1]
    one.load_state_dict({k: v for k, v in state.items() if "mlps.0" in k or "mlps" not in k}, False)
    given = features()
    for index in range(2):  # image by image, as the authors run it
        sparse, dense = prompts(None, None, None)
        expected, _ = one(
            image_embeddings=given.final[index : index + 1],
            image_pe=prompts.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=False,
        )
        found = ours(given)[index : index + 1]
        assert found.shape == (1, 1, 4 * GRID[0], 4 * GRID[1])
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_places_stay_exact_in_half_precision():
    decoder, seen = sam(), []
    places = decoder.prompt_encoder.pe_layer
    places.register_forward_hook(lambda module, given, place: seen.append(place))
    decoder(features())
    with torch.autocast("cpu", torch.bfloat16):
        decoder(features())
    assert seen[1].dtype is torch.float32
    assert torch.equal(*seen)


def test_every_token_starts_from_the_single_mask():
    one, three = sam(), sam(classes=3, seed=1)
    for decoder in (one, three):
        decoder.load_published(checkpoint())
    tokens = three.mask_decoder.mask_tokens.weight
    assert torch.equal(tokens, one.mask_decoder.mask_tokens.weight.expand(10, -1))
    _, masks = three.queries_of(features())
    torch.testing.assert_close(masks, masks[:, :1].expand(-1, 10, -1, -1))


def test_matching_tells_the_tokens_apart_and_no_other_loss_is_taken():
    decoder = sam(classes=3, points=64).train()
    decoder.train_with("matching", "semantic")
    targets = torch.zeros(2, 48, 80, dtype=torch.long)
    targets[:, 10:30, 10:40], targets[0, 30:, 50:] = 1, 2
    decoder.loss(features(), targets, (48, 80)).backward()
    gradient = decoder.mask_decoder.mask_tokens.weight.grad
    assert gradient is not None
    assert (gradient - gradient[:1]).abs().max() > 0.1 * gradient.abs().max()
    with pytest.raises(UsageError, match="by which its equal tokens stay equal"):
        decoder.train_with("ce_dice", "semantic")


def autogluon() -> tuple[MaskDecoder, torch.nn.Linear, dict[str, Tensor]]:
    """The published module of tests' reference: its weights under Meta's names, and all tensors."""
    tensors, state = reference("autogluon_multiclass_sam_head")
    transformer = TwoWayTransformer(depth=2, embedding_dim=32, num_heads=2, mlp_dim=64)
    decoder = MaskDecoder(transformer_dim=32, transformer=transformer)
    decoder.mask_tokens = torch.nn.Embedding(10, 32)
    decoder.output_hypernetworks_mlps = decoder.output_hypernetworks_mlps[:1]
    label, renamed = torch.nn.Linear(32, 6), {}
    for name, tensor in state.items():
        mlp = "output_hypernetworks" in name
        for theirs, meta in MLP_NAMES if mlp else NAMES:
            name = name.replace(theirs, meta)
        renamed[name] = tensor
    prefix = "output_classifier_mlps."
    own = {k.removeprefix(prefix): renamed.pop(k) for k in list(renamed) if k.startswith(prefix)}
    label.load_state_dict(own)
    found = decoder.load_state_dict(renamed, strict=False)
    assert not found.unexpected_keys
    assert all("iou_prediction_head" in name for name in found.missing_keys)
    _set_eps(decoder, NORM_EPS)
    return decoder.eval(), label, tensors


MLP_NAMES = ((".layers.0.", ".layers.1."), ("proj_in", "layers.0"), ("proj_out", "layers.2"))
NAMES = (
    ("layer_norm", "norm"),
    ("upscale_conv1", "output_upscaling.0"),
    ("upscale_norm", "output_upscaling.1"),
    ("upscale_conv2", "output_upscaling.3"),
)


@needs_reference
def test_several_classes_equal_autogluons_head():
    decoder, label, tensors = autogluon()
    given = (tensors[k] for k in ("image_embeddings", "image_positional", "dense_prompt"))
    with torch.no_grad():
        tokens, masks = decode_tokens(decoder, *given)
        labels = label(tokens)
    assert_reference(masks, tensors["mask_logits"])
    assert_reference(labels, tensors["class_logits"])
    large = torch.nn.functional.interpolate(masks, (48, 48), mode="bilinear")
    assert_reference(query_scores(labels, large), tensors["semantic_at_2x"])


@needs_reference
def test_the_loss_is_autogluons_as_it_is_really_applied():
    tensors, _ = reference("autogluon_multiclass_sam_head")
    truth = truth_of_labels(tensors["labels"].long())
    masks = torch.nn.functional.interpolate(tensors["mask_logits"], (48, 48), mode="bilinear")
    parts = [tensors[f"loss_seed0/loss_{k}"] for k in ("cross_entropy", "mask", "dice")]
    released, intended = WEIGHTS["released"], WEIGHTS["intended"]
    for weights in (released, intended):
        torch.manual_seed(0)
        loss = matching_loss(tensors["class_logits"], masks, truth, weights=weights)
        expected = sum(w * part for w, part in zip(weights, parts, strict=True))
        torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-5)
    assert released == (1, 1, 1)


def test_several_classes_through_the_decoder():
    decoder, given = sam(classes=3, tokens=4, points=100), features()
    size = (16 * GRID[0], 16 * GRID[1])
    labels, masks = decoder.queries_of(given)
    assert labels.shape == (2, 4, 4)
    assert masks.shape == (2, 4, 4 * GRID[0], 4 * GRID[1])
    # Scores are of masks at the images' size, and the loss looks at these there.
    large = torch.nn.functional.interpolate(masks, size, mode="bilinear")
    scores = torch.einsum("bqk,bqhw->bkhw", labels.softmax(-1)[..., :3], large.sigmoid())
    torch.testing.assert_close(decoder.predict(given, size).exp(), scores, atol=1e-5, rtol=1e-5)
    target = torch.randint(3, (2, *size), generator=torch.Generator().manual_seed(1))
    decoder.train_with("matching", "semantic")
    torch.manual_seed(4)
    loss = decoder.loss(given, target, size)
    torch.manual_seed(4)
    expected = matching_loss(labels, large, truth_of_labels(target), 100, WEIGHTS["released"])
    torch.testing.assert_close(loss, expected)
    eps = {m.eps for m in decoder.mask_decoder.transformer.modules() if hasattr(m, "eps")}
    assert eps == {1e-6}


def test_options_of_classes_are_refused_for_one_mask():
    for name, value in (("tokens", 4), ("weights", "intended"), ("points", 100)):
        with pytest.raises(UsageError, match=f"option {name} .* is for tasks of several classes"):
            sam(**{name: value})
    with pytest.raises(UsageError, match="weights is 'half'; allowed are released, intended"):
        sam(classes=3, weights="half")
    with pytest.raises(UsageError, match="tokens is 0 and points 12544; both must be 1 or more"):
        sam(classes=3, tokens=0)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", "-module.ckpt"])
def test_weights_come_from_a_checkpoint(tmp_path, suffix: str):
    path, state = tmp_path / f"sam{suffix}", checkpoint()
    if suffix == ".safetensors":
        save_file(state, path)
    elif suffix == ".pth":
        torch.save(state, path)
    else:  # as a training of several processes leaves it
        torch.save({"model": {f"module.{name}": t for name, t in state.items()}}, path)
    weights = resolve_decoder_weights(get_decoder("sam"), str(path))
    assert weights.sha256
    assert not weights.note
    one, other = sam(48, seed=1), sam(48, seed=2)
    other.load_state_dict({k: v for k, v in one.state_dict().items() if "project" in k}, False)
    for decoder in (one, other):
        load_decoder_weights(decoder, weights)
    assert torch.equal(one(features(48)), other(features(48)))
    own = one.mask_decoder.transformer.state_dict()
    assert all(torch.equal(v, state[f"mask_decoder.transformer.{k}"]) for k, v in own.items())


@pytest.mark.parametrize("change", ["missing", "surplus", "shape", "no rows", "encoder only"])
def test_other_weights_are_one_sentence_and_change_nothing(tmp_path, change: str):
    state, path, decoder = checkpoint(), tmp_path / "sam.pth", sam()
    if change == "missing":
        del state["mask_decoder.transformer.norm_final_attn.bias"]
    elif change == "surplus":
        state["mask_decoder.embedding_encoder.0.weight"] = torch.zeros(1)  # HQ-SAM has more
    elif change == "shape":
        state["prompt_encoder.no_mask_embed.weight"] = torch.zeros(1, 128)
    elif change == "no rows":
        state["mask_decoder.mask_tokens.weight"] = torch.zeros(0, 256)
    else:
        state = {k: v for k, v in state.items() if k.startswith("image_encoder")}
    torch.save(state, path)
    before = {k: v.clone() for k, v in decoder.state_dict().items()}
    with pytest.raises(DataError, match="holds no mask decoder of SAM: ") as caught:
        load_decoder_weights(decoder, resolve_decoder_weights(get_decoder("sam"), str(path)))
    assert "\n" not in str(caught.value)
    assert all(torch.equal(v, before[k]) for k, v in decoder.state_dict().items())
    assert read_checkpoint(path)


def test_without_a_checkpoint_it_is_called_random(tmp_path):
    assert resolve_decoder_weights(get_decoder("sam"), None).note == "random decoder"
    assert resolve_decoder_weights(get_decoder("fpn"), None).note == ""
    with pytest.raises(DataError, match="there is no weights file"):
        resolve_decoder_weights(get_decoder("sam"), str(tmp_path / "none.pth"))
    with pytest.raises(UsageError, match="FPN always starts at random"):
        resolve_decoder_weights(get_decoder("fpn"), str(tmp_path / "none.pth"))
    with pytest.raises(ZooError, match="unknown decoder"):
        resolve_decoder_weights(get_decoder("smm"), None)


# Decoder weights through a run: hashed only where given, in the record, in the state.


PUBLISHED = sorted((Path(__file__).parents[2] / "results/records").rglob("run.json"))


def arguments(data: Path, runs: Path, *more: str) -> list[str]:
    """A run of one epoch on a random backbone, 24 images of 64 pixels."""
    return [
        *("run", "--method", "decoder_only", *folders(data), "--runs", str(runs), "--size", "64"),
        *("--backbone", BACKBONE, "--weights", "random:3"),
        *("--set", "train.batch=8", "--set", "train.epochs=1", *more),
    ]


def planned(data: Path, tmp_path: Path, *more: str) -> dict:
    done = call([*arguments(data, tmp_path / "runs", *more), "--dry-run", "--json"])
    assert done.code == 0, done.stderr
    return json.loads(done.stdout) | {"said": done.stderr}


def test_the_digest_is_hashed_and_the_path_is_not(data: Path, tmp_path: Path):
    one, same, other = (tmp_path / name for name in ("one.pth", "same.pth", "other.pth"))
    torch.save({"a": torch.zeros(1)}, one)
    same.write_bytes(one.read_bytes())
    torch.save({"a": torch.ones(1)}, other)
    plain = planned(data, tmp_path, "--decoder", "sam")
    given = [
        planned(data, tmp_path, "--decoder", "sam", "--decoder-weights", str(path))
        for path in (one, same, other)
    ]
    assert "decoder sam: random decoder" in plain["said"]
    assert "random decoder" not in given[0]["said"]
    prints = [plan["fingerprint"] for plan in (plain, *given)]
    assert prints[1] == prints[2]
    assert len(set(prints)) == 3


@pytest.mark.parametrize(
    ("more", "code", "sentence"),
    [
        (["--decoder", "sam", "--decoder-weights", "none.pth"], 3, "no weights file none.pth"),
        (
            ["--decoder", "sam", "--decoder-weights", "sam.zip"],
            2,
            "no file of weights that is read here",
        ),
        (["--decoder-weights", "none.pth"], 2, "FPN always starts at random"),
        (["--decoder", "sam", "--set", "decoder.tokens=3"], 2, "is for tasks of several classes"),
        (["--decoder", "sam", "--set", "decoder.width=8"], 2, "unknown option of decoder SAM"),
    ],
)
def test_wrong_requests_are_one_sentence(
    data: Path, tmp_path: Path, more: list[str], code: int, sentence: str
):
    done = call(arguments(data, tmp_path / "runs", *more))
    assert done.code == code
    assert sentence in done.stderr.splitlines()[-1]


def test_a_run_names_its_weights_and_no_longer_needs_them(data: Path, tmp_path: Path):
    path, state = tmp_path / "sam.pth", checkpoint()
    torch.save(state, path)
    chosen = ("--decoder", "sam", "--decoder-weights", str(path))
    done = call(arguments(data, tmp_path / "runs", *chosen))
    assert done.code == 0, done.stderr
    folder = only_run(tmp_path / "runs")
    record, text = read_record(folder), (folder / "run.json").read_text()
    assert record.decoder
    assert record.decoder.weights_source == record.config["decoder_weights"] == "sam.pth"
    assert record.decoder.weights_sha256
    assert record.decoder.note == ""
    assert str(tmp_path) not in text
    assert record.parameters
    assert record.parameters.decoder == 3_505_536 + WIDTH * 256 + 256
    assert record.parameters.published == PARAMETERS + 4_058_340 + 6_220
    path.unlink()
    trained, _ = load_trained(folder, tmp_path)
    saved = load_file(folder / "adapter.safetensors")
    kept = "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"  # frozen, from the file
    assert torch.equal(saved[f"decoder.{kept}"], state[kept])
    found = trained.decoder.state_dict()
    assert all(torch.equal(v, saved[f"decoder.{k}"]) for k, v in found.items())
