"""Which images files and folders mean, and what the outputs of each are called."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from lpmoe_bench.data.pairs import SUFFIXES
from lpmoe_bench.errors import UsageError


class Source(NamedTuple):
    """An image file, and the relative path of its outputs, without their suffix."""

    file: Path
    name: Path


def find_images(places: Sequence[Path], output: Path) -> list[Source]:
    """Return the images that files and folders mean, sorted, each once.

    Folders are searched with all that is below them, less hidden files and what lies in `output`.
    Outputs mirror the tree below the folder, or below the nearest folder that holds everything that
    is named. Where two images differ in their suffix alone it becomes part of the name. Raises
    UsageError where there are none, or where an output would overwrite one.
    """
    files: dict[Path, None] = {}
    for place in places:
        path = Path(os.path.abspath(place))
        files |= dict.fromkeys(_inside(path, output) if path.is_dir() else [path])
    if not files:
        raise UsageError(
            f"no images in {', '.join(map(str, places))}; name files, or folders of "
            f"{', '.join(SUFFIXES)}"
        )
    root = _root([Path(os.path.abspath(place)) for place in places])
    plain = {file: file.relative_to(root).with_suffix("") for file in sorted(files)}
    shared = Counter(plain.values())
    found = [
        Source(file, name if shared[name] == 1 else name.with_name(file.name))
        for file, name in plain.items()
    ]
    _check_outputs(found, output)
    return found


def _check_outputs(sources: list[Source], output: Path) -> None:
    """Raise UsageError where a map would lie in the place of an image or of another map."""
    place = output.resolve()
    files = {source.file.resolve(): source.file for source in sources}
    names = Counter(source.name for source in sources)
    for source in sources:
        for ending in (".png", "_overlay.jpg"):
            there = files.get(place / f"{source.name}{ending}")
            if there is not None:
                raise UsageError(f"{there} would be overwritten; choose another folder with -o")
        if names[source.name] > 1:
            raise UsageError(f"two images would be called {source.name}; predict them one by one")


def _root(places: list[Path]) -> Path:
    """Return the nearest folder that holds everything named, itself a named one if it is alone."""
    folders = {place if place.is_dir() else place.parent for place in places}
    return Path(os.path.commonpath(folders))


def _inside(folder: Path, output: Path) -> Iterator[Path]:
    """Yield the images in and below a folder."""
    skipped = output.resolve()
    for place, inner, names in os.walk(folder):
        here = Path(place)
        inner[:] = [n for n in inner if n[0] != "." and (here / n).resolve() != skipped]
        for name in names:
            if name[0] != "." and name.lower().endswith(SUFFIXES):
                yield here / name
