#!/bin/bash
# returns-in-guest.sh MODULE: what host/returns.sh has done in a guest. ROUNDS is how many processes end on each device.
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

attach() {
    timeout 60 farswap attach "rdma://$far/${lease:-far}" --size 128MiB --auth-file /run/keys "$@" >/run/out || fail "attach $*: $(cat /run/out)"
}
detach() { timeout 60 farswap detach far0 >/dev/null || fail "detach"; }
flusher() { farswap status --json | jq -r ".slot_flusher.$1"; }
# Nothing of the flusher is there when no device is: no process, no swap area, no loop device, no file.
nothing_left() {
    ! pgrep -f 'farswap slot-flusher' >/dev/null && [ "$(wc -l </proc/swaps)" = 1 ] && ! losetup -a | grep -q farmem &&
        [ -z "$(ls /run/farmem/slot-flusher* 2>/dev/null)" ]
}
# end_process: one that has some 40 MiB far, and ends. Sets used: the MiB that were granted then.
end_process() {
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
}

printf '%-12s%-14s%12s%12s%16s%24s\n' frontend '' 'MiB in use' 'after 1 s' 'orphaned pages' 'slots given back, 1 s'
# round FRONTEND WORDS: prints what is left of a process.
round() {
    end_process
    second=$(least 1)
    # Pages that the kernel has in memory and far, and that are nobody's: each may hold a slab.
    orphans=$(($(cat $group/memory.swap.current) >> 12))
    drained=
    if [ -n "$2" ]; then
        # swapoff of another area has the kernel give back the freed slots that its processors keep.
        mkswap /dev/ram3 >/dev/null 2>&1 && swapon -p 0 /dev/ram3 && swapoff /dev/ram3
        drained=$(least 1)
        orphans=$(($(cat $group/memory.swap.current) >> 12))
    fi
    printf '%-12s%-14s%12s%12s%16s%24s\n' "$1" "$2" "$used" "$second" "$orphans" "$drained"
    if [ -n "$2" ]; then
        [ "$drained" -le $((1 + orphans)) ] || fail "$drained MiB are held, and not by the kernel's slots"
    else
        [ "$second" -le $((1 + orphans)) ] || fail "$second MiB are held a second after the process ended: $(farswap status --json)"
    fi
}

for frontend in fuse module frontswap; do
    if [ $frontend = frontswap ]; then
        [ -e /proc/sys/vm/memcg_high_async_pages ] || continue
        truncate -s 128M /tmp/disk
        loop=$(losetup -f --show /tmp/disk)
        mkswap "$loop" >/dev/null
        attach --frontend frontswap --fallback "$loop"
    else
        attach --frontend $frontend --flush-slots=false
        round $frontend 'not flushed'
        [ "$(flusher pid) $(flusher flushes_total)" = "0 0" ] || fail "it was not to be flushed"
        detach
        attach --frontend $frontend
    fi
    for ((count = 0; count < ${ROUNDS:-3}; count++)); do round $frontend ''; done
    if [ $frontend != frontswap ]; then
        [ "$(flusher flushes_total)" -ge "${ROUNDS:-3}" ] && [ "$(flusher failures_total)" = 0 ] || fail "flushes: $(farswap status --json)"
    fi
    detach
    [ "$(granted)" = 0 ] || fail "slabs are left after detach"
    nothing_left || fail "left after detach: $(losetup -a; ls /run/farmem; pgrep -af slot-flusher)"
done

# The flusher is killed, also amid its swapon and swapoff: the device does not notice, repair brings another, detach leaves nothing.
runs() { [ "$(flusher pid)" != 0 ]; }
is_over() { [ "$(flusher pid)" = 0 ]; }
# is_on: the flusher's own area, for a moment.
is_on() {
    local areas
    mapfile -t areas </proc/swaps
    [[ ${areas[*]} = */dev/loop* ]]
}
is_off() { ! is_on; }
# leave_area: one with the label of the flusher's.
leave_area() {
    local left
    rm -f /tmp/left && truncate -s 40K /tmp/left
    left=$(losetup -f --show /tmp/left)
    python3 - "$left" <<'PYTHON'
import fcntl, sys
LOOP_SET_STATUS64, LOOP_GET_STATUS64, NAME = 0x4C04, 0x4C05, slice(56, 120)
information = bytearray(232)
with open(sys.argv[1], "rb") as loop:
    fcntl.ioctl(loop, LOOP_GET_STATUS64, information)
    information[NAME] = b"farmem-slot-flusher".ljust(64, b"\0")
    fcntl.ioctl(loop, LOOP_SET_STATUS64, information)
PYTHON
    mkswap "$left" >/dev/null 2>&1
    swapon "$left"
    losetup -d "$left"
    is_on || fail "no area to leave"
}
amid=0
attach --frontend module
for ((count = 0; count < ${KILLS:-10}; count++)); do
    [ "$(farswap status --repair)" = "far0: healthy" ] || fail "repair"
    until_true 10 runs || fail "no flusher"
    end_process
    pid=$(flusher pid)
    # The area of its own is there for a moment only.
    end=$((SECONDS + 3))
    until [ $((count % 3)) = 0 ] || [ $SECONDS -ge $end ]; do
        if is_on; then
            amid=$((amid + 1))
            break
        fi
    done
    [ $((count % 3)) != 0 ] || sleep 0.$((RANDOM % 6))
    kill -9 "$pid" || fail "no flusher to kill: $(cat /run/farmem/slot-flusher.log)"
    until_true 5 is_over || fail "it lives on"
done
# An area that a killed one left on: the next takes it away, and so does the last detach.
leave_area
[ "$(farswap status --repair)" = "far0: healthy" ] || fail "repair"
until_true 10 is_off || fail "the next flusher left the area of the last"
kill -9 "$(flusher pid)"
until_true 5 is_over || fail "it lives on"
leave_area
detach
nothing_left || fail "left after kills: $(losetup -a; cat /proc/swaps; ls /run/farmem; pgrep -af slot-flusher)"
[ "$(granted)" = 0 ] || fail "slabs are left after detach"
echo "flusher killed ${KILLS:-10} times, $amid of them with its area on, and areas left on: nothing is left"

# One flusher for two devices, that goes with the second.
attach --frontend module
lease=far1 attach --frontend fuse --name far1
until_true 10 runs || fail "no flusher"
pid=$(flusher pid)
timeout 60 farswap detach far0 >/dev/null || fail "detach"
sleep 0.5
[ "$(flusher pid)" = "$pid" ] && [ "$(pgrep -fc 'farswap slot-flusher')" = 1 ] || fail "the flusher of two devices: $(flusher pid) instead of $pid"
timeout 60 farswap detach far1 >/dev/null || fail "detach"
nothing_left || fail "left after two devices: $(losetup -a; cat /proc/swaps; ls /run/farmem; pgrep -af slot-flusher)"
kill $server
wait $server
rmmod farmem
