#!/bin/bash
# smp.sh MODULE SECONDS [FRONTEND [BACKEND]]: what host/module-smp.sh has done in a guest of several processors.
#
# Processes on all processors, more of them than processors and each with more memory than their cgroup allows, write, page out and
# compare, while others punch holes, a raw device is written and discarded, devices come and go, and all processors but the
# first go away and come back. Two devices with the same priority share the swap, so requests and slots change processors.
. "$(dirname "$0")/guest.sh"
module=$1 seconds=$2 frontend=${3:-block} backend=${4:-dram}
children=() area=()

farmem() { farmem_ko "$@"; }
field() { farmem status "$1" | jq -r ".$2"; }

processors=$(nproc)
[ "$processors" -gt 1 ] || { echo "one processor" && exit 77; }
insmod "$module"
mkdir $group
held() { [ "$(field "$1" used)" -le "$2" ]; }
echo 96M >$group/memory.max
echo 0 >/proc/sys/vm/page-cluster
options=() piece=4096
if [ "$backend" = rdma ]; then
    make_keys
    capacity=448MiB
    serve
    options=("address=$far" key_name=lab "key_secret=$secret")
    piece=$MiB
fi
# What a device has left when nothing is swapped: the swap area's header, unless that is on a disk of its own.
rest=$piece
for name in far0 far1; do
    if [ "$frontend" = frontswap ]; then
        truncate -s 192M /tmp/$name
        area[${#area[@]}]=$(losetup -f --show /tmp/$name)
        farmem attach $name "$backend" $((192 * MiB)) "${options[@]}" frontend=frontswap "area=${area[-1]}" >/dev/null
        rest=0
    else
        area[${#area[@]}]=/dev/$(farmem attach $name "$backend" $((192 * MiB)) "${options[@]}" | jq -r .disk)
    fi
    mkswap "${area[-1]}" >/dev/null
    swapon $([ "$frontend" = frontswap ] || echo --discard) --priority 5 "${area[-1]}"
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
    disk=$(farmem attach raw "$backend" $((8 * MiB)) "${options[@]}" | jq -r .disk)
    [ "$disk" = farmem2 ] || [ "$disk$frontend" = farmem0frontswap ] || fail "the number of a device that is gone was not taken again: $disk"
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
    # The kernel keeps up to 64 freed slots of a processor at hand, unless frontswap has patch 10.
    at_most=$((64 * piece * processors + rest))
    [ "$frontend" = block ] || at_most=$(($(orphans) * piece))
    until_true 10 held "$name" $at_most || fail "$(field $name used) bytes are held by $name at the end, not at most $at_most"
    written=$((written + $(field $name pages_written)))
done
for name in far0 far1; do
    swapoff "${area[0]}"
    area=("${area[@]:1}")
    until_true 10 held $name $rest || fail "$(field $name used) bytes are held after swapoff"
    farmem detach $name
done
rmmod farmem
if [ "$backend" = rdma ]; then
    [ "$(granted)" = 0 ] || fail "slabs are left: $(memserver status --json)"
    end_server -TERM
fi
echo "$frontend over $backend: $workers processes on $processors processors, $written pages out, processors away and back $rounds times: 0 wrong pages"
