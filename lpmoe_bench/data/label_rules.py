"""What the pixels of label maps mean: classes by value, by colour or by layer; their colours."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from lpmoe_bench.errors import DataError, UsageError
from lpmoe_bench.metrics.classes import VOID

MOST_CLASSES = 254  # indices of 0 to 253: with VOID and one for what is unknown, a byte is full
FORMATS = ("index", "colour", "layers")
LISTING = ("coco", "coco_panoptic")  # formats of objects whose files list their classes
OBJECTS = (*LISTING, "voc", "yolo", "instances")
COLOUR = re.compile(r"#[0-9a-f]{6}")
NAMED_COLOUR = re.compile(r"(.*\S)\s+(#[0-9a-fA-F]{6})")  # a line of a list of classes
NUMBERED = re.compile(r"\d+\s*[:;=.)\t]")  # 0: sky
MOST_BYTES = 1 << 20  # of a list of classes
SHOWN = 5  # names or values in a sentence

Value = int | str  # of a pixel: a number, or a colour as #rrggbb


@dataclass(frozen=True, slots=True)
class LabelRules:
    """What the pixels of a data set's label maps mean, or what its files of objects are.

    format: `index`, where a value of the file is a class; `colour`, where a colour is; or `layers`:
    a folder of binary masks for each class but the first, which is where no mask has its object;
    later folders lie on top. Of objects: `coco`, `coco_panoptic`, `voc`, `yolo`, or `instances`:
    maps of one number an object. classes: names in order, without any as long as the file that
    lists them was not read. ignore: values or colours that count for nothing. first: the value of
    the first class. values: for each class those of the file that mean it, where they do not count
    up from `first`. colours: `#rrggbb` that pictures show. folders: of layers. divisor: of an
    instance map, whose values divided by it are classes. things: names of the classes whose
    objects are told apart, where others are stuff.
    """

    format: str
    classes: tuple[str, ...]
    ignore: tuple[Value, ...] = ()
    first: int = 0
    values: tuple[tuple[Value, ...], ...] = ()
    colours: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    divisor: int = 0
    things: tuple[str, ...] = ()

    @property
    def objects(self) -> bool:
        """Whether they are of objects, and not of pixels."""
        return self.format in OBJECTS

    @property
    def facts(self) -> dict[str, Any]:
        """What is declared, as an entry may say it and `label_rules` reads it."""
        usual = LabelRules("", ())
        found = {k: v for k, v in asdict(self).items() if v != getattr(usual, k)}
        return {k: _as_lists(v) for k, v in found.items()}

    @property
    def key(self) -> str:
        """A text that differs where files are read differently, or classes have other names."""
        facts = {k: v for k, v in self.facts.items() if k != "colours"}  # which no reading changes
        return ", ".join(f"{k}: {v}" for k, v in sorted(facts.items()))

    @property
    def of_class(self) -> tuple[tuple[Value, ...], ...]:
        """The values of the file that mean each class; none of layers."""
        if self.values or self.format == "layers":
            return self.values
        return tuple((self.first + index,) for index in range(len(self.classes)))


def _as_lists(value: Any) -> Any:
    return [_as_lists(item) for item in value] if isinstance(value, tuple | list) else value


def label_rules(values: Mapping[str, Any], *places: Path) -> LabelRules:
    """Check what somebody declared of label maps.

    Args:
        values: by the names of LabelRules, as YAML or a command line give them. `classes` may be a
            list of names, a mapping of names to values or colours, a list of them for several, or
            a file that lists a name a line, with its colour or without. Without `format`, colours
            are those of the maps, unless `first` or a number in `ignore` says that these hold
            values: then they are those of pictures.
        places: folders in which that file is looked for; without any it is not read. A Path is
            read where it is; where it lists one class and nothing else is said, labels are maps
            of one number an object.

    Raises:
        UsageError: one of them is none, or they contradict each other.
        DataError: the list of classes is missing or is none.
    """
    known = [field.name for field in fields(LabelRules)]
    for name in values:
        if name not in known:
            raise UsageError.unknown("label rule", str(name), known)
    given = {k: v for k, v in values.items() if v not in (None, "", (), [], {})}
    if "classes" not in given and given.get("format") not in LISTING:
        raise UsageError("labels have no classes; write `classes: [background, leaf]` or a file")
    folders = tuple(str(item) for item in _listed(given.get("folders", ())))
    names, found = _classes(given.get("classes", ()), places)
    found = found or [_values(item) for item in _listed(given.get("values", ()))]
    counted = _counted(given)
    form = given.get("format") or _likely_format(folders, () if counted else found)
    if len(names) == 1 and isinstance(given.get("classes"), Path) and len(given) == 1:
        form = "instances"  # label maps have two classes at least: a list of one is of objects
    if form not in (*FORMATS, *OBJECTS):
        raise UsageError.unknown("format of labels", str(form), (*FORMATS, *OBJECTS))
    colours = _colours(given.get("colours", ()), names)
    if form != "colour" and found and all(map(_is_colour, found)):
        # A list of classes says how they are shown; the files hold other values.
        colours, found = colours or tuple(str(one[0]) for one in found), []
    first = given.get("first", 0)
    if not _is_whole(first):
        raise UsageError(f"first is {first!r}; it is the value of the first class, 0 to 65535")
    rules = LabelRules(
        format=form,
        classes=names,
        ignore=_values(given.get("ignore", ())),
        first=first,
        values=tuple(found),
        colours=colours,
        folders=folders,
        divisor=_divisor(given.get("divisor", 0)),
        things=_things(given.get("things", ()), names),
    )
    _check(rules, read=bool(places) or not isinstance(given.get("classes"), str))
    return rules


def _divisor(value: Any) -> int:
    if not _is_whole(value):
        raise UsageError(f"divisor is {value!r}; it is a whole number such as 1000")
    return value


def _things(value: Any, names: Sequence[str]) -> tuple[str, ...]:
    found = tuple(str(name) for name in _listed(value))
    for name in found:
        if names and name not in names:
            raise UsageError.unknown("class of things", name, names)
    return found


def _counted(given: Mapping[str, Any]) -> bool:
    """Whether `first`, or a number that is ignored, says that classes are values, not colours."""
    ignored = _values(given.get("ignore", ()))
    return "first" in given or any(isinstance(value, int) for value in ignored)


def _likely_format(folders: Sequence[str], found: Sequence[tuple[Value, ...]]) -> str:
    if folders:
        return "layers"
    return "colour" if found and all(map(_is_colour, found)) else "index"


def _classes(value: Any, places: Sequence[Path]) -> tuple[tuple[str, ...], list[tuple[Value, ...]]]:
    """Return the names of classes and, where they have them, their values or colours."""
    if isinstance(value, Path):
        return _named(read_classes(value), f"{value}: ")
    if isinstance(value, str):
        there = [place / value for place in places if (place / value).is_file()]
        if not places:
            return (), []
        return _named(read_classes(there[0] if there else places[0] / value), f"{value}: ")
    if isinstance(value, Mapping):
        return _named([(name, _values(item)) for name, item in value.items()])
    if isinstance(value, list | tuple):
        return _named([(name, ()) for name in value])
    raise UsageError(f"classes is {value!r}; it is a list of names, names with colours, or a file")


def _named(
    listed: Sequence[tuple[Any, tuple[Value, ...]]], where: str = ""
) -> tuple[tuple[str, ...], list[tuple[Value, ...]]]:
    """Check names of classes; where: what stands before a sentence about them."""
    for name, _ in listed:
        if not isinstance(name, str) or not name.strip() or not name.isprintable() or "," in name:
            raise UsageError(
                f"{where}{name!r} is no name of a class; write a text without commas, in quotes "
                f"where YAML reads it as another value"
            )
    names = tuple(name.strip() for name, _ in listed)
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise UsageError(
            f"{where}class {shown_few(twice)} stands twice; give each a name of its own"
        )
    given = [values for _, values in listed]
    if any(given) and not all(given):
        raise UsageError(
            f"{where}class {names[given.index(())]} has no colour or value, and others have; give "
            f"all of them one, or none"
        )
    return names, given if any(given) else []


def read_classes(path: Path) -> list[tuple[str, tuple[Value, ...]]]:
    """Return names of classes and their colours, if any: a name a line, `#rrggbb` behind it.

    Raises:
        DataError: the file is missing, empty or no text.
    """
    try:
        with open(path, "rb") as file:
            text = file.read(MOST_BYTES).decode("utf-8-sig")
    except OSError as error:
        raise DataError(
            f"the list of classes {path} cannot be read ({error.strerror}); write one name a line, "
            f"in the order of their values"
        ) from None
    except UnicodeDecodeError:
        raise DataError(f"the list of classes {path} is no UTF-8 text; save it as UTF-8") from None
    found: list[tuple[str, tuple[Value, ...]]] = []
    for line in filter(None, map(str.strip, text.splitlines())):
        with_colour = NAMED_COLOUR.fullmatch(line)
        found.append((with_colour[1], (with_colour[2].lower(),)) if with_colour else (line, ()))
    if not found:
        raise DataError(f"the list of classes {path} is empty; write one name a line")
    if all(NUMBERED.match(name) for name, _ in found):
        raise DataError(
            f"the list of classes {path} has numbers before names, such as {found[0][0]!r}; write "
            f"names alone, in the order of their values"
        )
    return found


def _values(value: Any) -> tuple[Value, ...]:
    """Return values of pixels and colours, of which a text may hold several with commas."""
    found: list[Value] = []
    for item in _listed(value):
        text = str(item).strip().lower()
        if COLOUR.fullmatch(text):
            found.append(text)
        elif _is_whole(item) or (isinstance(item, str) and text.isdecimal() and len(text) < 6):
            found.append(int(text))
        else:
            raise UsageError(
                f"{item!r} is neither a value of a label map, 0 to 65535, nor a colour such as "
                f"'#ff0000', which YAML wants in quotes"
            )
    if any(isinstance(item, int) and item > 65535 for item in found):
        raise UsageError(f"{max(map(_number, found))} is no value of a label map; 0 to 65535 are")
    return tuple(dict.fromkeys(found))


def _listed(value: Any) -> Sequence[Any]:
    if isinstance(value, str):
        return [item for item in value.split(",") if item.strip()]
    return value if isinstance(value, list | tuple) else [value]


def _number(value: Value) -> int:
    return value if isinstance(value, int) else 0


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**16


def _is_colour(values: Sequence[Value]) -> bool:
    return all(isinstance(value, str) for value in values)


def _colours(value: Any, names: Sequence[str]) -> tuple[str, ...]:
    """Return the colours that pictures show, given in the order of classes or by their names."""
    if isinstance(value, Mapping):
        for name in value:
            if names and name not in names:
                raise UsageError.unknown("class", str(name), names)
        lacking = [name for name in names if name not in value]
        if lacking:
            raise UsageError(
                f"colours has none for class {shown_few(lacking)}; give each class one"
            )
        value = [value[name] for name in names]
    found = [str(item).strip().lower() for item in _listed(value)]
    for colour in found:
        if not COLOUR.fullmatch(colour):
            raise UsageError(f"colours has {colour!r}; write each as '#rrggbb', in quotes")
    return tuple(found)


def _check(rules: LabelRules, read: bool) -> None:
    """Raise UsageError where rules contradict each other; read: the classes are known."""
    if read:
        _check_counts(rules)
    used = Counter(value for values in rules.of_class for value in values)
    if twice := [value for value, count in used.items() if count > 1]:
        raise UsageError(f"{shown_few(twice)} means two classes; give each values of its own")
    if both := [value for value in rules.ignore if value in used]:
        whose = next(n for n, v in zip(rules.classes, rules.of_class, strict=True) if both[0] in v)
        hint = " (`first: 1` where classes count from 1)" if not rules.values else ""
        raise UsageError(
            f"{both[0]} is both class {whose} and ignored; a value is one of the two{hint}"
        )
    if rules.objects:
        _check_objects(rules)
        return
    wrong = [
        v for v in (*used, *rules.ignore) if isinstance(v, str) is not (rules.format == "colour")
    ]
    if wrong and rules.format != "layers":
        kind = "colours, such as '#ff0000'" if rules.format == "colour" else "values, such as 255"
        raise UsageError(f"labels of format {rules.format} have {kind}, and not {wrong[0]!r}")


def _check_objects(rules: LabelRules) -> None:
    """Raise UsageError for what labels of objects do not have."""
    if (rules.divisor or rules.values or rules.ignore) and rules.format != "instances":
        what = "divisor" if rules.divisor else "ignore" if rules.ignore else "values of classes"
        raise UsageError(f"{what} is of labels of format instances, and not of {rules.format}")
    if rules.ignore and not rules.divisor:
        raise UsageError("ignore lists classes of an instance map, which has none without divisor")
    if rules.format == "instances" and len(rules.classes) > 1 and not rules.divisor:
        raise UsageError(
            "an instance map of several classes needs a divisor, such as `divisor: 1000` where "
            "26003 is object 3 of class 26"
        )


def _check_counts(rules: LabelRules) -> None:
    count = len(rules.classes)
    least = 0 if rules.format in LISTING else 1 if rules.objects else 2
    if not least <= count <= MOST_CLASSES:
        raise UsageError(f"labels have {count} classes; {least or 1} to {MOST_CLASSES} are read")
    if rules.format == "layers":
        if len(rules.folders) != count - 1:
            raise UsageError(
                f"layers name {len(rules.folders)} folders for {count} classes; give each class "
                f"but the first a folder, and the first is where none of them has its object"
            )
        if rules.ignore or rules.first or rules.values:
            raise UsageError(
                "layers have neither ignore, first nor values; write `object` and `ignore` of "
                "their masks beside labels"
            )
    elif rules.folders:
        raise UsageError(f"folders are of layers, but the format of labels is {rules.format}")
    if rules.values and len(rules.values) != count:
        raise UsageError(
            f"values has {len(rules.values)} entries for {count} classes; give one each"
        )
    if rules.colours and len(rules.colours) != count:
        raise UsageError(
            f"colours has {len(rules.colours)} for {count} classes; give each class one"
        )
    if rules.format == "colour" and not rules.values:
        raise UsageError(
            'labels of format colour need one for each class: `classes: {background: "#000000", '
            'leaf: "#00b000"}`'
        )
    if rules.first + count > 2**16:
        raise UsageError(f"first is {rules.first}, but {count} classes from there pass 65535")


def shown_few(items: Sequence[Any]) -> str:
    """Join a few items and say how many more there are."""
    more = f" and {len(items) - SHOWN} more" if len(items) > SHOWN else ""
    return ", ".join(map(str, items[:SHOWN])) + more


# Colours of classes in pictures.

HUE = 0.618034  # of a full turn, the golden section: neighbours in order are far apart in hue
TONES = ((0.78, 0.90), (0.55, 1.00), (0.92, 0.62), (0.38, 0.80), (0.70, 0.45))  # saturation, value
VOID_COLOUR = (0, 0, 0)


def class_colour(index: int) -> tuple[int, int, int]:
    """Return the colour, RGB of 0 to 255, that pictures show a class in; VOID is black.

    It depends on the index alone, so that a class keeps its colour whatever others there are. All
    of 254 differ.
    """
    if index == VOID:
        return VOID_COLOUR
    turn = (0.58 + index * HUE) % 1.0
    saturation, value = TONES[index // 7 % len(TONES)]
    # HSV to RGB: each channel falls from its own third of the circle.
    channels = (
        value - value * saturation * max(0.0, min(k := (n + turn * 6) % 6, 4 - k, 1.0))
        for n in (5, 3, 1)
    )
    red, green, blue = (round(255 * channel) for channel in channels)
    return red, green, blue


def class_colours(classes: int | LabelRules) -> list[tuple[int, int, int]]:
    """Return the colours of all classes in order: those declared, or those of their indices.

    Args:
        classes: how many there are, or rules, whose own colours win.
    """
    if isinstance(classes, int):
        return [class_colour(index) for index in range(classes)]
    declared = classes.colours
    if classes.format == "colour" and not declared:
        declared = tuple(str(values[0]) for values in classes.values)
    if not declared:
        return class_colours(len(classes.classes))
    parts = (bytes.fromhex(colour[1:]) for colour in declared)
    return [(red, green, blue) for red, green, blue in parts]
