"""Pairs to tensors: squashed, flipped and batched by seed and key, never by global state."""

import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lpmoe_bench.data.images import read_image, read_pixels
from lpmoe_bench.data.pairs import Pair, check_sizes
from lpmoe_bench.data.pixels import THRESHOLD, UNDECLARED, PixelRules
from lpmoe_bench.data.readers import MapReader, MaskReader, Sides
from lpmoe_bench.environment import keep_freed_memory, usable_cores
from lpmoe_bench.errors import DataError, ResourceError, UsageError

# Training images varied at random: resized and cropped, and distorted in brightness and colour.

Draws = Iterator[float]  # each in [0, 1)
BRIGHTNESS = 32 / 255
CONTRAST = SATURATION = (0.5, 1.5)
HUE_DEGREES = 36.0


def rescale(
    image: Tensor, target: Any, scale: tuple[float, float], draws: Draws, reader: MapReader
) -> tuple[Tensor, Any]:
    """Resize by a factor between two and cut a part of the old size out of it.

    image: (3, h, w) in [0, 1]; target: as the reader gives it. What a smaller image leaves free is
    of its mean colour, and of the target what the reader has for it. Takes three draws.
    """
    sides = (image.shape[-2], image.shape[-1])
    factor = _between(scale, next(draws))
    high, wide = (max(1, round(side * factor)) for side in sides)
    large = F.interpolate(image[None], (high, wide), mode="bilinear", antialias=True)[0]
    takes, puts = zip(
        *(_overlap(s, t, next(draws)) for s, t in zip(sides, (high, wide), strict=True)),
        strict=True,
    )
    # Enlarged, a part of it fills the canvas; reduced,
    # all of it lies somewhere on the mean colour.
    canvas = image.mean((1, 2), keepdim=True).repeat(1, *sides)
    canvas[(..., *puts)] = large[(..., *takes)].clamp(0, 1)
    return canvas, reader.view(target, (high, wide), takes, puts)


def _overlap(side: int, other: int, share: float) -> tuple[slice, slice]:
    """Return which pixels of a resized side are kept, and where they go; share: where, in [0, 1)"""
    start = int(share * (abs(other - side) + 1))
    part, rest = slice(start, start + min(side, other)), slice(0, min(side, other))
    return (part, rest) if other >= side else (rest, part)


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


SQUASH = "squash"
Key = tuple[int, int]  # (epoch, index)
Prefixes = Callable[[Pair, bool], Tensor]  # of a pair's image, mirrored or not: see feature_cache
Made = tuple[Tensor, Any]  # an image and its target, as they are before anything is drawn
Keep = Callable[[Pair, Callable[[], Made]], Made]  # see image_cache
MOST_WORKERS = 4  # of a CPU's run
MOST_GPU_WORKERS = 8  # of one process on another device, whose cores have nothing else to do
VERSION = 2  # of how images become tensors; that of a run is its setting `preprocessing`
MASKS = MaskReader()


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
    if count is not None and count < len(pairs):
        pairs = _ranked(pairs, "subset", seed)[:count]
    return _by_name(pairs)


def _ranked(pairs: Sequence[Pair], purpose: str, seed: int) -> list[Pair]:
    """Order pairs by a hash of their names: another order for each purpose and seed."""
    keys = {pair.name: f"{purpose}\0{seed}\0{pair.name}".encode() for pair in pairs}
    return sorted(pairs, key=lambda pair: hashlib.sha256(keys[pair.name]).digest())


def _by_name(pairs: Sequence[Pair]) -> list[Pair]:
    return sorted(pairs, key=lambda pair: pair.name)


@dataclass(eq=False)
class PairDataset(Dataset):
    """Training items by key (epoch, index): image (3, h, w) of `sides`, and its target.

    The image is float32 in [0, 1], resized bilinearly with antialias; the target is as the reader
    has it, of binary masks float32 (1, h, w) of 0, 1 and, where a pixel is ignored, -1, resized to
    the nearest pixel. Both are fitted alike, see image_tensor, and mirrored in half of the (seed,
    epoch, index). scale, photometric: see rescale and distort; drawn for each (seed, epoch, index)
    as well. prefixes: what stands in the place of images, which are not read then; not with scale
    or photometric. version, fit: see image_tensor. reduced: decode JPEGs at a part of their size.
    keep: given a pair and what makes its image and target, returns these, perhaps as it kept them.
    as_bytes: give 8-bit images as uint8 where nothing is drawn or padded, a quarter of what
    workers and devices are sent; `as_floats` makes the very same floats of them.
    Reading raises DataError naming the file.
    """

    pairs: Sequence[Pair]
    sides: Sides
    seed: int
    flip: bool
    scale: tuple[float, float] | None = None
    photometric: bool = False
    prefixes: Prefixes | None = None
    version: int = VERSION
    reduced: bool = False
    fit: str = SQUASH
    reader: MapReader = MASKS
    keep: Keep | None = None
    as_bytes: bool = False

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, key: Key) -> tuple[Tensor, Any]:
        epoch, index = key
        pair, mirrored, reader = self.pairs[index], self.mirrored(key), self.reader
        if self.prefixes is not None:
            target = self._target(reader.read(pair))
            return self.prefixes(pair, mirrored), reader.mirrored(target) if mirrored else target
        make = partial(self._make, pair)
        image, target = self.keep(pair, make) if self.keep else make()
        if self.scale or self.photometric:
            image = as_floats(image)
            # 53 bits of each number, as many as a double holds, make it uniform in [0, 1). The 2
            # keeps this stream apart from the two others of the same seed.
            numbers = _random_bits(12, 2, self.seed, epoch, index)
            draws = iter((numbers >> np.uint64(11)) * 2.0**-53)
            if self.scale:
                image, target = rescale(image, target, self.scale, draws, reader)
            if self.photometric:
                image = distort(image, draws)
        if mirrored:
            return image.flip(-1), reader.mirrored(target)
        return image, target

    def _make(self, pair: Pair) -> tuple[Tensor, Any]:
        pixels, truth = _read(pair, self.version, self.reader, THRESHOLD, self._least)
        if self.as_bytes and self.fit == SQUASH and pixels.dtype == np.uint8:
            image = _resized(pixels, self.sides, self.version)
        else:
            image = image_tensor(pixels, self.sides, self.version, self.fit)
        return image, self._target(truth)

    @property
    def _least(self) -> int | None:
        """The side that a JPEG may not be decoded below, None where all are decoded in full."""
        return max(self.sides) if self.reduced else None

    def _target(self, truth: Any) -> Any:
        inner = fitted(self.reader.shape(truth), self.sides, self.fit)
        target = self.reader.target(truth, inner)
        return target if inner == self.sides else self.reader.padded(target, self.sides)

    def collate(self, items: Sequence[tuple[Tensor, Any]]) -> tuple[Tensor, Any]:
        """Put items together as a batch."""
        images, targets = zip(*items, strict=True)
        if len({image.dtype for image in images}) > 1:  # some files have more than 8 bits
            images = tuple(map(as_floats, images))
        return torch.stack(images), self.reader.batch(targets)

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
    pair: Pair, version: int, reader: MapReader, threshold: int, side: int | None = None
) -> tuple[np.ndarray, Any]:
    image = load_image(pair.image, pair.rules, version, side)
    truth = reader.read(pair, threshold)
    if side is None:  # else the image is not of its own size, which was checked before
        check_sizes(pair, image.shape, reader.shape(truth))
    return image, truth


def fitted(shape: Sequence[int], sides: Sides, fit: str) -> Sides:
    """Return the part of (h, w) `sides`, from the top left, that an image of (h, w, ...) fills."""
    if fit == SQUASH:
        return sides
    # The side that is relatively longest fills the canvas; the other one leaves room.
    factor = min(side / length for side, length in zip(sides, shape[:2], strict=True))
    high, wide = (
        min(side, max(1, round(length * factor)))
        for side, length in zip(sides, shape[:2], strict=True)
    )
    return high, wide


def image_tensor(
    image: np.ndarray, sides: Sides, version: int = VERSION, fit: str = SQUASH
) -> Tensor:
    """Fit an image, (h, w, 3), into float32 (3, h, w) in [0, 1], bilinearly with antialias.

    Args:
        image: uint8, or float32 in [0, 1].
        sides: height and width of the tensor.
        version: 2 resizes 8-bit values as such, rounding twice on the way: no value is further
            than 1/255 from that of 1, which resizes floats and takes ten times as long.
        fit: `squash` stretches the image to the sides; `letterbox` keeps its proportions and pads
            with its mean colour, at the right and below.
    """
    inner = fitted(image.shape, sides, fit)
    resized = as_floats(_resized(image, inner, version))
    if inner == sides:
        return resized
    canvas = resized.mean((1, 2), keepdim=True).repeat(1, *sides)
    canvas[:, : inner[0], : inner[1]] = resized
    return canvas


def _resized(image: np.ndarray, sides: Sides, version: int) -> Tensor:
    """Return an image at a size, (3, h, w): uint8 where version 2 resizes it as such."""
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None]  # no copy
    if version == 1 and pixels.dtype == torch.uint8:
        pixels = as_floats(pixels)
    resized = F.interpolate(pixels, sides, mode="bilinear", antialias=True)[0]
    if pixels.dtype == torch.uint8:
        return resized
    return resized.clamp_(0, 1)  # weights sum to one only up to rounding


def as_floats(images: Tensor) -> Tensor:
    """Return images in [0, 1], float32, of values of 0 to 255 or of such floats, on any device."""
    if images.dtype != torch.uint8:
        return images
    # A tensor and no number: by a number a GPU multiplies with its inverse, which rounds otherwise.
    return images.float().div_(torch.full((), 255.0, device=images.device))


SHARED = "/dev/shm"  # through which workers give what they have read
PREFETCHED = 2  # batches that a worker has ready


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
    # Every world-th image: each process has equally many of each batch.
    return [[(epoch, index) for index in chunk[rank::world]] for chunk in chunks]


def loader(
    dataset: PairDataset,
    batches: Iterable[list[Key]],
    workers: int | None = None,
    device: str = "cpu",
    world: int = 1,
    batch: int = 1,
) -> DataLoader:
    """Return a loader of exactly these batches: images (B, 3, h, w) and their targets.

    A resumed run passes the batches that are left. They are asked for as they are needed. The items
    do not depend on `workers`; see default_workers for how many there are by default.
    batch: images of the largest batch.

    Raises ResourceError for more workers than the system's shared memory holds batches of.
    """
    workers = _workers_in_memory(workers, default_workers(device, world), dataset, batch)
    return DataLoader(
        dataset,
        batch_sampler=batches,
        collate_fn=dataset.collate,
        num_workers=workers,
        prefetch_factor=PREFETCHED if workers else None,
        worker_init_fn=_calm,
        # Page-locked memory, from which Fabric's copies to a GPU run beside its work.
        pin_memory=device == "cuda",
        # Its own generator: without one, each pass would draw from the global one.
        generator=torch.Generator().manual_seed(0),
    )


def _workers_in_memory(asked: int | None, usual: int, dataset: PairDataset, batch: int) -> int:
    """Return how many workers there are; a batch that finds no room would be waited for in vain.

    Each has two batches of images and a target at most in shared memory, of which containers have
    64 MiB. Fewer than usual work where there is no room for more; what was asked for is refused.
    """
    height, width = dataset.sides
    pixel = 3 * (1 if dataset.as_bytes else 4) + 4  # bytes; a mask is in floats
    need = PREFETCHED * batch * height * width * pixel
    try:
        room = shutil.disk_usage(SHARED).free if os.access(SHARED, os.W_OK) else 0
    except OSError:  # a system that shares memory in another way
        return usual if asked is None else asked
    if asked is None:
        return min(usual, room // max(1, need))
    if asked * need > room:
        raise ResourceError(
            f"{SHARED} has {room / 2**20:.1f} MiB free, and runtime.workers={asked} needs "
            f"{asked * need / 2**20:.1f}; enlarge it (docker: --shm-size), or ask for fewer, or 0"
        )
    return asked


def default_workers(device: str, world: int = 1) -> int:
    """Return how many loader processes serve one of `world` training processes.

    On a CPU, training keeps all cores busy: workers get those beyond two, none on one or two, where
    they would only take time from it. On any other device the cores are idle without workers, and
    training would wait while it decodes by itself.
    """
    if device == "cpu":
        return max(0, min(MOST_WORKERS, usable_cores() - 2))
    return max(1, min(MOST_GPU_WORKERS, usable_cores() // world))


def eval_item(
    pair: Pair,
    threshold: int = THRESHOLD,
    prefixes: Prefixes | None = None,
    version: int = VERSION,
    reader: MapReader = MASKS,
) -> tuple[str, np.ndarray | Tensor, Any]:
    """Return (name, image (h, w, 3), what its label file says), both at their own size.

    threshold: an undeclared mask value above it, of 255, is object. prefixes: what stands in the
    place of images, which are not read then. version: see load_image.
    """
    if prefixes is not None:
        return pair.name, prefixes(pair, False), reader.read(pair, threshold)
    return pair.name, *_read(pair, version, reader, threshold)


def _random_bits(count: int, *key: int) -> np.ndarray:
    """Return random 64-bit numbers of the key alone, the same in every numpy version."""
    return np.random.PCG64(np.random.SeedSequence(key)).random_raw(count)


def _calm(worker: int) -> None:
    """Keep each worker to one thread, for there is one a core already, and to what it needs."""
    cv2.setNumThreads(0)
    keep_freed_memory(False)
