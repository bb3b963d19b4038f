#!/bin/bash
# functions-in-guest.sh MODULE: what host/module-functions.sh has done in a guest.
set -euo pipefail
PATH=$FARMEM_BIN_DIR:$PATH
export FARMEM_RUNTIME_DIR=/run/farmem
far=192.168.77.2
mkdir -p /run/farmem /dev/shm/pool

fail() {
    echo "FAILED: $*"
    tail -n 5 /run/farmem/bench/*.log /run/memserver.log 2>/dev/null || true
    dmesg | tail -n 20
    exit 1
}

insmod "$1"
(umask 77 && echo "lab:$(head -c 32 /dev/urandom | od -v -An -tx1 | tr -d ' \n')" >/run/keys)
mkfifo /run/ready
memserver serve --capacity 512MiB --pool /dev/shm/pool --auth-file /run/keys --rdma $far --ready-fd 9 9<>/run/ready 2>>/run/memserver.log &
server=$!
read -r -t 20 _ <>/run/ready || fail "memserver is not ready"

# A guest is some ten times slower than its host: few requests, and latencies that mean little.
timeout "${PATIENCE:-800}" farmem bench functions --functions web,float --duration "${DURATION:-40s}" --warm-up 15s --trace-functions 10 --rate-max 1 \
    --far-memory rdma://$far/far --frontend module --auth-file /run/keys --far-size 512MiB --keep-logs --json /run/report ||
    fail "the benchmark ended with $?"
jq -e '.schema' /run/report >/dev/null || fail "no report"
[ "$(wc -l </proc/swaps)" = 1 ] || fail "swap is left: $(cat /proc/swaps)"
[ "$(memserver status --json | jq .granted_bytes)" = 0 ] || fail "slabs are left: $(memserver status --json)"
rmmod farmem
kill $server
wait $server
