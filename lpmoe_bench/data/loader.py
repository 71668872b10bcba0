"""Pairs to tensors: squashed, flipped and batched by seed and key, never by global state."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lpmoe_bench.data.images import read_image, read_pixels
from lpmoe_bench.data.pairs import Pair, check_sizes, pair_truth
from lpmoe_bench.data.pixels import THRESHOLD, UNDECLARED, PixelRules, Truth
from lpmoe_bench.environment import usable_cores
from lpmoe_bench.errors import DataError, UsageError

# Training images varied at random: resized and cropped, and distorted in brightness and colour.

Draws = Iterator[float]  # each in [0, 1)
BRIGHTNESS = 32 / 255
CONTRAST = SATURATION = (0.5, 1.5)
HUE_DEGREES = 36.0


def rescale(
    image: Tensor, mask: Tensor, scale: tuple[float, float], draws: Draws
) -> tuple[Tensor, Tensor]:
    """Resize by a factor between two and cut a square of the old size out of it.

    image: (3, s, s) in [0, 1]; mask: (1, s, s). What a smaller image leaves free is of its mean
    colour and no object. Takes three draws.
    """
    size = image.shape[-1]
    side = max(1, round(size * _between(scale, next(draws))))
    large = F.interpolate(image[None], (side, side), mode="bilinear", antialias=True)[0]
    truth = F.interpolate(mask[None], (side, side), mode="nearest-exact")[0]
    top, left = (int(next(draws) * (abs(side - size) + 1)) for _ in range(2))
    if side >= size:
        cut = (..., slice(top, top + size), slice(left, left + size))
        return large[cut].clamp(0, 1), truth[cut]
    place = (..., slice(top, top + side), slice(left, left + side))
    canvas = image.mean((1, 2), keepdim=True).repeat(1, size, size)
    blank = torch.zeros_like(mask)
    canvas[place], blank[place] = large.clamp(0, 1), truth
    return canvas, blank


def distort(image: Tensor, draws: Draws) -> Tensor:
    """Change brightness, contrast, saturation and hue, each in half of the cases.

    image: (3, h, w) in [0, 1]. The ranges are those of mmsegmentation's photometric distortion, as
    is that contrast changes before or after the colours. Takes nine draws.
    """
    # All nine are drawn whatever is used of them: the next item's numbers depend on the key alone.
    change = [(next(draws) < 0.5, next(draws)) for _ in range(4)]
    contrast_first = next(draws) < 0.5
    (bright, amount), contrast, saturation, hue = change
    pixels = image + bright * BRIGHTNESS * (2 * amount - 1)
    factor = _between(CONTRAST, contrast[1]) if contrast[0] else 1
    if contrast_first:
        pixels = pixels * factor
    if saturation[0] or hue[0]:
        pixels = _colours(pixels.clamp(0, 1), saturation, hue)
    if not contrast_first:
        pixels = pixels * factor
    return pixels.clamp(0, 1)


def _colours(pixels: Tensor, saturation: tuple[bool, float], hue: tuple[bool, float]) -> Tensor:
    """Scale the saturation and turn the hue of pixels in [0, 1]."""
    rgb = np.ascontiguousarray(pixels.permute(1, 2, 0).numpy())
    hsv = cv2.cvtColor(rgb, cv2.COLOR_RGB2HSV)  # 0 to 360 degrees, 0 to 1, 0 to 1
    if saturation[0]:
        hsv[..., 1] = np.clip(hsv[..., 1] * _between(SATURATION, saturation[1]), 0, 1)
    if hue[0]:
        hsv[..., 0] = (hsv[..., 0] + HUE_DEGREES * (2 * hue[1] - 1)) % 360
    return torch.from_numpy(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)).permute(2, 0, 1)


def _between(limits: tuple[float, float], share: float) -> float:
    low, high = limits
    return low + (high - low) * share


Key = tuple[int, int]  # (epoch, index)
Prefixes = Callable[[Pair, bool], Tensor]  # of a pair's image, mirrored or not: see feature_cache
MOST_WORKERS = 4
VERSION = 2  # of how images become tensors; that of a run is its setting `preprocessing`
IGNORED = -1.0  # of a mask's tensor, where a pixel counts for nothing


def carve_validation(
    pairs: Sequence[Pair], fraction: float, seed: int
) -> tuple[list[Pair], list[Pair]]:
    """Return (train, validation), each sorted by name and never empty.

    Which pairs are kept for validation depends on their names and the seed, not on their order.
    Raises UsageError for a fraction outside (0, 1) and DataError for fewer than two pairs.
    """
    if not 0 < fraction < 1:
        raise UsageError(f"the validation share is {fraction}; it must lie between 0 and 1")
    if len(pairs) < 2:
        raise DataError(
            f"{len(pairs)} training pairs cannot be divided into train and validation; give at "
            f"least 2"
        )
    # Ranked by a hash and not shuffled: a pair that is added or left out moves hardly another
    # across the line, and the order in which a disk lists its files does not count.
    ranked = _ranked(pairs, "validation", seed)
    count = min(max(1, round(fraction * len(pairs))), len(pairs) - 1)
    return _by_name(ranked[count:]), _by_name(ranked[:count])


def subset(pairs: Sequence[Pair], count: int | None, seed: int) -> list[Pair]:
    """Return `count` pairs, chosen by name and seed and sorted by name; all of them for None or
    when there are no more. Raises UsageError for a count below 1."""
    if count is not None and count < 1:
        raise UsageError(f"limit_train is {count}; it must be at least 1")
    return _by_name(_ranked(pairs, "subset", seed)[:count])


def _ranked(pairs: Sequence[Pair], purpose: str, seed: int) -> list[Pair]:
    """Order pairs by a hash of their names: another order for each purpose and seed."""
    keys = {pair.name: f"{purpose}\0{seed}\0{pair.name}".encode() for pair in pairs}
    return sorted(pairs, key=lambda pair: hashlib.sha256(keys[pair.name]).digest())


def _by_name(pairs: Sequence[Pair]) -> list[Pair]:
    return sorted(pairs, key=lambda pair: pair.name)


@dataclass(eq=False)
class PairDataset(Dataset):
    """Training items by key (epoch, index): image (3, size, size), mask (1, size, size).

    The image is float32 in [0, 1], resized bilinearly with antialias; the mask is float32 of 0, 1
    and, where a pixel is ignored, -1, resized to the nearest pixel. Both are squashed to a square,
    and mirrored in half of the (seed, epoch, index). scale, photometric: see rescale and distort;
    drawn for each (seed, epoch, index) as well. prefixes: what stands in the place of images, which
    are not read then; not with scale or photometric. version: see image_tensor. reduced: decode
    JPEGs at a part of their size. Reading raises DataError naming the file.
    """

    pairs: Sequence[Pair]
    size: int
    seed: int
    flip: bool
    scale: tuple[float, float] | None = None
    photometric: bool = False
    prefixes: Prefixes | None = None
    version: int = VERSION
    reduced: bool = False

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, key: Key) -> tuple[Tensor, Tensor]:
        epoch, index = key
        if self.prefixes is not None:
            pair, mirrored = self.pairs[index], self.mirrored(key)
            mask = mask_tensor(pair_truth(pair), self.size)
            return self.prefixes(pair, mirrored), mask.flip(-1) if mirrored else mask
        image, truth = _read(
            self.pairs[index],
            self.size,
            self.version,
            THRESHOLD,
            self.size if self.reduced else None,
        )
        mask = mask_tensor(truth, self.size)
        if self.scale or self.photometric:
            # 53 bits of each number, as many as a double holds, make it uniform in [0, 1). The 2
            # keeps this stream apart from the two others of the same seed.
            numbers = _random_bits(12, 2, self.seed, epoch, index)
            draws = iter((numbers >> np.uint64(11)) * 2.0**-53)
            if self.scale:
                image, mask = rescale(image, mask, self.scale, draws)
            if self.photometric:
                image = distort(image, draws)
        if self.mirrored(key):
            return image.flip(-1), mask.flip(-1)
        return image, mask

    def mirrored(self, key: Key) -> bool:
        """Tell whether the item of a key (epoch, index) is mirrored."""
        return self.flip and bool(_random_bits(1, self.seed, *key)[0] & np.uint64(1))


def load_image(
    path: Path, rules: PixelRules = UNDECLARED, version: int = VERSION, side: int | None = None
) -> np.ndarray:
    """Return an image, (h, w, 3), as `image_tensor` takes it; raises DataError.

    side: a JPEG may be decoded smaller than it is, but with no side below that.
    """
    if version == 1:  # which knew no tag of a file and no deep values
        return read_image(path, rules, tags=False)
    return read_pixels(path, rules, side)


def _read(
    pair: Pair, size: int, version: int, threshold: int, side: int | None = None
) -> tuple[Tensor, Truth]:
    image = load_image(pair.image, pair.rules, version, side)
    truth = pair_truth(pair, threshold)
    if side is None:  # else the image is not of its own size, which was checked before
        check_sizes(pair, image.shape, truth.mask.shape)
    return image_tensor(image, size, version), truth


def image_tensor(image: np.ndarray, size: int, version: int = VERSION) -> Tensor:
    """Squash an image, (h, w, 3), to float32 (3, size, size) in [0, 1], bilinearly with antialias.

    Args:
        image: uint8, or float32 in [0, 1].
        size: side of the square, in pixels.
        version: 2 resizes 8-bit values as such, rounding twice on the way: no value is further
            than 1/255 from that of 1, which resizes floats and takes ten times as long.
    """
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None]  # no copy
    if version == 1 or pixels.dtype != torch.uint8:
        if pixels.dtype == torch.uint8:
            pixels = pixels.float().div_(255)
        squashed = F.interpolate(pixels, (size, size), mode="bilinear", antialias=True)[0]
        return squashed.clamp_(0, 1)  # weights sum to one only up to rounding
    squashed = F.interpolate(pixels, (size, size), mode="bilinear", antialias=True)[0]
    return squashed.float().div_(255)


def mask_tensor(truth: Truth, size: int) -> Tensor:
    """Squash a mask to float32 of 0 and 1, and -1 where a pixel is ignored, (1, size, size)."""
    # The exact variant samples pixel centres, so that a mirrored mask gives a mirrored result.
    squashed = cv2.resize(truth.mask, (size, size), interpolation=cv2.INTER_NEAREST_EXACT)
    mask = torch.from_numpy(squashed > 0).float()[None]
    if truth.ignored is not None:
        ignored = truth.ignored.view(np.uint8)
        ignored = cv2.resize(ignored, (size, size), interpolation=cv2.INTER_NEAREST_EXACT)
        mask[torch.from_numpy(ignored > 0)[None]] = IGNORED
    return mask


def epoch_batches(
    count: int, batch: int, seed: int, epoch: int, rank: int = 0, world: int = 1
) -> list[list[Key]]:
    """Return the batches of one epoch for one of `world` processes, as lists of keys.

    `batch` is the global batch, divided among the processes; all get equally many images. The
    last, smaller batch is cut to a multiple of `world`, and dropped when it has fewer than two
    images, unless it is the only one. Raises UsageError when the batch cannot be divided.
    """
    if batch < 1 or batch % world:
        raise UsageError(
            f"batch is {batch}; it must be a positive multiple of the {world} processes"
        )
    # Sorting random numbers shuffles; numpy's own shuffle may change with its versions.
    order = np.argsort(_random_bits(count, seed, epoch), kind="stable").tolist()
    chunks = [order[start : start + batch] for start in range(0, count, batch)]
    if chunks and len(chunks[-1]) < batch:
        rest = chunks.pop()
        rest = rest[: len(rest) // world * world]
        # Batch normalisation knows no spread of a single image.
        if len(rest) > 1 or (rest and not chunks):
            chunks.append(rest)
    return [[(epoch, index) for index in chunk[rank::world]] for chunk in chunks]


def loader(
    dataset: PairDataset,
    batches: Sequence[list[Key]],
    workers: int | None = None,
    device: str = "cpu",
    world: int = 1,
) -> DataLoader:
    """Return a loader of exactly these batches: image (B, 3, s, s), mask (B, 1, s, s).

    A resumed epoch passes the batches that are left. The items do not depend on `workers`; see
    default_workers for how many there are by default.
    """
    if workers is None:
        workers = default_workers(device, world)
    return DataLoader(
        dataset,
        batch_sampler=batches,
        num_workers=workers,
        worker_init_fn=_calm,
        # Its own generator: without one, each pass would draw from the global one.
        generator=torch.Generator().manual_seed(0),
    )


def default_workers(device: str, world: int = 1) -> int:
    """Return how many loader processes serve one of `world` training processes.

    On a CPU, training keeps all cores busy: workers get those beyond two, none on one or two, where
    they would only take time from it. On any other device the cores are idle without workers, and
    training would wait while it decodes by itself.
    """
    if device == "cpu":
        return max(0, min(MOST_WORKERS, usable_cores() - 2))
    return max(1, min(MOST_WORKERS, usable_cores() // world))


def eval_items(
    pairs: Sequence[Pair],
    size: int,
    threshold: int = THRESHOLD,
    prefixes: Prefixes | None = None,
    version: int = VERSION,
) -> Iterator[tuple[str, Tensor, Truth]]:
    """Yield (name, image (3, size, size) in [0, 1], what its mask says at its own size).

    threshold: an undeclared mask value above it, of 255, is object. prefixes: what stands in the
    place of images, which are not read then. version: see image_tensor.
    """
    for pair in pairs:
        if prefixes is not None:
            yield pair.name, prefixes(pair, False), pair_truth(pair, threshold)
        else:
            yield pair.name, *_read(pair, size, version, threshold)


def _random_bits(count: int, *key: int) -> np.ndarray:
    """Return random 64-bit numbers of the key alone, the same in every numpy version."""
    return np.random.PCG64(np.random.SeedSequence(key)).random_raw(count)


def _calm(worker: int) -> None:
    """Keep each worker to one thread; there is one worker for each core already."""
    cv2.setNumThreads(0)
