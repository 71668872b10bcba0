"""Label files of objects: COCO detection, instance and panoptic JSON, VOC's XML and YOLO's text.

Each is read once into what it says of every image. Class ids with gaps become numbers from 0, in
their order, and keep their names.
"""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from lpmoe_bench.data.annotations import (
    MALFORMED,
    Mask,
    MaskParts,
    Shape,
    check_size,
    read_json,
    read_outline,
)
from lpmoe_bench.data.images import image_size
from lpmoe_bench.data.label_rules import MOST_CLASSES, LabelRules
from lpmoe_bench.data.matching import divide_place, named_files, same_name, shown
from lpmoe_bench.data.objects import ImageObjects
from lpmoe_bench.errors import DataError, UsageError

MOST_XML_BYTES = 1 << 24  # of one image: a file of more is no list of objects
NONE = np.full(4, np.nan)
Images = Mapping[str, Path]


class FileObjects(NamedTuple):
    """The label files of a split. rules: with the classes that they have. masks: by image name."""

    rules: LabelRules
    masks: dict[str, Mask]


@dataclass(frozen=True)
class _One:
    """One object as its file has it: class, box, area (NaN for none), crowd, outline."""

    label: int
    box: np.ndarray
    area: float = math.nan
    crowd: bool = False
    outline: Shape | None = None


def read_object_files(places: Sequence[Path], images: Images, rules: LabelRules) -> FileObjects:
    """Return the labels of images, as their format has them.

    Args:
        places: a COCO file; of panoptic labels also the folder of its maps; of VOC and YOLO the
            folder of a file for each image.
        images: files by name; those that no label speaks of are nobody's.
        rules: what is declared: format, and classes where the files do not list them.

    Raises:
        DataError: for files that are broken, contradict themselves, or speak of images that are not
            there.
        UsageError: for classes that are to be declared and are not.
    """
    return READERS[rules.format](places, images, rules)


# COCO: one file for all images.


def _of_coco(places: Sequence[Path], images: Images, rules: LabelRules) -> FileObjects:
    path = places[0]
    content = read_json(path)
    with _sound(path, "COCO", "images, annotations and categories"):
        found, number = _categories(path, content, rules)
        sizes = _sizes(path, content)
        objects: dict[Any, list[_One]] = defaultdict(list)
        seen: set[Any] = set()
        for one in content["annotations"]:
            name = f"annotation {one.get('id', '')}".strip()
            if "id" in one:
                if one["id"] in seen:
                    raise DataError(f"{path} has two annotations with the id {one['id']}")
                seen.add(one["id"])
            if one["image_id"] not in sizes:
                raise DataError(f"{path}: {name} is of image {one['image_id']}, not in its list")
            size = sizes[one["image_id"]][1:]
            label = _number(path, name, one["category_id"], number)
            objects[one["image_id"]].append(_coco_object(path, name, one, label, size))
    names = _matched(path, {key: size[0] for key, size in sizes.items()}, images)
    masks: dict[str, Mask] = {
        names[key]: MaskParts((path,), objects=_gathered(h, w, objects[key]))
        for key, (_, h, w) in sizes.items()
    }
    return FileObjects(found, masks)


def _coco_object(path: Path, name: str, one: Mapping[str, Any], label: int, size: Any) -> _One:
    given, box = one.get("segmentation"), NONE
    try:
        outline = read_outline(given, size) if given else None
    except MALFORMED as error:
        raise DataError(f"{path}: {name} has {error}") from None
    if one.get("bbox"):
        left, top, width, height = map(float, one["bbox"])
        box = _checked_box(path, name, (left, top, left + width, top + height), size)
    elif outline is None:
        raise DataError(f"{path}: {name} has neither a box nor an outline")
    area = float(one["area"]) if one.get("area") is not None else math.nan
    if area < 0 or math.isinf(area):
        raise DataError(f"{path}: {name} has an area of {area:g} pixels")
    return _One(label, box, area, bool(one.get("iscrowd", 0)), outline)


def _categories(
    path: Path, content: Mapping[str, Any], rules: LabelRules
) -> tuple[LabelRules, dict[int, int]]:
    """Return rules with the classes of a file, and the number of each id."""
    ids = sorted(content["categories"], key=lambda one: int(one["id"]))
    names = [str(one["name"]).strip() for one in ids]
    if not names:
        raise DataError(f"{path} lists no category; its `categories` name the classes")
    if len(set(names)) < len(names) or len({int(one["id"]) for one in ids}) < len(names):
        twice = [name for k, name in enumerate(names) if name in names[:k]] or ["an id"]
        raise DataError(f"{path} lists the category {twice[0]} twice; give each a name and an id")
    if odd := [name for name in names if not name or "," in name or not name.isprintable()]:
        raise DataError(f"{path} has a category {odd[0]!r}; give it a name without commas")
    classes = rules.classes or tuple(names)
    if len(classes) > MOST_CLASSES:
        raise DataError(f"{path} has {len(classes)} categories; up to {MOST_CLASSES} are read")
    if unknown := [name for name in names if name not in classes]:
        raise DataError(
            f"{path} has a category {unknown[0]}, which is none of the classes that are declared "
            f"({shown(classes)}); add it to `classes`, or leave these out: the file has them"
        )
    number = {int(one["id"]): classes.index(name) for one, name in zip(ids, names, strict=True)}
    return replace(rules, classes=classes), number


def _number(path: Path, name: str, category: Any, number: Mapping[int, int]) -> int:
    if category not in number:
        raise DataError(
            f"{path}: {name} is of category {category}, which its list of categories does not "
            f"have; it has {shown(map(str, number))}"
        )
    return number[category]


def _sizes(path: Path, content: Mapping[str, Any]) -> dict[Any, tuple[str, int, int]]:
    """Return the file name, height and width of each image by its id."""
    sizes: dict[Any, tuple[str, int, int]] = {}
    files: set[str] = set()
    for one in content["images"]:
        size = (int(one["height"]), int(one["width"]))
        check_size(path, *size)
        file = str(one["file_name"]).replace("\\", "/")
        if one["id"] in sizes:
            raise DataError(f"{path} has two images with the id {one['id']}")
        if file in files:
            raise DataError(f"{path} lists the image {file} twice")
        sizes[one["id"]] = (file, *size)
        files.add(file)
    if not sizes:
        raise DataError(f"{path} lists no image")
    return sizes


def _matched(path: Path, files: Mapping[Any, str], images: Images) -> dict[Any, str]:
    """Return the name of each image that a file lists, by its id."""
    by_last: dict[str, list[str]] = {}
    for name in images:
        by_last.setdefault(name.rpartition("/")[2], []).append(name)
    found, missing = {}, []
    for key, file in files.items():
        name = same_name(PurePosixPath(file).with_suffix("").as_posix())
        # A file says `train/a.jpg` where the folder given is that of train, or the other way round.
        likely = by_last.get(name.rpartition("/")[2], [])
        if name not in images and len(likely) == 1:
            name = likely[0]
        if name not in images:
            missing.append(file)
        found[key] = name
    if missing:
        raise DataError(
            f"{len(missing)} of {len(files)} images that {path} lists are not there: "
            f"{shown(missing)}; name the folder that holds them"
        )
    if twice := [name for name, count in Counter(found.values()).items() if count > 1]:
        raise DataError(f"{path} lists two images that are one file: {shown(twice)}")
    return found


class FileIds(NamedTuple):
    """What the numbers of a COCO file mean: the name of each image, the class of each category."""

    images: dict[Any, str]
    classes: dict[int, int]


def ids_of_file(path: Path, names: Collection[str], rules: LabelRules) -> FileIds:
    """Return the ids of a COCO file whose images have these names; raises DataError."""
    content = read_json(path)
    with _sound(path, "COCO", "images and categories"):
        _, number = _categories(path, content, replace(rules, things=()))
        files = {key: size[0] for key, size in _sizes(path, content).items()}
        return FileIds(_matched(path, files, dict.fromkeys(names, path)), number)


class ResultIds(NamedTuple):
    """The ids that a file of truth gives images and classes, by their names."""

    images: dict[str, Any]
    classes: dict[str, int]


def result_ids(path: Path, names: Collection[str], classes: Sequence[str]) -> ResultIds:
    """Return the ids that a COCO file gives images and classes.

    Args:
        path: of the file.
        names: of the images, paths without a suffix, or the last parts of those in the file.
        classes: their names.

    Raises:
        DataError: it is none, or lacks an image or a class.
    """
    content = read_json(path)
    with _sound(path, "COCO", "images and categories"):
        rules, number = _categories(path, content, LabelRules("coco", ()))
        files = {key: PurePosixPath(size[0]) for key, size in _sizes(path, content).items()}
    of_class = {rules.classes[place]: key for key, place in number.items()}
    known = {same_name(file.with_suffix("").as_posix()): key for key, file in files.items()}
    last = Counter(name.rpartition("/")[2] for name in known)
    short = {name.rpartition("/")[2]: key for name, key in known.items()}
    short = {name: key for name, key in short.items() if last[name] == 1}
    own = {name: same_name(name) for name in names}
    images = {n: known.get(o, short.get(o.rpartition("/")[2])) for n, o in own.items()}
    if lacking := [name for name, key in images.items() if key is None]:
        raise DataError(
            f"{path} does not list {len(lacking)} of {len(names)} images ({shown(lacking)}); name "
            f"the file that does, or leave --ids out"
        )
    if lacking := [name for name in classes if name not in of_class]:
        raise DataError(
            f"{path} does not have {len(lacking)} of the {len(classes)} classes of this run "
            f"({shown(lacking)}); name a file of its classes, or leave --ids out"
        )
    return ResultIds(images, {name: of_class[name] for name in classes})


def form_of_file(path: Path) -> tuple[str, bool]:
    """Return the format of a COCO file, and whether each object of it has an outline.

    Raises DataError where it is none.
    """
    content = read_json(path)
    with _sound(path, "COCO", "images, annotations and categories"):
        every = [dict(one) for one in content["annotations"]]
        if any("segments_info" in one for one in every):
            return "coco_panoptic", True
        return "coco", all(one.get("segmentation") for one in every)


def listed_images(path: Path) -> dict[str, Path]:
    """Return the images that a COCO file lists, by name, wherever they are; raises DataError."""
    content = read_json(path)
    with _sound(path, "COCO", "images"):
        files = [PurePosixPath(file) for file, _, _ in _sizes(path, content).values()]
    return {same_name(file.with_suffix("").as_posix()): Path(file) for file in files}


# COCO panoptic: one file, and a map for each image.


def label_places(path: Path, rules: LabelRules) -> list[Path]:
    """Return what `read_object_files` takes of a label file or folder that a user names.

    Of a panoptic file also the folder of its maps: that of its name, else the only one beside it
    that holds the first of them. Raises DataError where there is none, or several are.
    """
    if rules.format != "coco_panoptic":
        return [path]
    usual = path.with_suffix("")
    if usual.is_dir():
        return [path, usual]
    with _sound(path, "COCO panoptic", "annotations with the file_name of their map"):
        named = [str(one["file_name"]) for one in read_json(path)["annotations"]][:1]
    folders = sorted(place for place in path.resolve().parent.iterdir() if place.is_dir())
    found = [place for place in folders for name in named if (place / name).is_file()]
    if len(found) == 1:
        return [path, found[0]]
    where = f"; {' and '.join(place.name for place in found)} have maps of its names" * bool(found)
    raise DataError(
        f"the maps of {path} are not found{where}; their folder {usual.name} must be beside it"
    )


def _of_panoptic(places: Sequence[Path], images: Images, rules: LabelRules) -> FileObjects:
    if len(places) != 2:
        raise DataError(
            f"panoptic labels are a JSON file and the folder of its maps; got {len(places)} places"
        )
    path, folder = places
    content = read_json(path)
    with _sound(path, "COCO panoptic", "images, annotations with segments_info, and categories"):
        found, number = _categories(path, content, rules)
        names = {int(one["id"]): str(one["name"]).strip() for one in content["categories"]}
        things = [names[int(one["id"])] for one in content["categories"] if one["isthing"]]
        if rules.things and set(rules.things) != set(things):
            raise DataError(f"{path} has other things than are declared: {shown(things)}")
        found = replace(found, things=tuple(one for one in found.classes if one in things))
        thing = {number[key]: name in things for key, name in names.items()}
        sizes = _sizes(path, content)
        matched = _matched(path, {key: size[0] for key, size in sizes.items()}, images)
        masks: dict[str, Mask] = {}
        for one in content["annotations"]:
            if one["image_id"] not in sizes:
                raise DataError(
                    f"{path} has an annotation of image {one['image_id']}, not in its list"
                )
            name, size = matched[one["image_id"]], sizes[one["image_id"]][1:]
            if name in masks:
                raise DataError(f"{path} has two annotations of image {one['image_id']}")
            file = folder / str(one["file_name"])
            if not file.resolve().is_relative_to(folder.resolve()) or not file.is_file():
                raise DataError(f"the panoptic map {file}, which {path} names, is not there")
            objects = _segments(path, one, size, number, thing)
            masks[name] = MaskParts((path, file), objects=objects)
    if lacking := [sizes[key][0] for key in sizes if matched[key] not in masks]:
        raise DataError(f"{path} has no annotation of {len(lacking)} images: {shown(lacking)}")
    return FileObjects(found, masks)


def _segments(
    path: Path, one: Mapping[str, Any], size: Any, number: Mapping[int, int], thing: Any
) -> ImageObjects:
    listed = one["segments_info"]
    ids = np.array([int(each["id"]) for each in listed], np.int64)
    # A map has a number in three bytes of colour, and 0 means void.
    if len(np.unique(ids)) < len(ids) or (ids < 1).any() or (ids >= 1 << 24).any():
        raise DataError(
            f"{path}: the segments of image {one['image_id']} need ids of their own, of 1 to "
            f"16777215"
        )
    name = f"a segment of image {one['image_id']}"
    labels = [_number(path, name, each["category_id"], number) for each in listed]
    objects = [
        _One(label, NONE, crowd=bool(each.get("iscrowd", 0)))
        for label, each in zip(labels, listed, strict=True)
    ]
    things = np.array([thing[label] for label in labels], bool)
    return replace(_gathered(size[0], size[1], objects), outlines=(), segments=ids, things=things)


# VOC: an XML file for each image.


def _of_voc(places: Sequence[Path], images: Images, rules: LabelRules) -> FileObjects:
    number = _declared(rules)
    masks: dict[str, Mask] = {}
    for name, path in _beside(places[0], (".xml",), images).items():
        tree = _xml(path)
        with _sound(path, "VOC", "size, and name and bndbox of each object"):
            size = int(_text(tree, "size/height")), int(_text(tree, "size/width"))
            check_size(path, *size)
            objects = []
            for k, one in enumerate(tree.iterfind("object"), 1):
                label = _text(one, "name").strip()
                if label not in number:
                    raise DataError(
                        f"{path} has an object {label}, which is none of the classes that are "
                        f"declared ({shown(number)}); add it to `classes`"
                    )
                ends = [float(_text(one, f"bndbox/{e}")) for e in ("xmin", "ymin", "xmax", "ymax")]
                # Corners count pixels from 1 and belong to the box.
                box = (ends[0] - 1, ends[1] - 1, ends[2], ends[3])
                box = _checked_box(path, f"object {k} ({label})", box, size)
                # VOC's own scores leave objects marked difficult out, as COCO's do with crowds.
                crowd = (one.findtext("difficult") or "0").strip() == "1"
                objects.append(_One(number[label], box, crowd=crowd))
        masks[name] = MaskParts((path,), objects=_gathered(size[0], size[1], objects))
    return FileObjects(rules, masks)


def _xml(path: Path) -> ET.Element:
    try:
        data = path.read_bytes()
        if len(data) > MOST_XML_BYTES or b"<!ENTITY" in data:
            raise DataError(f"{path} is no VOC file: it is very large, or declares entities")
        return ET.fromstring(data)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from None
    except ET.ParseError as error:
        raise DataError(f"{path} is no sound XML ({error})") from None


def _text(tree: ET.Element, place: str) -> str:
    found = tree.findtext(place)
    if found is None:
        raise KeyError(place)
    return found


# YOLO: a text file for each image; an image without one has no object.


def _of_yolo(places: Sequence[Path], images: Images, rules: LabelRules) -> FileObjects:
    number = _declared(rules)
    files = _beside(places[0], (".txt",), images, spare=("classes",))
    masks: dict[str, Mask] = {}
    for name, image in images.items():
        width, height = image_size(image)
        path = files.get(name)
        objects = [] if path is None else [*_yolo_objects(path, (height, width), len(number))]
        # Without a file of labels the image itself stands for one, so that it is watched.
        masks[name] = MaskParts((path or image,), objects=_gathered(height, width, objects))
    return FileObjects(rules, masks)


def _yolo_objects(path: Path, size: tuple[int, int], classes: int) -> Iterator[_One]:
    """Yield the objects of a file: `class x y w h`, or `class x0 y0 x1 y1 ...` of an outline, all
    in shares of the image.

    Source: https://docs.ultralytics.com/datasets/detect and /datasets/segment.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as text ({error})") from None
    height, width = size
    for k, line in enumerate(lines, 1):
        parts = line.split()
        if not parts:
            continue
        name = f"line {k}"
        with _sound(path, "YOLO", f"a class and four numbers, or an outline, in {name}"):
            label, shares = int(parts[0]), [float(part) for part in parts[1:]]
            if not 0 <= label < classes:
                raise DataError(
                    f"{path}: {name} is of class {label}; the {classes} classes that are declared "
                    f"are 0 to {classes - 1}"
                )
            if not all(-0.01 <= share <= 1.01 for share in shares):
                raise DataError(f"{path}: {name} has numbers beyond 0 to 1, shares of the image")
            if len(shares) == 4:
                x, y, w, h = shares
                ends = ((x - w / 2) * width, (y - h / 2) * height)
                ends = (*ends, (x + w / 2) * width, (y + h / 2) * height)
                yield _One(label, _checked_box(path, name, ends, size))
                continue
            if len(shares) < 6 or len(shares) % 2:
                raise ValueError(f"{len(shares)} numbers")
            points = np.array(shares, np.float64).reshape(-1, 2) * (width, height)
            yield _One(label, NONE, outline=Shape("", polygons=(points,)))


# What the formats share.


def _gathered(height: int, width: int, objects: Sequence[_One]) -> ImageObjects:
    return ImageObjects(
        height,
        width,
        np.array([one.label for one in objects], np.int64),
        np.array([one.box for one in objects], np.float64).reshape(-1, 4),
        np.array([one.crowd for one in objects], bool),
        np.array([one.area for one in objects], np.float64),
        tuple(one.outline for one in objects),
    )


def _checked_box(path: Path, name: str, ends: Sequence[float], size: Sequence[int]) -> np.ndarray:
    """Return a box as an array; raises DataError where it is none, or outside of its image."""
    box = np.array(ends, np.float64)
    shown_box = " ".join(f"{end:g}" for end in box)
    if not np.isfinite(box).all() or (box[2:] < box[:2]).any():
        raise DataError(f"{path}: {name} has the box {shown_box}, whose end lies before its start")
    height, width = size
    if box[0] >= width or box[1] >= height or box[2] < 0 or box[3] < 0:
        raise DataError(
            f"{path}: {name} has the box {shown_box}, outside of its image of {width} x {height} "
            f"pixels"
        )
    return box


def _declared(rules: LabelRules) -> dict[str, int]:
    """Return the number of each class that is declared; raises UsageError where there is none."""
    if not rules.classes:
        raise UsageError(
            f"labels of format {rules.format} do not list their classes; write `classes: [...]` "
            f"beside the format, in the order of their numbers"
        )
    return {name: number for number, name in enumerate(rules.classes)}


def _beside(
    place: Path, suffixes: Sequence[str], images: Images, spare: Sequence[str] = ()
) -> dict[str, Path]:
    """Return the label file of each image; raises DataError for one whose image is not there."""
    found = {name: files[0] for name, files in named_files(place, suffixes).items()}
    found = {name: file for name, file in found.items() if name not in spare}
    known = {name: file for name, file in found.items() if name in images}
    if not known:
        folder = divide_place(place)[0]
        raise DataError(
            f"{folder} holds no label file ({', '.join(suffixes)}) of the images: they share names"
        )
    return known


@contextmanager
def _sound(path: Path, form: str, needs: str) -> Iterator[None]:
    """Say in one sentence that a file is not of its format, whatever its content raises."""
    try:
        yield
    except MALFORMED as error:
        raise DataError(
            f"{path} is no {form} file that is read ({type(error).__name__}: {str(error)[:80]}); "
            f"it needs {needs}"
        ) from None


READERS = {"coco": _of_coco, "coco_panoptic": _of_panoptic, "voc": _of_voc, "yolo": _of_yolo}
