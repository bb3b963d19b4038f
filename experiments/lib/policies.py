"""The policies that are compared, with the delays of each divided as time is."""

# Of FaaSMem's artifact (reference: its function_info.py, config.py and the drain of container.py); TMO's of the same, which are Meta's.
FAASMEM = {"rollback-interval": 10, "rollback-interval-max": 10, "recycle-guard": 15, "semi-warm-delay": 120}
FAASMEM_DRAIN_PERCENT = 1
IDLE_SHRINK_DELAY = 60


def milliseconds(seconds):
    return f"{max(1, round(seconds * 1000))}ms"


def options(policies, speedup, semi_warm_delay=None):
    """--offload-option words that divide the delays of the policies that are not ours. (farmem bench functions does ours.)"""
    words = []
    if "faasmem" in policies:
        constants = dict(FAASMEM)
        if semi_warm_delay is not None:
            constants["semi-warm-delay"] = semi_warm_delay
        words += [f"faasmem:{name}={milliseconds(value / speedup)}" for name, value in constants.items()]
        words.append(f"faasmem:drain-percent={max(1, round(FAASMEM_DRAIN_PERCENT * speedup))}")
    if "idle-shrink" in policies:
        words.append(f"idle-shrink:semi-warm-delay={milliseconds(IDLE_SHRINK_DELAY / speedup)}")
    return words
