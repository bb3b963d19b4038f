#!/bin/bash
# farswap-frontswap-in-guest.sh MODULE: what host/module-frontswap.sh has done in a guest.
. "$(dirname "$0")/guest.sh"
module=$1
mkdir -p /tmp/files

nothing_left() {
    [ "$(wc -l </proc/swaps)" = 1 ] && [ ! -e /run/farmem/swap/far0/state ] && [ ! -e /tmp/files/new ] &&
        [ -z "$(farmem_ko status)" ]
}
attach() { timeout 30 farswap attach dram:96MiB --frontend frontswap --size 128MiB "$@"; }
rdma() { timeout 30 farswap attach "rdma://$far/far" --frontend frontswap --size 128MiB --auth-file /run/keys "$@"; }
detach() {
    timeout 60 farswap detach far0 >/dev/null || fail "detach"
    nothing_left || fail "left after detach"
}
empty() { [ "$(($(status .fabric.pages) + $(status .fabric.slabs)))" -le "$(orphans)" ]; }

make_keys
insmod "$module"
truncate -s 128M /tmp/disk
loop=$(losetup -f --show /tmp/disk)
if [ ! -e /proc/sys/vm/memcg_high_async_pages ]; then
    # Nobody listens at that address: the kernel is found wanting before anybody is asked.
    refused 71 "with our patches" rdma --fallback /tmp/files/new
    mkswap "$loop" >/dev/null
    refused 71 "with our patches" attach --fallback "$loop"
    rmmod farmem
    echo "refused, as this kernel has no frontswap for modules"
    exit
fi
mkdir $group
echo 16M >$group/memory.max

# Refused, and nothing is left of it.
part_refusals() {
    refused 64 "needs --fallback" attach
    refused 64 "needs --frontend fuse" attach --fallback /tmp/files/new --fallback-mode mirror
    refused 64 "mkswap it first" attach --fallback "$loop"
    echo precious >/tmp/files/other
    refused 64 "mkswap it first" attach --fallback /tmp/files/other
    [ "$(cat /tmp/files/other)" = precious ] || fail "a file was written over"
    refused 64 "neither a disk nor a file" attach --fallback /dev/null
    refused 64 "spaces" attach --fallback "/tmp/files/with a space"
    [ ! -e "/tmp/files/with a space" ] || fail "a refused file is left"
    refused 71 "No such file" attach --fallback /tmp/none/file
    # A file system that cannot be swapped to.
    refused 71 "swapon" attach --fallback /tmp/files/new
    refused 69 "" rdma --fallback /tmp/files/new
    mkswap "$loop" >/dev/null && swapon "$loop"
    again=0
    attach --fallback "$loop" >/run/out 2>&1 || again=$?
    [ $again != 0 ] && grep -q "swapoff it first" /run/out || fail "an area in use: $again $(cat /run/out)"
    grep -q "^$loop " /proc/swaps && [ ! -e /run/farmem/swap/far0 ] || fail "an area in use was touched"
    swapoff "$loop"
    echo "refusals: ok"
}

# A disk. Every page is compared.
part_disk() {
    mkswap -f "$loop" >/dev/null
    attach --fallback "$loop" >/run/out || fail "attach: $(cat /run/out)"
    grep -q "attached as $loop" /run/out || fail "$(cat /run/out)"
    [ "$(status .state) $(status .frontend) $(status .device)" = "attached frontswap $loop" ] || fail "status"
    again=0
    attach --fallback "$loop" >/run/out 2>&1 || again=$?
    [ $again = 75 ] || fail "a second device of the name: $again $(cat /run/out)"
    limited timeout 300 python3 "$here/pages.py" pressure 8192 1 || fail "pressure"
    [ "$(status .counters.pages_out_total)" -gt 3000 ] || fail "$(status .counters)"
    [ "$(status .counters.pages_in_total)" -gt 2000 ] || fail "$(status .counters)"
    until_true 10 empty || fail "$(status .fabric) is held after the process ended"
    [ "$(farswap status --repair)" = "far0: healthy" ] || fail "repair of what is well"
    detach
    mkswap "$loop" >/dev/null || fail "the disk is not free"

    # Cut off half way; gone but for the state.
    attach --fallback "$loop" >/dev/null
    swapoff "$loop"
    [ "$(farswap status --repair)" = "far0: nobody served it any more; removed" ] || fail "repair"
    attach --fallback "$loop" >/dev/null
    swapoff "$loop"
    farmem_ko detach far0
    unload
    [ "$(farswap status --repair)" = "far0: nobody served it any more; removed" ] || fail "repair without the module"
    [ -z "$(ls /run/farmem/swap)" ] || fail "state is left: $(ls /run/farmem/swap)"
    load
    echo "disk: ok"
}

# A file of a file system, made by attach; and what does not fit far is on it.
part_file() {
    mkfs.ext4 -q "$loop" && mkdir /tmp/mounted && mount "$loop" /tmp/mounted
    farswap attach dram:8MiB --frontend frontswap --size 64MiB --fallback /tmp/mounted/../mounted/pages >/run/out || fail "$(cat /run/out)"
    [ "$(status .device)" = /tmp/mounted/pages ] || fail "$(status .device)"
    [ "$(stat -c '%a %s' /tmp/mounted/pages)" = "600 $((64 << 20))" ] || fail "$(stat /tmp/mounted/pages)"
    limited timeout 300 python3 "$here/pages.py" pressure 8192 1 || fail "pressure on a file"
    [ "$(status .counters.store_no_space_total)" -gt 500 ] || fail "nothing was refused: $(status .counters)"
    [ "$(status .counters.pages_in_total)" -gt 500 ] || fail "$(status .counters)"
    detach
    # Again, as it is a swap area now.
    farswap attach dram:8MiB --frontend frontswap --size 32MiB --fallback /tmp/mounted/pages >/run/out || fail "$(cat /run/out)"
    [ "$(stat -c %s /tmp/mounted/pages)" = $((32 << 20)) ] || fail "$(stat /tmp/mounted/pages)"
    detach
    umount /tmp/mounted
    mkswap -f "$loop" >/dev/null
    echo "file: ok"
}

# What is out does not fit into memory: detach says so and changes nothing.
part_detaching() {
    truncate -s 640M /tmp/large
    large=$(losetup -f --show /tmp/large)
    mkswap "$large" >/dev/null
    timeout 30 farswap attach dram:640MiB --frontend frontswap --size 640MiB --fallback "$large" >/dev/null
    free=$(awk '$1 == "MemAvailable:" {print $2}' /proc/meminfo)
    coproc limited timeout 300 python3 "$here/pages.py" grow $((free * 6 / 10 / 4))
    read -r _ <&"${COPROC[0]}"
    unfit=0
    timeout 60 farswap detach far0 >/run/refused 2>&1 || unfit=$?
    [ $unfit = 75 ] && grep -q "MiB are swapped out" /run/refused || fail "a detach that does not fit: $unfit $(cat /run/refused /proc/meminfo)"
    [ "$(status .state)" = attached ] && grep -q "^$large " /proc/swaps || fail "a refused detach changed something"
    eval "exec ${COPROC[1]}>&-"
    wait $COPROC_PID || fail "a process after a refused detach"
    detach
    # Under a process that lives on.
    attach --fallback "$loop" >/dev/null
    rm -f /tmp/stop
    coproc limited timeout 300 python3 "$here/pages.py" churn 8192 /tmp/stop
    read -r _ <&"${COPROC[0]}"
    echo max >$group/memory.max
    detach
    touch /tmp/stop
    wait $COPROC_PID || fail "a process that lived through detach"
    echo 16M >$group/memory.max
    echo "detach: ok"
}

more() { [ "$(status ".counters.$1")" -gt "$2" ]; }
live() { [ "$(status .state)" = attached ] && [ "$(status .fabric.reconnects_total)" -gt 0 ]; }
# Over RDMA, with a server that is killed under load; detach leaves no slab.
part_rdma() {
    local ways=("" "--poll 1ms" "--connections 2") round options
    [ -z "${WAY-}" ] || ways=("$WAY")
    mkswap -f "$loop" >/dev/null
    serve
    for round in $(seq "${ROUNDS:-1}"); do for options in "${ways[@]}"; do
        # shellcheck disable=SC2086
        rdma --fallback "$loop" $options >/run/out || fail "attach $options: $(cat /run/out /run/memserver.log)"
        limited timeout 300 python3 "$here/pages.py" pressure 6144 1 || fail "over RDMA $options"
        more pages_in_total 1000 && more pages_out_total 2000 || fail "$options: $(status .counters)"
        until_true 10 empty || fail "$options: $(status .fabric) is held after the process ended"
        rm -f /tmp/stop
        coproc limited timeout 300 python3 "$here/pages.py" churn 6144 /tmp/stop
        read -r _ <&"${COPROC[0]}"
        end_server -9
        serve
        until_true 30 live || fail "it did not connect again"
        until_true 60 more pages_in_total $(($(status .counters.pages_in_total) + 500)) || fail "nothing is read after the server came back"
        touch /tmp/stop
        wait $COPROC_PID || fail "a process whose server was killed, $options"
        more load_failed_total 0 && fail "loads failed: $(status .counters)"
        detach
        [ "$(granted)" = 0 ] || fail "slabs are left: $(memserver status --json)"
        echo "RDMA ${options:-as it is}, round $round: ok"
    done; done
    kill $server
    wait $server
}

for part in ${PARTS:-refusals disk file detaching rdma}; do part_"$part"; done
rmmod farmem
