#!/bin/bash
# The kernel is the one that was asked for, root is root, MGLRU is on and shows generations, cgroup v2 has the memory controller.
set -euo pipefail

case $FARMEM_LAB_KERNEL in
uml | patched-6.1) [[ $(uname -r) = 6.1.* ]] && [ -e /proc/sys/vm/memcg_high_async_pages ] ;;
debian-*) [[ $(uname -r) = "${FARMEM_LAB_KERNEL#debian-}".*-amd64 ]] ;;
esac || { echo "kernel $(uname -r) for $FARMEM_LAB_KERNEL" && exit 1; }
[ "$(id -u)" = 0 ]
[ $(($(cat /sys/kernel/mm/lru_gen/enabled) & 1)) = 1 ] || { echo "MGLRU is off" && exit 1; }
grep '^memcg ' /sys/kernel/debug/lru_gen >/dev/null
grep -qw memory /sys/fs/cgroup/cgroup.controllers
mkdir /sys/fs/cgroup/probe
[ "$(cat /sys/fs/cgroup/probe/memory.max)" = max ]
[ "$(cat /proc/swaps | wc -l)" = 1 ]
rdma link show rxe0/1 | grep ACTIVE >/dev/null
