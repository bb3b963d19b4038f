"""Percentiles, means and bootstrap intervals. Nothing here fills in what is not known."""

import math
import random


def percentile(values, percent):
    """Nearest rank; None without values."""
    ordered = sorted(values)
    if not ordered:
        return None
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def mean(values):
    values = list(values)
    return sum(values) / len(values) if values else None


def bootstrap(groups, statistic, seed=1, draws=400):
    """(low, high) of a statistic with 95 % confidence: each group of values is drawn again with replacement. None where
    the statistic cannot be had."""
    generator = random.Random(seed)
    found = []
    for _ in range(draws):
        drawn = [generator.choices(group, k=len(group)) if group else [] for group in groups]
        value = statistic(*drawn)
        if value is not None:
            found.append(value)
    if len(found) < draws / 2:
        return None
    found.sort()
    return found[int(len(found) * 0.025)], found[min(len(found) - 1, int(len(found) * 0.975))]


def blocks(values, length):
    """Means of consecutive blocks: neighbours in a timeline are not independent, blocks nearly are."""
    return [mean(values[at:at + length]) for at in range(0, len(values), length) if values[at:at + length]]


def windows_max(times_ms, counts, window_ms):
    """The most that a growing counter grew within any window, scaled to the window: [(ms, count)] sampled at any pace. Counts between two samples
    are spread evenly. None with fewer than two samples."""
    points = [(t, c) for t, c in zip(times_ms, counts) if c is not None]
    if len(points) < 2 or points[-1][0] - points[0][0] < window_ms:
        return None

    def at(moment):
        low, high = 0, len(points) - 1
        while high - low > 1:
            middle = (low + high) // 2
            if points[middle][0] <= moment:
                low = middle
            else:
                high = middle
        (t0, c0), (t1, c1) = points[low], points[high]
        if t1 == t0:
            return c1
        return c0 + (c1 - c0) * min(1, max(0, (moment - t0) / (t1 - t0)))

    best = 0
    for moment, _ in points:
        for begin in (moment, moment - window_ms):
            if begin >= points[0][0] and begin + window_ms <= points[-1][0]:
                best = max(best, at(begin + window_ms) - at(begin))
    return best
