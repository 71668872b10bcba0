"""Extra metrics, off by default: costly ones, and ones whose values depend on the resolution.

A new one is a function and its entry of `_ALL` here, and its case in the tests. What computes
imports numpy and the like when it is called, so that the facts alone are there at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from math import isfinite
from typing import TYPE_CHECKING, Any

from lpmoe_bench.errors import DataError, UsageError
from lpmoe_bench.metrics.facts import METRICS, Metric, MetricTable

if TYPE_CHECKING:
    import numpy as np

    from lpmoe_bench.metrics.surfaces import Surface

Score = float | None
# Of the normalised map, float (h, w), the mask, bool (h, w), and the RGB image if there is one.
Compute = Callable[[Any, Any, Any], Score | dict[str, Score]]


@dataclass(frozen=True)
class Extra(Metric):
    """Facts about an extra metric, each of one image; a data set has the mean over its images.

    hazard: what its values depend on besides the quality of the map. undefined: which images have
    no value; they are left out of the mean and counted. cost: CPU time of an image, in that of
    PySODMetrics' weighted F-measure. needs_image: whether it looks at the RGB image. compute: what
    returns its value, None for none; metrics that share the work share a function, which returns
    the values of all of them by key. of_surfaces: in its place, what takes the called object, the
    map above 0.5, and the mask's as `surfaces.Surface` and returns values by key.
    """

    source: str = ""
    hazard: str = ""
    undefined: str = "none"
    cost: str = ""
    needs_image: bool = False
    compute: Compute | None = None
    of_surfaces: Callable[[Any, Any], dict[str, Score]] | None = None


def extra_scores(
    keys: Sequence[str],
    prediction: np.ndarray | Callable[[], np.ndarray],
    mask: np.ndarray,
    image: np.ndarray | None = None,
    surfaces: Callable[[], tuple[Surface, Surface]] | None = None,
) -> dict[str, Score]:
    """Return extra metrics of one image, None where it has no value (see `Extra.undefined`).

    Args:
        keys: of `EXTRA`.
        prediction: the protocol's normalised map, float (h, w) in [0, 1], or what returns it.
        mask: bool (h, w).
        image: RGB uint8 (h, w, 3), for those that need it.
        surfaces: returns the surfaces of the map above 0.5 and of the mask, which maps may share.

    Raises:
        UsageError: for an unknown key, or where the image is needed and missing.
        DataError: where the image is of another size than the mask.
    """
    # Before any work: an image that is missing should not be found out after minutes.
    for key in keys:
        if get_extra(key).needs_image and image is None:
            raise UsageError(
                f"{key} looks at the image; name the folder of images, or leave it out"
            )
    if image is not None and image.shape != (*mask.shape, 3):
        raise DataError(f"image is {image.shape} and mask is {mask.shape}; sizes must be equal")
    # What several keys share is computed once; the map's floats, eight times its bytes, only for
    # those that look at them.
    done: dict[Callable[..., Any], Score | dict[str, Score]] = {}
    found: dict[str, Score] = {}
    floats = cache(prediction if callable(prediction) else lambda: prediction)
    both = cache(surfaces or (lambda: _surfaces(floats(), mask)))
    for key in keys:
        compute, of_surfaces = EXTRA[key].compute, EXTRA[key].of_surfaces
        function = of_surfaces or compute
        assert function is not None
        if function not in done:
            given = both() if of_surfaces else (floats(), mask, image)
            done[function] = function(*given)
        value = done[function]
        found[key] = value[key] if isinstance(value, dict) else value
    return found


def _surfaces(prediction: np.ndarray, mask: np.ndarray) -> tuple[Surface, Surface]:
    from lpmoe_bench.metrics.surfaces import Surface

    return Surface(prediction > 0.5), Surface(mask)


# Boundary IoU and Hausdorff distance: how well the outline of a map follows the mask's.

BAND = 0.02  # of the diagonal; Cheng et al., CVPR 2021


def boundary_iou(called: np.ndarray, mask: np.ndarray) -> float | None:
    """IoU of the inner boundary bands of two masks, bool (h, w); None where both are empty."""
    import numpy as np

    width = max(1, round(BAND * float(np.hypot(*mask.shape))))
    bands = [_band(part, width) for part in (called, mask)]
    union = np.count_nonzero(bands[0] | bands[1])
    return float(np.count_nonzero(bands[0] & bands[1]) / union) if union else None


def _band(part: np.ndarray, width: int) -> np.ndarray:
    """Return the pixels of a mask from which its outside, or the image's, is `width` away."""
    import cv2
    import numpy as np

    # A frame of background: OpenCV takes what lies outside of the image for object.
    framed = np.pad(part.astype(np.uint8), 1)
    # A square of 3 x 3, `width` times: distance counts the larger of the two axes.
    inner = cv2.erode(framed, np.ones((3, 3), np.uint8), iterations=width)
    return part & (inner[1:-1, 1:-1] == 0)


def hausdorff95(called: np.ndarray, mask: np.ndarray) -> float | None:
    """95th percentile of the distances between the outlines of two masks, bool (h, w), in pixels.

    From each outline to the other, both ways pooled, as in MedPy. None for an empty mask; the
    image's diagonal where only the map is empty.
    """
    from lpmoe_bench.metrics.surfaces import Surface, surface_scores

    return surface_scores(Surface(called), Surface(mask))["hd95"]


def _of_surfaces(called: Any, mask: Any) -> dict[str, Score]:
    from lpmoe_bench.metrics.surfaces import surface_scores

    return surface_scores(called, mask)


def _of_contours(called: Any, mask: Any) -> dict[str, Score]:
    from lpmoe_bench.metrics.surfaces import contour_scores

    return contour_scores(called, mask)


def _of_skeletons(called: Any, mask: Any) -> dict[str, Score]:
    from lpmoe_bench.metrics.surfaces import centreline_dice

    return centreline_dice(called, mask)


def _of_all_thresholds(p: np.ndarray, g: np.ndarray, _: Any) -> dict[str, Score]:
    from lpmoe_bench.metrics.surfaces import areas_below

    return areas_below(p, g)


# Extra metrics that PySODMetrics computes, kept from its overflows, NaN and crashes.

OBJECTS = 53  # it codes them as bits of a float
PATCH = 7  # side of the camouflage measure's patches, pixels


@cache
def _sod() -> Any:
    """PySODMetrics, which takes seconds to import."""
    import py_sod_metrics

    return py_sod_metrics


def _multiscale_iou(p: np.ndarray, g: np.ndarray, mode: str) -> float | None:
    import numpy as np

    if not g.any():
        return None
    measure = _sod().MSIoU(False, False)
    # Its own edges are of 16 bits, whose sum rounds above 2048 pixels and overflows at 65504.
    edges = measure.get_edge(g).astype(np.float64)
    cells = [measure.shrink_by_grid(edges, size) for size in measure.cell_sizes]

    def area(called: np.ndarray) -> float:
        own = measure.get_edge(called).astype(np.float64)
        shares = measure.multi_scale_iou(own, edges, cells)
        return float(np.trapezoid(shares, dx=1 / (len(shares) - 1)))

    if mode == "binary":
        return area(p > 0.5)
    if mode == "adaptive":
        return area(p >= min(2 * float(p.mean()), 1))
    levels = (p * 255).astype(np.uint8)
    # A threshold between two levels in use cuts like the upper one; 256 is above all.
    upper = np.searchsorted(used := np.unique(levels), np.arange(257))
    areas = [area(levels >= level) for level in used] + [area(np.zeros_like(g))]
    return float(np.mean(np.array(areas)[upper]))


def _camouflage(p: np.ndarray, g: np.ndarray, image: Any) -> Score:
    if min(g.shape) < PATCH:
        return None
    return _step(_sod().CamouflageContextMeasure(), p, g, img=image)


def _step(measure: Any, p: np.ndarray, g: np.ndarray, **options: Any) -> float | None:
    from numpy.linalg import LinAlgError

    if not g.any():
        return None
    try:
        measure.step(p, g, normalize=False, **options)
    except LinAlgError:  # the object's pixels lie on one line: no Gaussian of its shape
        return None
    return _finite(measure.scores[0])


def _size_invariant_error(p: np.ndarray, g: np.ndarray, _: Any) -> Score:
    import numpy as np

    if not _has_objects(g):
        return None
    measure = _sod().SizeInvarianceMAE()
    with np.errstate(divide="ignore", invalid="ignore"):  # boxes that cover the image: 0 / 0
        measure.step(p, g, normalize=False)
    return _finite(measure.maes[0])


def _size_invariant_f(p: np.ndarray, g: np.ndarray, _: Any) -> dict[str, Score]:
    import numpy as np

    if not _has_objects(g):
        return {"si_f_mean": None, "si_f_adaptive": None}
    handler = _sod().FmeasureHandler(True, True, beta=0.3)
    _sod().SizeInvarianceFmeasureV2({"f": handler}).step(p, g, normalize=False)
    assert handler.dynamic_results
    assert handler.adaptive_results
    return {
        "si_f_mean": float(np.mean(handler.dynamic_results[0])),
        "si_f_adaptive": float(handler.adaptive_results[0]),
    }


def _has_objects(g: np.ndarray) -> bool:
    """Whether the size-invariant metrics of PySODMetrics are right for this mask."""
    return (
        bool(g.any())
        and not g.all()
        and _sod().size_invariance.parse_connected_components(g)[0] <= OBJECTS
    )


def _finite(value: Any) -> float | None:
    return float(value) if isfinite(value) else None


# Each metric in words.


def _size_invariant(
    key: str, label: str, higher: bool, text: str, compute: Compute, undefined: str = ""
) -> Extra:
    return Extra(
        key,
        label,
        label,
        higher,
        f"{text}; objects are 4-connected parts of at least 50 pixels, or the largest ones",
        source="Li et al., ICML 2024, as PySODMetrics 1.6.2 computes it",
        hazard="a box counts the pixels of another object inside it; the limit of 50 pixels makes "
        "it depend on the resolution",
        undefined=f"an empty or a full mask, more than 53 objects{undefined}",
        cost="1.5 to 4",
        compute=compute,
        own_limits=(0.0, 2.0),  # a sum of two parts, divided by no more than their weights
    )


def _multiscale(name: str, label: str, at: str, cost: str) -> Extra:
    return Extra(
        f"msiou_{name}",
        f"MSIoU {label}",
        f"MSIoU$^{{\\mathrm{{{label}}}}}$",
        True,
        f"share of the mask's edge cells that the map's edges meet, {at}: area under the "
        "shares at cells of 1 to 512 pixels",
        source="Ahmadzadeh et al., ICIP 2021, as PySODMetrics 1.6.2 computes it, but counted in 64 "
        "bits where it overflows in 16",
        hazard="edges too many are not punished; cells are pixels, so that it depends on the "
        "resolution",
        undefined="an empty mask",
        cost=cost,
        compute=lambda p, g, _: _multiscale_iou(p, g, name),
    )


def _distance(key: str, label: str, text: str, source: str, of: Any) -> Extra:
    return Extra(
        *(key, label, label, False, f"{text}, in pixels of the mask"),
        unit="px",
        decimals=2,
        source=source,
        hazard="in pixels, so that it depends on the resolution; a map without any object counts "
        "as the image's diagonal",
        undefined="an empty mask",
        cost="0.05 to 0.2",
        of_surfaces=of,
    )


def _overlap_of_lines(key: str, label: str, text: str, source: str, hazard: str, of: Any) -> Extra:
    return Extra(
        *(key, label, label, True, text),
        source=source,
        hazard=hazard,
        undefined="an empty mask; a map without any object counts 0",
        cost="0.05 to 0.2" if key != "cldice" else "0.5 to 1",
        of_surfaces=of,
    )


_ALL = (
    Extra(
        "boundary_iou",
        "Boundary IoU@.5",
        "Boundary IoU@.5",
        True,
        "IoU of the inner boundary bands of mask and map above 0.5; a band is 2% of the diagonal "
        "wide, at least 1 pixel",
        source="Cheng et al., CVPR 2021; some copies of its code take 0.5% instead",
        hazard="the band grows with the image, so that it depends on the resolution; an object "
        "thinner than two bands counts as a whole",
        undefined="mask and map both empty",
        cost="0.02 to 0.04",
        compute=lambda p, g, _: boundary_iou(p > 0.5, g),
    ),
    Extra(
        "hd95",
        "HD95@.5 (px)",
        "HD95@.5 (px)",
        False,
        "95th percentile of the distances between the outlines of mask and map above 0.5, both "
        "ways together, in pixels of the mask",
        unit="px",
        decimals=2,
        source="as MedPy computes it; MONAI takes the larger of the two ways, hd95_monai",
        hazard="in pixels, so that it depends on the resolution; a map without any object counts "
        "as the image's diagonal, so that leaving objects out never helps",
        undefined="an empty mask",
        cost="0.05 to 0.1",
        of_surfaces=_of_surfaces,
    ),
    _distance(
        "hd95_monai",
        "HD95 max@.5 (px)",
        "95th percentile of the distances from each outline to the other, the larger of the two "
        "ways, map above 0.5",
        "as MONAI computes it",
        _of_surfaces,
    ),
    _distance(
        "hd95_deepmind",
        "HD95 contour@.5 (px)",
        "95th percentile, by length of contour, of the distances from each contour to the other, "
        "the larger of the two ways, map above 0.5",
        "as DeepMind's surface-distance computes it, on the corners between pixels",
        _of_contours,
    ),
    _distance(
        "hd100",
        "HD@.5 (px)",
        "largest distance from one outline to the other, map above 0.5",
        "as MedPy and MONAI compute it",
        _of_surfaces,
    ),
    _distance(
        "assd",
        "ASSD@.5 (px)",
        "average symmetric surface distance: mean of the distances from each outline to the "
        "other, both ways together, map above 0.5",
        "as MedPy 0.5 and MONAI compute it; MedPy 0.4 takes the mean of the two ways' means",
        _of_surfaces,
    ),
    _overlap_of_lines(
        "nsd",
        "NSD@.5",
        "normalised surface distance: share of both outlines' pixels that lie within 2 pixels of "
        "the other outline, map above 0.5",
        "Nikolov et al., 2018, as MONAI computes it",
        "2 pixels are more of a small image than of a large one",
        _of_surfaces,
    ),
    _overlap_of_lines(
        "nsd_deepmind",
        "NSD contour@.5",
        "surface Dice: share of both contours' length that lies within 2 pixels of the other "
        "contour, map above 0.5",
        "Nikolov et al., 2018, as DeepMind's surface-distance computes it",
        "2 pixels are more of a small image than of a large one",
        _of_contours,
    ),
    _overlap_of_lines(
        "boundary_f",
        "Boundary F@.5",
        "F-measure, beta^2 1, of outline pixels that lie within 0.75% of the diagonal of the other "
        "outline, map above 0.5",
        "Csurka et al., BMVC 2013, with the limit of MATLAB's bfscore",
        "the limit grows with the image; DAVIS takes 0.8% and matches thinned boundaries instead",
        _of_surfaces,
    ),
    _overlap_of_lines(
        "cldice",
        "clDice@.5",
        "centreline Dice: harmonic mean of the shares of each object's skeleton that lie in the "
        "other object, map above 0.5",
        "Shit et al., CVPR 2021, with the skeleton of scikit-image",
        "a skeleton turns on single pixels of the outline; for tubes, not for compact objects",
        _of_skeletons,
    ),
    Extra(
        "auc",
        "AUC",
        "AUC",
        True,
        "area below the ROC curve of an image, over all values of its map",
        source="as scikit-learn's roc_auc_score, image by image; papers on vessels often pool the "
        "pixels of all images instead",
        hazard="a large easy background raises it, whatever becomes of the object",
        undefined="an empty or a full mask",
        cost="0.5 to 1",
        compute=_of_all_thresholds,
    ),
    Extra(
        "ap",
        "AP",
        "AP",
        True,
        "average precision of an image, over all values of its map: precision times the gain of "
        "recall, summed",
        source="as scikit-learn's average_precision_score, image by image",
        hazard="other codes interpolate precision, or stop at 256 thresholds",
        undefined="an empty mask",
        cost="0.5 to 1",
        compute=_of_all_thresholds,
    ),
    _multiscale("binary", "bin", "map above 0.5", "0.9 to 1.1"),
    _multiscale("adaptive", "adp", "map at least twice its mean", "0.9 to 1.1"),
    _multiscale("mean257", "mean", "mean over 257 thresholds", "over 100"),
    Extra(
        "hce",
        "HCE",
        r"HCE$_5$",
        False,
        "human correction effort: control points and regions that somebody has to set to correct "
        "the map above 0.5, errors of up to 5 pixels forgiven (gamma 5, epsilon 2)",
        unit="points",
        decimals=1,
        source="Qin et al., ECCV 2022, as PySODMetrics 1.6.2 computes it",
        hazard="unbounded and made for large images: it depends on the resolution, and by about "
        "1% on the versions of OpenCV and scikit-image",
        cost="0.9 to 1.3",
        compute=lambda p, g, _: float(_sod().HumanCorrectionEffortMeasure().cal_hce(p, g)),
    ),
    Extra(
        "context_measure",
        "C",
        r"$C_\beta$",
        True,
        "context-measure, beta^2 1, alpha 6: relevance of the map to the mask and completeness "
        "of the mask, each seen through a Gaussian of the object's shape",
        source="Wang et al., arXiv 2512.07076, as PySODMetrics 1.6.2 computes it",
        hazard="a perfect map does not reach 1, and how far it stays below depends on the object",
        undefined="an empty mask, or an object along one exact diagonal",
        cost="0.5 to 0.8",
        compute=lambda p, g, _: _step(_sod().ContextMeasure(), p, g),
    ),
    Extra(
        "camouflage_context_measure",
        "C camo",
        r"$C_\beta^\omega$",
        True,
        "context-measure, beta^2 1.2, in which object pixels count more the better the image's "
        "surroundings can be pieced together to them (gamma 8, lambda 20)",
        source="Wang et al., arXiv 2512.07076, as PySODMetrics 1.6.2 computes it",
        hazard="needs the image; a perfect map does not reach 1; it depends on the resolution",
        undefined="an empty mask, an object along one exact diagonal, a side below 7 pixels",
        cost="6 to 9",
        compute=_camouflage,
        needs_image=True,
    ),
    _size_invariant(
        "si_mae",
        "SI-MAE",
        False,
        "mean absolute error of each object's box and of the rest, the rest weighted by its share",
        _size_invariant_error,
        ", or boxes that cover the image",
    ),
    _size_invariant(
        "si_f_mean",
        "SI-F mean",
        True,
        "F-measure, beta^2 0.3, within each object's box, mean over objects and 256 levels",
        _size_invariant_f,
    ),
    _size_invariant(
        "si_f_adaptive",
        "SI-F adp",
        True,
        "F-measure, beta^2 0.3, within each object's box at twice the mean of the map there, "
        "mean over objects",
        _size_invariant_f,
    ),
)
EXTRA = {extra.key: extra for extra in _ALL}
_AMBIGUOUS = {
    "msiou": "msiou_binary msiou_adaptive msiou_mean257",
    "sif": "si_f_mean si_f_adaptive",
    "cm": "context_measure camouflage_context_measure",
    "biou": "boundary_iou",
    "hd": "hd95 hd95_monai hd95_deepmind hd100",
    "hausdorff": "hd95 hd95_monai hd95_deepmind hd100",
    "asd": "assd",
    "surfacedice": "nsd nsd_deepmind",
    "bf": "boundary_f",
    "bfscore": "boundary_f",
}


def get_extra(key: str) -> Extra:
    """Return the facts of an extra metric; raises UsageError for an unknown or ambiguous key."""
    if key in EXTRA:
        return EXTRA[key]
    if names := _AMBIGUOUS.get("".join(filter(str.isalnum, key.lower()))):
        names = " or ".join(names.split())
        raise UsageError(f"extra metric '{key}' is not a key; say {names}")
    raise UsageError.unknown("extra metric", key, EXTRA)


def extra_key(key: str) -> str:
    """Return the key of a metric that is asked for besides a protocol's; raises UsageError."""
    return key if key in METRICS else get_extra(key).key


def needs_image(keys: Sequence[str]) -> bool:
    """Whether one of these metrics looks at the RGB image."""
    return any(EXTRA[key].needs_image for key in keys if key in EXTRA)


def known_metrics() -> MetricTable:
    """Return the facts of all metrics by key: those of protocols, then the extra ones."""
    return MetricTable({**METRICS, **EXTRA})
