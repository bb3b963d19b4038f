"""Who is called when: seeded arrival processes, load classes, and slices of an Azure trace. Times are the trace's, in seconds."""

import csv
import math
import random

# Requests a day, as FaaSMem sorts the functions of the Azure trace: high from 512, low below 64, middle between.
HIGH_FROM_PER_DAY = 512
LOW_BELOW_PER_DAY = 64
KEEP_ALIVE = 600.0


def rng(seed, *words):
    """A generator of its own for each purpose, so that one more function does not shift another's arrivals."""
    return random.Random("/".join([str(seed), *map(str, words)]))


def gaps_lognormal(generator, mean, spread, least):
    """Gaps with the given mean and a tail: `spread` is sigma of the logarithm."""
    location = math.log(mean) - spread * spread / 2
    while True:
        yield max(least, generator.lognormvariate(location, spread))


def gaps_exponential(generator, mean, least):
    while True:
        yield max(least, generator.expovariate(1 / mean))


def gaps_timer(generator, mean, jitter):
    while True:
        yield mean * (1 - jitter + 2 * jitter * generator.random())


def gaps_on_off(generator, mean, on, off, least):
    """Poisson while on, nothing while off: the same number of requests in all."""
    inner = mean * on / (on + off)
    left = on * generator.random()
    while True:
        gap = max(least, generator.expovariate(1 / inner))
        left -= gap
        if left <= 0:
            gap += off * (0.5 + generator.random())
            left = on * (0.5 + generator.random())
        yield gap


def gaps_bursts(generator, mean, size, within, least):
    """`size` requests close together, then a pause."""
    while True:
        for _ in range(size - 1):
            yield max(least, generator.expovariate(1 / within))
        yield max(least, generator.expovariate(1 / (mean * size)))


def arrivals(gaps, length, first):
    """Times from `first` until `length`."""
    times, time = [], first
    for gap in gaps:
        if time >= length:
            return times
        times.append(round(time, 4))
        time += gap
    return times


def high(seed, name, length, mean=30.0, least=4.0):
    """High load: more than 512 requests a day, with long pauses now and then."""
    generator = rng(seed, "high", name)
    return arrivals(gaps_lognormal(generator, mean, 1.1, least), length, generator.uniform(0, mean / 2))


def low(seed, name, length, mean=430.0, least=60.0):
    """Low load: some 200 requests a day, as trace 60 of FaaSMem's low panel; some pauses outlast the keep-alive time."""
    generator = rng(seed, "low", name)
    return arrivals(gaps_lognormal(generator, mean, 0.6, least), length, generator.uniform(0, mean / 4))


# Six shapes in place of FaaSMem's six traces (ranks 0, 3, 4, 5, 6, 7): what differs between them is how regular they are.
SHAPES = {
    "timer": lambda g, mean: gaps_timer(g, mean, 0.1),
    "poisson": lambda g, mean: gaps_exponential(g, mean, 4.0),
    "heavy": lambda g, mean: gaps_lognormal(g, mean, 1.4, 4.0),
    "on-off": lambda g, mean: gaps_on_off(g, mean, 300.0, 300.0, 4.0),
    "bursts": lambda g, mean: gaps_bursts(g, mean, 5, 8.0, 4.0),
    "sparse": lambda g, mean: gaps_lognormal(g, 3 * mean, 0.8, 10.0),
}
SHAPE_NAMES = list(SHAPES)


def shape(seed, kind, name, length, mean):
    generator = rng(seed, kind, name)
    return arrivals(SHAPES[kind](generator, mean), length, generator.uniform(0, mean / 2))


def azure2021(path, rank, start, length):
    """Starts of the invocations of the function with this rank (0: the busiest) in a slice of the 2021 trace as published."""
    by_function = {}
    with open(path, newline="") as file:
        reader = csv.reader(file)
        heading = next(reader, None)
        if heading is None or [word.strip() for word in heading] != ["app", "func", "end_timestamp", "duration"]:
            raise ValueError(f"{path}: its first line must be app,func,end_timestamp,duration")
        for row in reader:
            try:
                begin = float(row[2]) - float(row[3])
            except (IndexError, ValueError):
                raise ValueError(f"{path}:{reader.line_num}: end_timestamp and duration must be seconds") from None
            by_function.setdefault((row[0], row[1]), []).append(begin)
    ranked = sorted(by_function, key=lambda key: (-len(by_function[key]), key))
    if rank >= len(ranked):
        raise ValueError(f"{path}: has {len(ranked)} functions, none of rank {rank}")
    return sorted(round(time - start, 4) for time in by_function[ranked[rank]] if start <= time < start + length)


def schedule(lists):
    """Lists of times by name, as rows of a schedule file in order of time."""
    rows = [(time, name) for name, times in lists.items() for time in times]
    return sorted(rows)


def schedule_text(rows):
    return "seconds,function\n" + "".join(f"{time:.4f},{name}\n" for time, name in rows)


def reuse_percentile(times, service, percentile, keep_alive=KEEP_ALIVE):
    """The delay that FaaSMem's test script takes from the very trace that it replays: the percentile of the idle times of a pool of containers
    that ended in a reuse. None when nothing was reused."""
    idle, gaps = [], []
    for time in sorted(times):
        idle = [end for end in idle if time - end <= keep_alive]
        ready = [end for end in idle if end <= time]
        if ready:
            latest = max(ready)
            idle.remove(latest)
            gaps.append(time - latest)
        idle.append(time + service)
    if not gaps:
        return None
    gaps.sort()
    return gaps[min(len(gaps) - 1, math.ceil(len(gaps) * percentile) - 1)]
