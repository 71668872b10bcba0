"""YAML of users, read in one place: plain values only, and what cannot be meant is refused.

PyYAML parses and builds; the rules here are narrower than those of YAML 1.1, in which a label
becomes a date, `010` is eight, a key may stand twice, and 1 KB of aliases stands for gigabytes.
"""

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

MOST_BYTES = 64 * 2**20
MOST_DEPTH = 100
# Values that aliases stand for, written out. Built from one object they take no memory, but
# whatever walks over them later walks over each.
MOST_ALIASED = 10_000
LONGEST = 60  # letters of a value that a sentence shows

TEXT = "or put it in quotes if it is text"
SIXTY = f"would be a number to the base 60; write the number itself, {TEXT}"
# Kinds of plain words that stay texts: 2024-01-01, and the single sign =.
_TEXTS = ("tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:value")


class YamlError(ValueError):
    """What is wrong with a text, without a full stop; line: where it stands, from 1, or 0."""

    def __init__(self, why: str, line: int = 0):
        super().__init__(f"line {line}: {why}" if line else why)
        self.why, self.line = why, line


# That of libyaml takes a seventh of the time, which every command that asks for a set would wait.
_SafeLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_SafeLoader):
    """The safe loader without dates, that refuses a key which stands twice: one would be lost."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict:
        seen = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable) and key in seen:  # 1 and 0x1 are one key, as 1 and true
                raise YamlError(f"'{key}' stands twice", key_node.start_mark.line + 1)
            if isinstance(key, Hashable):
                seen.add(key)
        return super().construct_mapping(node, deep)

    def construct_integer(self, node: Any) -> int:
        """Read an integer as everybody does, or refuse it."""
        text, line = node.value, node.start_mark.line + 1
        digits = text.lstrip("+-").replace("_", "")
        if len(digits) > 1 and digits.isdigit() and digits[0] == "0":
            raise YamlError(
                f"{_shown(text)} could be octal; leave out the zero in front, {TEXT}", line
            )
        if ":" in text:
            raise YamlError(f"{_shown(text)} {SIXTY}", line)
        try:
            return self.construct_yaml_int(node)
        except ValueError:  # 0x_, or more digits than Python reads
            raise YamlError(f"{_shown(text)} is no number that can be read, {TEXT}", line) from None

    def construct_real(self, node: Any) -> float:
        """Read a number with a point, but none to the base 60."""
        if ":" in node.value:
            raise YamlError(f"{_shown(node.value)} {SIXTY}", node.start_mark.line + 1)
        return self.construct_yaml_float(node)


# A table of this class alone: PyYAML's own is shared by all its loaders.
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in _TEXTS]
    for first, resolvers in _SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_integer)
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_real)


def parse_yaml(text: str) -> Any:
    """Return what a YAML text holds: mappings, lists, texts, numbers, truth values, None.

    Raises:
        YamlError: it is no YAML, holds a tag, a key twice, a number that can be read in two ways,
            more depth than `MOST_DEPTH`, or aliases for more than `MOST_ALIASED` values.
    """
    try:
        _check_events(text)
        return yaml.load(text, _Loader)  # a SafeLoader
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        # What ends too early is said to end a line below the last one.
        line = min(mark.line + 1, text.count("\n") + 1) if mark else 0
        parts = [getattr(error, name, None) for name in ("context", "problem")]
        why = ", ".join(filter(None, parts)) or str(error)
        raise YamlError(" ".join(why.split()), line) from None
    except RecursionError:
        raise YamlError("it is nested too deeply") from None
    except (ValueError, OverflowError) as error:
        if isinstance(error, YamlError):
            raise
        raise YamlError(f"a value cannot be read ({error})") from None


def read_yaml(path: Path) -> Any:
    """Return what a YAML file holds, as `parse_yaml` does.

    Raises:
        OSError: it cannot be read.
        YamlError: it is no UTF-8 text, is larger than `MOST_BYTES`, or not what `parse_yaml` takes.
    """
    with open(path, "rb") as file:
        data = file.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise YamlError(f"it has over {MOST_BYTES >> 20} MiB")
    try:
        return parse_yaml(data.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise YamlError("it is no UTF-8 text; save it as UTF-8") from None


def _check_events(text: str) -> None:
    """Raise for what must be refused before anything is built of it.

    Events come one after the other, without recursion: a text of any depth can be looked at.
    """
    depth, counted, aliased = 0, 0, 0
    begun: list[tuple[str | None, int]] = []  # of each open list or mapping: anchor, values before
    sizes: dict[str, int] = {}  # of each anchor that is closed: values below it
    for event in yaml.parse(text, _SafeLoader):
        line = event.start_mark.line + 1
        tag = getattr(event, "tag", None)
        if tag is not None and tag != "!":  # "!" means: a text
            raise YamlError(f"the tag {_shown(tag)} is not allowed; write the plain value", line)
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                raise YamlError(f"*{event.anchor} stands for nothing that is complete", line)
            counted += sizes[event.anchor]
            aliased += sizes[event.anchor]
            if aliased > MOST_ALIASED:
                raise YamlError(f"its aliases stand for over {MOST_ALIASED} values", line)
        elif isinstance(event, yaml.ScalarEvent):
            counted += 1
            if event.anchor:
                sizes[event.anchor] = 1
        elif isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MOST_DEPTH:
                raise YamlError(f"it is nested too deeply, over {MOST_DEPTH} levels", line)
            counted += 1
            begun.append((event.anchor, counted - 1))
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
            anchor, before = begun.pop()
            if anchor:
                sizes[anchor] = counted - before


def _shown(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
