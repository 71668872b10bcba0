"""Decoders by name: from a method's features to logits, the same for all methods.

Importing the package imports no torch: names are read from its files, a decoder's module is
imported when it is asked for.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from method_zoo.errors import ZooError
from method_zoo.options import class_in, names_in, signature_options, vars_of
from method_zoo.plugins import find_plugin, load_plugin, plugin_names
from method_zoo.source import SourceFacts, read_source

if TYPE_CHECKING:
    from lpmoe_bench.model.decoders.decoder import Head
    from method_zoo.method import Method

NO_DECODERS = (
    "decoder",
    "matched",
    "names",
    "pyramid",
    "regions",
)  # files of this package that are none


def own_decoders() -> list[str]:
    """Return the names of our decoders: the files of this package, less what they are built on."""
    return names_in(_package(), NO_DECODERS)


def list_decoders() -> list[str]:
    """Return the names of all decoders, those of plug-ins last; no decoder is imported."""
    own = own_decoders()
    return [*own, *plugin_names("decoders", own)]


def _package() -> ModuleType:
    return sys.modules[__name__.rpartition(".")[0]]


def get_decoder(name: str) -> type[Head]:
    """Return the decoder class of that name.

    Args:
        name: one of `list_decoders`.

    Raises:
        ZooError: The name is unknown; the closest ones are named. Or it is that of a plug-in that
            cannot be used; why is said.
    """
    own = own_decoders()
    plugin = find_plugin("decoders", name, own)
    if plugin is None and name not in own:  # before torch is imported for the base class
        raise ZooError.unknown("decoder", name, list_decoders())
    from lpmoe_bench.model.decoders.decoder import Head

    return load_plugin(plugin, Head) if plugin else class_in(_package(), name, Head)


def decoder_facts(name: str) -> SourceFacts:
    """Return options and class attributes of a decoder; of our own without torch.

    Raises ZooError as `get_decoder` does.
    """
    if name in own_decoders():
        return read_source(_package(), name, "Head")
    cls = get_decoder(name)
    return SourceFacts(signature_options(cls), vars_of(cls))


def build_decoder(
    name: str, method: Method, classes: int, options: dict[str, Any] | None = None
) -> Head:
    """Return a decoder for what a method gives, with weights drawn from torch's generator.

    Args:
        name: one of `list_decoders`.
        method: whose maps it reads.
        classes: how many maps of logits it gives.
        options: of the decoder, by name.

    Raises:
        ZooError: The name is unknown, or it does not take the queries that the method gives.
        UsageError: Method and decoder do not go together.
    """
    decoder: Any = get_decoder(name)
    from lpmoe_bench.model.decoders.decoder import Inputs

    inputs = Inputs.of(method)
    if inputs.queries and not decoder.takes_queries:
        raise ZooError(
            f"{method.title} gives queries, which decoder {name} does not take; leave its option "
            f"queries out, or use --decoder mask2former"
        )
    built = decoder(inputs, classes, **(options or {}))
    built.classes = classes
    return built
