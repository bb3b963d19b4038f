#!/bin/bash
# returns-in-guest.sh MODULE: what host/returns.sh has done in a guest.
. "$(dirname "$0")/guest.sh"
mkdir -p $group
echo 16M >$group/memory.max
make_keys
serve
insmod "$1"

# least SECONDS: the least that was granted within that time, in MiB, for as long as it is not 0.
least() {
    local end=$((${EPOCHREALTIME/./} + $1 * 1000000)) least now
    least=$(granted)
    while [ "$least" != 0 ] && [ "${EPOCHREALTIME/./}" -lt $end ]; do
        sleep 0.05
        now=$(granted)
        [ "$now" -ge "$least" ] || least=$now
    done
    echo $((least >> 20))
}

# Until nothing is being paged out.
until_written() { until [ "$(sed -n 's/^file_writeback //p' $group/memory.stat)" = 0 ]; do sleep 0.02; done; }

printf '%-12s%12s%12s%24s%16s\n' frontend 'MiB in use' 'after 1 s' 'slots given back, 1 s' 'orphaned pages'
for frontend in fuse module frontswap; do
    options=()
    [ $frontend != frontswap ] || [ -e /proc/sys/vm/memcg_high_async_pages ] || continue
    if [ $frontend = frontswap ]; then
        truncate -s 128M /tmp/disk
        loop=$(losetup -f --show /tmp/disk)
        mkswap "$loop" >/dev/null
        options=(--fallback "$loop")
    fi
    timeout 60 farswap attach rdma://$far/far --frontend $frontend --size 128MiB --auth-file /run/keys "${options[@]}" >/run/out || fail "attach: $(cat /run/out)"
    for round in 1 2 3; do
        coproc (echo $BASHPID >$group/cgroup.procs && exec timeout 200 python3 "$here/pages.py" grow 12288)
        read -r _ <&"${COPROC[0]}"
        # A page that is on its way out when its process ends stays until the kernel reclaims: let none be.
        echo max >$group/memory.max
        until_written
        used=$(($(granted) >> 20))
        [ "$used" -ge 24 ] || fail "only $used MiB are far"
        eval "exec ${COPROC[1]}>&-"
        wait $COPROC_PID || fail "the process"
        echo 16M >$group/memory.max
        second=$(least 1)
        # swapoff of another area has the kernel give back the freed slots that its processors keep.
        mkswap /dev/ram3 >/dev/null 2>&1 && swapon -p 0 /dev/ram3 && swapoff /dev/ram3
        drained=$(least 1)
        # Pages that the kernel has in memory and far, and that are nobody's: each may hold a slab.
        orphans=$(($(cat $group/memory.swap.current) >> 12))
        printf '%-12s%12s%12s%24s%16s\n' "$frontend" "$used" "$second" "$drained" "$orphans"
        case $frontend in
        frontswap) [ "$second" -le $((1 + orphans)) ] || fail "$second MiB are held a second after the process ended" ;;
        *) [ "$drained" -le $((1 + orphans)) ] || fail "$drained MiB are held, and not by the kernel's slots" ;;
        esac
    done
    timeout 60 farswap detach far0 >/dev/null || fail "detach"
    [ "$(granted)" = 0 ] || fail "slabs are left after detach"
done
kill $server
wait $server
rmmod farmem
