"""Features on disk: one checked file for each view of an image, never unpickled."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from lpmoe_bench.errors import DataError
from lpmoe_bench.files import write_atomically

SUFFIX = ".safetensors"
TENSOR = "features"


class View(NamedTuple):
    """An image as a backbone sees it. digest: SHA-256 of its file, 64 hex digits."""

    digest: str
    mirrored: bool


class FeatureFolder:
    """The features of views, used like a dict; all of one shape and of one key.

    key: everything beside the view that changes a feature; each key has a folder of its own under
    the root, where `key.json` shows it. A file that is damaged, or of another view, key or shape,
    counts as missing: assigning replaces it. Processes may share a folder.
    """

    def __init__(self, root: Path, key: Mapping[str, Any], shape: tuple[int, ...]):
        self.root, self.shape = root, shape
        self.text = json.dumps(dict(key), sort_keys=True, indent=1)
        self.digest = hashlib.sha256(self.text.encode()).hexdigest()
        self.folder = root / self.digest[:24]

    def path(self, view: View) -> Path:
        """Return the file of a view."""
        side = "mirrored" if view.mirrored else "plain"
        return self.folder / view.digest[:2] / f"{view.digest[:40]}-{side}{SUFFIX}"

    def __contains__(self, view: View) -> bool:
        return self._load(view) is not None

    def __getitem__(self, view: View) -> Tensor:
        """Read a feature and check it; raises DataError when it is not there, or damaged."""
        feature = self._load(view)
        if feature is None:
            raise DataError(
                f"the cached features {self.path(view)} were damaged or removed meanwhile; run the "
                f"same command again, which computes them anew and goes on"
            )
        return feature

    def __setitem__(self, view: View, feature: Tensor) -> None:
        """Write a feature in one rename; raises ResourceError when the disk is full."""
        if not (self.folder / "key.json").exists():
            write_atomically(self.folder / "key.json", self.text + "\n")
        feature = feature.contiguous()
        about = self._about(view) | {"crc32": _checksum(feature)}
        write_atomically(self.path(view), save({TENSOR: feature}, metadata=about))

    def used_bytes(self) -> int:
        """Return what all features under the root take, those of other keys too."""
        return sum(path.stat().st_size for path in self.root.rglob(f"*{SUFFIX}"))

    def _about(self, view: View) -> dict[str, str]:
        return {"key": self.digest, "view": f"{view.digest} {view.mirrored}"}

    def _load(self, view: View) -> Tensor | None:
        try:
            with safe_open(str(self.path(view)), framework="pt") as file:
                about, feature = file.metadata() or {}, file.get_tensor(TENSOR)
        except (SafetensorError, OSError):
            return None
        if tuple(feature.shape) != self.shape:
            return None
        return feature if about == self._about(view) | {"crc32": _checksum(feature)} else None


def _checksum(feature: Tensor) -> str:
    return f"{zlib.crc32(feature.view(torch.uint8).numpy().data):08x}"
