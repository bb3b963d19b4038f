# Sourced by the tests of farmem.ko that run in a guest; the programs are those of FARMEM_BIN_DIR. Sets here, group (of processes that get
# little memory), far (where memserver listens: the other end of the cable) and MiB.
set -euo pipefail
here=$(dirname "${BASH_SOURCE[0]}")
group=/sys/fs/cgroup/limited
far=192.168.77.2
MiB=1048576
server=
export FARMEM_RUNTIME_DIR=/run/farmem
[ -z "${FARMEM_BIN_DIR-}" ] || PATH=$FARMEM_BIN_DIR:$PATH
mkdir -p $FARMEM_RUNTIME_DIR

unload() { rmmod farmem; }
load() { [ -d /sys/module/farmem ] || insmod "$module"; }

# With the module itself, not by farswap.
farmem_ko() { timeout 60 python3 "$here/farmem_netlink.py" "$@"; }
fail() {
    echo "FAILED: $*"
    farmem_ko status || true
    ! command -v farswap >/dev/null || farswap status || true
    cat /proc/swaps
    grep -sE '^(anon|swapcached|shmem|file_writeback) ' $group/memory.stat || true
    dmesg | tail -n 20
    [ ! -e /run/memserver.log ] || tail -n 10 /run/memserver.log
    exit 1
}
# refused STATUS WORDS COMMAND...: it says one line that holds the words. Where the test has a function nothing_left, that is so.
refused() {
    local wanted=$1 words=$2 status=0
    shift 2
    "$@" >/run/refused 2>&1 || status=$?
    [ "$status" = "$wanted" ] || fail "$*: status $status instead of $wanted: $(cat /run/refused)"
    [ "$(wc -l </run/refused)" = 1 ] && grep -q "$words" /run/refused || fail "$*: $(cat /run/refused)"
    [ "$(type -t nothing_left)" != function ] || nothing_left || fail "$*: something is left"
}
limited() { (echo $BASHPID >$group/cgroup.procs && exec "$@"); }
# until_true SECONDS COMMAND...: tries it until it is true; false when it was not in time.
until_true() {
    local end=$((SECONDS + $1))
    shift
    until "$@"; do
        [ "$SECONDS" -lt "$end" ] || return 1
        sleep 0.05
    done
}
# Pages that were on their way when their process ended are in the swap cache, and nobody's, until the kernel reclaims.
orphans() { echo $(($(sed -n 's/^swapcached //p' $group/memory.stat) >> 12)); }
# What `farswap status` says of its first device.
status() { farswap status --json | jq -r ".devices[0]$1"; }

# make_keys: /run/keys for `lab`, and secret, which is in it.
make_keys() {
    secret=$(head -c 32 /dev/urandom | od -v -An -tx1 | tr -d ' \n')
    (umask 77 && echo "lab:$secret" >/run/keys)
}
# serve: memserver, with what it had before; sets server.
capacity=160MiB
serve() {
    mkdir -p /dev/shm/pool
    [ -p /run/ready ] || mkfifo /run/ready
    memserver serve --capacity $capacity --pool /dev/shm/pool --auth-file /run/keys --rdma $far --ready-fd 9 9<>/run/ready 2>>/run/memserver.log &
    server=$!
    read -r -t 60 _ <>/run/ready || fail "memserver is not ready"
}
# end_server SIGNAL
end_server() { { kill "$1" "$server" && wait "$server"; } 2>/dev/null || true; }
granted() { memserver status --json | jq .granted_bytes; }
