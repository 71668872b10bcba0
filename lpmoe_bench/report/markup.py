"""HTML and SVG elements as text: whatever is not markup already is escaped."""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Iterable

# Signs that turn the direction of the text behind them: a name could disguise what follows.
_TURNING = {chr(code) for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))}
_VOID = ("meta", "br", "img", "input", "line", "circle", "rect", "path", "use")

Child = str | int | float | None | Iterable["Child"]


class Markup(str):
    """Text that is markup already."""

    __slots__ = ()


def tag(name: str, /, *children: Child, **attributes: str | int | float | bool | None) -> Markup:
    """Return an element. Children that are no Markup are escaped; lists of them are joined.

    Attributes: `class_` means class, `data_task` data-task; None and False are left out, True
    stands without a value.
    """
    parts = [name]
    for key, value in attributes.items():
        key = key.rstrip("_").replace("_", "-")
        if value is True:
            parts.append(key)
        elif value is not None and value is not False:
            parts.append(f'{key}="{escape(value)}"')
    start = f"<{' '.join(parts)}>"
    return Markup(start if name in _VOID else f"{start}{join(children)}</{name}>")


def join(children: Iterable[Child]) -> Markup:
    """Return children one after another, each escaped unless it is Markup."""
    parts: list[str] = []
    for child in children:
        if isinstance(child, Markup):
            parts.append(child)
        elif isinstance(child, str | int | float):
            parts.append(escape(child))
        elif child is not None:
            parts.append(join(child))
    return Markup("".join(parts))


def escape(value: str | int | float) -> Markup:
    """Return text that shows as it is in HTML, SVG and quoted attributes."""
    return Markup(html.escape(clean(str(value)), quote=True))


def clean(text: str) -> str:
    """Replace what no file may hold or what deceives: control signs, halves of signs, turns."""
    return "".join("\ufffd" if _is_bad(sign) else sign for sign in text)


def _is_bad(sign: str) -> bool:
    if sign.isascii():
        return (sign < " " and sign not in "\n\t") or sign == "\x7f"
    return sign in _TURNING or unicodedata.category(sign) in ("Cc", "Cs")
