"""Which blocks are the last k of a backbone, for methods that leave the ones before frozen."""

from ._backbone import Backbone
from ._errors import ZooError


def first_of_last(backbone: Backbone, blocks: int) -> int:
    """Return the index of the first of the last `blocks` blocks; raises ZooError out of range."""
    if not 1 <= blocks <= backbone.depth:
        raise ZooError(f"blocks is {blocks}; it must be 1 to {backbone.depth} with this backbone")
    return backbone.depth - blocks


def in_block(name: str, first: int) -> bool:
    """Say whether a dotted name lies in block `first` or a later one."""
    parts = name.split(".")
    return parts[0] == "blocks" and len(parts) > 1 and int(parts[1]) >= first
