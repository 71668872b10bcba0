"""Maps as people keep them: arrays, grey maps, turned photographs; each read or refused."""

import io
import pickle
import zipfile

import cv2
import numpy as np
import pytest
from drawn_maps import draw_map, draw_mask, save, score_folders, stored
from scipy.io import savemat

from lpmoe_bench.data.maps import inspect_map
from lpmoe_bench.errors import DataError

MAP = draw_map(0)
SOFT = np.random.default_rng(0).random(MAP.shape)


def written(path, values, name="map"):
    """Write an array in the form of the suffix."""
    if path.suffix == ".npy":
        np.save(path, values)
    elif path.suffix == ".npz":
        np.savez_compressed(path, **{name: values})
    else:
        savemat(path, {name: values})
    return path


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".mat"])
@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (MAP, MAP),
        (MAP.astype(np.int64), MAP),  # what Python makes of whole numbers says nothing of 16 bits
        (MAP.astype(np.uint16) * 257, MAP.astype(np.uint16) * 257),
        (SOFT, SOFT),
        (SOFT.astype(np.float32), SOFT.astype(np.float32).astype(np.float64)),
        (SOFT[None], SOFT),
        (SOFT[..., None], SOFT),
        (MAP > 99, (MAP > 99) * np.uint8(255)),
    ],
)
def test_arrays_keep_their_precision(tmp_path, suffix, values, expected):
    if suffix == ".mat" and values.dtype == bool:
        return  # MATLAB's logical values come back as 0 and 1, which the checks speak of
    found, _ = inspect_map(written(tmp_path / f"a{suffix}", values))
    assert found.dtype == expected.dtype
    assert np.array_equal(found, expected)


def test_the_channels_of_an_array_are_red_green_and_blue(tmp_path):
    red = np.zeros((4, 5, 3), np.uint8)
    red[..., 0], red[0, 0, 0] = 200, 100
    as_array = inspect_map(written(tmp_path / "a.npy", red))
    as_image = inspect_map(save(tmp_path / "a.png", red[..., ::-1]))
    assert np.array_equal(as_array[0], as_image[0])
    assert as_array[1] == as_image[1] == ("in two colours",)


class Evil:
    def __reduce__(self):
        raise AssertionError("it was unpickled")


def test_what_is_no_array_of_a_map_is_refused(tmp_path):
    plain = io.BytesIO()
    np.save(plain, SOFT)
    data = plain.getvalue()
    huge = data.replace(b"(24, 36)", b"(9999999, 9999999)".ljust(8))
    cases = {
        "objects.npy": (None, "never unpickled"),
        "cut.npy": (data[:-9], "is truncated"),
        "huge.npy": (huge, "is truncated|is damaged"),
        "noise.npy": (b"\x93NUMPY" + bytes(40), "is damaged"),
        "text.npz": (b"no archive", "no .npz archive"),
        "text.mat": (b"no matlab", "cannot be read as a MATLAB file"),
        "new.mat": (b"MATLAB 7.3 MAT-file".ljust(512) + b"\x89HDF\r\n\x1a\n", "MATLAB 7.3"),
    }
    for name, (content, words) in cases.items():
        path = tmp_path / name
        if content is None:
            np.save(path, np.array([[{}]], object), allow_pickle=True)
        else:
            path.write_bytes(content)
        with pytest.raises(DataError, match=words):
            inspect_map(path)
    written(tmp_path / "line.npy", np.zeros(9))
    with pytest.raises(DataError, match=r"of shape \(9,\); a map is \(height, width\)"):
        inspect_map(tmp_path / "line.npy")
    np.savez(tmp_path / "two.npz", a=SOFT, b=SOFT, count=3)
    with pytest.raises(DataError, match=r"2 arrays that may be a map \(a, b\)"):
        inspect_map(tmp_path / "two.npz")
    for values, words in ((MAP * 3 - 9.0, "outside of 0 to 1"), (MAP * -1.0 - 1, "outside of 0")):
        with pytest.raises(DataError, match=words):
            inspect_map(written(tmp_path / "range.npy", values))
    with pytest.raises(DataError, match="whole numbers outside of 0 to 65535"):
        inspect_map(written(tmp_path / "range.npy", MAP.astype(np.int32) * 1000))
    with pytest.raises(DataError, match="complex128 values"):
        inspect_map(written(tmp_path / "range.npy", MAP * 1j))


def test_nothing_of_an_array_is_unpickled(tmp_path):
    content = pickle.dumps(0).replace(pickle.dumps(0), b"cposix\nsystem\n(S'exit 1'\ntR.")
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        head, {"descr": "|O", "fortran_order": False, "shape": (1, 1)}
    )
    (tmp_path / "a.npy").write_bytes(head.getvalue() + content)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("map.npy", head.getvalue() + content)
    for name in ("a.npy", "a.npz"):
        with pytest.raises(DataError, match="never unpickled"):
            inspect_map(tmp_path / name)


@pytest.mark.parametrize(
    ("top", "expected"),
    [
        (255, MAP[:4, :4]),
        (65535, MAP[:4, :4].astype(np.uint16) * 257),
        (1023, MAP[:4, :4] / 1023.0),
        (100, (MAP[:4, :4] % 100) / 100.0),
    ],
)
@pytest.mark.parametrize("plain", [False, True])
def test_grey_maps_mean_what_their_header_says(tmp_path, top, expected, plain):
    values = {255: MAP, 65535: MAP * np.uint16(257), 1023: MAP, 100: MAP % 100}[top][:4, :4]
    kind = np.uint8 if top < 256 else np.dtype(">u2")
    body = " ".join(map(str, values.ravel())) if plain else values.astype(kind).tobytes()
    head = f"P{2 if plain else 5}\n# drawn\n4 4\n{top}\n"
    path = tmp_path / "a.pgm"
    path.write_bytes(head.encode() + (body.encode() if plain else body))
    found, _ = inspect_map(path)
    assert found.dtype == expected.dtype
    assert np.array_equal(found, expected)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError, match=r"is truncated|is damaged"):
        inspect_map(path)


def turned_file(pixels, orientation):
    """JPEG bytes with an EXIF orientation and nothing else in it."""
    data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 100])[1].tobytes()
    tiff = (
        b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0" + bytes([orientation, 0, 0, 0]) + bytes(4)
    )
    exif = b"Exif\0\0" + tiff
    return data[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + data[2:]


def test_a_map_is_turned_as_exif_says_as_its_mask_is(tmp_path):
    """6: the camera was held upright, so the stored picture is turned clockwise."""
    for folder, pixels in (("masks", draw_mask(0)), ("A", MAP)):
        (tmp_path / folder).mkdir()
        stored_pixels = np.ascontiguousarray(np.rot90(pixels))
        (tmp_path / folder / "p0.jpg").write_bytes(turned_file(stored_pixels, 6))
    assert inspect_map(tmp_path / "A" / "p0.jpg")[0].shape == MAP.shape
    outcome, notes, _ = score_folders(tmp_path)
    (scores,) = stored(outcome)[0].scores.values()
    save(tmp_path / "upright" / "masks" / "p0.png", draw_mask(0))
    save(tmp_path / "upright" / "A" / "p0.png", inspect_map(tmp_path / "A" / "p0.jpg")[0])
    upright, _, _ = score_folders(tmp_path / "upright")
    assert scores["s_measure"] == pytest.approx(
        next(iter(stored(upright)[0].scores.values()))["s_measure"]
    )
    assert not any("size" in note for note in notes)
