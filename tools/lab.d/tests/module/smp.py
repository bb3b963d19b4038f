#!/usr/bin/env python3
"""smp.py NUMBER PAGES SECONDS: a process of the test with several processors. Writes pages, pages out, lets pages go, compares all
of it, on whatever processor, until the time is over. A byte for the descriptor 9 says that it began."""

import mmap
import os
import random
import struct
import sys
import time

PAGE, MADV_DONTNEED, MADV_PAGEOUT = 4096, 4, 21
number, count, seconds = (int(word) for word in sys.argv[1:])
choose = random.Random(number)
memory = mmap.mmap(-1, count * PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
versions = [0] * count


def content(page):
    version = versions[page]
    return struct.pack("QQ", (number << 32 | page) * 2654435761 % 2**64, version) * (PAGE // 16) if version else bytes(PAGE)


def write(page):
    versions[page] += 1
    memory[page * PAGE:(page + 1) * PAGE] = content(page)


def compare(pages):
    for page in pages:
        if memory[page * PAGE:(page + 1) * PAGE] != content(page):
            sys.exit(f"process {number}: page {page} is wrong")


for page in range(count):
    write(page)
os.write(9, b"\n")
end = time.monotonic() + seconds
rounds = 0
while time.monotonic() < end:
    first = choose.randrange(count)
    few = range(first, min(count, first + choose.randrange(1, 256)))
    action = choose.randrange(8)
    if action == 0:
        memory.madvise(MADV_PAGEOUT, few[0] * PAGE, len(few) * PAGE)
    elif action == 1:
        memory.madvise(MADV_DONTNEED, few[0] * PAGE, len(few) * PAGE)
        for page in few:
            versions[page] = 0
    elif action == 2:
        # The copy shares its swapped pages: a slot is free when both let it go.
        child = os.fork()
        if child == 0:
            compare(few)
            for page in few:
                write(page)
            compare(few)
            os._exit(0)
        if os.waitpid(child, 0)[1] != 0:
            sys.exit(f"process {number}: its child found a wrong page, or died")
    elif action < 6:
        for page in few:
            write(page)
    else:
        compare(few)
    rounds += 1
compare(range(count))
if rounds < 10:
    sys.exit(f"only {rounds} rounds: nothing was tried")
