"""Layouts and formats that people have: each with the pairs and the object that are right."""

import base64
import io
import json
import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from drawn_files import noise_image, write
from scipy.io import savemat

from lpmoe_bench.data import arrays
from lpmoe_bench.data.annotations import MaskParts, read_array
from lpmoe_bench.data.images import inspect_mask, read_image
from lpmoe_bench.data.maps import inspect_map
from lpmoe_bench.data.matching import common_rule, named_files
from lpmoe_bench.data.pairs import find_pairs, read_pair, split_pairs
from lpmoe_bench.data.pixels import pixel_rules
from lpmoe_bench.data.registry import Dataset, load_registry
from lpmoe_bench.data.splits import Split, check_pairs, contents, digest_of
from lpmoe_bench.data.test_sets import folder_set
from lpmoe_bench.errors import DataError

SHAPE = (48, 64)
OBJECT = np.zeros(SHAPE, bool)
OBJECT[4:24, 6:30] = True
GOLDEN = Path(__file__).parents[1] / "golden"


def scene(folder: Path, *names: str, masks: str = "") -> None:
    """Write the photograph under these names, and its mask where `masks` says how it is called."""
    for name in names:
        image = np.zeros((*SHAPE, 3), np.uint8)
        image[:], image[OBJECT] = (50, 100, 170), (200, 60, 40)
        write(folder / f"{name}.png", image)
        if masks:
            write(folder / masks.format(name), OBJECT.astype(np.uint8) * 255)


def truth(path: Path, part: np.ndarray = OBJECT) -> None:
    write(path, part.astype(np.uint8) * 255)


def one_pair(images: Path, masks: Path, **how):
    (pair,) = find_pairs(images, masks, **how)
    image, mask = read_pair(pair)
    assert image.shape == (*SHAPE, 3)
    return pair, mask


# --- names of folders and files


def test_frames_of_one_name_in_several_folders(tmp_path):
    for place in ("a", "b"):
        scene(tmp_path / "images" / place, "000", "001")
        truth(tmp_path / "masks" / place / "000.png")
        truth(tmp_path / "masks" / place / "001.png")
    pairs = find_pairs(tmp_path / "images", tmp_path / "masks")
    assert [pair.name for pair in pairs] == ["a/000", "a/001", "b/000", "b/001"]
    assert all((read_pair(pair)[1] == OBJECT * np.uint8(255)).all() for pair in pairs)


def test_one_rule_that_fits_all_pairs_them_and_is_said(tmp_path):
    scene(tmp_path / "images", "a", "b", "c")
    for name in "abc":
        truth(tmp_path / "masks" / f"{name}_mask.png")
    said: list[str] = []
    pairs = find_pairs(tmp_path / "images", tmp_path / "masks", said=said)
    assert [(p.name, p.mask.name) for p in pairs] == [(n, f"{n}_mask.png") for n in "abc"]
    assert said == ["masks are matched by one rule that fits all 3: image {name}, mask {name}_mask"]
    with pytest.raises(
        DataError, match=r"images/\{name\}' as images and .*/\{name\}_mask' as masks"
    ):
        find_pairs(tmp_path / "images", tmp_path / "masks")
    (tmp_path / "masks/c_mask.png").unlink()  # two of three are no rule, but worth a proposal
    with pytest.raises(DataError, match="2 would be paired by"):
        find_pairs(tmp_path / "images", tmp_path / "masks", said=said)


@pytest.mark.parametrize(
    ("images", "masks", "rule"),
    [
        (["21_tr", "22_tr"], ["21_manual1", "22_manual1"], "{name}tr {name}manual1"),
        (["img1", "img12", "img2"], ["mask1", "mask12", "mask2"], "img{name} mask{name}"),
        (["image1", "image2"], ["mask1", "mask2"], "image{name} mask{name}"),
        (["a", "b"], ["a.jpg", "b.jpg"], "{name} {name}.jpg"),
        (["s1/a", "s2/a"], ["s1/a_gt", "s2/a_gt"], "{name} {name}_gt"),
        (["0001", "0002"], ["1001", "1002"], ""),  # digits alone: those may be other images
        (["cat", "bat"], ["hat", "rat"], ""),  # within a word
        (["x_a", "x_b"], ["y_c", "y_d"], ""),
    ],
)  # fmt: skip
def test_rules_of_names(images, masks, rule):
    found, count = common_rule(images, masks)
    assert (" ".join(found.patterns()) if found else "") == rule
    assert count == (len(images) if rule else 0)


def test_several_masks_of_an_image_beside_it_are_their_union(tmp_path):
    folder = tmp_path / "benign"
    scene(folder, "benign (1)", "benign (2)")
    left, right = OBJECT.copy(), OBJECT.copy()
    left[:, 18:], right[:, :18] = False, False
    truth(folder / "benign (1)_mask.png", left)
    truth(folder / "benign (1)_mask_1.png", right)
    truth(folder / "benign (2)_mask.png", np.zeros(SHAPE, bool))
    pairs = find_pairs(folder / "{name}.png", folder / "{name}_mask*.png")
    assert [pair.name for pair in pairs] == ["benign (1)", "benign (2)"]
    assert isinstance(pairs[0].mask, MaskParts)
    assert (read_pair(pairs[0])[1] == OBJECT * np.uint8(255)).all()
    assert inspect_mask(pairs[1].mask)[1] == ("empty",)
    assert check_pairs(Split("own", "x", tuple(pairs))) == [
        "1 of 2 masks of own/x are empty (such as benign (2))"
    ]
    busi = load_registry().dataset("busi")
    assert [p.name for p in split_pairs(busi, tmp_path, "all") or ()] == [
        "benign (1)", "benign (2)"
    ]  # fmt: skip


def test_parts_of_a_mask_of_other_sizes_are_refused(tmp_path):
    scene(tmp_path, "a")
    truth(tmp_path / "a_mask.png")
    truth(tmp_path / "a_mask_1.png", np.ones((9, 9), bool))
    (pair,) = find_pairs(tmp_path / "{name}.png", tmp_path / "{name}_mask*.png")
    with pytest.raises(DataError, match=r"9 x 9 pixels but .*another mask of the same image"):
        read_pair(pair)


def test_a_union_counts_as_its_files_whatever_their_order(tmp_path):
    scene(tmp_path, "a")
    truth(tmp_path / "a_mask.png")
    truth(tmp_path / "a_mask_1.png", ~OBJECT)

    def digest():
        pairs = find_pairs(tmp_path / "{name}.png", tmp_path / "{name}_mask*.png")
        return digest_of(contents(Split("own", "x"), pairs, tmp_path / "cache"))

    before = digest()
    one, other = tmp_path / "a_mask.png", tmp_path / "a_mask_1.png"
    data = one.read_bytes(), other.read_bytes()
    one.write_bytes(data[1])
    other.write_bytes(data[0])
    assert digest() == before
    other.write_bytes(data[1])
    assert digest() != before


def test_a_folder_an_image(tmp_path):
    for name in ("IMD002", "IMD003"):
        place = tmp_path / "PH2 Dataset images" / name
        scene(place / f"{name}_Dermoscopic_Image", name)
        truth(place / f"{name}_lesion/{name}_lesion.png")
        truth(place / f"{name}_roi/{name}_R1_Label3.png")
    pairs = split_pairs(load_registry().dataset("ph2"), tmp_path, "all")
    assert pairs is not None
    assert [(p.name, p.mask.name) for p in pairs] == [
        ("IMD002", "IMD002_lesion.png"), ("IMD003", "IMD003_lesion.png")
    ]  # fmt: skip


def test_stars_of_folders_are_part_of_a_name(tmp_path):
    for place in ("s1", "s2"):
        scene(tmp_path / place / "images", "a")
        truth(tmp_path / place / "gt/a_m.png")
    pairs = find_pairs(tmp_path / "*/images/*.png", tmp_path / "*/gt/*_m.png")
    assert [pair.name for pair in pairs] == ["s1/a", "s2/a"]


def test_linked_folders_are_followed_and_no_circle(tmp_path):
    scene(tmp_path / "real", "a")
    (tmp_path / "images").mkdir()
    (tmp_path / "images/b").symlink_to(tmp_path / "real")
    (tmp_path / "real/up").symlink_to(tmp_path / "images")
    assert list(named_files(tmp_path / "images", (".png",))) == ["b/a"]


def test_images_and_masks_that_are_the_same_files(tmp_path):
    scene(tmp_path, "a", "b")
    with pytest.raises(DataError, match="are the same 2 files; images and masks are two"):
        find_pairs(tmp_path, tmp_path)


def test_masks_below_the_folder_of_images_are_no_images(tmp_path):
    scene(tmp_path / "data", "a")
    truth(tmp_path / "data/masks/a.png")
    pair, _ = one_pair(tmp_path / "data", tmp_path / "data/masks")
    assert (pair.name, pair.image.parent.name) == ("a", "data")


# --- files that are no images


POLYGON = [[6, 4], [30, 4], [30, 24], [6, 24]]


def labelme(shape: dict) -> str:
    about = {"imagePath": "a.png", "imageHeight": SHAPE[0], "imageWidth": SHAPE[1]}
    return json.dumps({"version": "5.0", "shapes": [{"label": "x", **shape}], **about})


def png_of(pixels) -> str:
    return base64.b64encode(cv2.imencode(".png", pixels)[1].tobytes()).decode()


@pytest.mark.parametrize(
    "shape",
    [
        {"points": POLYGON, "shape_type": "polygon"},
        {"points": [[6, 4], [30, 24]], "shape_type": "rectangle"},
        {"points": [[6, 4], [29, 23]], "shape_type": "mask",
         "mask": png_of(np.full((20, 24), 255, np.uint8))},
    ],
)  # fmt: skip
def test_labelme_files_are_masks(tmp_path, shape):
    scene(tmp_path / "images", "a")
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks/a.json").write_text(labelme(shape))
    _, mask = one_pair(tmp_path / "images", tmp_path / "masks")
    assert (mask == OBJECT * np.uint8(255)).all()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (labelme({"points": [[1, 1], [5, 5]], "shape_type": "line"}), "a shape 'line', which"),
        (labelme({"points": [[1, 1], [5, 5]], "shape_type": "polygon"}), "outline of 2 corners"),
        ('{"shapes": []}', "no labelme file that is read"),
        ("[1, 2]", "holds no annotations"),
        ("{", "no sound JSON"),
        ('{"shapes": [], "imageHeight": 99999, "imageWidth": 99999}', "99999 x 99999 pixels"),
        ("[" * 100_000, "no sound JSON"),
    ],
)
def test_broken_annotations_are_one_sentence(tmp_path, text, sentence):
    scene(tmp_path / "images", "a")
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks/a.json").write_text(text)
    with pytest.raises(DataError, match=sentence):
        one_pair(tmp_path / "images", tmp_path / "masks")


def coco(*images: str, **annotation) -> str:
    about = [
        {"id": k, "file_name": name, "height": SHAPE[0], "width": SHAPE[1]}
        for k, name in enumerate(images)
    ]
    one = {"id": 1, "image_id": 0, "category_id": 7, **annotation}
    flat = [value for corner in POLYGON for value in corner]
    one.setdefault("segmentation", [flat])
    categories = [{"id": 7, "name": "x"}, {"id": 9, "name": "y"}]
    return json.dumps({"images": about, "annotations": [one], "categories": categories})


@pytest.mark.parametrize("place", ["masks", "masks/instances.json"])
def test_a_coco_file_is_the_masks_of_its_images(tmp_path, place):
    scene(tmp_path / "images", "a", "b", "c")
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks/instances.json").write_text(coco("a.png", "train/b.png"))
    pairs = find_pairs(tmp_path / "images", tmp_path / place)
    assert [pair.name for pair in pairs] == ["a", "b"]  # c is not in it
    masks = [read_pair(pair)[1] for pair in pairs]
    assert (masks[0] == OBJECT * np.uint8(255)).all()
    assert not masks[1].any()  # an image without an annotation has no object
    (tmp_path / "images/b.png").unlink()
    with pytest.raises(DataError, match=r"b \(no image\)"):
        find_pairs(tmp_path / "images", tmp_path / place)


def test_categories_of_a_coco_file_are_chosen_by_name(tmp_path):
    scene(tmp_path / "images", "a")
    (tmp_path / "masks.json").write_text(coco("a.png", category_id=9))
    said: list[str] = []

    def found(**rules) -> int:
        places = (tmp_path / "images", tmp_path / "masks.json")
        (pair,) = find_pairs(*places, said=said, rules=pixel_rules(rules))
        return int((read_pair(pair)[1] > 0).sum())

    assert found() == found(category="y") == found(category=["x", "y"]) == OBJECT.sum()
    assert found(category="x") == 0
    assert len(said) == 1
    assert "all 2 categories of masks.json (x, y) are one mask" in said[0]
    assert "`category: ['x']`" in said[0]
    with pytest.raises(DataError, match="has no category z; it has x, y"):
        found(category="z")


def test_the_digest_of_a_coco_image_does_not_depend_on_the_others(tmp_path):
    scene(tmp_path / "images", "a")
    file = tmp_path / "instances.json"

    def digest(text: str) -> str:
        file.write_text(text)
        return digest_of(contents(Split("own", "x"), find_pairs(tmp_path / "images", file), None))

    first = digest(coco("a.png"))
    more = json.loads(coco("a.png"))
    more["info"] = "newer"
    assert digest(json.dumps(more)) == first
    more["annotations"][0]["segmentation"][0][0] = 7
    assert digest(json.dumps(more)) != first


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('{"images": [], "annotations": [{"image_id": 3}]}', "an annotation of image 3, not in it"),
        (coco("a.png", category_id=8), "category 8, not in it"),
        (coco("a.png", segmentation={"size": [48, 64], "counts": [3]}), "do not add up"),
        (coco("a.png", segmentation={"size": [64, 48], "counts": [3072]}), "runs of size"),
        (coco("a.png", segmentation=[[0, 0, 1e9, 1, 2, 2]]), "corners far outside"),
        (coco("a.png", "a.png"), "lists the image a.png twice"),
    ],
)
def test_broken_coco_files(tmp_path, text, sentence):
    scene(tmp_path / "images", "a")
    (tmp_path / "m.json").write_text(text)
    with pytest.raises(DataError, match=sentence):
        find_pairs(tmp_path / "images", tmp_path / "m.json")


@pytest.mark.parametrize(
    "values",
    [
        OBJECT, OBJECT.astype(np.uint8), OBJECT * np.uint8(255), OBJECT * 1.0,
        OBJECT[..., None], OBJECT[None] * 255,
    ],
)  # fmt: skip
def test_numpy_masks(tmp_path, values):
    scene(tmp_path / "images", "a")
    (tmp_path / "masks").mkdir()
    np.save(tmp_path / "masks/a.npy", values)
    _, mask = one_pair(tmp_path / "images", tmp_path / "masks")
    assert (mask == OBJECT * np.uint8(255)).all()
    assert list(folder_set(tmp_path / "masks", None, tmp_path / "cache").masks) == ["a"]


def test_numpy_files_that_are_no_masks(tmp_path):
    scene(tmp_path / "images", "a")
    (tmp_path / "masks").mkdir()
    file = tmp_path / "masks/a.npy"
    for values, sentence in (
        (np.zeros((4, *SHAPE)), r"of shape \(4, 48, 64\)"),
        (np.full(SHAPE, -1), "values from -1 to -1"),
        (np.full(SHAPE, np.nan), "numbers with fractions from nan"),
        (OBJECT.astype(object), "it holds Python objects"),  # a pickle, which would be executed
    ):
        np.save(file, values)
        with pytest.raises(DataError, match=sentence):
            one_pair(tmp_path / "images", tmp_path / "masks")
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        buffer, {"descr": "|u1", "fortran_order": False, "shape": (1 << 40, 1 << 10)}
    )
    file.write_bytes(buffer.getvalue())  # claims a petabyte
    with pytest.raises(DataError, match="truncated: its end is missing"):
        one_pair(tmp_path / "images", tmp_path / "masks")


def test_matlab_masks(tmp_path):
    scene(tmp_path / "images", "a")
    (tmp_path / "masks").mkdir()
    file = tmp_path / "masks/a.mat"
    savemat(file, {"mask": OBJECT, "by": "someone"}, do_compression=True)
    _, mask = one_pair(tmp_path / "images", tmp_path / "masks")
    assert (mask == OBJECT * np.uint8(255)).all()
    both = {"Segmentation": OBJECT + np.uint8(1), "Boundaries": OBJECT}
    savemat(file, {"groundTruth": both})
    with pytest.raises(DataError, match=r"groundTruth\.Boundaries, groundTruth\.Seg.*; name"):
        one_pair(tmp_path / "images", tmp_path / "masks")
    pair, mask = one_pair(
        tmp_path / "images", tmp_path / "masks", variable="groundTruth.Boundaries"
    )
    assert (mask == OBJECT * np.uint8(255)).all()
    file.write_bytes(b"MATLAB 7.3 MAT-file, Platform: GLNXA64" + bytes(500))
    with pytest.raises(
        DataError, match=r"MATLAB 7\.3 file \(HDF5\), which is not read; save it with"
    ):
        read_pair(pair)
    file.write_bytes(b"no MATLAB")
    with pytest.raises(DataError, match="cannot be read as a MATLAB file"):
        read_pair(pair)


def test_a_matlab_bomb_is_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(arrays, "MOST_BYTES", 1 << 16)
    savemat(tmp_path / "a.mat", {"mask": np.zeros((1000, 1000))}, do_compression=True)
    assert (tmp_path / "a.mat").stat().st_size < 1 << 16
    for read in (read_array, inspect_map):
        with pytest.raises(DataError, match="unpacks to over 65536 bytes"):
            read(tmp_path / "a.mat")


# --- photographs of telephones


def test_heic_without_its_library_is_named_with_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pi_heif", None)
    scene(tmp_path / "images", "a")
    (tmp_path / "images/b.heic").write_bytes(b"\0\0\0\x18ftypheic")
    for name in "ab":
        truth(tmp_path / "masks" / f"{name}.png")
    pairs = find_pairs(tmp_path / "images", tmp_path / "masks")
    assert [pair.name for pair in pairs] == ["a", "b"]
    with pytest.raises(DataError, match=r"b\.heic is HEIC, for which a library is missing: pip"):
        check_pairs(Split("own", "x", tuple(pairs)))


def test_heic_is_read_upright(tmp_path):
    pytest.importorskip("pi_heif")
    # The scene of the cases, 64 x 48 pixels, drawn and saved with an EXIF orientation of 6.
    file = shutil.copy(GOLDEN / "turned.heic", tmp_path / "IMG_1.HEIC")
    image = read_image(Path(file)).astype(int)
    assert image.shape == (64, 48, 3)
    stored = np.rot90(image)  # a quarter turn to the left undoes orientation 6
    assert np.abs(stored[6:22, 8:28] - (200, 60, 40)).max() <= 2
    assert np.abs(stored[26:, 32:] - (50, 100, 170)).max() <= 2


def test_avif_through_pillow(tmp_path):
    from PIL import Image, features

    if not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    image = noise_image((40, 60, 3))
    file = tmp_path / "a.avif"
    Image.fromarray(image).save(file, quality=100, subsampling="4:4:4")
    assert np.abs(read_image(file).astype(int) - image).mean() < 2
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(DataError, match=r"a\.avif cannot be decoded"):
        read_image(file)


# --- entries of one's own


def test_a_list_beside_the_entry_divides_a_pattern(tmp_path):
    scene(tmp_path / "set", "a", "b")
    for name in "ab":
        truth(tmp_path / "set" / f"{name}_mask.png")
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists/mine_train.txt").write_text("a\n")
    mine = Dataset.model_validate(
        {"name": "mine", "title": "M", "task": "cod", "images": "{name}.png",
         "masks": "{name}_mask.png", "splits": {"train": "mine_train.txt"},
         "base": tmp_path / "lists"}
    )  # fmt: skip
    assert [p.name for p in split_pairs(mine, tmp_path / "set", "train") or ()] == ["a"]
