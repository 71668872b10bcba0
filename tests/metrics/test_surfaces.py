"""Measures that papers print beside the protocols', each against an outside implementation."""

import tracemalloc

import numpy as np
import pytest
from scipy import ndimage
from skimage.morphology import skeletonize
from sklearn import metrics as sklearn_metrics

from lpmoe_bench.metrics.engine import prepare_mask, score_pair
from lpmoe_bench.metrics.extra import EXTRA, extra_scores
from lpmoe_bench.metrics.facts import METRICS
from lpmoe_bench.metrics.formulas import Counts
from lpmoe_bench.metrics.protocols import get_protocol
from lpmoe_bench.metrics.scorer import Scorer
from lpmoe_bench.metrics.surfaces import Surface, areas_below

COD = get_protocol("cod")
SURFACES = [key for key, extra in EXTRA.items() if extra.of_surfaces]


def objects(count, seed):
    """Pairs of two masks: blobs, noise, lines, single pixels, objects at the frame."""
    rng = np.random.default_rng(seed)
    for index in range(count):
        shape = tuple(int(side) for side in rng.integers(1, 48, 2))
        pair = []
        for _ in range(2):
            mask = ndimage.gaussian_filter(rng.random(shape), rng.choice([0, 1, 3])) > 0.5
            if index % 4 == 1:
                mask = np.zeros(shape, bool)
                mask[rng.integers(shape[0]), rng.integers(shape[1])] = True
            if index % 7 == 2:
                mask[:, : shape[1] // 2 + 1] = True
            mask[rng.integers(shape[0]), rng.integers(shape[1])] = True
            pair.append(mask)
        yield pair


def directed(called, mask):
    """Distances between the two outlines each way, by scipy."""
    lines = [part & ~ndimage.binary_erosion(part) for part in (called, mask)]
    away = [ndimage.distance_transform_edt(~line) for line in lines]
    return away[1][lines[0]], away[0][lines[1]]


def test_distances_are_those_of_scipy():
    for called, mask in objects(60, seed=0):
        there, back = directed(called, mask)
        ours = Surface(mask).distances_from(Surface(called))
        assert np.array_equal(ours, there)
        assert np.array_equal(Surface(called).distances_from(Surface(mask)), back)


def test_measures_by_their_formulas():
    for called, mask in objects(60, seed=1):
        there, back = directed(called, mask)
        both = np.concatenate([there, back])
        near = 0.0075 * np.hypot(*mask.shape)
        precision, recall = np.mean(there <= near), np.mean(back <= near)
        lines = skeletonize(called), skeletonize(mask)
        topology = (
            (lines[0] & mask).sum() / lines[0].sum(),
            (lines[1] & called).sum() / lines[1].sum(),
        )
        expected = {
            "hd95": np.percentile(both, 95),
            "hd95_monai": max(np.percentile(there, 95), np.percentile(back, 95)),
            "hd100": both.max(),
            "assd": both.mean(),
            "nsd": np.mean(both <= 2),
            "boundary_f": 2 * precision * recall / max(precision + recall, 1e-300),
            "cldice": 2 * topology[0] * topology[1] / max(sum(topology), 1e-300),
        }
        found = extra_scores(SURFACES, called.astype(float), mask)
        assert {key: found[key] for key in expected} == pytest.approx(expected, abs=1e-12)


def contour(mask):
    """Corners and lengths of a contour as surface-distance has them: a table by neighbour code."""
    kernel = np.array([[8, 4], [2, 1]])
    codes = ndimage.correlate(
        np.pad(mask, ((0, 1), (0, 1))).astype(np.uint8), kernel, mode="constant"
    )
    lengths = np.zeros(16)
    lengths[[1, 2, 4, 7, 8, 11, 13, 14]] = 0.5 * np.sqrt(2)
    lengths[[3, 5, 10, 12]] = 1
    lengths[[6, 9]] = np.sqrt(2)
    return (codes != 0) & (codes != 15), lengths[codes]


def test_contours_are_counted_as_deepmind_counts_them():
    for called, mask in objects(60, seed=2):
        (line, lengths), (true_line, true_lengths) = contour(called), contour(mask)
        far, met = [], 0.0
        for one, weights, other in ((line, lengths, true_line), (true_line, true_lengths, line)):
            distances = ndimage.distance_transform_edt(~other)[one]
            order = np.argsort(distances)
            share = np.cumsum(weights[one][order]) / weights[one].sum()
            far.append(distances[order][min(np.searchsorted(share, 0.95), len(share) - 1)])
            met += weights[one][distances <= 2].sum()
        found = extra_scores(["hd95_deepmind", "nsd_deepmind"], called.astype(float), mask)
        whole = lengths[line].sum() + true_lengths[true_line].sum()
        assert found["nsd_deepmind"] == pytest.approx(met / whole, abs=1e-12)
        # Where a share is 0.95 but for rounding, the order of the sum decides: none of these is.
        assert found["hd95_deepmind"] == pytest.approx(max(far), abs=1e-12)


def test_as_medpy_says():
    binary = pytest.importorskip("medpy.metric.binary")
    for called, mask in objects(25, seed=3):
        found = extra_scores(["hd95", "hd100", "assd"], called.astype(float), mask)
        expected = {
            "hd95": binary.hd95(called, mask),
            "hd100": binary.hd(called, mask),
            "assd": binary.assd(called, mask),
        }
        assert found == pytest.approx(expected, abs=1e-12)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_as_monai_says():
    monai = pytest.importorskip("monai.metrics")
    torch = pytest.importorskip("torch")
    for called, mask in objects(25, seed=4):
        given = [torch.from_numpy(one[None, None]).float() for one in (called, mask)]
        found = extra_scores(["hd95_monai", "hd100", "nsd", "assd"], called.astype(float), mask)
        expected = {
            "hd95_monai": float(monai.compute_hausdorff_distance(*given, True, percentile=95)),
            "hd100": float(monai.compute_hausdorff_distance(*given, True)),
            "nsd": float(
                monai.compute_surface_dice(*given, class_thresholds=[2.0], include_background=True)
            ),
            "assd": float(
                monai.compute_average_surface_distance(
                    *given, symmetric=True, include_background=True
                )
            ),
        }
        assert found == pytest.approx(expected, abs=1e-5)  # in 32 bits there


def test_distances_by_hand():
    line = np.zeros((20, 9), bool)
    line[2, 1:6] = True
    other = line.copy()
    other[12, 3] = True  # 10 below the line
    found = extra_scores(SURFACES, other.astype(float), line)
    assert found["hd100"] == 10
    assert found["assd"] == pytest.approx(10 / 11)
    assert found["hd95_monai"] == pytest.approx(7.5)  # of 0, 0, 0, 0, 0, 10 at 4.75
    assert found["hd95"] == pytest.approx(5)
    assert found["nsd"] == pytest.approx(10 / 11)
    assert found["boundary_f"] == pytest.approx(2 * (5 / 6) / (5 / 6 + 1))
    # The contour of 5 pixels in a row: 4 cut corners and 8 sides' ends; of one pixel 4 corners.
    half = np.sqrt(0.5)
    ours, stray = 4 * half + 8, 4 * half
    assert found["nsd_deepmind"] == pytest.approx(2 * ours / (2 * ours + stray))


def test_what_is_empty_or_perfect():
    empty, some = np.zeros((3, 4), bool), np.zeros((3, 4), bool)
    some[:2, :2] = True
    assert set(extra_scores(SURFACES, some / 1.0, empty).values()) == {None}
    found = extra_scores(SURFACES, empty / 1.0, some)
    distances = {"hd95", "hd95_monai", "hd95_deepmind", "hd100", "assd"}
    assert found == {key: 5 if key in distances else 0 for key in SURFACES}
    for mask in (some, np.ones((3, 4), bool), np.ones((1, 1), bool)):
        perfect = extra_scores(SURFACES, mask / 1.0, mask)
        assert perfect == {key: 0 if key in distances else 1 for key in SURFACES}


def test_areas_are_those_of_scikit_learn():
    rng = np.random.default_rng(5)
    for levels in (2, 7, 256, 10**6):
        mask = rng.random((30, 20)) < 0.2
        pred = rng.integers(0, levels, mask.shape) / (levels - 1) * 0.7 + 0.3 * mask
        found = areas_below(pred, mask)
        truth, values = mask.ravel(), pred.ravel()
        assert found["auc"] == pytest.approx(
            sklearn_metrics.roc_auc_score(truth, values), abs=1e-12
        )
        mean = sklearn_metrics.average_precision_score(truth, values)
        assert found["ap"] == pytest.approx(mean, abs=1e-12)
    assert areas_below(pred, mask & False) == {"auc": None, "ap": None}
    assert areas_below(pred, mask | True) == {"auc": None, "ap": 1}
    assert areas_below(mask * 0.0, mask)["auc"] == 0.5


def pairs(count, seed):
    rng = np.random.default_rng(seed)
    for _ in range(count):
        mask = rng.random((12, 15)) < rng.choice([0.1, 0.5, 0.9])
        soft = np.clip(0.5 * mask + 0.7 * rng.random(mask.shape), 0, 1)
        yield (soft * 255).astype(np.uint8), mask.astype(np.uint8) * 255


@pytest.mark.parametrize("floats", [False, True])
def test_measures_of_counts_are_those_of_scikit_learn(floats):
    keys = ("precision", "specificity", "mcc", "kappa", "iou_classes", "dice_classes")
    for pred, mask in pairs(12, seed=6):
        scorer = Scorer(get_protocol("glass"), extra=keys)
        scorer.add("a", pred / 255 if floats else pred, mask)
        found = scorer.result().scores
        truth, called = mask.ravel() > 128, pred.ravel() > 127.5
        expected = {
            "precision": sklearn_metrics.precision_score(truth, called, zero_division=0),
            "specificity": sklearn_metrics.recall_score(~truth, ~called, zero_division=0),
            "mcc": sklearn_metrics.matthews_corrcoef(truth, called),
            "kappa": sklearn_metrics.cohen_kappa_score(truth, called),
            "iou_classes": sklearn_metrics.jaccard_score(truth, called, average="macro"),
            "dice_classes": sklearn_metrics.f1_score(truth, called, average="macro"),
        }
        assert {key: found[key] for key in keys} == pytest.approx(expected, abs=1e-12)


def test_counts_of_huge_images_do_not_overflow():
    counts = Counts(*(np.int64(2**31) for _ in range(4)))
    assert counts.mcc == counts.kappa == 0
    large = Counts(3 * 2**30, 2**30, 2**30, 3 * 2**30)
    assert (large.mcc, large.kappa) == (0.5, 0.5)
    nothing = Counts(0, 0, 0, 9)
    assert nothing.mcc == nothing.kappa == 0


def test_best_thresholds_of_the_set_and_of_images():
    """Binarised at every threshold and counted in plain loops."""
    images = list(pairs(5, seed=7))
    scorer = Scorer(get_protocol("glass"), extra=["ods", "ois", "ois_counts"])
    of_set, best, best_counts = {}, [], []
    for index, (pred, mask) in enumerate(images):
        scorer.add(str(index), pred, mask)
        truth, own = mask > 128, {}
        for level in range(256):
            called = pred >= level
            tp = int((called & truth).sum())
            own[level] = np.array([tp, int(called.sum()) - tp, int(truth.sum()) - tp])
            of_set[level] = of_set.get(level, 0) + own[level]

        def f1(counts):
            return 2 * counts[0] / max(2 * counts[0] + counts[1] + counts[2], 1)

        top = max(f1(counts) for counts in own.values())
        best.append(top)
        # Of equally good thresholds the highest.
        level = max(level for level, counts in own.items() if f1(counts) == top)
        best_counts.append(own[level])
    found = scorer.result().scores
    assert found["ods"] == pytest.approx(max(map(f1, of_set.values())), abs=1e-12)
    assert found["ois"] == pytest.approx(np.mean(best), abs=1e-12)
    assert found["ois_counts"] == pytest.approx(f1(np.sum(best_counts, axis=0)), abs=1e-12)
    assert found["ods"] <= found["ois_counts"]


def test_of_all_images_together():
    scorer = Scorer(get_protocol("pooled"), extra=["iou_classes_dataset", "dice_classes_dataset"])
    truth, called = [], []
    for index, (pred, mask) in enumerate(pairs(4, seed=8)):
        scorer.add(str(index), pred, mask)
        truth.append(mask.ravel() > 128)
        called.append(pred.ravel() > 127.5)
    truth, called = np.concatenate(truth), np.concatenate(called)
    found = scorer.result().scores
    expected = sklearn_metrics.jaccard_score(truth, called, average="macro")
    assert found["iou_classes_dataset"] == pytest.approx(expected, abs=1e-12)
    expected = sklearn_metrics.f1_score(truth, called, average="macro")
    assert found["dice_classes_dataset"] == pytest.approx(expected, abs=1e-12)


def test_one_transform_and_one_skeleton_serve_all_maps(monkeypatch):
    from lpmoe_bench.metrics import surfaces

    calls = []
    down = surfaces._down_columns
    monkeypatch.setattr(
        surfaces, "_down_columns", lambda *given: calls.append(len(given[0])) or down(*given)
    )
    (pred, mask), (other, _) = pairs(2, seed=9)
    shared = prepare_mask(mask)
    keys = ["hd95", "hd95_monai", "hd100", "assd", "nsd", "boundary_f", "cldice"]
    first = score_pair(pred, shared, COD, extra=keys).extra
    score_pair(other, shared, COD, extra=keys)
    assert len(calls) == 3  # the mask's once, and each map's
    assert shared.surface.skeleton is shared.surface.skeleton
    assert first == score_pair(pred, mask, COD, extra=keys).extra


def test_a_large_mask_needs_little_memory():
    """16 million pixels: a distance for every pixel in floats would be 128 MB for each mask."""
    size = 4096
    rows, columns = np.ogrid[:size, :size]
    mask = ((rows - 2000) ** 2 + (columns - 2100) ** 2 < 1500**2).view(np.uint8) * np.uint8(255)
    pred = np.roll(mask, 7, axis=1)
    extra_scores(["hd95"], np.eye(4), np.eye(4, dtype=bool))  # compiles
    tracemalloc.start()
    found = score_pair(pred, mask, get_protocol("glass"), extra=["hd95"]).extra
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found["hd95"] == pytest.approx(7, abs=0.2)
    assert peak < 300e6


def test_every_measure_says_which_way_is_better():
    lower = {"hd95", "hd95_monai", "hd95_deepmind", "hd100", "assd"}
    assert {key for key in SURFACES if not EXTRA[key].higher_is_better} == lower
    new = ("precision", "mcc", "kappa", "ods", "ois", "ois_counts", "iou_classes", "dice_classes")
    assert all(METRICS[key].higher_is_better for key in new)
    assert all(EXTRA[key].higher_is_better for key in ("auc", "ap"))
