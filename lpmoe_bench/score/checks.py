"""What is suspicious about maps, image by image and as one sentence for a whole folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import cv2
import numpy as np

from lpmoe_bench.data.splits import UNUSUAL
from lpmoe_bench.errors import DataError
from lpmoe_bench.metrics.maps import PreparedMask
from lpmoe_bench.metrics.protocols import Protocol

Found = Mapping[str, Sequence[str]]  # names of images by check, sorted

SHOWN, STRETCH = 3, 2.0  # a map that spans less than 255 / STRETCH is stretched strongly
# What a record's counts call the check, and what a sentence says of the maps.
CHECKS = {
    "resized": ("resized_maps", "are not of their mask's size and were resized bilinearly"),
    "jpeg": ("jpeg_maps", "are JPEG files, which do not keep values exactly; save PNG"),
    "16 bits": ("16_bit_maps", "have 16 bits, rounded to 8"),
    "floats": ("float_maps", "hold floats, rounded to 8 bits"),
    "three channels": ("three_channel_maps", "are RGB with equal channels, of which one counts"),
    "in two colours": ("two_colour_maps", "are in two colours, of which the lighter one is object"),
    "colours": ("coloured_maps", "are in colours, of which the luminance counts: are they maps?"),
    "transparent": ("transparent_maps", "are partly transparent, seen over black"),
    "constant": ("constant_maps", "are constant"),
    "0 and 1": ("zero_one_maps", "hold nothing above 1 of 255"),
    "two values": (
        "binary_maps",
        "hold two values only: binarised maps score other than probabilities where thresholds vary",
    ),
    "narrow": ("narrow_maps", f"span less than 1/{STRETCH:g} of 0 to 255"),
    "inverted": ("inverted_maps", "are darker on the object than elsewhere"),
    "mask": ("maps_equal_to_mask", "equal their mask pixel by pixel"),
}


def look_at(pred: np.ndarray, mask: PreparedMask) -> Iterator[str]:
    """Yield the checks that a map, uint8 (h, w) of its mask's size, does not pass."""
    levels = np.flatnonzero(cv2.calcHist([pred], [0], None, [256], [0, 256]))
    low, high = int(levels[0]), int(levels[-1])
    if low == high:
        yield "constant"
    elif high == 1:
        yield "0 and 1"
    elif len(levels) == 2:
        yield "two values"
    elif (high - low) * STRETCH < 255:
        yield "narrow"
    if low < high and mask.mixed and cv2.mean(pred, mask.pixels)[0] < cv2.mean(pred)[0]:
        yield "inverted"
    extremes = len(levels) <= 2 and {low, high} <= {0, 255}
    if extremes and mask.foreground and np.array_equal(pred != 0, mask.pixels.view(np.bool_)):
        yield "mask"


def sentences(found: Found, total: int, protocol: Protocol) -> list[str]:
    """Say each check that maps of a folder did not pass, with how many and the first names."""
    said = []
    for check, names in found.items():
        text = CHECKS[check][1]
        if check in ("narrow", "0 and 1"):
            stretched = protocol.normalisation == "minmax"
            text += f"; protocol {protocol.name} " + (
                "stretches each to the full range" if stretched else "does not stretch them"
            )
        if check == "inverted" and 2 * len(names) > total:
            text += ": they look inverted, object must be bright"
        if check == "mask" and len(names) == total:
            text += ": is this a folder of masks?"
        said.append(_sentence(names, total, "maps", text))
    return said


def mask_sentences(found: Found, total: int) -> list[str]:
    """Say what is unusual about the masks, in the words of `check_pairs`."""
    return [_sentence(found[flag], total, "masks", UNUSUAL[flag]) for flag in found]


def look_swapped(found: Found, mask_flags: Found, total: int) -> bool:
    """Whether all maps hold two values only and their masks grey levels, as if swapped."""
    binary = found.get("two values", ())
    return len(binary) == total and set(binary) <= set(mask_flags.get("grey levels", ()))


def _sentence(names: Sequence[str], total: int, kind: str, text: str) -> str:
    first = ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
    return f"{len(names)} of {total} {kind} {text} ({first})"


def check_counts(found: Found) -> dict[str, int]:
    """Return how many maps did not pass, by the name a record has for each check."""
    return {CHECKS[check][0]: len(names) for check, names in found.items()}


def refuse_zero_one(found: Found, total: int, protocol: Protocol, title: str) -> None:
    """Raise DataError where maps of 0 and 1 would all count as background."""
    small = len(found.get("0 and 1", ()))
    if (
        small
        and small + len(found.get("constant", ())) == total
        and protocol.normalisation != ("minmax")
    ):
        raise DataError(
            f"the maps of {title} hold nothing above 1 of 255, and protocol {protocol.name} does "
            f"not stretch maps; save them with 255 for 1"
        )
