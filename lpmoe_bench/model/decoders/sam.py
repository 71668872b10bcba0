"""SAM: the mask decoder of Segment Anything without a prompt, of one mask or of several classes.

Kirillov et al., ICCV 2023, arXiv 2304.02643, through the package `segment_anything`, in the
automatic mode of Conv-LoRA (Zhong et al., ICLR 2024, arXiv 2401.17868): no points and no boxes, the
learnt no-mask vector added everywhere, positions made for the grid at hand.

Several classes as in AutoGluon, whose code is Conv-LoRA's: mask tokens are queries, and a linear
layer gives each a class or "nothing". The score of a class is S_c = sum over tokens q of p(q, c)
m(q), m the sigmoid of the token's mask at the images' size.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from segment_anything.modeling import MaskDecoder, PromptEncoder, TwoWayTransformer
from torch import Tensor, nn

from lpmoe_bench.config.settings import MATCHING
from lpmoe_bench.errors import DataError, UsageError
from lpmoe_bench.model.decoders.decoder import Inputs
from lpmoe_bench.model.decoders.matched import SMALLEST, MatchedDecoder, query_scores
from lpmoe_bench.model.matching import PartWeights
from method_zoo.method import Features
from method_zoo.parts.deformable import full_precision

WIDTH = 256
PROMPTS, MASKS = "prompt_encoder.", "mask_decoder."
TOKENS, HYPERNETWORKS = "mask_tokens.weight", "output_hypernetworks_mlps."
NORM_EPS = 1e-6  # of several classes: AutoGluon's copy of the transformer has this, Meta's 1e-5
# Of the matching loss. AutoGluon configures the second and hands it to a class that does not look
# at it, so its parts are added as they are; the assignment weighs 2, 5 and 5 in both cases.
WEIGHTS = {"released": PartWeights(1, 1, 1), "intended": PartWeights(10, 5, 5)}


class SamDecoder(MatchedDecoder):
    """Logits at stride 4. Two-way transformer, tokens, upscaler and hypernetwork are trained.

    Of SAM's four mask tokens and hypernetworks the first ones, those for a single mask, are kept.
    The head that predicts IoU and the prompt encoder are frozen. Other widths than 256 pass a
    trained 1 x 1 convolution. Random unless --decoder-weights is given.

    Of several classes alone: tokens: how many, which all start as that first one and share its
    hypernetwork. weights: of the matching loss, released (its parts as they are, as the code really
    computes) or intended (10, 5, 5, as it is configured). points: at which it compares masks.
    """

    title = "SAM mask decoder"
    reads = "final"
    paper = "arXiv 2304.02643"
    fidelity = (
        "the authors' own modules; automatic mode, and several classes, as in Conv-LoRA's code"
    )
    later_options = {"tokens": 10, "weights": "released", "points": 12_544}
    published = "SAM"
    unread = (
        *("prompt_encoder.point_embeddings.", "prompt_encoder.not_a_point_embed."),
        *("prompt_encoder.mask_downscaling.", "mask_decoder.iou_prediction_head."),
    )

    def __init__(
        self,
        inputs: Inputs,
        classes: int,
        tokens: int = 10,
        weights: str = "released",
        points: int = 12_544,
    ):
        super().__init__()
        self.refuse_for_one(classes, tokens=tokens, weights=weights, points=points)
        if weights not in WEIGHTS:
            raise UsageError(f"option weights is {weights!r}; allowed are {', '.join(WEIGHTS)}")
        if tokens < 1 or points < 1:
            raise UsageError(f"tokens is {tokens} and points {points}; both must be 1 or more")
        self.classes, self.points, self.weights = classes, points, WEIGHTS[weights]
        same = inputs.final == WIDTH
        self.project = nn.Identity() if same else nn.Conv2d(inputs.final, WIDTH, 1)
        # Its sizes are those of the prompts, which there are none of; the grid may be any.
        self.prompt_encoder = PromptEncoder(WIDTH, (64, 64), (1024, 1024), mask_in_chans=16)
        transformer = TwoWayTransformer(depth=2, embedding_dim=WIDTH, num_heads=8, mlp_dim=2048)
        self.mask_decoder = MaskDecoder(transformer_dim=WIDTH, transformer=transformer)
        parts = (self.prompt_encoder, self.mask_decoder)
        self.published_parameters = sum(p.numel() for part in parts for p in part.parameters())
        self._cut(tokens if classes > 1 else 1)
        if classes > 1:
            self.label = nn.Linear(WIDTH, classes + 1)
            _set_eps(transformer, NORM_EPS)
        self.prompt_encoder.requires_grad_(False)
        self.mask_decoder.iou_prediction_head.requires_grad_(False)

    def train_with(
        self, loss: str, kind: str = "binary", class_weights: Sequence[float] | None = None
    ) -> None:
        if self.classes > 1 and loss != MATCHING:
            raise UsageError(
                f"decoder sam tells classes apart by loss {MATCHING} alone, and train.loss is "
                f"{loss}, by which its equal tokens stay equal: all pixels would get one class; "
                f"leave train.loss out, or choose another decoder"
            )
        super().train_with(loss, kind, class_weights)

    def _cut(self, count: int) -> None:
        """Keep the first hypernetwork, and as many copies of the first mask token as asked for."""
        decoder = self.mask_decoder
        tokens = nn.Embedding(count, WIDTH)
        with torch.no_grad():
            tokens.weight.copy_(decoder.mask_tokens.weight[:1].expand(count, -1))
        decoder.mask_tokens, decoder.num_mask_tokens = tokens, count
        decoder.output_hypernetworks_mlps = decoder.output_hypernetworks_mlps[:1]

    def forward(self, features: Features) -> Tensor:
        if self.classes > 1:
            return torch.log(query_scores(*self.queries_of(features)) + SMALLEST)
        masks, _ = self.mask_decoder.predict_masks(
            image_embeddings=(x := self.project(features.final)),
            image_pe=self._places(x),
            sparse_prompt_embeddings=x.new_zeros(1, 0, WIDTH),
            dense_prompt_embeddings=self._no_mask,
        )
        return masks

    def predict(self, features: Features, size: Sequence[int]) -> Tensor:
        """Return logits at the images' size, of several classes log S_c."""
        if self.classes == 1:
            return super().predict(features, size)
        return torch.log(query_scores(*self.matched(features, size)) + SMALLEST)

    def matched(self, features: Features, size: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return labels, and masks at the images' size: the loss looks at these there."""
        labels, masks = self.queries_of(features)
        size = tuple(size)
        return labels, F.interpolate(masks.float(), size, mode="bilinear", align_corners=False)

    def queries_of(self, features: Features) -> tuple[Tensor, Tensor]:
        x = self.project(features.final)
        tokens, masks = decode_tokens(self.mask_decoder, x, self._places(x), self._no_mask)
        return self.label(tokens), masks

    @property
    def _no_mask(self) -> Tensor:
        return self.prompt_encoder.no_mask_embed.weight.view(1, WIDTH, 1, 1)

    def _places(self, x: Tensor) -> Tensor:
        with full_precision(x):  # sines of half-precision coordinates would misplace the patches
            return self.prompt_encoder.pe_layer((x.shape[-2], x.shape[-1])).unsqueeze(0)

    def load_published(self, state: dict[str, Tensor]) -> None:
        """Take `mask_decoder.*` and `prompt_encoder.*` of a SAM checkpoint of any encoder size.

        Raises DataError where they are not all there, or of another shape.
        """
        # A training may have its model under a prefix, such as `module.`.
        prefix = next((k.partition(MASKS)[0] for k in state if f".{MASKS}" in f".{k}"), "")
        state = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        taken = self.cut({k: v for k, v in state.items() if k.startswith((PROMPTS, MASKS))})
        own = {k: v for k, v in self.state_dict().items() if k.startswith((PROMPTS, MASKS))}
        wrong = sorted(k for k in own.keys() | taken.keys() if _shape(own, k) != _shape(taken, k))
        if wrong:
            raise DataError(
                f"no mask decoder of SAM: {len(wrong)} of {len(own)} tensors are missing, unknown "
                f"or of another shape, such as {wrong[0]}; use a whole SAM checkpoint"
            )
        self.load_state_dict(taken, strict=False)

    def cut(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return tensors of SAM's decoder, of the mask tokens and hypernetworks the first ones."""
        count = self.mask_decoder.num_mask_tokens
        taken: dict[str, Tensor] = {}
        for name, tensor in state.items():
            _, listed, rest = name.partition(MASKS + HYPERNETWORKS)
            if name == MASKS + TOKENS:
                taken[name] = torch.cat([tensor[:1]] * count)
            elif not listed or rest.startswith("0."):
                taken[name] = tensor
        return taken


def decode_tokens(
    decoder: MaskDecoder, image: Tensor, places: Tensor, dense: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the mask tokens after the transformer, (B, Q, C), and their masks, (B, Q, 4H, 4W).

    All tokens share the decoder's first hypernetwork.

    Args:
        decoder: of the package; how many mask tokens it has is free.
        image: (B, C, H, W).
        places: positions of the grid, (1, C, H, W).
        dense: added everywhere, (1 or B, C, 1, 1).
    """
    x = image + dense
    tokens = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
    tokens = tokens.expand(len(x), -1, -1)
    tokens, read = decoder.transformer(x, places.expand(len(x), -1, -1, -1), tokens)
    tokens = tokens[:, 1:]  # the first one is for the head that predicts IoU
    # The hypernetwork makes a token a vector of the
    # upscaled map's channels; their product is its mask.
    upscaled = decoder.output_upscaling(read.transpose(1, 2).view_as(x))
    weights = decoder.output_hypernetworks_mlps[0](tokens)
    return tokens, torch.einsum("bqc,bchw->bqhw", weights, upscaled)


def _set_eps(module: nn.Module, eps: float) -> None:
    for part in module.modules():
        if isinstance(part, nn.LayerNorm):
            part.eps = eps


def _shape(state: dict[str, Tensor], name: str) -> torch.Size | None:
    return state[name].shape if name in state else None
