#!/bin/bash
# A process of three times its cgroup's memory.max goes on with swap, every byte of it right.
# lab: --timeout 300
set -euo pipefail

mkswap /dev/ram0 >/dev/null
swapon /dev/ram0
group=/sys/fs/cgroup/limited
mkdir $group
echo 32M >$group/memory.max

cat >/tmp/fill.py <<'PYTHON'
import mmap, sys
PAGES, PAGE = 96 * 256, 4096
memory = mmap.mmap(-1, PAGES * PAGE)
for page in range(PAGES):
    memory[page * PAGE:(page + 1) * PAGE] = (page * 2654435761 % 2**64).to_bytes(8, "little") * (PAGE // 8)
for attempt in range(2):
    for page in range(PAGES):
        if memory[page * PAGE:(page + 1) * PAGE] != (page * 2654435761 % 2**64).to_bytes(8, "little") * (PAGE // 8):
            sys.exit(f"page {page} is wrong")
current = {name: int(open(f"/sys/fs/cgroup/limited/memory.{name}").read()) for name in ("current", "swap.current")}
print(current)
assert current["current"] <= 32 << 20 and current["swap.current"] > 60 << 20
PYTHON

limited() { (echo $BASHPID >$group/cgroup.procs && exec "$@"); }

limited python3 /tmp/fill.py
grep -E '^pswp' /proc/vmstat
# The kernel keeps up to 64 freed slots of a processor at hand.
[ "$(cat $group/memory.swap.current)" -le $((262144 * $(nproc))) ] || { echo "swap not returned: $(cat $group/memory.swap.current)" && exit 1; }
swapoff /dev/ram0
