"""Image files to arrays: read as a person sees them."""

import numpy as np
import pytest
from drawn_files import noise_image, saved, square_mask, write
from PIL import Image, ImageOps

from lpmoe_bench.data.images import read_image, read_mask
from lpmoe_bench.errors import DataError


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif"])
def test_lossless_formats_come_back_as_rgb(tmp_path, suffix):
    image = noise_image()
    assert np.array_equal(read_image(write(tmp_path / f"a{suffix}", image)), image)


def test_jpeg_and_names_that_are_not_ascii(tmp_path):
    image = noise_image()
    read = read_image(write(tmp_path / "mit Leerzeichen" / "Schneehäschen 兎.JPG", image))
    assert np.abs(read.astype(int) - image).mean() < 5


def test_grey_becomes_rgb(tmp_path):
    grey = noise_image()[..., 0]
    assert np.array_equal(read_image(write(tmp_path / "a.png", grey)), np.dstack([grey] * 3))


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bits_are_scaled(tmp_path, suffix):
    image = noise_image()
    path = write(tmp_path / f"a{suffix}", image.astype(np.uint16) * 257)
    assert np.array_equal(read_image(path), image)


def test_transparency_is_shown_over_black(tmp_path):
    image = noise_image()
    alpha = np.zeros((30, 40, 1), np.uint8)
    alpha[:, :20] = 255
    read = read_image(write(tmp_path / "a.png", np.dstack([image, alpha])))
    assert np.array_equal(read[:, :20], image[:, :20])
    assert not read[:, 20:].any()


def test_exif_rotation_is_applied(tmp_path):
    image = noise_image()
    plain = write(tmp_path / "a.jpg", image)
    data = plain.read_bytes()
    # An APP1 segment with one TIFF entry: orientation 6, to be turned a quarter clockwise.
    tiff = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    body = b"Exif\0\0" + tiff
    turned = tmp_path / "b.jpg"
    turned.write_bytes(
        data[:2] + b"\xff\xe1" + (len(body) + 2).to_bytes(2, "big") + body + data[2:]
    )
    assert np.array_equal(read_image(turned), np.rot90(read_image(plain), -1))


@pytest.mark.parametrize("suffix", [".png", ".gif", ".bmp", ".tif"])
def test_palettes_are_looked_up(tmp_path, suffix):
    palette = Image.fromarray(noise_image()).quantize(32)
    path = saved(tmp_path / f"a{suffix}", palette)
    assert np.array_equal(read_image(path), np.asarray(palette.convert("RGB")))


@pytest.mark.parametrize("suffix", [".jpg", ".tif"])
def test_cmyk_is_converted(tmp_path, suffix):
    path = saved(tmp_path / f"a{suffix}", Image.fromarray(noise_image()).convert("CMYK"))
    expected = np.asarray(Image.open(path).convert("RGB")).astype(int)
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


def test_a_rotation_of_transparent_images_is_refused(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.fromarray(np.dstack([noise_image(), noise_image()[..., :1]]))
    path = saved(tmp_path / "a.png", image, exif=exif)
    with pytest.raises(DataError, match=r"a\.png is transparent and has a rotation noted in EXIF"):
        read_image(path)
    exif[0x0112] = 1
    assert read_image(saved(path, image, exif=exif)).shape == (30, 40, 3)


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
