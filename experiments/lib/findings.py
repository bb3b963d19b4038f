"""What a stored result says, per policy and function. A function of which a request got no answer has no figures of that policy."""

import stats


# As FaaSMem counts them: three applications, eight micro-benchmarks.
FUNCTIONS = ["bert", "graph", "web", "float", "matmul", "linpack", "image", "chameleon", "pyaes", "gzip", "json"]


def change_of_events(percent):
    """The statistic of Findings.events: how much higher the percentile is than the reference's."""
    def change(events):
        own, other = (stats.percentile([value for event in events for pair in event for value in pair[side]], percent) for side in (0, 1))
        return own / other - 1 if own is not None and other else None

    return change


class Findings:
    def __init__(self, result):
        self.result = result
        self.report = result["report"]
        self.virtual = bool(result.get("virtual"))
        self.speedup = result["configuration"]["speedup"]
        self.functions = self.report["functions"]
        self.failed = dict(self.report.get("failed_functions", {}))
        self.problems = {}
        self.phases = {}
        for phase in self.report["phases"]:
            if phase.get("problem"):
                self.problems[phase["policy"]] = phase["problem"]
            else:
                self.phases.setdefault(phase["policy"], []).append(phase)
        self.policies = list(self.phases)

    def bases(self):
        """The functions without their loads' words, in the suite's order."""
        return sorted({name.split("-")[0] for name in self.functions}, key=lambda name: (FUNCTIONS.index(name) if name in FUNCTIONS else 99, name))

    def requests(self, policy, function=None, warm_up=False):
        return [request for phase in self.phases.get(policy, []) for request in phase["requests"]
                if (function is None or request["function"] == function) and (warm_up or not request["warm_up"])]

    def broken(self, policy, function):
        """How many requests of a function got no answer, warm-up included."""
        return sum(request["outcome"] != "right" for request in self.requests(policy, function, warm_up=True))

    def whole(self, policy, function):
        return policy in self.phases and self.broken(policy, function) == 0

    def latencies(self, policy, function=None):
        """Milliseconds, of the functions that are whole under this policy."""
        if self.virtual:
            raise ValueError("a run in virtual time has no latencies")
        return [request["latency_us"] / 1000 for request in self.requests(policy, function)
                if self.whole_cached(policy, request["function"])]

    def whole_cached(self, policy, function):
        cache = self.__dict__.setdefault("_whole", {})
        if (policy, function) not in cache:
            cache[policy, function] = self.whole(policy, function)
        return cache[policy, function]

    def latency(self, policy, function, percent):
        return stats.percentile(self.latencies(policy, function), percent)

    def local(self, policy, function):
        """Mean bytes of local memory of all containers, after the warm-up; None where the function is not whole."""
        if not self.whole_cached(policy, function):
            return None
        return stats.mean(phase["memory"][function]["local_bytes_mean"] for phase in self.phases[policy])

    def far(self, policy, function):
        if not self.whole_cached(policy, function):
            return None
        return stats.mean(phase["memory"][function]["far_bytes_mean"] for phase in self.phases[policy])

    def saved(self, policy, function, reference="none"):
        """Share of the reference's local memory; None where either is not whole."""
        own, other = self.local(policy, function), self.local(reference, function)
        if own is None or not other:
            return None
        return 1 - own / other

    def measured(self, policy, function):
        """The function's timeline after the warm-up, of all repetitions: bytes."""
        values = []
        for phase in self.phases.get(policy, []):
            line = phase["timeline"]
            values += [value for moment, value in zip(line["ms"], line["functions"][function]["local_bytes"])
                       if moment >= self.report["warm_up_ms"]]
        return values

    def saved_interval(self, policy, function, reference="none", block=5):
        """95 %: blocks of the timelines drawn again."""
        if self.saved(policy, function, reference) is None:
            return None
        own = stats.blocks(self.measured(policy, function), block)
        other = stats.blocks(self.measured(reference, function), block)
        if len(own) < 3 or len(other) < 3:
            return None

        def statistic(a, b):
            return 1 - stats.mean(a) / stats.mean(b) if stats.mean(b) else None

        return stats.bootstrap([own, other], statistic)

    def change(self, policy, function, percent=95, reference="none"):
        """How much higher a percentile is than the reference's: 0.1 is a tenth."""
        own, other = self.latency(policy, function, percent), self.latency(reference, function, percent)
        return own / other - 1 if own is not None and other else None

    def change_interval(self, policy, function, percent=95, reference="none"):
        """95 % of `change`; None with fewer than 5 events."""
        events = self.events(policy, [function], reference)
        return stats.bootstrap([events], change_of_events(percent)) if len(events) >= 5 else None

    def change_by_faults(self, policy, functions, most, percent=95, reference="none"):
        """(share, change): how many requests had more than `most` faults on far memory under the policy in a repetition, and the pooled change of the others,
        which are left out under both."""
        waited, known = set(), set()
        for request in self.requests(policy):
            if request["function"] in functions and self.whole_cached(policy, request["function"]):
                key = (request["function"], request["due_ms"])
                known.add(key)
                if (request["major_faults"] or 0) > most:
                    waited.add(key)
        events = self.events(policy, functions, reference, without=waited)
        return (len(waited) / len(known), change_of_events(percent)(events)) if known and events else (None, None)

    def events(self, policy, functions, reference="none", without=frozenset()):
        """The same request under both: ([latency over its function's median without offloading, of each repetition], the same of the reference), in lists
        of those that belong together. All policies replay one schedule: a request that starts a container, or meets another, does so under each, so it is
        requests that are drawn again, with what they took under both, and not latencies of each policy by themselves. And those that came while an
        earlier one of their function was not yet answered, under either policy, waited for the same: they are one event, drawn or not drawn as a whole."""
        middles = {name: self.latency(reference, name, 50) for name in functions if self.whole_cached(policy, name)}
        found, answered = {}, {}
        for side, name in enumerate((policy, reference)):
            for request in self.requests(name):
                middle = middles.get(request["function"])
                key = (request["function"], request["due_ms"])
                if middle and key not in without:
                    found.setdefault(key, ([], []))[side].append(request["latency_us"] / 1000 / middle)
                    answered[key] = max(answered.get(key, 0), request["due_ms"] + request["latency_us"] / 1000)
        events, function, busy = [], None, 0
        for key in sorted(found):
            if key[0] != function or key[1] >= busy:
                events.append([])
                function, busy = key[0], 0
            events[-1].append(found[key])
            busy = max(busy, answered[key])
        return events

    def pooled_change(self, policy, functions, percent=95, reference="none"):
        """(change, interval) of the percentile over the latencies of several functions, each over its function's median without offloading."""
        events = self.events(policy, functions, reference)
        change = change_of_events(percent)
        return (change(events), stats.bootstrap([events], change)) if events else (None, None)

    def cold_starts(self, policy, function=None):
        return sum(request["cold"] for request in self.requests(policy, function, warm_up=True))

    def decisions(self, policy):
        return [decision for phase in self.phases.get(policy, []) for decision in phase["decisions"]]

    def note(self):
        """What every figure says of its run."""
        machine = self.result["machine"]
        if self.virtual:
            return (f"Virtual time, uncompressed: {self.report['duration_ms'] // 1000} s per policy, seed {self.result['seed']}, one processor of User-Mode Linux "
                    f"{machine['kernel']}; its latencies mean nothing and are not reported. {self.revision()}")
        text = (f"{self.report['duration_ms'] // 1000} s per policy, {self.speedup}x compressed time (keep-alive, delays, windows and percentiles alike), "
                f"seed {self.result['seed']}, {machine['processors']} processors, Linux {machine['kernel']}, ")
        return text + self.revision()

    def revision(self):
        return self.result["revision"]["git"][:10] + (" (changed)" if self.result["revision"]["dirty"] else "")

    def troubles(self):
        """Lines about what is not in the figures."""
        lines = [f"{name} is left out: {reason}" for name, reason in sorted(self.failed.items())]
        lines += [f"{policy} was not run: {reason}" for policy, reason in sorted(self.problems.items())]
        for policy in self.policies:
            for function in self.functions:
                count = self.broken(policy, function)
                if count:
                    lines.append(f"{function} under {policy} is not averaged in: {count} requests got no answer")
        return lines
