"""offloadd --policy damon on a kernel with DAMON's sysfs. See guest/offload-damon.sh."""

import pathlib
import subprocess

from world import BIN, Container, Controller, MIB, SOCKET, check, main, wait

KDAMONDS = pathlib.Path("/sys/kernel/mm/damon/admin/kdamonds")
OPTIONS = ("--policy", "damon", "--damon-age", "2s")


def count():
    return int((KDAMONDS / "nr_kdamonds").read_text())


def far(container):
    return container.figure("memory.swap.current") - container.statistic("swapcached")


def started(controller, container):
    controller.send("container_started", container.name)
    controller.send("runtime_ready", container.name)


def cold_pages_leave():
    controller = Controller(*OPTIONS)
    container = Container("a")
    container.grow("cold", 48)
    started(controller, container)
    wait("the cold pages have left", lambda: far(container) >= 30 * MIB, 120)
    second = Container("b")
    second.grow("cold", 32)
    started(controller, second)
    wait("those of a container that came later, too", lambda: far(second) >= 16 * MIB, 120)
    container.touch("cold", 48)
    second.end()
    container.end()
    wait("nothing is left to watch", lambda: count() == 0)
    controller.stop()
    check(count() == 0, "a kdamond is left")


def a_killed_controller_leaves_nothing_for_good():
    controller = Controller(*OPTIONS)
    container = Container("c")
    container.grow("cold", 16)
    started(controller, container)
    wait("DAMON runs", lambda: count() == 1 and (KDAMONDS / "0/state").read_text() == "on\n")
    controller.process.kill()
    controller.process.wait()
    check(count() == 1, "it went by itself")
    successor = Controller()
    check(count() == 0, "the next start has not ended it")
    successor.stop()
    container.end()


def somebody_elses_is_left_alone():
    other = Container("d")
    other.grow("cold", 16)
    for name, value in (("nr_kdamonds", 1), ("0/contexts/nr_contexts", 1), ("0/contexts/0/operations", "vaddr"),
                        ("0/contexts/0/targets/nr_targets", 1), ("0/contexts/0/targets/0/pid_target", other.process.pid),
                        ("0/state", "on")):
        (KDAMONDS / name).write_text(str(value))
    pid = (KDAMONDS / "0/pid").read_text()
    refused = subprocess.run([BIN / "offloadd", "run", "--listen", f"unix:{SOCKET}", "--state-dir", "/run/farmem/state", *OPTIONS],
                             stderr=subprocess.PIPE, text=True, timeout=60)
    check(refused.returncode != 0 and "DAMON is in use" in refused.stderr, f"{refused.returncode}: {refused.stderr}")
    check((KDAMONDS / "0/pid").read_text() == pid and (KDAMONDS / "0/state").read_text() == "on\n", "it was touched")
    (KDAMONDS / "0/state").write_text("off")
    (KDAMONDS / "nr_kdamonds").write_text("0")
    other.end()


if __name__ == "__main__":
    main(cold_pages_leave, a_killed_controller_leaves_nothing_for_good, somebody_elses_is_left_alone)
