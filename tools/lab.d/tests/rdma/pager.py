#!/usr/bin/env python3
"""Pages memory out and touches it again in random order; each page is compared whole, a third of them change. The memory
group GROUP has no limit: a page whose way out fails simply stays. Ends after so many pages came back from swap and the file STOP is there, or with the first
wrong byte. Prints a line of JSON.

    pager.py MIB FAULTS SEED STOP GROUP
"""

import json
import mmap
import os
import random
import resource
import sys
import time

PAGE = 4096
PAGEOUT = 21


def contents(page, version):
    return (page * 0x9E3779B97F4A7C15 + version * 0xD1B54A32D192ED03 & 2**64 - 1).to_bytes(8, "little") * (PAGE // 8)


def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_majflt


def page_out(memory, group):
    """Asks for writing first, then for what was written to be let go of: only then is a touch a fault."""
    memory.madvise(PAGEOUT)
    for _ in range(3):
        try:
            with open(f"{group}/memory.reclaim", "w") as file:
                file.write(str(len(memory)))
        except OSError:
            pass  # not all of it now
        time.sleep(0.02)


def main():
    mib, wanted, seed, stop, group = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], sys.argv[5]
    with open(f"{group}/cgroup.procs", "w") as file:
        file.write(str(os.getpid()))
    chance = random.Random(seed)
    pages = mib * 256
    memory = mmap.mmap(-1, pages * PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    versions = [0] * pages
    for page in range(pages):
        memory[page * PAGE:(page + 1) * PAGE] = contents(page, 0)
    begin, touches, wrong, worst = faults(), 0, 0, 0.0
    while not wrong and (faults() - begin < wanted or not os.path.exists(stop)):
        page_out(memory, group)
        for _ in range(pages // 2):
            page = chance.randrange(pages)
            start = time.monotonic()
            found = memory[page * PAGE:(page + 1) * PAGE]
            worst = max(worst, time.monotonic() - start)
            if found != contents(page, versions[page]):
                wrong += 1
                print(f"page {page} version {versions[page]}: begins with {found[:16].hex()}, not {contents(page, versions[page])[:16].hex()}",
                      file=sys.stderr)
            touches += 1
            if chance.random() < 1 / 3:
                versions[page] += 1
                memory[page * PAGE:(page + 1) * PAGE] = contents(page, versions[page])
    for page in range(pages):
        wrong += memory[page * PAGE:(page + 1) * PAGE] != contents(page, versions[page])
    print(json.dumps({"touches": touches, "major_faults": faults() - begin, "wrong_pages": wrong, "worst_stall_ms": round(worst * 1000)}))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
