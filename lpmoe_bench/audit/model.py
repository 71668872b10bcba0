"""What an audit found: images that are in two places, groups, and how it was looked for."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

VERSION = 1  # of the method: what is kept of another version is not used

Role = Literal["train", "validation", "test"]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class AuditedSplit(_Model):
    """A split that was looked at. label: `data set/split`; digest: of its content, as in records;
    within: splits of the same set that hold all of its images, so that they are not compared."""

    label: str
    role: Role
    images: int
    digest: str
    within: list[str] = []


class Twins(_Model):
    """Two image files that show the same.

    one, other: `data set/name`, each with the splits it is in. kind: file (one file that two splits
    list), exact (the same pixels once decoded), near (a copy that was re-encoded, resized, mirrored
    or slightly cropped) or reframed (the same picture or scene, cut out elsewhere). likeness:
    correlation of the fine structure; features: of the backbone's, None where not asked. between:
    the pairs of splits that share it, none for two images of one split. group: what both belong to
    by nature, if anything.
    """

    one: str
    one_splits: list[str]
    other: str
    other_splits: list[str]
    kind: Literal["file", "exact", "near", "reframed"]
    mirrored: bool = False
    likeness: float = 1.0
    features: float | None = None
    between: list[tuple[str, str]] = []
    group: str = ""


class SetGroups(_Model):
    """Groups of one set. source: how they are known. shared: {group: {split: images}} of those in
    two splits that should be apart."""

    dataset: str
    what: str
    source: str
    count: int
    images: int
    shared: dict[str, dict[str, list[str]]] = {}


class Audit(_Model):
    """A whole audit. features: the backbone that confirmed, with its checksum; empty: pixels alone,
    for the reason in `remarks`. candidates: pairs whose hashes are close."""

    version: int = VERSION
    splits: list[AuditedSplit]
    twins: list[Twins] = []
    groups: list[SetGroups] = []
    features: str = ""
    candidates: int = 0
    remarks: list[str] = []

    @property
    def leaks(self) -> list[Twins]:
        """Duplicates of no group between training, validation and test, or between sets."""
        return [twins for twins in self._between if twins.kind != "reframed"]

    @property
    def reframed(self) -> list[Twins]:
        """The same between them where the framing is another: to be looked at."""
        return [twins for twins in self._between if twins.kind == "reframed"]

    @property
    def _between(self) -> list[Twins]:
        return [twins for twins in self.twins if twins.between and not twins.group]

    @property
    def repeats(self) -> list[Twins]:
        """Those of no group within one split: no leak, but images that count twice."""
        return [twins for twins in self.twins if not twins.between and not twins.group]

    @property
    def grouped(self) -> list[Twins]:
        """Those that one group explains."""
        return [twins for twins in self.twins if twins.group]
