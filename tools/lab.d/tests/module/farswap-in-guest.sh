#!/bin/bash
# farswap-in-guest.sh MODULE: what host/module-farswap.sh has done in a guest.
set -euo pipefail
PATH=$FARMEM_BIN_DIR:$PATH
module=$1
export FARMEM_RUNTIME_DIR=/run/farmem
mkdir -p /run/farmem

fail() {
    echo "FAILED: $*"
    farswap status || true
    cat /proc/swaps
    dmesg | tail -n 20
    exit 1
}
# refused STATUS WORDS COMMAND...: one line that holds the words, nothing changed.
refused() {
    local wanted=$1 words=$2 status=0
    shift 2
    "$@" >/run/refused 2>&1 || status=$?
    [ "$status" = "$wanted" ] || fail "$*: status $status instead of $wanted: $(cat /run/refused)"
    [ "$(wc -l </run/refused)" = 1 ] && grep -q "$words" /run/refused || fail "$*: $(cat /run/refused)"
    [ "$(wc -l </proc/swaps)" = 1 ] && [ ! -e /run/farmem/swap/far0/state ] && [ ! -e /dev/farmem0 ] || fail "$*: something is left"
}
status() { farswap status --json | jq -r ".devices[0]$1"; }
attach() { timeout 30 farswap attach dram:96MiB --frontend module --size 128MiB "$@"; }

refused 71 "farmem.ko is not loaded" attach
insmod "$module"
refused 64 "needs --frontend fuse" attach --fallback /run/pages
refused 64 "31 characters" attach --name a-name-that-is-much-longer-than-a-device-may-have
refused 64 "at most --size" farswap attach dram:2GiB --frontend module --size 1GiB
refused 64 "give --frontend module" farswap attach dram:1GiB --size 1GiB
refused 64 "takes dram:CAPACITY" farswap attach shm:/run/none --frontend module --size 1GiB

attach >/run/out || fail "attach: $(cat /run/out)"
grep -q "attached as /dev/farmem0" /run/out || fail "$(cat /run/out)"
grep -q '^/dev/farmem0 ' /proc/swaps || fail "no swap"
[ "$(status .state) $(status .frontend) $(status .device)" = "attached module /dev/farmem0" ] || fail "status"
again=0
attach >/run/out 2>&1 || again=$?
[ $again = 75 ] || fail "a second device of the name: $again $(cat /run/out)"
timeout 120 farmem bench swap --size 24MiB --json >/run/report || fail "bench swap ended with $?"
[ "$(jq .wrong_pages /run/report)" = 0 ] || fail "wrong pages"
[ "$(status .counters.pages_in_total)" -gt 6000 ] || fail "$(status .counters)"
[ "$(status .counters.pages_out_total)" -gt 6000 ] || fail "$(status .counters)"
[ "$(status .counters.load_failed_total)" = 0 ] || fail "$(status .counters)"
# What the process had is gone with it.
[ "$(status .fabric.pages)" -lt 256 ] || fail "$(status .fabric.pages) pages are held after the end"
[ "$(farswap status --repair)" = "far0: healthy" ] || fail "repair of what is well"
timeout 60 farswap detach far0 >/dev/null || fail "detach"
[ "$(wc -l </proc/swaps)" = 1 ] && [ ! -e /dev/farmem0 ] || fail "left after detach"
[ "$(farswap status)" = "no swap device is attached" ] || fail "$(farswap status)"

# Cut off half way: the device is there, and nobody swaps to it.
attach >/dev/null
swapoff /dev/farmem0
[ "$(farswap status --repair)" = "far0: nobody served it any more; removed" ] || fail "repair"
[ ! -e /dev/farmem0 ] || fail "left after repair"
# The module is gone, the state is not.
attach >/dev/null
swapoff /dev/farmem0
python3 "$(dirname "$0")/farmem_netlink.py" detach far0
gone=0
farswap status >/dev/null || gone=$?
[ $gone = 1 ] && [ "$(status .state)" = dead ] || fail "a device that is gone: $gone $(status .state)"
rmmod farmem
[ "$(farswap status --repair)" = "far0: nobody served it any more; removed" ] || fail "repair without the module"
[ -z "$(ls /run/farmem/swap)" ] || fail "state is left: $(ls /run/farmem/swap)"
