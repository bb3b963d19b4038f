#!/bin/bash
# frontswap-in-guest.sh MODULE: what host/frontswap.sh has done in a guest.
. "$(dirname "$0")/guest.sh"
module=$1
parameters=/sys/module/farmem/parameters

farmem() { farmem_ko "$@"; }
# field NAME [DEVICE]
field() { farmem status "${2-far}" | jq ".$1"; }
# at_most|more NAME NUMBER [DEVICE]
at_most() { [ "$(field "$1" "${3-far}")" -le "$2" ] || fail "$1 is $(field "$1" "${3-far}"), not at most $2"; }
more() { [ "$(field "$1" "${3-far}")" -gt "$2" ] || fail "$1 is $(field "$1" "${3-far}"), not more than $2"; }
pages() { timeout 200 python3 "$here/pages.py" "$@"; }
parameter() { echo "$2" >$parameters/"$1"; }
debug() { cat /sys/kernel/debug/frontswap/"$1"; }
wrote_more() { [ "$(field pages_written)" -gt "$1" ]; }
reconnected() { [ "$(field sessions)" -gt 1 ]; }
reads_more() { [ "$(field pages_read)" -gt "$1" ]; }
empty() { [ "$(field used)" -le $(($(orphans) << 12)) ]; }

# swap_on AREA [OPTION...]: a device with 256 MiB for it, and swap.
swap_on() {
    local area=$1
    shift
    farmem attach far dram $((256 * MiB)) frontend=frontswap area="$area" "$@" >/dev/null
    mkswap "$area" >/dev/null
    swapon "$area"
}
# swap_off AREA: nothing is held, and the device goes.
swap_off() {
    refused 16 "" farmem detach far
    refused 1 "" rmmod farmem
    swapoff "$1"
    at_most used 0
    [ "$(field openers)" = 0 ] || fail "it is still in use"
    farmem detach far
}

insmod "$module"
if [ ! -e /proc/sys/vm/memcg_high_async_pages ]; then
    refused 95 "with our patches" farmem attach far dram $MiB frontend=frontswap area=/dev/null
    [ -z "$(farmem status)" ] || fail "a refused attach left a device"
    rmmod farmem
    echo "refused, as this kernel has no frontswap for modules"
    exit
fi
mkdir $group
echo 16M >$group/memory.max
# An area that the kernel reads ahead on and keeps in the swap cache, unlike a ramdisk's; all of it is of 0xAA.
truncate -s 192M /tmp/disk
head -c 192M /dev/zero | tr '\0' '\252' >/tmp/disk
loop=$(losetup -f --show /tmp/disk)

# Refused, and nothing is left of it.
refused 22 "" farmem attach far dram $MiB frontend=frontswap
refused 22 "" farmem attach far dram $MiB frontend=tape area=/dev/ram0
refused 22 "" farmem attach far dram $MiB frontend=block area=/dev/ram0
refused 22 "" farmem attach far dram $MiB area=/dev/ram0
refused 6 "" farmem attach far dram $MiB frontend=frontswap area=/dev/nothing
refused 22 "" farmem attach far dram $MiB frontend=frontswap area=/dev/null
refused 22 "" farmem attach far dram $MiB frontend=frontswap area=/tmp
mkswap /dev/ram1 >/dev/null && swapon /dev/ram1
refused 16 "swapoff it first" farmem attach far dram $MiB frontend=frontswap area=/dev/ram1
swapoff /dev/ram1
[ -z "$(farmem status)" ] || fail "a refused attach left a device"
farmem attach far dram $((256 * MiB)) frontend=frontswap area=/dev/ram0 >/tmp/attached
[ "$(jq -r '.frontend + " " + .area' /tmp/attached)" = "frontswap /dev/ram0" ] || fail "attached $(cat /tmp/attached)"
refused 16 "" farmem attach far1 dram $MiB frontend=frontswap area=/dev/ram0
refused 1 "" rmmod farmem
farmem detach far
echo "attaches: ok"

# Every page compared; private and shared memory; at once, and in flight.
for area in /dev/ram0 "$loop"; do
    for defer in 0 1 3; do
        swap_on "$area"
        parameter defer $defer
        limited python3 "$here/pages.py" pressure 8192 1 || fail "pressure on $area, defer $defer"
        until_true 10 empty || fail "$(field used) bytes are held after the process ended"
        limited python3 "$here/pages.py" pressure 6144 1 shared || fail "shared pressure on $area, defer $defer"
        until_true 10 empty || fail "$(field used) bytes are held after the process ended"
        more pages_written 6000
        more slots_freed 6000
        more pages_read 4000
        [ $defer = 0 ] || more deferred 3000
        if [ "$area" = "$loop" ]; then
            # Readahead, and the faulting pages among it.
            [ "$(field pages_read)" -gt "$(field faults)" ] || fail "nothing was read ahead"
            more faults 0
        fi
        parameter defer 0
        swap_off "$area"
    done
    echo "pressure on $area: ok"
done

# Two areas, a device each.
farmem attach far dram $((256 * MiB)) frontend=frontswap area=/dev/ram0 >/dev/null
farmem attach near dram $((192 * MiB)) frontend=frontswap area="$loop" >/dev/null
mkswap /dev/ram0 >/dev/null && mkswap "$loop" >/dev/null
swapon -p 5 /dev/ram0 && swapon -p 5 "$loop"
limited python3 "$here/pages.py" pressure 8192 1 || fail "with two devices"
more pages_written 1000
more pages_written 1000 near
swapoff "$loop"
farmem detach near
limited python3 "$here/pages.py" pressure 8192 1 || fail "with one of two devices"
swap_off /dev/ram0
echo "two areas: ok"

# Loads that fail: SIGBUS, and never what is on the disk.
head -c 192M /dev/zero | tr '\0' '\252' >/tmp/disk
for area in /dev/ram0 "$loop"; do
    for defer in 0 1; do
        swap_on "$area"
        parameter defer $defer
        failed=$(debug failed_loads)
        limited python3 "$here/pages.py" failing 2048 170 || fail "failing loads on $area, defer $defer"
        [ "$(debug failed_loads)" -gt "$failed" ] || fail "no load failed"
        more injected 0
        parameter defer 0
        swap_off "$area"
    done
done
# swapoff with loads that fail ends, and leaves an error where the page was.
swap_on "$loop"
coproc limited timeout 200 python3 "$here/pages.py" orphan 512
read -r _ <&"${COPROC[0]}"
parameter fail_reads 3
swap_off "$loop"
parameter fail_reads 0
eval "exec ${COPROC[1]}>&-"
wait $COPROC_PID || fail "after a swapoff that could not read all"
echo "failing loads: ok"

# Stores that fail: at once, and the disk has the page; later, and the page stays.
for how in "0 1" "0 2" "1 2" "1 1"; do
    read -r defer every <<<"$how"
    swap_on "$loop"
    before=$(awk '{print $7}' "/sys/block/${loop#/dev/}/stat")
    parameter defer "$defer"
    parameter fail_writes "$every"
    pages out 4096 || fail "failing stores, defer $defer, every $every"
    parameter fail_writes 0
    parameter defer 0
    more injected 500
    after=$(awk '{print $7}' "/sys/block/${loop#/dev/}/stat")
    [ "$defer" = 1 ] || [ $((after - before)) -gt $((500 * 8)) ] || fail "the disk got $((after - before)) sectors"
    swap_off "$loop"
done
# Full: 8 MiB go far, the others to the disk.
farmem attach far dram $((256 * MiB)) $((8 * MiB)) frontend=frontswap area="$loop" >/dev/null
mkswap "$loop" >/dev/null && swapon "$loop"
limited python3 "$here/pages.py" pressure 8192 1 || fail "when full"
more rejected_capacity 500
more pages_written 1500
swap_off "$loop"
# A device smaller than its area.
farmem attach far dram $((4 * MiB)) frontend=frontswap area="$loop" >/dev/null
mkswap "$loop" >/dev/null && swapon "$loop"
limited python3 "$here/pages.py" pressure 8192 1 || fail "with a device smaller than the area"
more rejected_range 500
swap_off "$loop"
echo "failing stores: ok"

# Huge pages are split, and go far, none to the disk. (User-Mode Linux has none.)
if [ -e /sys/kernel/mm/transparent_hugepage/enabled ]; then
    swap_on "$loop"
    counted() { sed -n "s/^$1 //p" /proc/vmstat; }
    written() { awk '{print $7}' "/sys/block/${loop#/dev/}/stat"; }
    whole=$(counted thp_swpout) split=$(counted thp_swpout_fallback) before=$(written)
    pages huge 8192 || fail "huge pages"
    [ "$(counted thp_swpout)" = "$whole" ] && [ "$(counted thp_swpout_fallback)" -gt "$split" ] || fail "huge pages were not split: $(grep ^thp /proc/vmstat)"
    [ $(($(written) - before)) -lt 64 ] || fail "the disk got $(($(written) - before)) sectors of huge pages"
    more pages_written 8000
    swap_off "$loop"
    echo "huge pages: ok"
fi

# Processes killed amid their loads.
swap_on "$loop"
parameter defer 1
limited python3 "$here/pages.py" killed 2048 10 || fail "with killed processes"
parameter defer 0
swap_off "$loop"
echo "killed processes: ok"

# swapoff and rmmod while a process uses it.
for defer in 0 2; do
    swap_on "$loop"
    parameter defer $defer
    rm -f /tmp/stop
    coproc limited timeout 200 python3 "$here/pages.py" churn 8192 /tmp/stop
    read -r _ <&"${COPROC[0]}"
    for _ in 1 2 3 4 5; do refused 1 "" rmmod farmem; done
    echo max >$group/memory.max
    refused 16 "" farmem detach far
    swapoff "$loop"
    at_most used 0
    farmem detach far
    farmem attach far dram $((256 * MiB)) frontend=frontswap area="$loop" >/dev/null
    swapon "$loop"
    echo 16M >$group/memory.max
    until_true 60 wrote_more 1000 || fail "nothing is stored after the area came back"
    touch /tmp/stop
    wait $COPROC_PID || fail "a process that lived through swapoff"
    parameter defer 0
    swap_off "$loop"
done
echo "swapoff under load: ok"

# zswap has the areas that are nobody else's, and leaves this one alone; on or off.
zswap=/sys/module/zswap/parameters
stored() { cat /sys/kernel/debug/zswap/stored_pages; }
echo Y >$zswap/enabled
swap_on /dev/ram0
limited python3 "$here/pages.py" pressure 8192 1 || fail "beside zswap"
more pages_written 3000
mkswap /dev/ram1 >/dev/null && swapon -p 9 /dev/ram1
before=$(field pages_written)
coproc limited timeout 200 python3 "$here/pages.py" churn 8192 /tmp/stop2
read -r _ <&"${COPROC[0]}"
[ "$(stored)" -gt 100 ] || fail "zswap has nothing of its area"
# Slots of the other area that were at hand may be used up first.
at_most pages_written $((before + 128))
touch /tmp/stop2
wait $COPROC_PID || fail "on zswap's area"
echo N >$zswap/enabled
swapoff /dev/ram1
swap_off /dev/ram0
# As ever where it is alone, enabled while its area is in use.
mkswap /dev/ram1 >/dev/null && swapon /dev/ram1
limited python3 "$here/pages.py" pressure 8192 1 || fail "with zswap off"
echo Y >$zswap/enabled
limited python3 "$here/pages.py" pressure 8192 1 || fail "with zswap on"
# What it wrote back to the disk is read from there.
echo zbud >$zswap/zpool
echo 1 >$zswap/max_pool_percent
limited python3 "$here/pages.py" pressure 8192 1 || fail "with zswap full"
[ "$(cat /sys/kernel/debug/zswap/written_back_pages)" -gt 0 ] || fail "zswap wrote nothing back"
echo N >$zswap/enabled
swapoff /dev/ram1
echo "zswap: ok"

# Reclaim above memory.high, by the task or by the worker.
worker=/sys/devices/virtual/workqueue/memcg_high
grep -q . $worker/cpumask || fail "no $worker/cpumask"
echo 1 >$worker/cpumask
[ "$(cat /proc/sys/vm/memcg_high_async_pages)" = 0 ] || fail "it is on by default"
echo max >$group/memory.max
echo 16M >$group/memory.high
swap_on "$loop"
stalled() { sed -n 's/^some.*total=//p' $group/memory.pressure; }
below() { [ "$(cat $group/memory.current)" -le $((16 * MiB)) ]; }
# In jiffies, of all threads that have worked for unbound queues.
worked() { cat /proc/[0-9]*/stat 2>/dev/null | sed -n 's/^[0-9]* (kworker\/u[^)]*) //p' | awk '{sum += $13} END {print sum + 0}'; }
for limit in 0 1048576; do
    echo $limit >/proc/sys/vm/memcg_high_async_pages
    stall=$(stalled) work=$(worked)
    coproc limited timeout 200 python3 "$here/pages.py" grow 12288
    read -r own <&"${COPROC[0]}"
    stall=$(($(stalled) - stall))
    until_true 30 below || fail "$(cat $group/memory.current) bytes are above memory.high, limit $limit"
    work=$(($(worked) - work))
    echo "memory.high with $limit pages left to the worker: own system time $own s, stalled $stall us, worker $work jiffies"
    eval "exec ${COPROC[1]}>&-"
    wait $COPROC_PID || fail "grow, limit $limit"
    if [ $limit = 0 ]; then
        [ "$stall" -gt 0 ] || fail "nobody reclaimed"
        own_stall=$stall
    else
        # Where the worker has a processor of its own, it takes pages that the task still needs, which waits to have them back.
        [ $((stall * 10)) -lt "$own_stall" ] || fail "the task reclaimed though it need not"
        [ "$work" -gt 0 ] || fail "the worker did nothing"
    fi
done
# A few pages: the task reclaims what is above that.
echo 16 >/proc/sys/vm/memcg_high_async_pages
stall=$(stalled)
limited python3 "$here/pages.py" pressure 8192 1 || fail "under memory.high"
[ "$(stalled)" -gt "$stall" ] || fail "a limit of 16 pages was never passed"
# The worker gives up where there is nothing to reclaim.
echo 1048576 >/proc/sys/vm/memcg_high_async_pages
coproc limited timeout 200 python3 "$here/pages.py" locked 6144
read -r _ <&"${COPROC[0]}"
sleep 0.5
work=$(worked)
sleep 2
[ $(($(worked) - work)) -lt 50 ] || fail "the worker goes on for ever: $(($(worked) - work)) jiffies in 2 s"
eval "exec ${COPROC[1]}>&-"
wait $COPROC_PID || fail "locked"
echo 0 >/proc/sys/vm/memcg_high_async_pages
echo max >$group/memory.high
swap_off "$loop"
echo "memory.high: ok"

# The same over RDMA, asleep and polled, with a server that is killed and comes back meanwhile.
if [ -x "${FARMEM_BIN_DIR-}/memserver" ]; then
    make_keys
    serve
    echo 16M >$group/memory.max
    for poll in "" poll=1; do
        farmem attach far rdma $((128 * MiB)) frontend=frontswap area="$loop" address=$far key_name=lab \
            key_secret=$secret $poll >/dev/null || fail "attach over RDMA"
        mkswap "$loop" >/dev/null && swapon "$loop"
        limited python3 "$here/pages.py" pressure 8192 1 || fail "over RDMA $poll"
        more pages_written 3000
        more pages_read 2000
        rm -f /tmp/stop
        coproc limited timeout 300 python3 "$here/pages.py" churn 6144 /tmp/stop
        read -r _ <&"${COPROC[0]}"
        end_server -9
        sleep 0.5
        serve
        until_true 30 reconnected || fail "it did not connect again"
        read_before=$(field pages_read)
        until_true 60 reads_more "$read_before" || fail "nothing is read after the server came back"
        touch /tmp/stop
        wait $COPROC_PID || fail "a process whose server was killed, $poll"
        [ "$(field read_errors)" = 0 ] || fail "reads failed"
        echo "over RDMA ${poll:-asleep}: $(farmem status far | jq -c '{pages_written, pages_read, faults, sessions, used, read_latency}')"
        swapoff "$loop"
        farmem detach far
    done
    end_server -TERM
    echo "RDMA: ok"
fi

# Many lives.
echo 16M >$group/memory.max
# Holds 24 MiB of it.
use_memory() { head -c 24M /dev/zero | limited tail -c 24M >/dev/null; }
for cycle in $(seq "${CYCLES:-20}"); do
    unload
    load
    swap_on /dev/ram0
    stored=$(debug succ_stores)
    use_memory
    [ "$(debug succ_stores)" -gt "$stored" ] || fail "life $cycle: nothing was stored"
    swapoff /dev/ram0
    farmem detach far
done
rmmod farmem
[ ! -e /sys/module/farmem ]
echo "${CYCLES:-20} lives: ok"
