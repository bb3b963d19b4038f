#!/bin/bash
# smp.sh MODULE SECONDS: what host/module-smp.sh has done in a guest of several processors.
#
# Processes on all processors, more of them than processors and each with more memory than their cgroup allows, write, page out and
# compare, while others punch holes, a raw device is written and discarded, devices come and go, and all processors but the
# first go away and come back. Two devices with the same priority share the swap, so requests and slots change processors.
set -euo pipefail
here=$(dirname "$0")
module=$1 seconds=$2
group=/sys/fs/cgroup/limited
MiB=1048576
children=()

farmem() { python3 "$here/farmem_netlink.py" "$@"; }
fail() {
    echo "FAILED: $*"
    farmem status || true
    cat /proc/swaps
    dmesg | tail -n 20
    exit 1
}
field() { farmem status "$1" | jq ".$2"; }

processors=$(nproc)
[ "$processors" -gt 1 ] || { echo "one processor" && exit 77; }
insmod "$module"
mkdir $group
echo 96M >$group/memory.max
echo 0 >/proc/sys/vm/page-cluster
for name in far0 far1; do
    disk=$(farmem attach $name dram $((192 * MiB)) | jq -r .disk)
    mkswap "/dev/$disk" >/dev/null
    swapon --discard --priority 5 "/dev/$disk"
done

mkfifo /run/started
workers=$((processors * 2))
for worker in $(seq $workers); do
    (
        echo $BASHPID >$group/cgroup.procs
        exec timeout $((seconds + 300)) python3 "$here/smp.py" "$worker" $((96 * 2 * 256 / workers)) "$seconds"
    ) 9<>/run/started &
    children+=($!)
done
for _ in $(seq $workers); do read -r -t 300 _ <>/run/started || fail "the workers did not start"; done

# Beside them: processors leave while they swap, and devices with requests of their own come and go.
rounds=0
end=$((SECONDS + seconds))
while [ $SECONDS -lt $end ]; do
    for processor in $(seq $((processors - 1))); do
        echo 0 >/sys/devices/system/cpu/cpu$processor/online || fail "processor $processor did not leave"
    done
    disk=$(farmem attach raw dram $((8 * MiB)) | jq -r .disk)
    [ "$disk" = farmem2 ] || fail "the number of a device that is gone was not taken again: $disk"
    timeout 100 python3 "$here/exercise.py" raw "/dev/$disk" >/dev/null || fail "raw, on one processor"
    for processor in $(seq $((processors - 1))); do
        echo 1 >/sys/devices/system/cpu/cpu$processor/online || fail "processor $processor did not come back"
    done
    blkdiscard -f "/dev/$disk" 2>/dev/null
    timeout 100 python3 "$here/exercise.py" raw "/dev/$disk" >/dev/null || fail "raw, on all processors"
    farmem detach raw || fail "detach of a device that is not in use"
    rounds=$((rounds + 1))
done

for child in "${children[@]}"; do wait "$child" || fail "a worker ended with $?"; done
[ "$(nproc)" = "$processors" ] || fail "$(nproc) processors are left"
written=0
for name in far0 far1; do
    [ "$(field $name read_errors)" = 0 ] && [ "$(field $name write_errors)" = 0 ] || fail "errors on $name"
    [ "$(field $name pages_read)" -gt 5000 ] || fail "$name was not used: $(farmem status $name)"
    [ "$(field $name slots_freed)" -gt 5000 ] || fail "freed slots were not told"
    # The kernel keeps up to 64 freed slots of a processor at hand.
    [ "$(field $name used)" -le $((64 * 4096 * processors + 4096)) ] || fail "$(field $name used) bytes are held by $name at the end"
    written=$((written + $(field $name pages_written)))
done
for name in far0 far1; do
    disk=/dev/$(field $name disk | tr -d '"')
    swapoff "$disk"
    [ "$(field $name used)" = 4096 ] || fail "$(field $name used) bytes are held after swapoff"
    farmem detach $name
done
rmmod farmem
echo "$workers processes on $processors processors, $written pages out, processors away and back $rounds times: 0 wrong pages"
