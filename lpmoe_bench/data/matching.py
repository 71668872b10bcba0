"""Which files a folder or a pattern names, and by which rule names of images and masks differ."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from difflib import SequenceMatcher
from pathlib import Path
from typing import NamedTuple

from lpmoe_bench.data.annotations import ANNOTATIONS
from lpmoe_bench.data.photos import PHOTOS
from lpmoe_bench.errors import DataError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif", *PHOTOS)
MASK_SUFFIXES = (*SUFFIXES, *ANNOTATIONS)
SHOWN = 10
NAME = "{name}"


def shown(items: Iterable[str], separator: str = ", ") -> str:
    """Join at most ten items and say how many more there are."""
    items = list(items)
    more = f"{separator}and {len(items) - SHOWN} more" if len(items) > SHOWN else ""
    return separator.join(items[:SHOWN]) + more


EACH = 3  # problems of one kind; more of them are said together


def grouped(problems: Sequence[str]) -> list[str]:
    """Say once what more than three files have; a sentence begins with the path of its file.

    Sentences that differ in numbers and other files alone, such as sizes, are of one kind, too.
    """
    kinds: dict[str, list[str]] = defaultdict(list)
    for problem in problems:
        kinds[re.sub(r"\S+\.\w+|\d+", "", problem)].append(problem)
    said: list[str] = []
    for alike in kinds.values():
        first = alike[:EACH]
        if len(alike) > len(first):
            found = re.match(r".+?\.\w+ (.+)", first[0], re.DOTALL)
            kind = f" {found[1]}" if found else first[0]
            if found and all(problem.endswith(kind) for problem in alike):
                names = ", ".join(dict.fromkeys(p.removesuffix(kind) for p in first))
                first = [f"{len(alike)} of them, such as {names}: each{kind}"]
            else:
                first = [f"{len(alike)} of this kind, the first: {first[0]}"]
        said += first
    return said


def same_name(name: str) -> str:
    """One spelling of a name: systems store accents in two ways."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def is_text(name: str) -> bool:
    """Tell names that are text from bytes of another encoding, which no record could hold."""
    # Python turns each byte that is no UTF-8 into a lone surrogate.
    return name.isascii() or not any("\ud800" <= letter < "\ue000" for letter in name)


def divide_place(place: Path) -> tuple[Path, str]:
    """Return the folder of a place and the pattern in it, empty for a folder by itself."""
    for k, part in enumerate(place.parts):
        if "*" in part or NAME in part:
            return Path(*place.parts[:k]), "/".join(place.parts[k:])
    return place, ""


def is_open(place: Path) -> bool:
    """Whether several files of a place may belong to one name: a star beside the name."""
    last = place.name
    return "*" in last if NAME in str(place) else last.count("*") > 1


def named_files(place: Path, suffixes: Sequence[str]) -> dict[str, list[Path]]:
    """Return the files of a folder, or of a pattern in it, by name, sorted.

    A folder is searched with all that is below it, and the name of a file is its path in it, less
    the suffix. In a pattern, `*` stands for anything within a name of a file or folder and `**` for
    folders; the name is `{name}`, which may stand several times, or else what stands before the
    end that the pattern demands, with the folders that a star stands for. Hidden files and folders
    are left out. Raises DataError for a folder that cannot be opened, and for names that are no
    text.
    """
    folder, pattern = divide_place(place)
    form, wanted = _form(pattern or "**/*", suffixes)
    deep = not pattern or "/" in pattern
    found: dict[str, list[Path]] = {}
    no_text = []
    for relative in _walk(folder) if deep else _entries(folder):
        stem, dot, suffix = relative.rpartition(".")
        if (dot + suffix).lower() not in wanted or not (match := form.fullmatch(stem)):
            continue
        if not is_text(relative):
            no_text.append(ascii(relative.rpartition("/")[2]))
        name = match["name"] or ""
        if NAME not in pattern:
            name = "/".join([part for part in match.groups()[:-1] if part] + [name])
        found.setdefault(same_name(name), []).append(folder / relative)
    if no_text:
        raise DataError(
            f"{len(no_text)} names in {folder} are no UTF-8 text: {shown(no_text)}; rename them, "
            f"or unpack their archive with the encoding of its names"
        )
    return found


def holds_any(place: Path, suffixes: Sequence[str]) -> bool:
    """Whether a folder is there, or a file of a pattern in it; names alone are read."""
    folder, pattern = divide_place(place)
    if not pattern or not folder.is_dir():
        return folder.is_dir()
    form, wanted = _form(pattern, suffixes)
    for relative in _walk(folder) if "/" in pattern else _entries(folder):
        stem, dot, suffix = relative.rpartition(".")
        if (dot + suffix).lower() in wanted and form.fullmatch(stem):
            return True
    return False


def _form(pattern: str, suffixes: Sequence[str]) -> tuple[re.Pattern, tuple[str, ...]]:
    """Return a pattern as an expression for paths without suffix, and the suffixes it allows.

    Its last group is the name, or what the last part of the path gives to it; those before are the
    folders that a star stands for.
    """
    ending = next((end for end in suffixes if pattern.lower().endswith(end)), "")
    pattern = pattern[: len(pattern) - len(ending)]
    *folders, last = pattern.split("/")
    explicit = NAME in pattern
    text, known = "", False
    for part in folders:
        if part == "**":
            text += "(?:.*/)?" if explicit else "(?:(.*)/)?"
        elif explicit:
            one, known = _expression(part, known)
            text += one + "/"
        else:
            one, _ = _expression(part, known)
            text += f"({one})/" if "*" in part else f"{one}/"
    if explicit:
        text += _expression(last, known)[0]
    else:
        front, _, back = last.partition("*")
        text += f"(?P<name>{re.escape(front)}[^/]*){_expression(back, known)[0]}"
    return re.compile(text, re.DOTALL), (ending,) if ending else tuple(suffixes)


def _expression(part: str, known: bool) -> tuple[str, bool]:
    """Return one part of a path as an expression, and whether the name stood in it or before."""
    text = ""
    for piece in re.split(r"(\{name\}|\*+)", part):
        if piece == NAME:
            text, known = text + ("(?P=name)" if known else "(?P<name>[^/]+)"), True
        else:
            text += "[^/]*" if piece.startswith("*") else re.escape(piece)
    return text, known


def _entries(folder: Path) -> list[str]:
    try:
        names = os.listdir(folder)
    except OSError as error:
        raise DataError(f"folder {folder} cannot be opened ({error.strerror})") from None
    return sorted(name for name in names if not name.startswith("."))


def _walk(folder: Path) -> Iterator[str]:
    """Yield the relative paths of all files below a folder, sorted; linked folders are followed."""
    _entries(folder)  # os.walk would pass over a folder that cannot be opened
    seen: set[str] = set()
    for place, inner, files in os.walk(folder, followlinks=True):
        # A link that leads above itself would be walked through for ever.
        real = os.path.realpath(place)
        inner[:] = [] if real in seen else sorted(n for n in inner if _is_shown(n))
        files = [] if real in seen else files
        seen.add(real)
        front = os.path.relpath(place, folder).replace(os.sep, "/") + "/"
        front = "" if front == "./" else front
        yield from (front + name for name in sorted(files) if not name.startswith("."))


def _is_shown(folder: str) -> bool:
    return not folder.startswith((".", "__MACOSX"))


# One rule that tells all names of masks from those of their images, such as an ending.


class Rule(NamedTuple):
    """What stands before and after the common part of the names of images and of masks."""

    image: tuple[str, str]
    mask: tuple[str, str]

    def core(self, name: str, ends: tuple[str, str]) -> str | None:
        """Return the common part of a name, None where its beginning or end is another."""
        place, slash, last = name.rpartition("/")
        front, back = ends
        if len(last) <= len(front) + len(back):
            return None
        if not (last.startswith(front) and last.endswith(back)):
            return None
        return place + slash + last[len(front) : len(last) - len(back)]

    def patterns(self) -> tuple[str, str]:
        """Return the names of images and masks as patterns."""
        return f"{NAME}".join(self.image), f"{NAME}".join(self.mask)

    def match(self, images: Collection[str], masks: Collection[str]) -> dict[str, str]:
        """Return {image: mask} of the names that the rule fits."""
        by_core = {self.core(name, self.mask): name for name in masks}
        cores = ((name, self.core(name, self.image)) for name in images)
        return {name: by_core[core] for name, core in cores if core and core in by_core}


def common_rule(images: Collection[str], masks: Collection[str]) -> tuple[Rule | None, int]:
    """Return the one rule that fits most names, and how many; None where there is none.

    A rule takes the same letters from all names; digits alone never tell a mask from its image. Two
    rules that pair as many names differently are a doubt: none is returned then.
    """
    if not images or not masks:
        return None, 0
    # A rule that fits all fits the first; one that fits most fits one of a few.
    rules: dict[Rule, None] = {}
    for first in sorted(images)[:: max(1, len(images) // 3)][:3]:
        rules |= {rule: None for mask in masks for rule in _differences(first, mask)}
        if len(rules) > 1000:
            break
    found: list[tuple[int, Rule, dict[str, str]]] = []
    for rule in rules:
        pairs = rule.match(images, masks)
        if pairs and len(set(pairs.values())) == len(pairs):
            found.append((len(pairs), rule, pairs))
    if not found:
        return None, 0
    most = max(count for count, _, _ in found)
    best = [(rule, pairs) for count, rule, pairs in found if count == most]
    if any(pairs != best[0][1] for _, pairs in best):
        return None, 0
    # Of equal rules the one that takes away least, which people would write.
    rule = min((rule for rule, _ in best), key=lambda r: sum(map(len, (*r.image, *r.mask))))
    return rule, most


def _differences(image: str, mask: str) -> Iterator[Rule]:
    """Yield the rules that make two names one, none of digits alone or within a word."""
    (place, _, one), (other_place, _, other) = image.rpartition("/"), mask.rpartition("/")
    if place != other_place:
        return
    front, back = _common(one, other), _common(one[::-1], other[::-1])
    longest = SequenceMatcher(None, one, other, autojunk=False).find_longest_match()
    cores = ((0, 0, front), (len(one) - back, len(other) - back, back), tuple(longest))
    for a, b, size in dict.fromkeys(cores):
        rule = Rule((one[:a], one[a + size :]), (other[:b], other[b + size :]))
        core = one[a : a + size]
        if size and all(_is_end(*ends, core) for ends in (rule.image, rule.mask)):
            yield rule


def _common(one: str, other: str) -> int:
    """Return how many letters two texts begin with in common."""
    unequal = (k for k, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    return next(unequal, min(len(one), len(other)))


def _is_end(front: str, back: str, core: str) -> bool:
    """Whether two ends of a name are words of their own, and not a part of its core."""
    edges = [(end, inner) for end, inner in ((front[-1:], core[0]), (back[:1], core[-1])) if end]
    words = all(any(letter.isalpha() for letter in end) for end in (front, back) if end)
    return words and not any(one.isalpha() and other.isalpha() for one, other in edges)
