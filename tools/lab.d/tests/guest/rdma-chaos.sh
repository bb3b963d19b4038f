#!/bin/bash
# Verified swap over RDMA while memserver and farswap's data process are killed at random, and while the cable is cut.
# lab: --memory 1G --timeout 600
set -euo pipefail
PATH=$FARMEM_BIN_DIR:$PATH
for program in farswap farmem memserver; do
    [ -x "$FARMEM_BIN_DIR/$program" ] ||
        { echo "no $program in $FARMEM_BIN_DIR: run swift build -c release --static-swift-stdlib" && exit 77; }
done
export FARMEM_RUNTIME_DIR=/run/farmem
mkdir -p /run/farmem /dev/shm/pool
far=192.168.77.2
faults=2000 kills=${FARMEM_LAB_KILLS:-12}

fail() {
    echo "FAILED: $*"
    farswap status || true
    tail -n 30 /run/farmem/swap/*/log /run/memserver.log 2>/dev/null || true
    exit 1
}

key=$(head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n')
(umask 77 && echo "lab:$key" >/run/keys)

# memserver, and again whenever it is killed.
mkfifo /run/ready
(
    while [ ! -e /run/enough ]; do
        memserver serve --capacity 256MiB --pool /dev/shm/pool --rdma $far --auth-file /run/keys --ready-fd 9 9<>/run/ready 2>>/run/memserver.log &
        echo $! >/run/memserver.pid
        wait $! || true
    done
) &
keeper=$!
read -r -t 30 _ <>/run/ready || fail "memserver is not ready"

# cut SECONDS: all that is sent over the cable is lost for so long. (With `ip link set down` Soft-RoCE of 6.1 would hear no
# connection request any more: its queue pair for them fails with the first send that finds no route.)
cut() {
    ip neighbour replace 192.168.77.1 dev veth1 lladdr 02:00:00:00:00:01 nud permanent
    ip neighbour replace 192.168.77.2 dev veth0 lladdr 02:00:00:00:00:01 nud permanent
    sleep "$1"
    ip neighbour delete 192.168.77.1 dev veth1
    ip neighbour delete 192.168.77.2 dev veth0
}

# page_through NAME: the verified workload, in the background until /run/stop is there.
page_through() {
    rm -f /run/stop
    mkdir -p /sys/fs/cgroup/pager
    tools/lab.d/tests/rdma/pager.py 16 "$faults" "${FARMEM_SEED:-1}" /run/stop /sys/fs/cgroup/pager >/run/report &
    pager=$!
}

# finish_paging NAME: until the workload has seen enough.
finish_paging() {
    touch /run/stop
    wait $pager || fail "the workload ended with $? while $1: $(cat /run/report)"
    echo "$1: $(cat /run/report)"
}

# While no page is on its way in: User-Mode Linux has no way to pin a killed process's memory (get_user_pages_fast), so that FUSE
# would end with EIO what that process was just answering, which is a SIGBUS. Pages may be on their way out.
kill_data_process() {
    kill -STOP $pager
    for _ in {1..600}; do
        ! grep -q '^State:.T' /proc/$pager/status || break
        sleep 0.05
    done
    kill -9 "$(farswap status --json | jq '.devices[0].data_pid')" || true
    kill -CONT $pager
}

timeout 60 farswap attach --frontend fuse rdma://$far/chaos --auth-file /run/keys --size 128MiB >/dev/null || fail "attach"

# Who is killed is drawn from the seed; the next one when all has been back for a moment.
RANDOM=${FARMEM_SEED:-1}
page_through
for ((kill = 1; kill <= kills; kill++)); do
    sleep 0.$((RANDOM % 9 + 1))
    kill -0 $pager 2>/dev/null || break
    if [ $((RANDOM % 2)) = 0 ]; then
        kill -9 "$(cat /run/memserver.pid)"
        # The next one writes its pid over this one.
        read -r -t 30 _ <>/run/ready || fail "memserver did not come back"
    else
        kill_data_process
    fi
    sleep 0.$((RANDOM % 9 + 1))
done
finish_paging "killing $((kill - 1)) times"

page_through
cuts=0
for seconds in 1 2 3 5 1; do
    sleep 2
    kill -0 $pager 2>/dev/null || break
    cut $seconds
    cuts=$((cuts + 1))
done
finish_paging "cutting $cuts times"

timeout 60 farswap detach far0 >/dev/null || fail "detach"
[ "$(wc -l </proc/swaps)" = 1 ] || fail "swap is left: $(cat /proc/swaps)"
granted=$(memserver status --json | jq .granted_bytes)
[ "$granted" = 0 ] || fail "slabs are left: $granted bytes"
touch /run/enough
kill "$(cat /run/memserver.pid)"
wait $keeper
