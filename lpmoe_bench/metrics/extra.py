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
from lpmoe_bench.metrics.facts import METRICS, Metric

if TYPE_CHECKING:
    import numpy as np

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
    the values of all of them by key.
    """

    source: str = ""
    hazard: str = ""
    undefined: str = "none"
    cost: str = ""
    needs_image: bool = False
    compute: Compute | None = None


def extra_scores(
    keys: Sequence[str], prediction: np.ndarray, mask: np.ndarray, image: np.ndarray | None = None
) -> dict[str, Score]:
    """Return extra metrics of one image, None where it has no value (see `Extra.undefined`).

    Args:
        keys: of `EXTRA`.
        prediction: the protocol's normalised map, float (h, w) in [0, 1].
        mask: bool (h, w).
        image: RGB uint8 (h, w, 3), for those that need it.

    Raises:
        UsageError: for an unknown key, or where the image is needed and missing.
        DataError: where the image is of another size than the mask.
    """
    for key in keys:
        if get_extra(key).needs_image and image is None:
            raise UsageError(
                f"{key} looks at the image; name the folder of images, or leave it out"
            )
    if image is not None and image.shape != (*mask.shape, 3):
        raise DataError(f"image is {image.shape} and mask is {mask.shape}; sizes must be equal")
    done: dict[Compute, Score | dict[str, Score]] = {}  # what several keys share is computed once
    found: dict[str, Score] = {}
    for key in keys:
        compute = EXTRA[key].compute
        assert compute is not None
        if compute not in done:
            done[compute] = compute(prediction, mask, image)
        value = done[compute]
        found[key] = value[key] if isinstance(value, dict) else value
    return found


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
    inner = cv2.erode(framed, np.ones((3, 3), np.uint8), iterations=width)
    return part & (inner[1:-1, 1:-1] == 0)


def hausdorff95(called: np.ndarray, mask: np.ndarray) -> float | None:
    """95th percentile of the distances between the outlines of two masks, bool (h, w), in pixels.

    From each outline to the other, both ways pooled, as in MedPy. None for an empty mask; the
    image's diagonal where only the map is empty.
    """
    import numpy as np
    from scipy.ndimage import binary_erosion, distance_transform_edt

    if not mask.any():
        return None
    if not called.any():
        return float(np.hypot(*mask.shape))
    lines = [part & ~np.asarray(binary_erosion(part), bool) for part in (called, mask)]
    away = [np.asarray(distance_transform_edt(~line)) for line in lines]
    return float(np.percentile(np.concatenate([away[1][lines[0]], away[0][lines[1]]]), 95))


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
        source="as MedPy computes it; MONAI takes the larger of the two ways instead",
        hazard="in pixels, so that it depends on the resolution; a map without any object counts "
        "as the image's diagonal, so that leaving objects out never helps",
        undefined="an empty mask",
        cost="0.6 to 0.9",
        compute=lambda p, g, _: hausdorff95(p > 0.5, g),
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
    "hd": "hd95",
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


def known_metrics() -> dict[str, Metric]:
    """Return the facts of all metrics by key: those of protocols, then the extra ones."""
    return {**METRICS, **EXTRA}
