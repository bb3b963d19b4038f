#!/usr/bin/env python3
"""Swap-in and page-out through farmem.ko over RDMA, against NVMe over RDMA with a ramdisk (nvmet), NBD over TCP, the FUSE frontend, farmem.ko
with pages in the host's own memory, and one page per round trip as Fastswap does; and a READ of 4 KiB with nothing around it
(farmem bench rdma). All in one guest, at the two ends of one cable with Soft-RoCE, one after the other in rounds whose order alternates.

Each device is measured by `farmem bench swap`, every page verified; two of them also with every other place of their area taken, as it is after
days of use, where hardly two pages are neighbours. Emulated processors make every figure meaningless but the
ratios. The memory server's processor time is its own, without what Soft-RoCE does in the kernel for it.
"""

import argparse
import contextlib
import json
import os
import pathlib
import secrets
import subprocess
import sys
import time

from common import binary_directory, finish, judge, median, run

NEAR, FAR = "192.168.77.1", "192.168.77.2"
# Page-out counts to its end: NVMe and NBD take a page into a queue, and the call returns, long before it is anywhere.
KEYS = ["page_out_complete_pages_per_second", "random_in_p50_us", "random_in_p99_us", "random_in_pages_per_second",
        "sequential_in_pages_per_second", "prefetch_in_pages_per_second"]
FRAGMENTED = ", fragmented"
RUNTIME = pathlib.Path("/run/farmem")
SERVER_KEYS = "/run/keys"


def wait_for(what, condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"bench lab: {what} did not come in {seconds} s")
        time.sleep(0.05)


class Server:
    """A memserver of a directory of its own."""

    def __init__(self, name, *options):
        directory = pathlib.Path("/dev/shm") / name
        (directory / "pool").mkdir(parents=True)
        ours, theirs = os.pipe()
        log = open(directory / "log", "wb")
        self.process = subprocess.Popen(
            [str(binary_directory() / "memserver"), "serve", "--pool", str(directory / "pool"), "--ready-fd", str(theirs), *options],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=[theirs],
            env={**os.environ, "FARMEM_RUNTIME_DIR": str(directory)})
        os.close(theirs)
        if not os.read(ours, 64):
            raise SystemExit(f"bench lab: memserver did not start: {(directory / 'log').read_text()[-400:]}")

    def processor_ms(self):
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return int(fields[11]) * 1000 / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def swap_on(path, size):
    run(["mkswap", path, str(size << 10)])
    run(["swapon", "--discard", path])
    try:
        yield
    finally:
        run(["swapoff", path])


def farswap(url, size, *options):
    @contextlib.contextmanager
    def attached():
        program = binary_directory() / "farswap"
        run([program, "attach", url, "--size", f"{size}MiB", *options])
        try:
            yield
        finally:
            run([program, "detach", "far0"])
    return attached


class Nvme:
    """nvmet with a ramdisk at the far end, connected to by the kernel's initiator."""

    NAME = "farmem-lab"

    def __init__(self, size):
        self.size = size
        subprocess.run(["modprobe", "-a", "nvmet-rdma", "nvme-rdma"], capture_output=True)
        root = pathlib.Path("/sys/kernel/config/nvmet")
        space, port = root / "subsystems" / self.NAME / "namespaces/1", root / "ports/1"
        space.parent.parent.mkdir()
        (space.parent.parent / "attr_allow_any_host").write_text("1")
        space.mkdir()
        (space / "device_path").write_text("/dev/ram0")
        (space / "enable").write_text("1")
        port.mkdir()
        for name, value in {"trtype": "rdma", "adrfam": "ipv4", "traddr": FAR, "trsvcid": "4420"}.items():
            (port / f"addr_{name}").write_text(value)
        (port / "subsystems" / self.NAME).symlink_to(space.parent.parent)

    @contextlib.contextmanager
    def attached(self):
        with open("/dev/nvme-fabrics", "r+b", buffering=0) as fabrics:
            fabrics.write(f"transport=rdma,traddr={FAR},trsvcid=4420,nqn={self.NAME}".encode())
            number = fabrics.read(200).decode().split("instance=")[1].split(",")[0]
        disk = pathlib.Path(f"/dev/nvme{number}n1")
        try:
            wait_for(f"{disk}", disk.exists)
            with swap_on(disk, self.size):
                yield
        finally:
            pathlib.Path(f"/sys/class/nvme/nvme{number}/delete_controller").write_text("1")
            wait_for("the end of the NVMe controller", lambda: not disk.exists())


def raw_read(pages, seed):
    """p50 of a READ of 4 KiB in microseconds; polled where there are several processors."""
    report = json.loads(run([binary_directory() / "farmem", "bench", "rdma", f"rdma://{FAR}/raw", "--auth-file", SERVER_KEYS, "--size", "8MiB",
                             "--pages", str(pages), "--wait", "auto", "--seed", str(seed), "--json"], timeout=600))
    if report["wrong_pages"]:
        raise SystemExit("bench lab: wrong pages")
    return report["series"]["read_one"]["p50_us"]


def bench_swap(size, seed, *options):
    """Not under a limit of memory: MGLRU of 6.1 kills a process whose memory is all on its way to a device as slow as these."""
    return json.loads(run([binary_directory() / "farmem", "bench", "swap", "--json", "--size", f"{size}MiB", "--seed", str(seed), *options],
                          timeout=600))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--module", required=True)
    parser.add_argument("--json")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--smoke", action="store_true", help="one round of 8 MiB, judges nothing")
    arguments = parser.parse_args()
    size, rounds = (8, 1) if arguments.smoke else (16, arguments.rounds)
    device = size * 3
    os.environ["FARMEM_RUNTIME_DIR"] = str(RUNTIME)
    run(["insmod", arguments.module])
    RUNTIME.mkdir(exist_ok=True)
    with open(SERVER_KEYS, "w", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
        file.write(f"lab:{secrets.token_hex(32)}\n")
    server = Server("rdma", "--capacity", f"{device * 2}MiB", "--rdma", FAR, "--auth-file", SERVER_KEYS)
    # With keys NBD wants TLS, and the kernel's client has none; so this one is not reached over the cable.
    Server("nbd", "--capacity", f"{device * 3}MiB", "--nbd", "tcp://127.0.0.1:10809", "--auto-lease", f"{device}MiB")
    rdma = (f"rdma://{FAR}/bench", device, "--frontend", "module", "--auth-file", SERVER_KEYS)
    # As the peers are: a ramdisk keeps every page it ever had, and no page-out waits for one.
    reserved = (*rdma, "--reserve")
    contenders = {
        "farmem.ko rdma": farswap(*reserved),
        "farmem.ko rdma, one page at a time": farswap(*reserved, "--synchronous"),
        "NVMe over RDMA": Nvme(device).attached,
        "NBD over TCP, loopback": farswap("nbd://127.0.0.1:10809/nbd", device, "--frontend", "nbd"),
        "FUSE, NBD over TCP, loopback": farswap("nbd://127.0.0.1:10809/fuse", device, "--frontend", "fuse"),
        "farmem.ko rdma, slabs on demand": farswap(*rdma),
        "farmem.ko dram": farswap(f"dram:{device}MiB", device, "--frontend", "module"),
    }
    fragmented = ["farmem.ko rdma", "NVMe over RDMA"]
    results, reads, server_ms = {name: [] for name in [*contenders, *(name + FRAGMENTED for name in fragmented)]}, [], 0
    for number in range(rounds):
        reads.append(raw_read(200 if arguments.smoke else 2000, arguments.seed + number))
        for name in list(contenders) if number % 2 == 0 else list(contenders)[::-1]:
            with contenders[name]():
                before = server.processor_ms()
                free = bench_swap(size, arguments.seed + number)
                after = server.processor_ms()
                if name in fragmented:
                    holes = bench_swap(size, arguments.seed + number, "--fragmented")
                    results[name + FRAGMENTED].append({**{key: holes[key] for key in KEYS}, "wrong_pages": holes["wrong_pages"], "server_ms": 0})
            if name == "farmem.ko rdma":
                server_ms = max(server_ms, after - before)
            results[name].append({**{key: free[key] for key in KEYS}, "wrong_pages": free["wrong_pages"], "server_ms": after - before})
            print(f"round {number + 1}: {name}", file=sys.stderr, flush=True)
    medians = {name: median(rounds) for name, rounds in results.items()}
    raw = sorted(reads)[len(reads) // 2]
    print(f"{'':36}{'out/s':>9}{'p50 us':>9}{'p99 us':>9}{'random/s':>10}{'seq/s':>9}{'prefetch/s':>11}{'server ms':>10}")
    for name, m in medians.items():
        print(f"{name:36}" + f"{m['page_out_complete_pages_per_second']:9,.0f}{m['random_in_p50_us']:9.1f}{m['random_in_p99_us']:9.1f}"
              f"{m['random_in_pages_per_second']:10,.0f}{m['sequential_in_pages_per_second']:9,.0f}"
              f"{m['prefetch_in_pages_per_second']:11,.0f}{m['server_ms']:10.0f}")
    print(f"READ of 4 KiB: p50 {raw:.1f} us")
    ours, one, nvme = (medians[name] for name in list(contenders)[:3])
    ours_holes, nvme_holes = (medians[name + FRAGMENTED] for name in fragmented)
    out, sequential, random = "page_out_complete_pages_per_second", "sequential_in_pages_per_second", "random_in_pages_per_second"
    figures = [
        judge("wrong pages", sum(r["wrong_pages"] for rounds in results.values() for r in rounds), most=0),
        judge("page-out, rdma / NVMe over RDMA", ours[out] / nvme[out], least=1.5),
        judge("page-out, rdma / NVMe over RDMA, fragmented", ours_holes[out] / nvme_holes[out], least=1.5),
        judge("sequential swap-in, rdma / NVMe over RDMA", ours[sequential] / nvme[sequential], least=1.5),
        judge("sequential swap-in, rdma / NVMe over RDMA, fragmented", ours_holes[sequential] / nvme_holes[sequential], least=1.5),
        judge("random swap-in, rdma / NVMe over RDMA", ours[random] / nvme[random]),
        judge("random swap-in p50, rdma / NVMe over RDMA", ours["random_in_p50_us"] / nvme["random_in_p50_us"]),
        judge("page-out, batched / one page at a time", ours[out] / one[out], least=2),
        judge("random swap-in p50, rdma / READ of 4 KiB", ours["random_in_p50_us"] / raw),
        judge("memserver's processor time, user", server_ms, unit=" ms"),
    ]
    return finish("lab", arguments, {"rounds": results, "median": medians, "read_p50_us": raw, "size_mib": size,
                                     "lab_kernel": os.environ.get("FARMEM_LAB_KERNEL")}, figures)


if __name__ == "__main__":
    sys.exit(main())
