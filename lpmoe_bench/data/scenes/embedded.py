"""EmbeddedSet: what makes a set of drawn scenes, and the one way to draw a scene of it."""

from collections.abc import Callable
from dataclasses import dataclass

from lpmoe_bench.data.scenes.drawing import Array, Draw, Shape
from lpmoe_bench.errors import UsageError

LONGER_SIDE = 352  # pixels, of a scene whose size nobody chose
SPLIT_KEYS = {"train": 0, "test": 1}
ATTEMPTS = 20
UNTOLD = -1  # of a map of segments
HEALTHY_KEY = 1 << 20  # apart from every attempt's number


@dataclass(frozen=True)
class EmbeddedSet:
    """One task's generator. A task's file defines SET, one of these.

    task: its name. key: a number of its own in the seed of every scene. version: part of the
    folder's name, raised when a change moves a pixel. about: one sentence for people. shapes: the
    sizes (h, w) that a scene may have, longer side 352. shares: allowed part of the image that is
    object. draw(draw, shape) returns an image uint8 (h, w, 3) in RGB and a mask bool (h, w);
    draw_empty the same without any object, where the task knows such images. classes: of a set of
    label maps, whose `draw` returns labels uint8 (h, w) in place of a mask; all but the first count
    as object in `shares`. things: of a set of objects, those of its classes that are told apart;
    its `draw` returns segments, int32 (h, w): 1000 times the class, and the number of a thing among
    all of the scene; UNTOLD where a pixel is nobody's.
    """

    task: str
    key: int
    version: str
    about: str
    shapes: tuple[Shape, ...]
    shares: tuple[float, float]
    draw: Callable[[Draw, Shape], tuple[Array, Array]]
    draw_empty: Callable[[Draw, Shape], tuple[Array, Array]] | None = None
    classes: tuple[str, ...] = ()
    things: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"generated_{self.task}"

    def scene(
        self,
        index: int,
        split: str = "train",
        seed: int = 0,
        shape: Shape | None = None,
        size: int = LONGER_SIDE,
        empty: float = 0.0,
    ) -> tuple[Array, Array]:
        """Draw one scene: image uint8 (h, w, 3) in RGB and mask uint8 (h, w) of 0 and 255, or of
        the indices of classes; of a set of objects segments, int32 (h, w).

        Without a shape (h, w), the sides vary and the longer one is `size` pixels. `empty` is the
        part of all scenes that shows no object; the other scenes do not change with it. Raises
        UsageError for an unknown split, or `empty` where every image of the task has an object.
        """
        if split not in SPLIT_KEYS:
            raise UsageError.unknown("split", split, SPLIT_KEYS)
        key = (self.key, seed, SPLIT_KEYS[split], index)
        if empty and self.draw_empty is None:
            raise UsageError(f"every image of task {self.task} has an object; drop the empty masks")
        # Drawn from a key of its own, so that scenes do not change with the share of empty ones.
        bare = self.draw_empty if Draw(*key, HEALTHY_KEY).real(0, 1) < empty else None
        for attempt in range(ATTEMPTS):  # the first nearly always lies within the shares
            draw = Draw(*key, *([attempt] if attempt else []))
            sides = shape
            if sides is None:
                height, width = draw.pick(self.shapes)
                sides = (round(height * size / LONGER_SIDE), round(width * size / LONGER_SIDE))
            image, mask = (bare or self.draw)(draw, sides)
            if bare or self.shares[0] <= (mask > 0).mean() <= self.shares[1]:
                if self.things:
                    return image, mask
                return image, mask.astype("uint8") * (1 if self.classes else 255)
        raise AssertionError(f"{key}: no mask within {self.shares} at {sides}")
