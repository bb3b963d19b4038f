#!/bin/bash
# in-guest.sh MODULE: what host/module.sh has done in a guest with farmem.ko.
set -euo pipefail
here=$(dirname "$0")
module=$1
disk=/dev/farmem0
group=/sys/fs/cgroup/limited

fail() {
    echo "FAILED: $*"
    farmem status || true
    cat /proc/swaps
    dmesg | tail -n 20
    exit 1
}
farmem() { python3 "$here/farmem_netlink.py" "$@"; }
field() { farmem status far0 | jq ".$1"; }
used() { field used; }
# refused ERRNO COMMAND...
refused() {
    local wanted=$1 status=0
    shift
    "$@" >/tmp/refused 2>&1 || status=$?
    [ "$status" = "$wanted" ] || fail "$*: status $status instead of $wanted: $(cat /tmp/refused)"
}
exercise() { timeout 200 python3 "$here/exercise.py" "$@"; }
limited() { (echo $BASHPID >$group/cgroup.procs && exec "$@"); }
MiB=1048576

insmod "$module"
[ -z "$(farmem status)" ] || fail "devices from nowhere"

# What is wrong is refused, and leaves nothing.
refused 22 farmem attach far0 dram 4095
refused 22 farmem attach far0 dram 0
refused 22 farmem attach far0 dram $MiB $((2 * MiB))
refused 22 farmem attach far/0 dram $MiB
refused 22 farmem attach far0 dram $((1 << 62))
refused 2 farmem attach far0 tape $MiB
refused 12 farmem attach far0 dram $((512 * MiB)) $((512 * MiB)) reserve
refused 19 farmem detach far0
refused 19 farmem status far0
refused 1 setpriv --reuid=65534 --clear-groups python3 "$here/farmem_netlink.py" attach far0 dram $MiB
refused 1 setpriv --reuid=65534 --clear-groups python3 "$here/farmem_netlink.py" status
[ ! -e $disk ] || fail "a refused attach left $disk"

# The device itself.
farmem attach far0 dram $((24 * MiB)) >/tmp/attached
[ "$(jq -r .disk /tmp/attached)" = farmem0 ] && [ -b $disk ] || fail "no $disk"
refused 17 farmem attach far0 dram $MiB
refused 1 rmmod farmem
[ "$(cat /sys/block/farmem0/queue/logical_block_size /sys/block/farmem0/queue/physical_block_size \
    /sys/block/farmem0/queue/rotational | tr '\n' ' ')" = "4096 4096 0 " ] || fail "queue limits"
cmp -n $((24 * MiB)) $disk /dev/zero || fail "a new device is not of zeros"
[ "$(used)" = 0 ] || fail "reading took memory"
held=$(exercise raw $disk) || fail "raw: $held"
[ "$(used)" = "$held" ] || fail "$(used) bytes are held, not $held"
blkdiscard -f $disk
[ "$(used)" = 0 ] || fail "$(used) bytes are held after the discard of all"
exec 5<$disk
refused 16 farmem detach far0
exec 5<&-
farmem detach far0
[ ! -e $disk ] || fail "$disk is still there"

# Swap: a cgroup of a third of what its process uses.
# swap_on OPTIONS...: attaches, and swaps on it with discards of what is freed.
swap_on() {
    farmem attach far0 dram "$@" >/dev/null
    mkswap $disk >/dev/null
    swapon --discard $disk
}
# swap_off: nothing but the header is held when swap is off.
swap_off() {
    swapoff $disk
    [ "$(used)" = 4096 ] || fail "$(used) bytes are held after swapoff"
    [ "$(field read_errors)" = 0 ] && [ "$(field write_errors)" = 0 ] || fail "errors"
    blkdiscard -f $disk
    [ "$(used)" = 0 ] || fail "$(used) bytes are held at the end"
    farmem detach far0
}
mkdir $group
echo 32M >$group/memory.max
for reserve in "" reserve; do
    swap_on $((256 * MiB)) $((160 * MiB)) $reserve
    refused 16 farmem detach far0
    refused 1 rmmod farmem
    limited python3 "$here/exercise.py" pressure 24576 || fail "under pressure"
    [ "$(field pages_written)" -gt 15000 ] || fail "it was not swapped"
    # The kernel keeps up to 64 freed slots of a processor at hand.
    [ "$(used)" -le $((64 * 4096 * $(nproc) + 4096)) ] || fail "$(used) bytes are held after the process ended"
    [ "$(field slots_freed)" -gt 15000 ] || fail "freed slots were not told"
    swap_off
done
if [ -x "${FARMEM_BIN_DIR-}/farmem" ]; then
    swap_on $((256 * MiB))
    for pressure in "" --pressure; do
        timeout 200 "$FARMEM_BIN_DIR/farmem" bench swap --size 64MiB --json $pressure >/tmp/report || fail "bench swap ended with $?"
        jq -c . /tmp/report
        [ "$(jq .wrong_pages /tmp/report)" = 0 ] || fail "wrong pages"
        [ "$(jq .major_faults /tmp/report)" -gt 3000 ] || fail "the pages were not swapped"
    done
    swap_off
fi

# Full: 16 MiB of 48 go out, writes of the others fail and the kernel keeps them.
for reserve in "" reserve; do
    swap_on $((128 * MiB)) $((16 * MiB)) $reserve
    exercise pageout 12288 || fail "when full"
    [ "$(field rejected_capacity)" -gt 1000 ] || fail "it was not full"
    [ "$(field pages_written)" -gt 3000 ] || fail "nothing was paged out"
    swap_off
done

# Failures of a backend, which the module's parameters play.
swap_on $((128 * MiB))
echo 3 >/sys/module/farmem/parameters/fail_writes
exercise pageout 4096 || fail "with failing writes"
echo 0 >/sys/module/farmem/parameters/fail_writes
[ "$(field injected)" -gt 500 ] || fail "no write failed"
swapoff $disk
farmem detach far0
swap_on $((128 * MiB))
echo 0 >/proc/sys/vm/page-cluster
exercise failing 2048 || fail "with failing reads"
swapoff $disk
[ "$(used)" = 4096 ] && [ "$(field injected)" -gt 0 ] || fail "after failing reads"
farmem detach far0

# Several devices, and many lives.
for number in 0 1 2; do farmem attach far$number dram $MiB >/dev/null; done
[ "$(farmem status | jq -r .name | tr '\n' ' ')" = "far0 far1 far2 " ] || fail "not all devices in the dump"
for number in 1 0 2; do farmem detach far$number; done
rmmod farmem
for _ in $(seq "${CYCLES:-20}"); do
    insmod "$module"
    swap_on $((16 * MiB)) $((8 * MiB)) reserve
    swap_off
    rmmod farmem
done
[ ! -e /sys/module/farmem ]
