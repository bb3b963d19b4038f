#!/bin/bash
# Far memory as swap on 6.1 with cgroup v2: farswap's frontends FUSE and nbd, with pages in memserver.
# lab: --memory 1G --timeout 300
set -euo pipefail
PATH=$FARMEM_BIN_DIR:$PATH
for program in farswap farmem memserver; do
    [ -x "$FARMEM_BIN_DIR/$program" ] ||
        { echo "no $program in $FARMEM_BIN_DIR: run swift build -c release --static-swift-stdlib" && exit 77; }
done
export FARMEM_RUNTIME_DIR=/run/farmem
mkdir -p /run/farmem /dev/shm/pool

fail() {
    echo "FAILED: $*"
    farswap status || true
    tail -n 20 /run/farmem/swap/*/log /run/memserver.log 2>/dev/null || true
    exit 1
}

# swap_through URL OPTION...: attach, 24 MiB out and back with every page compared, detach, nothing left.
swap_through() {
    timeout 60 farswap attach "$@" --size 128MiB >/dev/null || fail "attach $*"
    timeout 120 farmem bench swap --size 24MiB --json >/run/report || fail "bench swap on $1 ended with $?"
    echo "$1: $(jq -c '{wrong_pages, major_faults}' /run/report)"
    [ "$(jq .wrong_pages /run/report)" = 0 ] || fail "wrong pages"
    [ "$(jq .major_faults /run/report)" -gt 3000 ] || fail "the pages were not swapped: $(cat /run/report)"
    timeout 60 farswap detach far0 >/dev/null || fail "detach"
    [ "$(wc -l </proc/swaps)" = 1 ] || fail "swap is left: $(cat /proc/swaps)"
}

mkfifo /run/ready
memserver serve --capacity 256MiB --pool /dev/shm/pool --shm /run/shm --nbd unix:/run/nbd --auto-lease 128MiB \
    --ready-fd 9 9<>/run/ready 2>/run/memserver.log &
read -r -t 20 _ <>/run/ready || fail "memserver is not ready"
swap_through shm:/run/shm
swap_through "nbd+unix:///?socket=/run/nbd" --frontend nbd
swap_through "nbd+unix:///?socket=/run/nbd" --frontend fuse
[ "$(du -sm /dev/shm/pool | cut -f1)" -le 2 ] || fail "the pool holds $(du -sm /dev/shm/pool) after detach"

# The same under a limit of cgroup v2 instead of an order to page out.
timeout 60 farswap attach shm:/run/shm --size 128MiB >/dev/null || fail "attach for the limit"
mkdir /sys/fs/cgroup/limited
echo 32M >/sys/fs/cgroup/limited/memory.max
(
    echo $BASHPID >/sys/fs/cgroup/limited/cgroup.procs
    exec python3 - <<'PYTHON'
pages = [number.to_bytes(8, "little") * 512 for number in range(20000)]
assert all(page == number.to_bytes(8, "little") * 512 for number, page in enumerate(pages))
assert int(open("/sys/fs/cgroup/limited/memory.swap.current").read()) > 30 << 20
PYTHON
) || fail "a process over its limit"
timeout 60 farswap detach far0 >/dev/null || fail "detach after the limit"
