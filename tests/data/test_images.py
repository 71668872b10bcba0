"""Images and masks: how they are read, drawn, and refused."""

import os

import numpy as np
import pytest
from drawn_files import noise_image, saved, square_mask, write
from PIL import Image, ImageOps

from lpmoe_bench.data import images
from lpmoe_bench.data.images import CELL, GAP, TITLE, inspect_mask, overlay, read_image, read_mask
from lpmoe_bench.errors import DataError


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif"])
def test_lossless_formats_come_back_as_rgb(tmp_path, suffix):
    image = noise_image()
    assert np.array_equal(read_image(write(tmp_path / f"a{suffix}", image)), image)


def test_jpeg_and_names_that_are_not_ascii(tmp_path):
    image = noise_image()
    read = read_image(write(tmp_path / "mit Leerzeichen" / "Schneehäschen 兎.JPG", image))
    assert np.abs(read.astype(int) - image).mean() < 5


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bits_are_scaled(tmp_path, suffix):
    image = noise_image()
    path = write(tmp_path / f"a{suffix}", image.astype(np.uint16) * 257)
    assert np.array_equal(read_image(path), image)


@pytest.mark.parametrize("suffix", [".png", ".gif", ".bmp", ".tif"])
def test_palettes_are_looked_up(tmp_path, suffix):
    palette = Image.fromarray(noise_image()).quantize(32)
    path = saved(tmp_path / f"a{suffix}", palette)
    assert np.array_equal(read_image(path), np.asarray(palette.convert("RGB")))


@pytest.mark.parametrize("suffix", [".jpg", ".tif"])
def test_cmyk_is_converted(tmp_path, suffix):
    path = saved(tmp_path / f"a{suffix}", Image.fromarray(noise_image()).convert("CMYK"))
    with Image.open(path) as file:  # an open file would be a warning in whichever test comes next
        expected = np.asarray(file.convert("RGB")).astype(int)
    assert np.abs(read_image(path) - expected).max() <= 1


@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp"])
def test_half_transparent_pixels_are_shown_over_black_once(tmp_path, suffix):
    alpha = np.broadcast_to(np.arange(0, 240, 6, dtype=np.uint8), (30, 40))
    image = Image.fromarray(np.dstack([noise_image(), alpha]))
    path = saved(tmp_path / f"a{suffix}", image, **{"lossless": True} if "w" in suffix else {})
    expected = noise_image() * (alpha[..., None] / 255.0)
    assert np.abs(read_image(path) - expected).max() <= 1.5


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["RGB.jpg", "L.jpg", "RGB.png", "L.png", "P.png", "RGB.tif"])
def test_every_orientation_of_exif(tmp_path, kind, orientation):
    mode, _, suffix = kind.partition(".")
    image, exif = Image.fromarray(noise_image()).convert(mode), Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path / f"a.{suffix}", image, exif=exif)
    with Image.open(path) as file:
        expected = np.asarray(ImageOps.exif_transpose(file).convert("RGB")).astype(int)
    assert read_image(path).shape == expected.shape
    assert np.abs(read_image(path) - expected).max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_transparent_images_are_turned_too(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    alpha = np.full((30, 40, 1), 255, np.uint8)
    image = Image.fromarray(np.dstack([noise_image(), alpha]))
    path = saved(tmp_path / "a.png", image, exif=exif)
    with Image.open(path) as file:
        expected = np.asarray(ImageOps.exif_transpose(file).convert("RGB"))
    assert np.array_equal(read_image(path), expected)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["L.png", "L.jpg", "L.tif", "P.png", "1.png"])
def test_masks_turn_with_their_images(tmp_path, kind, orientation):
    mode, _, suffix = kind.partition(".")
    exif = Image.Exif()
    exif[0x0112] = orientation
    mask = Image.fromarray(square_mask()).convert(mode)
    path = saved(tmp_path / f"a.{suffix}", mask, exif=exif)
    image = saved(tmp_path / f"b.{suffix}", mask.convert("RGB"), exif=exif)
    assert (read_mask(path) != (read_image(image)[..., 0] > 128) * 255).mean() < 0.02


def test_the_first_picture_of_an_animation_is_read(tmp_path):
    first = Image.fromarray(noise_image()).quantize(32)
    later = [Image.fromarray(noise_image(seed=1)).quantize(32)]
    for suffix in (".gif", ".png", ".tif"):
        path = saved(tmp_path / f"a{suffix}", first, save_all=True, append_images=later)
        assert np.array_equal(read_image(path), np.asarray(first.convert("RGB")))


@pytest.mark.parametrize("suffix", [".png", ".gif"])
def test_transparent_colours_of_a_palette_are_black(tmp_path, suffix):
    palette = Image.fromarray(noise_image()).quantize(16)
    path = saved(tmp_path / f"a{suffix}", palette, transparency=3)
    hidden = np.asarray(palette)[..., None] == 3
    assert hidden.any()
    assert np.array_equal(read_image(path), np.where(hidden, 0, palette.convert("RGB")))


def test_what_follows_the_end_of_a_png_is_ignored(tmp_path):
    path = write(tmp_path / "a.png", noise_image())
    path.write_bytes(path.read_bytes() + b"written by some program" * 100)
    assert np.array_equal(read_image(path), noise_image())


# Mask files to 0 and 255: which values and colours are object, and what is refused.


@pytest.mark.parametrize(
    ("values", "flags"),
    [
        ((0, 255), ()),
        ((0, 1), ("values 0 and 1",)),
        ((3, 250), ("grey levels",)),
        ((0, 0), ("empty",)),
        ((16, 239), ("grey levels",)),
        ((0, 65535), ()),
        ((0, 62000), ("grey levels",)),
    ],
)
def test_mask_values(tmp_path, values, flags):
    object_ = square_mask() > 0
    kind = np.uint16 if max(values) > 255 else np.uint8
    path = write(tmp_path / "a.png", np.where(object_, *map(kind, values[::-1])))
    mask, found = inspect_mask(path)
    assert found == flags
    expected = np.zeros_like(object_) if "empty" in flags else object_
    assert np.array_equal(mask, expected.astype(np.uint8) * 255)


def test_mask_of_8_bit_values_in_16_and_one_of_which_nothing_would_be_left(tmp_path):
    path = write(tmp_path / "a.png", square_mask().astype(np.uint16))
    assert np.array_equal(read_mask(path), square_mask())
    path = write(tmp_path / "a.png", square_mask() // 2)
    with pytest.raises(DataError, match=r"a\.png holds values from 0 to 127 only"):
        read_mask(path)


def test_rgb_mask_with_alpha_and_jpeg_mask(tmp_path):
    grey = square_mask()
    rgb = np.dstack([grey] * 3)
    assert inspect_mask(write(tmp_path / "a.png", rgb))[1] == ()
    alpha = np.dstack([np.full_like(rgb, 255), grey])  # white, transparent outside
    assert np.array_equal(read_mask(write(tmp_path / "b.png", alpha)), grey)
    assert (read_mask(write(tmp_path / "c.jpg", rgb)) != grey).mean() < 0.02


def test_mask_in_two_colours_and_in_three(tmp_path):
    mask = np.zeros((30, 40, 3), np.uint8)
    mask[5:20, 8:25] = (128, 0, 0)  # the palette of VOC
    read, flags = inspect_mask(write(tmp_path / "a.png", mask))
    assert flags == ("two colours",)
    assert np.array_equal(read, square_mask())
    mask[0] = (0, 128, 0)
    with pytest.raises(DataError, match="3 colours"):
        read_mask(write(tmp_path / "b.png", mask))


# Image files that are damaged, or would be shown wrongly: refused in one sentence.


def test_transparency_that_is_not_read(tmp_path):
    grey = noise_image()[..., 0]
    path = saved(tmp_path / "a.png", Image.fromarray(grey), transparency=int(grey[0, 0]))
    with pytest.raises(DataError, match=r"a\.png is grey and transparent in a way"):
        read_image(path)
    path = saved(tmp_path / "b.tif", Image.fromarray(np.dstack([grey, grey]), "LA"))
    with pytest.raises(DataError, match=r"b\.tif is grey and transparent in a way"):
        read_image(path)
    both = Image.fromarray(np.dstack([grey, grey]), "LA")
    assert np.abs(read_image(saved(tmp_path / "c.png", both))[..., 0] - grey**2.0 / 255).max() <= 1


@pytest.mark.parametrize("kind", [np.int8, np.int16, np.float32])
@pytest.mark.parametrize("read", [read_image, read_mask])
def test_values_with_a_sign_or_a_fraction_are_refused(tmp_path, kind, read):
    path = write(tmp_path / "a.tif", (noise_image() // 2).astype(kind))
    with pytest.raises(DataError, match=rf"a\.tif holds {kind.__name__} values"):
        read(path)


def test_16_bits_that_would_be_black_are_refused(tmp_path):
    path = write(tmp_path / "a.png", noise_image().astype(np.uint16))
    with pytest.raises(DataError, match="16 bits but no value above 255"):
        read_image(path)
    black = write(tmp_path / "b.png", noise_image().astype(np.uint16) * 0)
    assert not read_image(black).any()


def test_more_pixels_than_are_read(tmp_path):
    data = bytearray(write(tmp_path / "a.bmp", noise_image()).read_bytes())
    data[18:26] = (50_000).to_bytes(4, "little") * 2  # width and height in the header
    (tmp_path / "a.bmp").write_bytes(data)
    with pytest.raises(DataError, match=r"a\.bmp says it is 50000 x 50000 pixels, which"):
        read_image(tmp_path / "a.bmp")


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".tif", ".webp"])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
@pytest.mark.parametrize("read", [read_image, read_mask])
def test_truncated_files(tmp_path, suffix, share, read):
    path = write(tmp_path / f"a{suffix}", noise_image((60, 80, 3)))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(DataError, match=f"a{suffix}"):
        read(path)


def test_truncated_jpeg_whose_preview_is_whole(tmp_path):
    preview = write(tmp_path / "p.jpg", noise_image((8, 8, 3))).read_bytes()
    data = write(tmp_path / "a.jpg", noise_image((60, 80, 3))).read_bytes()
    body = b"Exif\0\0" + preview
    segment = b"\xff\xe1" + (len(body) + 2).to_bytes(2, "big") + body
    whole = data[:2] + segment + data[2:]
    (tmp_path / "a.jpg").write_bytes(whole)
    assert read_image(tmp_path / "a.jpg").shape == (60, 80, 3)
    (tmp_path / "a.jpg").write_bytes(whole[: -len(data) // 2])
    with pytest.raises(DataError, match="is truncated: its end"):
        read_image(tmp_path / "a.jpg")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [(b"", "empty"), (b"GIF89a nonsense", "bytes cannot hold"), (b"<html>404</html>", "decoded"),
     (b"\x89PNG\r\n\x1a\n", "truncated"), (b"\xff\xd8\xff", "truncated")],
)  # fmt: skip
@pytest.mark.parametrize("read", [read_image, read_mask])
def test_files_that_are_no_images(tmp_path, content, sentence, read):
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"a\.png.*{sentence}"):
        read(path)


def test_damaged_png(tmp_path):
    path = write(tmp_path / "a.png", noise_image((60, 80, 3)))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(bytes(data))
    with pytest.raises(DataError, match="it is damaged"):
        read_image(path)


def test_a_png_that_claims_gigabytes_is_not_decoded(tmp_path):
    path = write(tmp_path / "a.png", np.zeros((8, 8), np.uint8))
    data = bytearray(path.read_bytes())
    data[16:24] = (30_000).to_bytes(4, "big") * 2
    path.write_bytes(data)
    for read in (read_image, read_mask):
        with pytest.raises(DataError, match="says it is 30000 x 30000 pixels, which its 84 bytes"):
            read(path)


def test_missing_file_and_folder_in_its_place(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        read_image(tmp_path / "a.png")
    with pytest.raises(DataError, match="cannot be read"):
        read_image(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes among files here")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a\.png cannot be read \(it is a pipe\)"):
        read_image(tmp_path / "a.png")


# Pictures: the layout of the grid and what an overlay changes.


def test_grid_has_a_cell_for_each_picture_and_keeps_shapes():
    wide, tall = np.zeros((50, 100, 3), np.uint8), np.full((100, 50), 7, np.uint8)
    sheet = images.grid(
        ["a", "a title that is far too long for one cell of the sheet"], [[wide, tall]] * 3
    )
    assert sheet.shape == (TITLE + 3 * (CELL + GAP) + GAP, 2 * (CELL + GAP) + GAP, 3)
    first = sheet[TITLE : TITLE + CELL, GAP : GAP + CELL]
    assert (first[CELL // 2] == 0).all()  # the wide picture fills its width ...
    assert (first[: CELL // 4 - 1] == 255).all()  # ... and white lies above it
    second = sheet[TITLE : TITLE + CELL, 2 * GAP + CELL : 2 * (GAP + CELL)]
    assert (second[:, CELL // 2] == 7).all()


def test_overlay_tints_the_object_only():
    image, pred = np.full((40, 40, 3), 100, np.uint8), np.zeros((40, 40), np.uint8)
    pred[10:30, 10:30] = 255
    tinted = overlay(image, pred)
    assert (tinted[:5] == 100).all()
    assert tinted[20, 20, 0] > 150
    assert tinted[20, 20, 2] < 100
    assert (image == 100).all()


def test_overlay_in_bands_is_the_overlay(monkeypatch):
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (31, 17, 3)).astype(np.uint8)
    pred = random.integers(0, 256, (31, 17)).astype(np.uint8)
    whole = overlay(image, pred)
    for pixels in (1, 50, 17 * 31):
        monkeypatch.setattr(images, "BAND", pixels)
        assert (overlay(image, pred) == whole).all()
