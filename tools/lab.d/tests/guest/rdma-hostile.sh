#!/bin/bash
# Clients of memserver --rdma that do what they must not, beside one that goes on.
# lab: --memory 512M --timeout 300
set -euo pipefail
PATH=$FARMEM_BIN_DIR:$PATH
[ -x "$FARMEM_BIN_DIR/memserver" ] || { echo "no memserver in $FARMEM_BIN_DIR: run swift build -c release --static-swift-stdlib" && exit 77; }
export FARMEM_RUNTIME_DIR=/run/farmem
tests=tools/lab.d/tests/rdma
mkdir -p /run/farmem /dev/shm/pool
far=192.168.77.2

fail() {
    echo "FAILED: $*"
    tail -n 40 /run/memserver.log
    exit 1
}

gcc -Wall -Wextra -Werror -O1 -ISources/CWireFormat/include -o /run/hostile $tests/hostile.c $tests/client.c -lrdmacm -libverbs -lgnutls
key() { head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n'; }
victim=$(key) own=$(key)
(umask 77 && printf 'lab:%s\nevil:%s\n' "$victim" "$own" >/run/keys)

mkfifo /run/ready
# Slabs of 512 KiB, not of 1 MiB: KASAN tells of Soft-RoCE of 6.1 for regions of a multiple of 256 pages.
memserver serve --capacity 64MiB --slab 512KiB --pool /dev/shm/pool --auth-file /run/keys --rdma $far --ready-fd 9 9<>/run/ready 2>/run/memserver.log &
server=$!
read -r -t 20 _ <>/run/ready || fail "memserver is not ready"
timeout 200 /run/hostile $far 50000 lab "$victim" evil "$own" || fail "hostile ended with $?"

# Sessions whose clients were killed end; all but their leases is gone.
metric() { curl -s --unix-socket /run/farmem/memserver-admin.sock http://localhost/metrics | sed -n "s/^farmem_rdma_$1 //p"; }
for _ in {1..250}; do
    [ "$(metric sessions_open)" != 0 ] || break
    sleep 0.1
done
[ "$(metric sessions_open) $(metric queues_open) $(metric regions)" = "0 0 0" ] ||
    fail "left: $(metric sessions_open) sessions, $(metric queues_open) queues, $(metric regions) regions"
[ "$(metric authentication_failures_total)" -ge 2 ] || fail "wrong keys are not counted"
[ "$(metric connections_refused_total)" -ge 8 ] || fail "refused connections are not counted"
kill $server
wait $server || fail "memserver ended with $?"
