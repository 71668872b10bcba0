"""Small data sets as people download them: folders, zips, PraNet's test archive."""

import zipfile
from pathlib import Path

from drawn_files import noise_image, square_mask, write

from lpmoe_bench.console import Terminal
from lpmoe_bench.data.registry import Dataset, load_registry

QUIET = Terminal(quiet=True)


def put(
    folder: Path, images: str, masks: str, *names: str, tail="", ending=".png", mask=None
) -> None:
    for name in names:
        write(folder / images / f"{name}.jpg", noise_image((12, 16, 3)))
        pixels = square_mask((12, 16)) if mask is None else mask
        write(folder / masks / f"{name}{tail}{ending}", pixels)


def packaged(name: str) -> Dataset:
    return load_registry().dataset(name)


def zip_of(folder: Path, path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, file.relative_to(folder))
    return path


def make_pranet(folder: Path) -> Path:
    """PraNet's test archive, unpacked, with the same names in every set."""
    for name in ("Kvasir", "CVC-300"):
        put(folder, f"data/TestDataset/{name}/images", f"data/TestDataset/{name}/masks", "1", "2")
    return folder
