#!/bin/bash
# Far memory over RDMA as swap: farswap attach --frontend fuse rdma:// to memserver at the other end of a cable with Soft-RoCE.
# lab: --memory 1G --timeout 300
set -euo pipefail
PATH=$FARMEM_BIN_DIR:$PATH
for program in farswap farmem memserver; do
    [ -x "$FARMEM_BIN_DIR/$program" ] ||
        { echo "no $program in $FARMEM_BIN_DIR: run swift build -c release --static-swift-stdlib" && exit 77; }
done
export FARMEM_RUNTIME_DIR=/run/farmem
mkdir -p /run/farmem /dev/shm/pool
far=192.168.77.2

fail() {
    echo "FAILED: $*"
    farswap status || true
    tail -n 20 /run/farmem/swap/*/log /run/memserver.log 2>/dev/null || true
    exit 1
}

key=$(head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n')
(umask 77 && echo "lab:$key" >/run/keys && echo "lab:${key//[0-9a]/b}" >/run/wrong)

serve() {
    rm -f /run/ready && mkfifo /run/ready
    memserver serve --capacity 256MiB --pool /dev/shm/pool --rdma $far --auth-file /run/keys --ready-fd 9 9<>/run/ready 2>>/run/memserver.log &
    server=$!
    read -r -t 20 _ <>/run/ready || fail "memserver is not ready"
}

# refused STATUS OPTION...: attach ends within seconds, with one line, and leaves nothing.
refused() {
    local status=0 wanted=$1
    shift
    timeout 30 farswap attach --frontend fuse "$@" --size 64MiB >/run/out 2>/run/err || status=$?
    [ $status = "$wanted" ] || fail "attach $*: $status instead of $wanted: $(cat /run/err)"
    [ "$(wc -l </run/err)" = 1 ] || fail "attach $*: more than a line: $(cat /run/err)"
    [ "$(wc -l </proc/swaps)" = 1 ] || fail "attach $*: swap is left"
    echo "refused: $(cat /run/err)"
}

serve
refused 77 rdma://$far/bad --auth-file /run/wrong
refused 77 rdma://$far/bad
refused 69 rdma://$far:50099/bad --auth-file /run/keys
refused 64 rdma://$far:x/bad --auth-file /run/keys
refused 69 rdma://192.168.77.9/bad --auth-file /run/keys

timeout 60 farswap attach --frontend fuse rdma://$far/talk --auth-file /run/keys --size 128MiB >/dev/null || fail "attach"
timeout 120 farmem bench swap --size 24MiB --json >/run/report || fail "bench swap ended with $?"
jq -c '{wrong_pages, major_faults}' /run/report
[ "$(jq .wrong_pages /run/report)" = 0 ] || fail "wrong pages"
[ "$(jq .major_faults /run/report)" -gt 3000 ] || fail "the pages were not swapped: $(cat /run/report)"
# The memory of a process that has ended comes back without anybody asking; pages of others may lie here and there.
for _ in {1..100}; do
    granted=$(memserver status --json | jq .granted_bytes)
    [ "$granted" -gt 8388608 ] || break
    sleep 0.1
done
[ "$granted" -le 8388608 ] || fail "far memory is held by nobody: $(memserver status --json)"
timeout 60 farswap detach far0 >/dev/null || fail "detach"
[ "$(wc -l </proc/swaps)" = 1 ] || fail "swap is left: $(cat /proc/swaps)"
[ "$(memserver status --json | jq '.leases | length')" = 0 ] || fail "the lease is left: $(memserver status --json)"

kill $server
wait $server || fail "memserver ended with $?"
