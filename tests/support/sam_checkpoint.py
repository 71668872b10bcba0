"""A SAM checkpoint as Meta writes it, drawn at random, and the modules it is of."""

import torch
from segment_anything.modeling import MaskDecoder, PromptEncoder, TwoWayTransformer
from torch import Tensor

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
