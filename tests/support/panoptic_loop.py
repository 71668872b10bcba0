"""Panoptic quality as a plain loop over segments, by the definition and panopticapi's rules."""

from collections import defaultdict

import numpy as np


def panoptic_loop(images, classes):
    """Return {class: (iou, tp, fp, fn)} and (pq, sq, rq) of all classes that are somewhere.

    images: (true map, {number: (class, crowd)}, found map, {number: class}) of each; 0 is void in
    the maps. The order of the dictionary of the truth is that of its file.
    """
    iou, tp, fp, fn = (defaultdict(float) for _ in range(4))
    for true, segments, found, called in images:
        found_by, missed_crowds = set(), {}
        for number, (own, crowd) in segments.items():
            here = true == number
            if crowd:
                missed_crowds[own] = here  # of several, the last
                continue
            best = None
            for other, other_class in called.items():
                there = found == other
                shared = int(np.sum(here & there))
                if other_class != own or not shared:
                    continue
                # What the map puts where the truth says nothing is not held against it.
                void = int(np.sum(there & (true == 0)))
                union = int(here.sum()) + int(there.sum()) - shared - void
                if shared / union > 0.5:
                    assert best is None, "no two can overlap by more than half"
                    best = other
                    iou[own] += shared / union
                    tp[own] += 1
                    found_by.add(other)
            fn[own] += best is None
        for other, other_class in called.items():
            if other in found_by:
                continue
            there = found == other
            excused = int(np.sum(there & (true == 0)))
            if other_class in missed_crowds:
                excused += int(np.sum(there & missed_crowds[other_class]))
            fp[other_class] += not excused / int(there.sum()) > 0.5
    each = {own: (iou[own], tp[own], fp[own], fn[own]) for own in range(classes)}
    return each, panoptic_means(each, range(classes))


def panoptic_means(each, chosen):
    """Return (pq, sq, rq) over some classes, None where none of them is anywhere."""
    there = [each[own] for own in chosen if sum(each[own][1:])]
    if not there:
        return None
    pq = [a / (t + p / 2 + n / 2) for a, t, p, n in there]
    sq = [a / t if t else 0.0 for a, t, _, _ in there]
    rq = [t / (t + p / 2 + n / 2) for _, t, p, n in there]
    return tuple(sum(own) / len(there) for own in (pq, sq, rq))
