"""The policies that are compared, with the delays of each divided as time is."""

import loads

# Of FaaSMem's artifact (reference: its function_info.py, config.py and the drain of container.py); TMO's of the same, which are Meta's.
FAASMEM = {"rollback-interval": 10, "rollback-interval-max": 10, "recycle-guard": 15, "semi-warm-delay": 120, "drain-step": 10}
FAASMEM_WINDOWS = {"bert": 8, "graph": 4, "web": 32}
SEMI_WARM_LEAST = 59
FAASMEM_DRAIN_PERCENT = 1
TMO_INTERVAL = 6
DAMON_AGE = 60
IDLE_SHRINK_DELAY = 60


def milliseconds(seconds):
    return f"{max(1, round(seconds * 1000))}ms"


def oracle_delay(lists, service=0.2):
    """FaaSMem's semi-warm delay as its test script takes it from the very trace that is replayed: the 99th percentile of the reuse intervals, at least
    59 s, and one second more. Here of several functions at once: the median of theirs, for the controller has one delay. None without reuses."""
    found = sorted(value for times in lists if (value := loads.reuse_percentile(times, service, 0.99)) is not None)
    return int(max(SEMI_WARM_LEAST, found[len(found) // 2]) + 1) if found else None


def options(policies, speedup, names, semi_warm_delay=None):
    """--offload-option words that divide the delays of the policies that are not ours. (farmem bench functions does ours.)"""
    words = []
    if "faasmem" in policies:
        constants = dict(FAASMEM)
        if semi_warm_delay is not None:
            constants["semi-warm-delay"] = semi_warm_delay
        words += [f"faasmem:{name}={milliseconds(value / speedup)}" for name, value in constants.items()]
        words.append(f"faasmem:drain-percent={max(1, round(FAASMEM_DRAIN_PERCENT * speedup))}")
        # Its windows go by the function's name, and bert-low is bert.
        words += [f"faasmem:function-window={name}={FAASMEM_WINDOWS[name.split('-')[0]]}" for name in sorted(names)
                  if name.split("-")[0] in FAASMEM_WINDOWS]
    if "tmo" in policies:
        words.append(f"tmo:tmo-interval={milliseconds(TMO_INTERVAL / speedup)}")
    if "damon" in policies:
        words.append(f"damon:damon-age={milliseconds(DAMON_AGE / speedup)}")
    if "idle-shrink" in policies:
        words.append(f"idle-shrink:semi-warm-delay={milliseconds(IDLE_SHRINK_DELAY / speedup)}")
    return words
