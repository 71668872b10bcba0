"""What an image file says of itself, read from its first bytes before anything is decoded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

JPEG, PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
TIFF = (b"II*\0", b"MM\0*")
# Tags of TIFF and EXIF, which is a TIFF without pixels.
WIDTH, HEIGHT, BITS, PHOTOMETRIC, ORIENTATION = 256, 257, 258, 262, 274
CHANNELS, MAXIMUM, EXTRA_SAMPLES, FLOAT_MAXIMUM = 277, 281, 338, 341
CMYK = 5  # of PHOTOMETRIC
ALPHA = (1, 2)  # of EXTRA_SAMPLES: associated and unassociated; 0 is a band of any other meaning
TYPES = {1: 1, 3: 2, 4: 4}  # bytes of a TIFF value: byte, short, long
MOST_VALUES = 64  # of one tag: nothing asked for here has more
# Start-of-frame markers of JPEG; those left out between them define tables.
FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says. A size of 0 x 0 is not known; so is a file of another kind.

    channels, bits: as stored, those of a palette image being its indices. orientation: of EXIF, 1
    for upright. palette: values are indices. hidden: a transparency that is no channel (tRNS).
    extra: what the channels beyond colour are, for TIFF, None where it does not say. maximum: the
    value that means white, None where no tag says it. ends: whether the file's own end is there.
    """

    kind: str = ""
    width: int = 0
    height: int = 0
    channels: int = 1
    bits: int = 8
    orientation: int = 1
    palette: bool = False
    hidden: bool = False
    cmyk: bool = False
    extra: tuple[int, ...] | None = None
    maximum: int | None = None
    ends: bool = True

    @property
    def raw_bytes(self) -> int:
        """Bytes of the pixels as the file keeps them before it compresses them."""
        return self.width * self.height * self.channels * self.bits // 8

    @property
    def decoded_bytes(self) -> int:
        """Bytes of the pixels once decoded: at least one for each value, three of a palette."""
        channels = 3 if self.palette else self.channels
        return self.width * self.height * channels * (2 if self.bits > 8 else 1)


def read_header(data: bytes) -> Header:
    """Return what the bytes of an image file say of it; anything else is a Header of no kind."""
    if data.startswith(JPEG):
        return _jpeg(data)
    if data.startswith(PNG):
        return _png(data)
    if data.startswith(TIFF):
        return _tiff(data)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _webp(data)
    if data[:2] == b"BM":
        width, height, bits = _little(data, 18, 4), _little(data, 22, 4), _little(data, 28, 2)
        height = min(height, 2**32 - height)  # a negative one is stored from above
        return Header("bmp", width, height, max(1, bits // 8), min(bits, 8), palette=0 < bits <= 8)
    if data[:4] == b"GIF8":
        return Header("gif", _little(data, 6, 2), _little(data, 8, 2), palette=True)
    return Header()


def _little(data: bytes, at: int, count: int) -> int:
    return int.from_bytes(data[at : at + count], "little")


def _big(data: bytes, at: int, count: int) -> int:
    return int.from_bytes(data[at : at + count], "big")


def _jpeg(data: bytes) -> Header:
    width = height = 0
    # Segments up to the first scan (DA): a marker of two bytes,
    # then a length that counts its own two bytes as well.
    channels, orientation, at = 3, 1, 2
    while data[at : at + 1] == b"\xff" and (marker := _big(data, at + 1, 1)) != 0xDA:
        if marker == 0xFF:  # a filler
            at += 1
            continue
        if marker in FRAMES and not width:
            height, width, channels = (_big(data, at + k, n) for k, n in ((5, 2), (7, 2), (9, 1)))
        if marker == 0xE1 and data[at + 4 : at + 10] == b"Exif\0\0":
            orientation = _orientation(data[at + 10 : at + 2 + _big(data, at + 2, 2)])
        at += 2 + _big(data, at + 2, 2)
    # An end marker inside an EXIF preview does not count, so it has to stand after the first scan.
    # It is looked for from behind, where it is in nearly every file.
    ends = data.rfind(b"\xff\xd9", at) >= 0
    cmyk = channels == 4
    return Header("jpeg", width, height, channels, 8, orientation, cmyk=cmyk, ends=ends)


def _png(data: bytes) -> Header:
    orientation, hidden, ends = 1, False, False
    for name, start, length in _png_chunks(data):
        if name == b"IEND":
            ends = True
        elif name == b"eXIf":
            orientation = _orientation(data[start : start + length])
        elif name == b"tRNS":
            hidden = True
    # IHDR is always the first chunk, so its fields always lie at the same places.
    bits, colour = _big(data, 24, 1), _big(data, 25, 1)
    return Header(
        "png",
        _big(data, 16, 4),
        _big(data, 20, 4),
        PNG_CHANNELS.get(colour, 1),
        bits,
        orientation,
        palette=colour == 3,
        hidden=hidden,
        ends=ends,
    )


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield (name, start, length) of the chunks that lie whole in the file, up to the end."""
    at = len(PNG)
    while at + 12 <= len(data):
        length, name = _big(data, at, 4), data[at + 4 : at + 8]
        # A chunk that claims more than there is: decoders would ask for that much memory first.
        if at + 12 + length > len(data):
            return
        yield name, at + 8, length
        if name == b"IEND":
            return
        at += 12 + length


def _webp(data: bytes) -> Header:
    width = height = 0
    channels, orientation, at = 3, 1, 12
    while at + 8 <= len(data):
        name, length, body = data[at : at + 4], _little(data, at + 4, 4), at + 8
        if name == b"VP8X":
            channels = 4 if data[body : body + 1] and data[body] & 16 else 3
            width, height = 1 + _little(data, body + 4, 3), 1 + _little(data, body + 7, 3)
        elif name == b"VP8 " and not width:
            width, height = _little(data, body + 6, 2) & 0x3FFF, _little(data, body + 8, 2) & 0x3FFF
        elif name == b"VP8L" and not width:
            packed = _little(data, body + 1, 4)
            width, height = 1 + (packed & 0x3FFF), 1 + (packed >> 14 & 0x3FFF)
            channels = 4 if packed >> 28 & 1 else 3
        elif name == b"EXIF":
            orientation = _orientation(data[body : body + length].removeprefix(b"Exif\0\0"))
        # Chunks begin at even places: one of odd length is followed by a byte that is not counted.
        at = body + length + length % 2
    return Header("webp", width, height, channels, 8, orientation)


def _tiff(data: bytes) -> Header:
    tags = _tags(data)
    one = {tag: values[0] for tag, values in tags.items() if values}
    bits = one.get(BITS, 1)
    # Three bands of white may differ; one that is the kind's own limit says nothing.
    maximum = one.get(MAXIMUM, one.get(FLOAT_MAXIMUM))
    return Header(
        "tiff",
        one.get(WIDTH, 0),
        one.get(HEIGHT, 0),
        one.get(CHANNELS, 1),
        bits,
        _upright(one.get(ORIENTATION, 1)),
        palette=one.get(PHOTOMETRIC) == 3,
        cmyk=one.get(PHOTOMETRIC) == CMYK,
        extra=tags.get(EXTRA_SAMPLES),
        maximum=maximum if maximum and maximum < (1 << bits) - 1 else None,
    )


def _orientation(exif: bytes) -> int:
    values = _tags(exif).get(ORIENTATION) if exif.startswith(TIFF) else None
    return _upright(values[0]) if values else 1


def _upright(value: int) -> int:
    return value if 1 <= value <= 8 else 1


def _tags(data: bytes) -> dict[int, tuple[int, ...]]:
    """Return the whole-numbered values of a TIFF's first directory by tag."""
    # The directory's place is in bytes 4 to 7; there, the number of entries in two bytes, then
    # entries of twelve: tag, type, count, and the values, or their place where four bytes are few.
    order = "little" if data.startswith(b"II") else "big"
    start = int.from_bytes(data[4:8], order)
    found: dict[int, tuple[int, ...]] = {}
    for k in range(int.from_bytes(data[start : start + 2], order)):
        entry = data[start + 2 + 12 * k : start + 14 + 12 * k]
        if len(entry) < 12:
            break
        tag, kind, count = (int.from_bytes(entry[a:b], order) for a, b in ((0, 2), (2, 4), (4, 8)))
        size = TYPES.get(kind, 0)
        if not size or not 0 < count <= MOST_VALUES:
            continue
        place = int.from_bytes(entry[8:12], order)
        raw = entry[8:12] if size * count <= 4 else data[place : place + size * count]
        found[tag] = tuple(
            int.from_bytes(raw[size * i : size * (i + 1)], order) for i in range(count)
        )
    return found
