"""Parameter-efficient fine-tuning methods on one frozen vision transformer.

Importing the package imports no torch: what needs it is imported when it is first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .errors import ZooError, at_least, one_of, rate, unknown
from .options import check_options, get_method, list_methods, method_name, signature_options

if TYPE_CHECKING:
    from .backbones.backbone import Backbone, Tokens
    from .backbones.create import check_backbone_name, create_backbone
    from .backbones.linear import Wrapped, rewrite
    from .method import Features, Method, Prefix, first_of_last, in_block

__all__ = ["Backbone", "Features", "Method", "Prefix", "Tokens", "Wrapped", "ZooError"]
__all__ += ["at_least", "check_backbone_name", "check_options", "create_backbone"]
__all__ += ["first_of_last", "get_method", "in_block", "list_methods", "method_name", "one_of"]
__all__ += ["rate", "rewrite", "signature_options", "unknown"]

_NEEDS_TORCH = {
    "Backbone": "backbones.backbone",
    "Tokens": "backbones.backbone",
    "Wrapped": "backbones.linear",
    "check_backbone_name": "backbones.create",
    "create_backbone": "backbones.create",
    "Features": "method",
    "Method": "method",
    "Prefix": "method",
    "first_of_last": "method",
    "in_block": "method",
    "rewrite": "backbones.linear",
}


def __getattr__(name: str) -> Any:
    if name not in _NEEDS_TORCH:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_NEEDS_TORCH[name]}"), name)
