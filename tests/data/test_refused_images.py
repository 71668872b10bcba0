"""Image files that are damaged, or would be shown wrongly: refused in one sentence."""

import os

import numpy as np
import pytest
from drawn_files import noise_image, saved, write
from PIL import Image

from lpmoe_bench.data.images import read_image, read_mask
from lpmoe_bench.errors import DataError


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


@pytest.mark.parametrize("kind", [np.int8, np.int16])
def test_values_with_a_sign_are_refused(tmp_path, kind):
    path = write(tmp_path / "a.tif", (noise_image() // 2).astype(kind))
    with pytest.raises(DataError, match=rf"a\.tif holds {kind.__name__} values"):
        read_image(path)


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
    with pytest.raises(DataError, match=r"a\.bmp cannot be decoded \(more pixels than are read"):
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
    [(b"", "empty"), (b"GIF89a nonsense", "decoded"), (b"<html>404</html>", "decoded"),
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
        with pytest.raises(DataError, match="says it is 30000 x 30000 pixels; 268435456 in all"):
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


def test_floating_point_images_are_refused(tmp_path):
    path = write(tmp_path / "a.tif", noise_image().astype(np.float32))
    with pytest.raises(DataError, match=r"a\.tif"):
        read_image(path)
    with pytest.raises(DataError, match="float32"):
        read_mask(path)
