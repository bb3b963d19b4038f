#!/usr/bin/env python3
"""A swap-in through farmem.ko over RDMA (Soft-RoCE, one processor), as block device and behind frontswap, asleep and polled, against a
READ of 4 KiB with nothing around it, in rounds whose order alternates.

A page fault of User-Mode Linux costs more than the READ: the host's kernel is asked several times. What it costs without RDMA is measured
with the backend dram, which copies, and the share of RDMA is the difference; that is judged there. In a machine of its own the whole
swap-in is judged.

And what memserver itself does while pages move that need no new slab, for some pages and for twice as many.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys

from common import binary_directory, finish, judge, median, run

FAR = "192.168.77.2"
SECRET = "00112233445566778899aabbccddeeff"
SIZE = 160 << 20
NETLINK = pathlib.Path(__file__).resolve().parents[1] / "lab.d/tests/module/farmem_netlink.py"
RDMA = ["rdma", SIZE, f"address={FAR}", "key_name=lab", f"key_secret={SECRET}"]
DRAM = ["dram", SIZE]


def netlink(*words):
    return run([sys.executable, NETLINK, *words], timeout=60)


def start_server():
    pathlib.Path("/run/farmem").mkdir(exist_ok=True)
    pathlib.Path("/dev/shm/pool").mkdir()
    keys = pathlib.Path("/tmp/keys")
    keys.touch(mode=0o600)
    keys.write_text(f"lab:{SECRET}\n")
    ours, theirs = os.pipe()
    with open("/tmp/memserver.log", "wb") as log:
        process = subprocess.Popen([str(binary_directory() / "memserver"), "serve", "--capacity", "256MiB", "--pool", "/dev/shm/pool", "--rdma", FAR,
                          "--auth-file", str(keys), "--ready-fd", str(theirs)], stdout=log, stderr=log, pass_fds=[theirs])
    os.close(theirs)
    if not os.read(ours, 64):
        raise SystemExit(f"memserver did not start: {pathlib.Path('/tmp/memserver.log').read_text()[-300:]}")
    return process


def server_time(process):
    """User and system time of all its threads in milliseconds, in whole ticks."""
    fields = pathlib.Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) * 1000 / os.sysconf("SC_CLK_TCK")


def server_share(process, smoke):
    """Pages moved, and memserver's time meanwhile: rounds of one benchmark, then of two. All slabs are granted before."""
    size = 8 if smoke else 32
    netlink("attach", "far", "rdma", 96 << 20, 96 << 20, "reserve", *RDMA[2:])
    run(["mkswap", "/dev/farmem0"])
    run(["swapon", "/dev/farmem0"])
    spent = []
    try:
        for repeats in (1, 2):
            counted = json.loads(netlink("status", "far"))
            before = server_time(process)
            for seed in range(repeats):
                run([binary_directory() / "farmem", "bench", "swap", "--size", f"{size}MiB", "--seed", seed + 1, "--json"])
            now = json.loads(netlink("status", "far"))
            pages = sum(now[name] - counted[name] for name in ("pages_read", "pages_written"))
            spent.append({"pages": pages, "ms": server_time(process) - before, "slabs": now["slabs_granted"] - counted["slabs_granted"]})
    finally:
        run(["swapoff", "/dev/farmem0"])
        netlink("detach", "far")
    return spent


def raw(wait):
    def once(seed, smoke):
        report = json.loads(run([binary_directory() / "farmem", "bench", "rdma", f"rdma://{FAR}/bench", "--auth-file", "/tmp/keys", "--size",
                                 "16MiB", "--pages", 500 if smoke else 5000, "--wait", wait, "--seed", seed, "--json"]))
        if report["wrong_pages"]:
            raise SystemExit("bench fault: wrong pages")
        one = report["series"]["read_one"]
        return {"p50": one["p50_us"], "p99": one["p99_us"], "per_second": one["pages_per_second"]}
    return once


def through(area, backend, *options):
    def once(seed, smoke):
        netlink("attach", "far", *backend, *options)
        run(["mkswap", area])
        run(["swapon", area])
        try:
            report = json.loads(run([binary_directory() / "farmem", "bench", "swap", "--size", f"{8 if smoke else 48}MiB", "--seed", seed, "--json"]))
        finally:
            run(["swapoff", area])
            netlink("detach", "far")
        return {"p50": report["random_in_p50_us"], "p99": report["random_in_p99_us"], "per_second": report["random_in_pages_per_second"]}
    return once


def is_user_mode_linux():
    return "User Mode Linux" in pathlib.Path("/proc/cpuinfo").read_text()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--module", required=True)
    parser.add_argument("--json")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--smoke", action="store_true")
    arguments = parser.parse_args()
    os.environ["FARMEM_RUNTIME_DIR"] = "/run/farmem"
    run(["insmod", arguments.module])
    server = start_server()
    spent = server_share(server, arguments.smoke)
    disk = pathlib.Path("/tmp/disk")
    disk.touch()
    os.truncate(disk, SIZE)
    loop = run(["losetup", "-f", "--show", disk]).strip()
    swapped = ["frontend=frontswap", f"area={loop}"]
    contenders = {
        "READ of 4 KiB, asleep": raw("sleep"), "READ of 4 KiB, polled": raw("poll"),
        "frontswap, dram": through(loop, DRAM, *swapped),
        "frontswap, rdma, asleep": through(loop, RDMA, *swapped),
        "frontswap, rdma, polled": through(loop, RDMA, *swapped, "poll=1"),
        "block, dram": through("/dev/farmem0", DRAM),
        "block, rdma, asleep": through("/dev/farmem0", RDMA),
        "block, rdma, polled": through("/dev/farmem0", RDMA, "poll=1"),
    }
    results = {name: [] for name in contenders}
    for number in range(1 if arguments.smoke else arguments.rounds):
        for name in list(contenders)[:: -1 if number % 2 else 1]:
            results[name].append(contenders[name](arguments.seed + number, arguments.smoke))
    medians = {name: median(rounds) for name, rounds in results.items()}
    read = min(medians[name]["p50"] for name in medians if name.startswith("READ"))
    print(f"{'':28}{'p50 us':>8}{'p99 us':>9}{'pages/s':>9}{'of a READ':>11}")
    for name, figures in medians.items():
        print(f"{name:28}{figures['p50']:8.1f}{figures['p99']:9.1f}{figures['per_second']:9,.0f}{figures['p50'] / read:10.2f}x")
    for share in spent:
        print(f"memserver while {share['pages']:,} pages moved ({share['slabs']} slabs granted): {share['ms']:.0f} ms")
    # Two ticks: what is counted is whoever runs at a tick.
    verdicts = [judge("memserver's time for twice the pages, more", spent[1]["ms"] - spent[0]["ms"], most=20, unit=" ms")]
    for kind in ("frontswap", "block"):
        for how in ("asleep", "polled"):
            share = (medians[f"{kind}, rdma, {how}"]["p50"] - medians[f"{kind}, dram"]["p50"]) / read
            verdicts.append(judge(f"{kind}, {how}: RDMA's share of a swap-in / a READ of 4 KiB", share, most=1.3))
            whole = medians[f"{kind}, rdma, {how}"]["p50"] / read
            verdicts.append(judge(f"{kind}, {how}: a swap-in / a READ of 4 KiB", whole, most=None if is_user_mode_linux() else 1.3))
    return finish("fault", arguments, {"rounds": results, "median": medians, "memserver": spent}, verdicts)


if __name__ == "__main__":
    sys.exit(main())
