#!/usr/bin/env python3
"""What the test of frontswap does with pages, each of them compared with what it must be.

pages.py pressure PAGES ROUNDS [shared]   fills, then reads and writes at random; its cgroup is smaller
pages.py out PAGES                        tells the kernel to page out, then compares: none is lost when stores fail
pages.py huge PAGES                       pages out memory in huge pages, then compares
pages.py failing PAGES FORBIDDEN          loads that fail kill who reads: with a byte of FORBIDDEN is never read instead
pages.py orphan PAGES                     waits; then every third page is lost, and no other
pages.py killed PAGES TIMES               processes are killed amid their loads, and nobody else suffers
pages.py churn PAGES FILE                 reads at random until FILE is there, then compares all
pages.py grow PAGES                       writes through new memory in small steps
pages.py locked PAGES                     holds memory that cannot be paged out, for two seconds
"""

import ctypes
import mmap
import os
import random
import signal
import struct
import sys
import time

PAGE, MADV_HUGEPAGE, MADV_PAGEOUT = 4096, 14, 21
FAIL_READS = "/sys/module/farmem/parameters/fail_reads"


def content(page, version=0):
    return struct.pack("QQ", page * 2654435761 % 2**64, version) * (PAGE // 16)


def status(field, file="/proc/self/status"):
    with open(file) as lines:
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith(field))


def cgroup():
    with open("/proc/self/cgroup") as lines:
        return lines.read().strip().split(":")[-1]


class Pages:
    def __init__(self, count, shared=False, huge=False):
        self.count = count
        self.memory = mmap.mmap(-1, count * PAGE, (mmap.MAP_SHARED if shared else mmap.MAP_PRIVATE) | mmap.MAP_ANONYMOUS)
        if huge:
            self.memory.madvise(MADV_HUGEPAGE)
        self.versions = [0] * count
        for page in range(count):
            self.write(page, 0)

    def write(self, page, version):
        self.versions[page] = version
        self.memory[page * PAGE:(page + 1) * PAGE] = content(page, version)

    def check(self, page):
        if self.memory[page * PAGE:(page + 1) * PAGE] != content(page, self.versions[page]):
            sys.exit(f"page {page} is wrong")

    def check_all(self):
        for page in range(self.count):
            self.check(page)

    def page_out(self, wanted, spare=64):
        """Out of memory, too: stores in flight leave pages in the swap cache until reclaim comes by again."""
        for _ in range(200):
            self.memory.madvise(MADV_PAGEOUT)
            time.sleep(0.05)
            here = status("SwapCached", "/proc/meminfo")
            if status("VmSwap") >= wanted * PAGE and here < spare * PAGE:
                return
            # No more than that, or this interpreter goes, too.
            try:
                with open(f"/sys/fs/cgroup{cgroup()}/memory.reclaim", "w") as reclaim:
                    reclaim.write(str(here))
            except OSError:
                pass
        sys.exit(f"{status('VmSwap')} bytes were paged out of {wanted * PAGE}, {status('SwapCached', '/proc/meminfo')} of them are here")


def pressure(count, rounds, *shared):
    pages = Pages(int(count), bool(shared))
    choose = random.Random(1)
    for version in range(1, int(rounds) + 1):
        for _ in range(pages.count // 2):
            page = choose.randrange(pages.count)
            pages.check(page)
            if choose.randrange(3) == 0:
                pages.write(page, version)
        pages.check_all()


def out(count):
    pages = Pages(int(count))
    for _ in range(3):
        pages.memory.madvise(MADV_PAGEOUT)
        time.sleep(0.2)
    pages.check_all()


def huge(count):
    pages = Pages(int(count), huge=True)
    there = status("AnonHugePages", "/proc/self/smaps_rollup")
    if there < pages.count * PAGE // 2:
        sys.exit(f"{there} bytes are in huge pages")
    pages.page_out(pages.count)
    pages.check_all()


def failing(count, forbidden):
    pages = Pages(int(count))
    pages.page_out(pages.count)
    with open(FAIL_READS, "w") as parameter:
        parameter.write("1")
    ends = []
    for page in range(0, 64, 8):
        child = os.fork()
        if child == 0:
            byte = ctypes.string_at(ctypes.addressof(ctypes.c_char.from_buffer(pages.memory)) + page * PAGE, 1)
            os._exit(3 if byte[0] == int(forbidden) else 0)
        ends.append(os.waitpid(child, 0)[1])
    with open(FAIL_READS, "w") as parameter:
        parameter.write("0")
    for end in ends:
        if not os.WIFSIGNALED(end) or os.WTERMSIG(end) != signal.SIGBUS:
            sys.exit(f"a failed read ended with status {end} instead of SIGBUS")
    # Failed pages stay failed while they are in the swap cache, and there may be readahead among them.
    for page in range(128, pages.count):
        pages.check(page)


def orphan(count):
    """swapoff fails to read some: those are SIGBUS for ever, the others are well."""
    pages = Pages(int(count))
    pages.page_out(pages.count)
    print("out", flush=True)
    sys.stdin.read()
    lost = 0
    for page in range(pages.count):
        child = os.fork()
        if child == 0:
            pages.check(page)
            os._exit(0)
        end = os.waitpid(child, 0)[1]
        if os.WIFSIGNALED(end) and os.WTERMSIG(end) == signal.SIGBUS:
            lost += 1
        elif end:
            sys.exit(f"page {page} ended with status {end}")
    if not pages.count // 4 <= lost <= pages.count // 2:
        sys.exit(f"{lost} of {pages.count} pages are lost, not every third")


def killed(count, times):
    pages = Pages(int(count))
    choose = random.Random(2)
    for _ in range(int(times)):
        pages.page_out(pages.count * 3 // 4, pages.count // 4)
        child = os.fork()
        if child == 0:
            pages.check_all()
            os._exit(0)
        time.sleep(choose.random() * 0.05)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    pages.check_all()


def churn(count, file):
    pages = Pages(int(count))
    choose = random.Random(3)
    print("filled", flush=True)
    while not os.path.exists(file):
        for _ in range(100):
            page = choose.randrange(pages.count)
            pages.check(page)
            pages.write(page, pages.versions[page] + 1)
    pages.check_all()


def grow(count):
    memory = mmap.mmap(-1, int(count) * PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for page in range(int(count)):
        memory[page * PAGE:page * PAGE + 8] = b"12345678"
        if page % 64 == 0:
            time.sleep(0.001)
    usage = os.times()
    print(f"{usage.system:.2f}")
    sys.stdout.flush()
    sys.stdin.read()


def locked(count):
    memory = mmap.mmap(-1, int(count) * PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    if ctypes.CDLL(None, use_errno=True).mlock(ctypes.c_void_p(address), ctypes.c_size_t(int(count) * PAGE)) != 0:
        sys.exit("mlock failed")
    print("locked", flush=True)
    sys.stdin.read()


{function.__name__: function for function in (pressure, out, huge, failing, orphan, killed, churn, grow, locked)}[sys.argv[1]](*sys.argv[2:])
