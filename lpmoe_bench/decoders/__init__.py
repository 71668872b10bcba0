"""Decoders by name: from a method's features to logits, the same for all methods.

Importing the package imports no torch: names are read from its files, a decoder's module is
imported when it is asked for.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from method_zoo.errors import ZooError, unknown
from method_zoo.options import class_in, names_in

if TYPE_CHECKING:
    from lpmoe_bench.decoders._decoder import Decoder
    from method_zoo.method import Method

__all__ = ["build_decoder", "get_decoder", "list_decoders"]


def list_decoders() -> list[str]:
    """Return the names of all decoders: the files of this package without leading underscore."""
    return names_in(sys.modules[__name__])


def get_decoder(name: str) -> type[Decoder]:
    """Return the decoder class of that name; raises ZooError for an unknown one."""
    if name not in list_decoders():  # before torch is imported for the base class
        raise ZooError(unknown("decoder", name, list_decoders()))
    from lpmoe_bench.decoders._decoder import Decoder

    return class_in(sys.modules[__name__], name, Decoder)


def build_decoder(
    name: str, method: Method, classes: int, options: dict[str, Any] | None = None
) -> Decoder:
    """Return a decoder for what a method gives, with weights drawn from torch's generator.

    Raises ZooError for an unknown name, UsageError where the two do not go together.
    """
    decoder: Any = get_decoder(name)
    from lpmoe_bench.decoders._decoder import Inputs

    return decoder(Inputs.of(method), classes, **(options or {}))
