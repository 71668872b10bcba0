"""SAM: the mask decoder of Segment Anything without a prompt, one mask token a class.

Kirillov et al., ICCV 2023, arXiv 2304.02643, through the package `segment_anything`, in the
automatic mode of Conv-LoRA (Zhong et al., ICLR 2024, arXiv 2401.17868): no points and no boxes, the
learnt no-mask vector added everywhere, positions made for the grid at hand.
"""

import copy

import torch
from segment_anything.modeling import MaskDecoder, PromptEncoder, TwoWayTransformer
from torch import Tensor, nn

from lpmoe_bench.errors import DataError
from lpmoe_bench.model.decoders.decoder import Decoder, Inputs
from method_zoo.method import Features
from method_zoo.parts.deformable import full_precision

WIDTH = 256
PROMPTS, MASKS = "prompt_encoder.", "mask_decoder."
TOKENS, HYPERNETWORKS = "mask_tokens.weight", "output_hypernetworks_mlps."


class SamDecoder(Decoder):
    """Logits at stride 4. Two-way transformer, tokens, upscaler and hypernetwork are trained.

    Of SAM's four mask tokens and hypernetworks the first ones, those for a single mask, serve every
    class; the others are cut. The head that predicts IoU and the prompt encoder are frozen. Other
    widths than 256 pass a trained 1 x 1 convolution. Random unless --decoder-weights is given.
    """

    title = "SAM mask decoder"
    reads = "final"
    paper = "arXiv 2304.02643"
    fidelity = "the authors' own modules; automatic mode as in Conv-LoRA's code"
    published = "SAM"
    unread = (
        *("prompt_encoder.point_embeddings.", "prompt_encoder.not_a_point_embed."),
        *("prompt_encoder.mask_downscaling.", "mask_decoder.iou_prediction_head."),
    )

    def __init__(self, inputs: Inputs, classes: int):
        super().__init__()
        same = inputs.final == WIDTH
        self.project = nn.Identity() if same else nn.Conv2d(inputs.final, WIDTH, 1)
        # Its sizes are those of the prompts, which there are none of; the grid may be any.
        self.prompt_encoder = PromptEncoder(WIDTH, (64, 64), (1024, 1024), mask_in_chans=16)
        transformer = TwoWayTransformer(depth=2, embedding_dim=WIDTH, num_heads=8, mlp_dim=2048)
        self.mask_decoder = MaskDecoder(transformer_dim=WIDTH, transformer=transformer)
        parts = (self.prompt_encoder, self.mask_decoder)
        self.published_parameters = sum(p.numel() for part in parts for p in part.parameters())
        self._cut(classes)
        self.prompt_encoder.requires_grad_(False)
        self.mask_decoder.iou_prediction_head.requires_grad_(False)

    def _cut(self, classes: int) -> None:
        """Keep a copy of the first mask token and hypernetwork for each class."""
        decoder = self.mask_decoder
        tokens = nn.Embedding(classes, WIDTH)
        with torch.no_grad():
            tokens.weight.copy_(decoder.mask_tokens.weight[:1].expand(classes, -1))
        first = decoder.output_hypernetworks_mlps[0]
        copies = [first, *(copy.deepcopy(first) for _ in range(classes - 1))]
        decoder.mask_tokens, decoder.num_mask_tokens = tokens, classes
        decoder.output_hypernetworks_mlps = nn.ModuleList(copies)

    def forward(self, features: Features) -> Tensor:
        x = self.project(features.final)
        with full_precision(x):  # sines of half-precision coordinates would misplace the patches
            place = self.prompt_encoder.pe_layer((x.shape[-2], x.shape[-1]))
        masks, _ = self.mask_decoder.predict_masks(
            image_embeddings=x,
            image_pe=place.unsqueeze(0),
            sparse_prompt_embeddings=x.new_zeros(1, 0, WIDTH),
            dense_prompt_embeddings=self.prompt_encoder.no_mask_embed.weight.view(1, WIDTH, 1, 1),
        )
        return masks

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
        classes = self.mask_decoder.num_mask_tokens
        taken: dict[str, Tensor] = {}
        for name, tensor in state.items():
            _, listed, rest = name.partition(MASKS + HYPERNETWORKS)
            number, _, leaf = rest.partition(".")
            if name == MASKS + TOKENS:
                taken[name] = torch.cat([tensor[:1]] * classes)
            elif not listed:
                taken[name] = tensor
            elif number == "0":
                taken |= {f"{MASKS}{HYPERNETWORKS}{k}.{leaf}": tensor for k in range(classes)}
        return taken


def _shape(state: dict[str, Tensor], name: str) -> torch.Size | None:
    return state[name].shape if name in state else None
