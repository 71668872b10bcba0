"""Photographs of telephones: AVIF through Pillow, HEIC through pi-heif, both optional."""

import io
from pathlib import Path

import numpy as np

from lpmoe_bench.errors import DataError

PHOTOS = (".avif", ".heic", ".heif")
AVIF = (b"avif", b"avis")
HEIC = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")
INSTALL = "pip install 'lpmoe-bench[photos]'"


def photo_kind(data: bytes) -> str:
    """Return AVIF or HEIC by the first bytes of a file, empty for others."""
    # A box of type ftyp: its size in four bytes, its name, then the brands that the file is of.
    if data[4:8] != b"ftyp":
        return ""
    size = min(int.from_bytes(data[:4], "big"), 256)
    brands = [data[k : k + 4] for k in (8, *range(16, size, 4))]
    if any(brand in AVIF for brand in brands):
        return "AVIF"
    return "HEIC" if any(brand in HEIC for brand in brands) else ""


def read_photo(path: Path, data: bytes, most_pixels: int) -> np.ndarray:
    """Return the pixels of an AVIF or HEIC file as OpenCV orders them, uint8 BGR or BGRA.

    A rotation noted in the file is applied; 10 and 12 bits become 8. Raises DataError where the
    library that reads it is not installed, saying how to get it, and for a damaged file.
    """
    kind = photo_kind(data)
    try:
        from PIL import Image, ImageOps, features

        if kind == "HEIC":
            import pi_heif  # pyright: ignore[reportMissingImports]  # optional

            pi_heif.register_heif_opener()
        elif not features.check("avif"):
            raise ImportError
    except ImportError:
        raise DataError(
            f"{path} is {kind}, for which a library is missing: {INSTALL}, or convert it to PNG"
        ) from None
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.width * image.height > most_pixels:
                raise DataError(
                    f"{path} says it is {image.width} x {image.height} pixels; {most_pixels} in "
                    f"all are allowed"
                )
            image = ImageOps.exif_transpose(image)
            alpha = "A" in image.getbands()
            pixels = np.asarray(image.convert("RGBA" if alpha else "RGB"))
    # What these libraries raise for damaged files is of many kinds, SyntaxError among them.
    except (OSError, ValueError, SyntaxError, EOFError, RuntimeError, MemoryError) as error:
        raise DataError(f"{path} cannot be decoded: it is damaged ({str(error)[:80]})") from None
    return np.ascontiguousarray(pixels[..., [2, 1, 0, 3] if alpha else [2, 1, 0]])
