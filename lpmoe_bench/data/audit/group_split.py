"""A split without leaks: near duplicates and frames of one folder stay on one side."""

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from lpmoe_bench.console import Terminal
from lpmoe_bench.data.audit import search
from lpmoe_bench.data.audit.groups import Image, connected
from lpmoe_bench.data.pairs import Pair
from lpmoe_bench.data.splits import Split, contents
from lpmoe_bench.errors import DataError, UsageError

FEW_FOLDERS = 10  # fewer are classes rather than videos


class OneGroupError(DataError):
    """All images belong together, so that none can be set aside."""


def group_split(
    pairs: Sequence[Pair],
    share: float,
    cache: Path,
    manifests: Path,
    groups: Mapping[str, str] | None = None,
    seed: int = 0,
    terminal: Terminal | None = None,
) -> tuple[list[Pair], list[Pair], str]:
    """Divide pairs into (train, test) so that no group lies on both sides, each sorted by name.

    Images are of one group where `groups` says so, where they lie in one of at least ten folders,
    and where the audit finds them to be copies or near duplicates of each other. Whole groups are
    drawn, by their names and the seed, until the test side has its share of the images.

    Args:
        pairs: all of them.
        share: of the images that are tested on, between 0 and 1.
        cache: folder of what the audit keeps of images.
        manifests: folder of what is kept of files.
        groups: {image: group} as far as it is known.
        seed: another one draws other groups.
        terminal: where progress is shown.

    Returns:
        Pairs to train on, pairs to test on, and a sentence on how they were divided.

    Raises:
        UsageError: for a share that is none.
        OneGroupError: where all images are one group.
        DataError: where an image cannot be read.
    """
    if not 0 < share < 1:
        raise UsageError(f"--split is {share}; give the share to test on, between 0 and 1")
    terminal = terminal or Terminal(quiet=True)
    known = dict(groups or {})
    folders = {pair.name.rpartition("/")[0] for pair in pairs}
    if not known and len(folders) >= FEW_FOLDERS:
        known = {pair.name: pair.name.rpartition("/")[0] for pair in pairs}
    read = contents(Split("own", "all"), pairs, manifests)
    images = [
        Image("own", pair.name, pair.image, facts.image_checksum, ("own/all",), "")
        for pair, facts in read
    ]
    found = search.signatures("own", images, cache, terminal)
    matches, _ = search.find_matches(images, found, terminal, None)
    # Links of both kinds are joined, so that a copy carries its whole video to its side.
    links: list[tuple[int, int]] = [(match.first, match.second) for match in matches]
    first_of: dict[str, int] = {}
    for k, pair in enumerate(pairs):
        if group := known.get(pair.name):
            links.append((first_of.setdefault(group, k), k))
    joined = [members for members in connected(links) if len(members) > 1]
    group_of = {k: number for number, members in enumerate(joined) for k in members}
    members: dict[object, list[Pair]] = defaultdict(list)
    for k, pair in enumerate(pairs):
        members[group_of.get(k, pair.name)].append(pair)
    test = _drawn(list(members.values()), round(share * len(pairs)) or 1, seed)
    held = {pair.name for pair in test}
    train = [pair for pair in pairs if pair.name not in held]
    if not test:
        raise OneGroupError(
            f"the {len(pairs)} images are one group by their likeness or folders, so that no part "
            f"of them can be set aside for testing; name test images of your own"
        )
    said = (
        f"{len(test)} of {len(pairs)} images were set aside for testing, whole groups of near "
        f"duplicates{' and folders' if known and not groups else ''} together ({len(members)} "
        f"groups): a local split"
    )
    return sorted(train, key=_by_name), sorted(test, key=_by_name), said


def _drawn(groups: list[list[Pair]], count: int, seed: int) -> list[Pair]:
    """Return whole groups of together about that many pairs; the largest stays for training."""
    # Ranked by a hash and not shuffled, as validation is: an image that is added moves few others.
    groups = sorted(groups, key=lambda group: (len(group), group[0].name))[:-1]
    keys = {id(g): f"apart\0{seed}\0{min(p.name for p in g)}".encode() for g in groups}
    ranked = sorted(groups, key=lambda group: hashlib.sha256(keys[id(group)]).digest())
    test: list[Pair] = []
    for group in ranked:
        # A group that would be too much is passed over, as a smaller one may still fit.
        if len(test) + len(group) <= count or not test:
            test += group
    return test


def _by_name(pair: Pair) -> str:
    return pair.name
