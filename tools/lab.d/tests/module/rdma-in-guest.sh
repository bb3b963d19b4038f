#!/bin/bash
# rdma-in-guest.sh MODULE PART...: what host/module-rdma.sh has done in a guest with farmem.ko and memserver --rdma. Parts: refusals swap
# faults kills links cycles. KILLS, FLAPS and CYCLES are how often. With FRONTEND=frontswap
# kills, links and cycles swap to an area that is served by that.
set -euo pipefail
here=$(dirname "$0")
module=$1
disk=/dev/farmem0
group=/sys/fs/cgroup/limited
near=192.168.77.1
MiB=1048576
slab=$MiB
# Under KASAN a fault of Linux 6.1 itself would be reported: Soft-RoCE reads (and does not use) a pointer behind the end of its table
# when a region has a multiple of 256 pages.
! zgrep -q CONFIG_KASAN=y /proc/config.gz 2>/dev/null || slab=$((512 * 1024))
server= loop=

fail() {
    echo "FAILED: $*"
    farmem status || true
    cat /proc/swaps
    dmesg | tail -n 30
    tail -n 20 /tmp/memserver.log || true
    exit 1
}
farmem() { timeout 60 python3 "$here/farmem_netlink.py" "$@"; }
field() { farmem status far0 | jq -r ".$1"; }
exercise() { timeout "${PATIENCE:-300}" python3 "$here/exercise.py" "$@"; }
limited() { (echo $BASHPID >$group/cgroup.procs && exec "$@"); }
# until SECONDS COMMAND...: tries it until it is true.
until_true() {
    local deadline=$((SECONDS + $1))
    shift
    until "$@"; do
        [ $SECONDS -le $deadline ] || fail "not in time: $*"
        sleep 0.05
    done
}
# refused ERRNO WORDS COMMAND...: it ends with the errno and one line that has the words.
refused() {
    local wanted=$1 words=$2 status=0
    shift 2
    "$@" >/tmp/refused 2>&1 || status=$?
    [ "$status" = "$wanted" ] || fail "$*: status $status instead of $wanted: $(cat /tmp/refused)"
    grep -q "$words" /tmp/refused && [ "$(wc -l </tmp/refused)" = 1 ] || fail "$*: said $(cat /tmp/refused)"
}

start_server() {
    "$FARMEM_BIN_DIR/memserver" serve --capacity 192MiB --pool /run/pool/pool --slab $((slab >> 10))KiB --rdma $near --shm /run/memserver.sock \
        --auth-file /tmp/keys --admin unix:/run/memserver-admin.sock "$@" 2>>/tmp/memserver.log &
    server=$!
}
server_ready() { "$FARMEM_BIN_DIR/memserver" status --admin unix:/run/memserver-admin.sock --json >/tmp/server-status 2>/dev/null; }
stop_server() {
    kill "$1" "$server"
    wait $server 2>/dev/null || true
}
# granted BYTES: that is what the server says.
granted() { server_ready && [ "$(jq .granted_bytes /tmp/server-status)" = "$1" ]; }

key="key_name=lab key_secret=00112233445566778899aabbccddeeff"
# attach BYTES WORDS...
attach() {
    local size=$1
    shift
    farmem attach far0 rdma "$size" address=$near $key "$@" >/tmp/attached
}
swap_on() {
    if [ "${FRONTEND:-block}" = frontswap ]; then
        disk=${loop:=$(truncate -s 256M /tmp/area && losetup -f --show /tmp/area)}
        attach "$@" frontend=frontswap area=$disk
        mkswap $disk >/dev/null
        swapon $disk
    else
        attach "$@"
        mkswap $disk >/dev/null
        swapon --discard $disk
    fi
}
# swap_off: an area's header is on its own disk. Without one the device holds the slab of the header when swap is off, and nothing after a discard of all.
swap_off() {
    swapoff $disk
    if [ -n "$loop" ]; then
        until_true 2 unused
        farmem detach far0
        return
    fi
    until_true 2 at_most $slab
    blkdiscard -qf $disk 2>/dev/null || blkdiscard -f $disk 2>/dev/null
    until_true 2 unused
    farmem detach far0
}
unused() { [ "$(field used)" = 0 ]; }
# agreed: server and client say the same.
agreed() { granted "$(field used)"; }
# at_most BYTES: that much is held.
at_most() { [ "$(field used)" -le "$1" ]; }
# given_back: what a process that ended had on the device is returned. The kernel keeps 64 freed slots of a processor without telling,
# anywhere: a small process, whose slots are neighbours, pushes them out; those of its own, and the header, are in few slabs.
given_back() {
    [ "$(nproc)" = 1 ] || return 0
    exercise pageout 256
    until_true 1 at_most $((4 * MiB))
}
live() { [ "$(field state)" = live ]; }
sessions_above() { [ "$(field sessions)" -gt "$1" ] && live; }

mkdir -p /run/pool $group
mount -t tmpfs tmpfs /run/pool
echo 32M >$group/memory.max
echo lab:00112233445566778899aabbccddeeff >/tmp/keys
chmod 600 /tmp/keys
insmod "$module"

# asking: the module is on its way to the server.
asking() { rdma resource show cm_id | grep -q 'comm \[farmem\]'; }

part_refusals() {
    local before attaching
    refused 22 "needs the address" farmem attach far0 rdma $((64 * MiB))
    refused 22 "neither IPv4 nor IPv6" farmem attach far0 rdma $((64 * MiB)) address=memserver
    refused 22 "both its name" farmem attach far0 rdma $((64 * MiB)) address=$near key_name=lab
    refused 22 "1 to 63" farmem attach far0 rdma $((64 * MiB)) address=$near lease=
    refused 111 "nobody listens" farmem attach far0 rdma $((64 * MiB)) address=$near port=50001 $key
    refused 113 "no RDMA device" farmem attach far0 rdma $((64 * MiB)) address=192.168.77.9 $key
    refused 101 "no RDMA device" farmem attach far0 rdma $((64 * MiB)) address=10.9.8.7 $key
    refused 13 "wants a key" farmem attach far0 rdma $((64 * MiB)) address=$near
    refused 13 "does not accept" farmem attach far0 rdma $((64 * MiB)) address=$near key_name=lab key_secret=00
    refused 13 "does not accept" farmem attach far0 rdma $((64 * MiB)) address=$near key_name=other key_secret=00
    [ ! -e $disk ] && [ -z "$(farmem status)" ] || fail "a refused attach left a device"
    # An attach that waits for its server keeps nobody from seeing or leaving another device.
    farmem attach near dram $MiB >/dev/null
    ip neighbour replace $near dev veth1 lladdr 02:00:00:00:00:01 nud permanent
    farmem attach far0 rdma $((64 * MiB)) address=$near $key attach_deadline=30000 >/tmp/attached 2>&1 &
    attaching=$!
    until_true 20 asking
    [ "$(farmem status near | jq -r .backend) $(farmem status | jq -r .name)" = "dram near" ] || fail "no status while another device is attached"
    kill -0 $attaching 2>/dev/null || fail "the status waited for the attach: $(cat /tmp/attached)"
    ip neighbour delete $near dev veth1
    wait $attaching || fail "attach, with the network back: $(cat /tmp/attached)"
    farmem detach near
    farmem detach far0
    # A lease has one client and one size, and what a client held goes with its detach.
    attach $((64 * MiB)) queues=2
    refused 16 "another client" farmem attach far1 rdma $((64 * MiB)) address=$near $key lease=far0 attach_deadline=500
    dd if=/dev/zero of=$disk bs=1M count=8 oflag=direct status=none
    [ "$(field used)" = $((8 * MiB)) ] || fail "8 MiB take $(field used) bytes"
    farmem detach far0
    granted 0 || fail "the server still holds something: $(cat /tmp/server-status)"
    # More than the server has.
    farmem attach far0 rdma $((512 * MiB)) address=$near $key >/tmp/attached 2>&1 || return 0
    ! dd if=/dev/zero of=$disk bs=1M count=256 oflag=direct status=none 2>/dev/null || fail "256 MiB fit into 192 MiB"
    [ "$(field rejected_server)" -gt 0 ] || fail "no write was refused by the server"
    before=$(field used)
    [ "$before" -le $((192 * MiB)) ] || fail "$before bytes are granted"
    farmem detach far0
}

part_swap() {
    local held options
    attach $((64 * MiB))
    cmp -n $((64 * MiB)) $disk /dev/zero || fail "a new device is not of zeros"
    [ "$(field used)" = 0 ] || fail "reading took memory"
    held=$(exercise raw $disk) || fail "raw: $held"
    blkdiscard -f $disk 2>/dev/null
    until_true 2 unused
    farmem detach far0
    for options in "" poll=1 synchronous=1 queues=1; do
        swap_on $((160 * MiB)) $options
        limited python3 "$here/exercise.py" pressure 12288 || fail "under pressure ($options)"
        [ "$(field pages_written)" -gt 5000 ] || fail "it was not swapped"
        given_back
        [ "$(field read_errors)" = 0 ] && [ "$(field write_errors)" = 0 ] || fail "errors"
        swap_off
    done
    if [ -x "$FARMEM_BIN_DIR/farmem" ]; then
        swap_on $((160 * MiB))
        timeout 200 "$FARMEM_BIN_DIR/farmem" bench swap --size 32MiB --json >/tmp/report || fail "bench swap ended with $?"
        jq -c . /tmp/report
        [ "$(jq .wrong_pages /tmp/report)" = 0 ] || fail "wrong pages"
        swap_off
    fi
}

part_faults() {
    # What the device fails is repeated on another session, and nobody notices.
    swap_on $((96 * MiB))
    echo 3000 >/sys/module/farmem/parameters/break_reads
    echo 100 >/sys/module/farmem/parameters/break_writes
    limited python3 "$here/exercise.py" pressure 12288 || fail "with completions that fail"
    echo 0 >/sys/module/farmem/parameters/break_reads
    echo 0 >/sys/module/farmem/parameters/break_writes
    [ "$(field completion_errors)" -gt 3 ] && [ "$(field repeated)" -gt 3 ] || fail "no completion failed"
    until_true 10 live
    swap_off
    # A read whose completions all fail: SIGBUS at its deadline, and the page is never up to date.
    swap_on $((96 * MiB)) read_deadline=6000
    echo 0 >/proc/sys/vm/page-cluster
    limited python3 "$here/exercise.py" failing 12288 break_reads || fail "with failing reads"
    echo 3 >/proc/sys/vm/page-cluster
    [ "$(field reads_timed_out)" -gt 0 ] || fail "no read was late"
    until_true 10 live
    swap_off
    # Writes whose completions all fail: the kernel keeps the pages.
    swap_on $((96 * MiB)) write_deadline=300
    echo 1 >/sys/module/farmem/parameters/break_writes
    exercise pageout 2048 || fail "with failing writes"
    echo 0 >/sys/module/farmem/parameters/break_writes
    [ "$(field writes_timed_out)" -gt 0 ] || fail "no write was late"
    until_true 10 live
    swap_off
    # Another lease of the same name has nothing of ours: reads fail, and nothing is invented.
    attach $((64 * MiB)) read_deadline=3000
    dd if=/dev/zero of=$disk bs=1M count=4 oflag=direct status=none
    stop_server -9
    rm -rf /run/pool/pool
    start_server
    until_true 10 server_ready
    until_true 20 lost
    ! dd if=$disk of=/dev/null bs=4k count=1 iflag=direct status=none 2>/dev/null || fail "a lost page was read"
    ! dd if=/dev/zero of=$disk bs=4k count=1 oflag=direct status=none 2>/dev/null || fail "a lost device was written"
    dd if=$disk bs=4k skip=2048 count=1 iflag=direct status=none | cmp -n 4096 - /dev/zero || fail "what was never written is not zeros"
    [ "$(field reads_lost)" -gt 0 ] && [ "$(field rejected_lost)" -gt 0 ] || fail "nothing was counted as lost"
    farmem detach far0
}
lost() { [ "$(field state)" = lost ]; }

# Under verified load in a cgroup of half its size.
load_on() {
    touch /tmp/go
    (echo $BASHPID >$group/cgroup.procs && exec timeout "$1" python3 "$here/exercise.py" endure 16384 /tmp/go) >/tmp/endured 2>&1 &
    load=$!
    until_true 60 at_least_written 2000
}
at_least_written() { [ "$(field pages_written)" -ge "$1" ]; }
load_off() {
    rm /tmp/go
    wait $load || fail "the load ended with $?: $(cat /tmp/endured)"
    cat /tmp/endured
    [ "$(field reads_timed_out)" = 0 ] && [ "$(field read_errors)" = 0 ] && [ "$(field reads_lost)" = 0 ] || fail "reads failed"
    until_true 10 live
    given_back
    until_true 2 agreed
    swap_off
    granted 0 || fail "the server still holds something: $(cat /tmp/server-status)"
}

part_kills() {
    local round sessions
    swap_on $((128 * MiB))
    load_on 3600
    for round in $(seq "${KILLS:-8}"); do
        sleep 0.$((RANDOM % 9))
        sessions=$(field sessions)
        stop_server -9
        sleep 0.$((RANDOM % 5))
        start_server
        until_true 20 sessions_above "$sessions"
        kill -0 $load 2>/dev/null || fail "the load ended in round $round: $(cat /tmp/endured)"
    done
    until_true 10 server_ready
    load_off
    echo "$round times kill -9"
}

part_links() {
    local round sessions
    swap_on $((128 * MiB))
    load_on 3600
    for round in $(seq "${FLAPS:-3}"); do
        sessions=$(field sessions)
        # Packets get lost, in one direction or in both. (Not by taking an interface down: Soft-RoCE of 6.1 never again sends a
        # connection's messages after it found no route for one.)
        ip neighbour replace $near dev veth1 lladdr 02:00:00:00:00:01 nud permanent
        [ $((round % 2)) = 0 ] || ip neighbour replace 192.168.77.2 dev veth0 lladdr 02:00:00:00:00:01 nud permanent
        sleep $((1 + (round - 1) % 5))
        ip neighbour delete $near dev veth1
        [ $((round % 2)) = 0 ] || ip neighbour delete 192.168.77.2 dev veth0
        until_true 20 live
        kill -0 $load 2>/dev/null || fail "the load ended in round $round: $(cat /tmp/endured)"
        sleep 0.5
    done
    [ "$(field sessions)" -gt 1 ] || fail "the network was never missed"
    load_off
    echo "cut off $round times"
}

# no_leaks: kmemleak, where the kernel has it and was told to use it, finds nothing that nobody has a pointer to. What it finds the kernel's
# log has, too, which fails the guest. The module is not to be loaded: User-Mode Linux with KASAN does not tell kmemleak of a module's memory,
# so that whatever only that points to would count.
leaks=/sys/kernel/debug/kmemleak
no_leaks() {
    { echo scan >$leaks; } 2>/dev/null || return 0
    # It passes over what is younger than 5 s.
    sleep 6
    echo scan >$leaks
    [ -z "$(cat $leaks)" ] || fail "leaks: $(cat $leaks)"
    echo "kmemleak: none"
}

part_cycles() {
    local round
    # Not by itself, while the module is loaded.
    { echo scan=off >$leaks; } 2>/dev/null || true
    for round in $(seq "${CYCLES:-5}"); do
        rmmod farmem
        insmod "$module"
        swap_on $((32 * MiB))
        swap_off
        # Leaving while the server is dead.
        if [ $((round % 5)) = 0 ]; then
            attach $((32 * MiB)) lease=left
            stop_server -9
            farmem detach far0
            start_server
            until_true 10 server_ready
        fi
    done
    rmmod farmem
    no_leaks
    insmod "$module"
    echo "$round lives"
}

start_server
until_true 20 server_ready
for part in "${@:2}"; do
    start=$SECONDS
    "part_$part"
    echo "$part: $((SECONDS - start)) s"
done
[ -z "$(farmem status)" ] || fail "a device is left"
rmmod farmem
[ ! -e /sys/module/farmem ]
stop_server -TERM
