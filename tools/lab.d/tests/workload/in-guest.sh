#!/bin/bash
# in-guest.sh WORKLOAD MODULE MIB ROUNDS: what host/workloads.sh has done in a guest: each workload with all of its memory, half, and a quarter,
# behind the frontends of farmem.ko that there are here, or those in WORKLOAD_FRONTENDS. A table of the medians at the end.
set -euo pipefail
here=$(dirname "$0")
workload=$1 module=$2 size=$3 rounds=$4
group=/sys/fs/cgroup/workload
export FARMEM_RUNTIME_DIR=/run/farmem
[ -z "${FARMEM_BIN_DIR-}" ] || PATH=$FARMEM_BIN_DIR:$PATH
mkdir -p $group /run/farmem /dev/shm/pool

fail() {
    echo "FAILED: $*"
    cat /proc/swaps
    dmesg | tail -n 20
    exit 1
}
farmem_ko() { python3 "$here/../module/farmem_netlink.py" "$@"; }
quietly() { "$@" >/run/out 2>&1 || fail "$*: $(cat /run/out)"; }

# What a frontend needs, and its swap on and off.
block_on() {
    quietly farmem_ko attach far dram $((size << 21))
    quietly mkswap /dev/farmem0
    quietly swapon --discard /dev/farmem0
}
block_off() {
    quietly swapoff /dev/farmem0
    quietly farmem_ko detach far
}
# Its area is a loop device, for which the kernel reads ahead as for the others. It gets no page.
frontswap_on() {
    quietly farmem_ko attach far dram $((size << 21)) frontend=frontswap "area=$loop"
    quietly mkswap "$loop"
    quietly swapon "$loop"
}
frontswap_off() {
    quietly swapoff "$loop"
    quietly farmem_ko detach far
}
nbd_on() { quietly timeout 60 farswap attach "nbd+unix:///?socket=/run/nbd" --frontend nbd --size $((size * 2))MiB; }
nbd_off() { quietly timeout 60 farswap detach far0; }
fuse_on() { quietly timeout 60 farswap attach shm:/run/shm --frontend fuse --size $((size * 2))MiB; }
fuse_off() { nbd_off; }

frontends=()
insmod "$module"
frontends+=(block)
if [ -e /proc/sys/vm/memcg_high_async_pages ]; then
    truncate -s $((size * 2))M /tmp/area
    loop=$(losetup -f --show /tmp/area)
    frontends+=(frontswap)
fi
if [ -n "${WORKLOAD_FRONTENDS-}" ] && command -v farswap memserver >/dev/null; then
    mkfifo /run/ready
    memserver serve --capacity $((size * 4))MiB --pool /dev/shm/pool --shm /run/shm --nbd unix:/run/nbd --auto-lease $((size * 2))MiB \
        --ready-fd 9 9<>/run/ready 2>/run/memserver.log &
    server=$!
    read -r -t 30 _ <>/run/ready || fail "memserver is not ready: $(cat /run/memserver.log)"
    trap 'kill $server' EXIT
    frontends+=(nbd fuse)
fi
if [ -n "${WORKLOAD_FRONTENDS-}" ] && [ "$WORKLOAD_FRONTENDS" != all ]; then
    read -ra wanted <<<"$WORKLOAD_FRONTENDS"
    for name in "${wanted[@]}"; do [[ " ${frontends[*]} " = *" $name "* ]] || fail "no frontend $name here"; done
    frontends=("${wanted[@]}")
fi

# run NAME WORKLOAD PERCENT: appends to results.
results=/run/results
: >$results
run() {
    local limit=max words
    # Beside the memory that it works on there are the program and page tables.
    [ "$3" = 100 ] || limit=$((size * $3 * 10486 + (1 << 20)))
    echo $limit >$group/memory.max
    words=$(echo $BASHPID >$group/cgroup.procs && exec timeout 900 "$workload" "$2" "$size") || fail "$2 at $3 % on $1: $words"
    if [ "$3" != 100 ]; then
        # It did swap; the group's count is since the last workload.
        local in
        in=$(awk '/^pgmajfault/ {print $2}' $group/memory.stat)
        [ $((in - faults)) -gt 100 ] || fail "$2 at $3 % on $1 did not swap: $((in - faults)) major faults"
    fi
    faults=$(awk '/^pgmajfault/ {print $2}' $group/memory.stat)
    echo "$1 $2 $3 $words" | tee -a $results >&2
}
faults=0
for _ in $(seq "$rounds"); do
    for name in sort map stream; do run memory $name 100; done
    for frontend in "${frontends[@]}"; do
        "${frontend}_on"
        for name in sort map stream; do
            for percent in 50 25; do run "$frontend" $name $percent; done
        done
        "${frontend}_off"
    done
done
rmmod farmem
python3 - "$size" "$rounds" "${frontends[@]}" <<'PYTHON'
import statistics, sys
runs = {}
for line in open("/run/results"):
    frontend, workload, percent, seconds, wrong, _ = line.split()
    assert wrong == "0"
    runs.setdefault((frontend, workload, percent), []).append(float(seconds))
medians = {key: statistics.median(values) for key, values in runs.items()}
print(f"{sys.argv[1]} MiB each, medians of {sys.argv[2]}; slowdown against all of it in memory; 0 wrong words\n")
print("| | sort 50 % | sort 25 % | map 50 % | map 25 % | stream 50 % | stream 25 % |\n| --- " + "| --- " * 6 + "|")
for frontend in sys.argv[3:]:
    cells = [f"{medians[frontend, w, p] / medians['memory', w, '100']:.1f}x" for w in ("sort", "map", "stream") for p in ("50", "25")]
    print(f"| {frontend} | " + " | ".join(cells) + " |")
print("| in memory, s | " + " | ".join(f"{medians['memory', w, '100']:.2f} |" for w in ("sort", "map", "stream")))
PYTHON
