#!/usr/bin/env python3
"""What the test of farmem.ko does with pages, each of them compared with what it must be.

exercise.py raw DISK         writes, overwrites, discards and reads at random places
exercise.py pressure PAGES   fills and reads twice; its cgroup is smaller
exercise.py pageout PAGES    tells the kernel to page out, then compares: none is lost when writes fail
exercise.py failing PAGES    a read that fails kills who reads, and no other page suffers; PARAMETER names another way to fail
exercise.py endure PAGES FILE  reads, compares and changes pages at random until FILE is gone; prints how many
"""

import ctypes
import fcntl
import mmap
import os
import random
import signal
import struct
import sys
import time

PAGE, BLKDISCARD, MADV_PAGEOUT, MCL_CURRENT = 4096, 0x1277, 21, 1
PARAMETERS = "/sys/module/farmem/parameters/"


def content(page, version=0):
    return struct.pack("QQ", page * 2654435761 % 2**64, version) * (PAGE // 16)


def raw(disk):
    choose = random.Random(1)
    file = os.open(disk, os.O_RDWR | os.O_DIRECT | os.O_EXCL)
    pages = os.lseek(file, 0, os.SEEK_END) // PAGE
    buffer = mmap.mmap(-1, 16 * PAGE)
    held = {}
    for version in range(3000):
        page, count = choose.randrange(pages - 16), choose.randrange(1, 17)
        action = choose.randrange(3)
        if action == 0:
            for i in range(count):
                buffer[i * PAGE:(i + 1) * PAGE] = content(page + i, version)
                held[page + i] = version
            assert os.pwritev(file, [memoryview(buffer)[:count * PAGE]], page * PAGE) == count * PAGE
        elif action == 1:
            fcntl.ioctl(file, BLKDISCARD, struct.pack("QQ", page * PAGE, count * PAGE))
            for i in range(count):
                held.pop(page + i, None)
        else:
            assert os.preadv(file, [memoryview(buffer)[:count * PAGE]], page * PAGE) == count * PAGE
            for i in range(count):
                want = content(page + i, held[page + i]) if page + i in held else bytes(PAGE)
                assert buffer[i * PAGE:(i + 1) * PAGE] == want, f"page {page + i} is wrong"
    print(len(held) * PAGE)
    # What is not of whole pages is refused, and so is what lies beyond the end.
    for place, length in ((512, 4096), (0, 512), (0, 4096 + 512)):
        try:
            os.preadv(file, [memoryview(buffer)[:length]], place)
        except OSError:
            continue
        sys.exit(f"{length} bytes at {place} could be read")
    try:
        os.pwritev(file, [memoryview(buffer)[:PAGE]], pages * PAGE)
        sys.exit("the device could be written beyond its end")
    except OSError:
        pass


class Pages:
    def __init__(self, count):
        self.count = count
        self.memory = mmap.mmap(-1, count * PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        for page in range(count):
            self.memory[page * PAGE:(page + 1) * PAGE] = content(page)

    def compare(self, but=None):
        for page in range(self.count):
            if page != but and self.memory[page * PAGE:(page + 1) * PAGE] != content(page):
                sys.exit(f"page {page} is wrong")

    def page_out(self, wanted):
        for _ in range(20):
            self.memory.madvise(MADV_PAGEOUT)
            if resident_swap() >= wanted * PAGE:
                return
            time.sleep(0.1)
        sys.exit(f"only {resident_swap()} bytes were paged out of {wanted * PAGE}")


def resident_swap():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) << 10 for line in status if line.startswith("VmSwap"))


def pressure(count):
    start = time.monotonic()
    pages = Pages(count)
    for _ in range(2):
        pages.compare()
    print(f"{count} pages under pressure, written and read twice: {time.monotonic() - start:.2f} s, 0 wrong")


def pageout(count):
    pages = Pages(count)
    for _ in range(3):
        pages.memory.madvise(MADV_PAGEOUT)
        time.sleep(0.2)
    pages.compare()


def failing(count, parameter="fail_reads"):
    path = PARAMETERS + parameter
    # What the interpreter itself needs is not to fail.
    if ctypes.CDLL(None).mlockall(MCL_CURRENT) != 0:
        sys.exit("mlockall failed")
    pages = Pages(count)
    pages.page_out(count // 2)
    with open(path, "w") as file:
        file.write("1")
    # The first page that is not in the swap cache any more; with several processors that may be any.
    reached = mmap.mmap(-1, 8)
    child = os.fork()
    if child == 0:
        address = ctypes.addressof(ctypes.c_char.from_buffer(pages.memory))
        for page in range(count):
            struct.pack_into("Q", reached, 0, page)
            ctypes.string_at(address + page * PAGE, 1)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    with open(path, "w") as file:
        file.write("0")
    if not os.WIFSIGNALED(status) or os.WTERMSIG(status) != signal.SIGBUS:
        sys.exit(f"a failed read ended with status {status} instead of SIGBUS")
    pages.compare(but=struct.unpack("Q", reached[:])[0])


def endure(count, file):
    choose = random.Random(count)
    pages = Pages(count)
    versions = [0] * count
    done = 0
    while os.path.exists(file) or done < count:
        page = choose.randrange(count)
        place = slice(page * PAGE, (page + 1) * PAGE)
        if pages.memory[place] != content(page, versions[page]):
            sys.exit(f"page {page} is wrong after {done} operations")
        if choose.randrange(2):
            versions[page] += 1
            pages.memory[place] = content(page, versions[page])
        done += 1
    for page in range(count):
        if pages.memory[page * PAGE:(page + 1) * PAGE] != content(page, versions[page]):
            sys.exit(f"page {page} is wrong at the end")
    print(f"{done} operations on {count} pages, 0 wrong")


action, argument = sys.argv[1:3]
if action == "raw":
    raw(argument)
else:
    actions = {"pressure": pressure, "pageout": pageout, "failing": failing, "endure": endure}
    actions[action](int(argument), *sys.argv[3:])
