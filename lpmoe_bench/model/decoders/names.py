"""Decoders by name: from a method's features to logits, the same for all methods.

Importing the package imports no torch: names are read from its files, a decoder's module is
imported when it is asked for.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from method_zoo.errors import ZooError
from method_zoo.options import class_in, names_in

if TYPE_CHECKING:
    from lpmoe_bench.model.decoders.decoder import Decoder
    from method_zoo.method import Method

NO_DECODERS = ("decoder", "names")  # files of this package that are none


def list_decoders() -> list[str]:
    """Return the names of all decoders: the files of this package, less what they are built on."""
    return names_in(sys.modules[__name__.rpartition(".")[0]], NO_DECODERS)


def get_decoder(name: str) -> type[Decoder]:
    """Return the decoder class of that name.

    Args:
        name: one of `list_decoders`.

    Raises:
        ZooError: The name is unknown; the closest ones are named.
    """
    if name not in list_decoders():  # before torch is imported for the base class
        raise ZooError.unknown("decoder", name, list_decoders())
    from lpmoe_bench.model.decoders.decoder import Decoder

    return class_in(sys.modules[__name__.rpartition(".")[0]], name, Decoder)


def build_decoder(
    name: str, method: Method, classes: int, options: dict[str, Any] | None = None
) -> Decoder:
    """Return a decoder for what a method gives, with weights drawn from torch's generator.

    Args:
        name: one of `list_decoders`.
        method: whose maps it reads.
        classes: how many maps of logits it gives.
        options: of the decoder, by name.

    Raises:
        ZooError: The name is unknown.
        UsageError: Method and decoder do not go together.
    """
    decoder: Any = get_decoder(name)
    from lpmoe_bench.model.decoders.decoder import Inputs

    return decoder(Inputs.of(method), classes, **(options or {}))
