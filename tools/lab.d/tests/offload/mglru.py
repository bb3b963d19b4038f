"""offloadd --engine mglru on a kernel with MGLRU and cgroup v2. See guest/offload-mglru.sh.

User-Mode Linux sets the accessed bit of a page once and not again without a fault, so there a page that a window used may leave
like an unused one: what must stay local is judged elsewhere only (tools/lab test --vm debian-6.1 offload-mglru).
"""

import os
import pathlib

from world import BIN, Container, Controller, MIB, check, main, wait

SEES_ACCESSES = "user-mode" not in pathlib.Path("/proc/cpuinfo").read_text().lower() and "UML" not in pathlib.Path(
    "/proc/cpuinfo").read_text()


def barriers(controller, container, runtime=24, initialization=24):
    """A container through its launch: both barriers, and what lies behind them."""
    before = max(container.generations(), default=0)
    controller.send("container_started", container.name)
    container.grow("runtime", runtime)
    controller.send("runtime_ready", container.name)
    first = wait("the barrier behind the runtime", lambda: max(container.generations()) > before and max(container.generations()))
    container.grow("init", initialization)
    controller.send("init_done", container.name)
    wait("the barrier behind initialization", lambda: max(container.generations()) > first)


def request(controller, container, *touches):
    controller.send("request_start", container.name)
    for part, mebibytes in touches:
        container.touch(part, mebibytes)
    controller.send("request_end", container.name)
    controller.settle()


def far(container):
    return container.figure("memory.swap.current") - container.statistic("swapcached")


def agrees(controller, container):
    """What status says is what the kernel says, to a few pages of an idle process."""
    def close():
        status = controller.container(container.name)
        pages = sum(anonymous for anonymous, _ in container.generations().values())
        figures = [(status["far_bytes"], far(container)), (status["local_bytes"], container.figure("memory.current")),
                   (status["anon_bytes"], container.statistic("anon"))]
        parts = [status["segments"][name]["local_bytes"] for name in ("runtime", "init", "execution")] if status["segments"] else [None]
        if None not in parts and status["segments"]["age_ms"] < 900:
            figures.append((sum(parts), pages * 4096))
        elif None not in parts:
            return False
        return all(abs(said - is_) <= MIB for said, is_ in figures)
    wait("status agrees with the kernel", close)


def engine_is_said():
    automatic = Controller()
    status = automatic.get("/v1/status")
    check(status["engine"] == "generic" and status["engine_reason"], f"auto is {status}")
    check('engine{engine="generic"} 1' in automatic.get("/metrics"), "no metric of the engine")
    automatic.stop()


def puckets_leave_and_come_back():
    controller = Controller("--engine", "mglru", "--semi-warm=false", "--rollback-interval", "1ms", "--request-window", "1")
    check(controller.get("/v1/status")["engine"] == "mglru", "another engine runs")
    container = Container("a")
    # A program that nobody has run yet.
    container.ask("cache", BIN / "memserver", 0, 2048)
    cached = container.statistic("file") - container.statistic("shmem")
    check(cached >= 4 * MIB, f"only {cached} bytes of file cache")
    barriers(controller, container)
    container.grow("execution", 8)
    check(far(container) < 4 * MIB, "something left before the first request")
    request(controller, container, ("runtime", 6))
    least = 16 if SEES_ACCESSES else 12
    wait("the Runtime Pucket has left", lambda: far(container) >= least * MIB)
    wait("the event says so", lambda: any(
        e["action"] == "release-runtime" and e["released_bytes"] >= least * MIB for e in controller.get("/v1/events")["events"]))
    if SEES_ACCESSES:
        check(far(container) < 26 * MIB, f"used pages left too: {far(container) >> 20} MiB are far")
    agrees(controller, container)
    request(controller, container, ("init", 6))
    request(controller, container, ("init", 6))
    wait("the Init Pucket has left", lambda: far(container) >= (least + 14) * MIB)
    agrees(controller, container)
    status = controller.container("a")
    left = container.statistic("file") - container.statistic("shmem")
    # The kernel takes file cache of older generations first. That is accounted, and not as offloaded.
    check(abs(status["file_dropped_bytes"] - (cached - left)) <= MIB, f"{status['file_dropped_bytes']} of it are accounted")
    check(abs(status["file_bytes"] - left) <= MIB, "status tells another size of the cache")
    check(status["generation_errors"] == 0, "orders failed")
    request(controller, container, ("runtime", 24), ("init", 24), ("execution", 8))
    container.end()
    controller.stop()


def the_kernel_ages_in_between():
    """Memory pressure ages and evicts by itself while barriers stand: nothing fails, nothing is lost, later windows work."""
    controller = Controller("--engine", "mglru", "--semi-warm=false", "--rollback-interval", "1ms", "--request-window", "1")
    container = Container("b")
    barriers(controller, container)
    (container.group / "memory.max").write_text(f"{40 * MIB}")
    container.grow("more", 30)
    container.touch("more", 30)
    check(container.figure("memory.swap.current") > 8 * MIB, "the limit pressed nobody")
    (container.group / "memory.max").write_text("max")
    for _ in range(4):
        request(controller, container, ("init", 4))
    # By hand, as kswapd would: so often that every barrier is merged with younger pages.
    for _ in range(5):
        youngest = max(container.generations())
        pathlib.Path("/sys/kernel/debug/lru_gen").write_text(f"+ {container.number} 0 {youngest} 1 1")
        check(max(container.generations()) > youngest, "the kernel did not age")
    request(controller, container, ("init", 4))
    wait("the merged Puckets are noticed", lambda: controller.container("b")["generation_merges"] > 0)
    status = controller.container("b")
    check(status["generation_errors"] == 0, f"{status['generation_errors']} orders failed")
    before = far(container)
    container.touch("runtime", 24)
    container.touch("more", 30)
    check(far(container) < max(before, MIB), "nothing came back")
    # New windows find new barriers.
    def more_leaves():
        request(controller, container, ("init", 4))
        return far(container) >= 40 * MIB
    wait("later windows release again", more_leaves)
    agrees(controller, container)
    request(controller, container, ("runtime", 24), ("init", 24), ("more", 30))
    container.end()
    controller.stop()


def an_idle_container_is_drained_and_a_request_brings_it_back():
    controller = Controller("--engine", "mglru", "--semi-warm-prior", "500ms", "--semi-warm-min", "500ms", "--drain-percent", "50",
                            "--floor", "4MiB", "--runtime-pucket=false", "--init-pucket=false")
    container = Container("c")
    barriers(controller, container)
    wait("the container is drained", lambda: controller.container("c")["state"] == "drained")
    check(far(container) >= 40 * MIB, f"{far(container) >> 20} MiB are far")
    agrees(controller, container)
    controller.send("request_start", "c")
    wait("the working set is brought back", lambda: controller.container("c")["recalled_bytes"] >= 40 * MIB)
    container.touch("runtime", 24)
    container.touch("init", 24)
    controller.send("request_end", "c")
    check(controller.container("c")["generation_errors"] == 0, "orders failed")
    # A drain that a request stops, then a container that is gone in the middle of one.
    wait("it is semi-warm again", lambda: controller.container("c")["state"] == "semi-warm")
    controller.send("request_start", "c")
    container.touch("runtime", 24)
    controller.send("request_end", "c")
    wait("it is semi-warm again", lambda: controller.container("c")["state"] in ("semi-warm", "drained"))
    container.end()
    wait("it is forgotten", lambda: controller.container("c") is None)
    controller.stop()


if __name__ == "__main__":
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    main(engine_is_said, puckets_leave_and_come_back, the_kernel_ages_in_between,
         an_idle_container_is_drained_and_a_request_brings_it_back)
