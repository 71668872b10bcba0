"""Plug-ins of all kinds: added, listed, and told of in records; imports no torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from lpmoe_bench.config.settings import LOSSES, RunConfig
from lpmoe_bench.errors import UsageError
from lpmoe_bench.model.decoders.names import get_decoder, own_decoders
from lpmoe_bench.records.model import PluginRecord, Record
from method_zoo.options import get_method, taken_names
from method_zoo.plugins import (
    SINGULAR,
    Plugin,
    add_plugin_file,
    find_plugin,
    find_plugins,
    load_plugin,
    plugin_facts,
)


def own_names() -> dict[str, list[str]]:
    """Return by kind the names that no plug-in may take."""
    return {"methods": taken_names(), "decoders": own_decoders(), "losses": list(LOSSES)}


def all_plugins() -> list[Plugin]:
    """Return every plug-in, also those with trouble; none is imported."""
    return [one for kind, own in own_names().items() for one in find_plugins(kind, own)]


def add_plugin(path: Path) -> None:
    """Make what a file offers known, to this process and to all that it starts.

    Args:
        path: a file of Python with a method, a decoder or losses.

    Raises:
        ZooError: The file cannot be read, offers nothing, or offers a name that exists.
    """
    whole = add_plugin_file(path)
    for one in all_plugins():
        if one.trouble and one.file == whole:
            raise one.refusal(one.trouble)


def load_by_name(kind: str, name: str) -> Any:
    """Import what has this name and return it; raises ZooError where it cannot be used."""
    if kind == "losses":
        plugin = find_plugin(kind, name, LOSSES)
        return load_plugin(plugin) if plugin else None
    return get_method(name) if kind == "methods" else get_decoder(name)


def used_plugins(config: RunConfig) -> list[PluginRecord]:
    """Return what a record says of the plug-ins of a run: name, package, version, digest.

    They are imported where they are not yet; of our own methods, decoders and losses there is
    nothing to say, for the record's environment tells of their code.
    """
    asked = {"methods": config.method, "decoders": config.decoder, "losses": config.train.loss}
    return [fact for kind, name in asked.items() for fact in _facts(kind, name, own_names()[kind])]


def _facts(kind: str, name: str, own: Iterable[str]) -> list[PluginRecord]:
    plugin = find_plugin(kind, name, own)
    if plugin is None:
        return []
    load_by_name(kind, name)
    return [PluginRecord(**plugin_facts(plugin)._asdict())]


def plugins_here(record: Record) -> tuple[list[PluginRecord], list[str]]:
    """Find the plug-ins of a trained run again, so that its model can be built.

    Returns:
        Those that are used here, and a sentence for each that is not what the run was trained with.
        A loss is not needed any more: it stays as it was.

    Raises:
        UsageError: A plug-in that the run was trained with is not there.
    """
    used = []
    for then in record.plugins:
        if then.kind == "losses":
            used.append(then)
            continue
        found = _facts(then.kind, then.name, own_names()[then.kind])
        if not found:
            package = f"install {then.package} {then.version}"
            raise UsageError(
                f"this run was trained with {SINGULAR[then.kind]} '{then.name}', a plug-in that is "
                f"not here: {package if then.package else f'give --plugin {then.source}'}"
            )
        used += found
    return used, changed_plugins(record.plugins, used)


def changed_plugins(then: Sequence[PluginRecord], here: Sequence[PluginRecord]) -> list[str]:
    """Return a sentence for each plug-in whose source is another one here than it was."""
    before = {(one.kind, one.name): one for one in then}
    notes = []
    for one in here:
        old = before.get((one.kind, one.name))
        if old is None or old.digest != one.digest:
            was = old.origin if old else "no plug-in"
            notes.append(
                f"{SINGULAR[one.kind]} '{one.name}' is not what the run was trained with: it is "
                f"{one.origin} here and was {was}"
            )
    return notes
