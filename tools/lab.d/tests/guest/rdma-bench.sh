#!/bin/bash
# farmem bench rdma against memserver: every page that comes back is right, and memserver sleeps while pages move.
# lab: --memory 512M --timeout 300
set -euo pipefail
PATH=$FARMEM_BIN_DIR:$PATH
for program in farmem memserver; do
    [ -x "$FARMEM_BIN_DIR/$program" ] ||
        { echo "no $program in $FARMEM_BIN_DIR: run swift build -c release --static-swift-stdlib" && exit 77; }
done
export FARMEM_RUNTIME_DIR=/run/farmem
mkdir -p /run/farmem /dev/shm/pool
far=192.168.77.2

fail() {
    echo "FAILED: $*"
    cat /run/memserver.log
    exit 1
}

key=$(head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n')
(umask 77 && echo "lab:$key" >/run/keys)
mkfifo /run/ready
memserver serve --capacity 64MiB --pool /dev/shm/pool --rdma $far --auth-file /run/keys --ready-fd 9 9<>/run/ready 2>/run/memserver.log &
server=$!
read -r -t 20 _ <>/run/ready || fail "memserver is not ready"

# How often memserver's threads gave the processor up of their own accord: each time after some work. A session's thread goes with
# its session, so it is counted while it lives.
switches() {
    local sum=0 task
    for task in /proc/$server/task/*/status; do
        sum=$((sum + $(sed -n 's/^voluntary_ctxt_switches:\t//p' "$task" 2>/dev/null || echo 0)))
    done
    echo $sum
}

farmem bench rdma rdma://$far/bench --auth-file /run/keys --size 16MiB --pages 20000 --json >/run/report &
bench=$!
most=0
while kill -0 $bench 2>/dev/null; do
    now=$(switches)
    [ "$now" -le $most ] || most=$now
    sleep 0.1
done
wait $bench || fail "bench ended with $?"
jq -c '{read_one: .series.read_one, batched_writes_gain}' /run/report
[ "$(jq .wrong_pages /run/report)" = 0 ] || fail "wrong pages: $(cat /run/report)"
# 120,000 pages in six series. What is asked for of memserver is a session and sixteen slabs.
[ $most -lt 2000 ] || fail "memserver woke $most times for 120,000 pages"
[ "$(memserver status --json | jq '.leases | length')" = 0 ] || fail "the lease is left"

status=0
farmem bench rdma rdma://$far/bench --size 16MiB 2>/run/err || status=$?
[ $status = 77 ] || fail "without a key: $status $(cat /run/err)"
kill $server
wait $server || fail "memserver ended with $?"
