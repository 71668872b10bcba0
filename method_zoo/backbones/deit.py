"""DeiT with its distillation token, opened: a second learnt token behind the class token.

Training data-efficient image transformers, Touvron et al., ICML 2021, arXiv 2012.12877; the model
is timm's class `VisionTransformerDistilled`.
"""

from timm.models.deit import VisionTransformerDistilled
from torch import nn

from .backbone import Backbone, check_plain_blocks


class Distilled(Backbone):
    """A plain ViT whose distillation token stands where others have registers.

    Both tokens have a place of their own in the position table, as in the native forward.
    """

    def _openable(self, vit: nn.Module) -> nn.Module:
        assert type(vit) is VisionTransformerDistilled
        check_plain_blocks(vit)
        token = vit.dist_token
        del vit.dist_token
        vit.reg_token = token  # which is what the plain family puts behind the class token
        return vit

    def reset(self, seed: int) -> None:
        self.vit.dist_token = self.vit.reg_token  # timm draws it by that name
        super().reset(seed)
        del self.vit.dist_token
