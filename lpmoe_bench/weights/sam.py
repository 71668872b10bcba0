"""Meta's checkpoints of SAM: which backbone one belongs to, and its encoder's tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lpmoe_bench.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

# Backbone name: the width of its tokens and the file that Meta publishes for it.
NAMES = {
    "sam_vit_b": (768, "sam_vit_b_01ec64.pth"),
    "sam_vit_l": (1024, "sam_vit_l_0b3195.pth"),
    "sam_vit_h": (1280, "sam_vit_h_4b8939.pth"),
}
PART = "image_encoder."
HUGGING_FACE = "vision_encoder."
PAGE = "github.com/facebookresearch/segment-anything"


def how_to_get(name: str) -> str:
    """Return the sentence that says where the checkpoint of a backbone is to be had."""
    return (
        f"{name} has no weights to fetch from the hub: download {NAMES[name][1]} from {PAGE} and "
        f"give it by --weights {NAMES[name][1]}, or use --weights random"
    )


def encoder_state(state: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    """Return the encoder's tensors under the names of Meta's class, decoder and prompts left out.

    A state of the encoder alone, as a merge writes it, passes as it is. Raises DataError for the
    layout of Hugging Face and for SAM of another size, with what to use instead.
    """
    if any(key.startswith(HUGGING_FACE) for key in state):
        raise DataError(
            f"it holds SAM in the layout of Hugging Face; {NAMES[name][1]} has Meta's own"
        )
    part = {k.removeprefix(PART): t for k, t in state.items() if k.startswith(PART)} or state
    table = part.get("pos_embed")
    if table is None:
        raise DataError(f"it holds no image encoder of SAM, whose tensors begin with {PART}")
    for other, (width, _) in NAMES.items():
        if other != name and tuple(table.shape[-1:]) == (width,):
            raise DataError(f"it holds {other}, not {name}: say --backbone {other}")
    return part
