"""What values of files mean: small inputs as users have them, read right or refused in a sentence.

One scene throughout: 64 x 48, the object in rows 4 to 23 and columns 6 to 29.
"""

import re
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
import tifffile
import torch
from drawn_files import noise_image, saved, write
from PIL import Image

from lpmoe_bench.data.decoding import decode, decoder_words
from lpmoe_bench.data.headers import read_header
from lpmoe_bench.data.images import check_deep, read_image, read_pixels, read_truth
from lpmoe_bench.data.loader import MASKS, image_tensor, load_image
from lpmoe_bench.data.pairs import Pair, find_pairs, pair_truth, read_pair, split_pairs
from lpmoe_bench.data.pixels import UNDECLARED, PixelRules, Truth, pixel_rules
from lpmoe_bench.data.registry import Dataset
from lpmoe_bench.data.splits import Split, check_pairs, inspect_pair, make_split
from lpmoe_bench.errors import DataError, UsageError

OBJECT = np.zeros((48, 64), bool)
OBJECT[4:24, 6:30] = True
TRUE = OBJECT.astype(np.uint8) * 255


def scene() -> np.ndarray:
    """The image, RGB: the object (200, 60, 40) on a slow wash of blue."""
    y, x = np.mgrid[:48, :64]
    image = np.dstack([40 + x // 4, 90 + y // 3, 160 + (x + y) // 6]).astype(np.uint8)
    image[OBJECT] = (200, 60, 40)
    return image


def rules(**values) -> PixelRules:
    return pixel_rules(values)


def truth(path, **values) -> Truth:
    return read_truth(path, rules=rules(**values))


def refused(path, sentence, **values) -> str:
    """Return the sentence with which a mask is refused, and check that it says what to write."""
    with pytest.raises(DataError, match=sentence) as caught:
        truth(path, **values)
    return str(caught.value)


# Masks.


def test_void_around_the_object_is_refused_and_read_where_declared(tmp_path):
    mask = np.zeros((48, 64), np.uint8)
    mask[3:25, 5:31] = 255
    mask[OBJECT] = 1
    path = write(tmp_path / "a.png", mask)
    said = refused(path, r"a\.png holds the values 0, 1, 255 alone")
    assert "`object: 1, ignore: 255`" in said
    assert "--mask-object 1 --mask-ignore 255" in said
    found = truth(path, object=1, ignore=255)
    assert np.array_equal(found.mask, TRUE)
    assert np.array_equal(found.ignored, mask == 255)
    assert found.flags == ("ignored pixels",)
    # With the void declared alone, what is left is a mask of 0 and 1.
    assert np.array_equal(truth(path, ignore=255).mask, TRUE)
    # Two classes and a void are of that kind too.
    mask[40:, :20] = 2
    refused(write(tmp_path / "b.png", mask), "classes 0 to 2")


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_instance_ids_are_refused_and_nonzero_where_declared(tmp_path, kind):
    ids = np.zeros((48, 64), kind)
    for k in range(180):
        row, column = divmod(k, 16)
        ids[4 * row : 4 * row + 3, 4 * column : 4 * column + 3] = k + 1
    path = write(tmp_path / "a.png", ids)
    assert "object: nonzero" in refused(path, "looks like ids or classes")
    assert np.array_equal(truth(path, object="nonzero").mask > 0, ids > 0)
    many = write(tmp_path / "b.png", (ids > 0) * (ids.astype(np.uint16) + 300))
    refused(many, "only values above 128 of 255 count|looks like ids")
    assert np.array_equal(truth(many, object="nonzero").mask > 0, ids > 0)


def test_ids_in_16_bits_and_trimaps_are_named_by_value(tmp_path):
    cityscapes = np.where(OBJECT, 26001, 7).astype(np.uint16)
    path = write(tmp_path / "a.png", cityscapes)
    assert "26001" in refused(path, "from 0 to 26001 only")
    for value in (26001, [26001], "26001", (26001, 26002)):
        assert np.array_equal(truth(path, object=value).mask, TRUE)
    trimap = np.where(OBJECT, 1, 2).astype(np.uint8)
    trimap[0, :10] = 3
    path = write(tmp_path / "b.png", trimap)
    refused(path, "from 0 to 3 only")
    assert np.array_equal(truth(path, object=1).mask, TRUE)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_an_object_in_the_alpha_channel_alone(tmp_path, mode):
    black = Image.new(mode, (64, 48), 0)
    black.putalpha(Image.fromarray(TRUE))
    path = saved(tmp_path / "a.png", black)
    assert "`object: alpha`" in refused(path, "only its alpha channel varies")
    assert np.array_equal(truth(path, object="alpha").mask, TRUE)
    refused(write(tmp_path / "b.png", TRUE), "has no alpha channel", object="alpha")


def test_two_colours_of_one_brightness(tmp_path):
    mask = np.zeros((48, 64, 3), np.uint8)
    mask[..., 1] = 255
    mask[OBJECT] = (255, 0, 0)
    path = write(tmp_path / "a.png", mask)
    said = refused(path, "equally bright")
    assert "#00ff00" in said
    assert "#ff0000" in said
    assert np.array_equal(truth(path, object="#ff0000").mask, TRUE)
    assert np.array_equal(truth(path, object="#00FF00").mask, 255 - TRUE)
    # A colour that is not pure is taken exactly: here it is not one with black.
    mask[:] = 0
    mask[OBJECT] = (64, 0, 0)
    assert np.array_equal(truth(write(tmp_path / "b.png", mask), object="#400000").mask, TRUE)


def test_values_of_a_palette_are_its_indices(tmp_path):
    voc = Image.fromarray(np.where(OBJECT, 15, 0).astype(np.uint8), "L").convert("P")
    indices = np.where(OBJECT, 15, 0).astype(np.uint8)
    indices[3, 6:30] = 255
    voc.putdata(indices.ravel().tolist())
    colours = [0] * 768
    colours[45:48], colours[765:] = (192, 128, 128), (224, 224, 192)
    voc.putpalette(colours)
    path = saved(tmp_path / "a.png", voc)
    refused(path, "3 colours")
    found = truth(path, object=15, ignore=255)
    assert np.array_equal(found.mask, TRUE)
    assert np.array_equal(found.ignored, indices == 255)


def test_soft_edges_and_jpeg_are_read_as_before(tmp_path):
    soft = cv2.GaussianBlur(TRUE, (0, 0), 2)
    found = truth(write(tmp_path / "a.png", soft))
    assert found.flags == ("grey levels",)
    assert np.array_equal(found.mask > 0, soft > 128)
    noisy = np.clip(TRUE.astype(int) + np.where(OBJECT, -9, 7), 0, 255).astype(np.uint8)
    assert np.array_equal(truth(write(tmp_path / "b.png", noisy)).mask, TRUE)
    path = write(tmp_path / "c.jpg", TRUE)
    assert (truth(path).mask != TRUE).mean() < 0.02
    refused(path, "JPEG file, which does not keep values", object=255)


def test_flat_grey_levels_are_declared_to_be_such(tmp_path):
    grey = np.where(OBJECT, 180, 60).astype(np.uint8)
    path = write(tmp_path / "a.png", grey)
    assert "object: above 128" in refused(path, "flat areas of the values 60, 180")
    assert np.array_equal(truth(path, object="above 128").mask, TRUE)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"object": "red"}, "object is 'red'; it is a value"),
        ({"object": True}, "object is True"),
        ({"ignore": "void"}, "ignore is 'void'; it is whole numbers"),
        ({"bands": [1, 2]}, "name one band, or three"),
        ({"bands": [0, 1, 2]}, "whole numbers of 1"),
        ({"range": [5, 5]}, "give what is black and what is white"),
        ({"range": "dark"}, "give what is black"),
        ({"range": [0, float("nan")]}, "give what is black"),
        ({"exif": "mask"}, "it is image or both"),
        ({"resize_masks": "yes"}, "it is true or false"),
        ({"object": 1, "ignore": [1, 2]}, "both name"),
        ({"object": "alpha", "ignore": 1}, "does not go with alpha"),
        ({"objekt": 1}, "did you mean 'object'"),
    ],
)
def test_declarations_that_are_none(values, sentence):
    with pytest.raises(UsageError, match=sentence):
        pixel_rules(values)


def test_declarations_as_yaml_and_as_flags_are_the_same():
    flags = {"object": "1,2", "ignore": "255", "bands": "3,2,1", "range": "0,4095", "exif": "both"}
    listed = {"object": [1, 2], "ignore": 255, "bands": [3, 2, 1], "range": [0, 4095.0]}
    assert pixel_rules(flags) == pixel_rules(listed | {"exif": "both"})
    assert pixel_rules({"range": "0-4095"}) == pixel_rules({"range": [0, 4095]})
    assert pixel_rules(pixel_rules(flags).facts) == pixel_rules(flags)
    assert UNDECLARED.key == rules(object="above 128").key == ""


# Images: bands and ranges.


def bands(path, pixels, **settings):
    tifffile.imwrite(path, pixels, planarconfig="contig", **settings)
    return path


def test_bands_are_declared(tmp_path):
    eight = np.dstack(
        [np.full((48, 64, 2), 9, np.uint8), scene(), np.full((48, 64, 3), 7, np.uint8)]
    )
    two, four = eight[..., 1:3], np.dstack([scene(), scene()[..., 0]])
    files = {
        8: bands(tmp_path / "8.tif", eight, photometric="minisblack"),
        2: bands(tmp_path / "2.tif", two, photometric="minisblack"),
        4: bands(tmp_path / "4.tif", four, photometric="minisblack"),
        5: bands(tmp_path / "5.tif", four, photometric="rgb", extrasamples=["unspecified"]),
        6: bands(tmp_path / "6.tif", four.astype(np.uint16) * 257, photometric="rgb",
                 extrasamples=["unspecified"]),
    }  # fmt: skip
    for count, path in files.items():
        with pytest.raises(DataError, match=rf"has {count if count in (8, 2) else 4} bands"):
            read_image(path)
    assert np.array_equal(read_image(files[8], rules(bands=[3, 4, 5])), scene())
    assert np.array_equal(read_image(files[2], rules(bands=2)), np.dstack([scene()[..., 0]] * 3))
    for key in (4, 5, 6):
        assert np.array_equal(read_image(files[key], rules(bands="1,2,3")), scene())
    assert np.array_equal(read_image(files[5], rules(bands="3,2,1")), scene()[..., ::-1])
    with pytest.raises(DataError, match="has 2 bands, but bands"):
        read_image(files[2], rules(bands=[1, 2, 3]))
    png = write(tmp_path / "a.png", scene())
    assert np.array_equal(read_image(png, rules(bands=[3, 2, 1])), scene()[..., ::-1])


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_12_bits_in_16_have_a_range(tmp_path, suffix):
    deep = (scene().astype(np.uint16) << 4) | 5
    path = write(tmp_path / f"images/a{suffix}", deep)
    write(tmp_path / "masks/a.png", TRUE)
    pairs = find_pairs(tmp_path / "images", tmp_path / "masks")
    with pytest.raises(DataError, match=r"values up to 3205 alone.*`range: \[0, 4095\]`"):
        check_pairs(Split("own", "test", tuple(pairs)))
    with pytest.raises(DataError, match="values up to 3205 alone"):
        check_deep([path])
    declared = find_pairs(tmp_path / "images", tmp_path / "masks", rules=rules(range=[0, 4095]))
    assert check_pairs(Split("own", "test", tuple(declared))) == []
    check_deep([path], declared[0].rules)
    exact = deep / 4095
    assert np.abs(read_pixels(path, declared[0].rules) - exact).max() < 1e-6
    assert np.abs(read_image(path, declared[0].rules) - exact * 255).max() <= 0.5
    # One image of the set that uses the range tells that it is the whole one.
    write(tmp_path / f"images/b{suffix}", deep * 16)
    write(tmp_path / "masks/b.png", TRUE)
    assert (
        check_pairs(Split("own", "t", tuple(find_pairs(tmp_path / "images", tmp_path / "masks"))))
        == []
    )


def test_a_tag_says_the_range_to_the_second_preprocessing_alone(tmp_path):
    deep = scene().astype(np.uint16) << 4
    path = bands(tmp_path / "a.tif", deep, photometric="rgb", extratags=[(281, 3, 1, 4095, True)])
    assert read_header(path.read_bytes()).maximum == 4095
    check_deep([path])
    assert np.abs(load_image(path) - deep / 4095).max() < 1e-6
    assert np.array_equal(load_image(path, version=1), (deep >> 8).astype(np.uint8))


def test_a_range_that_does_not_fit_the_file(tmp_path):
    path = write(tmp_path / "a.png", scene())
    with pytest.raises(DataError, match="has 8 bits, but range 0 to 4095"):
        read_image(path, rules(range=[0, 4095]))
    assert np.array_equal(read_image(path, rules(range=[0, 255])), scene())
    floats = write(tmp_path / "b.tif", (scene() / 255).astype(np.float32))
    with pytest.raises(DataError, match="float32 values"):
        read_image(floats)
    assert np.array_equal(read_image(floats, rules(range=[0, 1])), scene())
    hole = (scene() / 255).astype(np.float32)
    hole[0, 0, 0] = np.nan
    with pytest.raises(DataError, match="NaN or infinite"):
        read_image(write(tmp_path / "c.tif", hole), rules(range=[0, 1]))


# EXIF and sizes.


def turned(tmp_path, orientation, image=None, mask=TRUE):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(scene() if image is None else image)
    return Pair(
        "a",
        saved(tmp_path / "a.jpg", image, exif=exif, quality=95),
        write(tmp_path / "a.png", mask),
    )


def with_rules(pair, **values):
    return Pair(pair.name, pair.image, pair.mask, rules(**values))


@pytest.mark.parametrize("orientation", [2, 3, 4, 5, 6, 7, 8])
def test_exif_on_one_side_is_declared(tmp_path, orientation):
    pair = turned(tmp_path, orientation)
    with pytest.raises(DataError, match=rf"EXIF turns .*a\.jpg \(orientation {orientation}\)"):
        pair_truth(pair)
    assert any("EXIF" in problem for problem in inspect_pair(pair)[0])
    image, mask = read_pair(with_rules(pair, exif="both"))
    assert image.shape[:2] == mask.shape
    red = (image[..., 0] > 150) & (image[..., 2] < 110)
    assert (red != (mask > 0)).mean() < 0.01  # they lie on each other
    if orientation < 5:
        assert np.array_equal(pair_truth(with_rules(pair, exif="image")).mask, TRUE)


def test_a_mask_of_the_turned_size_is_upright_without_a_word(tmp_path):
    pair = turned(tmp_path, 6, mask=np.ascontiguousarray(TRUE.T))
    assert read_pair(pair)[1].shape == (64, 48)


def test_one_pixel_off_is_declared(tmp_path):
    image, mask = write(tmp_path / "a.png", scene()), write(tmp_path / "m.png", TRUE[:, :63])
    with pytest.raises(DataError, match=r"one size.*`resize_masks: true`.*--resize-masks"):
        read_pair(Pair("a", image, mask))
    assert read_pair(Pair("a", image, mask, rules(resize_masks=True)))[1].shape == (48, 64)


# Damaged and oversized files.


def png_of(width, height, bits, data):
    """A grey PNG of these sizes with raw lines already packed."""

    def chunk(name, body):
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


def test_what_cannot_be_in_a_file_is_not_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr(cv2, "imdecode", None)  # nothing may be asked of it
    path = tmp_path / "a.png"
    path.write_bytes(png_of(20_000, 20_000, 16, zlib.compress(bytes(1000))))
    with pytest.raises(DataError, match=r"20000 x 20000 pixels, which its \d+ bytes cannot hold"):
        read_image(path)
    # A chunk that claims more than the file holds: decoders ask for that much memory first.
    data = bytearray(png_of(64, 48, 16, zlib.compress(bytes(48 * 129))))
    data[33:37] = (1_392_509_671).to_bytes(4, "big")
    path.write_bytes(data)
    with pytest.raises(DataError, match="truncated"):
        read_image(path)


def test_a_large_mask_of_one_bit_is_allowed_and_one_of_eight_is_not():
    bits = read_header(png_of(20_000, 20_000, 1, b""))
    assert (bits.raw_bytes, bits.decoded_bytes) == (50_000_000, 400_000_000)
    grey = read_header(png_of(30_000, 30_000, 8, b""))
    from lpmoe_bench.data.decoding import MOST_BYTES

    assert bits.decoded_bytes < MOST_BYTES < grey.decoded_bytes


def test_a_hole_of_zeros_in_a_jpeg_is_damage(tmp_path, capfd):
    data = bytearray(write(tmp_path / "a.jpg", noise_image((240, 320, 3))).read_bytes())
    data[len(data) // 2 : -2] = bytes(len(data) - len(data) // 2 - 2)  # its end marker stays
    (tmp_path / "a.jpg").write_bytes(data)
    with pytest.raises(DataError, match=r"a\.jpg is damaged \(.*Corrupt JPEG|premature"):
        read_image(tmp_path / "a.jpg")
    assert "Corrupt" not in capfd.readouterr().err


def test_what_decoders_say_carries_the_name_of_the_file(tmp_path, capfd):
    data = write(tmp_path / "images/a.jpg", noise_image((48, 64, 3))).read_bytes()
    at = data.rindex(b"\xff\xd9")
    (tmp_path / "images/a.jpg").write_bytes(data[:at] + b"\x12\x34\x56" + data[at:])
    write(tmp_path / "images/b.jpg", noise_image((48, 64, 3)))
    for name in "ab":
        write(tmp_path / f"masks/{name}.png", TRUE)
    pairs = find_pairs(tmp_path / "images", tmp_path / "masks")
    (note,) = check_pairs(Split("own", "test", tuple(pairs)))
    assert re.search(r"decoders say: \S+a\.jpg: Corrupt JPEG data: \d+ extraneous bytes", note)
    assert "b.jpg" not in note
    assert capfd.readouterr().err == ""
    decode(pairs[0].image, pairs[0].image.read_bytes(), cv2.IMREAD_COLOR)
    assert "a.jpg: Corrupt JPEG data" in capfd.readouterr().err
    heard = []
    with decoder_words(heard):
        read_image(pairs[0].image)
    assert heard


@pytest.mark.parametrize("threads", [1, 8])
def test_what_decoders_say_is_of_its_own_file_in_threads_too(tmp_path, capfd, threads):
    """A JPEG with zeros in a comment is sound, whatever another thread's file makes them say."""
    profile = b"icc\0\0" + zlib.compress(b"bad profile")
    chunk = struct.pack(">I", len(profile)) + b"iCCP" + profile
    chunk += struct.pack(">I", zlib.crc32(b"iCCP" + profile))
    path = write(tmp_path / "odd.png", noise_image((200, 200, 3)))
    data = path.read_bytes()
    path.write_bytes(data[:33] + chunk + data[33:])
    path = write(tmp_path / "zeros.jpg", noise_image((200, 200, 3)))
    data = path.read_bytes()
    path.write_bytes(data[:2] + b"\xff\xfe" + struct.pack(">H", 202) + bytes(200) + data[2:])
    write(tmp_path / "plain.png", noise_image((200, 200, 3)))
    names = [tmp_path / name for name in ("odd.png", "zeros.jpg", "plain.png")] * 100
    with ThreadPoolExecutor(threads) as pool:
        assert len(list(pool.map(read_image, names))) == 300
    text, said = capfd.readouterr().err, "libpng warning: iCCP: too short"
    named = f"{names[0]}: {said}"
    assert text.count(named) == 1
    # What several say at once may stay without a name, but it has no other one.
    assert not text.replace(named, "").replace(said, "").strip()
    assert threads > 1 or text == f"{named}\n"


# Sets: digests, refusals before training.


def test_what_is_declared_is_part_of_the_digest(tmp_path):
    write(tmp_path / "images/a.png", scene())
    write(tmp_path / "masks/a.png", TRUE // 255)

    def digest(**values):
        pairs = find_pairs(tmp_path / "images", tmp_path / "masks", rules=rules(**values))
        return make_split(Split("own", "test"), "test", pairs).digest

    assert digest() == digest(object="above 128")
    assert len({digest(), digest(object=1), digest(object=0), digest(object=1, ignore=9)}) == 4


def test_an_entry_declares_and_data_that_was_converted_needs_nothing(tmp_path):
    write(tmp_path / "images/a.png", scene())
    write(tmp_path / "masks/a.png", np.where(OBJECT, 26, 7).astype(np.uint8))
    entry = {"name": "x", "title": "X", "task": "cod", "object": 26, "exif": "both"}
    (pair,) = split_pairs(Dataset.model_validate(entry), tmp_path, "all") or []
    assert np.array_equal(pair_truth(pair).mask, TRUE)
    assert pair.rules == rules(object=26, exif="both")
    layouts = [{"raw": [["raw/images", "raw/masks"]]}]
    plain = Dataset.model_validate(entry | {"splits": {"all": None}, "layouts": layouts})
    (pair,) = split_pairs(plain, tmp_path, "all") or []
    assert pair.rules == rules(exif="both")


@pytest.mark.parametrize(("mask", "state"), [(TRUE * 0, "empty"), (TRUE * 0 + 255, "object")])
def test_masks_that_are_all_alike_are_refused_where_it_matters(tmp_path, mask, state):
    for name in "ab":
        write(tmp_path / f"images/{name}.png", scene())
        write(tmp_path / f"masks/{name}.png", mask)
    split = Split("own", "test", tuple(find_pairs(tmp_path / "images", tmp_path / "masks")))
    assert len(check_pairs(split)) == (state == "empty")
    with pytest.raises(DataError, match=f"all 2 masks of own/test are {state}"):
        check_pairs(split, varied=True)


# Tensors.


@pytest.mark.parametrize("shape", [(48, 64), (1024, 1280), (97, 1), (31, 200)])
@pytest.mark.parametrize("size", [32, 256])
def test_the_second_preprocessing_differs_by_a_level_at_most(shape, size):
    image = np.random.default_rng(shape[0]).integers(0, 256, (*shape, 3), np.uint8)
    old, new = (image_tensor(image, (size, size), version) for version in (1, 2))
    assert new.dtype == torch.float32
    assert float((old - new).abs().max()) <= 1 / 255 + 1e-6  # and the rounding of float32
    assert torch.equal(image_tensor(image / np.float32(255), (size, size)), old)


def test_ignored_pixels_of_a_tensor():
    ignored = np.zeros((48, 64), bool)
    ignored[:, 32:] = True
    mask = MASKS.target(Truth(TRUE * ~ignored, ignored), (32, 32))
    assert set(mask.unique().tolist()) == {-1.0, 0.0, 1.0}
    assert (mask[..., 16:] == -1).all()
    whole = MASKS.target(Truth(TRUE), (32, 32))
    assert torch.equal(whole, (whole > 0).float())


def test_jpegs_are_decoded_smaller_but_not_too_small(tmp_path):
    path = write(tmp_path / "a.jpg", noise_image((512, 800, 3)))
    shapes = {side: read_pixels(path, side=side).shape[:2] for side in (32, 64, 128, 256, 257)}
    assert shapes == {
        32: (64, 100),
        64: (64, 100),
        128: (128, 200),
        256: (256, 400),
        257: (512, 800),
    }
    small, full = (image_tensor(read_pixels(path, side=side), (32, 32)) for side in (32, None))
    assert float((small - full).abs().mean()) < 0.02
