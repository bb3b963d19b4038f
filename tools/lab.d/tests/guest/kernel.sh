#!/bin/bash
# The kernel is 6.1, root is root, MGLRU is on and shows generations, cgroup v2 has the memory controller.
set -euo pipefail

[[ $(uname -r) = 6.1.* ]] || { echo "kernel $(uname -r)" && exit 1; }
[ "$(id -u)" = 0 ]
[ $(($(cat /sys/kernel/mm/lru_gen/enabled) & 1)) = 1 ] || { echo "MGLRU is off" && exit 1; }
grep '^memcg ' /sys/kernel/debug/lru_gen >/dev/null
grep -qw memory /sys/fs/cgroup/cgroup.controllers
mkdir /sys/fs/cgroup/probe
[ "$(cat /sys/fs/cgroup/probe/memory.max)" = max ]
[ "$(cat /proc/swaps | wc -l)" = 1 ]
zcat /proc/config.gz | grep -x CONFIG_RDMA_RXE=y >/dev/null
echo "up after $(cat /run/lab/control/booted) s"
