#!/bin/bash
# farswap-in-guest.sh MODULE: what host/module-farswap.sh has done in a guest.
. "$(dirname "$0")/guest.sh"
module=$1

nothing_granted() { [ "$(granted)" = 0 ]; }
nothing_left() { [ "$(wc -l </proc/swaps)" = 1 ] && [ ! -e /run/farmem/swap/far0/state ] && [ ! -e /dev/farmem0 ]; }
attach() { timeout 30 farswap attach dram:96MiB --frontend module --size 128MiB "$@"; }

refused 71 "farmem.ko is not loaded" attach
insmod "$module"
refused 64 "needs --frontend fuse" attach --fallback /run/pages
refused 64 "31 characters" attach --name a-name-that-is-much-longer-than-a-device-may-have
refused 64 "at most --size" farswap attach dram:2GiB --frontend module --size 1GiB
refused 64 "give --frontend module" farswap attach dram:1GiB --size 1GiB
refused 64 "takes rdma:// and dram:CAPACITY" farswap attach shm:/run/none --frontend module --size 1GiB

attach >/run/out || fail "attach: $(cat /run/out)"
grep -q "attached as /dev/farmem0" /run/out || fail "$(cat /run/out)"
grep -q '^/dev/farmem0 ' /proc/swaps || fail "no swap"
[ "$(status .state) $(status .frontend) $(status .device)" = "attached module /dev/farmem0" ] || fail "status"
again=0
attach >/run/out 2>&1 || again=$?
[ $again = 75 ] || fail "a second device of the name: $again $(cat /run/out)"
timeout 600 farmem bench swap --size 24MiB --json >/run/report || fail "bench swap ended with $?"
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
farmem_ko detach far0
gone=0
farswap status >/dev/null || gone=$?
[ $gone = 1 ] && [ "$(status .state)" = dead ] || fail "a device that is gone: $gone $(status .state)"
unload
[ "$(farswap status --repair)" = "far0: nobody served it any more; removed" ] || fail "repair without the module"
[ -z "$(ls /run/farmem/swap)" ] || fail "state is left: $(ls /run/farmem/swap)"

# The same over RDMA, to a memory server at the other end of the cable.
load
make_keys
(umask 77 && echo "lab:$(head -c 32 /dev/zero | od -v -An -tx1 | tr -d ' \n')" >/run/wrong)
rdma() { timeout 60 farswap attach "rdma://$far/${lease-far}" --frontend module --size 128MiB --auth-file ${keys-/run/keys} "$@"; }
refused 69 "" rdma
serve
keys=/run/wrong refused 77 "" rdma
refused 77 "" timeout 60 farswap attach rdma://$far/far --frontend module --size 128MiB
refused 69 "" timeout 60 farswap attach rdma://192.168.77.3/far --frontend module --size 128MiB --auth-file /run/keys
refused 64 "" rdma --synchronous --threads 2
refused 64 "needs --frontend module" timeout 60 farswap attach rdma://$far/far --frontend fuse --size 128MiB --auth-file /run/keys --reserve

for options in "" --synchronous "--poll 1ms" "--connections 2"; do
    rdma $options >/run/out || fail "attach $options: $(cat /run/out /run/memserver.log)"
    timeout 600 farmem bench swap --size 24MiB --json >/run/report || fail "bench swap $options ended with $?"
    [ "$(jq .wrong_pages /run/report)" = 0 ] || fail "wrong pages $options"
    [ "$(status .counters.pages_in_total)" -gt 6000 ] || fail "$options: $(status .counters)"
    [ "$(status '.load_latency_ns_log2 | add')" -gt 1000 ] || fail "$options: no latencies: $(status .)"
    timeout 60 farswap detach far0 >/dev/null || fail "detach $options"
    echo "rdma ${options:-as it is}: $(jq -c '{random_in_p50_us, sequential_in_pages_per_second, page_out_pages_per_second}' /run/report)"
done

# Memory that is set aside at attach is there before the first page, stays when pages go, and goes with the device.
rdma --reserve >/run/out || fail "attach --reserve: $(cat /run/out)"
reserved=$(granted)
[ "$reserved" -ge $((128 << 20)) ] || fail "--reserve: $reserved bytes are granted"
timeout 600 farmem bench swap --size 8MiB --json >/run/report || fail "bench swap --reserve ended with $?"
[ "$(granted)" = "$reserved" ] || fail "--reserve: $(granted) bytes of $reserved are left after a benchmark"
timeout 60 farswap detach far0 >/dev/null || fail "detach --reserve"
# The module asks for that and waits a moment for the answer: a slow kernel may take longer to give all regions back.
until_true 30 nothing_granted || fail "--reserve: $(granted) bytes are left"

# The server is killed and started again under load: processes do not notice.
rdma >/dev/null || fail "attach"
farmem bench integrity --swap-ins 100000000 --size 24MiB --seed 5 --time 200s --stall 30s --json >/run/report &
bench=$!
for round in 1 2 3 4 5; do
    before=$(status .counters.pages_in_total)
    until [ "$(status .counters.pages_in_total)" -gt $((before + 500)) ]; do
        kill -0 $bench || fail "the benchmark ended"
        sleep 0.1
    done
    end_server -9
    serve
    until [ "$(status .state)" = attached ]; do sleep 0.1; done
done
kill $bench
wait $bench || fail "pages under kills: $(cat /run/report)"
[ "$(jq .wrong_pages /run/report) $(jq .dead_processes /run/report)" = "0 0" ] || fail "$(cat /run/report)"
[ "$(status .fabric.reconnects_total)" -ge 5 ] || fail "$(status .fabric)"
echo "killed 5 times: $(cat /run/report)"
timeout 60 farswap detach far0 >/dev/null || fail "detach"
until_true 30 nothing_granted || fail "slabs are left: $(memserver status --json)"
kill $server
wait $server
rmmod farmem
