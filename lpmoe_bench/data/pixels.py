"""What the values of image and mask files mean: as declared, else as they tell, else refused."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from lpmoe_bench.data.headers import ALPHA, Header
from lpmoe_bench.data.label_rules import LabelRules, label_rules
from lpmoe_bench.errors import DataError, UsageError

# What an entry of datasets.yaml, or flags beside a user's own folders, declare.

ABOVE = "above 128"
COLOUR = r"#[0-9a-f]{6}"
FLAGS = {  # of a command line, by what they declare
    "object": "--mask-object",
    "ignore": "--mask-ignore",
    "bands": "--bands",
    "range": "--range",
    "resize_masks": "--resize-masks",
    "exif": "--exif",
    "category": "--category",
}


@dataclass(frozen=True)
class PixelRules:
    """What the values of a data set's files mean; what is left out is told by the files.

    object: what of a mask is object: values of the file, `nonzero`, a colour such as `#ff0000`,
    `alpha`, or `above 128`. ignore: values of mask pixels that are neither. bands: which bands of
    an image are red, green and blue, from 1; one is grey. range: the values that are black and
    white. resize_masks: a mask of another size is stretched to its image. exif: which of image and
    mask the rotation noted in the image turns, `image` or `both`. category: names of what is object
    in COCO and labelme files; all of it by default. labels: what the classes of label maps are,
    where masks are such.
    """

    object: str | tuple[int, ...] = ""
    ignore: tuple[int, ...] = ()
    bands: tuple[int, ...] = ()
    range: tuple[float, float] | None = None
    resize_masks: bool = False
    exif: str = ""
    category: tuple[str, ...] = ()
    labels: LabelRules | None = None

    @property
    def form(self) -> str:
        """The format of labels; empty for binary masks."""
        return self.labels.format if self.labels else ""

    @property
    def facts(self) -> dict[str, Any]:
        """What is declared, as an entry would say it."""
        usual = PixelRules()
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        found = {k: v for k, v in given.items() if v != getattr(usual, k)}
        found |= {"labels": self.labels.facts} if self.labels else {}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in found.items()}

    @cached_property  # asked for once a pair
    def key(self) -> str:
        """A text that differs where files would be read differently; empty where none would."""
        # Declared, `above 128` only ends a doubt: what is read is what it was.
        facts = {k: v for k, v in self.facts.items() if v != ABOVE}
        facts |= {"labels": self.labels.key} if self.labels else {}
        return ", ".join(f"{k}: {v}" for k, v in sorted(facts.items()))

    @property
    def note(self) -> str:
        """What a reader of scores should know; empty for nothing."""
        if not self.ignore or self.labels:
            return ""
        values = " and ".join(map(str, self.ignore))
        return (
            f"mask pixels of value {values} are ignored: left out of losses and of all counted "
            f"scores, background in map and mask for S, E, weighted F and distances"
        )


UNDECLARED = PixelRules()


def pixel_rules(values: Mapping[str, Any], *places: Path) -> PixelRules:
    """Check what somebody declared; raises UsageError in one sentence.

    Args:
        values: by the names of PixelRules, as YAML or a command line give them: a number may stand
            for a list of one, a text may hold numbers with commas.
        places: folders in which a list of classes is looked for; see `label_rules`.
    """
    known = [field.name for field in fields(PixelRules)]
    for name in values:
        if name not in known:
            raise UsageError.unknown("pixel rule", name, known)
    given = {k: v for k, v in values.items() if v not in (None, "", (), [], {})}
    found: dict[str, Any] = {}
    if "object" in given:
        found["object"] = _object(given["object"])
    if "ignore" in given:
        found["ignore"] = _whole("ignore", given["ignore"], 0)
    if "bands" in given:
        found["bands"] = _whole("bands", given["bands"], 1)
        if len(found["bands"]) not in (1, 3):
            raise UsageError(f"bands is {given['bands']}; name one band, or three: [1, 2, 3]")
    if "range" in given:
        found["range"] = _range(given["range"])
    if not isinstance(given.get("resize_masks", False), bool):
        raise UsageError(f"resize_masks is {given['resize_masks']!r}; it is true or false")
    found["resize_masks"] = given.get("resize_masks", False)
    if given.get("exif", "image") not in ("image", "both"):
        raise UsageError(f"exif is {given['exif']!r}; it is image or both")
    found["exif"] = given.get("exif", "")
    found["category"] = _names("category", given.get("category", ()))
    if "labels" in given:
        found["labels"] = _labels(given["labels"], *places)
    rules = PixelRules(**found)
    if isinstance(rules.object, tuple) and set(rules.object) & set(rules.ignore):
        raise UsageError(f"object and ignore both name {rules.object}; a pixel is one of the two")
    if rules.ignore and rules.object and (rules.object == "alpha" or "#" in rules.object):
        raise UsageError(f"ignore is a value of grey masks; it does not go with {rules.object}")
    of_masks = [name for name in ("object", "ignore", "category") if getattr(rules, name)]
    if rules.labels and rules.labels.format != "layers" and of_masks:
        raise UsageError(
            f"{of_masks[0]} is of binary masks, but labels are declared; write what it means into "
            f"labels, such as `labels: {{classes: [...], ignore: [255]}}`"
        )
    return rules


def _labels(value: Any, *places: Path) -> LabelRules:
    if isinstance(value, LabelRules):
        return value
    if not isinstance(value, Mapping):
        raise UsageError(f"labels is {value!r}; it holds format, classes and ignore by name")
    return label_rules(value, *places)


def _object(value: Any) -> str | tuple[int, ...]:
    text = str(value).strip().lower() if not isinstance(value, list | tuple) else ""
    if text in (ABOVE, "nonzero", "alpha") or re.fullmatch(COLOUR, text):
        return text
    try:
        return _whole("object", value, 0)
    except UsageError:
        raise UsageError(
            f"object is {value!r}; it is a value of the mask or several, nonzero, a colour such as "
            f"#ff0000, alpha, or '{ABOVE}'"
        ) from None


def _names(name: str, value: Any) -> tuple[str, ...]:
    items = value.split(",") if isinstance(value, str) else value
    if not isinstance(items, list | tuple) or not all(isinstance(item, str) for item in items):
        raise UsageError(f"{name} is {value!r}; it is a name or several, such as [cat, dog]")
    return tuple(dict.fromkeys(item.strip() for item in items if item.strip()))


def _whole(name: str, value: Any, least: int) -> tuple[int, ...]:
    items = value.split(",") if isinstance(value, str) else value
    items = list(items) if isinstance(items, list | tuple) else [items]
    try:
        numbers = tuple(int(item) for item in items if not isinstance(item, bool))
        exact = all(float(item) == number for item, number in zip(items, numbers, strict=True))
    except (TypeError, ValueError):
        numbers, exact = (), False
    if not exact or not all(least <= number < 2**16 for number in numbers):
        raise UsageError(f"{name} is {value!r}; it is whole numbers of {least} to 65535")
    return tuple(dict.fromkeys(numbers)) if name != "bands" else numbers


def _range(value: Any) -> tuple[float, float]:
    items = re.split(r"[,:]|(?<=\d)-", value) if isinstance(value, str) else value
    try:
        low, high = (float(item) for item in items)
    except (TypeError, ValueError):
        low = high = 0.0
    if not low < high or not np.isfinite(high - low):
        raise UsageError(f"range is {value!r}; give what is black and what is white: [0, 4095]")
    return low, high


def declare(text: str, **what: Any) -> str:
    """Return the line to write for what only a person knows: in an entry, and as a flag."""
    entry = ", ".join(f"{name}: {_yaml(value)}" for name, value in what.items())
    flags = " ".join(
        FLAGS[name] + ("" if value is True else f" {_flag(value)}") for name, value in what.items()
    )
    return f"{text}: declare `{entry}` in its entry, or {flags} beside your own folders"


def _yaml(value: Any) -> str:
    return "true" if value is True else f'"{value}"' if str(value).startswith("#") else str(value)


def _flag(value: Any) -> str:
    text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    return f"'{text}'" if "#" in text or " " in text else text


# Masks: which values are object, which are ignored.

THRESHOLD = 128  # a mask value above it is object, as in the field's evaluation code
GREY_TOLERANCE = 8  # channels this close are one grey: colour noise of JPEG
SOFT = 16  # levels this near to 0 or 255 are noise of one of them, however large their areas
FLAT = np.ones((3, 3), np.uint8)  # an area of one level this large is no soft edge
SHOWN = 8  # values in a sentence


@dataclass(frozen=True, slots=True)
class Truth:
    """What a mask file says: mask, uint8 of 0 and 255 (h, w), and which pixels count for nothing.

    ignored: bool (h, w), where the mask is 0, or None where every pixel counts. flags: what was
    unusual about the file. levels: the values it holds, if asked for.
    """

    mask: np.ndarray
    ignored: np.ndarray | None = None
    flags: tuple[str, ...] = ()
    levels: tuple[int, ...] = ()


def tell_object(
    path: Path, pixels: np.ndarray, header: Header, rules: PixelRules, threshold: int = THRESHOLD
) -> Truth:
    """Tell object from background in the decoded pixels of a mask file.

    Args:
        path: of the file, for errors.
        pixels: (h, w) or (h, w, 3 or 4) with channels as OpenCV has them, blue first; the indices
            of a palette where the rules speak of values.
        header: of the file.
        rules: what is declared of its values.
        threshold: of undeclared values: what lies above it, of 255, is object.

    Raises:
        DataError: nobody can tell what is object; the values seen and the line to write are named.
    """
    check_kind(path, pixels)
    flags: list[str] = []
    if rules.object == "alpha":
        if pixels.ndim == 2 or pixels.shape[2] != 4:
            raise DataError(f"mask {path} has no alpha channel, but object: alpha is declared")
        mask = _white(_to_8_bits(pixels[..., 3]) > threshold)
    elif _is_colour(rules.object):
        mask, flags = _of_colour(path, pixels, str(rules.object), threshold)
    elif rules.object == "nonzero" or isinstance(rules.object, tuple) or rules.ignore:
        return _of_values(path, pixels, header, rules, threshold)
    else:
        mask, flags = _undeclared(path, pixels, threshold, rules.object == ABOVE)
    return _told(mask, None, flags)


def wants_indices(rules: PixelRules) -> bool:
    """Whether rules speak of the values in a file, which are indices where it has a palette."""
    return bool(rules.ignore or rules.object == "nonzero" or isinstance(rules.object, tuple))


def levels_of(pixels: np.ndarray) -> tuple[int, ...]:
    """Return the values of one channel in order; of several whose values differ, none."""
    if pixels.ndim == 3:
        if not (pixels[..., :3] == pixels[..., :1]).all():
            return ()
        pixels = np.ascontiguousarray(pixels[..., 0])
    if pixels.dtype != np.uint8:
        return tuple(np.unique(pixels).tolist())
    histogram = cv2.calcHist([pixels], [0], None, [256], [0, 256])
    return tuple(np.flatnonzero(histogram).tolist())


def _told(mask: np.ndarray, ignored: np.ndarray | None, flags: list[str]) -> Truth:
    if ignored is not None and ignored.any():
        flags = [*flags, "ignored pixels"]
    else:
        ignored = None
    return Truth(mask, ignored, tuple(flags) if mask.any() else (*flags, "empty"))


def _white(found: np.ndarray) -> np.ndarray:
    return found.view(np.uint8) * np.uint8(255)


def check_kind(path: Path, pixels: np.ndarray) -> None:
    """Raise DataError for values that are no whole numbers of 8 or 16 bits."""
    if pixels.dtype not in (np.uint8, np.uint16):
        raise DataError(
            f"{path} holds {pixels.dtype} values; 8 or 16 bits a channel are read: convert it, or "
            f"for an image declare what is black and white, such as range: [0, 1]"
        )


def _to_8_bits(pixels: np.ndarray, keep_small: bool = False) -> np.ndarray:
    """Scale 16-bit values to 8; `keep_small` leaves those alone that fit into 8 bits anyway."""
    if pixels.dtype == np.uint8:
        return pixels
    if keep_small and pixels.max() <= 255:
        return pixels.astype(np.uint8)
    return (pixels >> 8).astype(np.uint8)


def over_black(pixels: np.ndarray) -> np.ndarray:
    """Turn uint8 (h, w, 4) with an alpha channel into (h, w, 3), shown over black."""
    alpha = pixels[..., 3:].astype(np.uint16)
    # + 127 rounds to the nearest level; // alone would make everything a little darker.
    return ((pixels[..., :3] * alpha + 127) // 255).astype(np.uint8)


def _undeclared(
    path: Path, pixels: np.ndarray, threshold: int, sure: bool
) -> tuple[np.ndarray, list[str]]:
    """Read a mask that says by itself what is object; sure: grey levels are, by declaration."""
    if pixels.ndim == 3 and pixels.shape[2] == 4:
        _refuse_alpha_alone(path, pixels)
        pixels = over_black(_to_8_bits(pixels, keep_small=True))
    values, coloured = _one_channel(path, _to_8_bits(pixels, True) if pixels.ndim == 3 else pixels)
    grey = _to_8_bits(values, keep_small=True)
    # Values of 2 to the threshold may be classes, or grey levels of a faint mask: nobody can tell
    # which of them mean object, and a mask without any would score in silence.
    top, most = int(grey.max()), int(values.max())
    if most > 1 and top <= threshold:
        raise DataError(
            f"mask {path} holds values from 0 to {most} only, and only values above "
            f"{threshold} of 255 count as object; {_which_is_object(values)}"
        )
    mask = cv2.threshold(grey, 0 if top == 1 else threshold, 255, cv2.THRESH_BINARY)[1]
    if coloured:
        return mask, ["two colours"]
    if top == 1:
        return mask, ["values 0 and 1"]
    if np.array_equal(mask, grey):
        return mask, []
    if not sure:
        _refuse_ids(path, values)
    return mask, ["grey levels"]


def _refuse_ids(path: Path, values: np.ndarray) -> None:
    """Raise DataError for levels that are more likely ids or classes than soft edges."""
    # Up to 255 they are 8-bit values, whatever they are stored in.
    scale = 1 if values.dtype == np.uint8 or values.max() <= 255 else 257
    white = 255 * scale
    seen = np.unique(values)
    few = seen[:-1]
    if seen[-1] == white and len(few) > 1 and len(few) <= SOFT and few[-1] == len(few) - 1:
        last = few[-1]
        raise DataError(
            f"mask {path} holds {_listed(seen)} alone: classes 0 to {last}, and {white} that often "
            f"means neither; " + declare("say what is object", object=1, ignore=int(white))
        )
    between = (values > SOFT * scale) & (values < (255 - SOFT) * scale)
    if not between.any():
        return
    # A level that fills 3 x 3 pixels: the least and the greatest around its centre are equal.
    flat = cv2.erode(values, FLAT) == cv2.dilate(values, FLAT)
    flat[[0, -1]] = flat[:, [0, -1]] = False
    if (flat & between).any():
        raise DataError(
            f"mask {path} has flat areas of {_listed(np.unique(values[flat]))}, which looks like "
            f"ids or classes rather than soft edges; {_which_is_object(values)} (grey levels of "
            f"which those above one half count: object: {ABOVE})"
        )


def _which_is_object(values: np.ndarray) -> str:
    """Return the line to write for a mask whose values may be ids or classes."""
    seen = np.unique(values)
    one = declare("one value is object", object=int(seen[-1]))
    return f"say what is, seen are {_listed(seen)}: `object: nonzero` for all but 0, or if {one}"


def _listed(values: Iterable[Any]) -> str:
    """Say the values seen, few of many."""
    found = [str(value) for value in values]
    if len(found) > SHOWN:
        found = [*found[: SHOWN - 2], "...", found[-1]]
    return f"the value{'s' if len(found) > 1 else ''} {', '.join(found)}"


def _refuse_alpha_alone(path: Path, pixels: np.ndarray) -> None:
    """Raise DataError where only the alpha channel tells object from background, and unseen."""
    colour, alpha = pixels[..., :3], pixels[..., 3]
    if (
        int(colour.max()) <= THRESHOLD * (257 if pixels.dtype == np.uint16 else 1)
        and (colour == colour[0, 0]).all()
        and alpha.min() != alpha.max()
    ):
        raise DataError(
            f"mask {path} is of one colour, and only its alpha channel varies; "
            + declare("if that is the object", object="alpha")
        )


def _one_channel(path: Path, pixels: np.ndarray) -> tuple[np.ndarray, bool]:
    """Reduce a mask to (h, w), and tell whether it was painted in two colours."""
    if pixels.ndim == 2:
        return pixels, False
    low, high = pixels.min(axis=2), pixels.max(axis=2)
    if int((high - low).max()) <= GREY_TOLERANCE:
        return high, False
    code = colour_codes(pixels)
    colours = np.unique(code)
    names = [f"#{int(colour):06x}" for colour in colours[:SHOWN]]
    if len(colours) != 2:
        raise DataError(
            f"mask {path} holds {len(colours)} colours; a mask has two values, object and "
            f"background: save it with 0 and 255, or "
            + declare(f"name the object's of {', '.join(names)}", object=names[-1])
        )
    sums = [int(pixels[code == colour][0].sum()) for colour in colours]
    if abs(sums[0] - sums[1]) <= 3 * SOFT:
        raise DataError(
            f"mask {path} is painted in {names[0]} and {names[1]}, which are equally bright; "
            + declare("say which is object", object=names[1])
        )
    return _white(code == colours[int(np.argmax(sums))]), True


def colour_codes(pixels: np.ndarray) -> np.ndarray:
    """Return one number for each colour, (h, w), as #rrggbb reads: compared faster than triples."""
    return pixels.astype(np.uint32) @ np.array([1, 256, 65536], np.uint32)


def _is_colour(rule: str | tuple[int, ...]) -> bool:
    return isinstance(rule, str) and rule.startswith("#")


def _of_colour(
    path: Path, pixels: np.ndarray, colour: str, threshold: int
) -> tuple[np.ndarray, list[str]]:
    """Read a mask whose object has a colour; a grey one was converted before."""
    if pixels.ndim == 3 and pixels.shape[2] == 4:
        pixels = pixels[..., :3] * (pixels[..., 3:] > 0)
    if pixels.ndim == 2 or (pixels == pixels[..., :1]).all():
        if len(set(bytes.fromhex(colour[1:]))) > 1:
            return _undeclared(path, pixels, threshold, False)
        pixels = pixels if pixels.ndim == 3 else np.dstack([pixels] * 3)
    pixels = _to_8_bits(pixels)
    blue_green_red = np.frombuffer(bytes.fromhex(colour[1:])[::-1], np.uint8)
    # Resizing and JPEG mix colours: of a pure one each channel is held against the middle.
    if blue_green_red.any() and ((blue_green_red < 64) | (blue_green_red > 191)).all():
        return _white(((pixels > 127) == (blue_green_red > 127)).all(axis=2)), []
    return _white((pixels == blue_green_red).all(axis=2)), []


def _of_values(
    path: Path, pixels: np.ndarray, header: Header, rules: PixelRules, threshold: int
) -> Truth:
    """Read a mask whose values are declared."""
    if header.kind == "jpeg":
        raise DataError(
            f"mask {path} is a JPEG file, which does not keep values; save it as PNG, or declare "
            f"object: {ABOVE}"
        )
    if pixels.ndim == 3 and pixels.shape[2] == 4:
        pixels = pixels[..., :3] * (pixels[..., 3:] > 0)
    if pixels.ndim == 3 and (pixels == pixels[..., :1]).all():
        pixels = pixels[..., 0]
    if pixels.ndim == 3:
        if rules.object != "nonzero" or rules.ignore:
            raise DataError(
                f"mask {path} is in colours, which have no value; declare the object's as "
                f'object: "#rrggbb"'
            )
        pixels = pixels.max(axis=2)
    ignored = np.isin(pixels, rules.ignore) if rules.ignore else None
    if isinstance(rules.object, tuple):
        return _told(_white(np.isin(pixels, rules.object)), ignored, [])
    rest = pixels if ignored is None else np.where(ignored, 0, pixels)
    if rules.object == "nonzero":
        return _told(_white(rest > 0), ignored, [])
    mask, flags = _undeclared(path, rest, threshold, rules.object == ABOVE)
    return _told(mask, ignored, flags)


# Images: which bands are colours, which values are black and white.

LEAST_16_BIT = 1 << 14  # a set of 16-bit images that stays below holds values of fewer bits


def check_bands(path: Path, header: Header, rules: PixelRules) -> None:
    """Raise DataError for an image whose bands are not known to be colours."""
    if rules.bands or header.kind != "tiff" or header.cmyk or header.palette:
        return
    alpha = header.extra is not None and len(header.extra) == 1 and header.extra[0] in ALPHA
    if header.channels in (1, 3) or (alpha and header.channels in (2, 4)):
        return
    wanted = [1, 2, 3] if header.channels > 2 else 1
    shown = declare("say which are red, green and blue", bands=wanted)
    raise DataError(f"{path} has {header.channels} bands, and does not say which; {shown}")


def take_bands(path: Path, pixels: np.ndarray, rules: PixelRules) -> np.ndarray:
    """Return the declared bands, (h, w, 3), of pixels (h, w) or (h, w, n) in the file's order."""
    bands = pixels if pixels.ndim == 3 else pixels[..., None]
    if max(rules.bands) > bands.shape[2]:
        raise DataError(
            f"{path} has {bands.shape[2]} bands, but bands: {list(rules.bands)} is declared"
        )
    chosen = rules.bands if len(rules.bands) == 3 else rules.bands * 3
    return np.ascontiguousarray(bands[..., [band - 1 for band in chosen]])


def limits_of(path: Path, header: Header, rules: PixelRules) -> tuple[float, float] | None:
    """Return what is black and white in an image: declared, or by a tag of the file; or None."""
    if rules.range is not None:
        if header.bits == 8 and rules.range[1] > 255:
            raise DataError(
                f"{path} has 8 bits, but range {rules.range[0]:g} to {rules.range[1]:g} is "
                f"declared: correct the range, or convert the file"
            )
        return rules.range
    return (0.0, float(header.maximum)) if header.maximum and header.bits > 8 else None


def within(path: Path, pixels: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    """Return values as float32 in [0, 1]; those beyond the limits are cut."""
    low, high = limits
    if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
        raise DataError(f"{path} holds NaN or infinite values; replace them")
    values = (pixels.astype(np.float32) - np.float32(low)) / np.float32(high - low)
    return np.clip(values, 0, 1, out=values)


def check_range(highest: Mapping[str, int], what: str) -> None:
    """Refuse 16-bit images that use so little of their range that it must be another one.

    Args:
        highest: the greatest value of each 16-bit image whose range no tag and nobody has told, by
            name.
        what: they are, for the sentence.

    Raises:
        DataError: none of them reaches a quarter of 65535.
    """
    most = max(highest.values(), default=0)
    if not 0 < most < LEAST_16_BIT:
        return
    name = next(iter(highest))
    likely = (1 << most.bit_length()) - 1
    raise DataError(
        f"{len(highest)} images of {what} (such as {name}) have 16 bits and values up to {most} "
        f"alone, which would be nearly black; "
        + declare("say what is black and white", range=[0, likely])
    )
