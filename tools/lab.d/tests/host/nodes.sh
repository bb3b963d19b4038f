#!/bin/bash
# Two guests at the ends of a cable: RDMA between them with every byte checked, files in the exchange directory that both see, and a
# failure of node 1 that is not overlooked.
set -euo pipefail
lab="$(dirname "$0")/../../../lab"
read -ra run <<<"${FARMEM_LAB_RUN:-uml}"
[ "${run[0]}" = vm ] || { echo "User-Mode Linux has one node" && exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/exchange"

"$lab" "${run[@]}" --nodes 2 --exchange "$work/exchange" \
    --peer 'echo from node $FARMEM_LAB_NODE >"$FARMEM_LAB_DIR/greeting"; echo of node 1; exec rping -s -P -a "$FARMEM_LAB_ADDRESS" -S 4096 -V' \
    -- bash -euc '
        for _ in $(seq 600); do
            [ ! -e "$FARMEM_LAB_DIR/greeting" ] || ! rping -c -a "$FARMEM_LAB_PEER_ADDRESS" -C 100 -S 4096 -V || exit 0
            sleep 0.1
        done
        exit 1' >"$work/out" 2>"$work/err" || { cat "$work/out" "$work/err" && exit 1; }
[ "$(cat "$work/exchange/greeting")" = "from node 1" ]
grep -qx 'of node 1' "$work/err"

# failing WORDS COMMAND: what node 1 does makes the run fail, and WORDS say it.
failing() {
    local status=0
    "$lab" "${run[@]}" --nodes 2 --peer "$2" -- sleep 20 >"$work/out" 2>"$work/err" || status=$?
    [ $status = 70 ] && grep -q "node 1.*$1" "$work/err" || { cat "$work/err" && echo "status $status after: $2" && exit 1; }
}
failing 'status 3' 'exit 3'
failing 'its kernel ended' 'busybox poweroff -f'
failing 'WARNING: of a test' 'echo "WARNING: of a test" >/dev/kmsg'
