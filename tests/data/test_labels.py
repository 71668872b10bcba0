"""Label maps: what each way to declare classes means, one sentence for what is wrong, colours."""

import io
import os
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from drawn_files import noise_image, write
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from lpmoe_bench.data.annotations import MaskParts
from lpmoe_bench.data.images import read_truth
from lpmoe_bench.data.label_rules import MOST_CLASSES, class_colour, label_rules, read_classes
from lpmoe_bench.data.labels import (
    VOID,
    LabelRules,
    UnknownLabelsError,
    class_colours,
    count_classes,
    legend,
    overlay_labels,
    paint_labels,
    palette_png,
    read_label_map,
    read_labels,
)
from lpmoe_bench.data.pairs import Pair, find_layers
from lpmoe_bench.data.pixels import UNDECLARED, PixelRules, pixel_rules
from lpmoe_bench.errors import DataError, UsageError

COUNT = int(os.environ.get("LPMOE_BENCH_EXAMPLES", "25"))
slow = settings(
    max_examples=COUNT, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
NAMES = ["sky", "road", "car"]


def rules(**labels) -> PixelRules:
    return pixel_rules({"labels": {"classes": NAMES} | labels})


def read(path: Path, values, **labels) -> list:
    """Write values as they are and read them as labels."""
    pixels = np.asarray(values)
    write(path, pixels if pixels.dtype == np.uint16 else pixels.astype(np.uint8))
    return read_label_map(path, rules(**labels)).labels.tolist()


# What is declared, by hand: file -> indices from 0, and 255 where nothing counts.


def test_values_count_from_the_first_class(tmp_path):
    path = tmp_path / "a.png"
    assert read(path, [[0, 1], [2, 255]], ignore=255) == [[0, 1], [2, VOID]]
    assert read(path, [[1, 2], [3, 0]], first=1, ignore=[0]) == [[0, 1], [2, VOID]]
    deep = np.array([[300, 301], [302, 65535]], np.uint16)
    assert read(path, deep, first=300, ignore=65535) == [[0, 1], [2, VOID]]
    assert read(path, np.array([[0, 2]], np.uint16)) == [[0, 2]]


def test_values_of_each_class_may_be_named_and_several(tmp_path):
    named = {"sky": 23, "road": [7, 8], "car": 26}
    assert read(tmp_path / "a.png", [[23, 7], [8, 26]], classes=named) == [[0, 1], [1, 2]]
    # A record keeps them so that they are read again, whatever order its mapping has.
    again = label_rules(rules(classes=named).labels.facts)
    assert again == rules(classes=named).labels
    assert again.values == ((23,), (7, 8), (26,))


def test_colours_are_exact(tmp_path):
    named = {"sky": "#0000FF", "road": ["#808080", "#404040"], "car": "#ff0000"}
    pixels = np.array([[(0, 0, 255), (128, 128, 128)], [(64, 64, 64), (255, 0, 0)]], np.uint8)
    path = write(tmp_path / "a.png", pixels)
    assert read_label_map(path, rules(classes=named)).labels.tolist() == [[0, 1], [1, 2]]
    pixels[0, 0] = (224, 224, 192)
    write(path, pixels)
    void = rules(classes=named, ignore="#e0e0c0")
    assert read_label_map(path, void).labels.tolist() == [[VOID, 1], [1, 2]]
    pixels[0, 0] = (0, 0, 254)
    write(path, pixels)
    with pytest.raises(
        UnknownLabelsError, match="holds the colour #0000fe, which is none of the 3"
    ):
        read_label_map(path, rules(classes=named))
    # A grey file is of colours too.
    grey = {"sky": "#000000", "road": "#808080", "car": "#ffffff"}
    write(path, np.array([[0, 128, 255]], np.uint8))
    assert read_label_map(path, rules(classes=grey)).labels.tolist() == [[0, 1, 2]]


def test_the_indices_of_a_palette_are_its_values_and_its_colours_are_colours(tmp_path):
    values = np.array([[0, 1], [2, 255]], np.uint8)
    (tmp_path / "a.png").write_bytes(palette_png(values, [(9, 9, 9), (0, 255, 0), (255, 0, 0)]))
    found = read_label_map(tmp_path / "a.png", rules(ignore=255))
    assert found.labels.tolist() == values.tolist()
    assert found.flags == ("ignored pixels",)
    named = {"sky": "#090909", "road": "#00ff00", "car": "#ff0000"}
    colours = rules(classes=named, ignore="#000000")
    assert read_label_map(tmp_path / "a.png", colours).labels.tolist() == values.tolist()


def png(bits: int, rows: list[list[int]], palette: bytes = b"") -> bytes:
    """A PNG of 1, 2 or 4 bits a pixel, which no library here writes of grey values."""
    packed = b""
    for row in rows:
        text = "".join(format(value, f"0{bits}b") for value in row)
        text += "0" * (-len(text) % 8)
        packed += b"\0" + int(text, 2).to_bytes(len(text) // 8, "big")

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    head = struct.pack(">IIBBBBB", len(rows[0]), len(rows), bits, 3 if palette else 0, 0, 0, 0)
    table = chunk(b"PLTE", palette) if palette else b""
    body = chunk(b"IDAT", zlib.compress(packed))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + table + body + chunk(b"IEND", b"")


@pytest.mark.parametrize("palette", [b"", bytes(range(48))])
@pytest.mark.parametrize("bits", [1, 2, 4])
def test_values_of_less_than_8_bits_are_those_of_the_file(tmp_path, bits, palette):
    """Decoders spread them over 0 to 255, where a 1 of one bit would pass for an ignored 255."""
    top = (1 << bits) - 1
    path = tmp_path / "a.png"
    path.write_bytes(png(bits, [[0, 1, top, 1]], palette))
    named = [f"c{k}" for k in range(16)]
    found = read_label_map(path, rules(classes=named, ignore=255)).labels.tolist()
    assert found == [[0, 1, top, 1]]


def test_one_bit_of_other_kinds(tmp_path):
    image = Image.fromarray(np.array([[False, True]]))
    image.save(tmp_path / "a.bmp")
    assert read_label_map(tmp_path / "a.bmp", rules(ignore=255)).labels.tolist() == [[0, 1]]
    image.save(tmp_path / "a.tif")
    with pytest.raises(DataError, match=r"a\.tif has 1 bits a pixel; save it with 8"):
        read_label_map(tmp_path / "a.tif", rules(ignore=255))


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp"])
def test_three_equal_channels_are_one(tmp_path, suffix):
    values = np.dstack([np.array([[0, 1, 2]], np.uint8)] * 3)
    assert read_label_map(write(tmp_path / f"a{suffix}", values), rules()).labels.tolist() == [
        [0, 1, 2]
    ]


def test_arrays(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, np.array([[0, 2], [1, 255]], np.int64))
    assert read_label_map(path, rules(ignore=255)).labels.tolist() == [[0, 2], [1, VOID]]
    np.save(path, np.array([[False, True]]))  # not 0 and 255, as a binary mask is
    assert read_label_map(path, rules(ignore=255)).labels.tolist() == [[0, 1]]
    np.save(path, np.array([[0.0, 0.5]]))
    with pytest.raises(DataError, match=r"with fractions from 0\.0 to 0\.5"):
        read_label_map(path, rules())


def layers(folder: Path, **masks) -> Pair:
    write(folder / "images/a.png", noise_image((4, 4, 3)))
    for name, values in masks.items():
        write(folder / name / "a.png", np.array(values, np.uint8))
    places = [folder / name for name in masks]
    declared = rules(classes=["ground", *masks], format="layers", folders=list(masks))
    (pair,) = find_layers(folder / "images", places, rules=declared)
    return pair


def test_later_layers_lie_on_top(tmp_path):
    whole, spot = np.zeros((4, 4)), np.zeros((4, 4))
    whole[:, 1:], spot[1:3, 2:] = 255, 255
    spot[0, 0] = 255  # beside the leaf, and still a spot
    pair = layers(tmp_path, leaf=whole, spot=spot)
    assert isinstance(pair.mask, MaskParts)
    assert pair.mask.layers
    found = read_labels(pair)
    assert found.labels.tolist() == [[2, 1, 1, 1], [0, 1, 2, 2], [0, 1, 2, 2], [0, 1, 1, 1]]
    assert found.flags == ()
    # The other order is another map, and another checksum.
    other = layers(tmp_path, spot=spot, leaf=whole)
    assert read_labels(other).labels.tolist()[1] == [0, 2, 2, 2]


def test_a_layer_without_its_class_is_nothing_unusual_and_void_of_a_layer_stays(tmp_path):
    whole, spot = np.zeros((4, 4)), np.zeros((4, 4))
    whole[:2] = 255
    pair = layers(tmp_path, leaf=whole, spot=spot)
    assert read_labels(pair).flags == ()
    spot[0] = 7
    write(tmp_path / "spot/a.png", spot.astype(np.uint8))
    labels = pair.rules.labels
    void = PixelRules(object=(255,), ignore=(7,), labels=labels)
    assert read_label_map(pair.mask, void).labels[:, 0].tolist() == [VOID, 1, 0, 0]


def test_layers_that_lack_a_file_or_differ_in_size(tmp_path):
    pair = layers(tmp_path, leaf=np.zeros((4, 4)), spot=np.zeros((4, 4)))
    write(tmp_path / "spot/a.png", np.zeros((5, 4), np.uint8))
    with pytest.raises(DataError, match=r"is 4 x 5 pixels but .*another mask of the same image"):
        read_labels(pair)
    (tmp_path / "spot/a.png").rename(tmp_path / "spot/b.png")
    places = [tmp_path / "leaf", tmp_path / "spot"]
    with pytest.raises(DataError, match=r"no partner .* a \(no mask\)"):
        find_layers(tmp_path / "images", places, rules=pair.rules)
    with pytest.raises(
        DataError, match="is 1 of the 2 layers of an image; give each of leaf, spot"
    ):
        read_label_map(tmp_path / "leaf/a.png", pair.rules)


def test_a_map_is_turned_and_stretched_as_masks_are(tmp_path):
    """The rules of EXIF and size are those of binary masks: the code is the same."""
    values = np.arange(12).reshape(3, 4) % 3
    mask = write(tmp_path / "m.png", values.astype(np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    Image.fromarray(noise_image((3, 4, 3))).save(tmp_path / "i.jpg", exif=exif)
    pair = Pair("a", tmp_path / "i.jpg", mask, rules())
    with pytest.raises(DataError, match=r"EXIF turns .*i\.jpg"):
        read_labels(pair)
    both = pixel_rules({"labels": {"classes": NAMES}, "exif": "both"})
    assert read_labels(Pair("a", tmp_path / "i.jpg", mask, both)).labels.tolist() == (
        np.rot90(values, -1).tolist()
    )
    write(tmp_path / "i.png", noise_image((6, 8, 3)))
    stretched = pixel_rules({"labels": {"classes": NAMES}, "resize_masks": True})
    found = read_labels(Pair("a", tmp_path / "i.png", mask, stretched)).labels
    assert found.tolist() == np.kron(values, np.ones((2, 2), int)).tolist()


# One sentence for what is wrong: the file, what was seen, what to write.


def test_values_outside_the_classes(tmp_path):
    with pytest.raises(UnknownLabelsError) as caught:
        read(tmp_path / "a.png", [[0, 3], [2, 255]])
    assert str(caught.value) == (
        f"label map {tmp_path / 'a.png'} holds the values 3, 255, which are none of the 3 "
        "classes (0 to 2); correct `classes` or `first`, or write `ignore: [3]` (--ignore 3 beside "
        "your own folders) for what counts for nothing"
    )
    assert caught.value.values == ("3", "255")
    assert str(type(caught.value)(str(caught.value))) == str(caught.value)  # of a loader's process
    with pytest.raises(UnknownLabelsError, match=r"value 9, which is none of .*and 255 is ignored"):
        read(tmp_path / "a.png", [[0, 9]], ignore=255)


@pytest.mark.parametrize(
    ("file", "kind"), [("a.jpg", "JPEG"), ("a.webp", "WebP"), ("b.png", "JPEG")]
)
def test_files_that_do_not_keep_values(tmp_path, file, kind):
    """Also where all values happen to be right, and whatever the file is called."""
    suffix = ".jpg" if file == "b.png" else Path(file).suffix
    data = cv2.imencode(suffix, np.zeros((8, 8), np.uint8))[1].tobytes()
    (tmp_path / file).write_bytes(data)
    with pytest.raises(DataError, match=rf"{file} is a {kind} file, which does not keep values"):
        read_label_map(tmp_path / file, rules())


def test_colours_where_values_are_declared_and_transparency(tmp_path):
    path = write(tmp_path / "a.png", np.array([[(0, 0, 0), (255, 0, 0)]], np.uint8))
    with pytest.raises(DataError, match="is in colours, but labels are declared by values"):
        read_label_map(path, rules())
    write(path, np.array([[(1, 1, 1, 255), (1, 1, 1, 0)]], np.uint8))
    with pytest.raises(DataError, match="has transparent pixels, whose class nobody can tell"):
        read_label_map(path, rules())
    write(path, np.array([[(1, 1, 1, 255)]], np.uint8))
    assert read_label_map(path, rules()).labels.tolist() == [[1]]


def test_maps_of_several_files_and_of_none(tmp_path):
    path = write(tmp_path / "a.png", np.zeros((2, 2), np.uint8))
    with pytest.raises(DataError, match="is not one label map of an image"):
        read_label_map(MaskParts((path, path)), rules())
    with pytest.raises(DataError, match="no classes are declared of the label map"):
        read_label_map(path, UNDECLARED)
    with pytest.raises(DataError, match="a map of 3 classes, and a binary mask is wanted"):
        read_truth(path, rules=rules())
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(DataError, match=r"a\.json holds outlines of objects"):
        read_label_map(tmp_path / "a.json", rules())


def test_a_map_that_is_void_throughout_says_so(tmp_path):
    write(tmp_path / "a.png", np.full((2, 2), 255, np.uint8))
    found = read_label_map(tmp_path / "a.png", rules(ignore=255))
    assert found.flags == ("ignored pixels", "void")
    assert count_classes(found.labels, 3) == (0, 0, 0, 4)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({}, "labels have no classes; write"),
        ({"classes": ["a", "b", "a"]}, "class a stands twice; give each a name of its own"),
        ({"classes": ["a", "b", " a "]}, "class a stands twice"),
        ({"classes": ["only"]}, "labels have 1 classes; 2 to 254 are read"),
        ({"classes": [f"c{k}" for k in range(255)]}, "labels have 255 classes; 2 to 254"),
        ({"classes": ["a", False]}, "False is no name of a class; .* in quotes"),
        ({"classes": ["a", "b, c"]}, "no name of a class; write a text without commas"),
        ({"classes": ["a", "b\n"]}, "no name of a class"),
        ({"classes": 3}, "classes is 3; it is a list of names"),
        ({"classes": NAMES, "clases": 1}, "unknown label rule 'clases'; did you mean 'classes'"),
        ({"classes": NAMES, "format": "indexed"}, "unknown format of labels 'indexed'; did you me"),
        ({"classes": NAMES, "ignore": 0}, "0 is both class sky and ignored; .*`first: 1`"),
        ({"classes": NAMES, "ignore": "red"}, "'red' is neither a value of a label map"),
        ({"classes": NAMES, "ignore": 70000}, "70000 is neither a value|70000 is no value"),
        ({"classes": NAMES, "ignore": "#ff0000"}, "format index have values, .* not '#ff0000'"),
        ({"classes": NAMES, "first": -1}, "first is -1; it is the value of the first class"),
        ({"classes": NAMES, "first": 65534}, "but 3 classes from there pass 65535"),
        ({"classes": {"a": 1, "b": 1}}, "1 means two classes; give each values of its own"),
        ({"classes": {"a": 1, "b": None}}, "None is neither a value"),
        ({"classes": {"a": "#ff0000", "b": 3}}, "labels of format index have values"),
        ({"classes": NAMES, "format": "colour"}, "format colour need one for each class"),
        ({"classes": NAMES, "folders": ["x"]}, "layers name 1 folders for 3 classes"),
        ({"classes": NAMES, "folders": ["x", "y"], "ignore": 3}, "layers have neither ignore"),
        ({"classes": NAMES, "folders": ["x", "y"], "format": "index"}, "folders are of layers"),
        ({"classes": NAMES, "colours": ["#000000"]}, "colours has 1 for 3 classes"),
        ({"classes": NAMES, "colours": {"sky": "#000000"}}, "colours has none for class road, car"),
        ({"classes": NAMES, "colours": {"ski": "#000000"}}, "unknown class 'ski'; did you mean"),
        ({"classes": NAMES, "colours": ["blue"] * 3}, "colours has 'blue'; write each as"),
        ({"classes": NAMES, "values": [1, 2]}, "values has 2 entries for 3 classes"),
    ],
)
def test_declarations_that_are_wrong(given, sentence):
    with pytest.raises(UsageError, match=sentence) as caught:
        label_rules(given)
    assert "\n" not in str(caught.value)


def test_rules_of_binary_masks_beside_labels():
    for name, value in (("object", 1), ("ignore", 255), ("category", "cat")):
        with pytest.raises(UsageError, match=f"{name} is of binary masks, but labels are declared"):
            pixel_rules({"labels": {"classes": NAMES}, name: value})
    with pytest.raises(UsageError, match="labels is 'x'; it holds format, classes"):
        pixel_rules({"labels": "x"})


def test_most_classes_are_read(tmp_path):
    values = np.arange(254, dtype=np.uint8)[None]
    names = [f"c{k}" for k in range(MOST_CLASSES)]
    assert read(tmp_path / "a.png", values, classes=names) == values.tolist()


# A list of classes in a file.


def test_a_list_of_classes(tmp_path):
    path = tmp_path / "classes.txt"
    path.write_bytes("\ufeffsky\r\n traffic light \r\n\r\nWände\n".encode())
    assert read_classes(path) == [("sky", ()), ("traffic light", ()), ("Wände", ())]
    found = label_rules({"classes": "classes.txt", "ignore": 255}, tmp_path)
    assert found == LabelRules("index", ("sky", "traffic light", "Wände"), (255,))
    assert label_rules({"classes": path}).classes == found.classes
    unread = label_rules({"classes": "classes.txt"})
    assert unread.classes == ()
    path.write_text("background #000000\ntraffic light\t#FF0000\n")
    with_colours = label_rules({"classes": "classes.txt"}, tmp_path / "none", tmp_path)
    assert with_colours.format == "colour"
    assert with_colours.classes == ("background", "traffic light")
    assert with_colours.values == (("#000000",), ("#ff0000",))
    shown = label_rules({"classes": "classes.txt", "format": "index"}, tmp_path)
    assert (shown.values, shown.colours) == ((), ("#000000", "#ff0000"))
    for told in ({"ignore": "255"}, {"first": 0}):  # values: the maps are not in colours
        assert label_rules({"classes": path} | told).format == "index"
    assert label_rules({"classes": path, "ignore": "#ffffff"}).format == "colour"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, r"classes\.txt cannot be read \(No such file"),
        (b"", r"classes\.txt is empty; write one name a line"),
        (b"0: sky\n1: road\n", r"has numbers before names, such as '0: sky'; write names alone"),
        (b"\xff\xfe\0", r"classes\.txt is no UTF-8 text"),
        (b"a\nb\na\n", r"classes\.txt: class a stands twice"),
        (b"a #000000\nb\n", r"classes\.txt: class b has no colour or value, and others have"),
    ],
)
def test_lists_of_classes_that_are_none(tmp_path, content, sentence):
    if content is not None:
        (tmp_path / "classes.txt").write_bytes(content)
    with pytest.raises((DataError, UsageError), match=sentence):
        label_rules({"classes": "classes.txt"}, tmp_path)


# Digests and records.


def test_what_is_declared_is_a_fact_and_moves_the_key_where_reading_changes():
    one = rules(ignore=255)
    assert one.facts == {"labels": {"format": "index", "classes": NAMES, "ignore": [255]}}
    assert pixel_rules(one.facts) == one
    assert hash(one) == hash(pixel_rules(one.facts))
    assert rules().key != one.key
    assert rules(classes=NAMES[::-1]).key != rules().key
    assert rules(colours=["#000000", "#111111", "#222222"]).key == rules().key
    assert one.note == ""
    # Nothing of masks has moved.
    assert (UNDECLARED.facts, UNDECLARED.key) == ({}, "")
    assert pixel_rules({"object": 1, "ignore": 255}).key == "ignore: [255], object: [1]"


# Colours.


def test_colours_of_classes_differ_and_stay_with_their_index():
    colours = class_colours(MOST_CLASSES)
    assert len({*colours, class_colour(VOID)}) == MOST_CLASSES + 1
    assert class_colours(5) == colours[:5]
    first = np.array(colours[:20], int)
    apart = np.abs(first[:, None] - first[None]).sum(-1) + 999 * np.eye(20, dtype=int)
    assert apart.min() > 60
    declared = label_rules({"classes": NAMES, "colours": ["#010203", "#ff0000", "#00ff00"]})
    assert class_colours(declared) == [(1, 2, 3), (255, 0, 0), (0, 255, 0)]
    of_files = label_rules({"classes": {"a": ["#0a0b0c", "#111111"], "b": "#ff00ff"}})
    assert class_colours(of_files) == [(10, 11, 12), (255, 0, 255)]


def test_pictures_of_labels():
    colours = [(10, 20, 30), (200, 100, 0)]
    labels = np.array([[0, 1, VOID]], np.uint8)
    assert paint_labels(labels, colours).tolist() == [[[10, 20, 30], [200, 100, 0], [0, 0, 0]]]
    image = np.full((1, 3, 3), 100, np.uint8)
    over = overlay_labels(image, labels, colours)
    assert over[0, 1].tolist() == [155, 100, 45]  # 45 % of the image, 55 % of the colour
    assert over[0, 2].tolist() == [35, 35, 35]
    assert image.min() == 100  # it is left alone
    picture = legend(["leaf", "a very long name of a class indeed"], colours, 200)
    assert picture.shape[1] == 200
    assert {(10, 20, 30), (200, 100, 0), (0, 0, 0)} <= set(map(tuple, picture.reshape(-1, 3)))
    data = palette_png(labels, colours)
    shown = Image.open(io.BytesIO(data))
    assert shown.mode == "P"
    assert np.asarray(shown.convert("RGB")).tolist() == paint_labels(labels, colours).tolist()


# Files changed at random: a map of known classes, or a sentence that names the file.


def tried(reader, *given):
    """What a reader returns, or the sentence of its refusal; anything else is a fault."""
    try:
        return reader(*given)
    except DataError as error:
        return str(error)


def files() -> list[bytes]:
    random = np.random.default_rng(0)
    values = random.integers(0, 3, (24, 32), np.uint8)
    colours = np.array([(0, 0, 0), (0, 0, 255), (0, 255, 0)], np.uint8)[values]
    arrays = [values, values.astype(np.uint16), colours, np.dstack([values] * 4)]
    found = [cv2.imencode(s, a)[1].tobytes() for s in (".png", ".tif") for a in arrays]
    found += [cv2.imencode(s, values)[1].tobytes() for s in (".jpg", ".bmp", ".webp")]
    return [*found, palette_png(values, class_colours(3)), png(4, (values % 3).tolist())]


FILES = files()
RULES = [
    rules(),
    rules(ignore=255, first=1),
    rules(classes={"a": 0, "b": [1, 200], "c": 2}),
    rules(classes={"a": "#000000", "b": "#ff0000", "c": "#00ff00"}),
    pixel_rules(
        {"labels": {"classes": NAMES, "ignore": 255}, "exif": "both", "resize_masks": True}
    ),
]


@slow
@given(
    st.sampled_from(FILES),
    st.lists(st.tuples(st.integers(0, 2**20), st.integers(0, 255)), max_size=6),
    st.floats(0.2, 1),
    st.sampled_from(RULES),
)
@example(b"II*\0" + b"\xff" * 40, [], 1.0, RULES[0])
@example(FILES[0], [(24, 1)], 1.0, RULES[0])  # another count of bits in the header
def test_changed_bytes(tmp_path, data, changes, share, declared):
    changed = bytearray(data[: max(1, int(len(data) * share))])
    for at, value in changes:
        changed[at % len(changed)] = value
    path = tmp_path / "a.png"
    path.write_bytes(changed)
    found = tried(read_label_map, path, declared, path)
    if isinstance(found, str):
        assert "a.png" in found
        return
    assert found.labels.dtype == np.uint8
    assert set(np.unique(found.labels).tolist()) <= {0, 1, 2, VOID}
    assert declared.labels.ignore or VOID not in found.labels


@slow
@given(
    st.lists(st.integers(0, 65535), min_size=2, max_size=12, unique=True),
    st.integers(0, 11),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
def test_any_values_are_read_as_declared(tmp_path, values, ignored, known, seed):
    """A map of any values: each is the class that names it, ignored, or refused by its value."""
    ignored = min(ignored, len(values) - 2)
    void, of_class = values[:ignored], values[ignored:]
    declared = rules(classes={f"c{k}": value for k, value in enumerate(of_class)}, ignore=void)
    pixels = np.random.default_rng(seed).choice(np.array(values, np.uint16), (7, 9))
    stranger = next(value for value in range(65536) if value not in values)
    if not known:
        pixels[3, 4] = stranger
    path = tmp_path / "a.png"
    path.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
    if not known:
        with pytest.raises(UnknownLabelsError) as caught:
            read_label_map(path, declared)
        assert caught.value.values == (str(stranger),)
        return
    found = read_label_map(path, declared).labels
    for index, value in enumerate(of_class):
        assert np.array_equal(found == index, pixels == value)
    assert np.array_equal(found == VOID, np.isin(pixels, void))
