#!/bin/bash
# memserver --rdma on Soft-RoCE, asked by a client that is written from the documentation alone: sessions, slabs, keys, succession.
# lab: --memory 512M --timeout 120
set -euo pipefail
PATH=$FARMEM_BIN_DIR:$PATH
[ -x "$FARMEM_BIN_DIR/memserver" ] || { echo "no memserver in $FARMEM_BIN_DIR: run swift build -c release --static-swift-stdlib" && exit 77; }
export FARMEM_RUNTIME_DIR=/run/farmem
tests=tools/lab.d/tests/rdma
mkdir -p /run/farmem /dev/shm/pool
far=192.168.77.2 near=192.168.77.1

fail() {
    echo "FAILED: $*"
    cat /run/memserver.log
    exit 1
}

for program in conversation; do
    gcc -Wall -Wextra -Werror -O1 -ISources/CWireFormat/include -o /run/$program $tests/$program.c $tests/client.c -lrdmacm -libverbs -lgnutls
done
key=$(head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n')
(umask 77 && echo "lab:$key" >/run/keys)

# Without a key nobody from outside is served, and without a device nobody.
status=0
memserver serve --capacity 64MiB --rdma $far 2>/run/refused || status=$?
[ $status = 64 ] || fail "served the network without keys: $status $(cat /run/refused)"
status=0
memserver serve --capacity 64MiB --rdma 192.0.2.1 --auth-file /run/keys 2>/run/refused || status=$?
[ $status = 71 ] && [ "$(wc -l </run/refused)" = 1 ] || fail "an address without a device: $status $(cat /run/refused)"

mkfifo /run/ready
# Slabs of 512 KiB, not of 1 MiB: KASAN tells of Soft-RoCE of 6.1 for regions of a multiple of 256 pages.
memserver serve --capacity 64MiB --slab 512KiB --pool /dev/shm/pool --auth-file /run/keys --rdma $far:50001 --ready-fd 9 9<>/run/ready 2>/run/memserver.log &
server=$!
read -r -t 20 _ <>/run/ready || fail "memserver is not ready"
timeout 60 /run/conversation $far 50001 lab "$key" || fail "conversation ended with $?"
[ "$(memserver status --json | jq .granted_bytes)" = 0 ] || fail "slabs are left: $(memserver status --json)"

kill $server
wait $server || fail "memserver ended with $?"
